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

# How many bytes follow an instruction. Below 0, what says so in the pickle: the end of a line, or
# of two; or a number, of WIDTHS bytes.
UNKNOWN, STOP, PUT = -9, ord(pickle.STOP), ord(pickle.PUT)
SIZES = dict.fromkeys(range(256), UNKNOWN) | {
    ord(known.code): known.arg.n if known.arg else 0 for known in pickletools.opcodes}
WIDTHS = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4: 4,
          pickletools.TAKEN_FROM_ARGUMENT4U: 4, pickletools.TAKEN_FROM_ARGUMENT8U: 8}
TWO_LINES = pickle.GLOBAL + pickle.INST
NOTES = {*pickle.PUT, *pickle.BINPUT, *pickle.LONG_BINPUT}


def unpickle(content, where):
    """The dict in a pickle of numbers, text, bytes, lists, dicts and arrays of integers, its
    labels as an array.

    Raises UserError if it names anything else, if it is damaged, or if it asks for more memory
    than it has bytes.
    """
    try:
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
    """Raise UnpicklingError for what would make the reader take memory.

    It steps over what it need not know. pickletools.genops, which reads every argument, takes
    longer than the reader itself, and this takes a sixth.
    """
    at, end = 0, len(content)
    for count in range(OPCODES):
        if at >= end:
            raise pickle.UnpicklingError("it is truncated: its last instruction is missing")
        code = content[at]
        at += 1
        size = SIZES[code]
        if size < 0:
            at, size = _argument(content, at, code)
        if code in NOTES:              # the reader has an array of twice the highest number
            note = content[at:at + size]
            note = int(note) if code == PUT else int.from_bytes(note, "little")
            if note > count:
                raise pickle.UnpicklingError(f"note {note:,} among {count:,} instructions")
        at += size
        if code == STOP:
            return
    raise pickle.UnpicklingError(f"it has more than {OPCODES:,} instructions")


def _argument(content, at, code):
    """Where the argument begins of an instruction that says how long it is, and its bytes."""
    kind = SIZES[code]
    if kind == UNKNOWN:
        raise pickle.UnpicklingError(f"{bytes([code])} is no instruction")
    if kind == pickletools.UP_TO_NEWLINE:
        end = at
        for _ in range(2 if code in TWO_LINES else 1):
            end = content.find(b"\n", end) + 1 or len(content)
        return at, end - at
    begin = at + WIDTHS[kind]
    size, rest = int.from_bytes(content[at:begin], "little"), max(len(content) - begin, 0)
    if size > rest:
        raise pickle.UnpicklingError(f"{size:,} bytes are to follow, but only {rest:,} remain")
    return begin, size


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
