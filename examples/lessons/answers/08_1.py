"""Why the wrong ones tempt: each of them is some program's LRN, or agrees in the middle of the
maps and differs at the ends. And at alpha = 1e-4 all of them look alike on small numbers."""
import numpy as np


def lrn(x, n, k, alpha, beta):
    y = np.empty_like(x)
    for i in range(x.shape[1]):
        start = max(0, i - n // 2)                     # below 0 a slice would count from the end
        neighbours = x[:, start:i + n // 2 + 1]
        d = k + alpha * (neighbours ** 2).sum(axis=1)
        y[:, i] = x[:, i] / d ** beta
    return y
