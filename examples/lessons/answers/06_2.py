"""Why the wrong ones tempt: a symmetric kernel hides the mirror, one channel hides the exchange,
and a 3 x 3 kernel with padding 1 has K - 1 - pad = pad. A reshape fits as well as a transpose."""
import numpy as np


def conv_dx(dy, W, pad):
    KH, KW, C, O = W.shape
    down, across = KH - 1 - pad, KW - 1 - pad
    wide = np.pad(dy, ((0, 0), (down, down), (across, across), (0, 0)))
    kernels = W[::-1, ::-1].transpose(0, 1, 3, 2)      # KH, KW, O, C: each makes a channel of dx
    N, H, width = len(dy), wide.shape[1] - KH + 1, wide.shape[2] - KW + 1
    dx = np.empty((N, H, width, C))
    for i in range(H):
        for j in range(width):
            patch = wide[:, i:i + KH, j:j + KW]        # N, KH, KW, O
            dx[:, i, j] = np.tensordot(patch, kernels, axes=3)
    return dx
