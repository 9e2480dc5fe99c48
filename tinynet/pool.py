"""What is left of a picture when of every window only the largest pixel counts, or the mean?

`windows` gives size * size views of the picture, and every pool is one line over them:

    largest = functools.reduce(maximum, windows(x, (size, size), stride))
    mean = sum(windows(x, (size, size), stride)) / size ** 2

The ops below compute just that. What they add is speed (first down, then across), windows that
hang over the edge, and who gets the gradient.
"""
from itertools import repeat

from . import kernels
from .conv import out_sizes
from .cores import over_batch
from .device import get_array_module
from .engine import op


@op
def max_pool(x, *, size=3, stride=2, ties="first", ceil=False):
    """The largest pixel of every size x size window (paper, section 3.4: 3 x 3, stride 2).

    x (N, H, W, C) -> (N, OH, OW, C). ties: who gets the gradient when several pixels are
    the largest, the "first" (Caffe, PyTorch) or "all" of them (the 2012 program). ceil:
    windows may overhang right and bottom (the program, Caffe); what is not there is left out.
    """
    if ties not in ("first", "all"):
        raise ValueError(f"max_pool: ties is 'first' or 'all', not {ties!r}")
    xp = get_array_module(x)
    kernel = size, size
    OH, OW = out_sizes("max_pool", x.shape, kernel, stride, ceil=ceil)
    if kernels.suit(x) and size <= kernels.LARGEST_WINDOW:
        return kernels.max_pool(x, size, stride, ties, (OH, OW))

    scratch = 4 * x[:1].nbytes             # of a picture, its gradient, and what lies between

    def largest(x, count): return reduced(xp.maximum, x, size, stride, count)

    def to_the_largest(dy, x, y):
        """Of dy, the gradient of y = largest(x), the share of every place in the windows."""
        left = dy.copy(order="K") if ties == "first" else dy
        for view in rows(x, size, stride, y.shape[1]):
            rest = left[:, :view.shape[1]]
            share = rest * (view == y[:, :view.shape[1]])
            yield share
            if ties == "first":
                rest -= share

    def forward(x, y):
        y[...] = over_windows(xp.maximum, x, size, stride, (OH, OW))

    # Down, then across was the way; back, what is given goes to a row first, then to its columns.
    # So of equal pixels the leftmost of the uppermost row is the first, as in reading.
    def backward(x, y, dy, dx):
        of_columns = across(largest(across(x), OW))
        d = xp.empty_like(of_columns)
        give(to_the_largest(dy, of_columns, y), d, size, stride, OH)
        give(to_the_largest(across(d), across(x), across(of_columns)), across(dx),
             size, stride, OW)

    y = over_batch(forward, x, out=xp.empty((len(x), OH, OW, x.shape[3]), x.dtype))
    def dx(dy): return over_batch(backward, x, y, dy, out=xp.empty_like(x), scratch=scratch)
    return y, dx


@op
def avg_pool(x, *, size=3, stride=2, ceil=False):
    """The mean of every size x size window: x (N, H, W, C) -> (N, OH, OW, C)

    ceil: windows may overhang right and bottom; the mean is over the pixels that are there.
    """
    xp = get_array_module(x)
    kernel, shape, dtype = (size, size), x.shape, x.dtype
    OH, OW = out_sizes("avg_pool", shape, kernel, stride, ceil=ceil)

    def sums(x): return over_windows(xp.add, x, size, stride, (OH, OW))
    def forward(x, y): xp.divide(sums(x), pixels, out=y)

    def backward(dy, dx):
        d = xp.empty((len(dy), shape[1], OW, shape[3]), dtype)
        give(repeat(dy / pixels, size), d, size, stride, OH)
        give(repeat(across(d), size), across(dx), size, stride, OW)

    # How many pixels every window has: fewer where it overhangs.
    pixels = sums(xp.ones((1, *shape[1:3], 1), dtype))
    def dx(dy): return over_batch(backward, dy, out=xp.empty(shape, dtype))
    return over_batch(forward, x, out=xp.empty((len(x), OH, OW, shape[3]), dtype)), dx


# --- windows of rows: both pools go down, then across ------------------------------------


def across(x):
    """Columns as rows: (N, H, W, C) -> (N, W, H, C), a view."""
    return x.swapaxes(1, 2)


def rows(x, size, stride, count):
    """For every place in a window of `size` rows, the rows that it meets: `count`, or fewer
    where the last window hangs over."""
    return (x[:, i:i + stride * count:stride] for i in range(size))


def reduced(f, x, size, stride, count):
    """The f (maximum, add) of the rows of every window: (N, H, W, C) -> (N, count, W, C)"""
    first, *others = rows(x, size, stride, count)
    y = first.copy(order="K")
    for view in others:
        part = y[:, :view.shape[1]]
        f(part, view, out=part)
    return y


def over_windows(f, x, size, stride, counts):
    """The f of all pixels of every window, first down, then across: (N, H, W, C) -> (N, OH, OW, C)

    counts: (OH, OW)."""
    down = reduced(f, x, size, stride, counts[0])
    return across(reduced(f, across(down), size, stride, counts[1]))


def give(shares, dx, size, stride, count):
    """Fill dx: the rows that a place in the windows meets get its share, in turn.

    Where nothing was given before, it is written and not added, which is quicker.
    """
    dx[:, stride * count:] = 0
    for i in range(size, stride):                      # rows between the windows
        dx[:, i::stride] = 0
    for i, (share, view) in enumerate(zip(shares, rows(dx, size, stride, count), strict=True)):
        share = share[:, :view.shape[1]]
        view[...] = share if i < stride else view + share
