# %% [markdown]
# # 16. What did it learn to see?
#
# *You train a net of two towers within a second or two, and look into it in four ways.*
#
# *Question: What did it learn to see? · Opens: `tinynet/training/figures.py` (`kernel_sheet`),
# `tinynet/training/evaluation.py` (`wrong`) · Paper: 6 · 12 minutes*
#
# The paper ends with pictures of the net itself: its first kernels (Figure 3), and which
# photographs it considers similar (Figure 4). To make them one needs a trained net. The
# paper's took days, so here is a small one. It learns eight of the patterns that tinynet
# draws, from forty pictures of each, at 32 x 32 pixels. The colours of a pattern are drawn by
# lot and tell nothing of its class. Twenty further pictures of each class are for testing.

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
# The net is AlexNet in small. It has two towers of four layers, which exchange what they have
# made after each. (AlexNet's exchange before layers 3, 6 and 7 only, and end in layer 8.) `code`
# is what the last hidden layer makes of a picture: 64 numbers, 32 a tower. AlexNet's
# fc7 has 64 times as many.

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
# It goes eight times through the 320 pictures, 20 at a time, with the paper's rate of 0.01 and
# its momentum. That takes a second.

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
# Guessing is wrong in seven of eight. (From seven other first weights 21 to 51 pictures were
# wrong.) Now look into the net.
#
# **1. The kernels of the first layer.** They have three channels, as a picture has, so they can
# be drawn. Of each kernel the smallest weight becomes 0, the largest 255. tinynet's
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
# Edges and bars, upright, level and slanted. Nobody told the net that edges are useful, and most
# nets that learn from pictures find them.
#
# **The trap.** Kernels that look like noise may have a harmless cause. One is that training
# was short. The second picture shows another: the same changes on top of larger first weights.
# Such a net may be as good, but the noise from which it began is still there, since weight
# decay takes long to remove it. Here, as in the recipe `quickstart`, the first layer begins
# with small weights, so that what one sees was learned. And a kernel of the second layer is no
# picture at all. It has 16 channels here, and they are not colours.
#
# In the paper's Figure 3 the kernels of one GPU are edges without colour, those of the other are
# coloured blobs. The paper says that this happened in every run, and nobody knows why. Here is
# the share of colour in each tower: what is left of the squares of the weights when the mean of
# the three channels is subtracted. Of pure noise it is two thirds.

# %%
print("colour in top and bottom:", *[
    f"{3 * W.var(axis=2).sum() / (W ** 2).sum():.0%}" for W in kernels])

# %% [markdown]
# There is less colour than in noise, because colour tells nothing here. A second of training on
# patterns shows nothing of the paper's finding: from eight first weights the top tower had more
# colour four times, the bottom tower four times. The paper's net differs in all that might
# matter. It learned from photographs, for days, and its towers met less often.
#
# **2. Which pictures are alike?** For the paper two pictures are alike if their codes are near
# each other, by the sum of the squared differences.
#
# <details><summary>Before you run: how often does the nearest of the other pictures belong to
# the same class, by code, and by pixels? Chance is one in eight.</summary>By code in about four
# of five cases, by pixels in one of four. By pixels two pictures are near if they have the same
# colours in the same places. Stripes that moved by half their period are farther from themselves
# than from plain grey.</details>

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
# In each row the first picture asks, the next three are nearest by code, the last three by
# pixels. By code it is the same pattern in other colours and sizes. (Dots are the class that the
# net confuses most, and their row shows it.) By pixels it is similar colours, any pattern. The
# paper looks for a test picture's neighbours among the training pictures. Here all are new to
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
# In the order of the classes: level, upright and slanted stripes, and corners of checks. Of
# dots nothing is to be seen, and this net knows them worst. Then arcs for rings, lines that
# meet for rays, and for blobs something without edges. Nobody drew these. They are what the
# weights ask for.
#
# **4. Which pixels matter?** The same slope at a real picture is its **data gradient**: how much
# the logit of its class changes with each pixel. (The gradient of the loss would be nearly zero
# where the net is sure, because p - 1 is nearly zero there.)

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
# the whole. The dark and bright pixels in rows and columns are no property of the pictures. The
# first layer has kernels of 7 pixels and a stride of 2, so a pixel in an odd row and column lies
# under 16 places of a kernel, one in an even row and column under 9. In AlexNet, with 11 and 4,
# the data gradient has such a grid of four pixels.
#
# None of the four looks is a proof of what the net does. A picture of a net should
# come with a number, as here the share of its wrong answers. Open `figures.py` now, and read
# `kernel_sheet`. Then look at the kernels of your own run: `python alexnet.py train` saves them.
#
# Then the exercises: `python examples/lessons/check.py 16.1 --show`, `16.2`, `16.3`.
