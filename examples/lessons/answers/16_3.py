"""Why the wrong ones tempt: pictures begin at 0, weights do not, and many drawing functions
stretch each channel without being asked."""
import numpy as np


def drawn(kernel):
    low, high = kernel.min(), kernel.max()             # of all three channels together
    return np.uint8(np.round(255 * (kernel - low) / (high - low)))
