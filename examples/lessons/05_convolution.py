# %% [markdown]
# # 5. A convolution is a matrix product
#
# *You turn every patch of a picture into a row, and a convolution into one `@`.*
#
# *Question: How can one matrix product be a convolution? · Opens:
# `tinynet/conv.py` (`im2col`, `plain`) · Paper: 3.5 · 12 minutes*
#
# A **convolution** slides a small window of weights, the **kernel**, over a picture. At
# every place it multiplies each weight by the pixel under it, and adds the products up. The
# sum is one pixel of the output. Start in one dimension, with six numbers and a kernel of
# three.

# %%
import numpy as np

from tinynet import conv
from tinynet.tools import svg

signal = np.array([1, 2, 3, 4, 5, 6])
kernel = np.array([1, 0, -1])
for i in range(4):              # the kernel fits at four places
    patch = signal[i:i + 3]
    print(patch, "·", kernel, "=", (patch * kernel).sum())

# %% [markdown]
# A sum of products is a row times a column. So write the four patches as the rows of a
# matrix. Then one product gives all four outputs.
#
# <details><summary>Before you run: what are the shape and the values of the
# matrix?</summary>Four rows of three. Each row is the one above it, shifted by one.</details>

# %%
rows = np.stack([signal[i:i + 3] for i in range(4)])
print(rows)
print(rows @ kernel)

# %% [markdown]
# Libraries call the function that makes these rows `im2col`, from "image to columns". (In their
# layout the patches were columns; the name stayed.) The method is the same in two dimensions.
# Here is one picture of 4 x 4 pixels with one channel: one number a pixel. (A colour picture has
# three channels, red, green and blue.) Arrays have the axes N (pictures), H, W (height, width)
# and C (channels).

# %%
x = np.arange(1, 17).reshape(1, 4, 4, 1)
print(x[0, :, :, 0])

# %% [markdown]
# A kernel of 3 x 3 fits at four places. With **stride** $s$ the window moves by $s$ pixels at a
# time. If the picture has $H$ rows of pixels and the kernel has $K_H$ rows, the number of
# output rows is
#
# $$O_H = \left\lfloor \frac{H - K_H}{s} \right\rfloor + 1 .$$
#
# `im2col` below cuts the picture into patches, and writes each patch as a row: one pixel after
# the other, with all channels of each pixel. `as_strided` copies nothing. It shows the same
# sixteen numbers as four overlapping patches. NumPy's `x.strides` says how many bytes lie
# between two neighbours along each axis. One row of pixels down is `h` bytes further. So the
# next patch down begins `stride * h` bytes further, and the next one to the right `stride *
# w`. Only `reshape` copies.

# %%
def im2col(x, KH, KW, stride=1):
    """(N, H, W, C) -> (N * OH * OW, KH * KW * C)"""
    N, H, W, C = x.shape
    OH, OW = (H - KH) // stride + 1, (W - KW) // stride + 1
    n, h, w, c = x.strides
    patches = np.lib.stride_tricks.as_strided(
        x, (N, OH, OW, KH, KW, C), (n, stride * h, stride * w, h, w, c))
    return patches.reshape(N * OH * OW, KH * KW * C)

cols = im2col(x, 3, 3)
print(cols)

# %% [markdown]
# Look for the 6. It is in all four rows, because all four patches contain it. (The next lesson
# sends a gradient back through `im2col`. The 6 then gets four gradients, and their sum is what
# counts.)

# %%
svg.side_by_side(
    svg.matrix(x[0, :, :, 0], "the pixels 1 to 16; the 6 is marked", "x",
               mark=lambda v: v == 6),
    svg.matrix(cols, "4 rows of 9 numbers, a row a patch; each has the 6",
               "im2col(x, 3, 3): a patch a row", mark=lambda v: v == 6))

# %% [markdown]
# Weights are stored as $K_H \times K_W \times C \times O$, where $O$ is the number of kernels.
# Reshape the weights to a matrix, and each kernel is a column, in the order of our rows. So the
# whole layer, for all pictures and all kernels, is one product, and nothing is transposed:
#
# $$y = \mathrm{im2col}(x)\, W + b$$
#
# (Below, `pad=(0, 0)` says: no zeros before and none after the picture. Padding comes next.)
#
# Does tinynet compute the same? The sizes in this test all differ, so that no axis can be
# mistaken for another.

# %%
draw = np.random.default_rng(0)
x = draw.standard_normal((2, 9, 8, 3))                # N, H, W, C
W = draw.standard_normal((3, 4, 3, 5))                # KH, KW, C, O
b = draw.standard_normal(5)
cols = im2col(x, 3, 4, stride=2)
assert np.array_equal(cols, conv.im2col(x, (3, 4), stride=2))
y = (cols @ W.reshape(-1, 5) + b).reshape(2, 4, 3, 5)
same, *gradients = conv.plain(x, W, b, stride=2, pad=(0, 0))
assert np.allclose(y, same)
print(x.shape, "with kernels", W.shape, "gives", y.shape)

# %% [markdown]
# **The trap.** A reshape is not a transpose. Frameworks that keep pictures as N, C, H, W have
# to move the channels to the end before they make rows, with `transpose(0, 2, 3, 1)`. A reshape
# to the same shape raises no error, but it gives a different picture.

# %%
nchw = x.transpose(0, 3, 1, 2)                        # as PyTorch keeps it
right = nchw.transpose(0, 2, 3, 1)
wrong = nchw.reshape(2, 9, 8, 3)
print("the same shape:", right.shape == wrong.shape,
      " the same numbers:", np.array_equal(right, wrong))

# %% [markdown]
# Much code for such pictures fills an array with the six axes N, C, KH, KW, OH, OW, one place
# of the kernel after the other. Then it calls `transpose(0, 4, 5, 1, 2, 3)` and `reshape`.
# Read the six numbers as two groups. N, OH and OW come first: they count the places, and
# become the rows. C, KH and KW come last: they count what a kernel sees, and become the
# columns. A matrix of places x numbers is all that is wanted. Only the order within a row
# differs from ours (C first here, C last there), so the weights are kept in another order too.

# %%
six = np.empty((2, 3, 3, 4, 4, 3))                    # N, C, KH, KW, OH, OW
for i, j in np.ndindex(3, 4):
    six[:, :, i, j] = nchw[:, :, i:i + 7:2, j:j + 5:2]
theirs = six.transpose(0, 4, 5, 1, 2, 3).reshape(2 * 4 * 3, -1)
ours = cols.reshape(-1, 3, 4, 3).transpose(0, 3, 1, 2).reshape(24, -1)
assert np.array_equal(theirs, ours)
print(theirs.shape, "the same numbers, C first in a row")

# %% [markdown]
# **Padding.** A window of 5 x 5 makes the picture smaller by 4 pixels. To keep the size, $p$
# rows and columns of zeros are first put on every side. These zeros are the **padding**. With
# padding
#
# $$O_H = \left\lfloor \frac{H + 2p - K_H}{s} \right\rfloor + 1 .$$
#
# With $p = 2$ and stride 1, a kernel of 5 turns 27 pixels into 27.
#
# **What it costs.** A pixel of x is in about $K_H K_W / s^2$ patches (in fewer at the edges).
# So the matrix is larger than x by about this factor. That is why tinynet makes the matrix for
# a few pictures at a time. In the backward pass a CPU makes the matrix again instead of keeping
# it. Here are the first two layers of AlexNet:

# %%
for name, side, channels, size, stride, kernels, pad in [
        ("conv1", 227, 3, 11, 4, 48, 0), ("conv2", 27, 48, 5, 1, 128, 2)]:
    out = conv.out_size(side, size, stride, (pad, pad))
    numbers = out ** 2 * size ** 2 * channels
    print(f"{name}: {out} x {out} places x {size ** 2 * channels} numbers "
          f"= {numbers:,}, {numbers / (side ** 2 * channels):.0f} times x")
    print(f"  {numbers * kernels:,} multiply-adds for {kernels} kernels")
print(f"a picture, at 400 ns each: {724_406_816 * 400e-9:.0f} seconds")

# %% [markdown]
# The whole net needs 724,406,816 multiply-adds for one picture. In plain Python loops each of
# them takes about 400 nanoseconds, so a picture takes about five minutes. As matrix products
# all of them together take about fifteen milliseconds. (Both are round numbers, for one core.)
# Open `conv.py` now, and read `im2col` and `plain`. Its `im2col` copies KW pixels with all
# their channels in one go, because they lie side by side in memory. There `pad` is a pair,
# zeros before and after; `out` says where to write; `bias` puts a 1 behind each row, which
# lesson 6 uses. (`plain` is there to be read: its `dW` keeps the whole matrix. The form that
# trains makes it again on a CPU, unless the pictures are small.)
#
# Then the exercises: `python examples/lessons/check.py 5.1 --show`, `5.2`, `5.3`.
