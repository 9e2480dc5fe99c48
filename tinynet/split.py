"""Where do activations change device? Here, and nowhere else.

The paper's two GPUs talk to each other "only in certain layers" (section 3.2). A crossing of
lines in its Figure 2 is an `exchange` in the code; where both rows, the towers, end in one
layer (fc8) it is a `gather`. With both towers on one device the same calls copy nothing.

Several processes (ranks.py) meet at the same places. Each has seen its own pictures when the
dense layers begin, and each has its own neurons of these: first all get to know all pictures,
then all neurons, then all classes. A process that is alone copies nothing.
"""
from . import ops
from .cores import edges
from .device import as_device
from .engine import Parameter, op, record
from .layers import LRN, Dense
from .ops import concat


def copy_to(x, device):
    """Move a tensor to a device (a Device or its name), and its gradient back.

    It is the one op whose output lives elsewhere than its input. To the same device it is the
    tensor itself.
    """
    return depart(x, device)()


def depart(x, device):
    """Begin copy_to, and return the function that ends it: arrive() -> the tensor over there.

    Copies that all depart before one arrives go side by side. Backward it is the other way round:
    the gradient departs where x arrived, and is waited for where x departed.
    """
    home, device = x.device, as_device(device)
    if device == home:
        return lambda: x
    on_its_way = record("depart", device.begin_put(x.data, home), home, (x,),
                        (lambda dx: home.end_put(dx, device),))
    return lambda: record("copy_to", device.end_put(on_its_way.data, home), device, (on_its_way,),
                          (lambda dy: home.begin_put(dy, device),))


def send_to_both(image, top, bottom, twin=None):
    """The images, on both devices: each GPU of the paper sees all of them. twin: the same images,
    made on the second device."""
    return copy_to(image, top), copy_to(image if twin is None else twin, bottom)


def exchange(top, bottom, every=None, ranks=None, *count):
    """Both halves for each tower, top's channels first. (N, ..., C) twice -> (N, ..., 2C) twice

    every: every_row or every_neuron, if several ranks meet here as well.
    """
    if ranks and ranks.size > 1:
        return (every(gather(top, bottom), ranks, *count),) * 2
    return swap(top, bottom, top, bottom)


def swap(top, bottom, to_bottom, to_top):
    """Each tower's maps, and beside them what comes from the other: in both directions at once."""
    from_bottom, from_top = depart(to_top, top.device), depart(to_bottom, bottom.device)
    return concat(top, from_bottom()), concat(from_top(), bottom)


class AcrossLRN(LRN):
    """An LRN whose window reaches from one tower's maps into the other's, where `side_by_side`
    computes it. Alone it is an LRN."""


def side_by_side(one, other, top, bottom):
    """A layer of each tower, on its half: (N, ..., C) twice -> (N, ..., C') twice. Where an LRN's
    window is the whole layer's, the maps next to the seam cross."""
    if not any(isinstance(step, AcrossLRN) for step in one):
        return one(top), other(bottom)
    for step, beside in zip(one, other, strict=True):
        if isinstance(step, AcrossLRN):
            maps, reach = top.shape[-1], min(step.n // 2, top.shape[-1])
            seam = top[..., maps - reach:], bottom[..., :reach]
            top, bottom = swap(top, bottom, *seam)
            top, bottom = step(top)[..., :maps], beside(bottom)[..., reach:]
        else:
            top, bottom = step(top), beside(bottom)
    return top, bottom


def gather(top, bottom):
    """Both halves on the top tower's device. (N, ..., C) twice -> (N, ..., 2C)"""
    return concat(top, copy_to(bottom, top.device))


def every_row(x, ranks):
    """The pictures of all ranks: (own rows, ...) -> (all rows, ...)"""
    return x if ranks.size == 1 else _every_row(x, ranks=ranks, rows=ranks.rows)


@op
def _every_row(x, *, ranks, rows):
    def dx(dy): return ranks.sum_in_order(dy, rows, axis=0)
    return ranks.gather(x, rows, axis=0), dx


def every_neuron(x, ranks, count):
    """The neurons of all ranks, `count` in all: (N, own) -> (N, count)"""
    return x if ranks.size == 1 else _every_neuron(x, ranks=ranks, counts=ranks.shares(count))


@op
def _every_neuron(x, *, ranks, counts):
    def dx(dy): return ranks.sum_in_order(dy, counts, axis=1)
    return ranks.gather(x, counts, axis=1), dx


def every_class(x, ranks, count):
    """The same for logits. All ranks compute the same loss of them, so the gradient that a rank
    needs for its own is there already."""
    return x if ranks.size == 1 else _every_class(x, ranks=ranks, count=count)


@op
def _every_class(x, *, ranks, count):
    def dx(dy): return dy[:, ranks.own(count)]
    return ranks.gather(x, ranks.shares(count), axis=1), dx


class Columns(Parameter):
    """Of a parameter some columns (a slice of its last axis); other ranks have the others. It is
    drawn whole, so that these are the same whoever has them."""

    def __init__(self, whole, part):
        self._whole_shape = whole.shape
        super().__init__(lambda shape, **of: whole.draw(whole.shape, **of)[..., part],
                         whole.device, shape=(*whole.shape[:-1], part.stop - part.start))
        self.part = part

    whole_shape = property(lambda self: self._whole_shape)


class DenseInLanes(Dense):
    """Dense, of which a rank may have some outputs. (N, inputs) -> (N, those that are its own)

    lanes: into how many lanes the outputs are cut. mine: a range, those of this rank; None: all.
    """

    def __init__(self, inputs, outputs, lanes, mine=None, **initial):
        super().__init__(inputs, outputs, **initial)
        own = edges(outputs, lanes)
        if mine is not None:
            own = own[mine.start:mine.stop + 1]
            part = slice(own[0], own[-1])
            self.W, self.b = Columns(self.W, part), Columns(self.b, part)
        self.lanes, self.mine, self.cuts = lanes, mine, [place - own[0] for place in own]

    def forward(self, x):
        return ops.dense(x, self.W, self.b, cuts=self.cuts)


def layer_of(name):
    """The layer of the figure that a parameter belongs to: "top.conv3.0.W" -> "conv3"."""
    return name.removeprefix("top.").removeprefix("bottom.").partition(".")[0]
