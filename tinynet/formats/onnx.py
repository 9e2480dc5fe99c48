"""How is a net an ONNX graph, and which graph is AlexNet?

A graph is a row of nodes, the operations, and its initializers, the numbers. What is written
takes pictures as they are, (N, crop, crop, 3) bytes, and gives probabilities: the mean image and
the scale are inside. Towers are groups. For an LRN within a tower each tower becomes a picture
of its own: the channels of one lie together, so this copies nothing.

Operations and their attributes are those of opset 13 (2020), the first with today's softmax,
which programs of these years read. Of what is read no graph is run: its nodes are compared.
"""
import math

import numpy as np

from ..store import replacing
from .plan import Foreign, named
from .protobuf import Message, message

OPSET, IR_VERSION = 13, 7
FLOAT, BYTE, INT64, DOUBLE = 1, 2, 7, 11               # TensorProto's data types
DTYPES = {FLOAT: "<f4", INT64: "<i8", 10: "<f2", DOUBLE: "<f8"}
NUMBERS = {FLOAT: 4, DOUBLE: 10}                       # in which field, if not in raw_data
MOST_NODES, MOST_TENSORS = 200, 100
PASSED_OVER = {"Dropout", "Reshape", "Flatten", "Softmax", "Identity", "Constant"}
PREPARATION = {"Cast", "Slice", "Sub", "Mul", "Transpose"}     # of pictures, in what is ours
SAME_MAP = ["Mul", "AveragePool", "Mul", "Add", "Pow", "Div"]


# --- in -----------------------------------------------------------------------------------------


def read(data):
    """The net in an .onnx file (a memoryview): a Foreign. Raises ValueError."""
    model = Message(data)
    about = {entry.text(1): entry.text(2) for entry in model.messages(14)}
    graph = model.message(7)
    nodes, initializers = graph.messages(1), graph.messages(5)
    if len(nodes) > MOST_NODES or len(initializers) > MOST_TENSORS:
        raise ValueError(f"it has {len(nodes)} nodes and {len(initializers)} tensors")
    tensors = {entry.text(8): entry for entry in initializers}
    pairs, steps = [], []
    names = [node.text(4) for node in nodes]
    for place, node in enumerate(nodes):
        kind, inputs, of = names[place], node.texts(1), attributes(node)
        maps = len(pairs[-1][0]) if pairs else 3
        if kind in ("Conv", "MaxPool"):
            _check_window(kind, of)
        if kind in ("Conv", "Gemm"):
            weights, biases = (tensor(tensors[name]) for name in inputs[1:])
            if kind == "Conv":
                size = weights.shape[-1]
                pads = of.get("pads", [0] * 4)
                steps.append({"is": "conv", "size": size, "stride": of.get("strides", [1])[0],
                              "pad": (pads[0], pads[2]), "groups": of.get("group", 1)})
            else:
                if of.get("alpha", 1.0) != 1:
                    steps.append({"is": "scale", "by": of["alpha"]})
                steps.append({"is": "dense"})
                weights = weights if of.get("transB") else weights.T
            pairs.append((weights, biases))
        elif kind == "Relu":
            steps.append({"is": "relu"})
        elif kind == "MaxPool":
            steps.append({"is": "pool", "size": of["kernel_shape"][0], "stride": of["strides"][0]})
        elif kind == "LRN":
            window = maps
            if names[place - 1] == "Reshape":          # a tower is a picture of its own
                window = int(tensor(tensors[nodes[place - 1].texts(1)[1]])[1])
            steps.append({"is": "lrn", "size": of["size"], "alpha": of.get("alpha", 1e-4),
                          "beta": of.get("beta", 0.75), "k": of.get("bias", 1.0), "maps": maps,
                          "window": window})
        elif names[place - 1:place + 5] == SAME_MAP:
            alpha, k, beta = (float(tensor(tensors[nodes[place + after].texts(1)[1]]))
                              for after in (1, 2, 3))
            size = of["kernel_shape"][0]
            steps.append({"is": "same-map-lrn", "size": size, "alpha": alpha / size ** 2, "k": k,
                          "beta": beta})
        elif kind not in PASSED_OVER and not (
                "recipe" in about and kind in {*PREPARATION, *SAME_MAP}) and not (
                kind == "AveragePool" and set(of["kernel_shape"]) == {1}):
            raise ValueError(f"AlexNet has no {kind!r}")
    layers = named(pairs)
    if "recipe" in about:
        mean = tensor(tensors["mean"]).transpose(2, 0, 1)
        return Foreign("ONNX", layers, steps, about=about, mean=mean)
    notes, convs = [], [step for step in steps if step["is"] == "conv"]
    if _input_side(graph) == 224 and not convs[0]["pad"][0]:
        notes = ["its graph reads 224 pixels without padding: here 227, as Caffe trained it"]
    # What has two towers was made of Caffe's nets; PyTorch's has one.
    return Foreign("ONNX", layers, steps, blue_first=convs[1]["groups"] == 2, notes=notes)


def _check_window(kind, of):
    """Raise ValueError for a window that is no square, has gaps, or moves or pads otherwise across
    than down; and for a pool that pads before the first pixel."""
    pads = of.get("pads", [0] * 4)
    alike = [of.get("kernel_shape", [0]), of.get("strides", [1]), pads[:2]]
    if any(len(set(sizes)) != 1 for sizes in alike) or set(of.get("dilations", [1])) != {1} or (
            kind == "MaxPool" and pads[0]) or of.get("auto_pad", "NOTSET") not in (
                "NOTSET", "VALID"):
        raise ValueError(f"its {kind} pads or steps otherwise than AlexNet's")


def attributes(node):
    """{name: whole number, float, text, or list of whole numbers} of a node."""
    found = {}
    for one in node.messages(5):
        kind = one.integer(20)
        found[one.text(1)] = {1: one.float(2), 2: one.integer(3), 3: one.text(4),
                              7: one.integers(8)}.get(kind)
    return found


def tensor(message):
    """The array of a TensorProto, as a view of the file where its type allows it."""
    if message.integer(14) or 13 in message.fields:
        raise ValueError("its numbers lie in another file")
    kind, shape = message.integer(2), message.integers(1)
    if kind not in DTYPES:
        raise ValueError(f"numbers of ONNX's type {kind}, not floats")
    if kind == INT64 and 9 not in message.fields:
        numbers = np.array(message.integers(7), "i8")
    else:
        numbers = message.array(9 if 9 in message.fields else NUMBERS[kind], DTYPES[kind])
    if len(shape) > 8 or math.prod(shape) != numbers.size:
        raise ValueError(f"{numbers.size:,} numbers in the shape {shape}"[:200])
    return numbers.reshape(shape)


def _input_side(graph):
    """Pixels on a side of the first input, or 0 if it leaves that open."""
    value = (graph.messages(11) or [Message(b"")])[0]
    dims = value.message(2).message(1).message(2).messages(1)
    return dims[-1].integer(1) if dims else 0


# --- out ----------------------------------------------------------------------------------------


def write(path, steps, arrays, about, *, crop, scale, mean):
    """Write a net as a graph from "picture", (N, crop, crop, 3) bytes, the central crop of 256 x
    256, to "probabilities", (N, classes).

    steps: its plan. arrays: name -> array, conv1.weight ... fc8.bias. about: text by name. scale
    multiplies the pixels less mean (256, 256, 3).
    """
    nodes, tensors = [], {}

    def number(value, dtype=np.float32):
        name = f"number {len(tensors)}"
        tensors[name] = np.array(value, dtype)
        return name

    def add(kind, *inputs, **of):
        out = f"{kind} {len(nodes)}"
        nodes.append(_node(kind, inputs, out, **of))
        return out

    tensors["mean"] = np.asarray(mean, np.float32)
    first = (256 - crop) // 2
    x = add("Sub", add("Cast", "picture", to=FLOAT),
            add("Slice", "mean", *(number(ends, np.int64) for ends in (
                [first] * 2, [first + crop] * 2, [0, 1]))))
    x = add("Transpose", add("Mul", x, number(scale)), perm=[0, 3, 1, 2])
    factor, flat = 1.0, False
    for step in steps:
        kind, layer = step["is"], step.get("layer")
        if layer:
            own = f"{layer}.weight", f"{layer}.bias"
            tensors |= {name: arrays[name] for name in own}
        if kind == "conv":
            before, after = step["pad"]
            x = add("Conv", x, *own, kernel_shape=[step["size"]] * 2, group=step["groups"],
                    strides=[step["stride"]] * 2, pads=[before, before, after, after])
        elif kind == "relu":
            x = add("Relu", x)
        elif kind == "pool":
            x = add("MaxPool", x, kernel_shape=[step["size"]] * 2, ceil_mode=1,
                    strides=[step["stride"]] * 2)
        elif kind == "lrn":
            norm = dict(size=step["size"], alpha=step["alpha"], beta=step["beta"], bias=step["k"])
            maps, window = step["maps"], step["window"]
            if window == maps:
                x = add("LRN", x, **norm)
            else:
                x = add("Reshape", x, number([-1, window, 0, 0], np.int64))    # 0: as before
                x = add("Reshape", add("LRN", x, **norm), number([-1, maps, 0, 0], np.int64))
        elif kind == "same-map-lrn":
            size = step["size"]
            mean_square = add("AveragePool", add("Mul", x, x), kernel_shape=[size] * 2,
                              pads=[size // 2] * 4, count_include_pad=1)
            energy = add("Mul", mean_square, number(step["alpha"] * size ** 2))
            x = add("Div", x, add("Pow", add("Add", energy, number(step["k"])),
                                  number(step["beta"])))
        elif kind == "scale":
            factor *= step["by"]
        else:
            x, flat = x if flat else add("Flatten", x), True
            x, factor = add("Gemm", x, *own, transB=1, alpha=float(factor)), 1.0
    nodes.append(_node("Softmax", [x], "probabilities", axis=1))
    graph = message(
        *((1, node) for node in nodes), (2, "AlexNet"),
        *((5, _tensor(name, array)) for name, array in tensors.items()),
        (11, _value("picture", BYTE, ["N", crop, crop, 3])),
        (12, _value("probabilities", FLOAT, ["N", len(arrays["fc8.bias"])])))
    pieces = message((1, IR_VERSION), (2, "tinynet"), (7, graph),
                     (8, message((1, ""), (2, OPSET))),
                     *((14, message((1, name), (2, text))) for name, text in about.items()))
    with replacing(path) as file:
        for piece in pieces:
            file.write(piece)


def _node(kind, inputs, output, **of):
    def attribute(name, value):
        if isinstance(value, list):
            return [(1, name), *((8, number) for number in value), (20, 7)]
        return [(1, name), (3, value), (20, 2)] if isinstance(value, int) else [
            (1, name), (2, value), (20, 1)]

    return message(*((1, name) for name in inputs), (2, output), (3, output), (4, kind),
                   *((5, message(*attribute(name, value))) for name, value in of.items()))


def _tensor(name, array):
    kind = INT64 if array.dtype == np.int64 else FLOAT
    little = np.ascontiguousarray(array, DTYPES[kind])
    return message(*((1, size) for size in array.shape), (2, kind), (8, name),
                   (9, [little.data.cast("B")] if little.ndim else [little.tobytes()]))


def _value(name, kind, shape):
    dims = message(*((1, message((2, size) if isinstance(size, str) else (1, size)))
                     for size in shape))
    return message((1, name), (2, message((1, message((1, kind), (2, dims))))))
