# %% [markdown]
# # 3. Why newest first?
#
# *You send a gradient through a graph in which numbers are used twice, and every number passes
# its gradient on once, when it is complete.*
#
# *Question: In which order must backward visit a graph? · Opens: `tinynet/engine.py`
# (`Tensor.backward`, `graph`) · Paper: 3.2 · 10 minutes*
#
# Lesson 2 had a rule: a number that is used twice gets the sum of two gradients. This rule
# leaves a question open. When may that number pass its own gradient on to its inputs? To answer
# this question, we need only a small part of an engine. A **node** is a number with its inputs
# and the slope along each input. A clock says how old each node is.

# %%
import itertools
from collections import Counter

from tinynet import Tensor, engine
from tinynet.tools import svg

clock = itertools.count()

class Node:
    def __init__(self, name, value, inputs=(), slopes=()):
        self.name, self.value, self.order = name, value, next(clock)
        self.edges = list(zip(inputs, slopes, strict=True))

def add(name, x, y): return Node(name, x.value + y.value, (x, y), (1, 1))
def multiply(name, x, y):
    return Node(name, x.value * y.value, (x, y), (y.value, x.value))

# %% [markdown]
# The example of this lesson uses b three times: twice in c, once in d. Each box is a node, and
# the number at the beginning says when that node was made.

# %%
a = Node("a", 3)
b = add("b", a, a)
c = add("c", b, b)
d = multiply("d", c, b)
boxes = {a: (0, 0, "a"), b: (1, 0, "b = a + a"),
         c: (2, 1, "c = b + b"), d: (3, 0, "d = c * b")}
arrows = [("a", "b"), ("b", "c"), ("b", "d"), ("c", "d")]
svg.graph({x.name: (column, row, f"{x.order}: {words}\n{x.value}")
           for x, (column, row, words) in boxes.items()}, arrows,
          "arrows lead from a to b, from b to c and to d, and from c to d")

# %% [markdown]
# Since $d = 4a \cdot 2a = 8a^2$, the slope of d along a is $16a$. At $a = 3$ it is 48. Every
# method below should give 48.
#
# **First try: recursion.** A node hands each input its share. At once the input does the same
# for its own inputs.
#
# <details><summary>Before you run: will it give 48, or more, or less?</summary>More. Whenever a
# share arrives at b, b passes on all that it has by then. So the first share goes on to a with
# each of the later ones again.</details>

# %%
def at_once(node, grads):
    for x, slope in node.edges:
        grads[x] += slope * grads[node]
        print(x.name, grads[x], end="  ")
        at_once(x, grads)

grads = Counter({d: 1})
at_once(d, grads)
print("\ngradient of a:", grads[a])

# %% [markdown]
# What if a node passes its gradient on only the first time? Then the later shares never arrive,
# and the result is too small. b must pass on all shares, each of them once.
#
# **Second try: recursion with the share alone.** A node passes on only the share that has just
# arrived, not everything that it has. This method is right, and the engine of lesson 2 uses it.
# It walks along every path from d to a. The chain rule says the same: the slope is the sum,
# over all paths, of the product along each path. But look how often this method visits nodes.

# %%
def by_share(node, dy, grads):
    """How many nodes it visited."""
    grads[node] += dy
    return 1 + sum(by_share(x, slope * dy, grads) for x, slope in node.edges)

grads = Counter()
print(by_share(d, 1, grads), "visits, gradient of a:", grads[a])
x = Node("x", 1)
for times in range(1, 15):
    x = add("x", x, x)
    if times in (2, 6, 14):
        visits = by_share(x, 1, Counter())
        print(f"doubled {times:2} times: {visits:6,} visits")

# %% [markdown]
# Each doubling doubles the paths. 14 additions make 32,767 visits, and 40 would make 2 · 10¹².
# Besides, Python limits a recursion to a depth of about a thousand calls.
#
# **Third try: wait.** A node passes its gradient on when all shares have arrived. How does it
# know? A node can only be computed from nodes that already exist. So every node is older than
# the nodes that use it. Keep all gradients that wait, and always take the gradient of the
# newest node. All younger nodes have had their turn by then, so no node is left that could
# bring another share.

# %%
def backward(output):
    pending, grads = Counter({output: 1}), {}
    while pending:
        node = max(pending, key=lambda node: node.order)
        dy = grads[node] = pending.pop(node)
        print(f"{node.name} is complete: {dy}")
        for x, slope in node.edges:
            pending[x] += slope * dy
    return grads

assert backward(d)[a] == 48

# %% [markdown]
# There are four nodes and four visits. b waits until c has had its turn, although d sent 12 to
# b at the very beginning:

# %%
svg.graph({"d": (3, 0, "d: 1\nsends 6 and 12"),
           "c": (2, 1, "c: 6\nsends 6 and 6"),
           "b": (1, 0, "b: 12 + 6 + 6\nsends 24 and 24"),
           "a": (0, 0, "a: 24 + 24\n= 48")},
          [(x, y, "", svg.GRADIENT) for y, x in arrows],
          "arrows back: d sends to c and b, then c to b, and then b to a")

# %% [markdown]
# An order in which each node comes before its inputs is a **topological order**, and any such
# order will do. There are other ways to find one. Some engines sort the graph depth first: a
# node is put on a list after all of its inputs, and the list is read from its end. That takes a
# recursion or an explicit stack, and a set of the nodes already seen. The authors' program of
# 2012 counts: a layer waits until every layer that uses it has sent a gradient. The order of
# creation is a topological order that costs nothing. tinynet keeps it in `order`, and `graph`
# lists the nodes, oldest first. A leaf (a tensor that no op computed) is one of them.

# %%
def forward(leaf):
    b = leaf + leaf
    c = b + b
    return c * b

leaf = Tensor(3.0, requires_grad=True)     # wants its gradient
loss = forward(leaf)
print([node.op or "leaf" for node in engine.graph(loss)])
loss.backward()
assert leaf.grad == 48

# %% [markdown]
# Where does AlexNet use a number twice? AlexNet is cut into two halves, the **towers**, and
# each tower has a device of its own (lesson 11). Layer 3 of each tower reads the outputs of
# layer 2 of both towers (section 3.2). So each output of layer 2 is read by two towers, and it
# gets a gradient from both. The same holds before layers 6 and 7.
#
# **The trap.** Engines differ when you call `backward` a second time on the same graph. Some
# engines keep a gradient in every node, and add to it. Then the second call passes on what the
# first call left in b and c.

# %%
kept = Counter()
for call in 1, 2:
    kept[d] = 1
    for node in (d, c, b, a):          # newest first
        for x, slope in node.edges:
            kept[x] += slope * kept[node]
    print(f"after backward {call}: c has {kept[c]}, b {kept[b]}, a {kept[a]}")

# %% [markdown]
# The 168 is not the gradient of anything. The order is right, but old shares are passed on
# again. Twice 48 is 96, and 96 would be right. You get 96 when only leaves keep a gradient and
# add to it. In tinynet only leaves do so. tinynet also refuses a graph that was used before,
# because `backward` frees what the ops had kept. (PyTorch refuses as well, unless it is told to
# keep the graph.) Run the forward pass again instead.

# %%
try:
    loss.backward()
except RuntimeError as problem:
    print(str(problem).replace("; ", ";\n"))
forward(leaf).backward()
print("a second forward and backward: gradient", leaf.grad)

# %% [markdown]
# So a gradient that is not reset grows from step to step. It has to be reset before each step
# of gradient descent. In tinynet `zero_grad` resets it. Two losses that share a part of a graph
# cannot be sent back one after the other. Send their sum: `(first + second).backward()`.
#
# Open `engine.py` now, and read `Tensor.backward` and `graph`. The loop is the one above. (A
# heap would find the newest node faster than `max`, but few gradients wait at a time.) One line
# there looks like the trap of lesson 2 in reverse: it adds with `a + b`, never with `+=`. The
# two inputs of an op such as `add` may receive the same array as their gradient. Writing into
# this array for one input would change the gradient of the other.
#
# Then the exercises: `python examples/lessons/check.py 3.1 --show`, `3.2`, `3.3`.
