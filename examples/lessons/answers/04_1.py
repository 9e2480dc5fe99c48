"""Why the wrong ones tempt: any of x, y and the mask gives the right gradient. What is kept shows
only in the memory, and a mask times a float silently becomes an array of floats."""
import numpy as np


def relu(x):
    positive = x > 0                                   # bool: one byte a number

    def dx(dy):
        return dy * positive

    return np.maximum(x, 0), dx
