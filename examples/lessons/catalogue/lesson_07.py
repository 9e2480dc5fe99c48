"""Pools that overlap."""
import math

import numpy as np

from exercise import Exercise, Question
from tinynet import Tensor, conv, pool


def reference(x, dy, size, stride):
    leaf = Tensor(x[None, :, :, None], requires_grad=True)
    y = pool.max_pool(leaf, size=size, stride=stride)
    (y * Tensor(dy[None, :, :, None])).sum().backward()
    return leaf.grad[0, :, :, 0]


def maps():
    """The first may be done on paper, the second has a tie in nearly every window."""
    draw = np.random.default_rng(7)
    paper = np.array([[2., 0, 1, 4, 3], [5, 3, 9, 0, 1], [0, 7, 2, 6, 4],
                      [1, 0, 3, 2, 8], [4, 2, 5, 1, 0]])
    return [(paper, np.array([[1., 2], [3, 4]]), 3, 2),
            (draw.integers(0, 3, (7, 9)) / 2, draw.standard_normal((3, 4)), 3, 2),
            (draw.integers(0, 9, (8, 10)) / 2, draw.standard_normal((3, 4)), 4, 2)]


def first(window):
    hit = np.zeros(window.shape)
    hit[np.unravel_index(window.argmax(), window.shape)] = 1
    return hit


def to(chosen, add=True, apart=False):
    """max_pool_dx in which chosen(window) says what share each of its pixels gets."""
    def max_pool_dx(x, dy, size, stride):
        dx = np.zeros_like(x)
        step = size if apart else stride
        for i, j in np.ndindex(dy.shape):
            here = slice(i * step, i * step + size), slice(j * step, j * step + size)
            if not x[here].size:
                continue
            share = chosen(x[here])
            if add:
                dx[here] += share * dy[i, j]
            else:
                dx[here][share > 0] = dy[i, j]
        return dx
    return max_pool_dx


def in_the_corner(x, dy, size, stride):
    dx = np.zeros_like(x)
    for i, j in np.ndindex(dy.shape):
        window = x[i * stride:i * stride + size, j * stride:j * stride + size]
        dx[np.unravel_index(window.argmax(), window.shape)] += dy[i, j]
    return dx


MAX_POOL_DX = Exercise(
    "7.1", "max_pool_dx",
    "The gradient of a max pool with respect to its input, for one map x (H, W). dy (OH, OW) is "
    "the gradient with respect to its output. Windows of size x size pixels stand `stride` "
    "pixels apart, as many as dy has numbers. Of several largest pixels the first one gets the "
    "gradient, row by row.",
    reference, maps(),
    {"where two windows share their largest pixel, the later gradient overwrites the earlier "
     "one. Where no windows overlap, nobody would notice; AlexNet's do": to(first, add=False),
     "several equal pixels each get the whole gradient. That is what the program of 2012 did "
     "(ties='all'). Here the first one alone gets it":
     to(lambda window: (window == window.max()) * 1.0),
     "equal pixels share the gradient, as in ops.max of tinynet. In a pool nobody does so: here "
     "the first one gets it all":
     to(lambda window: (window == window.max()) / (window == window.max()).sum()),
     "of several equal pixels the last one gets the gradient, as if >= were asked instead of >":
     to(lambda window: first(window[::-1, ::-1])[::-1, ::-1]),
     "of several equal pixels it takes the first one column by column. Row by row is wanted":
     to(lambda window: first(window.T).T),
     "the smallest pixel gets the gradient, not the largest": to(lambda window: first(-window)),
     "the windows stand `size` apart, not `stride`: they should overlap": to(first, apart=True),
     "the place within the window is taken for the place in the map: the window's own corner is "
     "missing": in_the_corner,
     "every pixel of a window gets the same share. That is the gradient of a pool of means":
     to(lambda window: np.full(window.shape, 1 / window.size)),
     "it counts the windows that a pixel wins. Each of them passes on its own number of dy":
     lambda x, dy, size, stride: to(first)(x, np.ones_like(dy), size, stride)},
    hint="Go through the windows. In each, find the place of the largest pixel, in the window "
         "and then in the map. `np.unravel_index` makes row and column of what `argmax` returns.")


POOLED_SIDE = Exercise(
    "7.2", "pooled_side",
    "How many windows of `size` pixels, `stride` pixels apart, pool a row of `side` pixels? "
    "Without `ceil` each must lie inside. With `ceil` (true or false) one more may overhang, so "
    "that every pixel is seen. The stride is never larger than the size.",
    lambda side, size, stride, ceil: conv.out_size(side, size, stride, ceil=ceil),
    [(side, size, 2, ceil) for side in (55, 27, 13) for size in (3, 2) for ceil in (False, True)]
    + [(16, 5, 3, False), (11, 4, 3, True)],
    {"it always rounds down: `ceil` changes nothing":
     lambda side, size, stride, ceil: (side - size) // stride + 1,
     "it always rounds up: without `ceil`, a window that overhangs does not count":
     lambda side, size, stride, ceil: math.ceil((side - size) / stride) + 1,
     "the first window is missing: between the ends of n steps lie n + 1 windows":
     lambda side, size, stride, ceil: (math.ceil if ceil else math.floor)((side - size) / stride),
     "`ceil` is taken the wrong way round":
     lambda side, size, stride, ceil: (math.floor if ceil else math.ceil)(
         (side - size) / stride) + 1,
     "side / stride is the number of steps from end to end. It is right only where the size is "
     "the stride": lambda side, size, stride, ceil: (
         math.ceil(side / stride) if ceil else side // stride),
     "with `ceil` it adds one even where the last window ends at the last pixel":
     lambda side, size, stride, ceil: (side - size) // stride + 1 + bool(ceil)})


FOUR_WINDOWS = Question(
    "7.3",
    "conv1's map has 55 x 55 pixels, and its pool has windows of 3 x 3 that stand 2 apart. How "
    "many pixels of the map lie in four windows?",
    676,
    {"that is the number of windows. The rows that belong to two windows lie between them":
     729,
     "that counts all even rows and columns. The outermost ones are in one window only": 784,
     "that is the number of pixels in more than one window. Most of these are in two": 2184,
     "that is the number of pixels in exactly two windows: one row of windows, but two of its "
     "columns": 1508,
     "that is the number of pixels in one window only": 841,
     "that is one map's number of pixels": 3025},
    hint="Draw a row of seven pixels with its three windows, and count how many pixels are in "
         "two of them. A pixel in four windows is in two of the rows' and two of the columns'.")

EXERCISES = [MAX_POOL_DX, POOLED_SIDE, FOUR_WINDOWS]
