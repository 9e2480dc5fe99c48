"""How does Caffe keep a net, and a mean image?

As a protobuf (caffe.proto), of which there were three forms: layers of 2013 inside those of
2014, these, and today's. The weights are blobs, whose shape four fields told before there was a
list of sizes. A snapshot holds the layers' settings as well, so it tells AlexNet from CaffeNet,
which pools before it normalises.
"""
import math

import numpy as np

from .plan import Foreign, named
from .protobuf import Message

# Of the forms of today and of 2014: layers; their name, type, blobs; their kinds and parameters.
TODAY = dict(layers=100, name=1, blobs=7, conv=106, lrn=118, pool=121, relu=123)
BEFORE = dict(layers=2, name=4, blobs=6, conv=10, lrn=18, pool=19, relu=30)
KINDS = {"Convolution": "conv", "InnerProduct": "dense", "LRN": "lrn", "Pooling": "pool",
         "ReLU": "relu", 4: "conv", 14: "dense", 15: "lrn", 17: "pool", 18: "relu"}
MAX, ACROSS_CHANNELS = 0, 0


def read(data):
    """The net in a .caffemodel (a memoryview): a Foreign. Raises ValueError."""
    net = Message(data)
    form = TODAY if TODAY["layers"] in net.fields else BEFORE
    pairs, steps, seen = [], [], set()
    for layer in net.messages(form["layers"]):
        name, blobs = layer.text(form["name"]), layer.messages(form["blobs"])
        kind = KINDS.get(layer.text(2) if form is TODAY else layer.integer(5))
        if form is BEFORE and 1 in layer.fields:       # a layer of 2013 inside
            inner = layer.message(1)
            name, blobs, kind = inner.text(1), inner.messages(50), None
        if blobs:
            if name in seen or len(blobs) != 2:
                raise ValueError(f"its layer {name!r} occurs twice, or has {len(blobs)} blobs")
            seen.add(name)
            weights, biases = map(blob, blobs)
            if kind == "dense" or weights.shape[:-2] == (1, 1):
                weights = weights.reshape(weights.shape[-2:])
            pairs.append((weights, biases.ravel()))
        if kind:
            steps.append(step(kind, layer, form, pairs))
    has_plan = any(one["is"] not in ("conv", "dense") for one in steps)    # else of weights alone
    return Foreign("Caffe", named(pairs), steps if has_plan else None, blue_first=True)


def step(kind, layer, form, pairs):
    """A layer as a step of a plan."""
    of = layer.message(form[kind]) if kind in form else None
    if kind == "conv":
        (outputs, channels, size, _), before = pairs[-1][0].shape, pairs[:-1]
        maps = before[-1][0].shape[0] if before else 3
        if of.integer(5, 1) * channels != maps:
            raise ValueError(f"its {outputs} kernels see {channels} of {maps} maps in "
                             f"{of.integer(5, 1)} groups")
        if set(of.integers(18)) - {1}:
            raise ValueError("its kernels have gaps: another dilation than 1")
        pad = (of.integers(3) or [0])[0]
        return {"is": "conv", "size": size, "stride": (of.integers(6) or [1])[0],
                "pad": (pad, pad), "groups": of.integer(5, 1)}
    if kind == "lrn":
        if of.integer(4) != ACROSS_CHANNELS:
            raise ValueError("it normalises within channels")
        maps = pairs[-1][0].shape[0]
        return {"is": "lrn", "size": of.integer(1, 5), "alpha": of.float(2, 1.0),
                "beta": of.float(3, 0.75), "k": of.float(5, 1.0), "maps": maps, "window": maps}
    if kind == "pool":
        if of.integer(1) != MAX or of.integer(4):
            raise ValueError("it pools otherwise than by the largest, or with a pad")
        return {"is": "pool", "size": of.integer(2), "stride": of.integer(3, 1)}
    if kind == "relu" and of.float(1):
        raise ValueError("its ReLUs leak: another negative_slope than 0")
    return {"is": kind}


def blob(message):
    """The numbers of a BlobProto, in its shape."""
    data = message.array(5, "<f4")
    if not data.size:
        data = message.array(8, "<f8")
    shape = (message.message(7).integers(1) if 7 in message.fields
             else [message.integer(number) for number in (1, 2, 3, 4)])
    if len(shape) > 8 or math.prod(shape) != data.size:
        raise ValueError(f"{data.size:,} numbers in the shape {shape}"[:200])
    return data.reshape(shape)


def read_mean(data):
    """The mean image in a .binaryproto: (3, 256, 256), blue first."""
    mean = blob(Message(data))
    return np.asarray(mean.reshape(mean.shape[-3:]), np.float32)
