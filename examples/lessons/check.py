"""Is my answer right, and if not, which mistake is it?

    python examples/lessons/check.py                  what there is to do
    python examples/lessons/check.py 5.1 --show       what is asked, and a case by hand
    python examples/lessons/check.py 5.1 mine.py      the function in mine.py
    python examples/lessons/check.py 12.1 62378344    a number, or a word

Write a function into a file of your own; its name is the one that --show prints. Worked answers
are in examples/lessons/answers: each says why the wrong ones tempt.
"""
import argparse
import runpy
import sys
from textwrap import shorten

import catalogue
from exercise import Exercise, last_frame
from tinynet.training.program import exit_status


def functions(path):
    """What a file of the reader's defines: {name: function}. Exits where it does not run."""
    try:
        names = runpy.run_path(path)
    except FileNotFoundError:
        sys.exit(f"{path}: no such file")
    except SystemExit:
        sys.exit(f"not yet: {path} ends itself, as by sys.exit()")
    except Exception as error:
        # Of a SyntaxError there is no frame: Python has not begun to run the file.
        place, said = last_frame(error, path), error
        if isinstance(error, SyntaxError):
            place, said = place or error, error.msg
        at = f"line {place.lineno}: " if place else ""
        sys.exit(f"not yet: {path} does not run: {at}{type(error).__name__}: {said}")
    return {name: value for name, value in names.items()
            if callable(value) and not name.startswith("__")}


def check(exercise, answer):
    """What is to be told of an answer: a path, a number or a word. None if it is right."""
    if not isinstance(exercise, Exercise):
        return exercise.verdict(answer)
    found = functions(answer)
    if exercise.name not in found:
        own = ", ".join(found) or "none"
        sys.exit(f"not yet: {answer} has no function {exercise.name}; those it has: {own}")
    return exercise.verdict(found[exercise.name])


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("number", nargs="?", help="of the exercise, such as 5.1")
    parser.add_argument("answer", nargs="*", help="a file, a number or a word")
    parser.add_argument("--show", action="store_true", help="what is asked, and a first case")
    args = parser.parse_args(argv)
    exercises = catalogue.exercises()
    if not args.number:
        for number, exercise in exercises.items():
            print(f"{number:5} {shorten(exercise.ask, 74, placeholder=' ...')}")
        return
    if args.number not in exercises:
        sys.exit(f"there is no exercise {args.number}; without a number, this lists all")
    exercise = exercises[args.number]
    answer = " ".join(args.answer)
    if args.show or not answer:
        print(exercise.show())
        return
    told = check(exercise, answer)
    if told:
        sys.exit(f"not yet: {told}")
    what = f"{exercise.name} agrees on {len(exercise.cases)} cases" if isinstance(
        exercise, Exercise) else answer
    print(f"right: {what}")


if __name__ == "__main__":
    sys.exit(exit_status("check.py", main))
