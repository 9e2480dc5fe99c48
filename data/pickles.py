"""How are CIFAR-10's batches read, which are pickles, so that these can do nothing?

By tinynet.formats.pickles. Here is what their arrays may hold, and what their labels are.
"""
import numpy as np

from tinynet.errors import UserError
from tinynet.formats import numpy_file, pickles


class Integers(numpy_file.Array):
    numbers = "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"


def unpickle(content, where):
    """The dict in a pickle (protocols 2 to 5) of numbers, text, bytes, lists, dicts and arrays of
    integers, its labels as an array.

    Raises UserError if it names anything else, if it is damaged, or if it asks for more memory
    than it has bytes.
    """
    try:
        if content[:1] != b"\x80":
            raise ValueError("it is no pickle of protocol 2 to 5; write it again with protocol=2")
        found, _ = pickles.read(memoryview(content), 0, numpy_file.names_of(Integers))
        if type(found) is not dict:
            raise ValueError("it holds no dict")
        found = {key: value.array if isinstance(value, Integers) else value
                 for key, value in found.items()}
        labels = found.get("labels", [])
        if isinstance(labels, list) and not all(type(label) is int for label in labels):
            raise ValueError("its labels are no list of whole numbers")
        if not isinstance(labels, (list, np.ndarray)):
            raise ValueError(f"its labels are a {type(labels).__name__}")
        return dict(found, labels=np.asarray(labels))
    except Exception as error:         # a damaged pickle can fail in any way
        raise UserError(f"{where} is damaged or not to be trusted: {error}") from error
