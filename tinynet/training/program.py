"""How is a program called, what does it take, and how does it end?"""
import argparse
import os
import shlex
import shutil
import sys
import warnings
from pathlib import Path

from ..errors import Interrupted, UserError
from ..progress import shown, warn


class Parser(argparse.ArgumentParser):
    """A parser whose errors are the one line that matters."""

    def __init__(self, *args, **how):
        super().__init__(*args, formatter_class=argparse.RawDescriptionHelpFormatter, **how)

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}   "
                     f"({self.prog} --help lists all options)\n")


def typed(read, wanted):
    """An argparse type: what `read` makes of a text; `wanted` says what it takes."""
    def value(text):
        try:
            return read(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {wanted}, not {text!r}") from None
    return value


def at_least(least, most=sys.maxsize):
    """An argparse type: a whole number from `least` to `most`."""
    def read(text):
        if not least <= int(text) <= most:
            raise ValueError
        return int(text)
    return typed(read, f"a whole number, at least {least}"
                 + (f" and at most {most}" if most < sys.maxsize else ""))


def program():
    """The words with which this program was started: python alexnet.py, python -m tinynet, or
    the command alexnet that pip installs."""
    python, started = shown(sys.executable), Path(sys.argv[0])
    if started.parts[-2:] == ("tinynet", "__main__.py"):
        return [python, "-m", "tinynet"]
    if started.stem == "alexnet" and started.suffix != ".py":
        return ["alexnet" if shutil.which("alexnet") else shown(started)]
    return [python, shown(Path(__file__).parents[2] / "alexnet.py")]


def program_name():
    """The same for messages: alexnet.py, python -m tinynet or alexnet."""
    *before, last = program()
    return "python -m tinynet" if "-m" in before else Path(last).name


def command(*words):
    """A command of this program as it can be typed from here."""
    return shlex.join([*program(), *(
        shown(word) if isinstance(word, Path) else word for word in words)])


SEED = at_least(0, 2 ** 56 - 1)            # what rng.words takes


def exit_status(name, run, out_of_memory=None, go_on=""):
    """run() as the whole of the program of this name; its result is the exit status.

    Every error that the reader can put right becomes one line on stderr that begins with the
    program's name, and the status 1. An interruption gives 130, as shells have it.
    out_of_memory: a function that says what would fit. go_on: how to go on after Ctrl-C.
    """
    sys.stdout = sys.stdout or open(os.devnull, "w")       # None: closed by the caller
    sys.stderr = sys.stderr or open(os.devnull, "w")
    try:
        with warnings.catch_warnings():
            # Overflow is no news: a net that diverges is reported as such, and not saved.
            warnings.simplefilter("ignore", RuntimeWarning)
            return run()
    except BrokenPipeError:                # the reader of our output has left
        sys.stdout = open(os.devnull, "w")
        return 1
    except (UserError, OSError) as error:
        warn(f"{name}: error: {error}")
        return 1
    except MemoryError as error:
        error.with_traceback(None)         # which holds the arrays of the step
        advice = out_of_memory() if out_of_memory else "out of memory"
        warn(f"{name}: error: {advice}")
        return 1
    except (Interrupted, KeyboardInterrupt) as error:
        hint = str(error) or go_on
        warn(f"\n{name}: interrupted{hint and '; ' + hint}")
        return 130
