"""How does somebody end a run from outside, and nothing is lost?"""
import os
import signal
import threading
from contextlib import suppress

from .. import progress
from ..ranks import ALONE


class Interruptible:
    """Inside, Ctrl-C (or a termination signal) is noted instead of breaking off.

    Ask `if interrupted:` between two steps. A second Ctrl-C leaves at once. In a thread that
    is not the main one nothing is noted: Python sends signals to the main thread alone. SIGUSR1
    is for the launchers of several ranks, which pass that one on; all ranks end with one step.
    """

    SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
               if hasattr(signal, name)]               # there is no SIGHUP on Windows

    def __init__(self, ranks=ALONE):
        self.asked, self.ranks = False, ranks

    def __bool__(self):
        return self.asked if self.ranks.size == 1 else self.ranks.agreed

    def __enter__(self):
        here = threading.current_thread() is threading.main_thread()
        self.before = {number: signal.signal(number, self._note)
                       for number in (self.SIGNALS if here else ())
                       if signal.getsignal(number) != signal.SIG_IGN}      # as nohup has it
        return self

    def __exit__(self, *error):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        self.asked = True
        if self.ranks.size > 1:            # the others hear of it with the next batch
            self.ranks.asked = True
        signal.signal(number, signal.default_int_handler)
        if not progress.speaks:
            return
        # Not print: the signal may have come in the middle of one. And whoever read it may have
        # been sent the same signal, as tee is.
        with suppress(OSError):
            os.write(2, b"\nfinishing this step, then saving (Ctrl-C again: leave at once)\n")
