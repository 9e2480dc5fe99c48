"""How do the maps of a layer, or the pixels of a map, compete?"""
from .conv import both_sides, padded, windows
from .cores import over_batch
from .device import get_array_module
from .engine import op


@op
def lrn(x, *, n=5, k=2.0, alpha=1e-4, beta=0.75):
    """Divide each map by a power of the energy of its n neighbours (paper, section 3.3).

    x (N, H, W, C) -> same; y = x / (k + alpha * sum of x^2 over n adjacent maps) ** beta. alpha
    multiplies the plain sum, as the paper prints it. The 2012 program, Caffe and PyTorch
    divide it by n first: their 1e-4 is 2e-5 here.

    Every pixel is on its own, so a slice is some pixels, and its passes stay in cache.
    """
    xp = get_array_module(x)
    C = x.shape[-1]
    before = n // 2
    back = n - 1 - before              # the window of a map as its neighbours see it

    def scale(x):
        flat, rows = spread(x.shape, n, x.dtype, xp)
        xp.multiply(x, x, out=rows[:, before:before + C])
        total = window_sum(flat, n)
        total *= alpha
        total += k
        return total

    def forward(x, y):
        xp.divide(x, maps(power(scale(x), beta), C, n), out=y)

    def backward(x, dy, dx):
        s = scale(x)
        flat, rows = spread(x.shape, n, x.dtype, xp)
        xp.divide(dy, maps(power(s, beta), C, n), out=dx)
        xp.divide(x * dx, maps(s, C, n), out=rows[:, back:back + C])
        through_neighbours = window_sum(flat, n)
        through_neighbours *= 2 * alpha * beta
        dx -= x * maps(through_neighbours, C, n)

    def pixels(array): return array.reshape(-1, C)

    def dx(dy):
        dx = over_batch(backward, pixels(x), pixels(dy), out=xp.empty_like(pixels(x)))
        return dx.reshape(x.shape)

    y = over_batch(forward, pixels(x), out=xp.empty_like(pixels(x)))
    return y.reshape(x.shape), dx


def spread(shape, n, dtype, xp):
    """Rows laid out flat with n - 1 zeros between them, and the same memory as a matrix.

    So a shift by one map is a shift of one long vector, several times faster than slicing
    the last axis; and maps that do not exist count as zero.
    """
    P, C = shape
    flat = xp.zeros(P * (C + n - 1) + n - 1, dtype)
    return flat, flat[:P * (C + n - 1)].reshape(P, C + n - 1)


def maps(flat, C, n):
    """The matrix (P, C) that spread laid out, without what lies between."""
    return flat.reshape(-1, C + n - 1)[:, :C]


def window_sum(flat, n):
    """At every place the sum of n numbers from there on: of twice as many in each step."""
    length = flat.size - n + 1
    total, width = flat, 1
    while 2 * width <= n:
        total = total[:total.size - width] + total[width:]
        width *= 2
    total = total[:length]
    for shift in range(width, n):
        total = total + flat[shift:shift + length]
    return total


@op
def lrn_same_map(x, *, size=5, k=1.0, alpha=4e-5, beta=0.75):
    """The same, with the neighbours in a size x size square of the same map.

    x (N, H, W, C) -> same; size is odd; pixels beyond the edge count as zero. The 2012 program has
    it in layer 2, after `lrn`, and the CIFAR-10 nets have it after their pools; the paper
    leaves it out. alpha multiplies the plain sum (the program's 1e-3 / 25).
    """
    if size % 2 == 0:
        raise ValueError(f"lrn_same_map: size must be odd, not {size}")

    def forward(x):
        return x / power(k + alpha * square_sum(x * x, size), beta)

    def backward(x, dy):
        scale = k + alpha * square_sum(x * x, size)
        shrunk = dy / power(scale, beta)
        through_neighbours = square_sum(x * shrunk / scale, size)
        return shrunk - 2 * alpha * beta * x * through_neighbours

    def dx(dy): return over_batch(backward, x, dy)
    return over_batch(forward, x), dx


def square_sum(x, size):
    """For every pixel the sum over the size x size pixels around it, first down, then across."""
    down = sum(window for _, _, window in windows(padded(x, both_sides(size // 2)), (size, 1), 1))
    return sum(window for _, _, window in windows(down, (1, size), 1))


def power(x, exponent):
    """x ** exponent for positive x. Two square roots are faster than pow."""
    if exponent != 0.75:
        return x ** exponent
    root = get_array_module(x).sqrt(x)
    return root * get_array_module(x).sqrt(root)
