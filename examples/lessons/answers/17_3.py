"""Why the wrong ones tempt: with keep = 0.5 to keep and to drop are the same number, and the bias
looks like a part of the weights."""


def without_halving(W, b, keep):
    return W * keep, b                                 # (x * keep) W + b = x (W * keep) + b
