# %% [markdown]
# # 6. Its gradient is another one
#
# *You send a gradient back through a convolution with two products and one add-back, and see
# why a mirrored kernel turns up.*
#
# *Question: How does a gradient go back through a convolution? · Opens:
# `tinynet/conv.py` (`col2im`, `plain`, `as_columns`) · Paper: 5 · 15 minutes*
#
# The paper writes the gradient of a weight as one symbol, and says nothing about how to compute
# it. For a convolution the computation takes a page. Start again in one dimension: six pixels,
# a kernel of three weights, four outputs. Output $i$ is computed from the pixels $i$, $i+1$ and
# $i+2$:
#
# $$y_i = w_0 x_i + w_1 x_{i+1} + w_2 x_{i+2}$$
#
# Let `dy` hold the slope of the loss along each output. If pixel $i+k$ grows by a little, $y_i$
# grows by $w_k$ times as much, and the loss grows by $w_k\, dy_i$ times as much. So each output
# sends `dy[i] * w` back to its own three pixels. The four slopes here are powers of ten, so
# that every digit of the result tells where it came from.
#
# <details><summary>Before you run: what will the third number of the last line
# be?</summary>Three windows hold pixel 2. The first has its weight 3 there, the second its 2,
# the third its 1. So 3 · 1 + 2 · 10 + 1 · 100 = 123.</details>

# %%
import numpy as np

from tinynet import conv, gradcheck
from tinynet.tools import svg

x = np.array([1, 2, 3, 4, 5, 6])
w = np.array([1, 2, 3])
dy = np.array([1, 10, 100, 1000])
dx = np.zeros(6, int)
for i in range(4):
    dx[i:i + 3] += dy[i] * w
    print(dx)

# %% [markdown]
# The `+=` is the chain rule. A pixel that three windows use changes three outputs, so it gets
# three shares, and their sum is its slope. Is the result right? NumPy has our forward pass
# under the name `correlate`. This loss is linear in x, so a central difference is exact for any
# step, and the step may be 1.

# %%
def loss(x): return np.correlate(x, w) @ dy

numeric = [(loss(x + e) - loss(x - e)) // 2 for e in np.eye(6, dtype=int)]
print("the differences say the same:", np.array_equal(dx, numeric))

# %% [markdown]
# **Where the kernel turns round.** A convolution multiplies x by a matrix A. Row $i$ of A holds
# the kernel, shifted by $i$, and zeros elsewhere. You know the gradient of a product: `dx = A.T
# @ dy`. Read the rows of `A.T` from left to right: 3 2 1.

# %%
A = np.array([[0] * i + [1, 2, 3] + [0] * (3 - i) for i in range(4)])
assert np.array_equal(A.T @ dy, dx)
svg.side_by_side(
    svg.matrix(A, "4 rows of 6: 1 2 3, a step further right in each row",
               "y = A @ x", mark=bool),
    svg.matrix(A.T, "6 rows of 4; the rows in the middle hold 3 2 1",
               "dx = A.T @ dy", mark=bool))

# %% [markdown]
# So dx is a convolution too: the kernel, mirrored, slides over dy. At the ends the kernel hangs
# over, so dy gets two zeros on either side. A kernel of K weights without padding needs $K - 1$
# zeros there. Nobody has to rotate anything: a row of A has become a column, and the product
# reads a column in the other direction. (In mathematics "convolution" is the sum with the
# mirrored kernel, and what a net computes in its forward pass is a correlation. So NumPy calls
# the forward pass `correlate` and the backward pass `convolve`. The authors' program of 2012
# did not mirror its kernels either.)

# %%
wide = np.pad(dy, 2)
print(wide)
print(np.correlate(wide, w[::-1]))
assert np.array_equal(np.correlate(wide, w[::-1]), np.convolve(dy, w))

# %% [markdown]
# **Two products and an add-back.** Now in two dimensions, with the pixels 1 to 16, a kernel of
# 3 x 3 with the weights 1 to 9, and the same four slopes, one for each of the four places. In
# lesson 5 the layer was one product, `cols @ W + b`. Each factor of a product gets dy times the
# other factor, transposed. The bias is added to every output, so it gets the sum of dy:
#
# $$dW = \mathrm{cols}^T dy, \quad db = \sum dy, \quad d\mathrm{cols} = dy\, W^T$$
#
# The first two gradients are complete. The third is the gradient of the rows, and it still has
# to go back to the pixels. Each number is added to the pixel from which `im2col` took it. The
# function that does so is called `col2im`.

# %%
def col2im(cols, shape, KH, KW, stride=1):
    """(N * OH * OW, KH * KW * C) -> shape, which is (N, H, W, C)"""
    N, H, W, C = shape
    OH, OW = (H - KH) // stride + 1, (W - KW) // stride + 1
    patches = cols.reshape(N, OH, OW, KH, KW, C)
    x = np.zeros(shape, cols.dtype)
    for i, j in np.ndindex(OH, OW):
        top, left = stride * i, stride * j
        x[:, top:top + KH, left:left + KW] += patches[:, i, j]
    return x

# %%
x = np.arange(1, 17).reshape(1, 4, 4, 1)
w = np.arange(1, 10).reshape(9, 1)                     # KH * KW * C, O
dy = np.array([1, 10, 100, 1000]).reshape(4, 1)        # N * OH * OW, O
cols = conv.im2col(x, (3, 3))
dx = col2im(dy @ w.T, x.shape, 3, 3)
dW = (cols.T @ dy).reshape(3, 3)
print("dx", dx[0, :, :, 0], "dW", dW, "db", dy.sum(), sep="\n")

# %% [markdown]
# Take dx in the second row and second column: 1245. That pixel lies in all four windows. The
# window at the bottom right, whose slope is 1000, has its weight 1 there; the one at the top
# left has its weight 5. The digits from the smallest slope up are 5, 4, 2, 1: the corner of
# the kernel, backwards.
#
# The gradient of the weights is a convolution as well. Weight (0, 0) met a square of 2 x 2
# pixels, one for each place. So dy itself is the kernel that slides over x: 1 · 1 + 2 · 10 + 5
# · 100 + 6 · 1000 = 6521.

# %%
assert np.array_equal(conv.im2col(x, (2, 2)) @ dy, dW.reshape(9, 1))
wide = np.pad(dy.reshape(2, 2), 2).reshape(1, 6, 6, 1)
assert np.array_equal(conv.im2col(wide, (3, 3)) @ w[::-1], dx.reshape(16, 1))

# %% [markdown]
# (The last line is the mirrored kernel again. A kernel of 3 x 3 that is read backwards, from 9
# to 1, has its rows and its columns mirrored: it is rotated by half a turn.)
#
# **How many shares does a pixel get?** Add back a matrix of ones, and each pixel counts the
# windows that hold it.

# %%
def counts(side, size, stride):
    ones = conv.im2col(np.ones((1, side, side, 1), int), (size, size), stride)
    return col2im(ones, (1, side, side, 1), size, size, stride)

svg.side_by_side(*[
    svg.matrix(counts(side, 3, stride)[0, :, :, 0],
               "how many windows hold a pixel: few at the edge, more inside",
               f"{side} x {side}, 3 x 3, stride {stride}", lambda n: n == 0)
    for side, stride in [(4, 1), (5, 2), (6, 2)]])

# %% [markdown]
# A zero means that no window reaches the pixel. Nothing depends on such a pixel, so the right
# gradient is 0.
#
# **The trap.** The names suggest that `col2im` undoes `im2col`. It does not: each pixel comes
# back multiplied by its count. If you test `col2im(im2col(x)) == x`, the test fails. If you
# then change `+=` to `=`, the test passes, but the gradient is wrong. Below, `places` says from
# which pixel each number of the rows came. `x[places] = cols` puts each number back there, and
# later numbers overwrite earlier ones.

# %%
places = conv.im2col(np.arange(16).reshape(1, 4, 4, 1), (3, 3))
print(places)

def overwriting(cols):             # `=` for `+=`
    x = np.zeros(16, int)
    x[places] = cols
    return x.reshape(1, 4, 4, 1)

assert np.array_equal(col2im(cols, x.shape, 3, 3), x * counts(4, 3, 1))
print("overwriting undoes im2col: ", np.array_equal(overwriting(cols), x))
print("and its gradient is right:", np.array_equal(overwriting(dy @ w.T), dx))

# %% [markdown]
# `col2im` is instead the **adjoint** of `im2col`. `im2col` is linear, so it is a matrix of
# zeros and ones, and `col2im` is the transpose of that matrix. For every x and every c
#
# $$\sum \mathrm{im2col}(x)\, c \;=\; \sum x\, \mathrm{col2im}(c) ,$$
#
# and this is the test to write. Use sizes that all differ, and a stride. (Below, `places` is c,
# and the first line prints both sides.)
#
# There is a second test that accepts too much. It compares the mean of dx with the right mean.
# Each slope meets each weight once, so the sum of dx is the sum of dy times the sum of the
# weights, and the mean is right whether the kernel is mirrored or not.

# %%
print((cols * places).sum(), (x * col2im(places, x.shape, 3, 3)).sum())
unmirrored = conv.im2col(wide, (3, 3)) @ w
print("sums", dx.sum(), unmirrored.sum(), "=", dy.sum(), "x", w.sum())
print("but", *dx.ravel()[:4], "is not", *unmirrored.ravel()[:4])

# %% [markdown]
# If your gradient fails a check and you learn no more than that, do as we did here. Fill dy
# with powers of ten and the kernel with digits. Print the result, and read off which weight met
# which slope.
#
# Does tinynet compute the same? We test it with two pictures, three channels, five kernels, a
# stride and padding. The padding is removed last: the zeros around x get gradients too, and
# these gradients are cut off.

# %%
draw = np.random.default_rng(0)
x, W = draw.standard_normal((2, 8, 12, 3)), draw.standard_normal((3, 4, 3, 5))
b = draw.standard_normal(5)
y, *gradients = conv.plain(x, W, b, stride=2, pad=(1, 1))
dy = draw.standard_normal(y.shape)
wide, rows = conv.padded(x, (1, 1)), dy.reshape(-1, 5)
dx = col2im(rows @ W.reshape(-1, 5).T, wide.shape, 3, 4, stride=2)
dx = dx[:, 1:-1, 1:-1]                                 # without the border
dW = (conv.im2col(wide, (3, 4), stride=2).T @ rows).reshape(W.shape)
for mine, grad_fn in zip((dx, dW, rows.sum(axis=0)), gradients, strict=True):
    assert np.allclose(mine, grad_fn(dy))
print(x.shape, "->", y.shape, "->", dx.shape, dW.shape, b.shape)
assert gradcheck(lambda *t: conv.conv2d(*t, stride=2, pad=1), x, W, b) < 1e-6

# %% [markdown]
# Two remarks for reading `conv.py`. Its `col2im` loops over the places in the kernel, ours over
# the places in the picture. The sums are the same, but the loop of tinynet has a few long
# additions instead of many short ones. The rows that weight $i$ meets are `i : i + stride * OH
# : stride`. For the last weight this slice ends up to `stride - 1` rows beyond the picture, and
# some programs make their array larger by as much. No number is ever added in these extra rows:
# the last row that is met lies inside the picture, and NumPy cuts a slice at the edge. So
# tinynet does without them.
#
# The second remark: `as_columns` has both forms of dx. At stride 1, with square kernels and no
# more channels out than in, it slides the mirrored kernels over dy, because those columns are
# smaller. Each kernel then makes one channel of dx from all channels of dy, so C and O change
# places, and padding by $p$ becomes padding by $K - 1 - p$. At a larger stride dy would need
# zeros between its numbers, so `col2im` is better there.
#
# **What it costs.** Each of the two products has as many multiply-adds as the forward pass.
# So a training step costs three forward passes, less one product: nobody asks for the
# gradient of the picture itself, and the engine does not compute it.

# %%
forward, conv1 = 724_406_816, 55 * 55 * 11 * 11 * 3 * 96
step = 3 * forward - conv1
print(f"forward {forward:,}, a step {step:,}: {step / forward:.2f} times")

# %% [markdown]
# Open `conv.py` now. Read `col2im` beside `im2col`, and the three gradients in `plain`: a line
# each. Then look at `dx` in `as_columns`.
#
# `conv2d` chooses the form. On a CPU, in float32, it takes `winograd` for every convolution of
# AlexNet: the same sums, to rounding, with fewer multiplications (the lesson "Fewer
# multiplications"). `as_columns` serves float64 and all other sizes, and `columns.py` does the
# same on a GPU. In both, each row of the matrix ends in a 1, whose weight is the bias. So the
# product that gives y adds b as well, and one other product gives dW and db. `for_two` makes
# that one once for the two.
#
# `over_batch` cuts the batch into slices whose `scratch`, the memory for their columns, stays
# in the cache, and any free core takes the next slice. `sum_over_batch` does the same for dW,
# and adds up in a fixed order. If `room_to_keep` finds the columns of a picture small, they
# are kept, and `at_once` reads them for dW. Otherwise `strips` makes them again. If even one
# picture is too large, `strips` cuts it by rows. `blocks` cuts the product for small kernels
# only; AlexNet's are too large for it. NumPy leaves `@` to a library called BLAS, whose speed
# depends on the shapes: that is what the remark on dW means.
#
# Then the exercises: `python examples/lessons/check.py 6.1 --show`, `6.2`, `6.3`.
