"""How does a long job say how it goes?"""
import os
import sys

from tqdm import tqdm


def bar(total, what, done=0):
    """A tqdm bar on stderr; where that is no terminal, nothing (log lines suffice)."""
    return tqdm(total=total, initial=done, desc=what, disable=None, leave=False,
                dynamic_ncols=True, smoothing=0.05)


def say(line, stream="stdout"):
    """Print a line without breaking the bar. If nobody can take it any more (a reader that has
    left, a closed terminal, a full disk), the job goes on without."""
    try:
        tqdm.write(line, file=getattr(sys, stream))
        getattr(sys, stream).flush()
    except OSError:
        setattr(sys, stream, open(os.devnull, "w"))


def warn(line):
    """The same on stderr."""
    say(line, "stderr")


def shown(path):
    """A path as short as it can be typed from here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
