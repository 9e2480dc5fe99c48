"""What did the authors' program have that their paper leaves out?

Their CIFAR-10 nets of 2011 end in convolutions whose kernels are not shared, and normalise
within a map; AlexNet's layer 2 did the latter as well. Recipe 2012 and examples/cifar10.py need
these, the engine does not. So they are written as anybody writes an op and a layer of their own.
"""
from ..conv import (
    both_sides,
    check_axes,
    check_kernels,
    col2im,
    im2col,
    is_whole,
    out_size,
    out_sizes,
    padded,
    windows,
)
from ..cores import over_batch
from ..device import get_array_module
from ..engine import Parameter, op
from ..layers import Layer, Weighted, keep_sizes
from ..norm import fast_power


@op
def lrn_same_map(x, *, size=5, k=1.0, alpha=4e-5, beta=0.75):
    """The same formula, with the neighbours in a size x size square of the same channel.

    x (N, H, W, C) -> (N, H, W, C); size is odd; pixels beyond the edge count as zero. The 2012
    program has it in layer 2, after `lrn`, and the CIFAR-10 nets have it after their pools; the
    paper leaves it out. alpha multiplies the plain sum (the program's 1e-3 / 25).
    """
    check_axes("lrn_same_map", "x", x.shape, "N, H, W, C")
    if not is_whole(size, 1) or size % 2 == 0:
        raise ValueError(f"lrn_same_map: size is an odd number of pixels, not {size!r}")
    xp = get_array_module(x)

    def forward(x, y):
        y[...] = x / fast_power(k + alpha * sum_around(x * x, size), beta)

    def backward(x, dy, dx):
        denominator = k + alpha * sum_around(x * x, size)
        shrunk = dy / fast_power(denominator, beta)
        through_neighbours = sum_around(x * shrunk / denominator, size)
        dx[...] = shrunk - 2 * alpha * beta * x * through_neighbours

    def dx(dy): return over_batch(backward, x, dy, out=xp.empty_like(x))
    return over_batch(forward, x, out=xp.empty_like(x)), dx


def sum_around(x, size):
    """At every pixel the sum over the size x size pixels around it: x (N, H, W, C) -> the same.

    With x padded, that is sum(windows(x, (size, size))). Fewer numbers are added this way,
    first down, then across.
    """
    down = sum(windows(padded(x, (size // 2, size // 2)), (size, 1)))
    return sum(windows(down, (1, size)))


@op
def local2d(x, W, b, *, pad=0):
    """A convolution whose kernels are not shared: every place has its own.

    x (N, H, W, C), W (OH, OW, KH, KW, C, O), b (OH, OW, O) -> (N, OH, OW, O). There is one
    product for every place, and the pictures are its rows. So the cores share the places, not
    the pictures.
    """
    check_kernels("local2d", x, W, b, "OH, OW, KH, KW, C, O")
    OH, OW, KH, KW, C, O = W.shape
    kernel, pad, shape = (KH, KW), both_sides(pad, "local2d"), x.shape
    fits = out_sizes("local2d", shape, kernel, 1, pad)
    if fits != (OH, OW):
        raise ValueError(f"local2d: x has {fits} places for a kernel, W has {(OH, OW)}")
    xp = get_array_module(x)
    places = W.reshape(OH * OW, KH * KW * C, O)

    def columns():
        return im2col(x, kernel, 1, pad).reshape(len(x), *places.shape[:2]).swapaxes(0, 1)

    def by_place(dy):
        return dy.reshape(len(x), OH * OW, O).swapaxes(0, 1)

    def products(a, b):
        """a (places, n, k) @ b (places, k, m) -> (places, n, m)"""
        return over_batch(lambda a, b, y: xp.matmul(a, b, out=y), a, b,
                          out=xp.empty((len(a), a.shape[1], b.shape[2]), a.dtype))

    def dx(dy):
        cols = products(by_place(dy), places.swapaxes(1, 2))
        return col2im(cols.swapaxes(0, 1), shape, kernel, 1, pad)

    def dW(dy): return products(columns().swapaxes(1, 2), by_place(dy)).reshape(W.shape)
    def db(dy): return dy.sum(axis=0)
    y = products(columns(), places)
    return y.swapaxes(0, 1).reshape(len(x), OH, OW, O) + b, dx, dW, db


class SameMapLRN(Layer):
    """LRN over size x size neighbouring pixels of the same channel, as in layer 2 of the 2012
    program. (N, H, W, C) -> (N, H, W, C)"""

    def __init__(self, size=5, k=1.0, alpha=4e-5, beta=0.75):
        self.size, self.k, self.alpha, self.beta = size, k, alpha, beta

    def forward(self, x):
        return lrn_same_map(x, size=self.size, k=self.k, alpha=self.alpha, beta=self.beta)


class Local2D(Weighted):
    """Conv2D without sharing: each place of a map of side x side pixels has its own kernels.
    (N, side, side, channels) -> (N, OH, OH, kernels)
    """

    def __init__(self, channels, kernels, size, side, pad=0, std="he", bias=0.0):
        keep_sizes(self, channels=channels, kernels=kernels, size=size, side=side)
        self.pad = pad
        super().__init__((size, size, channels, kernels), std, bias)
        places = (out_size(side, size, 1, both_sides(pad)),) * 2
        self.W = Parameter(self.W.draw, shape=(*places, *self.W.shape))
        self.b = Parameter(self.b.draw, shape=(*places, *self.b.shape))

    def forward(self, x):
        return local2d(x, self.W, self.b, pad=self.pad)
