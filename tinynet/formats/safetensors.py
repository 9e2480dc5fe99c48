"""How does a .safetensors file keep arrays?

The length of a header, the header, which is JSON, and the bytes of the arrays, which fill the
rest one behind the other.
"""
import json
import math

import numpy as np

from .. import schema
from ..schema import COUNT
from ..store import replacing
from .torch_file import from_bfloat16

DTYPES = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "BF16": "<u2"}
NAMES = {np.dtype("f4"): "F32", np.dtype("f8"): "F64"}
MOST_HEADER = 1 << 24                  # bytes
ENTRY = {"dtype": tuple(DTYPES), "shape": [COUNT], "data_offsets": [COUNT]}


def read(data):
    """Arrays (name -> NumPy array, each in the memory of the file) and metadata, as written.
    data: a memoryview. Raises ValueError or RecursionError for what is no such file."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(bytes(data[8:8 + min(size, MOST_HEADER)]), object_pairs_hook=_each_once)
    schema.check(header, {"__metadata__": (None, {str: str})}, "its header")
    about = header.pop("__metadata__", None) or {}
    schema.check(header, {str: ENTRY}, "its header")
    return dict(_arrays(header, data[8 + size:])), about


def _each_once(pairs):
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError("a name occurs twice")
    return names


def _arrays(header, raw):
    """Name and array of every entry. They fill the file, one behind the other."""
    at = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = entry["data_offsets"]
        dtype = np.dtype(DTYPES[entry["dtype"]])
        if start != at or end - start != math.prod(entry["shape"]) * dtype.itemsize:
            raise ValueError(f"{name} does not lie where its shape says")
        part = raw[start:end]
        numbers = from_bfloat16(part) if entry["dtype"] == "BF16" else np.frombuffer(part, dtype)
        yield name, numbers.reshape(entry["shape"])
        at = end
    if at != len(raw):
        raise ValueError("it ends too early or too late")


def write(path, arrays, about):
    """Write arrays (name -> NumPy array of float32 or float64) and metadata (str -> str)."""
    header, at = {"__metadata__": about}, 0
    for name, array in arrays.items():
        header[name] = dict(dtype=NAMES[array.dtype], shape=array.shape,
                            data_offsets=[at, at + array.nbytes])
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")))
