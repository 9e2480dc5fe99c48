# %% [markdown]
# # Many machines
#
# *You let two processes add up one gradient, and get the bits that one process gets.*
#
# *Question: How do several processes train one net? · Opens: `tinynet/ranks.py`
# (`Ranks.sum_in_order`), `tinynet/cores.py` (`tree`) · Paper: 3.2 · 15 minutes*
#
# This lesson is for the curious: no other lesson needs it. The authors had two cards in one
# computer. Today there are thousands, and a batch is shared out: each process, called a
# **rank**, sees some of the pictures. The gradient of the batch is the sum over all pictures,
# so the ranks have to add up. How hard can that be?
#
# <details><summary>Before you run: is (big + 1) + 1 the same as big + (1 + 1)?</summary>Not in
# float32, if big is large. A float32 has 24 binary digits, and beside 2 to the power of 24 a 1
# is lost.</details>

# %%
import numpy as np

big, one = np.float32(2 ** 24), np.float32(1)
print((big + one) + one, big + (one + one))

# %% [markdown]
# So a sum has an **order**. Another order gives other last bits, and after some hundred steps
# of training other weights. Suppose that a run on two ranks differs from the run on one. Is
# that a mistake in the program, or only rounding? Nobody can tell.
#
# ## An order that can be shared out
#
# Here are the gradients of eight parts of a batch, which we call **lanes**. One process adds
# them one after the other. Two ranks add up four lanes each, then one sum to the other.

# %%
draw = np.random.default_rng(0)
lanes = draw.standard_normal((8, 100_000)).astype(np.float32)

def in_order(parts):
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total

def shared(add, ranks):                 # each adds its lanes, then all add
    return add([add(mine) for mine in np.split(lanes, ranks)])

for ranks in 1, 2, 4, 8:
    differ = np.mean(shared(in_order, ranks) != shared(in_order, 1))
    print(f"in order, {ranks} ranks: {differ:.0%} of the sums differ")

# %% [markdown]
# With eight ranks each has one lane, so the lanes come one by one, as with one rank. With two
# or four ranks nearly half of the sums differ. Now add neighbours first, then neighbouring
# sums, and so on: as a **tree**.

# %%
def tree(parts):
    while len(parts) > 1:
        parts = [parts[i] + parts[i + 1] for i in range(0, len(parts), 2)]
    return parts[0]

for ranks in 1, 2, 4, 8:
    differ = np.mean(shared(tree, ranks) != shared(tree, 1))
    print(f"as a tree, {ranks} ranks: {differ:.0%} of the sums differ")

# %% [markdown]
# None. A rank that has two lanes, or four, has a whole branch of the tree: it can add that
# alone, and hand on *one* array. The drawing shows the ranks of `mpirun -n 2`.

# %%
from tinynet.tools import svg

colours = 4 * [svg.TOP] + 4 * [svg.GRADIENT]            # of rank 0, of rank 1
boxes = {f"l{i}": (0, i, f"lane {i}", colours[i]) for i in range(8)}
for i in range(4):
    boxes[f"s{i}"] = 1, 2 * i + 0.5, f"{2 * i} + {2 * i + 1}", colours[2 * i]
for i in range(2):
    boxes[f"r{i}"] = 2, 4 * i + 1.5, f"rank {i}", colours[4 * i]
boxes["all"] = 3, 3.5, "the sum"
wires = [(f"l{i}", f"s{i // 2}") for i in range(8)]
wires += [(f"s{i}", f"r{i // 2}") for i in range(4)]
wires += [("r0", "all"), ("r1", "all")]
svg.graph(boxes, wires, "a tree: eight lanes, four sums of two, a sum of four "
          "on each of two ranks, and the sum of these", width=64, height=24)

# %% [markdown]
# ## Two processes
#
# Do it. The second process is another Python, which knows nothing of our numbers. It draws the
# same lanes, adds its four, and writes their sum into a pipe. For a real net it would have made
# them of its own pictures.

# %%
import subprocess
import sys

rank_1 = """
import sys, numpy as np
draw = np.random.default_rng(0)
lanes = draw.standard_normal((8, 100_000)).astype(np.float32)
a, b, c, d = lanes[4:]
sys.stdout.buffer.write(((a + b) + (c + d)).tobytes())
"""
command = [sys.executable, "-c", rank_1]
sent = subprocess.run(command, capture_output=True, check=True).stdout
total = tree(lanes[:4]) + np.frombuffer(sent, np.float32)
print(len(sent), "bytes came;", np.array_equal(total, tree(lanes)))

# %% [markdown]
# `Ranks.sum_in_order` is this with more ranks, and each rank gets only a part of the sum.
# `mpirun` and MPI carry the numbers. They are never asked to *add*: what order MPI's own sum
# takes is not promised.
#
# ## One weird trick
#
# What has to be sent? If every rank has the whole net, all gradients. Look at who has the
# weights and who has the work.

# %%
import alexnet
from tinynet import Device, Tensor
from tinynet.ranks import Pretended
from tinynet.tools import anatomy, memory
from tinynet.training.recipes import RECIPES

def net(ranks):
    return memory.without_weights(alexnet.build(
        1000, [Device("cpu")] * 2, RECIPES["paper"], Pretended(ranks)))

image = Tensor(np.zeros((1, 227, 227, 3), np.float32))
table = anatomy.layer_table(net(1).eval()(image))
svg.bars({name: row["parameters"] / 1e6 for name, row in table.items()},
         "weights of each layer: nearly all in fc6, fc7 and fc8; "
         "multiply-adds: nearly all in the five convolutions",
         {name: row["macs"] / 1e6 for name, row in table.items()},
         ("million weights", "million multiply-adds"))

# %% [markdown]
# Convolutions have the work, dense layers the weights. So Krizhevsky split them differently
# (2014, "One weird trick for parallelizing convolutional neural networks"): convolutions by
# pictures, dense layers by *neurons*. Each neuron is on one rank alone, with its weights. So
# the gradients of these weights need not be sent at all. Activations must be sent instead: all
# pictures to all ranks before fc6, all neurons to all ranks before fc7 and fc8, and the logits
# after fc8. They are small.
#
# A matrix product rounds otherwise if it is cut otherwise. So on a CPU tinynet always cuts at
# the same places, also in one process: a batch into eight lanes, a dense layer where its
# `cuts` are (`ops.dense`).

# %%
weights = sum(row["parameters"] for row in table.values())
for ranks in 2, 4, 8:
    sent = sum(forward + backward for _, forward, backward in
               anatomy.sent_by_rank(net(ranks), 128))
    alike = 2 * (ranks - 1) / ranks * 4 * weights
    print(f"{ranks} ranks: {sent / 1e6:.0f} MB a step, by pictures alone "
          f"{alike / 1e6:.0f} MB")

# %% [markdown]
# With two ranks fc6 and fc7 are cut as in the paper's Figure 2: rank 0 has the neurons of the
# top row, rank 1 those of the bottom row. The convolutions are not cut so: each rank has both
# rows of them, for half of the pictures.
#
# **The trap.** A loss is a mean over the batch. It is tempting to let every rank take the mean
# over *its* pictures, and then the mean of these. The last batch of an epoch is seldom even.

# %%
losses = np.array([1.0, 1.0, 4.0])          # two are of rank 0, one of rank 1
means = losses[:2].mean(), losses[2:].mean()
print("mean:", losses.mean(), " mean of means:", np.mean(means))

# %% [markdown]
# The picture of rank 1 would count twice. So divide by the number of *all* pictures, as one
# process does. In tinynet all ranks know all logits in the end, and compute the same loss.
#
# Open `ranks.py` now, which has the sums; how numbers travel is in `mpi.py`. The places where
# ranks meet are in `split.py`, beside those where towers meet. To try it, type `pip install -e
# ".[mpi-local]"` and `mpirun -n 2 python alexnet.py train`.
#
# Then the exercises: `python examples/lessons/check.py r.1 --show`, `r.2`, `r.3`.
