"""How is a convolution a matrix product?

Write every patch of the picture that the kernel sees as a row (`im2col`); then a kernel is
a column, and all outputs are one product. `col2im` is the mirror: it adds rows back where
they came from. Pooling and normalisation need only views of the same windows.

Letters: N pictures, H x W pixels, C channels; KH x KW kernel; OH x OW output pixels, O output
channels. Activations are N H W C, weights KH KW C O, so that `im2col(x) @ W` is the output.
"""
from .cores import most_scratch, over_batch, part_of_product, sum_over_batch
from .device import get_array_module, is_on_gpu
from .engine import op
from .winograd import winograd

FORMS = "auto", "im2col", "winograd"
ROWS = 200               # of a block of columns: with fewer, all weights are read too often


def out_size(size, kernel, stride, pad=(0, 0), ceil=False):
    """How many times a kernel fits: 1 + (size + padding - kernel) / stride, rounded down.

    ceil: rounded up, so that every pixel is seen: the last window may overhang, but never
    lies outside altogether. Raises ValueError if the kernel does not fit once.
    """
    room = size + sum(pad) - kernel
    overhang = -room % stride
    if ceil and overhang < kernel:
        room += overhang
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


def windows(x, kernel, stride, ceil=False):
    """For every position (i, j) in the kernel: i, j, and the pixels of x that it meets.

    x (N, H, W, C) -> KH * KW views (N, OH, OW, C). Nothing is copied. ceil: as in out_size;
    views lack the rows and columns where the kernel overhangs (see `reached`).
    """
    KH, KW = kernel
    OH = out_size(x.shape[1], KH, stride, ceil=ceil)
    OW = out_size(x.shape[2], KW, stride, ceil=ceil)
    for i in range(KH):
        for j in range(KW):
            yield i, j, x[:, i:i + stride * OH:stride, j:j + stride * OW:stride]


def reached(y, window):
    """The part of y (N, OH, OW, C) whose windows have a pixel in one of their views."""
    return y[:, :window.shape[1], :window.shape[2]]


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
    can = KH == KW and -(-KH // stride) in (3, 5)
    pays = x.dtype == "float32" and min(C * stride ** 2, O) >= 8 and not is_on_gpu(x)
    fast = can and (form == "winograd" or form == "auto" and pays)
    y, dx, dW = (winograd if fast else as_columns)(x, W, b, stride, pad)

    def db(dy):
        def backward(dy):              # as a product, because a sum over columns is slow
            dy = dy.reshape(-1, O)
            return get_array_module(dy).ones(len(dy), dy.dtype) @ dy
        return sum_over_batch(backward, dy)

    return y, dx, dW, db


def as_columns(x, W, b, stride, pad):
    """conv2d as the product im2col(x) @ W: y, dx, dW.

    The columns are 7 to 25 times larger than x, so they are made for a few pictures, or
    a strip of one, at a time, and made again in dW instead of kept.
    """
    xp = get_array_module(x)
    KH, KW, C, O = W.shape
    kernel, shape = (KH, KW), x.shape
    OH, OW = (out_size(size, K, stride, pad) for size, K in zip(shape[1:3], kernel))
    rows = W.reshape(-1, O)
    scratch = OH * OW * len(rows) * x.itemsize

    def strips(x, y):
        """The columns of as many rows of y as there is scratch for, and these rows, in turn."""
        fits = max(1, OH * most_scratch(x) // max(scratch, 1))
        step = fits if len(x) == 1 else OH        # only of one picture are some rows a matrix
        x = padded(x, pad)
        for top in range(0, OH, step):
            y_rows = y[:, top:top + step]
            x_rows = x[:, stride * top:stride * (top + y_rows.shape[1] - 1) + KH]
            yield blocks(im2col(x_rows, kernel, stride)), blocks(y_rows.reshape(-1, O))

    def blocks(matrix):
        size = part_of_product(matrix, len(matrix), rows.size, least=ROWS)
        return matrix if size == len(matrix) else matrix.reshape(-1, size, matrix.shape[1])

    def forward(x, y):
        for cols, y in strips(x, y):
            xp.matmul(cols, rows, out=y)
            y += b

    def dx(dy):
        mirrored_pad = KH - 1 - pad[0], KH - 1 - pad[1]
        if stride == 1 and KH == KW and O <= C and min(mirrored_pad) >= 0:
            # The mirrored kernels slid over dy: the same sums, from smaller columns.
            mirrored = W[::-1, ::-1].swapaxes(2, 3)
            return as_columns(dy, mirrored, xp.zeros(C, dy.dtype), 1, mirrored_pad)[0]

        def backward(dy):
            cols = dy.reshape(-1, O) @ rows.T
            return col2im(cols, (len(dy), *shape[1:]), kernel, stride, pad)
        return over_batch(backward, dy, scratch=scratch)

    def dW(dy):
        def backward(x, dy):
            products = (dy.swapaxes(-1, -2) @ cols for cols, dy in strips(x, dy))
            return sum(part if part.ndim == 2 else part.sum(axis=0) for part in products)
        # Transposed: BLAS is quicker at few long rows than at many short ones.
        return sum_over_batch(backward, x, dy, scratch=scratch).T.reshape(W.shape)

    y = over_batch(forward, x, out=xp.empty((len(x), OH, OW, O), x.dtype), scratch=scratch)
    return y, dx, dW


@op
def local2d(x, W, b, *, pad=0):
    """A convolution whose kernels are not shared: every place has its own.

    x (N, H, W, C), W (OH, OW, KH, KW, C, O), b (OH, OW, O) -> (N, OH, OW, O). The CIFAR-10
    nets of 2011 use it for their upper layers. One product for every place: the batch is
    its rows, and so the places, not the pictures, are what the cores share.
    """
    OH, OW, KH, KW, C, O = W.shape
    kernel, pad, shape = (KH, KW), both_sides(pad), x.shape
    sizes = [out_size(side, size, 1, pad) for side, size in zip(shape[1:3], kernel)]
    if sizes != [OH, OW] or shape[3] != C:
        raise ValueError(f"local2d: {shape[1:]} comes in and has {sizes} places for a kernel; "
                         f"the kernels want {C} maps and have {[OH, OW]} places")
    places = W.reshape(OH * OW, KH * KW * C, O)

    def columns():
        return im2col(x, kernel, 1, pad).reshape(len(x), OH * OW, -1).swapaxes(0, 1)

    def by_place(dy):
        return dy.reshape(len(x), OH * OW, O).swapaxes(0, 1)

    def dx(dy):
        cols = over_batch(lambda dy, W: dy @ W.swapaxes(1, 2), by_place(dy), places)
        return col2im(cols.swapaxes(0, 1), shape, kernel, 1, pad)

    def dW(dy):
        dW = over_batch(lambda x, dy: x.swapaxes(1, 2) @ dy, columns(), by_place(dy))
        return dW.reshape(W.shape)

    def db(dy): return dy.sum(axis=0)
    y = over_batch(lambda x, W: x @ W, columns(), places)
    return y.swapaxes(0, 1).reshape(-1, OH, OW, O) + b, dx, dW, db
