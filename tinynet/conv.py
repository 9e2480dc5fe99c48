"""How is a convolution a matrix product?

Write every patch of the picture that the kernel sees as a row (`im2col`); then a kernel is
a column, and all outputs are one product. `col2im` is the mirror: it adds rows back where
they came from. Pooling and normalisation need only views of the same windows.

Letters: N pictures, H x W pixels, C channels; KH x KW kernel; OH x OW output pixels, O output
channels. Activations are N H W C, weights KH KW C O, so that `im2col(x) @ W` is the output.
"""
from .device import each_slice, get_array_module, is_on_gpu, over_batch, sum_over_batch
from .engine import op
from .winograd import winograd

FORMS = "auto", "im2col", "winograd"


def out_size(size, kernel, stride, pad=(0, 0)):
    """How many times a kernel fits: 1 + (size + padding - kernel) / stride, rounded down.

    Raises ValueError if it does not fit once.
    """
    room = size + sum(pad) - kernel
    if room < 0:
        raise ValueError(f"a window of {kernel} does not fit into {size} pixels "
                         f"with padding {pad[0]} and {pad[1]}")
    return room // stride + 1


def both_sides(pad):
    """pad: pixels on every side, or a pair (top and left, bottom and right).

    The 2012 program reads three zeros beyond the right and bottom edge of a 224 x 224 crop;
    that is (0, 3), and why 224 and 227 both give 55.
    """
    return (pad, pad) if isinstance(pad, int) else tuple(pad)


def padded(x, pad, value=0.0):
    """x (N, H, W, C) with a border of `value`."""
    before, after = pad
    if before == after == 0:
        return x
    xp = get_array_module(x)
    N, H, W, C = x.shape
    y = xp.full((N, H + before + after, W + before + after, C), value, x.dtype)
    y[:, before:before + H, before:before + W] = x
    return y


def windows(x, kernel, stride):
    """For every position (i, j) in the kernel: i, j, and the pixels of x that it meets.

    x (N, H, W, C) -> KH * KW views (N, OH, OW, C). Nothing is copied.
    """
    KH, KW = kernel
    OH = out_size(x.shape[1], KH, stride)
    OW = out_size(x.shape[2], KW, stride)
    for i in range(KH):
        for j in range(KW):
            yield i, j, x[:, i:i + stride * OH:stride, j:j + stride * OW:stride]


def im2col(x, kernel, stride=1, pad=(0, 0)):
    """Every patch as a row: x (N, H, W, C) -> (N * OH * OW, KH * KW * C)

    One row of a patch (KW pixels of C channels) is contiguous in x, so it is read as one
    run: a view with overlapping strides, of which a single copy is made.
    """
    xp = get_array_module(x)
    x = xp.ascontiguousarray(padded(x, pad))
    KH, KW = kernel
    N, H, W, C = x.shape
    OH, OW = out_size(H, KH, stride), out_size(W, KW, stride)
    n, h, w, c = x.strides
    patches = xp.lib.stride_tricks.as_strided(
        x, (N, OH, OW, KH, KW * C), (n, stride * h, stride * w, h, c))
    return patches.reshape(N * OH * OW, KH * KW * C)


def col2im(cols, shape, kernel, stride=1, pad=(0, 0)):
    """Add every patch back to where im2col took it: (N * OH * OW, KH * KW * C) -> shape

    shape: that of im2col's x, (N, H, W, C).
    """
    xp = get_array_module(cols)
    before, after = pad
    N, H, W, C = shape
    x = xp.zeros((N, H + before + after, W + before + after, C), cols.dtype)
    OH = out_size(H, kernel[0], stride, pad)
    OW = out_size(W, kernel[1], stride, pad)
    cols = cols.reshape(N, OH, OW, *kernel, C)
    for i, j, window in windows(x, kernel, stride):
        window += cols[:, :, :, i, j]
    return x[:, before:before + H, before:before + W]


@op
def conv2d(x, W, b, *, stride=1, pad=0, form="auto"):
    """Slide O kernels over the picture: at every position, the sum of products plus b.

    x (N, H, W, C), W (KH, KW, C, O), b (O,) -> (N, OH, OW, O). No kernel is flipped.
    form: how it is computed. "im2col": as one matrix product. "winograd": with fewer
    multiplications and more rounding, wherever that can be done. "auto": whichever is faster.
    """
    KH, KW, C, O = W.shape
    if x.shape[-1] != C:
        raise ValueError(f"conv2d: {x.shape[-1]} maps come in, the kernels want {C}")
    if form not in FORMS:
        raise ValueError(f"conv2d: form is one of {', '.join(FORMS)}, not {form!r}")
    pad = both_sides(pad)
    can = stride == 1 and (KH, KW) in [(3, 3), (5, 5)]
    pays = x.dtype == "float32" and min(C, O) >= 16 and not is_on_gpu(x)
    if can and (form == "winograd" or form == "auto" and pays):
        y, dx, dW = winograd(x, W, b, pad)
    else:
        y, dx, dW = as_columns(x, W, b, stride, pad)

    def db(dy): return sum_over_batch(lambda dy: dy.sum(axis=(0, 1, 2)), dy)
    return y, dx, dW, db


def as_columns(x, W, b, stride, pad):
    """conv2d as the product im2col(x) @ W: y, dx, dW.

    The columns are 7 to 25 times larger than x, so they are made for a few pictures at a
    time, and made again in dW instead of kept.
    """
    xp = get_array_module(x)
    KH, KW, C, O = W.shape
    kernel, shape = (KH, KW), x.shape
    OH, OW = (out_size(size, K, stride, pad) for size, K in zip(shape[1:3], kernel))
    rows = W.reshape(-1, O)
    scratch = OH * OW * len(rows) * x.itemsize

    def forward(x, y):
        y = y.reshape(-1, O)
        xp.matmul(im2col(x, kernel, stride, pad), rows, out=y)
        y += b

    def dx(dy):
        def backward(dy):
            cols = dy.reshape(-1, O) @ rows.T
            return col2im(cols, (len(dy), *shape[1:]), kernel, stride, pad)
        return over_batch(backward, dy, scratch=scratch)

    def dW(dy):
        def backward(x, dy):
            return im2col(x, kernel, stride, pad).T @ dy.reshape(-1, O)
        return sum_over_batch(backward, x, dy, scratch=scratch).reshape(W.shape)

    y = xp.empty((len(x), OH, OW, O), x.dtype)
    each_slice(forward, x, y, scratch=scratch)
    return y, dx, dW


@op
def max_pool(x, *, size=3, stride=2, ties="first"):
    """The largest of every size x size window (paper, section 3.4: 3 x 3, stride 2).

    x (N, H, W, C) -> (N, OH, OW, C). ties: who gets the gradient when several pixels are
    the largest, the "first" (Caffe, PyTorch) or "all" of them (the 2012 program).
    """
    if ties not in ("first", "all"):
        raise ValueError(f"max_pool: ties is 'first' or 'all', not {ties!r}")
    xp = get_array_module(x)
    kernel = size, size

    def forward(x):
        y = None
        for i, j, window in windows(x, kernel, stride):
            y = window.copy() if y is None else xp.maximum(y, window, out=y)
        return y

    def backward(x, y, dy):
        dx = xp.zeros(x.shape, dy.dtype)
        free = xp.ones(y.shape, bool)
        views = zip(windows(x, kernel, stride), windows(dx, kernel, stride))
        for (i, j, window), (i, j, target) in views:
            largest = window == y
            if ties == "first":
                largest &= free
                free ^= largest
            target += dy * largest
        return dx

    y = over_batch(forward, x)
    def dx(dy): return over_batch(backward, x, y, dy)
    return y, dx


@op
def avg_pool(x, *, size=3, stride=2):
    """The mean of every size x size window: x (N, H, W, C) -> (N, OH, OW, C)"""
    xp = get_array_module(x)
    kernel = size, size
    shape = x.shape

    def forward(x):
        return sum(window for i, j, window in windows(x, kernel, stride)) / size ** 2

    def backward(dy):
        share = dy / size ** 2
        dx = xp.zeros((len(dy), *shape[1:]), dy.dtype)
        for i, j, target in windows(dx, kernel, stride):
            target += share
        return dx

    def dx(dy): return over_batch(backward, dy)
    return over_batch(forward, x), dx


@op
def lrn(x, *, n=5, k=2.0, alpha=1e-4, beta=0.75):
    """Divide each map by a power of the energy of its n neighbours (paper, section 3.3).

    x (N, H, W, C); y = x / (k + alpha * sum of x^2 over n adjacent maps) ** beta. alpha
    multiplies the plain sum, as the paper prints it. The 2012 program, Caffe and PyTorch
    divide it by n first: their 1e-4 is 2e-5 here.
    """
    back = n - 1 - n // 2              # the window of a map as its neighbours see it

    def forward(x):
        return x * power(k + alpha * window_sum(x * x, n, n // 2), -beta)

    def backward(x, dy):
        scale = k + alpha * window_sum(x * x, n, n // 2)
        shrink = power(scale, -beta)
        through_neighbours = window_sum(dy * x * shrink / scale, n, back)
        return dy * shrink - 2 * alpha * beta * x * through_neighbours

    def dx(dy): return over_batch(backward, x, dy)
    return over_batch(forward, x), dx


def window_sum(x, n, before):
    """For every map the sum over n adjacent maps, the first `before` maps ahead of it.

    Maps that do not exist count as zero. The rows are laid out flat with n zeros between
    them: then a shift by one map is a shift of one long vector, several times faster than
    slicing the last axis.
    """
    xp = get_array_module(x)
    C = x.shape[-1]
    row = C + n - 1
    flat = xp.zeros(x.size // C * row + n, x.dtype)
    rows = flat[:-n].reshape(-1, row)
    rows[:, before:before + C] = x.reshape(-1, C)
    total = flat[:-n] + flat[1:1 - n] if n > 1 else flat[:-n].copy()
    for shift in range(2, n):
        total += flat[shift:shift - n]
    return total.reshape(-1, row)[:, :C].reshape(x.shape)


def power(x, exponent):
    """x ** exponent for positive x. Two square roots are ten times faster than pow."""
    if exponent != -0.75:
        return x ** exponent
    xp = get_array_module(x)
    root = xp.sqrt(x)
    return 1 / (root * xp.sqrt(root))
