# %% [markdown]
# # 11. One code, two libraries, two devices
#
# *You write the one op that crosses from device to device, and its gradient comes back.*
#
# *Question: How does the same code run on one processor and on two cards? · Opens:
# `tinynet/device.py` (`Device`, `get_array_module`), `tinynet/split.py` (`copy_to`,
# `exchange`, `gather`) · Paper: 3.2 · 15 minutes*
#
# The authors of 2012 had graphics cards (GPUs) with 3 GB of memory, and wanted a net that, they
# say, was too large for one card. (Lesson 4 counts, and doubts it.) So they cut each layer in
# two, and put half of the kernels on each of two GPUs. Each half is a **tower**. The towers
# communicate "only in certain layers", says the paper, because all communication is copying.
#
# A GPU needs its own library. The library CuPy keeps arrays on a card, and its functions have
# the same names as those of NumPy. So an op can ask which library an array comes from, call
# that library `xp`, and go on as before.
#
# Some ops do more. For float32 on a GPU they call a **CUDA kernel**: a small program in C that
# thousands of threads run at once (`kernels.py`, `columns.py`). It has nothing to do with the
# kernels of a convolution. The NumPy code stays the definition, and each CUDA kernel is tested
# against it.
#
# A training step is some hundreds of such kernels. A slow host needs longer to ask for one of them
# than a fast card needs to compute it. So on a single card, and in a single process, `train` has
# the card record a step, and then asks for the whole recording again, with other pictures
# (`replay.py`).

# %%
import numpy as np

from tinynet import Device, Tensor, device, ops, split
from tinynet.engine import record
from tinynet.tools import anatomy, svg

def library_of(array):
    if type(array).__module__.startswith("cupy"):
        import cupy                         # not before one has a card
        return cupy
    return np

def onehot(labels, classes):
    xp = library_of(labels)
    return xp.eye(classes)[labels]

print(onehot(np.array([2, 0]), 3))
assert library_of(np.ones(2)) is device.get_array_module(np.ones(2)) is np

# %% [markdown]
# Why `xp`? `np.exp(x)` with a CuPy array would find CuPy by itself, because it has an array to
# ask. But `np.eye(3)` has no array to ask, so it makes a NumPy array. It is an error to index
# or add arrays of two libraries.
#
# A **device** is a place where arrays live: a name, a library, and a way to `put` arrays there.
# A lesson has to run everywhere, so our two devices are cpu0 and cpu1. They are one processor
# under two names, but tinynet keeps their tensors apart as strictly as those of two cards. An
# op runs on the device of its inputs, and refuses inputs from two devices. (`with device:`
# makes a device the current one, and CuPy puts new arrays on the current device.)

# %%
try:
    Tensor([1.0], "cpu0") + Tensor([2.0], "cpu1")
except RuntimeError as error:
    print(error)

# %% [markdown]
# ## Two towers by hand
#
# Here is the whole plan in NumPy, with 5 pictures of 6 numbers. Layer 1 of the top tower turns
# each picture into 3 numbers, and layer 1 of the bottom tower turns it into 2. Then the towers
# **exchange**: each reads the 3 + 2 = 5 numbers of both. Layer 2 turns these into 4 numbers in
# the top tower and 7 in the bottom tower.

# %%
draw = np.random.default_rng(0).standard_normal
x, A, B = draw((5, 6)), draw((6, 3)), draw((6, 2))
C, D = draw((5, 4)), draw((5, 7))
top, bottom = x @ A, x @ B
left = np.concatenate([top, bottom], axis=1)      # read by the top tower
right = np.concatenate([top, bottom], axis=1)     # read by the bottom tower
loss = ((left @ C) ** 2).sum() + ((right @ D) ** 2).sum()
dleft, dright = 2 * left @ C @ C.T, 2 * right @ D @ D.T
dtop = dleft[:, :3] + dright[:, :3]
dbottom = dleft[:, 3:] + dright[:, 3:]
dA, dB = x.T @ dtop, x.T @ dbottom
print(f"loss {loss:.6f}")

# %% [markdown]
# `left` and `right` hold the same numbers, but on two devices. A part of each array was made on
# its own device, and the rest is a copy. In the backward pass `top` gets a gradient from both
# towers, and the two gradients are added. One of them was computed on the other device. The
# same holds for `bottom`.
#
# <details><summary>Before you run: how many copies between devices does this step make,
# forward and backward together?</summary>Four. Forward, `bottom` goes up and `top` goes down.
# Backward, a gradient of the same shape goes the other way for each of them.</details>

# %%
boxes = {"top": (0, 0, "top\n5 x 3"), "down": (1, 2, "a copy\n120 bytes"),
         "bottom": (0, 3, "bottom\n5 x 2"), "up": (1, 1, "a copy\n80 bytes"),
         "left": (2, 0, "left\n5 x 5"), "right": (2, 3, "right\n5 x 5")}
boxes = {name: (*box, svg.TOP if box[1] < 2 else svg.BOTTOM)
         for name, box in boxes.items()}
ways = [("top", "left", ""), ("up", "left", ""), ("bottom", "right", ""),
        ("down", "right", ""), ("bottom", "up", ""), ("top", "down", "")]
back = [(b, a, words, svg.GRADIENT) for a, b, words in ways]
svg.side_by_side(
    svg.graph(boxes, ways, "forward: bottom goes up, top goes down"),
    svg.graph(boxes, back, "backward: gradients take the same ways back"))

# %% [markdown]
# Blue is one device, green the other. The first drawing shows the numbers, the second one the
# gradients on their way back.
#
# ## The op that crosses
#
# All other ops stay on their device. Only one op has its output on a different device from its
# input. Its gradient is a copy too, back to the device of the input. Two devices need nothing
# more than this op. `op` says of an output that it lives where its inputs do. So `copy_to` is
# no `@op`: it calls `record`, the last line of `op`, and names the other device itself:

# %%
def copy_to(x, device):
    home = x.device
    def dx(dy): return home.put(dy)
    return record("copy_to", device.put(x.data), device, (x,), (dx,))

def two_towers(one, other):
    a, c = (Tensor(w, one, requires_grad=True) for w in (A, C))
    b, d = (Tensor(w, other, requires_grad=True) for w in (B, D))
    top, bottom = Tensor(x, one) @ a, Tensor(x, other) @ b
    left = ops.concat(top, copy_to(bottom, one))
    right = ops.concat(copy_to(top, other), bottom)
    same = split.exchange(top, bottom)             # is it tinynet's?
    assert all(map(np.array_equal, (left, right), same))
    bottom_loss = ((right @ d) ** 2).sum()
    return ((left @ c) ** 2).sum() + copy_to(bottom_loss, one), a, b

value, a, b = two_towers(Device("cpu0"), Device("cpu1"))
for crossing in anatomy.crossings(value):
    print(crossing.source, "->", crossing.target, crossing.bytes, "bytes")
value.backward()
assert np.allclose(value.item(), loss)
assert np.allclose(a.grad, dA) and np.allclose(b.grad, dB)

# %% [markdown]
# The third copy brings the loss of the bottom tower up. In AlexNet that is a **gather**: before
# fc8 the bottom half of fc7 is copied to the top device, and the softmax is computed there.
#
# The `exchange` of tinynet computes what our two lines do. Its `copy_to` differs in two things.
# From a device to itself it copies nothing, so the same code also runs the net on one device.
# And it has two halves. `depart` begins a copy, and the function that it returns ends it. In an
# exchange both copies begin before one ends, so between two cards they are made at the same
# time, one in each direction. In the backward pass the gradients are copied in the same way.
#
# ## Groups
#
# Why does conv2 have kernels of 5 x 5 x 48, although conv1 makes 96 maps? Because 48 of them
# are on the other card, and nothing crosses before conv2. Each tower sees its own maps. Before
# conv3 the towers exchange, so its kernels are 3 x 3 x 256. A layer whose towers do not
# exchange is called **grouped**: it is a full layer in which half of the weights are zero. (In
# our example 29 of 55 weights are zero, a little more than half, because our towers differ in
# size.)

# %%
P, Q, full = draw((3, 4)), draw((2, 7)), np.zeros((5, 11))
full[:3, :4], full[3:, 4:] = P, Q                  # the rest stays zero
assert np.allclose(np.hstack([top @ P, bottom @ Q]), left @ full)
print(f"conv2: {5 * 5 * 48 * 256:,} weights, not {5 * 5 * 96 * 256:,}")

# %% [markdown]
# Are groups better or worse? The paper compares its net with a net on one GPU. That net has
# half of the kernels in conv1 to conv4, and all of them from conv5 on. With two towers the
# top-1 error is 1.7 points lower. This difference shows the effect of more kernels, not of
# groups. The logs of the authors' program include a net whose towers never meet before fc8 but
# have more kernels. Its error is 1.2 points higher. Neither the paper nor the logs compare with
# the full net, which has twice the weights in conv2, conv4 and conv5. So we do not know what
# groups do to the error. The authors' reason for the cut is the memory of the cards.
#
# ## What crosses in AlexNet
#
# Count the numbers of a picture that are copied forward, times 4 bytes (float32), times 128
# pictures. The drawing compares their sum with two things that could be copied instead.

# %%
copied = {"conv3": 2 * 13 * 13 * 128, "fc6": 2 * 6 * 6 * 128,
          "fc7": 2 * 2048, "fc8": 2048}            # fc8: in one direction
for layer, numbers in copied.items():
    print(f"before {layer:5} {128 * numbers * 4:11,} bytes")
megabytes = {"what crosses": 128 * sum(copied.values()) * 4 / 1e6,
             "the pictures": 128 * 227 * 227 * 3 * 4 / 1e6,
             "gradients of weights": 60_965_224 * 4 / 1e6}
svg.bars(megabytes, "30 MB cross; the pictures have 79, the gradients 244",
         titles=("MB, of a batch of 128", ""), form="{:.1f}")

# %% [markdown]
# The backward pass copies as much again. That is little: the pictures themselves are more, and
# today's usual way would copy still more. In that way each card holds the *whole* net and half
# of the pictures, and the gradients of all weights cross in every step. Most of these gradients
# belong to the dense layers. The towers send only the outputs of the dense layers.
#
# **The trap.** A GPU is slow with small arrays, and so are two. A call to a card takes about
# ten microseconds before the work begins, and a call to NumPy takes about one. The drawing
# shows how long a ReLU takes, with rough figures for a core (20 GB/s), a card (1,000 GB/s) and
# a plain copy between them (6 GB/s). A ReLU reads 4 bytes for each number, and writes 4.

# %%
sizes = 10.0 ** np.arange(2, 9)
times = {"core": 1 + 8 * sizes / 20e3, "card": 10 + 8 * sizes / 1000e3,
         "card, copies": 10 + 8 * sizes / 1000e3 + 8 * sizes / 6e3}
svg.curves({name: np.stack([sizes, t], axis=1) for name, t in times.items()},
           "the card wins from 20,000 numbers on, but loses everywhere if "
           "they are copied there and back", "numbers", "µs", log="xy")

# %% [markdown]
# Below about 20,000 numbers the core is faster. Above a million the card is much faster. If the
# array has to go to the card and back for this one op, the card loses at every size. So keep
# everything on the card, and count the copies. On small arrays two cards can be slower than
# one: each call has half the numbers but costs the same, and the copies are extra. On large
# arrays two cards win. The paper says that its net on two GPUs took slightly less time to train
# than its net on one GPU. Our figures are round, and none of them was measured here. Measure
# your own with `alexnet.py bench`.
#
# Open `device.py` now and read `Device`, then `split.py` from `copy_to` to `gather`. (What
# comes after `gather` is for several processes: the lesson "Many machines". Only `layer_of` at
# the end is not. It finds the layer in the name of a parameter, "top.conv3.0.W": tower, layer,
# step in the layer, weights.) `send_to_both` is there because each GPU sees every picture.
# `AlexNet.forward` in `alexnet.py` has each crossing of Figure 2 as one line. (`every_row`,
# `every_neuron` and `every_class` do nothing in one process. `side_by_side` runs a layer of
# each tower.) `alexnet.py show --device cpu0,cpu1` prints the bytes that you counted.
#
# Then the exercises: `python examples/lessons/check.py 11.1 --show`, `11.2`, `11.3`.
