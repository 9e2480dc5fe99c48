"""Why the wrong ones tempt: in the rule of powers the slope is a number times x, and so x is what
one reaches for. And tables say that exp is its own derivative, which leaves dy out: there
the loss is exp itself, and its dy is 1."""
import numpy as np


def exp(x, dy):
    y = np.exp(x)
    return y, dy * y
