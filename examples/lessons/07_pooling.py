# %% [markdown]
# # 7. Pools that overlap
#
# *You make a map smaller, and send a gradient back to the pixels that counted.*
#
# *Question: Who gets the gradient where windows overlap? · Opens: `tinynet/pool.py`
# (`max_pool`) · Paper: 3.4 · 10 minutes*
#
# A **max pool** keeps only the largest pixel of every small window of a map. (A map is one
# channel of the output of a layer.) It has no weights. The map becomes smaller, and a pattern
# that moves by one pixel often gives the same output. Each channel is pooled by itself.
# AlexNet's windows have 3 x 3 pixels and stand 2 pixels apart, so neighbours **overlap**. Take
# one map of 5 x 5 pixels.

# %%
import functools

import numpy as np

from tinynet import Tensor, conv, ops, pool
from tinynet.tools import svg

x = np.array([[1., 3, 0, 2, 1],
              [4, 2, 5, 1, 0],
              [0, 6, 8, 3, 2],
              [2, 1, 4, 7, 9],
              [3, 1, 0, 6, 2]])

# %% [markdown]
# The windows are counted as for a convolution: a window of 3 fits twice into 5 pixels when it
# moves by 2. For each window, note its largest pixel, and where that pixel stands.
#
# <details><summary>Before you run: which pixel is in all four windows, and of how many is it
# the largest?</summary>The 8 in the middle. It is the largest of three windows. In the
# fourth, at the bottom right, the 9 is larger.</details>

# %%
def max_pool(x, size, stride):
    """(H, W) -> the largest pixels (OH, OW), and {window: place}"""
    y = np.empty([(side - size) // stride + 1 for side in x.shape])
    winners = {}
    for i, j in np.ndindex(y.shape):
        top, left = i * stride, j * stride
        window = x[top:top + size, left:left + size]
        row, column = np.unravel_index(window.argmax(), window.shape)
        y[i, j] = window[row, column]
        winners[i, j] = int(top + row), int(left + column)
    return y, winners

y, winners = max_pool(x, size=3, stride=2)
print(y)
print(winners)

# %% [markdown]
# A pool needs no loop over the places of the map. `windows` of `conv.py` gives nine views of
# the picture: the first pixel of every window, the second of every window, and so on. Nothing
# is copied. The largest of nine arrays takes eight maxima. (tinynet's pool needs four: see the
# end of this lesson.)

# %%
picture = x[None, :, :, None]                         # N, H, W, C
views = conv.windows(picture, (3, 3), stride=2)
largest = functools.reduce(np.maximum, views)
assert np.array_equal(largest[0, :, :, 0], y)

big = np.random.default_rng(0).standard_normal((2, 9, 8, 3))
small = pool.max_pool(Tensor(big), size=3, stride=2).numpy()
for n, c in np.ndindex(2, 3):                         # each map by itself
    assert np.array_equal(
        small[n, :, :, c], max_pool(big[n, :, :, c], 3, 2)[0])
print(big.shape, "gives", small.shape)

# %% [markdown]
# **Backward.** Suppose that the gradients 10, 20, 30 and 40 arrive, one for each output. If the
# winner of a window grows by a little, the output grows by the same. If another pixel of the
# window grows by a little, nothing happens. So the slope is 1 for the winner and 0 for the
# rest: each window hands its gradient to its winner. A pixel that wins in several windows is
# used several times. So its gradients are summed, like the gradients of everything that is used
# several times.
#
# <details><summary>Before you run: what do the 8 and the 9 get?</summary>The 8 gets 10 + 20 +
# 30 = 60, the 9 gets 40, and the other pixels get 0.</details>

# %%
dy = np.array([[10., 20], [30, 40]])
dx = np.zeros_like(x)
for window, place in winners.items():
    dx[place] += dy[window]
print(dx)

def gradient(x, ties="first", before=lambda x: x):
    leaf = Tensor(x[None, :, :, None], requires_grad=True)
    y = pool.max_pool(before(leaf), ties=ties)
    (y * dy[None, :, :, None]).sum().backward()       # so dy arrives
    return leaf.grad[0, :, :, 0]

assert np.array_equal(gradient(x), dx)

# %% [markdown]
# Each number at a corner is the gradient of the window there. The arrow ends at the winner.
# Three arrows meet at the 8.

# %%
parts = []
for (i, j), (row, column) in winners.items():
    parts += [svg.box(40 + 60 * j, 40 + 60 * i, 90, 90, svg.TOP, svg.TOP, 0.1),
              svg.text(18 + 204 * j, 22 + 204 * i, int(dy[i, j]),
                       fill=svg.GRADIENT),
              svg.arrow(32 + 184 * j, 26 + 180 * i, 48 + 30 * column + 14 * j,
                        48 + 30 * row + 14 * i, svg.GRADIENT)]
for (row, column), value in np.ndenumerate(x):
    parts.append(svg.text(51 + 30 * column, 59 + 30 * row, f"{value:.0f}"))
svg.drawing(240, 234, parts, "four overlapping windows; from three of them "
            "an arrow leads to the 8 in the middle, from one to the 9")

# %% [markdown]
# **The trap.** If you write `=` in place of `+=`, the 8 keeps only the gradient that came last.
# Yet with windows of 2 x 2 that stand 2 apart, no pixel is in two windows, and `=` is right.
# Several libraries tested their pools on that one case only, and the gradients of their
# overlapping pools were wrong.

# %%
for size in 2, 3:
    wrong = np.zeros_like(x)
    for window, place in max_pool(x, size, 2)[1].items():
        wrong[place] = dy[window]
    print(f"{size} x {size}: of {dy.sum():.0f}, {wrong.sum():.0f} arrives")

# %% [markdown]
# **Two equal pixels.** Let the 5 above the 8 be an 8 as well. Who gets the gradient of the two
# upper windows? The maximum has a kink there, so no answer is the slope. If one of the 8s
# grows, the output grows. If it shrinks, the other one stays, and so does the output. The
# central difference of lesson 1 is the mean of the two, half of 10 + 20. tinynet and the
# libraries Caffe and PyTorch give everything to the first of the equal pixels, counted row by
# row (`ties="first"`). The authors' program of 2012 gave the whole gradient to each of them
# (`ties="all"`). The paper does not say.

# %%
tied = np.where(x == 5, 8, x)
for ties in "first", "all":
    upper, lower = gradient(tied, ties)[1:3, 2]
    print(f"{ties:6} upper 8: {upper:.0f}, lower 8: {lower:.0f}")

bump = np.where(x == 5, 0.1, 0)                       # of the upper 8
change = max_pool(tied + bump, 3, 2)[0] - max_pool(tied - bump, 3, 2)[0]
print(f"central difference: {(change * dy).sum() / 0.2:.0f}")

# %% [markdown]
# Does this choice matter? The most common tie is a tie of zeros, after a ReLU: where a whole
# window is 0, all nine pixels are the largest. But the ReLU lets no gradient through at 0. So
# nothing arrives before the ReLU, whichever pixel gets the gradient. In the next cell 8.5 is
# subtracted, so that only the 9 stays positive. The order of ReLU and max pool does not matter
# for the output either. The authors' program put the ReLU of layer 1 after the pool, where the
# ReLU has about a quarter of the work.

# %%
for ties in "first", "all":
    print(ties, gradient(x - 8.5, ties, before=ops.relu)[3])
maps = Tensor(picture - 8.5)
assert np.array_equal(pool.max_pool(maps).relu(), pool.max_pool(maps.relu()))

# %% [markdown]
# **What hangs over.** A 3 x 3 window that moves by 2 over 4 x 4 pixels never sees the last row
# and column. PyTorch rounds down in this way by default. The program of 2012 and Caffe round
# up: the last window may overhang, and takes the largest of the pixels that are there. With the
# paper's 3/2 (size 3, stride 2) both ways of rounding give maps of the same size. With 2/2 they
# do not.

# %%
print(pool.max_pool(Tensor(picture[:, :4, :4]), ceil=True).numpy()[0, :, :, 0])
for size in 3, 2:
    for ceil in False, True:
        sides = [conv.out_size(n, size, 2, ceil=ceil) for n in (55, 27, 13)]
        print(f"{size}/2 {'up  ' if ceil else 'down'}: 55, 27, 13 -> {sides}")

# %% [markdown]
# The paper compares 3/2 with 2/2, and says that both give maps of equivalent size. That is true
# for a program that rounds down, but the authors' program rounds up. The notes of the program
# number its training runs: run 145 is the paper's net, and run 147 is the net without overlap.
# Run 147 also has less padding: conv2 has pad 1 in place of 2, and conv4 has no padding in
# place of 1. (`--pool 2` does the same.) The logs of the program hold the **top-1 error**: the
# share of pictures for which the first answer of the net is wrong. It was measured on 50,000
# pictures from which the net had not learned:

# %%
side = conv.out_size(conv.out_size(55, 2, 2, ceil=True), 5, 1, (1, 1))
print("run 147: conv2", side, "conv3", conv.out_size(side, 2, 2, ceil=True))
overlap, apart = 0.406640, 0.410580                   # runs 145 and 147
print(f"{100 * (apart - overlap):.2f} points: of 50,000 pictures",
      round(50_000 * (apart - overlap)))

# %% [markdown]
# These are the 0.4 points of the paper. The paper adds that nets with overlap are a little
# harder to **overfit**. A net overfits when it memorizes its training pictures and fails on
# others. Why should overlap help? Nobody knows. The paper gives no reason, the answers that
# people give contradict each other, and we know of no experiment that decides. Only one run of
# each kind was measured, and the two runs also differ in padding. The paper does not say how
# far apart two runs of the same net are.
#
# Open `pool.py` now, and read `max_pool`. It stores no places. `over_windows` takes the
# largest down, over three views, and then across, over three more. `backward` goes the other
# way. `of_columns` is the largest number of each row of a window. The first row that holds the
# largest of all gets the gradient, and in this row the first pixel that does. `to_the_largest`
# computes these shares: `left` is the gradient that nobody has taken yet. `give` adds them up,
# as our `+=` did. (`kernels.suit` asks whether x is float32 on a GPU. Then code for GPUs
# computes the same numbers, and stores the places: lesson 11. Skip these lines here and in the
# next lessons.)
#
# Then the exercises: `python examples/lessons/check.py 7.1 --show`, `7.2`, `7.3`.
