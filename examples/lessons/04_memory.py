# %% [markdown]
# # 4. What must backward remember?
#
# *You say how much memory a training step takes before you run it.*
#
# *Question: What must backward remember? · Opens: `tinynet/tools/memory.py` (`needs`, `Need`),
# `tinynet/engine.py` (`op`, `no_grad`) · Paper: 3.2 · 10 minutes*
#
# Going backward, an op multiplies dy by its slopes, and the slopes depend on the numbers that
# went forward. So some of these numbers have to be kept. Which ones? tinynet has no list of
# them. An op returns gradient functions, and everything that these functions mention is kept.
# Here are two ops: a layer `y = xW + b`, and a **ReLU**, which sets negative numbers to 0.

# %%
import numpy as np

import alexnet
from tinynet import Tensor, device, engine, no_grad, ops
from tinynet.tools import anatomy, memory, svg
from tinynet.training.recipes import RECIPES

def dense(x, W, b):
    def dx(dy): return dy @ W.T
    def dW(dy): return x.T @ dy
    def db(dy): return dy.sum(axis=0)
    return x @ W + b, dx, dW, db

def relu(x):
    y = np.maximum(x, 0)
    def dx(dy): return dy * (y > 0)
    return y, dx

# %% [markdown]
# A function that mentions variables of the function around it is a **closure**. These variables
# live as long as the closure lives. A closure can be asked for their names.
#
# <details><summary>Before you run: which of x, W, b and y do the three gradient functions of
# <code>dense</code> mention?</summary>W and x. Nobody needs b or y: a sum has the
# slope 1, whatever its terms are.</details>

# %%
x = np.ones((10, 300), np.float32)                     # ten rows
W1, b1 = np.ones((300, 200), np.float32), np.zeros(200, np.float32)
W2, b2 = np.ones((200, 7), np.float32), np.zeros(7, np.float32)
h, *first = dense(x, W1, b1)
a, *middle = relu(h)
y, *second = dense(a, W2, b2)
for function in first + middle + second:
    print(function.__qualname__, function.__code__.co_freevars)

# %% [markdown]
# The ReLU could keep its input h instead of its output, because the two are positive at the
# same places. Why does it keep the output? The second layer multiplies this output by its
# weights, so it keeps the output anyway, as its x. The output is one array, and takes its
# memory once. Python frees h as soon as no closure holds it. So let us list the arrays behind
# all closures, each one once.

# %%
def remembered(values, found=None):
    """{id: array} of the arrays that functions mention."""
    found = {} if found is None else found
    for value in values:
        if isinstance(value, np.ndarray):
            while isinstance(value.base, np.ndarray):
                value = value.base                     # what a view shows
            found[id(value)] = value
        elif cells := getattr(value, "__closure__", None):
            remembered((cell.cell_contents for cell in cells), found)
    return found

kept = remembered(first + middle + second)
for name, v in dict(x=x, W1=W1, b1=b1, h=h, a=a, W2=W2, b2=b2, y=y).items():
    print(f"{name:2} {v.nbytes:7,} bytes", "kept" * (id(v) in kept))

# %% [markdown]
# A float32 takes four bytes. Two kinds of arrays are kept. The weights are there in any case.
# The rest, x and a, are **activations**: numbers on their way through the net. The rows of x
# are a **batch**, examples that go through the net together. Each row of the batch adds its own
# activations: here 300 + 200 numbers, which is 2,000 bytes. Does tinynet keep the same? (Four
# bytes more come from `sum`.)

# %%
p = [Tensor(v, requires_grad=True) for v in (W1, b1, W2, b2)]

def loss_of(rows):
    a = ops.relu(ops.dense(Tensor(x[:rows]), *p[:2]))
    return ops.dense(a, *p[2:]).sum()

def size(loss):
    functions = [node.grad_fns or () for node in engine.graph(loss)]
    return sum(v.nbytes for v in remembered(sum(functions, ())).values())

print("1, 2, 10 rows:", *[f"{size(loss_of(n)):,}" for n in (1, 2, 10)])
assert size(loss_of(10)) == sum(v.nbytes for v in kept.values()) + 4

# %% [markdown]
# After `backward` all this memory is free again. If nobody will call `backward`, for example
# when a net is tested, nothing has to be kept. Inside `no_grad()` no graph is made. Outside it,
# a list that you fill with `losses.append(loss)` holds the whole graph of every loss, and all
# arrays that the graph keeps. Append the number instead: `loss.item()`.

# %%
with no_grad():
    print("under no_grad: ", size(loss_of(10)), "bytes")
loss = loss_of(10)
loss.backward()
print("after backward:", size(loss), "bytes")

# %% [markdown]
# **AlexNet.** Now we count in this way for the whole net of the paper. The count needs only
# shapes, so weights of zero and one black picture are enough. Every picture of a batch makes
# the net keep as much as this one. (Convolutions, pools and norms come in lessons 5 to 8. They
# keep what their gradient functions mention, as all ops do. We count with the convolution of
# lesson 5, `im2col`. The form that a CPU takes by default keeps more, to be faster, and
# `alexnet.py show` says two fifths more.) A **recipe** holds all choices of a training run, by
# name.

# %%
recipe = RECIPES["paper"].changed({"conv": "im2col"})
net = alexnet.AlexNet(1000, device.devices("cpu"), recipe)
net = memory.without_weights(net).train()
picture = Tensor(np.zeros((1, 227, 227, 3), np.float32))
loss = ops.softmax_cross_entropy(net(picture), labels=[0])
seen = {id(w.data) for _, w in net.parameters()}
kept = {}
for node, layer in anatomy.layers_of(loss).items():
    found = remembered(node.grad_fns)
    new = [found[key].nbytes for key in found.keys() - seen]
    kept[layer] = kept.get(layer, 0) + sum(new)
    seen |= found.keys()
need, = memory.of_model(net).values()                  # what tinynet says
assert sum(kept.values()) == need.kept
print(f"{need.kept:,} bytes a picture")

# %% [markdown]
# The left side shows what a batch of 128 makes each layer keep. The right side shows how many
# parameters (weights and biases) the layer has. The two sides are mirror images. The outputs of
# the first layers are large pictures, called **maps**, and all places of a map share a few
# weights. The dense layers, fc6 to fc8, have few outputs, and a weight for every pair of an
# input and an output.

# %%
table = anatomy.layer_table(loss)
svg.bars({name: size * 128 / 1e6 for name, size in kept.items()},
         "conv1 keeps most and has few parameters, fc6 the other way round",
         {name: row["parameters"] / 1e6 for name, row in table.items()},
         ("MB kept, batch of 128", "million parameters"), form="{:,.2f}")

# %% [markdown]
# **The trap.** If you want to save memory, you look at the weights first, and above all at fc6.
# But the weights take their memory once, and the activations take it once for each picture.
# Below are three numbers for each of three batch sizes. The first is three times the weights:
# the weights, their gradients, and for each weight a **velocity**, which the paper's update
# rule needs (lesson 13). The second is what the ops keep. The third is for the gradients on
# their way: at most the dy and the dx of the largest op.

# %%
for batch in 1, 16, 128:
    sizes = need.weights * 3, need.kept * batch, need.passing * batch
    print(f"batch {batch:3}:", *[f"{n / 1e6:6.1f} MB" for n in sizes])
fc6 = table["fc6"]["parameters"] * 4 / need.weights
conv1 = kept["conv1"] / need.kept
print(f"fc6: {fc6:.0%} of the weights; conv1: {conv1:.0%} of what is kept")

# %% [markdown]
# With one picture, the weights take nearly all of the memory. With 128 pictures, the
# activations take more than the weights.
#
# **Three gigabytes.** Section 3.2 gives the memory of a card, 3 GB, as the reason for two
# towers on two cards. By our count the whole net would have fitted into one card, with a batch
# of 128. The authors' program of 2012 kept more. Unless an option said otherwise, the outputs
# of its layers and their gradients stayed in memory to the end of the step. Its ReLUs wrote
# over their input. If nothing else was shared, the total is:

# %%
outputs = sum(node.nbytes for node in anatomy.layers_of(loss)
              if node.op not in ("relu", "reshape", "concat"))
ours = 3 * need.weights + 128 * (need.kept + need.passing)
theirs = 3 * need.weights + 128 * 2 * outputs
print(f"ours {ours / 1e9:.1f} GB, counted so {theirs / 1e9:.1f} GB")

# %% [markdown]
# The program needed still more. Each of its norms kept an array, layer 2 had a second norm, and
# the convolutions had buffers. Nobody has written down the total. Each of the two cards held
# about half.
#
# Memory can be traded for time: what is not kept is computed again. tinynet does so where
# computing again is cheap. Its norm keeps only its input and computes the denominators again.
# On a CPU its convolution makes large matrices again (lesson 5), and keeps small ones. On a GPU
# it keeps them if they fit, because making one takes as long as the product. If a batch does
# not fit, take a smaller one. A smaller batch shrinks all but the first of the three numbers.
# `alexnet.py show` prints what each device needs, and a run that dies of too little memory says
# which batch would fit.
#
# Open `memory.py` now. A `Need` is one row of the table: the bytes on one device. `needs`
# measures two pictures and one picture, and takes the difference. Then read `op` in
# `engine.py` again: nothing there says what to keep.
#
# Then the exercises: `python examples/lessons/check.py 4.1 --show`, `4.2`, `4.3`.
