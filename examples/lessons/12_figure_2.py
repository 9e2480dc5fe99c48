# %% [markdown]
# # 12. Figure 2, line by line
#
# *You compute every number of the paper's Figure 2, and see which of them do not add up.*
#
# *Question: Where do the numbers of Figure 2 come from? · Opens:
# `alexnet.py` (`Tower`, `AlexNet`), `tinynet/tools/anatomy.py` (`layer_table`,
# `crossings`) · Paper: 3.5, Figure 2 · 18 minutes*
#
# The authors cut the net into two halves, the **towers**, one on each of two GPUs (lesson 11).
# Figure 2 draws each tower as a row of boxes. A box is the part of one layer that one tower
# holds. Its label says how large this part is. This lesson follows one picture of 227 x 227
# pixels through the boxes. Three numbers of a layer are enough for that: the side of its
# window, the stride, and the pad. Each line below is a layer, with the maps of both towers
# together.
#
# The paper gives the windows and the strides. It does not give the pads. The pads follow from
# the figure: a window of 5 keeps a side of 27 only with pad 2, and a window of 3 keeps a side
# of 13 only with pad 1.

# %%
FIGURE = [                       # name, maps, window, stride, pad
    ("conv1", 96, 11, 4, 0), ("pool1", 96, 3, 2, 0),
    ("conv2", 256, 5, 1, 2), ("pool2", 256, 3, 2, 0),
    ("conv3", 384, 3, 1, 1), ("conv4", 384, 3, 1, 1),
    ("conv5", 256, 3, 1, 1), ("pool5", 256, 3, 2, 0)]
side, sides = 227, {}
for name, maps, size, stride, pad in FIGURE:
    side = (side + 2 * pad - size) // stride + 1
    sides[name] = side
    print(f"{name}: {side} x {side} x {maps}")

# %% [markdown]
# The figure draws a box for the output of a convolution, and none for a pool. It marks a pool
# only by the words "Max pooling" below the gap. So the box of layer 1 says 55, the box of layer
# 2 says 27, and the pool of layer 1 lies between the two: conv2 reads 27 and makes 27.
#
# **224 or 227?** The figure says 224 at its left end. From there the formula of lesson 5
# does not lead to 55.
#
# <details><summary>Before you run: of 224 pixels, how many steps of 4 does a window of 11
# take, and how many places is that?</summary>(224 - 11) / 4 = 53.25 steps. Rounded down, these
# are 54 places. The figure has 55.</details>

# %%
for who, pixels in [("paper", 224), ("program", 224 + 3), ("Caffe", 227),
                    ("torchvision", 224 + 4), ("textbook", 224 + 2)]:
    steps = (pixels - 11) / 4
    print(f"{who:12}{pixels}: {steps} steps, {int(steps) + 1} places")

# %% [markdown]
# The authors' program took crops of 224. It rounded the number of steps up, and read zeros
# where the last window hangs over the right and the lower edge. That is the same as a picture
# of 227 whose last three rows and columns are zeros. So 224 was right for the program, but the
# paper does not say what the program did at the edge. Caffe rounds down, so it takes 227.
# tinynet takes 227 as well (`--crop 224` is the program's way). torchvision takes 224 and puts
# two zeros at each end. All of them arrive at 55. A textbook puts one zero at each end and
# arrives at 54. From there on its net is a different one.
#
# **Kernels and places.** The rest of the figure follows from three numbers: how many numbers a
# kernel sees, how many kernels there are, and at how many places each kernel stands. A dense
# layer has one place.
#
# How many maps does a kernel see? In layers 2, 4 and 5 it sees only the maps of its own tower.
# That is why the paper writes 5 x 5 x 48 for conv2, though layer 1 has 96 maps. Before layer 3
# the towers exchange what they have, so its kernels see all 256. The dense layers see
# everything, too. fc6 reads the 6 x 6 x 256 numbers of pool5 as one row: that is **flatten**.
#
# A **neuron** is one number of the output. So the number of neurons in a layer is kernels x
# places. The paper lists these products in the caption of the figure. Its list is the last
# column below. The brackets hold the three numbers.

# %%
sees = {"conv1": 3, "conv2": 48, "conv3": 256, "conv4": 192, "conv5": 192}
layers = {name: (size * size * sees[name], maps, sides[name] ** 2)
          for name, maps, size, _, _ in FIGURE if name in sees}
layers |= {"fc6": (sides["pool5"] ** 2 * 256, 4096, 1),
           "fc7": (4096, 4096, 1), "fc8": (4096, 1000, 1)}
# "253,440-186,624-64,896-64,896-43,264-4096-4096-1000", and "650,000 neurons"
caption = 55 * 48 * 96, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000
neurons = [kernels * places for _, kernels, places in layers.values()]
for name, n, said in zip(layers, neurons, caption, strict=True):
    print(f"{name:5} {layers[name]!s:17}{n:10,} {said:10,}")
print(f"sums {sum(neurons):28,} {sum(caption):10,}")

# %% [markdown]
# Seven of eight are right. conv1 has 55 · 55 · 96 = 290,400 neurons. The paper's 253,440 is 55
# · 48 · 96. It seems that 48, the number of maps in one tower, took the place of a side. The
# authors have not explained it, so this is a guess. The text says 650,000 neurons, which lies
# between 622,312, the sum with the slip, and the true 659,272.
#
# **Parameters.** Each kernel has a weight for each number that it sees, and one bias. At each
# place it multiplies each of its weights once. The first exercise asks for the total of
# the parameters: compute it now, before you run the next cell.

# %%
counts = {name: ((inputs + 1) * kernels, inputs * kernels * places)
          for name, (inputs, kernels, places) in layers.items()}
total, macs = map(sum, zip(*counts.values(), strict=True))
for name, (weights, products) in counts.items():
    print(f"{name:5} {weights:10,} {weights / total:6.2%}"
          f" {products:11,} {products / macs:5.1%}")
print(f"total {total:10,}        {macs:11,}")

# %% [markdown]
# The paper's "60 million" are 60,965,224. The percentages are shares of the parameters, and of
# the 724,406,816 multiply-adds of a picture. The paper also says that no convolution holds
# more than 1 % of the parameters. That is true for conv1, conv2 and conv5, but conv3 has 1.45
# % and conv4 has 1.09 %.
#
# Other totals circulate. They belong to other nets:

# %%
merged = total + sum(layers[name][0] * layers[name][1]
                     for name in ("conv2", "conv4", "conv5"))
print(f"{merged:,}  one row: every kernel sees all maps")
print(f"{merged - counts['fc6'][0] + (256 + 1) * 4096:,}  and no flatten")

# %% [markdown]
# The first is the figure with both rows merged, in which a kernel of conv2 is 5 x 5 x 96. The
# second is what Keras says of the first if `Flatten` is forgotten. A dense layer in Keras works
# on the last axis alone. So fc6 stands at each of the 36 places of pool5, and sees 256 numbers
# there.
#
# Does tinynet build this net? We read its table from the graph that one picture makes. The
# weights are zeros here, because only the shapes count.

# %%
import numpy as np

import alexnet
from tinynet import Tensor
from tinynet.device import devices
from tinynet.tools import anatomy, memory, svg
from tinynet.training.recipes import RECIPES

net = alexnet.build(1000, devices("cpu0,cpu1"), RECIPES["paper"])
picture = Tensor(np.zeros((1, 227, 227, 3), np.float32), net.devices[0])
output = memory.without_weights(net).eval()(picture)
table = anatomy.layer_table(output)
assert counts == {name: (row["parameters"], row["macs"])
                  for name, row in table.items()}
print(table["conv2"]["output"], "by", table["conv2"]["kernels"])

# %% [markdown]
# **The lines that cross.** Where lines cross in the figure, a GPU needs what the other GPU
# holds, so it has to be copied. `crossings` finds the copies in the same graph. Before layers
# 3, 6 and 7 both towers send. Before fc8, which is on the top device alone, only the bottom one
# does. The sizes are those of a batch of 128 pictures, forward. In the backward pass gradients
# of the same sizes go the other way.

# %%
MB = {c.layer: c.bytes * 128 / 1e6 for c in anatomy.crossings(output)}
print(f"forward {2 * sum(MB.values()) - MB['fc8']:.1f} MB; the gradients of "
      f"all weights {total * 4 / 1e6:.1f} MB")

# %% [markdown]
# The paper gives the 3 GB of a GPU as the reason for its cut. It could have given another one.
# Suppose that each of two GPUs holds the whole net and learns from half of a batch. Then they
# have to exchange the gradients of all weights at every step, and each sends 243.9 MB. With
# the paper's cut both together send 30.0 MB forward and 30.0 MB backward.
#
# Here is Figure 2 upright, with the pools and with the bytes, which the paper leaves out.

# %%
pools = dict(conv1="\npool: 27x27", conv2="\npool: 13x13", conv5="\npool: 6x6")
edges, nodes = [], {"image": (1, 0, "the picture\n227x227x3"),
                    "fc8": (1, 8, "fc8\n1000\n1.0 MB, one way", svg.TOP)}
for column, colour in (0, svg.TOP), (2, svg.BOTTOM):
    way = ["image", *[(name, column) for name in [*layers][:-1]], "fc8"]
    edges += [(*pair, "", colour) for pair in zip(way, way[1:], strict=False)]
    for row, name in enumerate([*layers][:-1], 1):
        words = f"{name}\n{table[name]['output'][4:]}{pools.get(name, '')}"
        nodes[name, column] = column, row, words, colour
        if name in MB:
            nodes[name] = 1, row - 0.5, f"{MB[name]:.1f} MB\neach way"
            edges += [(way[row - 1], name), (name, way[row])]
svg.graph(nodes, edges, "two columns of boxes, the towers; they exchange "
          "maps before conv3, fc6 and fc7, and meet in fc8", 104, 52)

# %% [markdown]
# **How far does a unit see?** A unit is one number in a map. Its **receptive field** is the
# square of pixels that it depends on. One place further in a map is `jump` pixels further in
# the picture. A window of `size` places reaches `size - 1` jumps beyond its first place, so the
# field grows by as many jumps. A stride multiplies the jump for all later layers.

# %%
field, jump, start, squares = 1, 1, 0, []
for name, _, size, stride, pad in FIGURE:
    field, start = field + (size - 1) * jump, start - pad * jump
    jump *= stride
    left = start + jump * ((sides[name] - 1) // 2)     # of the middle unit
    squares.append((left, left, field, f"{name} {field}" * (field > 50)))
    print(f"{name}: a field of {field:3}, the next one {jump:2} further")

# %% [markdown]
# A unit of conv5 sees a square of 163 pixels, and one of pool5 sees 195 of the 227. So the last
# convolution still looks at only a part of the picture. The numbers that fc6 reads have seen
# nearly all of it. Here are the fields of the middle unit of each layer, on a picture that
# tinynet drew. (pool5 has 6 x 6 places. None of them is in the middle, so its square touches
# the left and the upper edge.) The two squares without labels are those of conv1 (11 pixels)
# and pool1 (19 pixels).

# %%
from tinynet.pictures import patterns

svg.pixels(patterns.picture("rings", 1, size=227) // 64 * 16 + 192,
           "eight squares on a pattern of rings, each larger than the last",
           2, squares)

# %% [markdown]
# A field is only a bound. A pixel in a corner of conv5's field reaches the unit through one
# chain of places. A pixel in the middle reaches it through thousands. So the middle counts for
# more.
#
# **What it costs.** The bars on the left show the size of all outputs in a layer, for a batch
# of 128. Most of these outputs are kept for the backward pass.

# %%
svg.bars({name: row["bytes"] * 128 / 1e6 for name, row in table.items()},
         "conv1 and conv2 put out most; fc6 and fc7 have most parameters",
         {name: weights / 1e6 for name, (weights, _) in counts.items()},
         ("MB of a batch", "million parameters"), form="{:.3g}")

# %% [markdown]
# The two sides mirror each other. conv1 has the largest outputs and 0.06 % of the parameters.
# fc6 has small outputs and 61.93 % of the parameters. The convolutions do over nine tenths of
# the multiply-adds. To save memory, look at the first layers. To get a small file, look at fc6.
#
# **The trap.** A number is not checked by being copied, even if everybody copies it. The
# figure's 224, the caption's 253,440 and the 1 % have been in print since 2012. Shapes that fit
# do not prove much either: torchvision's 55 places and the program's 55 places see different
# pixels. When you rebuild a net, print its table, and count it in a second way.
#
# Open `alexnet.py` now, and read `Tower` and `AlexNet.forward` beside the drawing: every
# `exchange` is a grey box. (`ranks`, `every_row`, `every_neuron` and `every_class` are for
# several processes, and do nothing in one.) Then run `python alexnet.py show`. If you have
# trained a net, `python alexnet.py walk runs/quickstart walk.html` makes a page of it: this
# drawing, in which each layer opens and shows what it makes of a picture.
#
# Then the exercises: `python examples/lessons/check.py 12.1 --show`, `12.2`, `12.3`.
