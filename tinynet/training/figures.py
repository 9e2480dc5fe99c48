"""What did the net learn to look for? Pictures for the eye, drawn with Pillow alone."""
import numpy as np
from PIL import Image


def kernel_sheet(*towers, zoom=5, columns=16):
    """The first layer's kernels as one picture (paper, figure 3): a PIL image.

    towers: weights (11, 11, 3, kernels) as NumPy arrays, drawn below each other, top tower
    first, with a wider gap between. Every kernel is stretched to the full range of grey.
    """
    gap = 2
    rows = []
    for W in towers:
        tiles = [_tile(W[..., i], zoom, gap) for i in range(W.shape[-1])]
        columns = min(columns, len(tiles))
        blank = np.full_like(tiles[0], 255)
        tiles += [blank] * (-len(tiles) % columns)
        rows += [np.concatenate(tiles[i:i + columns], axis=1)
                 for i in range(0, len(tiles), columns)]
        rows.append(np.full((2 * gap, rows[-1].shape[1], 3), 255, np.uint8))
    sheet = np.concatenate(rows[:-1])
    return Image.fromarray(np.pad(sheet, ((gap, gap), (gap, gap), (0, 0)),
                                  constant_values=255))


def _tile(kernel, zoom, gap):
    low, high = kernel.min(), kernel.max()
    grey = (kernel - low) / max(high - low, 1e-12) * 255
    big = np.round(grey).astype(np.uint8).repeat(zoom, axis=0).repeat(zoom, axis=1)
    return np.pad(big, ((gap, gap), (gap, gap), (0, 0)), constant_values=255)
