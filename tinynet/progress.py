"""How does a long job say how it goes?"""
import errno
import os
import sys
from contextlib import suppress

speaks = True              # of several ranks only the first does (ranks.py)


def bar(total, what, done=0, **how):
    """A tqdm bar on stderr; where that is no terminal, nothing (log lines suffice).
    how: more that tqdm is told, as of units."""
    if not speaks or not sys.stderr.isatty():
        return NoBar()
    from tqdm import tqdm  # late: it takes a third as long as NumPy, and few need it
    tqdm.monitor_interval = 0  # no thread that looks after bars: its stack counts under ulimit -v
    return tqdm(total=total, initial=done, desc=what, leave=False, dynamic_ncols=True,
                smoothing=0.05, **how)


class NoBar:
    """What stands for a bar where nobody would see one."""
    n = 0

    def update(self, count=1):
        self.n += count

    def close(self, *ignored):
        pass

    set_description_str = set_postfix_str = __exit__ = close

    def __enter__(self):
        return self


def say(line, stream="stdout"):
    """Print a line without breaking the bar. If nobody can take it any more (a reader that has
    left, a closed terminal, a full disk), the job goes on without."""
    if not speaks:
        return
    write = sys.modules["tqdm"].tqdm.write if "tqdm" in sys.modules else print
    try:
        write(printable(line), file=getattr(sys, stream))
        getattr(sys, stream).flush()
    except OSError as error:
        drop(stream)
        if stream == "stdout" and error.errno != errno.EPIPE:
            warn(f"stdout: {error.strerror}; nothing more is printed there")


def drop(stream):
    """Send to nowhere what is printed on stdout or stderr, and what still waits to be written:
    else Python would try once more at its end, and say so."""
    with suppress(OSError, ValueError):    # it is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), getattr(sys, stream).fileno())
    setattr(sys, stream, open(os.devnull, "w"))


def warn(line):
    """The same on stderr."""
    say(line, "stderr")


def printable(text):
    """A text in which a terminal finds no commands, and an encoder nothing but characters: a
    file may be called anything."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in str(text))


def shown(path):
    """A path as short as it can be typed from here."""
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):          # here is a folder that was removed; another drive
        return str(path)
    if relative.startswith("-"):           # else a command takes it for an option
        return os.path.join(".", relative)
    return str(path) if relative.startswith("..") else relative
