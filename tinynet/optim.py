"""How does a gradient become a step? The paper's section 5, term by term.

    v  <-  0.9 v  -  0.0005 rate w  -  rate dw
    w  <-  w + v

The rate stands inside the velocity: just after it was divided by 10 the old velocity still
carries the old rate. (PyTorch keeps it outside; the two agree only while it is constant.)
"""
import math

from . import kernels
from .cores import over_batch
from .device import get_array_module


class SGD:
    """Stochastic gradient descent with momentum and weight decay.

    parameters: a net, or (name, Parameter) pairs as net.parameters() gives them. The paper's
    momentum 0.9 and weight decay 0.0005 are on unless you say otherwise. They are for every
    parameter: the gamma of a batch norm would decay as well, without decays={"norm1.gamma": 0.0}.

    Biases (what layers call b) learn at bias_lr times the rate, and decay only if
    decay_biases. rates and decays: further factors, for all parameters of a layer,
    {"conv1": 0.1}, or for its weights alone, {"conv1.W": 0.1}; ValueError for what is in no
    parameter's name. A parameter whose rate is 0 stands still, momentum and all, as does one
    without gradient.
    """

    def __init__(self, parameters, lr=0.01, momentum=0.9, weight_decay=0.0005,
                 bias_lr=1.0, decay_biases=True, rates=(), decays=()):
        parameters = list(
            parameters.parameters() if hasattr(parameters, "parameters") else parameters)
        pairs = [pair for pair in parameters if isinstance(pair, tuple)]
        if len(dict(pairs)) < len(parameters):
            raise TypeError("SGD takes a net, or (name, Parameter) pairs as in net.parameters(), "
                            "each name once: of two nets make one, Sequential(a=a, b=b)")
        if not parameters:
            raise ValueError("SGD: no parameters: the net has none, or they came from a generator "
                             "that had been read before")
        self.parameters = dict(parameters)
        if not all(map(math.isfinite, (lr, momentum, weight_decay))):
            raise ValueError(f"SGD: lr {lr}, momentum {momentum}, weight_decay {weight_decay}: "
                             "these must be finite")
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.bias_lr, self.decay_biases = bias_lr, decay_biases
        self.rates, self.decays = dict(rates), dict(decays)
        for key in (*self.rates, *self.decays):
            if not any(_is_about(key, name) for name in self.parameters):
                raise ValueError(f"SGD: {key} is in no name of {', '.join(self.parameters)}")
        self.velocity = {}
        for name, w in self.parameters.items():
            with w.device:
                self.velocity[name] = get_array_module(w.data).zeros_like(w.data)

    def zero_grad(self):
        for w in self.parameters.values():
            w.grad = None

    def step(self):
        for name, w in self.parameters.items():
            factors = self.momentum, self.rate(name), self.decay(name)
            if w.grad is not None and factors[1]:
                with w.device as device:               # a number without axes may be no array
                    w.data = device.xp.asarray(w.data)
                    self._update(w.data, self.velocity[name], w.grad, *factors)

    def rate(self, name):
        """The rate at which the parameter of this name learns."""
        return self.lr * self.multiple(name)

    def multiple(self, name):
        """The same as a multiple of lr: 0 for what stands still, whatever lr is."""
        return (self.bias_lr if _is_bias(name) else 1.0) * _of_layers(self.rates, name)

    def decay(self, name):
        """The weight decay of the parameter of this name."""
        decays = self.decay_biases or not _is_bias(name)
        return self.weight_decay * _of_layers(self.decays, name) if decays else 0.0

    def _update(self, w, v, dw, *factors):
        momentum, rate, decay = map(float, factors)    # one of NumPy's would be wider than w
        if all(kernels.suit(array) and array.flags.c_contiguous for array in (w, v)):
            return kernels.sgd(w, v, dw, momentum, rate, decay)

        def block(v, dw, w):           # six passes, which cost what one does: in cache
            v *= momentum
            v -= rate * (dw + decay * w)
            w += v

        over_batch(block, v, dw, out=w)


def _is_bias(name):
    return name.rpartition(".")[2] == "b"


def _of_layers(factors, name):
    """What a dict layer -> factor says of a parameter."""
    return math.prod(factor for key, factor in factors.items() if _is_about(key, name))


def _is_about(key, name):
    """Whether "conv1", "conv1.0" or "conv1.W" is about a parameter: all three about
    top.conv1.0.W. A key that begins with a number has to be the beginning: steps are numbered in
    every layer."""
    layers, _, kind = name.rpartition(".")
    place = f".{layers}.".find(f".{key.removesuffix(f'.{kind}')}.")
    return key == name or place == 0 or place > 0 and not key[0].isdigit()
