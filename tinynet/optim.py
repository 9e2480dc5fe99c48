"""How does a gradient become a step? The paper's section 5, term by term.

    v  <-  0.9 v  -  0.0005 rate w  -  rate dw
    w  <-  w + v

The rate stands inside the velocity: just after it was divided by 10 the old velocity still
carries the old rate. (PyTorch keeps it outside; the two agree only while it is constant.)
"""
import math

from .device import get_array_module, in_place


class SGD:
    """Stochastic gradient descent with momentum and weight decay.

    parameters: (name, Parameter) pairs. Biases (names ending in "b") learn at bias_lr times
    the rate, and decay only if decay_biases. A parameter without gradient is left alone.
    """

    def __init__(self, parameters, lr=0.01, momentum=0.9, weight_decay=0.0005,
                 bias_lr=1.0, decay_biases=True):
        self.parameters = dict(parameters)
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.bias_lr, self.decay_biases = bias_lr, decay_biases
        self.velocity = {}
        for name, w in self.parameters.items():
            with w.device:
                self.velocity[name] = get_array_module(w.data).zeros_like(w.data)

    def zero_grad(self):
        for w in self.parameters.values():
            w.grad = None

    def step(self):
        for name, w in self.parameters.items():
            if w.grad is None:
                continue
            is_bias = name.rpartition(".")[2] == "b"
            rate = self.lr * self.bias_lr if is_bias else self.lr
            decay = self.weight_decay if self.decay_biases or not is_bias else 0.0
            with w.device:
                self._update(w.data, self.velocity[name], w.grad, rate, decay)

    def _update(self, w, v, dw, rate, decay):
        def block(w, v, dw):
            v *= self.momentum
            v -= rate * (dw + decay * w)
            w += v

        in_place(block, [w, v], dw)


class Plateau:
    """Divide the rate by 10 when the validation error stops improving (section 5).

    The paper did this by hand, three times. patience: the rate drops at the patience-th
    validation in a row that does not beat the best by more than `threshold` (in error,
    0.001 is 0.1 points); most: how often it may drop.
    """

    STATE = "best", "bad", "drops"     # what a checkpoint keeps; the rest are settings

    def __init__(self, patience=5, threshold=0.001, factor=0.1, most=3):
        self.patience, self.threshold = patience, threshold
        self.factor, self.most = factor, most
        self.best, self.bad, self.drops = math.inf, 0, 0

    def multiplier(self, error):
        """What to multiply the rate by after a validation with this error: 1 or factor."""
        if error < self.best - self.threshold:
            self.best, self.bad = error, 0
        else:
            self.bad += 1
        if self.bad < self.patience or self.drops == self.most:
            return 1.0
        self.bad = 0
        self.drops += 1
        return self.factor
