"""Which names of NumPy does CuPy have, and with which arguments?

Read off the real CuPy where it can be imported, which takes no GPU; else by cupy_names.txt, which
was made by this program:

    python tests/cupy_names.py > tests/cupy_names.txt        where CuPy is installed
"""
import functools
import inspect
import re
from pathlib import Path

import numpy as np

NAMES = Path(__file__).with_name("cupy_names.txt")
UNSUPPORTED = "base", "data", "flat", "dump", "dumps", "tobytes", "tofile"


class NotInCuPy(AttributeError, TypeError):
    """A name or an argument that CuPy does not have."""


def names_of(cupy):
    """What CuPy has under names that NumPy has too: a dict from the name to its arguments, as
    text like "(a, axis=None)", or "" if it cannot be called. Every default reads None."""
    names = {}
    for path, owner, example in (("", cupy, np), ("linalg.", cupy.linalg, np.linalg),
                                 ("lib.stride_tricks.", cupy.lib.stride_tricks,
                                  np.lib.stride_tricks),
                                 ("ndarray.", cupy.ndarray, np.ndarray),
                                 ("ufunc.", cupy.ufunc, np.ufunc)):
        for name in sorted(set(dir(owner)) & set(dir(example))):
            value = getattr(owner, name)
            if not (name.startswith("_") or name in UNSUPPORTED or inspect.ismodule(value)):
                names[path + name] = _arguments(value)
    return names


def _arguments(value):
    if isinstance(value, type) or not callable(value):
        return ""
    if hasattr(value, "nin"):                          # a ufunc
        inputs = ", ".join(f"x{i + 1}" for i in range(value.nin))
        return f"({inputs}, /, out=None, *, casting=None, dtype=None)"
    text = (value.__doc__ or "").partition("\n")[0]
    try:
        signature = inspect.signature(value)
    except ValueError:                                 # Cython: the first line of the docstring
        signature = _parsed(re.sub(r"\w+ (?=\w)", "", re.search(r"\(.*\)", text)[0]))
    if list(signature.parameters) == ["operands", "kwargs"]:
        signature = _parsed(re.search(r"\(.*\)", text)[0])                       # einsum
    return str(signature.replace(return_annotation=inspect.Signature.empty, parameters=[
        p.replace(annotation=p.empty, default=p.default if p.default is p.empty else None)
        for p in signature.parameters.values()]))


@functools.cache
def _parsed(arguments):
    return inspect.signature(eval(f"lambda {arguments[1:-1]}: None"))


def names_on_file():
    lines = NAMES.read_text(encoding="utf-8").splitlines()
    return {line.partition("(")[0]: "".join(line.partition("(")[1:]) for line in lines[1:]}


def listed(path):
    if path not in names:
        raise NotInCuPy(f"CuPy has no {path}")
    return path


def check(path, args, kwargs):
    try:
        _parsed(names[listed(path)]).bind(*args, **kwargs)
    except TypeError as error:
        raise NotInCuPy(f"CuPy's {path}{names[path]}: {error}") from None


try:
    import cupy as real_cupy
    names = names_of(real_cupy)
except ImportError:
    real_cupy = None
    names = names_on_file()

if __name__ == "__main__":
    print(f"# CuPy {real_cupy.__version__}")
    print(*(name + arguments for name, arguments in names.items()), sep="\n")
