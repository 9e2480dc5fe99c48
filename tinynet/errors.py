"""What can the reader put right, and how does a program end on it?"""
import os
import sys
import warnings


class UserError(ValueError):
    """Something that the reader can put right: what, where, and what to do next.

    The command line prints it without a traceback.
    """


class Interrupted(Exception):
    """Somebody pressed Ctrl-C, and everything is saved. The message says how to go on."""


def exit_status(program, command, out_of_memory=None, go_on=""):
    """Run command() as the whole of a program; its result is the exit status.

    Every error that the reader can put right becomes one line on stderr that begins with the
    program's name, and the status 1. An interruption gives 130, as shells have it.
    out_of_memory: a function that says what would fit. go_on: how to go on after Ctrl-C.
    """
    if sys.stdout is None:                 # closed by the caller
        sys.stdout = open(os.devnull, "w")
    try:
        with warnings.catch_warnings():
            # Overflow is no news: a net that diverges is reported as such, and not saved.
            warnings.simplefilter("ignore", RuntimeWarning)
            return command()
    except BrokenPipeError:                # the reader of our output has left
        sys.stdout = open(os.devnull, "w")
        return 1
    except (UserError, OSError) as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 1
    except MemoryError as error:
        error.with_traceback(None)         # which holds the arrays of the step
        advice = out_of_memory() if out_of_memory else "out of memory"
        print(f"{program}: error: {advice}", file=sys.stderr)
        return 1
    except (Interrupted, KeyboardInterrupt) as error:
        hint = str(error) or go_on
        print(f"\n{program}: interrupted{hint and '; ' + hint}", file=sys.stderr)
        return 130
