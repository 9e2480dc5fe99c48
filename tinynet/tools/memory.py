"""How many bytes does a training step need, and which batch fits?

Nothing of a net is typed in. What is kept for the backward pass is what the gradient functions
refer to, and the graphs behind the losses of one image and of two say how it grows with the
batch.
"""
import math
from contextlib import suppress
from dataclasses import astuple, dataclass

import numpy as np

from ..cores import LANES, scratch_of_all
from ..engine import Node, Parameter, Tensor, graph
from ..ops import softmax_cross_entropy
from ..ranks import Pretended
from . import machine

BATCHES = 4            # of pictures that a run holds: the Loader's three, and the one in use
ROOM = 256 * 256 * 3 + 10 * 28     # bytes of one on a card: as it is stored, and where it is seen
FILLED = 0.95          # of a memory, at most: there are gaps in it, and stacks of threads


@dataclass
class Need:
    """Bytes on one device: what does not depend on the batch, and what each image adds."""
    weights: int = 0
    velocities: int = 0
    gradients: int = 0
    work: int = 0                      # of single ops, and partial sums of weight gradients
    kept: int = 0                      # of an image: activations, for the backward pass
    passing: int = 0                   # of an image: gradients on their way

    def parts(self, batch):
        """{what for: bytes} of a training step."""
        return dict(weights=self.weights, velocities=self.velocities,
                    gradients=self.gradients, activations=batch * self.kept,
                    scratch=self.work + batch * self.passing)

    def total(self, batch):
        """Bytes of a training step."""
        return sum(self.parts(batch).values())

    def largest_batch(self, available):
        """How many images fit into so many bytes: 0 if none."""
        return max(0, int(available - self.total(0)) // max(1, self.kept + self.passing))


def of_model(model):
    """{device: Need} of a training step of a net with `crop` and `devices`, such as AlexNet."""
    model.train()
    side, device, ranks = model.crop, model.devices[0], model.ranks
    if ranks.size == 1:
        return needs(lambda count: loss(model, np.zeros((count, side, side, 3), np.float32),
                                        device.put(np.zeros(count, int))))

    def loss_of(count):                    # so many in every lane
        with model.ranks.batch([count] * LANES):
            images = np.zeros((count * len(ranks.lanes), side, side, 3), np.float32)
            return loss(model, images, device.put(np.zeros(count * LANES, int)))

    model.ranks = Pretended(ranks.size, ranks.rank)            # the others may be elsewhere
    try:
        found = needs(loss_of)
    finally:
        model.ranks = ranks
    alike = sum(w.data.nbytes for _, w in model.parameters() if w.part is None)
    for need in found.values():
        need.kept, need.passing = need.kept // LANES, need.passing // LANES
        need.work += 3 * alike             # the gradients of all ranks, and their sum
    return found


def loss(model, images, labels):
    """What a training step is about, for an array of images and of labels."""
    return softmax_cross_entropy(model(Tensor(images, model.devices[0])), labels=labels)


def without_weights(model):
    """Name the parameters and make them zeros, for a pass that is only about shapes: the zeros
    take no time to draw, and hardly any memory as long as nobody writes to them. What there was
    of weights and gradients makes room for them."""
    for name, w in model.initialize().parameters():
        w.grad = None
        with w.device:
            w.name, w.data = name, w.device.xp.zeros(w.shape, np.float32)
    return model


def needs(loss_of):
    """{device: Need} of a training step. loss_of(count): the loss of a batch of so many images.

    It is called for one image and for two. Their difference is what an image adds.
    """
    one, two = _needs(loss_of(1)), _needs(loss_of(2))
    for device, need in one.items():
        of_image = two[device].kept - need.kept
        need.work += need.kept - of_image
        need.kept = of_image
    return one


def by_place(needs):
    """{place: Need}, summed over devices that share a memory: {"cpu": Need} of cpu0 and cpu1."""
    places = {}
    for device, need in needs.items():
        so_far = places.get(machine.place(device), Need())
        places[machine.place(device)] = Need(*[
            a + b for a, b in zip(astuple(so_far), astuple(need), strict=True)])
    return places


def table(needs, batch):
    """A row for each device, in MB, as lines of text."""
    names = [*Need().parts(0), "total"]
    widths = [max(len(name), len("1,000.0")) + 1 for name in names]

    def line(first, cells):
        return f"{first:16}" + "".join(f" {cell:>{width}}" for cell, width
                                       in zip(cells, widths, strict=True))

    yield line(f"MB at batch {batch}", names)
    for device, need in needs.items():
        sizes = [*need.parts(batch).values(), need.total(batch)]
        yield line(f"  {device}", [f"{size / 1e6:,.1f}" for size in sizes])


def advice(model, batch, batches=BATCHES, beside=0):
    """What to tell a user whose memory did not suffice for a batch of a net (see of_model).

    batches: of pictures, as a Loader holds them: as numbers on the host, or as bytes on every
    card, of several ranks each its own; beside: bytes for something else.
    Without room for the weights, or for a pass of two images, no batch fits, and what is told
    follows from the shapes of the weights. The net is of no use afterwards.
    """
    top, needs = model.devices[0], _of_weights(w for _, w in model.parameters())
    available = {machine.place(device): machine.available(device) for device in model.devices}
    with suppress(MemoryError, RuntimeError):          # RuntimeError: no more threads
        if _largest_batch(needs, available) != 0:
            needs = of_model(without_weights(model))
            needs[top].work += beside
            own = len(model.ranks.lanes) / LANES
            for device in {machine.place(d): d for d in reversed(model.devices)}.values():
                if device.is_gpu == top.is_gpu:
                    size = ROOM if top.is_gpu else 12 * model.crop ** 2
                    needs[device].kept += int(own * batches * size)
    return "\n".join(advice_lines(needs, needs[top].kept and batch, available))


def advice_lines(needs, batch, available):
    """What a training step needs, what there is, and the batch that fits, as lines of text.

    batch: the one that did not fit; 0: not one image did. available: {place: bytes that this
    process could have there}, None where nobody knows.
    """
    yield f"out of memory; this is what {'training' if batch else 'a net without images'} needs"
    yield from table(needs, batch)
    for where, size in available.items():
        if size is not None:
            yield f"  available on {where}: {size / 1e6:,.1f} MB"
    fits = batch and _largest_batch(needs, available)
    if fits is None:
        yield "try a smaller --batch-size"
    elif min(fits, batch - 1) > 0:                     # whatever the count says, `batch` did not
        yield f"the largest batch that fits: --batch-size {min(fits, batch - 1)}"
    else:
        yield "no batch is sure to fit: take another --device, or smaller --kernels and --neurons"


def _largest_batch(needs, available):
    """How many images fit everywhere; None if nobody knows."""
    return min((need.largest_batch(FILLED * available[where]) for where, need
                in by_place(needs).items() if available[where] is not None), default=None)


def _of_weights(weights):
    """{device: Need} of the weights alone. Their shapes are known before they are drawn."""
    need = {}
    for w in weights:
        on, size = need.setdefault(w.device, Need()), 4 * math.prod(w.shape)
        on.weights, on.velocities, on.gradients = (
            number + size for number in (on.weights, on.velocities, on.gradients))
    return need


def _needs(loss):
    nodes = graph(loss)
    weights = [node for node in nodes if isinstance(node, Parameter)]
    need, largest = _of_weights(weights), {}
    for w in weights:
        if len(w.shape) == 4:          # a convolution's: summed over slices, lane by lane
            largest[w.device] = max(w.data.nbytes, largest.get(w.device, 0))
    for device in need:
        need[device].work = scratch_of_all(device) + LANES * largest.get(device, 0)
    for node in nodes:
        if node.inputs:
            inputs = [x for x in node.inputs if isinstance(x, Node)]
            on = need[node.device]
            on.passing = max(on.passing, node.nbytes + sum(x.nbytes for x in inputs))
    for node, size in kept(nodes):
        need[node.device].kept += size
    return need


def kept(nodes):
    """What ops keep for the backward pass: yields (node, bytes). nodes: a graph, oldest first.

    What several ops keep counts for the first of them. Weights are there anyway.
    """
    known = {id(_owner(w.data)) for w in nodes if isinstance(w, Parameter)}
    for node in nodes:
        for owner in map(_owner, _kept_by(node.grad_fns if node.inputs else ())):
            if id(owner) not in known:
                known.add(id(owner))
                yield node, owner.nbytes


def _owner(array):
    """The array whose memory a view shows."""
    while getattr(array, "base", None) is not None and hasattr(array.base, "nbytes"):
        array = array.base
    return array


def _kept_by(values):
    """Every array that functions refer to, also by way of other functions and of tuples."""
    todo, seen = list(values), set()
    while todo:
        value = todo.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if hasattr(value, "nbytes") and hasattr(value, "strides"):
            yield value
        elif isinstance(value, (tuple, list)):
            todo += value
        else:
            todo += [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
            todo += getattr(value, "__defaults__", None) or ()
