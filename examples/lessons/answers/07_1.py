"""Why the wrong ones tempt: on windows that do not overlap, `=` and `+=` agree, and on pixels that
all differ, every rule for ties does. So both are tested with overlap and with ties here."""
import numpy as np


def max_pool_dx(x, dy, size, stride):
    dx = np.zeros_like(x)
    for i in range(dy.shape[0]):
        for j in range(dy.shape[1]):
            top, left = i * stride, j * stride         # of the window, in the map
            window = x[top:top + size, left:left + size]
            row, column = np.unravel_index(window.argmax(), window.shape)
            dx[top + row, left + column] += dy[i, j]   # a pixel may win more than once
    return dx
