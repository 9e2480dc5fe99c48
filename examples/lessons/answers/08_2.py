"""Why the wrong ones tempt: the formula has two maps in it, the one that moves and the one that
is moved, and both are called x. And d looks like a constant, as at alpha = 1e-4 it nearly is."""
import numpy as np


def lrn_dx(x, dy, n, k, alpha, beta):
    C = x.shape[1]
    d = np.empty_like(x)
    for i in range(C):
        start, end = max(0, i - n // 2), i + n // 2 + 1
        d[:, i] = k + alpha * (x[:, start:end] ** 2).sum(axis=1)

    dx = dy / d ** beta                                # x above the line of its own y
    each = x * dy / d ** (beta + 1)                    # what belongs to each map j
    for i in range(C):                                 # n is odd: j counts i, so i counts j
        start, end = max(0, i - n // 2), i + n // 2 + 1
        dx[:, i] -= 2 * alpha * beta * x[:, i] * each[:, start:end].sum(axis=1)
    return dx
