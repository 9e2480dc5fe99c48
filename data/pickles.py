"""How is a pickle read so that it can do nothing?

A pickle is a list of instructions; the dangerous ones call a function that the pickle names.
Here the few names that belong to an array lead to the classes below, which only take notes, and
every other name is refused. NumPy has called its module numpy.core and numpy._core, and pickled
arrays in two ways; files written by Python 2 hold bytes, where Python 3 writes text and a call
that turns it into bytes.
"""
import io
import pickle
import re

import numpy as np

from tinynet.errors import UserError


def unpickle(content, where):
    """The dict in a pickle of numbers, text, bytes, lists, dicts and arrays of integers, its
    labels as an array.

    Raises UserError if it names anything else, or is damaged.
    """
    try:
        found = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        found = {key.decode() if isinstance(key, bytes) else key:
                 value.array if isinstance(value, _Array) else value
                 for key, value in found.items()}
        return dict(found, labels=np.asarray(found.get("labels", ())))
    except Exception as error:         # a damaged pickle can fail in any way
        raise UserError(f"{where} is damaged or not to be trusted: {error}") from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        numpy_module = module.replace("numpy._core", "numpy.core")
        known = {("numpy.core.multiarray", "_reconstruct"): _Array,
                 ("numpy.core.numeric", "_frombuffer"): _Array.from_buffer,
                 ("numpy", "ndarray"): "ndarray", ("numpy", "dtype"): _DType,
                 ("_codecs", "encode"): _latin1}
        if (numpy_module, name) not in known:
            raise pickle.UnpicklingError(f"it wants to use {module}.{name}")
        return known[numpy_module, name]


class _DType:
    def __init__(self, code, *flags):
        self.code, self.order = code, "="

    def __setstate__(self, state):
        self.order = state[1]

    def read(self, content, shape):
        code, order = ([text.decode() if isinstance(text, bytes) else text
                        for text in (self.code, self.order)])
        if not re.fullmatch("[iu][1248]", code):
            raise pickle.UnpicklingError(f"an array of {code!r}, not of integers")
        return np.frombuffer(content, np.dtype(order + code)).reshape(shape)


class _Array:
    def __init__(self, *how):
        """Called with a first shape of (0,); what counts comes later, as the state."""

    def __setstate__(self, state):
        _, shape, dtype, column_major, content = state
        self.array = dtype.read(content, shape[::-1] if column_major else shape)
        if column_major:
            self.array = self.array.T

    @classmethod
    def from_buffer(cls, content, dtype, shape, order):
        made = cls()
        made.__setstate__((1, shape, dtype, order == "F", content))
        return made


def _latin1(text, encoding):
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding}")
    return text.encode("latin1")
