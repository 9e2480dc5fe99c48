"""How many bytes does a training step need, and which batch fits?

Nothing is typed in: what is kept for backward is what the gradient functions in the graph
behind one image refer to, and grows with the batch.
"""
from dataclasses import astuple, dataclass

import numpy as np

from ..cores import LANES, scratch
from ..engine import Node, Parameter, graph


@dataclass
class Need:
    """Bytes on one device: what does not depend on the batch, and what each image adds."""
    weights: int = 0
    velocities: int = 0
    gradients: int = 0
    work: int = 0                      # of single ops, and partial sums of weight gradients
    kept: int = 0                      # of an image: activations, for backward
    passing: int = 0                   # of an image: gradients on their way

    def parts(self, batch):
        return dict(weights=self.weights, velocities=self.velocities,
                    gradients=self.gradients, activations=batch * self.kept,
                    scratch=self.work + batch * self.passing)

    def total(self, batch):
        return sum(self.parts(batch).values())

    def largest_batch(self, room):
        """How many images fit into `room` bytes: 0 if none."""
        return max(0, (room - self.total(0)) // (self.kept + self.passing))


def without_weights(model):
    """Name the parameters and make them zeros, for a pass that is only about shapes: the zeros
    take no time to draw, and hardly any memory as long as nobody writes to them."""
    for name, w in model.parameters():
        with w.device:
            w.name, w.data = name, w.device.xp.zeros(w.shape, np.float32)
    return model


def needs(loss_of):
    """{device: Need} of a training step. loss_of(count): the loss of a batch of images.

    It is asked for one image and for two: what grows in between is an image's.
    """
    one, two = _needs(loss_of(1)), _needs(loss_of(2))
    for device, need in one.items():
        of_image = two[device].kept - need.kept
        need.work += need.kept - of_image
        need.kept = of_image
    return one


def by_place(need):
    """The same summed over devices that share their memory: {"cpu": Need} of cpu0, cpu1."""
    places = {}
    for device, one in need.items():
        sum_ = places.get(device.place, Need())
        places[device.place] = Need(*map(sum, zip(astuple(sum_), astuple(one))))
    return places


def table(need, batch):
    """Lines of text: a row for each device, in MB."""
    names = [*Need().parts(0), "total"]
    yield f"{'MB at batch ' + str(batch):18}" + "".join(f"{name:>13}" for name in names)
    for device, one in need.items():
        numbers = [*one.parts(batch).values(), one.total(batch)]
        yield f"  {device!s:16}" + "".join(f"{number / 1e6:>13,.1f}" for number in numbers)


def advice(need, batch, room):
    """What to tell a user whose memory did not suffice: the table, and what fits.

    room: {place: bytes that this process could have there}, None where nobody knows.
    """
    fits = [one.largest_batch(room[place]) for place, one in by_place(need).items()
            if room[place] is not None]
    lines = ["out of memory; this is what a training step needs", *table(need, batch)]
    lines += [f"  {place} has {size / 1e6:,.1f} for us" for place, size in room.items() if size]
    if fits and min(fits):
        lines.append(f"the largest batch that fits: --batch-size {min(fits)}")
    else:
        lines.append("try a smaller --batch-size" if not fits else
                     "no batch fits: take another --device, or smaller --kernels and --neurons")
    return "\n".join(lines)


def _needs(loss):
    nodes = graph(loss)
    weights = [node for node in nodes if isinstance(node, Parameter)]
    need, largest = {}, {}
    for w in weights:
        size = w.data.nbytes
        on = need.setdefault(w.device, Need(work=scratch(w.device)))
        on.weights, on.velocities, on.gradients = (
            number + size for number in (on.weights, on.velocities, on.gradients))
        if len(w.shape) == 4:          # a convolution's: summed over slices, lane by lane
            largest[w.device] = max(size, largest.get(w.device, 0))
    for device, size in largest.items():
        need[device].work += LANES * size
    known = {id(_owner(w.data)) for w in weights}
    for node in nodes:
        if not node.inputs:
            continue
        on = need[node.device]
        inputs = [x for x in node.inputs if isinstance(x, Node)]
        on.passing = max(on.passing, node.nbytes + sum(x.nbytes for x in inputs))
        for owner in map(_owner, _kept_by(node.grad_fns)):
            if id(owner) not in known:
                known.add(id(owner))
                on.kept += owner.nbytes
    return need


def _owner(array):
    """The array whose memory a view shows."""
    while getattr(array, "base", None) is not None and hasattr(array.base, "nbytes"):
        array = array.base
    return array


def _kept_by(values):
    """Every array that functions refer to, also through functions and tuples in between."""
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
