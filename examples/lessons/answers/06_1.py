"""Why the wrong ones tempt: `=` and the mean both undo im2col, and "undo" is what the name
promises. The other mistakes hide where the picture is square, the stride 1 or the padding 0."""
import numpy as np


def col2im(cols, shape, KH, KW, stride, pad):
    N, H, W, C = shape
    OH = (H + 2 * pad - KH) // stride + 1
    OW = (W + 2 * pad - KW) // stride + 1
    patches = cols.reshape(N, OH, OW, KH, KW, C)
    wide = np.zeros((N, H + 2 * pad, W + 2 * pad, C))
    for i in range(OH):
        for j in range(OW):
            top, left = stride * i, stride * j
            wide[:, top:top + KH, left:left + KW] += patches[:, i, j]
    return wide[:, pad:pad + H, pad:pad + W]
