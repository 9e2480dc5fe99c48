"""In which order does backward visit a graph?"""
import numpy as np

from exercise import Exercise, Question

# A graph: of every node, oldest first, the older nodes that it was computed from, and the slope
# along each of them. In the second a long path and a short one meet, an op reads a node twice,
# and one node is used by nobody.
GRAPHS = [
    ([(), (0, 0), (1, 1), (2, 1)],
     [(), (1, 1), (1, 1), (6, 12)]),
    ([(), (), (0, 1), (2,), (0, 3), (4, 4), (1,), (2, 5, 3), (0, 7)],
     [(), (), (2, -3), (5,), (7, 0.5), (3, 4), (9,), (11, -2, 1.5), (13, 0.25)])]


def edges(inputs, slopes, node):
    return list(zip(inputs[node], slopes[node], strict=True))


def in_order(order, inputs, slopes, keep=1.0, edges=edges, share=lambda dy, slope: dy * slope):
    """Each node of `order` sends to its inputs what it has by then. An input keeps `keep` of what
    it had before."""
    grads = np.zeros(len(inputs))
    grads[-1] = 1
    for node in order:
        for x, slope in edges(inputs, slopes, node):
            grads[x] = keep * grads[x] + share(grads[node], slope)
    return grads


def newest_first(inputs, slopes, **how):
    return in_order(reversed(range(len(inputs))), inputs, slopes, **how)


def found(inputs, take):
    """Every node once, in the order in which a search finds it. take: the place in the list of
    waiting nodes of the one that comes next."""
    waiting, order = [len(inputs) - 1], []
    while waiting:
        node = waiting.pop(take)
        if node not in order:
            order.append(node)
            later = [x for x in inputs[node] if x not in order]
            waiting += later if take == 0 else later[::-1]
    return order


def at_once(inputs, slopes):
    grads = np.zeros(len(inputs))
    grads[-1] = 1

    def visit(node):
        for x, slope in edges(inputs, slopes, node):
            grads[x] += grads[node] * slope
            visit(x)
    visit(len(inputs) - 1)
    return grads


GRADIENTS = Exercise(
    "3.1", "gradients",
    "A graph has nodes 0, 1, 2, ... in the order of their making. inputs[i] are the numbers of "
    "the nodes that node i was computed from, slopes[i] the slope of node i along each of them. "
    "The last node is the loss. Return the gradients of all nodes as an array: the slope of the "
    "loss along each. That of the loss is 1, that of a node which it does not depend on is 0.",
    lambda inputs, slopes: newest_first(inputs, slopes), GRAPHS,
    {"a node passes on all it has, each time that a share arrives: shares that came early are "
     "passed on again and again": at_once,
     "depth first: a node has its only turn as soon as it is found, and what reaches it by a "
     "longer path goes no further": lambda *a: in_order(found(a[0], -1), *a),
     "breadth first: nodes near the loss have their turn first, also those that are still to get "
     "a share by a longer path": lambda *a: in_order(found(a[0], 0), *a),
     "oldest first: the inputs have had their turn before the gradient comes to them":
     lambda *a: in_order(range(len(a[0])), *a),
     "the last share wins. A node that is used several times gets the sum":
     lambda *a: newest_first(*a, keep=0.0),
     "an op that reads a node twice, such as a + a, has sent it one share. It sends two":
     lambda *a: newest_first(*a, edges=lambda *b: dict(edges(*b)).items()),
     "the slopes are summed, but not multiplied by the gradient of the node that sends them":
     lambda *a: newest_first(*a, share=lambda dy, slope: slope),
     "slope and gradient are added. The chain rule multiplies them":
     lambda *a: newest_first(*a, share=lambda dy, slope: dy + slope)},
    hint="A node's number is its age. Which node can nobody send anything to any more?")

TWICE = Question(
    "3.2",
    "An engine keeps a gradient in every node, adds to it, and never resets it. Only that of the "
    "loss is set to 1 at the start. With b = a + a and c = b + b, c is the loss. What is the "
    "gradient of a after c.backward() was called twice? (Newest first, each node once.)",
    12,
    {"that is the right gradient, as after the first call. The second one adds to it": 4,
     "that is twice the right gradient. It would be so if only a, the leaf, kept its gradient. "
     "But b kept the share of the first call as well, and passes it on again": 8,
     "that is what comes when the loss adds up too. Here it is set to 1, so its share is no "
     "larger the second time": 16},
    hint="Write down c, b and a after the first call, and go on from there.")

ORDERS = Question(
    "3.3",
    "q and r are both computed from p, and then s = q * r. Newest first is s, r, q, p. Which of "
    "these is right as well? a: s q p r; b: s q r p; c: s p q r; d: p q r s",
    "b",
    {"depth first. p has its turn while r has still to send its share": "a",
     "p has its turn before both nodes that use it": "c",
     "that is the order of the forward pass. Nothing has come to p when it has its turn": "d"},
    hint="A node may have its turn when all nodes that use it have had theirs.")

EXERCISES = [GRADIENTS, TWICE, ORDERS]
