# %% [markdown]
# # 9. Dropout, softmax, and the loss
#
# *You go from the last hidden numbers to the loss and back, and know each factor on the way.*
#
# *Question: What happens between the last neurons and the loss? · Opens: `tinynet/ops.py`
# (`dropout`, `softmax_cross_entropy`), `tinynet/rng.py` (`mask`) · Paper: 4.2, 5 · 15 minutes*
#
# AlexNet ends like this. The layer fc7 gives thousands of numbers for each picture, the hidden
# numbers. While the net is trained, half of them are dropped. From the rest the layer fc8
# computes one number for each class: the **logits**. The **softmax** turns the logits into
# probabilities, and the **loss** says how wrong these probabilities are. Here is the same end
# in miniature: three pictures, five hidden numbers, four classes.

# %%
import itertools

import numpy as np

from tinynet import Tensor, ops, rng
from tinynet.tools import svg

h = np.array([[2., 0, 1, 3, 1], [0, 1, 4, 1, 2], [1, 3, 0, 2, 0]])
W = np.array([[1., 0, -1, 0], [0, 1, 0, -1], [-1, 0, 1, 0],
              [0, 1, 0, 1], [1, -1, 0, 0]])
labels = np.array([3, 2, 0])
print("without dropout, the logits are\n", h @ W, sep="")

# %% [markdown]
# **Dropout** sets each hidden number to 0 with probability $p$, in each step anew. The paper
# has $p = 0.5$. We take $p = 0.4$, so that $p$ and the probability of being kept, $1 - p =
# 0.6$, differ. With dropout no neuron can rely on a particular other neuron, because that
# neuron may be gone. The paper says that the net overfits less, and takes about twice as many
# steps to learn.
#
# When the net is tested, nothing is dropped. Then fc8 gets more than it is used to.
#
# <details><summary>Before you run: by what does one multiply the hidden numbers in testing, to
# make up for it: by 0.4, by 0.6, by 1 / 0.6, or by nothing?</summary>By 0.6. In training a
# number was there in 60 % of the steps, so on average 0.6 of it was.</details>
#
# A **mask** says which of the numbers are kept. Five numbers have only 32 masks. So we can
# compute the mean of the logits over all masks, each with its probability:

# %%
keep = 0.6
masks = np.array(list(itertools.product([0, 1], repeat=5)))
chances = np.where(masks == 1, keep, 1 - keep).prod(axis=1)
thinned = (h[0] * masks) @ W                          # 32 masks, 4 logits
print(f"{len(masks)} masks, chances sum to {chances.sum():.0f}")
print("mean over masks ", (chances @ thinned).round(3))
print("test, times 0.6 ", (keep * h[0] @ W).round(3))
assert np.allclose(chances @ thinned, keep * h[0] @ W)

# %% [markdown]
# Some people object: a weight has grown because its neighbours were dropped, so why is each
# number scaled by its own 0.6? Whatever values the weights have, a logit is a sum of terms
# $w\,m\,h$. Here $m$ is 1 with probability 0.6, and otherwise 0. So the mean of each term is
# $0.6\,w\,h$. The weights have grown to make up for missing neighbours, but this growth is
# already in $w$. The factor 0.6 belongs to the $m$ of this number alone. If each number had a
# different probability, each would get its own factor.
#
# The mean is exact where a matrix product follows. After a ReLU it is not exact:

# %%
print("mean of the ReLUs", (chances @ np.maximum(thinned, 0)).round(3))
print("ReLU of the mean ", np.maximum(chances @ thinned, 0).round(3))

# %% [markdown]
# **Two forms.** The paper and its program drop in training and multiply by $1 - p$ in testing.
# Caffe, PyTorch and most programs of today have **inverted** dropout: they divide what is kept
# by $1 - p$ in training, and do nothing in testing. Either form alone is right. Both at once
# are wrong. The paper and its program drop outputs of fc6 and fc7, after the ReLU; torchvision
# drops their inputs. Programs also differ in the meaning of $p$. In Caffe and PyTorch $p$ is
# the share that is dropped, in the program of 2012 it is the share that is kept. At $p = 0.5$
# the two shares are equal, and no test can tell them apart. One library scaled by the wrong
# share for years.
#
# On the way back the mask is the same: a number that was dropped changes nothing, so its slope
# is 0. Does tinynet's `dropout` do the same? It has both forms: `scale` is 1 or $1 / (1 - p)$.

# %%
where = dict(seed=0, step=7)
kept = rng.mask(np, h.size, keep, purpose=rng.DROPOUT, stream=2, **where)
kept = kept.reshape(h.shape)
for scale in 1, 1 / keep:
    leaf = Tensor(h, requires_grad=True)
    out = ops.dropout(leaf, keep=keep, scale=scale, layer=2, **where)
    assert np.allclose(out.numpy(), h * kept * scale)
    out.sum().backward()
    assert np.allclose(leaf.grad, kept * scale)
print(h * kept)

# %% [markdown]
# **The trap.** Masks from an ordinary random generator depend on all the numbers that were
# drawn before. Suppose that training stops, and goes on from step 7 in a new process. The
# generator starts from its beginning again, and step 7 gets a different mask. The run is no
# longer the same run. One can save the state of the generator beside the weights, but few
# programs do. tinynet has no generator here. A mask is a function of the seed, the step and the
# layer, computed from a counter (`rng.py`).

# %%
def by_counting(step):
    return rng.mask(np, 512, 0.5, seed=0, purpose=rng.DROPOUT, step=step)

before, anew = np.random.default_rng(0), np.random.default_rng(0)
drawn = [before.random(512) < 0.5 for step in range(8)]
pictures = {"step 7": by_counting(7), "step 8": by_counting(8),
            "7, restarted": by_counting(7), "generator, 7": drawn[7],
            "generator, anew": anew.random(512) < 0.5}
assert np.array_equal(pictures["step 7"], pictures["7, restarted"])
svg.side_by_side(*[
    svg.pixels(np.uint8(255 * mask.reshape(16, 32)), f"a mask of dots: {name}",
               scale=4, title=name) for name, mask in pictures.items()])

# %% [markdown]
# **Softmax.** The logits of a picture are any four numbers. Probabilities are positive, and
# their sum is 1. So take $e$ to the power of each logit, and divide by the sum:
#
# $$p_i = \frac{e^{z_i}}{\sum_j e^{z_j}}$$
#
# Adding the same number to all logits changes nothing: it multiplies the numerator and the
# denominator by the same factor. We use this fact. $e^{1000}$ is too large for any float, so we
# subtract the largest logit first.

# %%
def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)

z = (h * kept) @ W
p = softmax(z)
assert np.allclose(p, softmax(z + 1000))
assert np.allclose(p, ops.softmax(Tensor(z)).numpy())
print(p.round(3))

# %% [markdown]
# (The paper says that halving in testing is close to the *geometric* mean of the predictions of
# all masks. If only one matrix product and the softmax follow the dropout, the two are equal,
# once the geometric means are divided by their sum.)

# %%
geometric = np.exp(chances @ np.log(softmax(thinned)))
assert np.allclose(geometric / geometric.sum(), softmax(keep * h[0] @ W))

# %% [markdown]
# **The loss** of a picture is $-\ln(p)$ of its right class, the **cross-entropy**: 0 if the net
# is sure and right, and large if it is sure and wrong. The loss of a batch is the mean over its
# $N$ pictures. The paper says the same the other way round: it makes the mean of $\ln(p)$ as
# large as possible.
#
# <details><summary>Before you run: what is the loss if all four logits are equal?</summary>Each
# class has the probability 1/4, and -ln(1/4) = ln 4 = 1.386. A net with small first weights
# begins near that, whatever it sees.</details>

# %%
def loss(z):
    return -np.log(softmax(z)[np.arange(len(z)), labels]).mean()

same = ops.softmax_cross_entropy(Tensor(z), labels=labels)
assert np.isclose(loss(z), same.item())
print(f"loss {loss(z):.3f}, of equal logits {loss(0 * z):.3f}")

# %% [markdown]
# **Backward.** Each logit moves all four probabilities, so the gradient of the softmax is a
# matrix: $\partial p_j / \partial z_i = p_i - p_i^2$ for $i = j$, and $-p_i p_j$ off the
# diagonal. Yet the loss looks at only one probability, that of the right class $c$. So its
# slopes along the probabilities are 0, except for one, which is $-1 / p_c$. These slopes pick
# one row of the matrix. Every number in this row has the factor $p_c$, which cancels:
#
# $$-\frac{1}{p_c} \, (p_c \, y_i - p_c \, p_i) = p_i - y_i$$
#
# Here $y$ is the **one-hot** row of the label: 1 at $c$, else 0. What remains is how far the
# probabilities are from the right ones.

# %%
one_hot = np.eye(4)[labels]
matrix = np.diag(p[0]) - np.outer(p[0], p[0])
slopes = np.zeros(4)
slopes[labels[0]] = -1 / p[0, labels[0]]
assert np.allclose(slopes @ matrix, p[0] - one_hot[0])
svg.side_by_side(
    svg.matrix(matrix.round(3) + 0., "4 x 4 slopes of the softmax, positive "
               "on the diagonal", "dp by dz, picture 0", cell=46),
    svg.matrix((p - one_hot).round(3) + 0., "3 rows of 4, negative where the "
               "label is", "p - y", mark=lambda v: v < 0, cell=46))

# %% [markdown]
# **And the 1/N?** The loss is a mean, so each picture adds $1/N$ of its own loss, and its
# gradient is $(p - y) / N$. That is the only $1/N$. The gradient of the weights is $h^T\,dz$,
# with the thinned $h$. It sums over the pictures and does not divide again. If the loss is a
# sum instead of a mean, its gradient is $N$ times as large and needs a rate $N$ times smaller.
# A factor 2 comes from squared errors, and has no place here. Here is the whole way back, with
# the check:

# %%
dz = (p - one_hot) / len(h)
moved = np.zeros_like(z)
moved[1, 2] = 1e-5
assert np.isclose(dz[1, 2], (loss(z + moved) - loss(z - moved)) / 2e-5)

leaf, weights = Tensor(h, requires_grad=True), Tensor(W, requires_grad=True)
thin = ops.dropout(leaf, keep=keep, scale=1, layer=2, **where)
ops.softmax_cross_entropy(thin @ weights, labels=labels).backward()
assert np.allclose(weights.grad, (h * kept).T @ dz)
assert np.allclose(leaf.grad, dz @ W.T * kept)
print(leaf.grad.round(3) + 0.)

# %% [markdown]
# Open `ops.py` now, and read `dropout` and `softmax_cross_entropy`, which has softmax and loss
# in one op. So it never divides by a $p_c$ that has become 0. Then read `mask` in `rng.py`.
# (`columns` and `width` in `dropout` are for several processes.)
#
# Then the exercises: `python examples/lessons/check.py 9.1 --show`, `9.2`, `9.3`.
