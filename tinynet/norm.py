"""How do the channels of a pixel compete?

A number is divided by a power of the energy of its neighbours, so that a strong one silences
the others. The formula comes first, then how it is computed fast.
"""
from . import kernels
from .conv import is_whole
from .cores import over_batch
from .device import get_array_module
from .engine import op


def plain_lrn(x, *, n=5, k=2.0, alpha=1e-4, beta=0.75):
    """The value of `lrn`, as section 3.3 of the paper prints it. The op is tested against it.

    y_i = x_i / (k + alpha * sum of x_j^2) ** beta, over the channels j from i - n/2 to i + n/2;
    of an even n the last is left out.
    """
    xp, C = get_array_module(x), x.shape[-1]
    energy = [(x[..., max(0, i - n // 2):i + (n + 1) // 2] ** 2).sum(axis=-1) for i in range(C)]
    return x / (k + alpha * xp.stack(energy, axis=-1)) ** beta


@op
def lrn(x, *, n=5, k=2.0, alpha=1e-4, beta=0.75):
    """Divide each channel by a power of the energy of its n neighbours (paper, section 3.3).

    x (..., C) -> (..., C); y = x / d ** beta, d = k + alpha * sum of x^2 over n channels. alpha
    multiplies the plain sum, as the paper prints it. The 2012 program, Caffe and PyTorch
    divide it by n first: their 1e-4 is 2e-5 here.

    x_i changes y_i, and y_j of every channel j that has i among its neighbours. So
    dx = dy / d ** beta - 2 alpha beta x * sum of (x dy / d ** (beta + 1)) over those channels.
    Every pixel is on its own, so a slice is some pixels, and its passes stay in cache.
    """
    if x.ndim == 0 or not is_whole(n, 1):
        raise ValueError(f"lrn: x is (..., C), n a whole number from 1 on, not {x.shape}, {n!r}")
    if kernels.suit(x):
        how = dict(n=n, k=k, alpha=alpha, beta=beta)
        return kernels.lrn(x, **how), lambda dy: kernels.lrn_backward(x, dy, **how)
    xp = get_array_module(x)
    shape, C = x.shape, x.shape[-1]
    x = x.reshape(-1, C)
    before, after = n // 2, (n - 1) // 2       # how many neighbours on either side

    def denominators(x):
        flat, rows = gapped(x.shape, n, x.dtype, xp)
        xp.multiply(x, x, out=rows[:, before:before + C])
        total = moving_sum(flat, n)
        total *= alpha
        total += k
        return total

    def forward(x, y):
        xp.divide(x, ungapped(fast_power(denominators(x), beta), C, n), out=y)

    def backward(x, dy, dx):
        denominator = denominators(x)
        flat, rows = gapped(x.shape, n, x.dtype, xp)
        xp.divide(dy, ungapped(fast_power(denominator, beta), C, n), out=dx)
        xp.divide(x * dx, ungapped(denominator, C, n), out=rows[:, after:after + C])
        through_neighbours = moving_sum(flat, n)
        through_neighbours *= 2 * alpha * beta
        dx -= x * ungapped(through_neighbours, C, n)

    def dx(dy):
        return over_batch(backward, x, dy.reshape(-1, C), out=xp.empty_like(x)).reshape(shape)
    return over_batch(forward, x, out=xp.empty_like(x)).reshape(shape), dx


def gapped(shape, n, dtype, xp):
    """Rows of C channels laid out flat with n - 1 zeros between them: this vector, and the same
    memory as a matrix (P, C + n - 1).

    A shift by one channel is then a shift of one long vector, several times faster than
    slicing the last axis; and channels that do not exist count as zero.
    """
    P, C = shape
    flat = xp.zeros(P * (C + n - 1) + n - 1, dtype)
    return flat, flat[:P * (C + n - 1)].reshape(P, C + n - 1)


def ungapped(flat, C, n):
    """The matrix (P, C) of what `gapped` laid out flat, without the gaps."""
    return flat.reshape(-1, C + n - 1)[:, :C]


def moving_sum(flat, n):
    """At every place the sum of the n numbers from there on: of twice as many in each step."""
    total, width = flat, 1
    while 2 * width <= n:
        total = total[:total.size - width] + total[width:]
        width *= 2
    total = total[:flat.size - n + 1]
    for shift in range(width, n):
        total = total + flat[shift:shift + total.size]
    return total


def fast_power(x, exponent):
    """x ** exponent for positive x. Two square roots are faster than pow."""
    if exponent != 0.75:
        return x ** exponent
    root = get_array_module(x).sqrt(x)
    return root * get_array_module(x).sqrt(root)
