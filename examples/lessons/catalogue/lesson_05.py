"""A convolution is a matrix product."""
import math

import numpy as np

from exercise import Exercise, Question
from tinynet import conv


def pictures():
    draw = np.random.default_rng(5)
    return [(np.arange(1.0, 10).reshape(1, 3, 3, 1), 3, 3, 2, 1),
            (draw.standard_normal((2, 7, 9, 3)), 3, 2, 2, 1),
            (draw.standard_normal((1, 5, 8, 2)), 2, 4, 1, 2),
            (draw.standard_normal((3, 6, 5, 2)), 4, 3, 1, 0)]


def rows(x, KH, KW, stride, pad, order=(0, 1, 2, 3, 4, 5), step=None, around=None, counted=True,
         mode="constant"):
    """im2col, its axes N, OH, OW, KH, KW, C in another order before they become rows.

    around: how many zeros at both ends of the four axes. counted: whether OH and OW count them.
    """
    here, none = (pad, pad), (0, 0)
    around = around(pad) if around else (none, here, here, none)
    _, H, W, _ = x.shape
    x = np.pad(x, around, mode)
    N, high, wide, C = x.shape
    H, W = (high, wide) if counted else (H, W)
    OH, OW = (H - KH) // stride + 1, (W - KW) // stride + 1
    patches = np.empty((N, OH, OW, KH, KW, C))
    for i, j in np.ndindex(OH, OW):
        top, left = i * (step or stride), j * (step or stride)
        patches[:, i, j] = x[:, top:top + KH, left:left + KW]
    return patches.transpose(order).reshape(N * OH * OW, KH * KW * C)


def as_nchw(x, *sizes):
    N, H, W, C = x.shape
    return rows(x.reshape(N, C, H, W).transpose(0, 2, 3, 1), *sizes, (0, 1, 2, 5, 3, 4))


IM2COL = Exercise(
    "5.1", "im2col",
    "As in the lesson, and one thing more. First put `pad` zeros round each picture, on every "
    "side. Then write every patch of KH x KW pixels as a row: x (N, H, W, C) -> (N * OH * OW, "
    "KH * KW * C). The window moves by `stride` pixels. In a row the pixels stand row by row, "
    "and of every pixel all channels.",
    lambda x, KH, KW, stride, pad: conv.im2col(x, (KH, KW), stride, (pad, pad)),
    pictures(),
    {"it is transposed: every patch is a column. With rows, im2col(x) @ W is the output as it "
     "is, without a transpose": lambda *a: rows(*a).T,
     "in a row all pixels of the first channel come first, then those of the second. W is "
     "(KH, KW, C, O): of every pixel, all channels": lambda *a: rows(*a, (0, 1, 2, 5, 3, 4)),
     "the patches are right, but within each the columns of pixels come one after the other: "
     "KW before KH": lambda *a: rows(*a, (0, 1, 2, 4, 3, 5)),
     "the patches come column by column: of the places, OW runs before OH":
     lambda *a: rows(*a, (0, 2, 1, 3, 4, 5)),
     "as many patches as there should be, but each is one pixel from the last: the stride is "
     "not in their places": lambda *a: rows(*a, step=1),
     "x was reshaped to (N, C, H, W). A reshape moves nothing: it reads other numbers as "
     "channels": as_nchw,
     "there are no zeros round the picture: pad is not used":
     lambda *a: rows(*a, around=lambda pad: 4 * ((0, 0),)),
     "the zeros stand on one side only, above and on the left. (Or OH and OW count pad once: then "
     "no window reaches the zeros below and on the right)":
     lambda *a: rows(*a, around=lambda pad: ((0, 0), (pad, 0), (pad, 0), (0, 0))),
     "the zeros stand on one side only, below and on the right":
     lambda *a: rows(*a, around=lambda pad: ((0, 0), (0, pad), (0, pad), (0, 0))),
     "there are zeros above and below, but none on the left and on the right":
     lambda *a: rows(*a, around=lambda pad: ((0, 0), (pad, pad), (0, 0), (0, 0))),
     "there are zeros on the left and on the right, but none above and below":
     lambda *a: rows(*a, around=lambda pad: ((0, 0), (0, 0), (pad, pad), (0, 0))),
     "zeros were put on all four axes: there are pictures and channels of nothing but zeros. "
     "Only H and W have sides": lambda *a: rows(*a, around=lambda pad: 4 * ((pad, pad),)),
     "the zeros are there, but OH and OW were computed without them: the last rows and columns "
     "of places are missing": lambda *a: rows(*a, counted=False),
     "there are twice as many zeros on every side as there should be":
     lambda *a: rows(*a, around=lambda pad: ((0, 0), (2 * pad,) * 2, (2 * pad,) * 2, (0, 0))),
     "what stands round the picture are copies of its outermost pixels. Some programs do so at a "
     "border; here it is zeros": lambda *a: rows(*a, mode="edge")},
    hint="Make the larger picture first. From there on it is the lesson's function, and H and W "
         "are those of the larger picture.")


OUT_SIZE = Exercise(
    "5.2", "out_size",
    "How many windows of `kernel` pixels fit into a row of `size` pixels, with `pad` zeros at "
    "each end and a step of `stride`?",
    lambda size, kernel, stride, pad: conv.out_size(size, kernel, stride, (pad, pad)),
    [(227, 11, 4, 0), (224, 11, 4, 0), (27, 5, 1, 2), (13, 3, 2, 0), (12, 5, 3, 1)],
    {"the first window is missing: between the ends of n steps lie n + 1 windows":
     lambda size, kernel, stride, pad: (size + 2 * pad - kernel) // stride,
     "it rounds up. A window that hangs over the edge does not count (in Caffe's pools it does)":
     lambda size, kernel, stride, pad: math.ceil((size + 2 * pad - kernel) / stride) + 1,
     "pad counts once. There are zeros at both ends":
     lambda size, kernel, stride, pad: (size + pad - kernel) // stride + 1,
     "size / stride is the number of steps, not of whole windows: the last ones do not fit":
     lambda size, kernel, stride, pad: (size + 2 * pad) // stride,
     "the result is no whole number: // instead of /":
     lambda size, kernel, stride, pad: (size + 2 * pad - kernel) / stride + 1})

ROWS_OF_CONV3 = Question(
    "5.3",
    "conv3 sees 13 x 13 pixels of 256 channels, with kernels of 3 x 3, stride 1 and a zero on "
    "every side. How many numbers has its im2col, for one picture?",
    13 * 13 * 3 * 3 * 256,
    {"that is the number of its input's pixels and channels: im2col repeats each in up to nine "
     "patches": 13 * 13 * 256,
     "without the zeros only 11 x 11 kernels fit": 11 * 11 * 3 * 3 * 256,
     "of every pixel, all 256 channels belong to the row": 13 * 13 * 3 * 3,
     "that is one row. There are as many rows as places": 3 * 3 * 256,
     "im2col does not ask how many kernels there are": 13 * 13 * 3 * 3 * 256 * 192},
    hint="How many places, and how long is a row?")

EXERCISES = [IM2COL, OUT_SIZE, ROWS_OF_CONV3]
