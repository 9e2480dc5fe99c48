"""What is left of a picture when of every window only the largest pixel counts, or the mean?

`windows` gives size * size views of the picture, and every pool is one line over them:

    largest = functools.reduce(maximum, windows(x, (size, size), stride))
    mean = sum(windows(x, (size, size), stride)) / size ** 2

The ops below compute just that. What they add is speed (first down, then across), windows that
hang over the edge, and who gets the gradient.
"""
from . import kernels
from .conv import out_sizes, windows
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

    def largest(x, count):
        """The largest of every `size` rows, `count` times."""
        first, *others = (x[:, i:i + stride * count:stride] for i in range(size))
        y = first.copy(order="K")
        for rows in others:
            part = y[:, :rows.shape[1]]                # what hangs over has fewer rows
            xp.maximum(part, rows, out=part)
        return y

    def forward(x, y):                                 # first down, then across
        rows = largest(x, OH)
        y[...] = largest(rows.swapaxes(1, 2), OW).swapaxes(1, 2)

    def backward(x, y, dy, dx):
        dx[...] = 0
        left = dy.copy()                               # of the gradient, to be given away
        for view, dx_view in zip(windows(x, kernel, stride, ceil),
                                 windows(dx, kernel, stride, ceil), strict=True):
            rest = cropped(left, view)
            share = rest * (view == cropped(y, view))
            dx_view += share
            if ties == "first":
                rest -= share

    y = over_batch(forward, x, out=xp.empty((len(x), OH, OW, x.shape[3]), x.dtype))
    def dx(dy): return over_batch(backward, x, y, dy, out=xp.empty_like(x))
    return y, dx


@op
def avg_pool(x, *, size=3, stride=2, ceil=False):
    """The mean of every size x size window: x (N, H, W, C) -> (N, OH, OW, C)

    ceil: windows may overhang right and bottom; the mean is over the pixels that are there.
    """
    xp = get_array_module(x)
    kernel, shape, dtype = (size, size), x.shape, x.dtype
    OH, OW = out_sizes("avg_pool", shape, kernel, stride, ceil=ceil)

    def sums(x, y):
        y[...] = 0
        for view in windows(x, kernel, stride, ceil):
            cropped(y, view)[...] += view
        return y

    def forward(x, y): xp.divide(sums(x, y), pixels, out=y)

    def backward(dy, dx):
        dx[...] = 0
        share = dy / pixels
        for view in windows(dx, kernel, stride, ceil):
            view += cropped(share, view)

    # How many pixels every window has: fewer where it overhangs.
    pixels = sums(xp.ones((1, *shape[1:3], 1), dtype), xp.empty((1, OH, OW, 1), dtype))
    def dx(dy): return over_batch(backward, dy, out=xp.empty(shape, dtype))
    return over_batch(forward, x, out=xp.empty((len(x), OH, OW, shape[3]), dtype)), dx


def cropped(y, view):
    """The part of y (N, OH, OW, C) whose windows have a pixel in this view of `windows`."""
    return y[:, :view.shape[1], :view.shape[2]]
