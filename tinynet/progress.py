"""How does a long job say how it goes, and how is it stopped without losing anything?"""
import os
import signal
import sys
import threading

from tqdm import tqdm


def bar(total, what, done=0):
    """A tqdm bar on stderr; where that is no terminal, nothing (log lines suffice)."""
    return tqdm(total=total, initial=done, desc=what, disable=None, leave=False,
                dynamic_ncols=True, smoothing=0.05)


def say(line):
    """Print a line without breaking the bar. If nobody reads any more, the job goes on."""
    try:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")


def warn(line):
    """The same on stderr."""
    tqdm.write(line, file=sys.stderr)


def shown(path):
    """A path as short as it can be typed from here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


class Interruptible:
    """Inside, Ctrl-C (or a termination signal) is noted instead of breaking off.

    Ask `if interrupted:` between two steps. A second Ctrl-C leaves at once. In a thread that
    is not the main one nothing is noted: Python sends signals to the main thread alone.
    """

    SIGNALS = signal.SIGINT, signal.SIGTERM

    def __init__(self):
        self.asked = False

    def __bool__(self):
        return self.asked

    def __enter__(self):
        here = threading.current_thread() is threading.main_thread()
        self.before = {number: signal.signal(number, self._note)
                       for number in (self.SIGNALS if here else ())}
        return self

    def __exit__(self, *error):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        self.asked = True
        signal.signal(number, signal.default_int_handler)
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"\nfinishing this step, then saving (Ctrl-C again: leave at once)\n")
