# %% [markdown]
# # 13. Momentum, decay, plateau
#
# *You write the paper's update rule, and know how long an old rate lives on in it.*
#
# *Question: How does a gradient become a step? · Opens:
# `tinynet/optim.py` (`SGD`), `tinynet/training/schedules.py`
# (`Plateau`) · Paper: 5 · 12 minutes*
#
# Lesson 2 moved weights with `w -= rate * dw`. The paper's rule has two more terms, and a rate
# that falls three times. This lesson adds them one by one. The example has two weights, and its
# loss is a long valley: along the first weight it is nearly flat, along the second it is steep.
# Nets have such valleys in thousands of dimensions.

# %%
import numpy as np

from tinynet.tools import svg

CURVATURE = np.array([0.2, 150])                 # flat, steep
START = np.array([-10.0, 1.0])

def loss(w):
    return (CURVATURE * w ** 2).sum() / 2

def gradient(w):
    return CURVATURE * w

# %% [markdown]
# The rate here is the paper's first rate, 0.01. In the flat direction a step takes away 0.2 %
# of the way that is left. In the steep direction a step takes away 150 %: the weight jumps over
# the bottom and lands half as far on the other side.
#
# <details><summary>Before you run: of the 10 in the flat direction, how much is left after
# 100 steps? And could the rate be doubled?</summary>8.2. A hundred steps of 0.2 % each take
# away some 18 %. With rate 0.02 each step in the steep direction is three times the
# distance to the bottom. The weight lands twice as far on the other side, and so on: the
# loss explodes.</details>

# %%
for rate in 0.01, 0.02:
    w = START
    for _ in range(100):
        w = w - rate * gradient(w)
    print(f"rate {rate}: w {w[0]:.2f} and {w[1]:.0e}, loss {loss(w):.3g}")

# %% [markdown]
# The steep direction limits the rate, and then the flat one takes very long. **Momentum** keeps
# a velocity $v$ from step to step. Where the gradients of many steps agree, the velocity grows.
# Where they change sign, they cancel out.
#
# $$v \leftarrow 0.9\, v - \mathrm{rate} \cdot dw \qquad w \leftarrow w + v$$

# %%
def step(w, v, dw, rate, momentum=0.9, decay=0.0):
    v = momentum * v - rate * dw - decay * rate * w
    return w + v, v

def walk(momentum, decay=0.0, steps=100):
    w, v, path = START, np.zeros(2), [START]
    for _ in range(steps):
        w, v = step(w, v, gradient(w), 0.01, momentum, decay)
        path.append(w)
    return np.array(path)

for momentum in 0, 0.5, 0.9, 0.99:
    w = walk(momentum)[-1]
    print(f"momentum {momentum:<4}: flat {w[0]:6.2f}, loss {loss(w):8.4f}")

# %% [markdown]
# With momentum 0.9 the loss is some sixty times smaller after the same number of steps. If the
# gradient does not change, the velocity approaches $-\mathrm{rate} \cdot dw \cdot (1 + 0.9 +
# 0.81 + \ldots)$. That sum is 10. So a flat direction learns at ten times the rate. The steep
# one does not explode, though it swings for longer. With 0.99 it would be a hundred times the
# rate, but such a velocity does not brake in time, and the weights swing far past the bottom.
# In the drawing a dot is a step, and a label is a momentum.

# %%
svg.curves({f"{momentum}": walk(momentum)[:80] for momentum in (0.9, 0)},
           "without momentum a path hardly advances; with 0.9 it swings far",
           "flat weight", "steep weight", marks=True, width=620)

# %% [markdown]
# **Weight decay** is the third term: in every step each weight loses a small share of
# itself.
#
# $$v \leftarrow 0.9\, v - 0.0005 \cdot \mathrm{rate} \cdot w - \mathrm{rate} \cdot dw$$
#
# Is this term decay, or is it L2 regularization? L2 regularization adds $0.0005 \cdot w^2 / 2$
# to the loss, for every weight. The gradient of this addition is $0.0005\, w$, and it is added
# to $dw$. So in this rule the two are the same. They differ in a rule that changes gradients in
# another way. Adam divides gradients by their size, so AdamW applies its decay separately
# (Loshchilov and Hutter, 2019). The paper says that decay lowered the error on the training
# pictures as well. It does not explain why.
#
# How strong is the decay? The rate is a factor of the term, and the velocity multiplies the
# term by ten. Take a weight whose gradient is 0, and wait until half of it is left:

# %%
w, v, steps = 1.0, 0.0, 0
while w > 0.5:
    w, v = step(w, v, 0.0, 0.01, decay=0.0005)
    steps += 1
epoch = 1_200_000 / 128
print(f"{steps:,} steps; an epoch of ImageNet has {epoch:,.0f}")
print(f"at a thousandth of the rate: {1000 * steps / epoch:,.0f} epochs")

# %% [markdown]
# At the first rate, that is an epoch and a half out of ninety. At the last rate, a thousandth
# of the first, ninety epochs take away about 4 %. So decay acts early.
#
# Does tinynet take the same step? `SGD` has the paper's 0.9 and 0.0005 by default.

# %%
from tinynet import SGD, Parameter

weights = Parameter(START.copy())
optimizer = SGD([("W", weights)], lr=0.01)
for _ in range(100):
    weights.grad = gradient(weights.data)
    optimizer.step()
assert np.allclose(weights.data, walk(0.9, decay=0.0005)[-1])
print(weights.data)

# %% [markdown]
# In the paper all layers learn at one rate. In the authors' program biases began at twice the
# rate of weights (`bias_lr=2`). In their run on ILSVRC-2012 they kept this first rate to the
# end, while the rate of weights fell; in the run on ILSVRC-2010 it was divided by 10 once. In
# Caffe the rate of biases falls too, and stays at twice the rate of weights. Biases do not
# decay in either program (`decay_biases=False`). In both the program and tinynet a parameter
# whose rate is 0 stands still: its velocity does not carry it on.
#
# **Inside or outside?** In the paper the rate stands inside the velocity. The same is true in
# the authors' program, in Caffe and in Keras. In PyTorch the velocity is a sum of gradients,
# and the rate stands outside:
#
# $$v \leftarrow 0.9\, v + dw \qquad w \leftarrow w - \mathrm{rate} \cdot v$$
#
# While the rate is constant, the two forms walk the same path. Now divide the rate by 10 after
# 60 steps.

# %%
def lengths(inside):
    """How far each step moves the flat weight."""
    w, v, moves = START, np.zeros(2), []
    for t in range(120):
        rate = 0.01 if t < 60 else 0.001
        before, dw = w, gradient(w)
        if inside:
            w, v = step(w, v, dw, rate)
        else:
            v = 0.9 * v + dw
            w = w - rate * v
        moves.append((t + 1, w[0] - before[0]))
    return np.array(moves)

inside, outside = map(lengths, (True, False))
assert np.allclose(inside[:60], outside[:60])
for t in 60, 61, 70, 80:
    print(f"step {t}: {inside[t - 1, 1]:.4f} and {outside[t - 1, 1]:.4f}")

# %%
svg.curves({"inside": inside[40:], "outside": outside[40:]},
           "length of a step: outside falls to a tenth at once, inside glides",
           "step", "length of a step", log="y")

# %% [markdown]
# **The trap.** With the rate outside, the step falls to a tenth at once. With the rate inside,
# the old velocity still carries the old rate, and only the factor 0.9 makes it smaller, step by
# step. A check at a constant rate cannot tell the two apart. A check that starts with $v = 0$
# and takes one step cannot do so either. If you carry a checkpoint (the saved state of a
# training run) from one form to the other, you must convert the velocity: $v_{outside} =
# -v_{inside} / \mathrm{rate}$. Neither form is a mistake, and dozens of steps are few in an
# epoch of 9,375. (In the end the steps inside are the shorter ones: the weight has glided
# further down, where the valley is flatter.)
#
# **When does the rate fall?** Gradients of batches are noisy. So the weights do not come to
# rest at the bottom. They jump around it, and with a higher rate they jump farther. The authors
# watched the error on the validation set, pictures that are kept apart for testing during
# training, and divided the rate by 10 when the error stopped improving. They did this by hand,
# three times in ninety epochs. `Plateau` does it by a rule: it acts when five validations in
# succession do not beat the best one so far. The five is tinynet's choice. We know when the
# authors divided the rate, but not by which rule.

# %%
from tinynet.training.schedules import RATES_2012, Plateau

def train(most):
    draw, plateau = np.random.default_rng(0), Plateau(patience=5, most=most)
    w, v, rate, seen = START, np.zeros(2), 0.01, []
    for epoch in range(1, 51):
        for _ in range(50):
            noisy = gradient(w) + draw.standard_normal(2)
            w, v = step(w, v, noisy, rate)
        seen.append((epoch, loss(w)))
        factor = plateau.multiplier(loss(w))
        rate *= factor
        if factor < 1:
            print(f"after epoch {epoch} the rate is {rate:.0e}")
    return seen

curves = {"constant": train(most=0), "plateau": train(most=3)}
print("the authors, of 91 epochs:", RATES_2012)

# %%
svg.curves(curves, "with a constant rate the loss jumps about; with one "
           "that falls at plateaus it sinks", "epoch", "loss", log="y")

# %% [markdown]
# Each fall of the rate takes noise away, and the loss sinks to a new floor. A rate that is
# small from the start makes as little noise. But then the walk down the flat valley takes a
# thousand times as many steps.
#
# PyTorch's `ReduceLROnPlateau` is the same idea with other settings. Its patience is 10, and it
# acts on the validation after that. It measures an improvement as a share of the best value.
# `Plateau` measures it as a difference of 0.001 in the error.
#
# Open `optim.py` now: `_update` is our `step`, done in place. Then read `Plateau` in
# `schedules.py`, and above it the dates that the authors logged.
#
# Then the exercises: `python examples/lessons/check.py 13.1 --show`, `13.2`, `13.3`.
