"""Files as other programs write their nets.

The writers know the formats from their published descriptions and share nothing with the readers.
A net is a dict in PyTorch's layout, conv1.weight ... fc8.bias.
"""
import io
import json
import pickle
import struct
import sys
import tarfile
import types
import zipfile
from collections import OrderedDict

import numpy as np

from other_nets import LAYERS

# --- protobuf ---------------------------------------------------------------------------------


def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number % 128 + 128]), number // 128
    return out + bytes([number])


def field(number, value):
    if isinstance(value, int):
        return varint(8 * number) + varint(value)
    if isinstance(value, float):
        return varint(8 * number + 5) + struct.pack("<f", value)
    value = value.encode() if isinstance(value, str) else value
    return varint(8 * number + 2) + varint(len(value)) + value


def blob(array, form, pieces=1):
    """A BlobProto. form: "sizes", or "four" of 2014; "double" has numbers of 64 bits."""
    if form == "four":
        four = (1,) * (4 - array.ndim) + array.shape
        head = b"".join(field(1 + i, size) for i, size in enumerate(four))
    else:
        head = field(7, field(1, b"".join(varint(size) for size in array.shape)))
    if form == "double":
        return head + field(8, array.astype("<f8").tobytes())
    parts = np.array_split(array.ravel(), pieces)
    return head + b"".join(field(5, part.astype("<f4").tobytes()) for part in parts)


def caffemodel(net, form="2014", order=("relu", "lrn", "pool"), groups=2, alpha=1e-4, pieces=2,
               leak=0.0, dilation=1, pool_pad=0):
    """form: today, 2014 or 2013. The colours of conv1 are blue, green, red."""
    steps = [("data", "data")]
    for name in LAYERS:
        after = {"conv1": order, "conv2": order, "conv5": ("relu", "pool"), "fc6": (
            "relu", "dropout"), "fc7": ("relu", "dropout"), "fc8": ("loss",)}.get(name, ("relu",))
        steps += [(name, "conv" if "conv" in name else "dense"), *((name + one, one)
                                                                   for one in after)]
    out = field(1, "AlexNet")
    for name, kind in steps:
        weights = [net[f"{name}.weight"], net[f"{name}.bias"]] if name in LAYERS else []
        if form != "today" and weights and kind == "dense":
            weights[0] = weights[0][None, None]
        blobs = [blob(one, "sizes" if form == "today" else "four", pieces) for one in weights]
        pads = {"conv2": 2, "conv3": 1, "conv4": 1, "conv5": 1}
        grouped = groups if name in ("conv2", "conv4", "conv5") else 1
        parameters = {
            "conv": field(3, pads.get(name, 0)) + field(5, grouped)
            + field(6, 4 if name == "conv1" else 1) + field(18, dilation),
            "relu": field(1, leak),
            "lrn": field(1, 5) + field(2, alpha) + field(3, 0.75),
            "pool": field(1, 0) + field(2, 3) + field(3, 2) + field(4, pool_pad),
            "dropout": field(1, 0.5)}
        if form == "today":
            types = dict(conv="Convolution", dense="InnerProduct", lrn="LRN", pool="Pooling",
                         relu="ReLU", dropout="Dropout", data="Data", loss="SoftmaxWithLoss")
            number = dict(conv=106, lrn=118, pool=121, dropout=108, relu=123)
            layer = field(1, name) + field(2, types[kind]) + b"".join(field(7, one)
                                                                      for one in blobs)
            own = 100
        elif form == "2014":
            types = dict(conv=4, dense=14, lrn=15, pool=17, relu=18, dropout=6, data=5, loss=21)
            number = dict(conv=10, lrn=18, pool=19, dropout=12, relu=30)
            layer = field(4, name) + field(5, types[kind]) + b"".join(field(6, one)
                                                                      for one in blobs)
            own = 2
        else:
            inner = field(1, name) + field(2, kind) + b"".join(field(50, one) for one in blobs)
            layer, own, number = field(1, inner), 2, {}
        if kind in number:
            layer += field(number[kind], parameters[kind])
        out += field(own, layer)
    return out


ONNX_LRN = dict(size=5, alpha=1e-4, beta=0.75, bias=1.0)


def onnx_of_caffe(net, side=224, pool_pads=(0, 0, 0, 0), lrn=ONNX_LRN, **convs):
    """As the model zoo's, which Caffe2 wrote: weights are inputs as well. lrn: the attributes of
    the norms. convs: those that every convolution has besides."""
    def attribute(name, value):
        if isinstance(value, list):
            return field(1, name) + b"".join(field(8, one) for one in value) + field(20, 7)
        if isinstance(value, float):
            return field(1, name) + field(2, value) + field(20, 1)
        if isinstance(value, str):
            return field(1, name) + field(4, value) + field(20, 3)
        return field(1, name) + field(3, value) + field(20, 2)

    def node(kind, *inputs, **of):
        return field(1, b"".join(field(1, name) for name in inputs) + field(2, "x")
                     + field(4, kind) + b"".join(field(5, attribute(name, value))
                                                 for name, value in of.items()))

    def info(name, shape):
        dims = b"".join(field(1, field(1, size)) for size in shape)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))

    graph = b""
    pool = node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=list(pool_pads))
    for name in LAYERS:
        own = f"{name}_w_0", f"{name}_b_0"
        if "conv" in name:
            pad = {"conv1": 0, "conv2": 2}.get(name, 1)
            graph += node("Conv", "x", *own, strides=[4 if name == "conv1" else 1] * 2,
                          pads=[pad] * 4, group=1 if name in ("conv1", "conv3") else 2,
                          kernel_shape=list(net[f"{name}.weight"].shape[2:]), **convs)
        else:
            graph += node("Gemm", "x", *own, transB=1)
        graph += node("Relu", "x") if name != "fc8" else node("Softmax", "x")
        if name in ("conv1", "conv2"):
            graph += node("LRN", "x", **lrn) + pool
        if name == "conv5":
            graph += pool + node("Reshape", "x", "OC2_DUMMY_1")
        if name in ("fc6", "fc7"):
            graph += node("Dropout", "x")
    tensors = b""
    for name, array in net.items():
        name = name.replace(".weight", "_w_0").replace(".bias", "_b_0")
        tensors += field(5, b"".join(field(1, size) for size in array.shape) + field(2, 1)
                         + field(8, name) + field(9, array.astype("<f4").tobytes()))
    tensors += field(5, field(1, 2) + field(2, 7) + field(7, b"\1\2") + field(8, "OC2_DUMMY_1"))
    inputs = field(11, info("data_0", (1, 3, side, side)))
    return field(1, 3) + field(2, "onnx-caffe2") + field(7, graph + tensors + inputs) + field(
        8, field(2, 9))


# --- pickles ----------------------------------------------------------------------------------


def npy(net, protocol=2, names=("W", "b")):
    """As caffe-tensorflow writes it: an array of one object, by NumPy itself. protocol 0 stands
    for what Python 2 wrote, whose text is bytes."""
    content = {}
    for name in LAYERS:
        W, b = net[f"{name}.weight"], net[f"{name}.bias"]
        if name == "fc6":                  # rows by row, column, map
            W = W.reshape(len(W), -1, 6, 6).transpose(0, 2, 3, 1).reshape(len(W), -1)
        W = np.ascontiguousarray(W.transpose(2, 3, 1, 0)) if W.ndim == 4 else W.T
        content[name] = [W, b] if names == ("W", "b") else dict(zip(names, (W, b), strict=True))
    file = io.BytesIO()
    if protocol == 4:                      # what np.save writes
        np.save(file, np.array(content, dtype=object), allow_pickle=True)
        return file.getvalue()
    if protocol:
        body = pickle.dumps(np.array(content, dtype=object), protocol)
    else:
        Python2(file).dump(np.array(content, dtype=object))
        body = file.getvalue().replace(b"numpy._core", b"numpy.core")
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    head += b" " * (-(len(head) + 11) % 16) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + body


class Python2(pickle._Pickler):
    def __init__(self, file):
        super().__init__(file, 2)

    def save_bytes(self, content):
        self.write(b"U" + bytes([len(content)]) + content if len(content) < 256
                   else b"T" + struct.pack("<i", len(content)) + content)
        self.memoize(content)

    dispatch = {**pickle._Pickler.dispatch, bytes: save_bytes}


class Storage:
    """What stands for a storage of numbers in a pickle of PyTorch."""

    def __init__(self, key, array, kind="FloatStorage"):
        self.key, self.array, self.kind = key, array, kind


class FakeTorch(types.ModuleType):
    """Names as PyTorch's files use them, where it may not be installed. Use: `with`."""

    def __init__(self):
        super().__init__("torch")
        utils = types.ModuleType("torch._utils")
        for name in "FloatStorage", "HalfStorage", "DoubleStorage", "FloatTensor":
            setattr(self, name, type(name, (), {"__module__": "torch"}))

        def _rebuild_tensor_v2(*arguments):
            raise AssertionError("called")

        _rebuild_tensor_v2.__module__ = "torch._utils"
        _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
        utils._rebuild_tensor_v2 = _rebuild_tensor_v2
        self._utils = utils

    def __enter__(self):
        self.before = {name: sys.modules.pop(name, None) for name in ("torch", "torch._utils")}
        sys.modules.update({"torch": self, "torch._utils": self._utils})
        return self

    def __exit__(self, *error):
        for name, module in self.before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


class Tensor:
    def __init__(self, torch, storage):
        self.torch, self.storage = torch, storage

    def __reduce__(self):
        array = self.storage.array
        strides = tuple(step // array.itemsize for step in array.strides)
        return self.torch._utils._rebuild_tensor_v2, (
            self.storage, 0, array.shape, strides, False, OrderedDict())


def pickled(torch, value, last=()):
    class Pickler(pickle.Pickler):
        def persistent_id(self, what):
            if isinstance(what, Storage):
                return ("storage", getattr(torch, what.kind), what.key, "cuda:0", what.array.size,
                        *last)
            return None

    Pickler(file := io.BytesIO(), 2).dump(value)
    return file.getvalue()


def pth(net, container="zip", prefix="", wrap=None):
    """A state dict, in a zip, in a row of pickles or in a tar."""
    with FakeTorch() as torch:
        storages = {name: Storage(str(94 + i), np.ascontiguousarray(array), {
            2: "HalfStorage", 4: "FloatStorage", 8: "DoubleStorage"}[array.itemsize])
            for i, (name, array) in enumerate(net.items())}
        state = OrderedDict((prefix + name, Tensor(torch, one)) for name, one in storages.items())
        value = {"epoch": 90, wrap: state, "best": 0.5} if wrap else state
        if container == "tar":
            return _tar(torch, storages, prefix)
        if container == "row":
            parts = [0x1950a86a20f9469cfc6c, 1001, {"little_endian": True}]
            out = b"".join(pickle.dumps(part, 2) for part in parts)
            out += pickled(torch, value, (None,))
            out += pickle.dumps([one.key for one in storages.values()], 2)
            return out + b"".join(struct.pack("<q", one.array.size) + one.array.tobytes()
                                  for one in storages.values())
        with zipfile.ZipFile(file := io.BytesIO(), "w") as zipped:
            zipped.writestr("alexnet/data.pkl", pickled(torch, value))
            for one in storages.values():
                zipped.writestr(f"alexnet/data/{one.key}", one.array.tobytes())
            zipped.writestr("alexnet/version", "3\n")
        return file.getvalue()


def _tar(torch, storages, prefix):
    there, tensors = io.BytesIO(), io.BytesIO()
    for file in there, tensors:
        pickle.dump(len(storages), file, 2)
    for number, one in enumerate(storages.values()):
        array = one.array
        pickle.dump((int(one.key), "cpu", torch.FloatStorage), there, 2)
        there.write(struct.pack("<q", array.size) + array.tobytes())
        pickle.dump((number, int(one.key), torch.FloatTensor), tensors, 2)
        steps = [step // 4 for step in array.strides]
        tensors.write(struct.pack("<i4x", array.ndim)
                      + struct.pack(f"<{2 * array.ndim + 1}q", *array.shape, *steps, 0))
    pickle.dump([], there, 2)

    class Pickler(pickle.Pickler):
        def persistent_id(self, what):
            return str(what.number) if isinstance(what, Numbered) else None

    pairs = [[prefix + name, Numbered(number)] for number, name in enumerate(storages)]
    Pickler(state := io.BytesIO(), 2).dump(Python2Dict(pairs))
    return archive(sys_info=pickle.dumps({"protocol_version": 1000}, 2), pickle=state.getvalue(),
                   tensors=tensors.getvalue(), storages=there.getvalue())


def archive(**members):
    """A tar with these members."""
    with tarfile.open(fileobj=(out := io.BytesIO()), mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


class Numbered:
    def __init__(self, number):
        self.number = number


class Python2Dict:
    """Python 2 pickled OrderedDict([[key, value], ...])."""

    def __init__(self, pairs):
        self.pairs = pairs

    def __reduce__(self):
        return OrderedDict, (self.pairs,)


def safetensors(net, kind="F32"):
    """In the order of names, as the library writes it: features.10 comes before features.3."""
    header, content = {}, b""
    for name, array in sorted(net.items()):
        raw = {"F32": array.astype("<f4"), "F16": array.astype("<f2"),
               "BF16": (array.view("<u4") >> 16).astype("<u2")}[kind].tobytes()
        header[name] = dict(dtype=kind, shape=array.shape,
                            data_offsets=[len(content), len(content) + len(raw)])
        content += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content
