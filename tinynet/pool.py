"""What is left of a map when only the largest of its neighbours count, or their mean?"""
from .conv import out_size, reached, windows
from .cores import over_batch
from .device import get_array_module
from .engine import op


@op
def max_pool(x, *, size=3, stride=2, ties="first", ceil=False):
    """The largest of every size x size window (paper, section 3.4: 3 x 3, stride 2).

    x (N, H, W, C) -> (N, OH, OW, C). ties: who gets the gradient when several pixels are
    the largest, the "first" (Caffe, PyTorch) or "all" of them (the 2012 program). ceil:
    windows may overhang right and bottom (the program, Caffe); what is not there is left out.
    """
    if ties not in ("first", "all"):
        raise ValueError(f"max_pool: ties is 'first' or 'all', not {ties!r}")
    xp = get_array_module(x)
    kernel = size, size

    def largest(x, count):
        """Of every `size` rows, `count` times."""
        first, *others = (x[:, i:i + stride * count:stride] for i in range(size))
        y = first.copy(order="K")
        for rows in others:
            part = y[:, :rows.shape[1]]                # what hangs over has fewer rows
            xp.maximum(part, rows, out=part)
        return y

    def forward(x, y):                                 # first down, then across
        rows = largest(x, y.shape[1])
        y[...] = largest(rows.swapaxes(1, 2), y.shape[2]).swapaxes(1, 2)

    def backward(x, y, dy, dx):
        dx[...] = 0
        left = dy.copy()                               # of the gradient, to be given away
        views = zip(windows(x, kernel, stride, ceil), windows(dx, kernel, stride, ceil))
        for (i, j, window), (i, j, target) in views:
            rest = reached(left, window)
            share = rest * (window == reached(y, window))
            target += share
            if ties == "first":
                rest -= share

    y = over_batch(forward, x, out=xp.empty(pooled(x.shape, size, stride, ceil), x.dtype))
    def dx(dy): return over_batch(backward, x, y, dy, out=xp.empty_like(x))
    return y, dx


@op
def avg_pool(x, *, size=3, stride=2, ceil=False):
    """The mean of every size x size window: x (N, H, W, C) -> (N, OH, OW, C)

    ceil: windows may overhang right and bottom; the mean is over the pixels that are there.
    """
    xp = get_array_module(x)
    kernel, shape, dtype = (size, size), x.shape, x.dtype

    def sums(x, y):
        y[...] = 0
        for i, j, window in windows(x, kernel, stride, ceil):
            reached(y, window)[...] += window

    def forward(x, y):
        sums(x, y)
        y /= pixels

    def backward(dy, dx):
        dx[...] = 0
        share = dy / pixels
        for i, j, target in windows(dx, kernel, stride, ceil):
            target += reached(share, target)

    out = pooled(shape, size, stride, ceil)
    pixels = xp.empty((1, *out[1:3], 1), dtype)
    sums(xp.ones((1, *shape[1:3], 1), dtype), pixels)
    def dx(dy): return over_batch(backward, dy, out=xp.empty(shape, dtype))
    return over_batch(forward, x, out=xp.empty(out, dtype)), dx


def pooled(shape, size, stride, ceil):
    N, H, W, C = shape
    return (N, *(out_size(side, size, stride, ceil=ceil) for side in (H, W)), C)
