"""How can a convolution multiply less?

Two polynomials of degrees m - 1 and K - 1 are multiplied by evaluating both at t = m + K - 1
points, multiplying value by value, and interpolating: t products instead of m K. Read
backwards (transposed), the same numbers give m outputs of a kernel of K taps:

    y = A' [ (G g) * (B' d) ]        d (t,) pixels, g (K,) kernel -> y (m,); ' transposes

In two dimensions every matrix works on columns, then on rows: a tile of t x t pixels gives
m x m outputs with t^2 products instead of m^2 K^2, 4.6 times fewer for K = 3 and m = 5.
Over C channels the products add up, so at each of the t^2 points stands one matrix product
(tiles x C) @ (C x O). The gradient of the kernels takes the same matrices transposed, that of
the pixels the forward pass once more, with mirrored kernels.

The price is rounding. Values at the points are larger than the pixels and cancel. In float32
the outputs of a tile are good to about 1e-5 of the largest number in that tile, im2col's in
conv.py to 1e-6 of their own window. So beside a pixel 10,000 times larger than its neighbours
three digits are left, and one NaN or infinity spoils a whole tile, also outputs that do not see
it. To find where a NaN came from, take form="im2col" (`--conv im2col`).

Sources: Toom and Cook (1963, 1966); Winograd (1980); Lavin and Gray, arXiv:1509.09308.
"""
from functools import cache

import numpy as np

from .cores import for_two, over_batch, part_of_product, room_to_keep, sum_over_batch
from .device import get_array_module

POINTS = 0.0, 1.0, -1.0, 0.5, -2.0, -0.5, 2.0      # an eighth would cost another digit
ONE = POINTS.index(1.0)
LEAST_TILES = 100        # so many tiles make it worth while to read all transformed weights


@cache
def matrices(m, K):
    """A (t, m), B (t, t) and G (t, K), in float64.

    The last point is infinity, where a polynomial is its highest coefficient. B undoes the
    evaluation of t coefficients: it is the inverse of their Vandermonde matrix.
    """
    t = m + K - 1
    A, B, G = (np.vstack([np.vander(POINTS[:t - 1], size, increasing=True), np.eye(size)[-1:]])
               for size in (m, t, K))
    return A, np.linalg.inv(B), G


def in_both(M, x):
    """M (b, a) applied down and across: x, a * a times L numbers -> (b * b, L)"""
    b, a = M.shape
    L = x.size // (a * a)
    inner = on_rows(M, x.reshape(a, a, L))
    return on_rows(M, inner.reshape(a, b * L)).reshape(b * b, L)


def on_rows(M, x, out=None):
    """M (b, a) times every matrix in x: (..., a, columns) -> (..., b, columns)"""
    return times_strips(M, in_strips(x, len(M)), out)


def in_strips(x, rows):
    """x (..., inner, columns) cut into strips for `times_strips`: a view (..., columns / width,
    inner, width).

    The width is one that BLAS is quick at, when `rows` rows are multiplied by the strips.
    """
    *stack, inner, columns = x.shape
    width = part_of_product(x, columns, rows * inner, least=16) or 1
    return x.reshape(*stack, inner, columns // width, width).swapaxes(-3, -2)


def times_strips(x, strips, out=None):
    """x (..., rows, inner) times matrices (..., inner, columns) in strips: (..., rows, columns)

    out: where to write it; its rows are contiguous.
    """
    xp = get_array_module(x)
    *stack, count, inner, width = strips.shape
    rows = x.shape[-2]
    y = xp.empty((*stack, rows, count * width), x.dtype) if out is None else out
    cut = y.reshape(*stack, rows, count, width)
    xp.matmul(x[..., None, :, :], strips, out=cut.swapaxes(-3, -2))
    return y


def amid_zeros(x, sides, before=0):
    """x (n, H, W, C) among zeros: (n, *sides, C), so many rows above it and columns left of it.

    x itself if it leaves no room for any: to copy it takes 3 % of conv1.
    """
    n, H, W, C = x.shape
    if (H, W) == sides:
        return x
    big = get_array_module(x).zeros((n, *sides, C), x.dtype)
    big[:, before:before + H, before:before + W] = x
    return big


def tile_size(H, W, K):
    """The m with the fewest products over H x W outputs. The last tiles may reach beyond them."""
    def products(m):
        t = m + K - 1
        return -(-H // m) * -(-W // m) * t * t
    return min(range(2, len(POINTS) + 3 - K), key=products)


def winograd(x, W, b, stride, pad, keep):
    """conv2d for square kernels, of 3 or 5 pixels or blocks of stride x stride: y, dx, dW, db.

    x (N, H, W, C), W (K, K, C, O), b (O,); pad: (before, after). The transformed weights U
    are computed once for all slices. The transformed pixels are kept for dW if there is room
    for them and keep is True; else dW computes them again.
    """
    if stride > 1:
        return winograd_in_blocks(x, W, b, stride, pad, keep)
    xp = get_array_module(x)
    K, _, C, O = W.shape
    N, height, width, _ = x.shape
    before, after = pad
    OH, OW = (size + before + after - K + 1 for size in (height, width))
    m = tile_size(OH, OW, K)
    t = m + K - 1
    TH, TW = -(-OH // m), -(-OW // m)
    A, B, G = (xp.asarray(M, x.dtype) for M in matrices(m, K))
    as_strided = xp.lib.stride_tricks.as_strided
    U = in_both(G, W).reshape(t * t, C, O)
    strips = xp.ascontiguousarray(in_strips(U, LEAST_TILES))
    how = dict(scratch=2 * t * t * TH * TW * (C + O) * x.itemsize, least=LEAST_TILES // (TH * TW))

    def evaluate(x, out=None):
        """The tiles of x, which overlap, at the points: (n, H, W, C) -> (t^2, n TH TW, C)"""
        n, pixels = len(x), TW * m + K - 1
        big = xp.ascontiguousarray(amid_zeros(x, (TH * m + K - 1, pixels), before))
        picture, h, w, c = big.strides
        # Down, while rows of pixels are whole: these overlap only above and below.
        down = xp.matmul(B.T, as_strided(big, (n, TH, t, pixels * C), (picture, m * h, h, c)))
        picture, row, h, c = down.strides
        tiles = as_strided(down, (t, t, n, TH, TW, C), (h, w, picture, row, m * w, c))
        tiles = tiles.reshape(t, t, n * TH * TW * C)
        out = None if out is None else point_by_point(out).reshape(tiles.shape)
        return on_rows(B.T, tiles, out).reshape(t * t, n * TH * TW, C)

    def point_by_point(kept):
        """What `evaluate` has left in its `out`: (n, t, t, TH TW C) -> (t^2, n TH TW, C)"""
        return kept.transpose(1, 2, 0, 3).reshape(t * t, len(kept) * TH * TW, C)

    def mirror_of_interpolate(dy):
        """dy (n, OH, OW, O) -> (t^2, n TH TW, O)"""
        n, big = len(dy), amid_zeros(dy, (TH * m, TW * m))
        tiles = big.reshape(n, TH, m, TW, m, O).transpose(2, 4, 0, 1, 3, 5)
        return in_both(A, tiles).reshape(t * t, n * TH * TW, O)

    def forward(x, y, out=None):
        tiles = in_both(A.T, times_strips(evaluate(x, out), strips))
        tiles = tiles.reshape(m, m, len(x), TH, TW, O)
        whole = y if y.shape[1:3] == (TH * m, TW * m) else xp.empty(
            (len(x), TH * m, TW * m, O), y.dtype)
        xp.add(tiles.transpose(2, 3, 0, 4, 1, 5), b, out=whole.reshape(len(x), TH, m, TW, m, O))
        if whole is not y:
            y[...] = whole[:, :OH, :OW]

    def dx(dy):
        """The mirrored kernels, slid over dy: again a convolution of stride 1."""
        mirrored = W[::-1, ::-1].swapaxes(2, 3)
        zeros = xp.zeros(C, dy.dtype)
        return winograd(dy, mirrored, zeros, 1, (K - 1 - before, K - 1 - after), keep=False)[0]

    @for_two
    def dW_and_db(dy):
        def backward(source, dy):
            dM = mirror_of_interpolate(dy)
            dW = in_both(G.T, times_strips(points(source).transpose(0, 2, 1), in_strips(dM, C)))
            # At the point 1 a polynomial is the sum of its coefficients: here of a tile of dy.
            db = dM[ONE * t + ONE].sum(axis=0)
            return xp.concatenate([dW.reshape(-1, O), db[None]])
        return sum_over_batch(backward, source, dy, **how)

    def dW(dy): return dW_and_db(dy)[:-1].reshape(W.shape)
    def db(dy): return dW_and_db(dy)[-1]

    y = xp.empty((N, OH, OW, O), x.dtype)
    kept = room_to_keep(x, t, t, TH * TW * C) if keep else None
    if kept is not None:
        kept = kept.reshape(t, t, N, TH * TW * C).transpose(2, 0, 1, 3)      # point by point
        points, source = point_by_point, kept
        over_batch(forward, x, y, out=kept, **how)
    else:
        points, source = evaluate, x
        over_batch(forward, x, out=y, **how)
    return y, dx, dW, db


def winograd_in_blocks(x, W, b, stride, pad, keep):
    """The same with a stride s: blocks of s x s pixels become pixels of s^2 C channels.

    So does the kernel, with zeros where it ends within a block; then the stride is 1. conv1's
    kernels, 11 x 11 x 3 every 4 pixels, are 3 x 3 x 48.
    """
    xp = get_array_module(x)
    s, (before, after) = stride, pad
    K, _, C, O = W.shape
    N, height, width, _ = x.shape
    k = -(-K // s)                                            # blocks on a side of the kernel
    BH, BW = ((size + before + after - K) // s + k for size in (height, width))
    h, w = min(height, BH * s - before), min(width, BW * s - before)      # pixels that count

    def in_blocks(x, y):
        big = amid_zeros(x[:, :h, :w], (BH * s, BW * s), before)
        big = big.reshape(len(x), BH, s, BW, s, C).transpose(0, 1, 3, 2, 4, 5)
        y.reshape(big.shape)[...] = big

    def in_pixels(d, dx):
        big = d.reshape(len(d), BH, BW, s, s, C).transpose(0, 1, 3, 2, 4, 5)
        big = big.reshape(len(d), BH * s, BW * s, C)
        dx[...] = 0
        dx[:, :h, :w] = big[:, before:before + h, before:before + w]

    kernel = xp.zeros((k * s, k * s, C, O), W.dtype)
    kernel[:K, :K] = W
    kernel = kernel.reshape(k, s, k, s, C, O).transpose(0, 2, 1, 3, 4, 5).reshape(k, k, -1, O)
    blocks = over_batch(in_blocks, x, out=xp.empty((N, BH, BW, s * s * C), x.dtype))
    y, blocks_dx, blocks_dW, db = winograd(blocks, kernel, b, 1, (0, 0), keep)

    def dx(dy):
        d = blocks_dx(dy)
        return over_batch(in_pixels, d, out=xp.empty((N, height, width, C), d.dtype))

    def dW(dy):
        d = blocks_dW(dy).reshape(k, k, s, s, C, O).transpose(0, 2, 1, 3, 4, 5)
        return d.reshape(k * s, k * s, C, O)[:K, :K]

    return y, dx, dW, db
