"""Why the wrong ones tempt: most tutorials keep pictures as N, C, H, W and patches as columns.
Both habits are right in their layout. And a reshape never complains."""
import numpy as np


def im2col(x, KH, KW, stride):
    N, H, W, C = x.shape
    OH, OW = (H - KH) // stride + 1, (W - KW) // stride + 1
    rows = []
    for n in range(N):
        for i in range(OH):
            for j in range(OW):
                patch = x[n, stride * i:stride * i + KH, stride * j:stride * j + KW]
                rows.append(patch.reshape(-1))         # KH, KW, C: C runs fastest
    return np.array(rows)
