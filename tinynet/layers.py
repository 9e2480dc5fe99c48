"""Who holds the weights, in which shape, and with which first values?

A layer holds parameters and other layers as plain attributes, and calls the lower-case op
of the same name. `parameters()` finds them by walking the attributes in the order in which
they were written down; there is no registration.
"""
import copy
import functools
import inspect
import itertools
import math
from contextlib import contextmanager

import numpy as np

from . import ops, rng, store
from .conv import both_sides, conv2d
from .device import as_device
from .engine import Parameter, Tensor, no_grad
from .norm import lrn
from .pool import avg_pool, max_pool


class Layer:
    """What all layers can do. A subclass writes __init__ and forward, and calls no super():

        class Scaled(Layer):
            def __init__(self, channels):
                self.gain = Parameter(np.ones(channels, np.float32))

            def forward(self, x):
                return x * self.gain

    Parameters and layers are found in attributes, also in lists, tuples and dicts there, and
    named by the way to them: "conv1.0.W", "blocks.0.W", "heads.left.W". What is found twice is
    listed once. An error that forward raises says in which layer it was raised.

    Only parameters are saved. The running mean of a batch norm is kept as one, set by
    `self.mean.data = ...`, and SGD leaves it alone by rates={"norm.mean": 0.0}.
    """

    training = True
    multiply_adds = 0                  # for one place of the output; of a dense layer: for all

    def __call__(self, *inputs):
        try:
            return self.forward(*inputs)
        except (ValueError, TypeError, RuntimeError, AttributeError, IndexError) as error:
            # Each layer that an error passes says anew where the innermost of them is. The
            # last to do so is the whole net.
            innermost, said = vars(error).setdefault("raised_in", (self, error.args))
            for path, layer in self.named_layers():
                if layer is innermost and path and len(said) == 1:
                    error.args = f"{path[:-1]} ({type(layer).__name__}): {said[0]}",
            raise

    def __setattr__(self, name, value):
        if name == "forward" or callable(getattr(Layer, name, None)):
            raise ValueError(f"{type(self).__name__}: the name {name} is taken; choose another")
        super().__setattr__(name, value)

    def __repr__(self):
        """The code that makes it: its layers, or else those of its arguments that are not the
        defaults, read from attributes of the same names."""
        parts = [f"{'' if name.isdigit() else name + '='}{layer!r}"
                 for name, layer in self.layers()]
        for name, argument in () if parts else inspect.signature(type(self)).parameters.items():
            value, default = getattr(self, name, argument.default), argument.default
            if repr(value) != repr(default):
                parts.append(repr(value) if default is argument.empty else f"{name}={value!r}")
        text = ", ".join(parts)
        if len(text) > 60 or "\n" in text:
            text = "\n" + ",\n".join(parts)
        return f"{type(self).__name__}({text})".replace("\n", "\n    ")

    def layers(self):
        """[(name, layer), ...] of the layers that this one holds, in definition order."""
        found = _once(_find(Layer, vars(self)))
        return [(name, layer) for name, layer in found if layer is not self]

    def named_layers(self, path=""):
        """[(path, layer), ...] of this layer and all inside it, however deep, each before those
        that it holds. A path ends in a dot: "top.conv1.0."; this layer's own is ""."""
        found = [(path, self)]
        for name, layer in self.layers():
            found += layer.named_layers(f"{path}{name}.")
        return _once(found)

    def parameters(self):
        """[(dotted name, Parameter), ...] of this layer and all inside it."""
        return _once((path + name, parameter) for path, layer in self.named_layers()
                     for name, parameter in _find(Parameter, vars(layer)))

    def to(self, device):
        """Move every parameter to a device (a Device or its name). Returns the layer."""
        device = as_device(device)
        for _, parameter in self.parameters():
            if parameter.is_drawn:
                parameter.data = device.put(parameter.data)
            parameter.device, parameter.grad = device, None
        return self

    def initialize(self, seed=0):
        """Draw all first weights, as a function of the seed and of each parameter's name.

        Parameters learn their names by this, dropout layers their numbers: no two share a mask.
        Without it weights are as good, but depend on the layers made before. Returns the layer.
        """
        for name, parameter in self.parameters():
            parameter.initialize(seed, name)
        dropouts = [layer for _, layer in self.named_layers() if isinstance(layer, Dropout)]
        for number, layer in enumerate(dropouts):
            layer.seed, layer.number = seed, number
        return self

    def train(self, step=None):
        """Switch to training mode, in which dropout drops. Returns the layer.

        step: the number of the batch that comes next, of which the masks are a function. Without
        it every dropout layer goes on counting. train(False) is eval().
        """
        step = step.item() if isinstance(step, np.generic) else step
        for _, layer in self.named_layers():
            layer.training = step is not False
            if isinstance(layer, Dropout) and not isinstance(step, (bool, type(None))):
                layer.step = step
        return self

    def eval(self):
        """Switch to test mode, in which dropout keeps everything. Returns the layer."""
        return self.train(False)

    def save(self, path):
        """Write all parameters to an .npz file. Raises OSError; an older file is then kept."""
        store.save(path, {f"weights/{name}": w.numpy() for name, w in self.parameters()}, {})

    def load(self, path):
        """Read all parameters from a file that save() or a training run wrote. Returns the
        layer. Raises UserError if there is none, or names or shapes differ."""
        store.Checkpoint(path).load_weights(self)
        return self

    def summary(self, x):
        """A table of the layers that compute, in their order, as text.

        x: a Tensor, an array, or the shape of one, batch axis included. The table is of one row
        of the batch. Shared weights count once in the total.
        """
        net, rows = copy.deepcopy(self).eval(), []     # so that this one stays as it is
        layers = dict(net.named_layers())

        def measured(path, forward, *inputs):
            y, layer = forward(*inputs), layers[path]
            rows.append((path[:-1], type(layer).__name__, "x".join(map(str, y.shape[1:])),
                         _count(_find(Parameter, vars(layer))),
                         math.prod(y.shape[1:-1]) * layer.multiply_adds))
            return y

        if not isinstance(x, Tensor):
            place = next((w.device for _, w in self.parameters()), "cpu")
            x = Tensor(np.zeros(getattr(x, "shape", x), np.float32), place)
        computing = {path: layer for path, layer in layers.items()
                     if not layer.layers() or any(_find(Parameter, vars(layer)))}
        with watched(computing, measured), no_grad():
            net(x)
        rows.append(("total", "", "", _count(self.parameters()), sum(row[-1] for row in rows)))
        width = max(len(row[0]) for row in rows)
        lines = [f"{'layer':{width + 12}}{'output':>13}{'parameters':>13}{'multiply-adds':>16}"]
        for path, kind, output, size, macs in rows:
            lines.append(f"{path:{width}}  {kind:10}{output:>13}{size:>13,}{macs:>16,}")
        return "\n".join(lines)


def _find(kind, holder, prefix=""):
    """(name, value) for every Layer, or Parameter, in a dict, list or tuple, however deep."""
    for key, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
        if isinstance(value, kind):
            yield f"{prefix}{key}", value
        elif isinstance(value, (list, tuple, dict)):
            yield from _find(kind, value, f"{prefix}{key}.")


def _once(pairs):
    """[(name, value), ...] without the values that came before under another name."""
    found = {}
    for name, value in pairs:
        found.setdefault(id(value), (name, value))
    return list(found.values())


def keep_sizes(layer, **sizes):
    """Keep whole numbers in attributes of their names. Raises ValueError for other ones."""
    for name, size in sizes.items():
        if not isinstance(size, (int, np.integer)) or size < 1:
            raise ValueError(f"{type(layer).__name__}: {name} is a whole number and at least 1, "
                             f"not {size!r}")
    vars(layer).update(sizes)


def _count(named):
    """How many numbers there are in (name, Parameter) pairs."""
    return sum(math.prod(parameter.shape) for _, parameter in named)


@contextmanager
def watched(layers, around):
    """Inside, every layer computes around(name, forward, *inputs), where forward is its own: to
    look at what goes in and comes out, or at the clock. layers: {name: layer}."""
    for name, layer in layers.items():                 # hides the method of its class
        vars(layer)["forward"] = functools.partial(around, name, layer.forward)
    try:
        yield
    finally:
        for layer in layers.values():
            del layer.forward


class Function(Layer):
    """A function of tensors as a layer. Sequential makes one of ops.relu, or of a lambda."""

    def __init__(self, function):
        self.function = function

    def __repr__(self):
        return getattr(self.function, "__name__", repr(self.function))

    def forward(self, *inputs):
        return self.function(*inputs)


class Sequential(Layer):
    """One step after the other: layers, or functions of one tensor.

    Sequential(Dense(4, 8), ops.relu) counts its steps: net[0], "0.W". Names make better paths:
    Sequential(fc1=Dense(4, 8), relu=ops.relu) has net.fc1 and "fc1.W". Each layer in it is a step.
    """

    def __init__(self, *steps, **named):
        for name, step in [*enumerate(steps), *named.items()]:
            if isinstance(step, type) or not callable(step):
                raise TypeError(f"Sequential: step {name} is {step!r}, neither a layer nor a "
                                "function: write Sequential(Dense(4, 8), ReLU())")
            setattr(self, str(name), step if isinstance(step, Layer) else Function(step))

    def layers(self):
        return [(name, step) for name, step in vars(self).items() if isinstance(step, Layer)]

    def __getitem__(self, index):
        return [step for _, step in self.layers()][index]

    def __len__(self):
        return len(self.layers())

    def forward(self, x):
        for _, step in self.layers():
            x = step(x)
        return x


class Weighted(Layer):
    """What layers with weights share: weights W, biases b, and their first values.

    shape: that of W, outputs last. std: the standard deviation of the Gaussian that W is drawn
    from. "he" means sqrt(2 / inputs), with which ReLUs pass on a signal as large as it came in
    (He and others, 2015). bias: what b starts from.
    """

    def __init__(self, shape, std, bias):
        self.std, self.bias, self.multiply_adds = std, bias, math.prod(shape)
        std = (2.0 / np.prod(shape[:-1])) ** 0.5 if std == "he" else float(std)
        self.W = Parameter(functools.partial(rng.gaussian_weights, std=std), shape=shape)
        self.b = Parameter(lambda shape, **_: np.full(shape, bias, np.float32), shape=shape[-1:])


class Conv2D(Weighted):
    """Kernels of size x size pixels, slid over a picture.
    (N, H, W, channels) -> (N, OH, OW, kernels)

    pad: pixels of zeros on every side, or (before, after). form: as conv2d has it. std, bias:
    as in Dense. There are no groups: the towers of AlexNet are layers of their own.
    """

    def __init__(self, channels, kernels, size, stride=1, pad=0, form="auto", std="he", bias=0.0):
        keep_sizes(self, channels=channels, kernels=kernels, size=size, stride=stride)
        both_sides(pad)                                # raises ValueError
        self.pad, self.form = pad, form
        super().__init__((size, size, channels, kernels), std, bias)

    def forward(self, x):
        return conv2d(x, self.W, self.b, stride=self.stride, pad=self.pad, form=self.form)


class Dense(Weighted):
    """Every output sees every input. (N, inputs) -> (N, outputs)

    std: the deviation of the first weights, or "he". bias: the first value of all biases.
    """

    def __init__(self, inputs, outputs, std="he", bias=0.0):
        keep_sizes(self, inputs=inputs, outputs=outputs)
        super().__init__((inputs, outputs), std, bias)

    def forward(self, x):
        return ops.dense(x, self.W, self.b)


class Dropout(Layer):
    """Each output is dropped with probability p while training (paper, section 4.2).

    classic: training drops and does not rescale; testing multiplies by 1 - p, as in 2012.
    Otherwise inverted: training divides by 1 - p, testing does nothing. `step` counts the
    batches seen; the mask is a function of (seed, step, number), where the number tells apart
    dropout layers of a net: let none stand in it twice. place: where a recorded step finds
    `step` (replay.py).
    """

    step, place, numbers = 0, None, itertools.count()  # the last: of layers nobody initialized

    def __init__(self, p=0.5, classic=True):
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: p is a probability in [0, 1), not {p!r}")
        self.p, self.classic, self.keep = p, classic, 1.0 - p
        self.seed, self.number, self.part = 0, next(self.numbers), {}

    def forward(self, x):
        if not self.training:
            return ops.scale(x, by=self.keep) if self.classic else x
        scale = 1.0 if self.classic else 1.0 / self.keep
        x = ops.dropout(x, keep=self.keep, scale=scale, seed=self.seed, layer=self.number,
                        step=self.step if self.place is None else self.place, **self.part)
        self.step += 1
        return x


class ReLU(Layer):
    """max(x, 0) (paper, section 3.1). Any shape -> the same shape"""

    forward = staticmethod(ops.relu)


class Tanh(Layer):
    """The nonlinearity that the ReLU took the place of. Any shape -> the same shape"""

    forward = staticmethod(ops.tanh)


class Softmax(Layer):
    """Probabilities of the classes. (N, classes) -> (N, classes)

    A net that is trained with ops.softmax_cross_entropy ends before it: the loss holds one.
    """

    forward = staticmethod(ops.softmax)


class Flatten(Layer):
    """Maps as the inputs of a dense layer. (N, H, W, C) -> (N, H * W * C)"""

    forward = staticmethod(ops.flatten)


class MaxPool(Layer):
    """The largest pixel of each window. (N, H, W, C) -> (N, OH, OW, C)

    A window of size x size pixels stands every `stride` pixels; windows overlap where stride <
    size (paper, section 3.4). ceil: the last ones may hang over the edge, so that every pixel is
    seen. ties: as max_pool has it.
    """

    def __init__(self, size=3, stride=2, ties="first", ceil=False):
        keep_sizes(self, size=size, stride=stride)
        self.ties, self.ceil = ties, ceil

    def forward(self, x):
        return max_pool(x, size=self.size, stride=self.stride, ties=self.ties, ceil=self.ceil)


class AvgPool(Layer):
    """The mean of the pixels that a window sees. (N, H, W, C) -> (N, OH, OW, C)

    size, stride and ceil are those of MaxPool.
    """

    def __init__(self, size=3, stride=2, ceil=False):
        keep_sizes(self, size=size, stride=stride)
        self.ceil = ceil

    def forward(self, x):
        return avg_pool(x, size=self.size, stride=self.stride, ceil=self.ceil)


class LRN(Layer):
    """Local response normalisation (paper, section 3.3). (N, H, W, C) -> (N, H, W, C)"""

    def __init__(self, n=5, k=2.0, alpha=1e-4, beta=0.75):
        self.n, self.k, self.alpha, self.beta = n, k, alpha, beta

    def forward(self, x):
        return lrn(x, n=self.n, k=self.k, alpha=self.alpha, beta=self.beta)
