"""How does PyTorch keep a state dict?

As a pickle of names, in which every tensor says at which place of which storage its numbers lie,
and the storages beside it. What holds them has changed: a tar until 2017, then one pickle behind
the other and the storages after them, since 1.6 a zip. Its numbers are views of the file.
"""
import functools
import io
import math
import struct
import zipfile
import zlib

import numpy as np

from ..store import replacing
from . import pickles
from .plan import Foreign, named_by_prefix

IN_A_ROW = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")     # the first pickle of those
TYPES = {"Float": "<f4", "Double": "<f8", "Half": "<f2", "BFloat16": "bfloat16", "Long": "<i8",
         "Int": "<i4", "Short": "<i2", "Char": "|i1", "Byte": "|u1", "Bool": "|b1"}


class Place:
    """Where a tensor's numbers lie: in which storage, from which of its numbers on, in which
    shape, and how far apart. Nothing of it has been compared with anything."""

    def __init__(self, storage, offset, shape, strides, *rest):
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides


def _ordered(*pairs):
    """What OrderedDict(), and Python 2's OrderedDict([[key, value], ...]), make."""
    if any(type(pair) not in (list, tuple) or len(pair) != 2 or type(pair[0]) is not str
           for pair in (pairs[0] if pairs else [])):
        raise ValueError("a dict of other things than pairs")
    return dict(*pairs)


KNOWN = {"collections OrderedDict": _ordered, "torch._utils _rebuild_tensor": Place,
         "torch._utils _rebuild_tensor_v2": Place,
         "torch._utils _rebuild_parameter": lambda tensor, *rest: tensor,
         **{f"torch {name}{what}": dtype for name, dtype in TYPES.items()
            for what in ("Storage", "Tensor")}}
read_pickle = functools.partial(pickles.read, known=KNOWN)


# --- in -----------------------------------------------------------------------------------------


def read(data):
    """The net in a .pth file (a memoryview): a Foreign. Raises ValueError and many others."""
    if bytes(data[:2]) == b"PK":
        found, storages = _from_zip(data)
    elif bytes(data[:len(IN_A_ROW)]) == IN_A_ROW:
        found, storages = _from_row(data)
    else:
        found, storages = _from_tar(data)
    if type(found) is not dict:
        raise ValueError("it holds no dict of tensors: save model.state_dict()")
    about = found.get("about", {})
    found = found.get("state_dict", found.get("model", found))         # of a training's state
    tensors = {name.replace("module.", ""): value for name, value in found.items()
               if type(name) is str and type(value) is Place}
    if sum(math.prod(_sizes(place.shape)) for place in tensors.values()) > len(data):
        raise ValueError("its tensors are larger than it is")          # they share storages
    arrays = {name: _array(place, storages) for name, place in tensors.items()}
    mean = arrays.pop("mean", None)
    return Foreign("PyTorch", named_by_prefix(arrays), about=about if type(about) is dict else {},
                   mean=mean)


def _from_zip(data):
    """What its pickle makes, and storage key -> bytes."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        entries = {entry.filename: entry for entry in file.infolist()}
        pickles_there = [name for name in entries if name.endswith("/data.pkl")]
        if len(pickles_there) != 1:
            raise ValueError("PyTorch's zips hold a data.pkl, and this one none, or several (a "
                             "checkpoint of alexnet.py needs no import)")
        if len(entries) < len(file.infolist()) or any(
                entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1
                for entry in entries.values()) or (
                    sum(entry.file_size for entry in entries.values()) > len(data)):
            raise ValueError("it is compressed or encrypted, or has a name twice, as no state "
                             "dict of PyTorch: save model.state_dict()")
    folder = pickles_there[0].removesuffix("data.pkl")

    @functools.cache                       # tensors may share a storage, and its checksum
    def content(name):
        entry = entries[folder + name]
        header = data[entry.header_offset:entry.header_offset + 30]
        start = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
        part = data[start:start + entry.file_size]
        if entry.CRC and zlib.crc32(part) != entry.CRC:    # 0: it was written without
            raise ValueError(f"{entry.filename!r} has another checksum")
        return part

    if f"{folder}byteorder" in entries and bytes(content("byteorder")) != b"little":
        raise ValueError("its numbers begin with their largest byte")
    found, _ = read_pickle(content("data.pkl"), 0, stored=_storage)
    return found, lambda key: content(f"data/{key}")


def _from_row(data):
    sizes, at = {}, 0

    def stored(about):
        dtype, key, count = _storage(about)
        sizes[key] = _width(dtype)
        return dtype, key, count

    for _ in "number", "version", "machine":
        _, at = read_pickle(data, at)
    found, at = read_pickle(data, at, stored=stored)
    keys, at = read_pickle(data, at)
    parts = {}
    for key in map(_key, keys):
        count = int.from_bytes(data[at:at + 8], "little")
        at += 8 + count * sizes[key]
        parts[key] = data[at - count * sizes[key]:at]
    return found, parts.__getitem__


def _from_tar(data):
    members = dict(_members(data))
    part, parts, tensors = members["storages"], {}, {}
    count, at = read_pickle(part, 0)
    for _ in range(count):
        (key, _, kind), at = read_pickle(part, at)
        size = int.from_bytes(part[at:at + 8], "little") * _width(kind.function)
        parts[_key(key)] = part[at + 8:at + 8 + size]
        at += 8 + size
    views, _ = read_pickle(part, at)
    if views:
        raise ValueError("its storages are parts of others")
    part = members["tensors"]
    count, at = read_pickle(part, 0)
    for _ in range(count):
        (key, storage, kind), at = read_pickle(part, at)
        axes, = struct.unpack("<i", part[at:at + 4])
        numbers = struct.unpack(f"<{2 * axes + 1}q", part[at + 8:at + 16 * (axes + 1)])
        at += 16 * (axes + 1)
        count_there = len(parts[_key(storage)]) // _width(kind.function)
        tensors[_key(key)] = Place((kind.function, _key(storage), count_there), numbers[-1],
                                   numbers[:axes], numbers[axes:-1])
    found, _ = read_pickle(members["pickle"], 0, stored=lambda key: tensors[_key(key)])
    return found, parts.__getitem__


def _members(data):
    """(name, bytes) of each member of a tar."""
    at = 0
    while at + 512 <= len(data) and data[at]:
        name = str(bytes(data[at:at + 100]).rstrip(b"\0"), "utf-8")
        size = int(bytes(data[at + 124:at + 135]).rstrip(b"\0 ") or b"0", 8)
        if size < 0:                       # then we would go back, and round for ever
            raise ValueError(f"its member {name!r} is of negative size")
        yield name, data[at + 512:at + 512 + size]
        at += 512 + -(-size // 512) * 512


def _key(key):
    """The key of a storage as text. What is neither text nor a number could be a tuple whose
    hash, or whose text, never ends."""
    if type(key) not in (str, int):
        raise ValueError("a storage that is called neither by text nor by a number")
    return str(key)


def _storage(about):
    """(type, key, count of numbers) of a persistent id."""
    word, kind, key, _, count, *view = about
    if word != "storage" or any(part is not None for part in view):
        raise ValueError("a storage that is part of another, or none")
    return kind.function, _key(key), count


def _width(dtype):
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _sizes(numbers):
    if type(numbers) not in (tuple, list) or len(numbers) > 8 or any(
            type(n) is not int or n < 0 for n in numbers):
        raise ValueError("a tensor whose shape is none")
    return numbers


def _array(place, storages):
    """The numbers of a tensor, as a view of the file where their type allows it."""
    dtype, key, count = place.storage
    raw, shape, strides = storages(key), _sizes(place.shape), _sizes(place.strides)
    offset, = _sizes([place.offset])
    end = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if type(count) is not int or len(raw) != count * _width(dtype) or end >= count or (
            math.prod(shape) > count) or 0 in shape:
        raise ValueError("a tensor that reaches beyond its storage, or a storage that is cut off")
    numbers = from_bfloat16(raw) if dtype == "bfloat16" else np.frombuffer(raw, dtype)
    return np.lib.stride_tricks.as_strided(
        numbers[offset:], shape, [step * numbers.itemsize for step in strides], writeable=False)


def from_bfloat16(raw):
    """The upper halves of float32 numbers, as float32."""
    return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")


# --- out ----------------------------------------------------------------------------------------


def write(path, arrays, about):
    """Write a state dict that torch.load(path, weights_only=True) reads.

    arrays: name -> array of float32 or float64. about: text by name, the attribute `about` of
    the dict that torch.load returns.
    """
    with replacing(path) as file, zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("net/data.pkl", b"".join(_pickled(arrays, about)))
        zipped.writestr("net/byteorder", "little")
        zipped.writestr("net/version", "3\n")
        for number, array in enumerate(arrays.values()):
            with zipped.open(f"net/data/{number}", "w", force_zip64=True) as entry:
                little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
                entry.write(little.data.cast("B"))


def _pickled(arrays, about):
    def text(words):
        return b"X" + struct.pack("<I", len(words.encode())) + words.encode()

    def numbers(them):
        return b"(" + b"".join(b"J" + struct.pack("<i", number) for number in them) + b"t"

    yield b"\x80\x02ccollections\nOrderedDict\n)R("
    for number, (name, array) in enumerate(arrays.items()):
        kind = b"Double" if array.dtype == np.float64 else b"Float"
        strides = [math.prod(array.shape[axis + 1:]) for axis in range(array.ndim)]
        yield text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n("
        yield b"(" + text("storage") + b"ctorch\n" + kind + b"Storage\n" + text(str(number))
        yield text("cpu") + numbers([array.size])[1:-1] + b"tQK\0"
        yield numbers(array.shape) + numbers(strides) + b"\x89ccollections\nOrderedDict\n)RtR"
    yield b"u}" + text("about") + b"}("
    for name, value in about.items():
        yield text(name) + text(value)
    yield b"usb."
