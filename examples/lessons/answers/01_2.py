"""Why the wrong ones tempt: a step is quoted as a number, 1e-5, as if it did not depend on x. It
is good for an x of about 1. At 2 the best step in float32 is 0.01; at 200 all is a hundred times
larger, the step as well."""
import numpy as np

x = np.linspace(190, 210, 41, dtype=np.float32)
right = 3 * x.astype(np.float64) ** 2


def error(step):
    h = np.float32(step)                               # a float64 h could widen x + h
    up, down = x + h, x - h
    return np.abs((up * up * up - down * down * down) / (2 * h) / right - 1).mean()


answer = min([10.0 ** k for k in range(-7, 3)], key=error)
