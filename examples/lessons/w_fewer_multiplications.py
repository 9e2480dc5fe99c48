# %% [markdown]
# # Fewer multiplications
#
# *You compute a convolution with less than half of its multiplications.*
#
# *Question: How can a convolution multiply less? · Opens: `tinynet/winograd.py` (`matrices`,
# `winograd`) · Paper: 3.5 · 12 minutes*
#
# This lesson is for the curious: no other lesson needs it. In lesson 5 a convolution became a
# matrix product, and all of its multiplications were carried out. More than half of them can be
# saved. Take the smallest case, two outputs of a kernel of three. It has six products.

# %%
import numpy as np

from tinynet import Tensor, conv, winograd
from tinynet.tools import svg

d = np.array([1.0, 2, 3, 4])            # pixels
g = np.array([2.0, -1, 3])              # the kernel
slow = np.array([d[0] * g[0] + d[1] * g[1] + d[2] * g[2],
                 d[1] * g[0] + d[2] * g[1] + d[3] * g[2]])
print(slow)

# %% [markdown]
# Four are enough. Each is a sum of pixels times a sum of weights. The sums of weights are the
# same at every place of every picture, so they are made once.

# %%
p0 = (d[0] - d[2]) * g[0]
p1 = (d[1] + d[2]) * ((g[0] + g[1] + g[2]) / 2)
p2 = (d[2] - d[1]) * ((g[0] - g[1] + g[2]) / 2)
p3 = (d[3] - d[1]) * g[2]
fast = np.array([p0 + p1 + p2, p1 - p2 + p3])
print(fast)
assert np.allclose(fast, slow)

# %% [markdown]
# Multiply these formulas out, and you see that they are right. But how does one find them?
#
# ## Where it comes from
#
# The method comes from the product of two polynomials. A polynomial with $n$ coefficients is
# known when its values at $n$ points are known. So do not multiply coefficients. Evaluate both
# polynomials at some points, multiply value by value, and go back to coefficients. $(a_0 + a_1
# x)(b_0 + b_1 x + b_2 x^2)$ has six products of coefficients, but its result has four
# coefficients, and needs four points.
#
# Good points are 0, 1, -1, and "infinity". The value of a polynomial at infinity is, by
# definition, its highest coefficient. To evaluate is to multiply by a matrix with the powers of
# the points, and to go back is to multiply by an inverse.

# %%
def at_points(size):                    # powers of 0, 1, -1; infinity
    powers = np.vander([0.0, 1, -1], size, increasing=True)
    return np.vstack([powers, np.eye(size)[-1]])

A, V, G = at_points(2), at_points(4), at_points(3)
a = np.array([5.0, 7])
product = np.linalg.inv(V) @ ((A @ a) * (G @ g))
assert np.allclose(product, np.convolve(a, g))
print("(5 + 7x)(2 - x + 3x²):", product)

# %% [markdown]
# The product turns the two numbers $a$ into four, by a matrix that is made from $g$: $V^{-1}\,
# \mathrm{diag}(G g)\, A$. It is the matrix of lesson 6, whose columns hold $g$, each one place
# lower than the last. Our convolution turns four pixels into two outputs, by the transpose of
# this matrix. The rows of the transpose hold $g$. A transposed product is the product of the
# transposed factors in reverse order. So with $B = V^{-1}$
#
# $$y = A^T \left[ (G g) \cdot (B^T d) \right] .$$
#
# <details><summary>Before you run: which of the three matrices holds other numbers than 0, 1
# and -1?</summary>Only B, the inverse: it has halves. In our four products above the halves
# stood with the weights instead. Both are right.</details>

# %%
B = np.linalg.inv(V)
assert np.allclose(A.T @ ((G @ g) * (B.T @ d)), slow)
for mine, its in zip((A, B, G), winograd.matrices(2, 3), strict=True):
    assert np.allclose(mine, its)
svg.side_by_side(
    svg.matrix(B.T, "from four pixels to four numbers: 0, 1, halves", "B'"),
    svg.matrix(G, "from three weights to four numbers: 0, 1 and -1", "G"),
    svg.matrix(A.T, "from four products to two outputs: 0, 1 and -1", "A'"))

# %% [markdown]
# ## Two dimensions
#
# Work on columns, then on rows. A **tile** of 4 x 4 pixels makes 2 x 2 outputs of a kernel of
# 3 x 3, with 4 · 4 = 16 products instead of 36.

# %%
tile = np.arange(16.0).reshape(4, 4) ** 2 % 11
kernel = np.outer(g, [1, 2, -1])
fast = A.T @ ((G @ kernel @ G.T) * (B.T @ tile @ B)) @ A
windows = np.lib.stride_tricks.sliding_window_view(tile, (3, 3))
assert np.allclose(fast, (windows * kernel).sum(axis=(2, 3)))
print(fast)

# %% [markdown]
# Now whole layers. A picture is cut into tiles that overlap, one every $m$ pixels for $m$
# outputs. Each pixel value is used by all O kernels, and each weight by all tiles, so the cost
# of evaluating is shared. The products are added over the C channels *before* the way back. So
# there is one matrix product at each of the 16 points, (tiles x C) times (C x O). These
# products are nearly all the work.

# %%
def convolve(x, W, m):
    A, B, G = (M.astype(x.dtype) for M in winograd.matrices(m, 3))
    tiles = np.lib.stride_tricks.sliding_window_view(
        x, (m + 2, m + 2), axis=(1, 2))[:, ::m, ::m]
    V = np.einsum("ip,jq,nhwcij->pqnhwc", B, B, tiles)
    U = np.einsum("pi,qj,ijco->pqco", G, G, W)
    M = np.einsum("pqnhwc,pqco->pqnhwo", V, U)      # the only true products
    y = np.einsum("pi,qj,pqnhwo->nhiwjo", A, A, M)
    N, TH, _, TW, _, O = y.shape
    return y.reshape(N, TH * m, TW * m, O)

draw = np.random.default_rng(0)
x, W = draw.standard_normal((2, 14, 8, 3)), draw.standard_normal((3, 3, 3, 5))
direct, *_ = conv.plain(x, W, np.zeros(5), 1, (0, 0))
assert np.allclose(convolve(x, W, 2), direct)
assert np.allclose(convolve(x, W, 3), direct)
its = conv.conv2d(Tensor(x), Tensor(W), Tensor(np.zeros(5)), form="winograd")
assert np.allclose(its, direct)

# %% [markdown]
# ## Larger tiles, fewer products, more rounding
#
# For $m$ outputs on a side, $t = m + 2$ points on a side are enough. As $m$ grows, the number
# of products for each output falls from 9 towards 1. But points other than 0, 1 and -1 are
# needed: a half, -2, and so on. With these points the intermediate numbers grow larger than the
# pixels, and large numbers that cancel leave rounding errors behind.

# %%
x, W = (np.float32(draw.standard_normal(shape))
        for shape in [(1, 62, 62, 8), (3, 3, 8, 4)])
exact, *_ = conv.plain(np.float64(x), np.float64(W), np.zeros(4), 1, (0, 0))
plain, *_ = conv.plain(x, W, np.zeros(4, "f"), 1, (0, 0))
errors = {}
for m in range(1, 7):
    y = convolve(x, W, m) if m > 1 else plain      # one output at a time
    errors[m] = np.abs(y - exact).max() / np.abs(exact).max()
    print(f"m = {m}: {(m + 2) ** 2 / m ** 2:.2f} products an output, "
          f"error {errors[m]:.0e}")
svg.curves({"float32": list(errors.items())}, "below 1e-6 for m = 1, 2, near "
           "1e-5 for m = 5, 6", "m", "error", log="y", marks=True)

# %% [markdown]
# With $m = 2$ nothing is lost. With 5 or 6 more than one digit out of seven is lost. The last
# tiles may hang over the edge of the map. So tinynet takes the $m$ that needs the fewest
# products for the size of the map. It does so for kernels of 3 and of 5, in float32, on a CPU.

# %%
for layer, side, K in ("conv2", 27, 5), ("conv3", 13, 3):
    m = winograd.tile_size(side, side, K)
    tiles = np.ceil(side / m) ** 2
    products = tiles * (m + K - 1) ** 2
    print(f"{layer}: m = {m}, {tiles:.0f} tiles, "
          f"{side ** 2 * K ** 2 / products:.1f} times fewer products")

# %% [markdown]
# Even conv1, with kernels of 11 x 11 and a stride of 4, can be computed in this way. Blocks of
# 4 x 4 pixels become single pixels with more channels. Then the kernel is 3 x 3, and the stride
# is 1.
#
# The gradients need nothing new. That of the kernels uses the same matrices transposed, as
# `col2im` is `im2col` transposed. That of the picture slides the mirrored kernels over dy
# (lesson 6), so it is the forward pass once more. The idea is old (Toom and Cook in the
# sixties, Winograd in 1980). Lavin and Gray brought it to nets, three years after the paper.
#
# **The trap.** A plain output is computed from its own nine pixels. An output of a tile is
# computed from *all* pixels of the tile, and the pixels that it does not need cancel. Ordinary
# numbers cancel. NaN and infinity do not cancel, and a very large number leaves its rounding
# error behind. Here is one pixel that is not a number:

# %%
x[0, 30, 30, 0] = np.nan
plain, *_ = conv.plain(x, W, np.zeros(4, "f"), 1, (0, 0))
print(f"plain: {np.isnan(plain[..., 0]).sum()} places are spoiled")
for m in 2, 6:
    print(f"m = {m}: {np.isnan(convolve(x, W, m)[..., 0]).sum()} places")

# %% [markdown]
# This pixel is in four tiles. So to find out where a NaN came from, use `form="im2col"`
# (`--conv im2col`). Beside a pixel that is ten thousand times as large as its neighbours, only
# about three digits are left if $m$ is 3 or more.
#
# Open `winograd.py` now. Its first lines are this lesson in short, and `matrices` is your
# `at_points`, with more points. Much of the rest cuts the work into parts that stay in the
# cache.
#
# Then the exercises: `python examples/lessons/check.py w.1 --show`, `w.2`, `w.3`.
