"""Files of other programs that are damaged, or made by somebody who means harm."""
import io
import os
import pickle
import struct
import zipfile

import numpy as np

import other_files as files
from fuzzing import damaged, one
from other_nets import ONE, TWO, as_torchvision, layers

KINDS = {
    "caffemodel": lambda: files.caffemodel(layers(TWO, 2)),
    "onnx": lambda: files.onnx_of_caffe(layers(TWO, 2)),
    "npy": lambda: files.npy(layers(TWO, 2), 0),
    "zip": lambda: files.pth(as_torchvision(layers(ONE, 1))),
    "row": lambda: files.pth(as_torchvision(layers(ONE, 1)), "row"),
    "tar": lambda: files.pth(as_torchvision(layers(ONE, 1)), "tar"),
    "safetensors": lambda: files.safetensors(as_torchvision(layers(ONE, 1))),
}


def places_of_structure(kind, whole):
    """Where there are other bytes than numbers: in a tenth of a file's places there would be."""
    if kind in ("zip", "onnx"):
        return [slice(0, 3000), slice(-4000, None)]
    return [slice(0, 3000), slice(0, len(whole))]


def spoilt(kind, whole, rng):
    """The file damaged anywhere, or where it tells of its numbers."""
    if rng.random() < 0.3:
        return damaged(whole, rng)
    part = one(rng, places_of_structure(kind, whole))
    start, end, _ = part.indices(len(whole))
    return whole[:start] + damaged(whole[start:end], rng) + whole[end:]


class Evil:
    """To unpickle it is to run a command."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def zipped(pickled, **entries):
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr("net/data.pkl", pickled)
        for name, content in entries.items():
            archive.writestr(f"net/data/{name}", content)
    return file.getvalue()


def npy_of(pickled):
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + pickled


def tensor(numbers, shape, strides, offset=0):
    """An instruction row that makes a tensor on storage "0" of so many numbers."""
    def text(words):
        return b"X" + struct.pack("<I", len(words)) + words

    def whole(values):
        return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", value) for value in values) + b"t"

    return (b"ctorch._utils\n_rebuild_tensor_v2\n((" + text(b"storage") + b"ctorch\nFloatStorage\n"
            + text(b"0") + text(b"cpu") + whole([numbers])[1:-1] + b"tQ"
            + whole([offset])[1:-1] + whole(shape) + whole(strides) + b"\x89NtR")


def state(*tensors):
    """A pickle of a dict with these tensors, called features.0.weight and so on."""
    names = [f"features.{i // 2}.{('weight', 'bias')[i % 2]}".encode()
             for i in range(len(tensors))]
    items = b"".join(b"X" + struct.pack("<I", len(name)) + name + one
                     for name, one in zip(names, tensors, strict=True))
    return b"\x80\x02}(" + items + b"u."


# What must be said of them: they are not to be refused for another reason, by chance.
WORDS = {
    "a command in a zip": "wants to use posix.system",
    "a command in a row": "wants to use posix.system",
    "a command in a .npy": "wants to use posix.system",
    "a command in a .npy of protocol 4": "wants to use posix.system",
    "a command that is only called numpy": "wants to use numpy.testing.run",
    "a list in itself": "no dict of tensors",
    "a tuple as wide as 2^40": "no dict of tensors",
    "such a tuple as a key": "neither text nor a number",
    "such a tuple as a name": "a name that is no text",
    "such a tuple as a storage's key": "neither by text nor by a number",
    "such a tuple in a row's keys": "neither by text nor by a number",
    "such tuples in a tar": "neither by text nor by a number",
    "such a tuple as a tensor's key in a tar": "neither by text nor by a number",
    "more instructions than a net has": "more than 131,072 instructions",
    "text longer than the file": "bytes are to follow",
    "an end before anything": "takes more than there is",
    "a tensor of stride 0": "larger than it is",
    "one beyond its storage": "reaches beyond its storage",
    "one of negative size": "whose shape is none",
    "one before its storage": "whose shape is none",
    "a storage that is cut off": "storage that is cut off",
    "one storage for all": "larger than it is",
    "a text made bytes again and again": "the same again and again",
    "a text that is the numbers of many arrays": "the same again and again",
    "a list made a dict again and again": "the same again and again",
    "a member of a tar that ends before it begins": "of negative size",
    "a blob of 2^60 numbers": "numbers in the shape",
    "fields without end": "more than 65,536 fields",
    "a number without end": "more than ten bytes",
    "groups": "a field of kind 3",
    "sizes that overflow": "larger than it is",
}


def harmful(canary):
    """{what it is: content}: none may be accepted, none may run, none may take memory."""
    evil = pickle.dumps({"a.weight": Evil(canary)}, 2)
    magic = b"".join(pickle.dumps(part, 2) for part in (0x1950a86a20f9469cfc6c, 1001, {}))
    deep = b"q\x00h\x00\x86" * 40
    numbers = np.ones(16, "<f4").tobytes()
    return {
        "a command in a zip": zipped(evil), "a command in a row": magic + evil,
        "a command in a .npy": npy_of(evil),
        "a command in a .npy of protocol 4": npy_of(pickle.dumps(Evil(canary), 4)),
        "a command that is only called numpy": npy_of(b"\x80\x02cnumpy.testing\nrun\n."),
        "a list in itself": zipped(b"\x80\x02]q\x00h\x00a."),
        "a tuple as wide as 2^40": zipped(b"\x80\x02)" + deep + b"."),
        "such a tuple as a key": zipped(b"\x80\x02})" + deep + b"K\x01s."),
        "such a tuple as a name": zipped(b"\x80\x04)" + deep + b"h\x00\x93."),
        "such a tuple as a storage's key": zipped(
            b"\x80\x02(X\7\0\0\0storagectorch\nFloatStorage\n)" + deep + b"h\0K\1tQ."),
        "such a tuple in a row's keys": magic + b"\x80\x02}." + b"\x80\x02]q\1)" + deep + b"a.",
        "such tuples in a tar": files.archive(storages=b"\x80\x02K\1." + b"\x80\x02)" + deep
                                              + b"Nctorch\nFloatStorage\n\x87." + bytes(8)),
        "such a tuple as a tensor's key in a tar": files.archive(
            storages=b"\x80\x02K\0." + b"\x80\x02].", tensors=b"\x80\x02K\0.",
            pickle=b"\x80\x02)" + deep + b"Q."),
        "a note under a high number": zipped(b"\x80\x02}r\xff\xff\xff\x7f."),
        "more instructions than a net has": zipped(b"\x80\x02" + b"N" * 131_500 + b"."),
        "text longer than the file": zipped(b"\x80\x02X\xff\xff\xff\x7fabc."),
        "an end before anything": zipped(b"\x80\x02."), "nothing": zipped(b""),
        "a mark that is missing": zipped(b"\x80\x02u."),
        "a name in place of a dict": zipped(b"\x80\x02ccollections\nOrderedDict\n."),
        "a whole number": zipped(b"\x80\x02\x8a\xff" + b"\xff" * 255 + b"."),
        "a tensor of stride 0": zipped(state(tensor(16, (1 << 40,), (0,))), **{"0": numbers}),
        "one beyond its storage": zipped(state(tensor(16, (16,), (2,))), **{"0": numbers}),
        "one of negative size": zipped(state(tensor(16, (-4,), (1,))), **{"0": numbers}),
        "one before its storage": zipped(state(tensor(16, (4,), (1,), -4)), **{"0": numbers}),
        "a storage that is cut off": zipped(state(tensor(99, (4,), (1,))), **{"0": numbers}),
        "sizes that overflow": zipped(state(tensor(16, (1 << 62, 4), (0, 0))), **{"0": numbers}),
        "one storage for all": zipped(state(*[tensor(1 << 20, (1 << 20,), (1,))] * 16),
                                      **{"0": bytes(4 << 20)}),
        "a text made bytes again and again": npy_of(
            b"\x80\x02c_codecs\nencode\nq\1(X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20)
            + b"q\2X\6\0\0\0latin1q\3tR" + b"h\1h\2h\3\x86R" * 1000 + b"."),
        "a text that is the numbers of many arrays": npy_of(
            b"\x80\x02]cnumpy.core.multiarray\n_reconstruct\nq\0cnumpy\ndtype\nq\1U\x02f4\x85Rq\2"
            b"(K\1J" + struct.pack("<i", 1 << 18) + b"\x85h\2\x89X" + struct.pack("<I", 1 << 20)
            + b"a" * (1 << 20) + b"tq\3" + b"h\0)Rh\3b" * 100 + b"."),
        "a list made a dict again and again": zipped(
            b"\x80\x02ccollections\nOrderedDict\nq\0]q\1("
            + b"".join(b"U\4%04xN\x86" % i for i in range(4000)) + b"e\x85q\2"
            + b"h\0h\2R" * 200 + b"."),
        "a member of a tar that ends before it begins": (
            b"pickle".ljust(124, b"\0") + b"-0000001000").ljust(257, b"\0")
            + b"ustar" + bytes(2000),
        "a blob of 2^60 numbers": b"\x0a\1x" + files.field(100, files.field(1, "conv1")
            + 2 * files.field(7, files.field(7, b"\x0a\x09" + files.varint(1 << 60)))),
        "fields without end": b"\x0a\1x" + b"\x10\1" * 70_000,
        "a number without end": b"\x0a\1x\x10" + b"\xff" * 30,
        "groups": b"\x0a\1x\x13\x14",
    }
