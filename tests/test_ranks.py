"""Several ranks train the net that one trains, to the bit."""
import numpy as np
import pytest

from alexnet import build
from helpers import IMAGES, LABELS, SMALL
from tinynet import SGD, Device, Tensor, cores, ops
from tinynet.ranks import ALONE
from together import together

SIZES = 2, 4, 8


def trained(ranks, recipe=SMALL, counts=(9, 5, 9), classes=5, missing=()):
    """Three steps on so many pictures, of which some are missing: the loss of each step, and
    the weights and velocities with all their columns (of rank 0)."""
    model = build(classes, [Device("cpu")] * 2, recipe, ranks).initialize(1)
    optimizer, losses = SGD(model, 0.05), []
    for step, count in enumerate(counts):
        whole = np.array([i not in missing for i in range(count)])
        lanes = [int(whole[i:j].sum()) for i, j in zip(
            cores.edges(count)[:-1], cores.edges(count)[1:], strict=True)]
        own = ranks.own(count)
        with ranks.batch(lanes):
            model.train(step)
            logits = model(Tensor(IMAGES[:count][own][whole[own]]))
            loss = ops.softmax_cross_entropy(logits, labels=LABELS[:count][whole] % classes)
            optimizer.zero_grad()
            loss.backward()
            ranks.sum_gradients(model)
            optimizer.step()
        losses.append(loss.item())
    return losses, {name + kind: ranks.whole(w, array) for name, w in model.parameters()
                    for kind, array in (("", w.data), (" v", optimizer.velocity[name]))}


def same(one, other):
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("how", [
    dict(), dict(counts=(1, 2, 9)), dict(counts=(9, 9), missing=(0, 4)), dict(classes=2),
    dict(counts=(9, 3), missing=(1, 2)),
    dict(recipe=SMALL.changed(dict(towers=1))), dict(recipe=SMALL.changed(dict(conv6=True))),
    dict(recipe=SMALL.changed(dict(neurons=(7, 5)))),
    dict(recipe=SMALL.changed(dict(dropout_kind="inverted", conv="im2col")))],
    ids=lambda how: ", ".join(map(str, how)) or "as it is")
def test_the_same_bits(how):
    losses, weights = trained(ALONE, **how)
    assert len(set(losses)) == len(losses)
    for size in SIZES:
        seen, *others = together(size, lambda ranks: trained(ranks, **how))
        assert seen[0] == losses and same(seen[1], weights), size
        assert all(other[0] == losses for other in others)
