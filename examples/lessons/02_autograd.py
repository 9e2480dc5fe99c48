# %% [markdown]
# # 2. A program that differentiates itself
#
# *You write an engine of fewer than forty lines that finds the same gradients as tinynet.*
#
# *Question: How does a program find the gradient of what it has computed? · Opens:
# `tinynet/engine.py` (`Tensor`, `op`, `multiply`, `matmul`) · Paper: 5 · 15 minutes*
#
# Take $y = a \cdot a + a$ at $a = 0.5$. Measure its slope with the central difference of
# lesson 1. This lesson builds a program, the **engine**, that has to find both numbers
# again: the value 0.75 and the slope 2.

# %%
import numpy as np

import tinynet
from tinynet.tools import svg

def formula(a): return a * a + a

print(formula(0.5), (formula(0.50001) - formula(0.49999)) / 0.00002)

# %% [markdown]
# The program computes y in two steps: $c = a \cdot a$, then $y = c + a$. The slope of each step
# alone is easy. If one factor of a product grows by $h$, the product grows by $h$ times the
# other factor. If one term of a sum grows by $h$, the sum grows by $h$.
#
# The **chain rule** puts steps together. If a grows by $h$, c grows by $h$ times the slope of
# the first step. Then y grows by the growth of c times the slope of the second step. So slopes
# are multiplied along a path. If several paths lead from a to y, their contributions are added.
#
# <details><summary>Before you run: how many paths lead from a to y, and what does each
# bring?</summary>Three. Two go through c, because a is both factors: each brings 0.5 times 1. One
# goes straight to the sum and brings 1. Together 2.</details>

# %%
svg.graph({"a": (0, 1, "a\n0.5"), "c": (1, 0, "c = a · a\n0.25"),
           "y": (2, 1, "y = c + a\n0.75")},
          [("a", "c", "2 × 0.5"), ("c", "y", "1"), ("a", "y", "1")],
          "from a to c the slope is 0.5, twice; to y it is 1", gap=80)

# %% [markdown]
# Such a picture is a **graph**: it shows what was computed from what. The engine records the
# graph while the program runs. A **tensor** is an array (`data`) together with its inputs,
# which are the tensors that it was computed from. It also has one gradient function for each
# input. A gradient function receives **dy**: the slope of the loss along the data. (The loss is
# the last number, here y.) It returns the slope of the loss along the input. That is dy times
# the slope of this one step.
#
# To go **backward**, start at the loss with dy = 1: if the loss grows by $h$, it grows by $h$.
# Each tensor adds what arrives to its `grad`, and sends a share to each of its inputs.

# %%
class Tensor:
    def __init__(self, data, inputs=(), grad_fns=()):
        self.data = np.asarray(data, float)
        self.inputs, self.grad_fns, self.grad = inputs, grad_fns, 0.0

    def backward(self, dy=1.0):
        self.grad = self.grad + dy
        for x, grad_fn in zip(self.inputs, self.grad_fns, strict=True):
            x.backward(grad_fn(dy))

# %% [markdown]
# An **op** is one step. It is written for arrays, and returns its value and a gradient function
# for each input. `op` turns this function of arrays into a function of tensors that records
# what it did. (An inner Python function can read the a and b of the function around it, even
# after that function has returned. So nothing else has to be stored.)

# %%
def op(function):
    def run(*inputs):
        value, *grad_fns = function(*[x.data for x in inputs])
        return Tensor(value, inputs, grad_fns)
    return run

@op
def multiply(a, b):
    def da(dy): return dy * b
    def db(dy): return dy * a
    return a * b, da, db

@op
def add(a, b):
    def da(dy): return dy
    def db(dy): return dy.sum(0) if np.ndim(b) < np.ndim(dy) else dy
    return a + b, da, db

Tensor.__mul__, Tensor.__add__ = multiply, add

# %% [markdown]
# Now `formula`, unchanged, takes a tensor. (Ignore the sum in `add` for a moment.) `run` turns
# arrays into tensors, calls a function on them, and goes backward. It returns the value and
# then the gradient of each array.

# %%
def run(function, arrays, tensor=Tensor):
    tensors = [tensor(array) for array in arrays]
    y = function(*tensors)
    y.backward()
    return [y.data, *(x.grad for x in tensors)]

print(*run(formula, [0.5]))
assert run(formula, [0.5]) == [0.75, 2.0]

# %% [markdown]
# A gradient function may use whatever the step had at hand: its inputs, as `multiply` does, or
# its value. The two are easily confused. The slope of $e^x$ at $x = 0.5$: is it x?

# %%
print((np.exp(0.50001) - np.exp(0.49999)) / 0.00002, np.exp(0.5))

# %% [markdown]
# The slope is the value, $e^x$ itself, and not x. (A gradient function that returns x times dy
# would be right for $x^2 / 2$.)
#
# **Arrays.** For arrays nothing changes. dy has the shape of the value, and what a gradient
# function returns has the shape of the input. But NumPy **broadcasts**: in `add` above, b may
# be one row, which is added to every row of a. Then each number of b leads to the loss by as
# many paths as there are rows. Paths are added, so `add` sums over the rows. We also need a
# product of matrices:
#
# $$y_{ij} = \sum_k a_{ik}\, b_{kj}$$
#
# The number $a_{ik}$ goes into all of row i of y. The slope of $y_{ij}$ along $a_{ik}$ is
# $b_{kj}$. So all paths of $a_{ik}$ together bring $\sum_j dy_{ij}\, b_{kj}$, which is `dy @
# b.T`. The same argument gives `a.T @ dy` for b.

# %%
@op
def matmul(a, b):
    def da(dy): return dy @ b.T
    def db(dy): return a.T @ dy
    return a @ b, da, db

@op
def total(x):
    def dx(dy): return np.full(x.shape, dy)
    return x.sum(), dx

Tensor.__matmul__, Tensor.sum = matmul, total

# %% [markdown]
# That is the engine. Now a net of two **layers** will learn our $a \cdot a + a$, and also its
# slope $2a + 1$, from nine examples. A layer multiplies by a matrix of weights W and adds a row
# b, the **bias**. Two matrix products, one directly after the other, can be written as one. So
# something else must stand between the layers: a ReLU in AlexNet, a square here. The **loss**
# is the sum of the squares of all errors. An error is an output minus the wanted value. (The
# wanted values are given with a minus sign, so that `add` is enough.) The sizes differ: 9
# examples, 1 number in, 6 between the layers, 2 out.

# %%
def net(W1, b1, W2, b2, a, minus):
    between = a @ W1 + b1
    miss = (between * between) @ W2 + b2 + minus
    return (miss * miss).sum()

a = np.linspace(-1, 1, 9).reshape(9, 1)
minus = -np.hstack([formula(a), 2 * a + 1])
draw = np.random.default_rng(0).standard_normal
weights = [draw(shape) for shape in [(1, 6), 6, (6, 2), 2]]
arrays = [*weights, a, minus]
mine = run(net, arrays)
print(f"loss {mine[0]:.4f}, slopes along b2 {mine[4]}")

# %% [markdown]
# One pass backward gave the slopes of all 26 weights. Does tinynet find the same? Its tensors
# take the same functions. (In tinynet a `Parameter` is a tensor that is learned, so it asks for
# its gradient.) Then we check the net as in lesson 1.

# %%
theirs = run(net, arrays, tinynet.Parameter)
assert all(map(np.allclose, mine, theirs))
assert run(formula, [0.5], tinynet.Parameter) == [0.75, 2.0]
print("error by gradcheck:", tinynet.gradcheck(net, *arrays))

# %% [markdown]
# **Learning.** The gradient says which way the loss grows. So move each weight a little the
# other way: by its slope dw times a small number, the **learning rate** or **rate**:
#
# $$w \leftarrow w - \mathrm{rate} \cdot dw$$
#
# This is **gradient descent**. `run` makes new tensors for every step. Otherwise the new slopes
# would be added to the old ones. The slopes along a and along the wanted values are not used,
# because data are not learned.

# %%
losses = []
for step in range(201):
    loss, *slopes, _, _ = run(net, [*weights, a, minus])
    losses.append((step, loss))
    weights = [w - 0.005 * dw for w, dw in zip(weights, slopes, strict=True)]
print([f"{loss:.4f}" for step, loss in losses[::50]])
svg.curves({"": losses}, "the loss falls to 4e-4", "step", "loss", "y")

# %% [markdown]
# **The trap.** It is easy to write `=` in place of `+=`. The `backward` below does so: it
# stores the dy that arrives, instead of adding it to `grad`.
#
# <details><summary>Before you run: which grad will a have now?</summary>1, from the path that
# comes last: the straight one.</details>

# %%
def forgetful(self, dy=1.0):
    self.grad = dy                      # of all paths, the last
    for x, grad_fn in zip(self.inputs, self.grad_fns, strict=True):
        x.backward(grad_fn(dy))

Tensor.backward = forgetful
print("a * a + a:", *run(formula, [0.5]))
print("b1, b2 by right:", *(run(net, arrays)[i] / mine[i] for i in (2, 4)))

# %% [markdown]
# In the net each square halves all slopes that come back through it. The slopes of W2 and b2
# come back through `miss * miss` alone, so they are half of what they should be. The slopes of
# W1 and b1 come back through both squares, so they are a quarter. The loss still falls, but
# more slowly. So a net that learns does not prove its gradients. Lesson 1's check finds the
# mistake, but only in a function that uses some tensor twice. In other functions `=` is as good
# as `+=`.
#
# **What is different in tinynet.** Our `backward` walks along every path. With `b = a + a` and
# `c = b + b` there are four paths. After twenty such steps there are more than a million.
# tinynet visits each tensor once. It may do so only after everything that used the tensor has
# sent its share. That needs an order, which is the subject of lesson 3. tinynet keeps gradients
# only in **leaves**, the tensors that no op computed. It frees what it has used, so a second
# `backward` on the same graph is an error.
#
# The paper has gradient descent in section 5, with two more terms (lesson 13). Open
# `engine.py` now. Read its first lines, then `op`, and `add` to `matmul`. (`cores.matmul`
# there is `@`, spread over the cores of the processor.)
#
# Then the exercises: `python examples/lessons/check.py 2.1 --show`, `2.2`, `2.3`.
