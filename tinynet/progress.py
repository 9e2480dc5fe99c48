"""How does a long job say how it goes?"""
import os
import sys

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
