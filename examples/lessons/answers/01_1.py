"""Why the wrong ones tempt: most books define the derivative by the forward difference, and it is
right when h is zero. And a place that does not move back is found only where f mixes its numbers:
in a sum of cubes each slope is measured well, whatever the others are."""
import numpy as np


def numeric_gradient(f, x, step):
    gradient = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()                  # fresh ones, so nothing is to restore
        up[place] += step
        down[place] -= step
        gradient[place] = (f(up) - f(down)) / (2 * step)
    return gradient
