"""How is a program called, what does it take, and how does it end?"""
import argparse
import errno
import os
import re
import shlex
import shutil
import sys
import traceback
import warnings
from contextlib import suppress
from pathlib import Path

from .. import ranks
from ..errors import Interrupted, UserError
from ..progress import drop, shown, warn


class Parser(argparse.ArgumentParser):
    """A parser whose errors are the one line that matters."""

    def __init__(self, *args, **how):
        super().__init__(*args, formatter_class=argparse.RawDescriptionHelpFormatter, **how)

    def parse_args(self, args=None, namespace=None):
        open_streams()                     # --help prints
        words = list(map(str, sys.argv[1:] if args is None else args))
        for before, word in zip([self.prog, *words], words, strict=False):
            # Of "--lr=--" argparse drops the "--".
            if not word or re.fullmatch("--[^=]*=(--)?", word):
                self.error(f"the word behind {before} is empty: is a variable unset?" if not word
                           else f"{word} without a value: is a variable unset?")
        found, others = self.parse_known_args(words, namespace)
        if others:
            command = vars(found).get("command", "")
            self.error(f"unrecognized arguments: {' '.join(others)}", command)
        return found

    def error(self, message, command=""):
        if ranks.told()[1]:                # of several processes the first has said it
            self.exit(2)
        self.exit(2, f"{self.prog}: error: {message}   "
                     f"({' '.join([self.prog, command]).strip()} --help lists all options)\n")


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


# How a RuntimeError ends with which CUDA or a library of it says so, and not CuPy's pool.
OF_MEMORY = "out of memory", "ALLOC_FAILED"
SEED = at_least(0, 2 ** 56 - 1)            # what rng.words takes


def exit_status(name, run, out_of_memory=lambda: "out of memory", go_on=""):
    """run() as the whole of the program of this name; its result is the exit status.

    Every error that the reader can put right becomes one line on stderr that begins with the
    program's name, and the status 1. An interruption gives 130, as shells have it. If this is one
    of several ranks and the status is not 0, all of them end, unless they do so anyway.
    out_of_memory: a function that says what would fit. go_on: how to go on after Ctrl-C.
    """
    open_streams()
    try:
        status = _exit_status(name, run, out_of_memory, go_on)
    except BaseException:                  # sys.exit as well: the others would wait for ever
        if ranks.current.size == 1:
            raise
        traceback.print_exc()
        status = 1
    if status and not ranks.current.ended_together:
        ranks.current.abort(status)
    return status


def _exit_status(name, run, out_of_memory, go_on):
    try:
        os.getcwd()                        # if it is gone, much fails later, and oddly
        with warnings.catch_warnings():
            # Overflow is no news: a net that diverges is reported as such, and not saved.
            warnings.simplefilter("ignore", RuntimeWarning)
            status = run()
            sys.stdout.flush()
            return status
    except BrokenPipeError:                # the reader of our output has left
        drop("stdout")
        return 1
    except UserError as error:
        problem = str(error)               # not the error, which holds all that it went through
    except OSError as error:
        problem = os_error(error)
        if not error.filename:             # what was printed
            drop("stdout")
    except (MemoryError, RuntimeError, ImportError) as error:
        if isinstance(error, MemoryError) or str(error).endswith(OF_MEMORY):
            error.__traceback__ = error.__context__ = None     # which hold the step's arrays
            problem = "out of memory"
            with suppress(Exception):      # there may be no memory even to say more
                problem = out_of_memory()
        elif str(error).endswith(("can't start new thread", "from shared object")):
            problem = f"{error}; is a limit reached, ulimit -v or -u?"     # for a stack, a library
        else:
            raise
    except (Interrupted, KeyboardInterrupt) as error:
        hint = str(error) or go_on
        warn(f"\n{name}: interrupted{hint and '; ' + hint}")
        return 130
    warn(f"{ranks.current.last_words()}{name}: error: {problem}")
    return 1


def open_streams():
    """Let stdout and stderr take whatever is printed: also if the caller has closed them, and
    characters that the terminal does not know."""
    for name in "stdout", "stderr":
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))
        if hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")


NEXT = {errno.ENOSPC: "make room, or write elsewhere",
        errno.EMFILE: "allow more open files: ulimit -n 4096",
        errno.EACCES: "change its rights, or choose another place",
        errno.EROFS: "choose another place", errno.ENOTDIR: "choose another place",
        errno.EEXIST: "choose another name", errno.ELOOP: "remove the link",
        errno.ENOENT: "is the name right, and its folder there?"}


def os_error(error):
    """An OSError: where, what, and what to do next."""
    if not error.filename and error.errno == errno.ENOENT:
        return "the working folder is gone; cd to another"
    where = shown(error.filename) if error.filename else "what is printed"
    # Not str(error): once there is a file name it is made of number and strerror alone.
    what, following = error.strerror or " ".join(map(str, error.args)), NEXT.get(error.errno)
    return f"{where}: {what}" + (f"; {following}" if following else "")
