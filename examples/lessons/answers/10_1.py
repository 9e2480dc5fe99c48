"""Why the wrong ones tempt: a loop with nearly any of these mistakes still runs, and with some of
them the loss still falls. What tells is the loss of each step, compared with that of a right one.
SGD is right as well, but with momentum=0 and weight_decay=0: its defaults are the paper's."""
from tinynet import Tensor, ops


def train(make_net, x, labels, rate, steps):
    net = make_net()
    weights = [w for name, w in net.parameters()]      # W and b of each layer
    losses = []
    for _ in range(steps):
        loss = ops.softmax_cross_entropy(net(Tensor(x)), labels=labels)
        for w in weights:
            w.grad = None                              # backward adds to what it finds
        loss.backward()
        for w in weights:
            w.data -= rate * w.grad
        losses.append(loss.item())                     # computed before the step
    return losses
