# %% [markdown]
# # 16. What did it learn to see?
#
# *You train a net of two towers within a second or two, and look into it in four ways.*
#
# *Question: What did it learn to see? · Opens: `tinynet/training/figures.py` (`kernel_sheet`),
# `tinynet/training/evaluation.py` (`wrong`) · Paper: 6 · 12 minutes*
#
# The paper ends with pictures of the net itself: its first kernels (Figure 3), and which
# photographs it considers similar (Figure 4). Such pictures need a trained net. The paper's net
# took days to train, so here is a small one. It learns eight of the patterns that tinynet
# draws, from forty pictures of each, at 32 x 32 pixels. The colours of a pattern are random and
# say nothing about its class. Twenty further pictures of each class are for testing.

# %%
import numpy as np

from tinynet import SGD, Conv2D, Dense, Layer, MaxPool, Sequential, Tensor, ops
from tinynet.pictures import patterns
from tinynet.split import exchange
from tinynet.tools import svg
from tinynet.training import evaluation, figures

names = [n for n in patterns.CLASSES if n not in ("waves", "triangles")]

def drawn(split, each):
    x = np.stack([patterns.picture(name, i, split, size=64)
                  for i in range(each) for name in names])
    x = x.reshape(-1, 32, 2, 32, 2, 3).mean(axis=(2, 4), dtype=np.float32)
    return (x - 120) / 64, np.tile(np.arange(8), each)

(x, labels), (unseen, truth) = drawn("train", 40), drawn("val", 20)

# %% [markdown]
# The net is AlexNet in small. It has two towers of four layers, which exchange their outputs
# after each layer. (The towers of AlexNet exchange only before layers 3, 6 and 7, and end in
# layer 8.) `code` returns the output of the last hidden layer for a picture: 64 numbers, 32
# from each tower. AlexNet's fc7 has 64 times as many.

# %%
def tower():
    return [Sequential(Conv2D(3, 8, 7, 2, 3, std=0.01), ops.relu, MaxPool()),
            Sequential(Conv2D(16, 16, 3, pad=1), ops.relu, MaxPool()),
            Sequential(ops.flatten, Dense(288, 32), ops.relu),
            Sequential(Dense(64, 32), ops.relu)]

class Small(Layer):
    def __init__(self):
        self.top, self.bottom, self.last = tower(), tower(), Dense(64, 8)

    def code(self, x):
        top = bottom = x
        for one, other in zip(self.top, self.bottom, strict=True):
            top, bottom = exchange(one(top), other(bottom))
        return top                          # and bottom is the same

    def forward(self, x): return self.last(self.code(x))

# %% [markdown]
# Training goes through the 320 pictures eight times, 20 at a time, with the paper's rate of
# 0.01 and its momentum. It takes a second.

# %%
net, draw = Small().initialize(seed=0), np.random.default_rng(0)
optimizer = SGD(net)
for _ in range(8):
    for batch in draw.permutation(320).reshape(16, 20):
        logits = net(Tensor(x[batch]))
        loss = ops.softmax_cross_entropy(logits, labels=labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
logits, codes = net(Tensor(unseen)).numpy(), net.code(Tensor(unseen)).numpy()
print("wrong:", evaluation.wrong(logits, truth, 1), "of", len(truth))

# %% [markdown]
# Guessing is wrong in seven of eight. (With seven other sets of first weights, some 20 to 40
# pictures were wrong.) Now look into the net.
#
# **1. The kernels of the first layer.** They have three channels, as a picture has, so they can
# be drawn. The smallest weight of each kernel becomes 0, and the largest becomes 255. tinynet's
# `kernel_sheet` does that, and `alexnet.py train` saves such a sheet at the end of a run. The
# second picture has the top tower's kernels plus noise of the size of "he".

# %%
kernels = [net.top[0][0].W.numpy(), net.bottom[0][0].W.numpy()]
noisy = kernels[0] + draw.normal(0, np.sqrt(2 / 147), (7, 7, 3, 8))
learned, noisy = [np.asarray(figures.kernel_sheet(*towers, columns=8))
                  for towers in (kernels, [noisy])]
first = kernels[0][..., 0]
grey = np.round(255 * (first - first.min()) / np.ptp(first))
assert np.array_equal(learned[4:39:5, 4:39:5], grey)   # five pixels a weight
svg.side_by_side(
    svg.pixels(learned, "two rows of 8 kernels: edges and bars"),
    svg.pixels(noisy, "a row of 8 kernels that look like noise"))

# %% [markdown]
# The kernels are edges and bars: vertical, horizontal and slanted. Nobody told the net that
# edges are useful, but most nets that learn from pictures find them.
#
# **The trap.** Kernels that look like noise may have a harmless cause. One is that training was
# short. The second picture shows another: the same changes on top of larger first weights. Such
# a net may be as good, but the noise from which it began is still there, because weight decay
# takes a long time to remove it. Here, as in the recipe `quickstart`, the first layer begins
# with small weights, so that everything visible was learned. A kernel of the second layer is
# not a picture at all. Here it has 16 channels, which are not colours.
#
# In the paper's Figure 3 the kernels of one GPU are edges without colour, and those of the
# other GPU are coloured blobs. The paper says that this happened in every run, and nobody knows
# why. Here is the share of colour in each tower: what is left of the squares of the weights
# when the mean of the three channels is subtracted. For pure noise this share is two thirds.

# %%
print("colour in top and bottom:", *[
    f"{3 * W.var(axis=2).sum() / (W ** 2).sum():.0%}" for W in kernels])

# %% [markdown]
# There is less colour than in noise, because colour says nothing about the class here. A second
# of training on patterns shows nothing of the paper's finding. With eight sets of first
# weights, sometimes the top tower had more colour, and sometimes the bottom tower. The paper's
# net differs in everything that might matter. It learned from photographs, for days, and its
# towers met less often.
#
# **2. Which pictures are alike?** The paper calls two pictures alike if their codes are near
# each other. It measures the distance by the sum of the squared differences.
#
# <details><summary>Before you run: how often does the nearest of the other pictures belong to
# the same class, by code, and by pixels? Chance is one in eight.</summary>By code in more than
# four of five cases, by pixels in one of four. By pixels two pictures are near if they have the
# same colours in the same places. Stripes that moved by half their period are farther from
# themselves than from plain grey.</details>

# %%
def nearest(codes, k):
    flat = codes.reshape(len(codes), -1)
    far = np.stack([((flat - code) ** 2).sum(axis=1) for code in flat])
    np.fill_diagonal(far, np.inf)           # not the picture itself
    return far.argsort(axis=1)[:, :k]

by_code, by_pixels = nearest(codes, 3), nearest(unseen, 3)
for name, near in ("code", by_code), ("pixels", by_pixels):
    print(f"by {name}: {(truth[near[:, 0]] == truth).mean():.0%} same class")

# %%
def shown(x, columns):
    return svg.tiles(np.uint8(np.clip(64 * x + 120, 0, 255)) & 240, columns)

rows = np.ravel([[i, *by_code[i], *by_pixels[i]] for i in range(3, 7)])
svg.pixels(shown(unseen[rows], 7), "a picture, 3 alike, 3 near by pixels", 3)

# %% [markdown]
# In each row the first picture is the query. The next three are the nearest by code, and the
# last three are the nearest by pixels. The nearest by code have the same pattern in other
# colours and sizes. The nearest by pixels have similar colours and any pattern. The paper looks
# for the neighbours of a test picture among the training pictures. Here all pictures are new to
# the net.
#
# **3. What excites a class?** Begin with noise, and change the picture instead of the weights:
# go up the gradient of a logit, for all eight classes at once. A little blur after each step
# keeps out the finest noise, which would excite the net as well.

# %%
def slope(x, classes):
    asking = Tensor(x, requires_grad=True)
    ops.sum(net(asking) * np.eye(8, dtype=np.float32)[classes]).backward()
    return asking.grad

image = np.float32(draw.normal(0, 0.1, (8, 32, 32, 3)))
for _ in range(48):
    image += 0.2 * np.sign(slope(image, np.arange(8)))
    for shift, axis in (1, 1), (-1, 1), (1, 2), (-1, 2):
        image += 0.1 * (np.roll(image, shift, axis) - image)
found = [svg.stretched(one) for one in image.mean(axis=3)]
svg.pixels(svg.tiles(found, 8), "8 grey pictures of bars, arcs and rays", 3)

# %% [markdown]
# The pictures are in the order of the classes. First come horizontal, vertical and slanted
# stripes, and corners of checks. The picture for dots shows no dots, and dots are the class
# that this net knows worst. Then come arcs for rings, lines that meet for rays, and something
# without edges for blobs. Nobody drew these pictures. They are what the weights ask for.
#
# **4. Which pixels matter?** The same slope, taken at a real picture, is the **data gradient**
# of that picture. It says how much the logit of the picture's class changes with each pixel.
# (The gradient of the loss would be nearly zero where the net is sure, because p - 1 is nearly
# zero there.)

# %%
slopes = np.abs(slope(unseen, truth)).max(axis=3)
even, odd = [slopes[:, i::2, i::2].mean() for i in (0, 1)]
print(f"an odd pixel matters {odd / even:.1f} times as much as an even one")
found = [svg.stretched(one) for one in slopes[3:7]]
svg.side_by_side(
    svg.pixels(shown(unseen[3:7], 4), "checks, dots, rings and rays", 3),
    svg.pixels(svg.tiles(found, 4), "the pixels that matter, bright", 3))

# %% [markdown]
# The net looks at pieces: at the corners of the rings, where the arcs are slanted, and not at
# the whole. The dark and bright pixels in rows and columns are not a property of the pictures.
# They come from the first layer, which has kernels of 7 pixels and a stride of 2. A pixel in an
# odd row and column lies under 16 places of a kernel. A pixel in an even row and column lies
# under 9. In AlexNet, with 11 and 4, the data gradient has such a grid of four pixels.
#
# None of these four views proves what the net does. A picture of a net should come with a
# number, such as the share of wrong answers. Open `figures.py` now, and read `kernel_sheet`.
# Then look at the kernels of your own run: `python alexnet.py train` saves them. With
# `python alexnet.py report runs/quickstart` you get a page of the run: its kernels, its worst
# mistakes, and which pictures it considers alike, each with its numbers.
#
# Then the exercises: `python examples/lessons/check.py 16.1 --show`, `16.2`, `16.3`.
