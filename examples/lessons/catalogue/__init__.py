"""The exercises of all lessons, a file for each lesson, with the mistakes that people make."""
import importlib
import pkgutil
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))      # where tinynet is not installed
try:
    import tinynet  # noqa: F401
except ImportError as problem:
    sys.exit(f"{problem}\nstart the environment with  . .venv/bin/activate   (README's first "
             "command makes it)")


def exercises():
    """{number: exercise}, in the order of the lessons."""
    found = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__)):
        for exercise in importlib.import_module(f"{__name__}.{module}").EXERCISES:
            if exercise.number in found:
                raise ValueError(f"there are two exercises {exercise.number}")
            found[exercise.number] = exercise
    return found
