"""Why the wrong ones tempt: in a chain, and in a tree, every order gives the same numbers. Only
where a long path and a short one meet does it matter who waits."""
import numpy as np


def gradients(inputs, slopes):
    grads = np.zeros(len(inputs))
    grads[-1] = 1
    for node in reversed(range(len(inputs))):          # newest first: its gradient is complete
        for x, slope in zip(inputs[node], slopes[node], strict=True):
            grads[x] += grads[node] * slope
    return grads
