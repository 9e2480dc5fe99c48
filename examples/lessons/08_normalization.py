# %% [markdown]
# # 8. Maps that compete
#
# *You write response normalization, and can say which of its five readings a program means.*
#
# *Question: What does a map lose to its neighbours? · Opens: `tinynet/norm.py` (`plain_lrn`,
# `lrn`) · Paper: 3.3 · 12 minutes*
#
# At each place of a picture, conv1 gives one number for each of its maps. **Local response
# normalization**, LRN, divides each of these numbers by what grows with the energy of its
# neighbours, the sum of their squares:
#
# $$y_i = \frac{x_i}{d_i^{\,\beta}}, \qquad d_i = k + \alpha \sum_{j} x_j^2$$
#
# The sum runs over the $n$ maps around map $i$, at the same place. The first and the last maps
# have fewer neighbours. The paper has $n = 5$, $k = 2$, $\alpha = 10^{-4}$ and $\beta = 0.75$.
# Take one place, twelve maps, and first a large $\alpha$ of 0.5, which shows what happens.
#
# <details><summary>Before you run: map 1 and map 6 both hold a 3. Which one is larger after
# LRN?</summary>Map 6, which has only zeros beside it. Map 1 stands beside the 8.</details>

# %%
import numpy as np

from tinynet import Tensor, norm, ops, pool
from tinynet.tools import svg

x = np.array([1., 3, 8, 2, 0, 0, 3, 0, 0, 5, 5, 5])

def lrn(x, alpha, k=2.0, n=5, beta=0.75):
    y = np.empty_like(x)
    for i in range(len(x)):
        neighbours = x[max(0, i - n // 2):i + n // 2 + 1]
        y[i] = x[i] / (k + alpha * (neighbours ** 2).sum()) ** beta
    return y

strong, paper = lrn(x, alpha=0.5), lrn(x, alpha=1e-4)
print("map 1:", strong[1].round(3), " map 6:", strong[6].round(3))

# %% [markdown]
# Both were 3, and one is now a quarter of the other. Biologists call this **lateral
# inhibition**: a neuron that fires strongly silences the neurons beside it. And with the
# paper's $\alpha$?

# %%
maps = [f"map {i}" for i in range(len(x))]
before = dict(zip(maps, x, strict=True))
svg.side_by_side(*[
    svg.bars(before, f"twelve maps before LRN, and after it, alpha {alpha}",
             dict(zip(maps, after, strict=True)), ("before", f"alpha {alpha}"))
    for alpha, after in ((0.5, strong), (1e-4, paper))])

# %% [markdown]
# In the second picture nothing seems to happen: the bars keep their lengths. (Each side has a
# scale of its own.) $k = 2$ divides everything by $2^{0.75}$, and $10^{-4}$ times an energy of
# 78 is small compared with 2. LRN depends on the scale of the numbers. If they are 30 times
# larger, their energy is 30 times 30 times larger. The authors' pixels ran from 0 to 255. If
# one divides the pixels by 255 and leaves the weights as they are, LRN does next to nothing.

# %%
print("2 ** 0.75 =", round(2 ** 0.75, 3))
for factor in 1, 30, 1 / 255:
    left, alone = lrn(factor * x, alpha=1e-4)[[1, 6]]
    energy = factor ** 2 * (x[:4] ** 2).sum()
    print(f"{factor:6.3f} times x: energy {energy:8,.4g},",
          f"map 1 is {left / alone:.3f} of map 6")

# %% [markdown]
# A picture has many places, and each place is treated separately. So the sum is a product with
# a **band matrix**: row $j$ of `near` has a 1 for every map that counts $j$ among its
# neighbours. tinynet keeps channels last, so one `@` serves all pixels. Does tinynet's LRN give
# the same? We test it with sizes that all differ, and with two windows:

# %%
def near(C, n):
    return abs(np.subtract.outer(np.arange(C), np.arange(C))) <= n // 2

def energies(x, n):
    return x ** 2 @ near(x.shape[-1], n)

assert np.allclose(strong, x / (2 + 0.5 * energies(x, 5)) ** 0.75)
draw = np.random.default_rng(0)
big = draw.standard_normal((2, 9, 8, 7))              # N, H, W, C
for n in 3, 5:
    mine = big / (1.5 + 0.5 * energies(big, n)) ** 0.75
    options = dict(n=n, k=1.5, alpha=0.5, beta=0.75)
    assert np.allclose(mine, norm.lrn(Tensor(big), **options).numpy())
    assert np.allclose(mine, norm.plain_lrn(big, **options))
print(near(6, 5).astype(int))

# %% [markdown]
# **Backward.** $x_i$ is used several times: in the numerator of its own $y_i$, and in the $d_j$
# of each map $j$ that has $i$ among its neighbours, including $i$ itself. For the second use
# the chain rule gives
#
# $$\frac{\partial y_j}{\partial d_j} = -\beta \frac{x_j}{d_j^{\,\beta + 1}}, \qquad
# \frac{\partial d_j}{\partial x_i} = 2 \alpha x_i .$$
#
# Each use gets its share, and the shares are summed:
#
# $$dx_i = \frac{dy_i}{d_i^{\,\beta}}
# - 2 \alpha \beta\, x_i \sum_j \frac{x_j\, dy_j}{d_j^{\,\beta + 1}}$$
#
# Is this formula right? Central differences give all slopes: move one map, and see how all the
# outputs move. In row $i$ of the picture, map $i$ grows, and the columns are $y_0$ to $y_6$.
#
# <details><summary>Before you run: which signs are beside the diagonal, and which on
# it?</summary> Beside it negative ones and zeros: whatever grows takes from its neighbours.
# That is the competition. On it positive ones, with two exceptions.</details>

# %%
steps = 1e-5 * np.eye(len(x))
slopes = np.array([(lrn(x + step, 0.5) - lrn(x - step, 0.5)) / 2e-5
                   for step in steps])
dy = draw.standard_normal(len(x))
leaf = Tensor(x, requires_grad=True)
(norm.lrn(leaf, alpha=0.5) * dy).sum().backward()
assert np.allclose(leaf.grad, slopes @ dy)
d1 = 2 + 0.5 * energies(x, 5)[1]
assert np.isclose(slopes[2, 1], -2 * 0.5 * 0.75 * x[2] * x[1] / d1 ** 1.75)
colours = [svg.KEPT, svg.TOP, svg.GRADIENT]       # zero, positive, negative
svg.matrix(slopes[:7, :7].round(3) + 0.0, "a diagonal, positive but for "
           "two, and a negative band beside it", "row i: xi grows",
           colour=lambda value: colours[int(np.sign(value))], cell=46)

# %% [markdown]
# The 8 (row 2) takes from the 3 on its left most of all. Maps that are 0 lose nothing, since 0
# divided by anything is 0. The two exceptions are the 8 and the lone 3: if one of them grows,
# its own output shrinks. If $\beta$ is above one half, $d^\beta$ grows faster than $x$ in the
# end. The output of a map with zeros beside it is largest where $d = 2 \alpha \beta x^2$:

# %%
for alpha in 0.5, 1e-4:
    best = (2 / ((2 * 0.75 - 1) * alpha)) ** 0.5      # d is 2 + alpha x^2
    print(f"alpha {alpha}: the best x is {best:.2f}")

# %% [markdown]
# **A test that cannot tell.** Suppose that a program leaves out the second term, as if $d$ were
# a constant. With the paper's $\alpha$ and small numbers, the error is hidden:

# %%
for alpha in 1e-4, 0.5:
    leaf = Tensor(x, requires_grad=True)
    (norm.lrn(leaf, alpha=alpha) * dy).sum().backward()
    wrong = dy / (2 + alpha * energies(x, 5)) ** 0.75
    error = abs(wrong - leaf.grad).max() / abs(leaf.grad).max()
    print(f"alpha {alpha}: the error is {error:.1%} of the gradient")

# %% [markdown]
# **The trap.** Five sets of numbers go by the name of LRN. People agree on the formula, but
# they define its numbers differently. Some programs divide $\alpha$ by $n$: for them 1e-4 means
# 2e-5 on the sum. The program of 2012 did so. The paper does not say so. Its formula, read
# literally, has five times the $\alpha$ that was run. Caffe divides too, and its default is $k
# = 1$, also in its AlexNet. PyTorch and ONNX do the same. TensorFlow does not divide. It counts
# the neighbours on one side, the *radius*, and calls $k$ *bias*. Caffe's numbers, typed into
# TensorFlow, make a fourth LRN. The next cell shows what becomes of the 8 when all numbers are
# 30 times larger:

# %%
for who, k, alpha, n, beta in [
        ("paper, Chainer, tinynet", 2, 1e-4, 5, 0.75),
        ("the program of 2012", 2, 1e-4 / 5, 5, 0.75),
        ("Caffe, PyTorch, ONNX", 1, 1e-4 / 5, 5, 0.75),
        ("Caffe's, typed into TF", 1, 1e-4, 5, 0.75),
        ("TensorFlow's defaults", 1, 1.0, 2 * 5 + 1, 0.5)]:
    y = lrn(30 * x, alpha, k, n, beta)[2]
    print(f"{y:6.2f}  {who:24} k = {k}, alpha = {alpha:.0e}, n = {n}")

# %% [markdown]
# Over which maps does the window run? The paper says: over all kernels of the layer. In its
# program a GPU had only its own half of the maps, so the window ended at the border between
# the halves. tinynet does the same, except in its recipe `caffe`: Caffe's window crosses this
# border. The order of the maps has no meaning. Their numbers decide which maps compete, and
# these numbers were fixed before training.
#
# Where in a layer does LRN stand? In the paper it stands after the ReLU and before the pool. In
# layer 1 of the program it came before both (conv, LRN, pool, ReLU), so negative numbers
# counted as energy. In layer 2 of the program a second normalization followed, over 5 x 5
# pixels within each map. The paper does not mention it. CaffeNet, a widely copied AlexNet,
# pools first, which leaves LRN a quarter of the work. No two of these orders give the same
# numbers (here with an $\alpha$ of 0.5):

# %%
maps = Tensor(big)
def squash(x): return norm.lrn(x, alpha=0.5)
def apart(a, b): return abs(a.numpy() - b.numpy()).max().round(2)

in_paper = pool.max_pool(squash(ops.relu(maps)))
program = pool.max_pool(squash(maps)).relu()
caffenet = squash(pool.max_pool(ops.relu(maps)))
print("program and paper differ by up to", apart(program, in_paper))
print("CaffeNet and paper differ by up to", apart(caffenet, in_paper))

# %% [markdown]
# **What it is for.** The paper calls LRN a kind of brightness normalization. It says that LRN
# lowers the top-1 error on unseen pictures by 1.4 points. The logs of its program agree. (Run
# 148 has no norms at all, so the unmentioned norm of layer 2 is gone as well.) The paper's
# second piece of evidence is CIFAR-10: 13 % error without LRN, 11 % with it. This evidence is
# weaker, because the authors' two nets differ in more than LRN. In tinynet's own trial on
# CIFAR-10 (8 epochs, three seeds, $\alpha$ fitted to the scale of the pixels), LRN was better
# by 3.1 points (95 %: ± 0.6). Later runs of the authors did as well without any norm in layer 2:

# %%
for what, without, with_it in [("all (148, 145)", 0.420340, 0.406640),
                               ("layer 2 (167, 170)", 0.404880, 0.405280)]:
    print(f"{what}: without LRN {100 * (without - with_it):+.2f} points")

# %% [markdown]
# Is LRN used today? Hardly. The authors of VGG found in 2014 that LRN did not help their net.
# Batch normalization took its place in 2015. It subtracts the mean over the whole batch from
# each map, and divides the map by its standard deviation. The AlexNet of torchvision has no
# LRN.
#
# Open `norm.py` now, and read `plain_lrn`, then `lrn`. `lrn` keeps only x, and computes d again
# in the backward pass. `moving_sum` does the work of the band matrix: it adds pairs, then pairs
# of pairs.
#
# Then the exercises: `python examples/lessons/check.py 8.1 --show`, `8.2`, `8.3`.
