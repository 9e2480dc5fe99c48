"""How do NumPy's files keep a dict of layers, or a mean image?

bvlc_alexnet.npy, from which many courses load AlexNet, holds an array of one object: a pickled
dict, layer -> [weights, biases], as TensorFlow orders their axes. np.load would run it.
"""
import io
import math

import numpy as np

from . import pickles
from .plan import Foreign, named


def read(data):
    """The net in a .npy file (a memoryview): a Foreign. Raises ValueError."""
    shape, _, dtype, at = _header(data)
    if dtype.kind != "O" or shape != ():
        raise ValueError("it holds no dict of layers")

    made, _ = pickles.read(data, at, names_of(Array))
    layers = made.array
    if type(layers) is not dict:
        raise ValueError("it holds no dict of layers")
    pairs, size = [], 0
    for both in layers.values():
        both = [both["weights"], both["biases"]] if type(both) is dict else both
        weights, biases = (one.array for one in both)
        size += weights.size + biases.size
        pairs.append((weights.transpose(3, 2, 0, 1) if weights.ndim == 4 else weights.T, biases))
    if size > len(data):
        raise ValueError("its arrays are larger than it is")           # they are the same ones
    found = named(pairs)
    last = found["conv6.weight" if "conv6.weight" in found else "conv5.weight"]
    fc6, maps = found["fc6.weight"], len(last)
    side = math.isqrt(fc6.shape[1] // maps)
    # Its inputs by row, column, map, where PyTorch has map, row, column. With four axes it
    # remains a view.
    found["fc6.weight"] = fc6.reshape(-1, side, side, maps).transpose(0, 3, 1, 2)
    return Foreign("TensorFlow", found, blue_first=True)


def names_of(array):
    """For pickles.read: what stands for the names in pickles of arrays, of old NumPys and new.
    array: Array, or a subclass for other numbers."""
    known = {"numpy ndarray": None, "numpy dtype": _DType, "_codecs encode": _latin1}
    for core in "numpy.core", "numpy._core":
        known |= {f"{core}.multiarray _reconstruct": array,
                  f"{core}.numeric _frombuffer": array.from_buffer}
    return known


def _latin1(text, encoding):
    if encoding != "latin1":
        raise ValueError("text in another encoding than latin1")
    return memoryview(text.encode("latin1"))


class _DType:
    def __init__(self, code, *flags):
        self.code, self.order = code, "="

    def set_state(self, state):
        self.order = state[1]


class Array:
    """An array, first without content. It takes three forms: numbers, an object, nothing yet."""
    numbers = "f2", "f4", "f8"

    def __init__(self, *how):
        self.array = None

    def set_state(self, state):
        _, shape, dtype, by_columns, content = state
        if dtype.code in ("O", "O8"):
            if shape != () or len(content) != 1:
                raise ValueError("an array of many objects")
            self.array = content[0]
            return
        if dtype.code not in self.numbers or dtype.order not in ("<", ">", "=", "|"):
            raise ValueError(f"an array of {dtype.code}, not of {' or '.join(self.numbers)}")
        if type(content) is str:           # a short one of Python 2's
            content = content.encode("latin1")
        self.array = np.frombuffer(content, dtype.order + dtype.code).reshape(
            shape, order="F" if by_columns else "C")

    @classmethod
    def from_buffer(cls, content, dtype, shape, order):
        made = cls()
        made.set_state((1, shape, dtype, order == "F", content))
        return made


def read_mean(data):
    """The mean image in a .npy file: (3, 256, 256)."""
    shape, by_columns, dtype, at = _header(data)
    if dtype.str[1:] not in Array.numbers or math.prod(shape) * dtype.itemsize != len(data) - at:
        raise ValueError(f"it holds {dtype} in the shape {shape}, and {len(data) - at:,} bytes")
    return np.frombuffer(data[at:], dtype).reshape(shape, order="F" if by_columns else "C")


def _header(data):
    """(shape, whether by columns, dtype, where the content begins)"""
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("it is of another version of NumPy's format")
    return *np.lib.format.read_array_header_1_0(file), file.tell()
