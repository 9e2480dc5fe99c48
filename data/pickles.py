"""How is a pickle read so that it can do nothing?

A pickle is a list of instructions; the dangerous ones call a function that the pickle names.
Here the few names that belong to an array lead to the classes below, which only take notes, and
every other name is refused. NumPy has called its module numpy.core and numpy._core, and pickled
arrays in two ways; files written by Python 2 hold bytes, where Python 3 writes text and a call
that turns it into bytes.

A pickle may also ask for more memory than it has bytes: it may file a note under the number two
billion, or turn one text into bytes a thousand times. It is looked through before it is read.
"""
import io
import pickle
import pickletools
import re

import numpy as np

from tinynet.errors import UserError

OPCODES = 1 << 20          # of a pickle; as many pictures as CIFAR-10's take 20,000 to 120,000
LATIN1 = 1 << 26           # bytes that a pickle may make of texts; CIFAR-10's are 31 million


def unpickle(content, where, known=False):
    """The dict in a pickle of numbers, text, bytes, lists, dicts and arrays of integers, its
    labels as an array.

    known: whether the pickle needs no looking through, which takes longer than reading it.
    Raises UserError if it names anything else, if it is damaged, or if it asks for more memory
    than it has bytes.
    """
    try:
        if not known:
            _look_through(content)
        found = _Unpickler(content).load()
        found = {key.decode() if isinstance(key, bytes) else key:
                 value.array if isinstance(value, _Array) else value
                 for key, value in found.items()}
        labels = found.get("labels", [])
        if isinstance(labels, list) and not all(type(label) is int for label in labels):
            raise pickle.UnpicklingError("its labels are no list of whole numbers")
        if not isinstance(labels, list | np.ndarray):
            raise pickle.UnpicklingError(f"its labels are a {type(labels).__name__}")
        return dict(found, labels=np.asarray(labels))
    except Exception as error:         # a damaged pickle can fail in any way
        raise UserError(f"{where} is damaged or not to be trusted: {error}") from error


def _look_through(content):
    """Raise UnpicklingError for what would make the reader take memory. That no content is longer
    than the file, genops sees for itself."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if count == OPCODES:
            raise pickle.UnpicklingError(f"it has more than {OPCODES:,} instructions")
        # The reader keeps its notes in an array of twice the highest number.
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > count:
            raise pickle.UnpicklingError(f"note {argument:,} among {count:,} instructions")


class _Unpickler(pickle.Unpickler):
    def __init__(self, content):
        super().__init__(io.BytesIO(content), encoding="bytes")
        # No method: the notes of this object would hold it, and so this object itself.
        self.latin1 = _latin1_at_most(LATIN1)

    def find_class(self, module, name):
        numpy_module = module.replace("numpy._core", "numpy.core")
        known = {("numpy.core.multiarray", "_reconstruct"): _Array,
                 ("numpy.core.numeric", "_frombuffer"): _Array.from_buffer,
                 ("numpy", "ndarray"): "ndarray", ("numpy", "dtype"): _DType,
                 ("_codecs", "encode"): self.latin1}
        if (numpy_module, name) not in known:
            raise pickle.UnpicklingError(f"it wants to use {module}.{name}")
        return known[numpy_module, name]


def _latin1_at_most(left):
    """What makes bytes of texts, `left` of them in all."""
    def latin1(text, encoding):
        nonlocal left
        left -= len(text)
        if encoding != "latin1" or left < 0:
            raise pickle.UnpicklingError(f"too much text, or in {encoding}")
        return text.encode("latin1")
    return latin1


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
