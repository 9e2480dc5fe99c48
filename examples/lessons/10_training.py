# %% [markdown]
# # 10. A net that learns
#
# *You write a net and its training loop in thirty lines, and it learns to tell four drawn
# patterns apart.*
#
# *Question: What turns ops and gradients into something that learns? · Opens:
# `tinynet/layers.py` (`Layer`, `Weighted`,
# `Sequential`), `alexnet.py` (`train`) · Paper: 5 · 12 minutes*
#
# All the parts are there: ops that know their gradients, convolutions, pools, and a loss. Three
# things are missing. Something must hold the weights. Something must give the weights their
# first values. And a loop must go through the pictures.
#
# The pictures are drawn: four patterns of 32 x 32 pixels, 100 pictures of each to learn from,
# and 50 others of each to test with.

# %%
import numpy as np

from tinynet import Parameter, Tensor, conv, gradcheck, no_grad, op, ops, pool
from tinynet.pictures import patterns
from tinynet.tools import svg

names = "horizontal", "vertical", "diagonal", "dots"

def pictures(split, count):
    return np.stack([patterns.picture(name, i, split, size=32)
                     for name in names for i in range(count)])

seen, labels = pictures("train", 100), np.repeat(range(4), 100)
unseen, answers = pictures("val", 50), np.repeat(range(4), 50)
svg.pixels(svg.tiles(seen[np.arange(400) % 100 < 4], 4), scale=3,
           alt="four of each: horizontal, vertical, diagonal stripes; dots")

# %% [markdown]
# A row is a class. Colours, widths and brightness are random, so only the shapes tell the
# classes apart.
#
# From the pixels we subtract their mean, as the paper does. (Section 2 of the paper takes a
# mean for every pixel of the picture. We take one mean for every colour.) We also divide by 50,
# which makes the numbers about as large as 1. The test pictures are prepared with the *same*
# mean. This mean was measured on the training pictures alone, because nothing may be known
# about the test pictures.

# %%
mean = seen.mean(axis=(0, 1, 2))
x, new = (np.float32((part - mean) / 50) for part in (seen, unseen))

# %% [markdown]
# ## Who holds the weights
#
# A `Parameter` is a tensor that asks for its gradient. The net below holds six of them as plain
# attributes, and uses them when it is called. The **first weights** are small random numbers,
# and the first biases are zero.

# %%
class Net:
    def __init__(self, scale=1, op=conv.conv2d):
        self.op, normal = op, np.random.default_rng(0).standard_normal
        def gaussian(std, *shape):
            return Parameter(np.float32(scale * std * normal(shape)))
        self.W1, self.b1 = gaussian(0.01, 7, 7, 3, 12), gaussian(0, 12)
        self.W2, self.b2 = gaussian(0.1, 3, 3, 12, 16), gaussian(0, 16)
        self.W3, self.b3 = gaussian(0.01, 64, 4), gaussian(0, 4)

    def __call__(self, x):
        x = ops.relu(conv.conv2d(x, self.W1, self.b1, stride=2))
        x = ops.relu(self.op(pool.max_pool(x), self.W2, self.b2, pad=1))
        return ops.dense(ops.flatten(pool.max_pool(x)), self.W3, self.b3)

def weights(net):
    return [w for w in vars(net).values() if isinstance(w, Parameter)]

# %% [markdown]
# The maps of the first convolution are 13 x 13, after the pool 6 x 6, after the second
# pool 2 x 2. So 2 · 2 · 16 = 64 numbers reach the dense layer, which makes a logit for
# every class. No ReLU follows the dense layer, because a logit may be negative.
#
# Why random numbers, and not zeros? `scale=0` makes all of them zero.
#
# <details><summary>Before you run: how many of the 3,780 numbers in this net get a gradient
# other than zero, if all are zero?</summary>Four: the biases of the last layer. (The cell
# takes every seventh picture. Among these the classes are not quite equally frequent. If they
# were, these four would be zero but for rounding.) All maps are zero, so the gradient of W3, a
# product with them, is zero. And what goes further back is a product with W3, which is zero
# too.</details>

# %%
net = Net(scale=0)
loss = ops.softmax_cross_entropy(net(Tensor(x[::7])), labels=labels[::7])
loss.backward()
print(sum(np.count_nonzero(w.grad) for w in weights(net)), "numbers have one")

# %% [markdown]
# Equal numbers other than zero are hardly better. Two kernels that start equal, and that the
# next layer uses alike, get equal gradients. They stay equal for ever. Random numbers make them
# different.
#
# How large should the first weights be? The paper has a standard deviation of 0.01 in every
# layer. In the authors' program it was three times as large in conv3, conv4 and conv5. Today
# the standard deviation depends on the number of inputs: it is $\sqrt{2 / \mathrm{inputs}}$ (He
# and others, 2015). The layers of tinynet use this rule by default. Our first layer has the
# paper's 0.01, so that we can see what its kernels learn. Our last layer has it too, so that
# the first loss is the loss of guessing, ln 4. The 0.1 of the layer between them is not far
# from today's rule.
#
# ## The loop
#
# An **epoch** is one pass through all the pictures. In every epoch the pictures come in a new
# random order, cut into batches of 40. For every batch five things happen, always in this
# order: go forward to the loss, clear the old gradients, go backward, take a step, and note the
# loss. The step is gradient descent, $w \leftarrow w - \mathrm{rate} \cdot dw$.

# %%
def train(net, weights, x, labels, epochs, batch=40, rate=0.06):
    losses, draw = [], np.random.default_rng(1)
    for _ in range(epochs):
        for rows in draw.permutation(len(x)).reshape(-1, batch):
            logits = net(Tensor(x[rows]))
            loss = ops.softmax_cross_entropy(logits, labels=labels[rows])
            for w in weights:
                w.grad = None               # else backward would add
            loss.backward()
            for w in weights:
                w.data -= rate * w.grad
            losses.append(loss.item())
    return losses

# %% [markdown]
# `rows` picks pictures *and* labels. If only one of the two is shuffled, there is nothing to be
# learned. The pictures must be shuffled, because ours are stored class by class. A batch of one
# class teaches the net to answer always with that class. (tinynet shuffles before every epoch.
# The authors' program shuffled once, when the files were written, and read them in the same
# order in every epoch.)

# %%
def error(net, x, labels):
    with no_grad():                         # records no graph
        return np.mean(net(Tensor(x)).numpy().argmax(axis=1) != labels)

net, few = Net(), Net()                     # few: for later
losses = train(net, weights(net), x, labels, epochs=12)
print(f"the first loss {losses[0]:.3f}, after 12 epochs {losses[-1]:.3f}")
svg.curves({"loss": list(enumerate(losses))}, x="step",
           alt="from ln 4 to nearly zero in 120 steps, with ups and downs")

# %% [markdown]
# The curve begins flat: the small first weights let little of the picture through, and little
# of the gradient back. Then the curve falls, but it stays rough, because every point comes from
# a different batch. At the high peaks a step was too long. Such a step spoils the loss of all
# pictures, and several steps are needed to repair it. Here are the kernels of the first layer
# before and after training, each stretched to the full range:

# %%
def sheet(W):
    return svg.tiles([svg.stretched(W[..., k]) for k in range(12)], 6)

svg.side_by_side(
    svg.pixels(sheet(Net().W1), "twelve kernels of noise", 7, (), "before"),
    svg.pixels(sheet(net.W1), "edges and bars, not noise", 7, (), "after"))

# %% [markdown]
# Nobody wrote these edges and bars, horizontal and vertical. The loss made them. Most are
# nearly grey, since colours do not tell these classes apart.
#
# ## Learned, or learned by heart?
#
# A small loss says that the net knows *these* pictures. Let another net see only every
# twentieth of them, five of each class, and take as many steps.

# %%
train(few, weights(few), x[::20], labels[::20], epochs=120, batch=20)
for n, its in (20, few), (1, net):
    print(f"{400 // n} pictures: {error(its, x[::n], labels[::n]):.1%}",
          f"wrong, and of the new ones {error(its, new, answers):.1%}")

# %% [markdown]
# The net that saw 400 pictures is wrong on a few new ones in a hundred; guessing is wrong three
# times in four. The net that saw 20 shows **overfitting**: no error on the pictures it learned
# from, many on new ones. With 3,780 numbers to adjust, the net can tell 20 pictures apart by
# anything, for example by their colours. More pictures leave fewer ways to do so. AlexNet has
# 60 million numbers for 1.2 million pictures, which is why section 4 of the paper is about
# overfitting.
#
# So test with pictures that were kept apart. Conversely, if a net *cannot* learn a few pictures
# by heart, its loop has a fault. That is a test worth making first (the first exercise).
#
# ## The same with tinynet
#
# Six names for six weights were enough here. In a larger net each **layer** becomes an object
# of its own, an op with its weights. The net is then a list of layers. `parameters()` finds the
# weights by walking through the attributes, as our `weights` does, and gives them names like
# "0.W". Given our first weights, such a net takes the same steps to the last bit.

# %%
from tinynet import Conv2D, Dense, Flatten, MaxPool, ReLU, Sequential

theirs = Sequential(Conv2D(3, 12, 7, stride=2), ReLU(), MaxPool(3, 2),
                    Conv2D(12, 16, 3, pad=1), ReLU(), MaxPool(3, 2),
                    Flatten(), Dense(64, 4))
its = [w for name, w in theirs.parameters()]
for w, mine in zip(its, weights(Net()), strict=True):
    w.data = mine.data
assert train(theirs, its, x, labels, epochs=2) == losses[:20]
print(theirs.summary(x[:1]))

# %% [markdown]
# **The trap.** A net can learn although its gradients are wrong. Here is a convolution that
# sends the gradient back through kernels that are not mirrored (lesson 6). As the second
# convolution of the net, it gives the first convolution a wrong gradient in every step.

# %%
@op
def unmirrored(x, W, b, *, pad=0):
    y, _, dW, db = conv.plain(x, W, b, 1, (pad, pad))
    dx = conv.plain(x, W[::-1, ::-1], b, 1, (pad, pad))[1]
    return y, dx, dW, db

net = Net(op=unmirrored)
train(net, weights(net), x, labels, epochs=12)
print(f"{error(net, new, answers):.1%} of the new pictures wrong; gradcheck:",
      f"{gradcheck(unmirrored, x[:2, :9, :8], net.W2[:, :, :3], net.b2):.1g}")

# %% [markdown]
# The net learns about as well. The other layers get right gradients, and a wrong direction that
# leads more downhill than uphill still leads down. No curve shows such a fault. It stays in
# every net that you train. `gradcheck` tells at once (lesson 1: above 1e-6 is wrong). Check
# gradients by numbers, not by learning.
#
# Open `layers.py` now, and read `Layer`, `Weighted` and `Sequential`. (A `Parameter` there
# receives a function that draws its first numbers from a seed and from its name, such as
# "0.W". This function is called when somebody first reads the numbers. `initialize` forgets
# them, so that they are drawn anew.) Then read `train` in `alexnet.py`: its inner loop does
# the same five things, the first three of them in `learn`, just above. (`Replayed` only calls
# `learn`, except on a GPU: lesson 11.) `model.train` there switches dropout on, and `SGD` takes
# the step, with two more terms in it. (`set_rates` sets the rate: lesson 13.
# `ranks.sum_gradients` does nothing in one process, and `run.saw` notes the loss.)
#
# Then the exercises: `python examples/lessons/check.py 10.1 --show`, `10.2`, `10.3`.
