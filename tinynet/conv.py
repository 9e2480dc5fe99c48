"""How is a convolution a matrix product?

Write every patch of the picture that a kernel sees as a row (`im2col`). A kernel is then a
column, and all outputs are one product, `cols @ weights` (`plain`). (In Matlab's layout the
patches were columns, and the names stayed.) `col2im` is the mirror of `im2col`: it adds the
patches back where they came from.

Letters: N pictures, H x W pixels, C channels; KH x KW kernel; OH x OW output pixels, O output
channels. Activations are N H W C, weights KH KW C O, so that `im2col(x) @ W` is the output.
"""
from numbers import Integral

from . import columns, kernels
from .cores import for_two, most_scratch, over_batch, part_of_product, room_to_keep, sum_over_batch
from .device import get_array_module, is_on_gpu
from .engine import op, recording
from .winograd import amid_zeros, winograd

FORMS = "auto", "plain", "im2col", "winograd"
LEAST_ROWS = 200         # of a block of columns: with fewer, all weights are read too often


def out_size(size, kernel, stride, pad=(0, 0), ceil=False):
    """How many windows lie side by side: (size + padding - kernel) / stride + 1.

    The quotient is rounded down. With ceil it is rounded up, and the last window may overhang,
    unless it would lie outside altogether. So every pixel is seen if the stride is at most the
    kernel. Raises ValueError if not even one window fits.
    """
    if not (is_whole(kernel, 1) and is_whole(stride, 1)):
        raise ValueError(f"size {kernel!r} and stride {stride!r} must be whole numbers from 1 on")
    last = size + sum(pad) - kernel                    # where the last window begins
    if ceil and -last % stride < kernel:
        last += -last % stride                         # it overhangs by as much
    if last < 0:
        raise ValueError(f"a window of {kernel} does not fit into {size} pixels, padded by {pad}")
    return last // stride + 1


def padded(x, pad):
    """x with a border of zeros: (N, H, W, C) -> (N, before + H + after, before + W + after, C)"""
    before, after = pad
    _, H, W, _ = x.shape
    return amid_zeros(x, (before + H + after, before + W + after), before)


def windows(x, kernel, stride=1):
    """For every place in the kernel, row by row, the pixels of x that it meets.

    x (N, H, W, C) -> KH * KW views (N, OH, OW, C). Nothing is copied.
    """
    OH, OW = out_sizes("windows", x.shape, kernel, stride)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            yield x[:, i:i + stride * OH:stride, j:j + stride * OW:stride]


def im2col(x, kernel, stride=1, pad=(0, 0), bias=False, out=None):
    """Every patch as a row: x (N, H, W, C) -> (N * OH * OW, KH * KW * C)

    One row of a patch (KW pixels of C channels) is contiguous in x, so it is read in one go:
    a single copy is made, of a view with overlapping strides. With bias a 1 follows in every
    row: the input of which a bias is the weight. out: where to write, (N, OH, OW, row).
    """
    xp = get_array_module(x)
    x = xp.ascontiguousarray(padded(x, pad))
    KH, KW = kernel
    N, H, W, C = x.shape
    OH, OW = out_sizes("im2col", x.shape, kernel, stride)
    n, h, w, _ = x.strides             # of a single channel it may be anything, as of x[..., None]
    as_strided, shape = xp.lib.stride_tricks.as_strided, (N, OH, OW, KH, KW * C)
    cols = xp.empty((N, OH, OW, KH * KW * C + bias), x.dtype) if out is None else out
    rows = as_strided(cols, shape, (*cols.strides[:3], KW * C * x.itemsize, x.itemsize))
    rows[...] = as_strided(x, shape, (n, stride * h, stride * w, h, x.itemsize))
    cols[..., KH * KW * C:] = 1
    return cols.reshape(N * OH * OW, cols.shape[-1])


def col2im(cols, shape, kernel, stride=1, pad=(0, 0)):
    """Add every patch back to where im2col took it: (N * OH * OW, KH * KW * C) -> shape

    shape: that of im2col's x, (N, H, W, C).
    """
    before, after = pad
    N, H, W, C = shape
    x = get_array_module(cols).zeros((N, H + before + after, W + before + after, C), cols.dtype)
    OH, OW = out_sizes("col2im", shape, kernel, stride, pad)
    cols = cols.reshape(N, OH, OW, kernel[0] * kernel[1], C)
    for place, window in enumerate(windows(x, kernel, stride)):
        window += cols[:, :, :, place]
    return x[:, before:before + H, before:before + W]


def plain(x, W, b, stride, pad):
    """conv2d in its plainest form: y, dx, dW, db. The fast forms are tested against it.

    cols (N * OH * OW, KH * KW * C) @ weights (KH * KW * C, O) -> y (N * OH * OW, O). The gradient
    of each factor of a product is dy times the other factor, transposed.
    """
    KH, KW, C, O = W.shape
    how = (KH, KW), stride, pad
    cols, weights = im2col(x, *how), W.reshape(-1, O)
    y = cols @ weights + b

    def dx(dy): return col2im(dy.reshape(-1, O) @ weights.T, x.shape, *how)
    def dW(dy): return (cols.T @ dy.reshape(-1, O)).reshape(W.shape)
    def db(dy): return dy.sum(axis=(0, 1, 2))
    return y.reshape(len(x), *out_sizes("conv2d", x.shape, *how), O), dx, dW, db


@op
def conv2d(x, W, b, *, stride=1, pad=0, form="auto"):
    """Slide O kernels over the picture: at every position, the sum of products plus b.

    x (N, H, W, C), W (KH, KW, C, O), b (O,) -> (N, OH, OW, O). No kernel is flipped.
    pad: pixels of zeros on every side, or (before, after).
    form: how it is computed; the numbers are equal to rounding.
      "plain": one product, all columns in memory. To read, and to test the others against.
      "im2col": the same product, a few pictures at a time. To find where a NaN came from.
      "winograd": fewer multiplications, more rounding. For square kernels whose side, divided
                  by the stride and rounded up, is 3 or 5 (11 x 11 at stride 4 is 3 x 3 blocks
                  of 4 x 4 pixels); otherwise "im2col" is taken.
      "auto": "winograd" where it is faster: on a CPU, in float32, from 8 channels on, both in
              (times stride * stride) and out.
    """
    check_kernels("conv2d", x, W, b, "KH, KW, C, O")
    if form not in FORMS:
        raise ValueError(f"conv2d: form is one of {', '.join(FORMS)}, not {form!r}")
    KH, KW, C, O = W.shape
    pad = both_sides(pad)
    out_sizes("conv2d", x.shape, (KH, KW), stride, pad)          # an error if none fits
    if form == "plain":
        return plain(x, W, b, stride, pad)
    can = KH == KW and -(-KH // stride) in (3, 5) and max(pad) < KH
    pays = x.dtype == "float32" and min(C * stride ** 2, O) >= 8 and not is_on_gpu(x)
    fast = can and (form == "winograd" or form == "auto" and pays)
    if kernels.suit(x) and not fast:
        return columns.convolution(x, W, b, stride, pad)
    return (winograd if fast else as_columns)(x, W, b, stride, pad, keep=recording.get())


def as_columns(x, W, b, stride, pad, keep):
    """The fast form of `plain`: y, dx, dW, db.

    A bias is the weight of an input that is always 1. Appended to the columns, this input gives
    b and its gradient by the products that are made anyway.

    The columns are 7 to 25 times larger than x. So they are made for a few pictures at a time,
    or for a strip of one, while they stay in cache; and dW makes them again. Only those of small
    pictures are kept (unless keep is False), 40 MB for 128 of CIFAR-10: there, making them takes
    half as long as multiplying them.
    """
    xp = get_array_module(x)
    KH, KW, C, O = W.shape
    kernel, shape = (KH, KW), x.shape
    OH, OW = out_sizes("conv2d", shape, kernel, stride, pad)
    K = KH * KW * C
    scratch = OH * OW * (K + 1) * x.itemsize
    keep = keep and scratch <= most_scratch(x)
    kept = room_to_keep(x, OH, OW, K + 1) if keep else None

    def strips(x, y, out=None):
        """(columns, rows of y), as many at a time as there is scratch for. out: where the
        columns go; for kept ones there is scratch, so all are one strip."""
        fits = max(1, OH * most_scratch(x) // max(scratch, 1))
        step = fits if len(x) == 1 else OH        # of several, reshape of some rows is a copy
        x = padded(x, pad)
        for top in range(0, OH, step):
            y_rows = y[:, top:top + step]
            x_rows = x[:, stride * top:stride * (top + y_rows.shape[1] - 1) + KH]
            cols = im2col(x_rows, kernel, stride, bias=True, out=out)
            yield blocks(cols), blocks(y_rows.reshape(-1, O))

    def at_once(cols, y):
        """The same of columns that were kept."""
        yield blocks(cols.reshape(-1, K + 1)), blocks(y.reshape(-1, O))

    def blocks(matrix):
        size = part_of_product(matrix, len(matrix), (K + 1) * O, least=LEAST_ROWS)
        return matrix if size == len(matrix) else matrix.reshape(-1, size, matrix.shape[1])

    def forward(x, y, out=None):
        for cols, y_rows in strips(x, y, out):
            xp.matmul(cols, weights, out=y_rows)

    def dx(dy):
        mirrored_pad = KH - 1 - pad[0], KH - 1 - pad[1]
        if stride == 1 and KH == KW and O <= C and min(mirrored_pad) >= 0:
            # The mirrored kernels, slid over dy, give the same sums from smaller columns.
            mirrored = W[::-1, ::-1].swapaxes(2, 3)
            zeros = xp.zeros(C, dy.dtype)
            return as_columns(dy, mirrored, zeros, 1, mirrored_pad, keep=False)[0]

        def backward(dy, dx):
            dx[...] = col2im(dy.reshape(-1, O) @ W.reshape(K, O).T, dx.shape, kernel, stride, pad)
        return over_batch(backward, dy, out=xp.empty(shape, dy.dtype), scratch=scratch)

    @for_two
    def dW_and_db(dy):
        def backward(source, dy):
            products = (dy.swapaxes(-1, -2) @ cols for cols, dy in pairs(source, dy))
            return sum(part if part.ndim == 2 else part.sum(axis=0) for part in products)
        # Transposed: BLAS is quicker at few long rows than at many short ones.
        return sum_over_batch(backward, source, dy, scratch=scratch).T

    def dW(dy): return dW_and_db(dy)[:K].reshape(W.shape)
    def db(dy): return dW_and_db(dy)[K]
    weights = xp.concatenate([W.reshape(K, O), b[None]])
    y = xp.empty((len(x), OH, OW, O), x.dtype)
    if kept is not None:
        pairs, source = at_once, kept
        over_batch(forward, x, y, out=kept, scratch=scratch)
    else:
        pairs, source = strips, x
        over_batch(forward, x, out=y, scratch=scratch)
    return y, dx, dW, db


# --- what fits, and what is said of the rest --------------------------------------------


def out_sizes(op, shape, kernel, stride=1, pad=(0, 0), ceil=False):
    """(OH, OW) for an input of shape (N, H, W, C). An error begins with the op's name."""
    check_axes(op, "x", shape, "N, H, W, C")
    try:
        return tuple(out_size(side, size, stride, pad, ceil)
                     for side, size in zip(shape[1:3], kernel, strict=True))
    except ValueError as error:
        raise ValueError(f"{op}: {error}") from None


def both_sides(pad, op="conv2d"):
    """pad as a pair: pixels before (above and left of) and after (below and right of) x.

    pad may be such a pair, or one number for all sides; ValueError for anything else. The
    2012 program reads three zeros beyond the right and bottom edge of a 224 x 224 crop. That
    is (0, 3), and why 224 and 227 both give 55.
    """
    sides = tuple(pad) if isinstance(pad, (tuple, list)) else (pad, pad)
    if len(sides) != 2 or not all(is_whole(side, 0) for side in sides):
        raise ValueError(f"{op}: pad is a number of pixels or a pair (before, after), not "
                         f"{pad!r}; size // 2 keeps a picture's size at stride 1")
    return tuple(map(int, sides))


def check_kernels(op, x, W, b, axes):
    """Raise ValueError unless x, W and b fit one another. axes: the names of W's; those before
    the last four count places, each of which has kernels of its own (local2d)."""
    check_axes(op, "x", x.shape, "N, H, W, C")
    check_axes(op, "W", W.shape, axes)
    *places, _, _, C, O = W.shape
    if x.shape[3] != C:
        hint = "; this looks like (N, C, H, W): x.transpose(0, 2, 3, 1)"
        raise ValueError(f"{op}: {x.shape[3]} channels come in, the kernels want {C}; x is (N, "
                         f"H, W, C) and W is ({axes}){hint if x.shape[1] == C else ''}")
    if b.shape != (*places, O):
        raise ValueError(f"{op}: W ({axes}) wants a bias of shape {(*places, O)}, not {b.shape}")


def check_axes(op, name, shape, axes):
    """Raise ValueError unless a shape has as many axes as are named, "N, H, W, C" for x."""
    if len(shape) != len(axes.split(", ")):
        hint = "; one picture: x.reshape(1, *x.shape), grey pictures: x.reshape(*x.shape, 1)"
        raise ValueError(f"{op}: {name} is ({axes}), not of shape {shape}"
                         f"{hint if name == 'x' and len(shape) == 3 else ''}")


def is_whole(number, least):
    return isinstance(number, Integral) and number >= least
