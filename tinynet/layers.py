"""Who holds the weights, in which shape, and with which first values?

A layer holds parameters and other layers as plain attributes, and calls the lower-case op
of the same name. `parameters()` finds them by walking the attributes in the order in which
they were written down; there is no registration.
"""
import numpy as np

from . import ops, rng
from .conv import both_sides, conv2d, local2d, out_size
from .engine import Parameter
from .norm import lrn, lrn_same_map
from .pool import avg_pool, max_pool


class Layer:
    """What all layers can do. Subclasses write __init__ and forward."""

    training = True

    def __call__(self, *inputs):
        return self.forward(*inputs)

    def layers(self):
        """(name, layer) for every layer inside this one, in definition order."""
        return [(name, value) for name, value in vars(self).items()
                if isinstance(value, Layer)]

    def parameters(self, prefix=""):
        """(dotted name, Parameter) for every parameter, in definition order."""
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                yield prefix + name, value
        for name, layer in self.layers():
            yield from layer.parameters(f"{prefix}{name}.")

    def every_layer(self):
        """This layer and all layers inside it, however deep."""
        yield self
        for _, layer in self.layers():
            yield from layer.every_layer()

    def to(self, device):
        """Move every parameter to a device (a Device or its name); returns the layer."""
        for _, parameter in self.parameters():
            moved = Parameter(parameter.data, device)
            parameter.data, parameter.device = moved.data, moved.device
            parameter.grad = None
        return self

    def initialize(self, seed=0):
        """Draw first weights, a function of the seed and each parameter's name.

        Also names the parameters and numbers the dropout layers, so that no two of them
        share a mask. Returns the layer.
        """
        for name, layer in self.named_layers():
            layer.first_values(seed, name)
        self.name_parameters()
        dropouts = [layer for layer in self.every_layer() if isinstance(layer, Dropout)]
        for number, layer in enumerate(dropouts):
            layer.seed, layer.number = seed, number
        return self

    def name_parameters(self):
        """Tell every parameter where it sits: "top.conv1.0.W". Returns the layer."""
        for name, parameter in self.parameters():
            parameter.name = name
        return self

    def named_layers(self, prefix=""):
        """(path, layer) for this layer and all inside it: "top.conv1.0." names a Conv2D."""
        yield prefix, self
        for name, layer in self.layers():
            yield from layer.named_layers(f"{prefix}{name}.")

    def first_values(self, seed, name):
        """Fill this layer's own parameters. Most layers have none."""

    def train(self, step=None):
        """Training mode: dropout drops. step: which masks come next (default: go on)."""
        for layer in self.every_layer():
            layer.training = True
            if step is not None and isinstance(layer, Dropout):
                layer.step = step
        return self

    def eval(self):
        """Test mode: dropout keeps everything."""
        for layer in self.every_layer():
            layer.training = False
        return self


class Sequential(Layer):
    """One layer after the other."""

    def __init__(self, *steps):
        self.steps = steps

    def layers(self):
        return [(str(i), layer) for i, layer in enumerate(self.steps)]

    def forward(self, x):
        for layer in self.steps:
            x = layer(x)
        return x


class Weighted(Layer):
    """What layers with weights share: weights W, biases b, and their first values.

    shape: that of a set of kernels; places: how many sets there are, where every place has
    its own. std: the spread of the Gaussian that W is drawn from; "he" means
    sqrt(2 / inputs). bias: what b starts from.
    """

    def __init__(self, shape, std, bias, places=()):
        self.W = Parameter(np.zeros((*places, *shape), np.float32))
        self.b = Parameter(np.zeros((*places, shape[-1]), np.float32))
        self.std = (2.0 / np.prod(shape[:-1])) ** 0.5 if std == "he" else std
        self.bias = bias

    def first_values(self, seed, name):
        W = rng.gaussian_weights(self.W.shape, std=self.std, seed=seed, name=name + "W")
        self.W.data = self.W.device.put(W)
        self.b.data = self.b.device.put(np.full(self.b.shape, self.bias, np.float32))


class Conv2D(Weighted):
    """`kernels` kernels of size x size over `maps` maps. (N, H, W, maps) -> (N, OH, OW, kernels)

    pad: pixels of zeros on every side, or (before, after). groups: cut maps and kernels
    into that many groups that do not see each other. AlexNet has no need of it, since its
    towers are separate layers; the tests compare the two. form: as conv2d has it.
    """

    def __init__(self, maps, kernels, size, stride=1, pad=0, groups=1, form="auto", std=0.01,
                 bias=0.0):
        if maps % groups or kernels % groups:
            raise ValueError(f"{maps} maps and {kernels} kernels do not fall into "
                             f"{groups} equal groups")
        super().__init__((size, size, maps // groups, kernels), std, bias)
        self.stride, self.pad, self.groups, self.form = stride, both_sides(pad), groups, form

    def forward(self, x):
        how = dict(stride=self.stride, pad=self.pad, form=self.form)
        if self.groups == 1:
            return conv2d(x, self.W, self.b, **how)
        groups = ([ops.part(tensor, index=g, of=self.groups) for tensor in (x, self.W, self.b)]
                  for g in range(self.groups))
        return ops.concat(*[conv2d(*group, **how) for group in groups])


class Local2D(Weighted):
    """Conv2D without sharing: each of the places of a side x side map has its own kernels.

    (N, side, side, maps) -> (N, side, side, kernels) for pad = (size - 1) / 2.
    """

    def __init__(self, maps, kernels, size, side, pad=0, std=0.01, bias=0.0):
        self.pad = both_sides(pad)
        places = out_size(side, size, 1, self.pad)
        super().__init__((size, size, maps, kernels), std, bias, places=(places, places))

    def forward(self, x):
        return local2d(x, self.W, self.b, pad=self.pad)


class Dense(Weighted):
    """Every output sees every input. (N, inputs) -> (N, outputs)"""

    def __init__(self, inputs, outputs, std=0.01, bias=0.0):
        super().__init__((inputs, outputs), std, bias)

    def forward(self, x):
        return ops.dense(x, self.W, self.b)


class Dropout(Layer):
    """Each output is dropped with probability p while training (paper, section 4.2).

    classic: training drops and does not rescale; testing multiplies by 1 - p, as in 2012.
    Otherwise inverted: training divides by 1 - p, testing does nothing. `step` counts the
    batches seen; the mask is a function of (seed, step, which dropout layer).
    """

    def __init__(self, p=0.5, classic=True):
        if not 0 <= p < 1:
            raise ValueError(f"dropout probability must be in [0, 1), not {p}")
        self.keep, self.classic = 1.0 - p, classic
        self.seed = self.number = self.step = 0

    def forward(self, x):
        if not self.training:
            return ops.scale(x, by=self.keep) if self.classic else x
        scale = 1.0 if self.classic else 1.0 / self.keep
        x = ops.dropout(x, keep=self.keep, scale=scale, seed=self.seed, step=self.step,
                        layer=self.number)
        self.step += 1
        return x


class ReLU(Layer):
    def forward(self, x):
        return ops.relu(x)


class Tanh(Layer):
    def forward(self, x):
        return ops.tanh(x)


class Softmax(Layer):
    def forward(self, x):
        return ops.softmax(x)


class Flatten(Layer):
    def forward(self, x):
        return ops.flatten(x)


class MaxPool(Layer):
    """size x size windows every `stride` pixels; they overlap when stride < size.

    ceil: they may hang over the last pixels, so that every pixel is seen.
    """

    def __init__(self, size=3, stride=2, ties="first", ceil=False):
        self.size, self.stride, self.ties, self.ceil = size, stride, ties, ceil

    def forward(self, x):
        return max_pool(x, size=self.size, stride=self.stride, ties=self.ties, ceil=self.ceil)


class AvgPool(Layer):
    """The same with the mean of the pixels that a window sees."""

    def __init__(self, size=3, stride=2, ceil=False):
        self.size, self.stride, self.ceil = size, stride, ceil

    def forward(self, x):
        return avg_pool(x, size=self.size, stride=self.stride, ceil=self.ceil)


class LRN(Layer):
    """Local response normalisation (paper, section 3.3), with the paper's constants."""

    def __init__(self, n=5, k=2.0, alpha=1e-4, beta=0.75):
        self.n, self.k, self.alpha, self.beta = n, k, alpha, beta

    def forward(self, x):
        return lrn(x, n=self.n, k=self.k, alpha=self.alpha, beta=self.beta)


class SameMapLRN(Layer):
    """LRN over the pixels around in the same map, as in the 2012 program's layer 2."""

    def __init__(self, size=5, k=1.0, alpha=4e-5, beta=0.75):
        self.size, self.k, self.alpha, self.beta = size, k, alpha, beta

    def forward(self, x):
        return lrn_same_map(x, size=self.size, k=self.k, alpha=self.alpha, beta=self.beta)
