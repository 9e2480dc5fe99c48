"""How is a MATLAB file read without MATLAB, and without SciPy?

The devkit of ImageNet keeps its classes in meta.mat, a MAT-file of version 5: a header of 128
bytes, then elements. An element is its kind, its size, its bytes and what fills them up to a
multiple of eight; a compressed one holds another one, a matrix holds several. This reads what
occurs there: numbers, text, structures, cells. ("MAT-File Format", The MathWorks.)
"""
import math
import struct
import zlib

import numpy as np

NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8",
           13: "u8"}
MATRIX, COMPRESSED = 14, 15
TEXTS = {2: "utf-8", 16: "utf-8", 4: "utf-16", 17: "utf-16", 18: "utf-32"}
CELL, STRUCTURE, TEXT = 1, 2, 4
MOST = 8 << 20              # bytes, decompressed: 4,500 for each synset of a devkit
DIMENSIONS = 32             # of a matrix at most


def load(data):
    """The variables of a MAT-file, given as bytes: name -> value.

    Numbers become flat NumPy arrays in column order, text a str, an array of structures a list
    of dicts, a cell array a list, anything else None. Raises ValueError, whatever is wrong with
    it: a damaged file can neither hold the reader up nor fill the memory.
    """
    if data[126:128] not in (b"IM", b"MI"):
        raise ValueError("no MAT-file of version 5")
    order = "<" if data[126:128] == b"IM" else ">"
    try:
        return dict(matrix(content, order)
                    for kind, content in unpacked(memoryview(data)[128:], order)
                    if kind == MATRIX)
    except (struct.error, zlib.error, LookupError, ValueError, RecursionError) as error:
        raise ValueError(f"a damaged MAT-file: {error}") from error


def unpacked(data, order):
    """Yield kind and content of the elements of a file, decompressed."""
    left = MOST
    for kind, content in elements(data, order):
        if kind != COMPRESSED:
            yield kind, content
            continue
        stream = zlib.decompressobj()
        content = stream.decompress(content, left + 1)
        left -= len(content)
        if left < 0 or not stream.eof:
            raise ValueError(f"it ends too early, or holds more than {MOST:,} bytes")
        yield from elements(memoryview(content), order)


def elements(data, order):
    """Yield kind and content, a memoryview, of the elements that follow one another."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(order + "II", data, at)
        start = at + 8
        if kind >> 16:                          # up to four bytes fit into the tag itself
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
            at += 8
        else:
            at = start + size + (0 if kind == COMPRESSED else -size % 8)
        if start + size > min(at, len(data)):   # the next one would begin inside this one
            raise ValueError("it ends too early")
        yield kind, data[start:start + size]


def matrix(data, order):
    """Name and value of a matrix element."""
    if not data:                                # how an empty field is written
        return "", np.zeros(0)
    (_, flags), (_, shape), (_, name), *rest = elements(data, order)
    kind = struct.unpack_from(order + "I", flags)[0] & 0xFF
    count = math.prod(np.frombuffer(shape[:4 * DIMENSIONS], order + "i4").tolist())
    return str(name, "utf-8"), value(kind, count, rest, order)


def value(kind, count, rest, order):
    """What a matrix of a kind holds, `count` items, from the elements after its header."""
    if kind == STRUCTURE:
        (_, width), (_, names), *fields = rest
        width, names = struct.unpack_from(order + "i", width)[0], bytes(names)
        names = [names[i:i + width].split(b"\0")[0].decode() for i in range(0, len(names), width)]
        if len(fields) != count * max(len(names), 1):
            raise ValueError(f"{count:,} structures of {len(names)} fields in {len(fields):,}")
        values = iter([matrix(field, order)[1] for _, field in fields])
        return [dict(zip(names, [next(values) for _ in names], strict=True)) for _ in range(count)]
    if kind == CELL:
        return [matrix(field, order)[1] for _, field in rest]
    if kind == TEXT:
        stored, text = rest[0] if rest else (2, b"")
        suffix = {"<": "-le", ">": "-be"}[order] if stored not in (2, 16) else ""
        return str(text, TEXTS[stored] + suffix)
    if 6 <= kind <= 15:                         # whole numbers are stored as small as they fit
        stored, numbers = rest[0]
        return np.frombuffer(numbers, order + NUMBERS[stored])
    return None
