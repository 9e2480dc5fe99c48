"""How fast would several machines be? Predictions, computed and not measured.

    python examples/ranks.py                       the full net, batches of 128
    python examples/ranks.py --images-per-s 4000 --update 0.002       of a faster machine

Bytes follow from the net (tinynet/tools/anatomy.py; `show --ranks N` says where they are sent, and
a test compares them with those of real ranks). Seconds are a model: nothing is sent while
something is computed, a message takes `latency` and then its bytes at the speed of the network.
Efficiency is how many times as fast as one rank N are, divided by N. Messages lower it. So does an
update that every rank does whole, as in the usual way, "by pictures", in which each has all of the
net.
"""
import math
import sys

import alexnet
import common
from tinynet import Device
from tinynet.ranks import ALONE
from tinynet.tools import memory
from tinynet.training.recipes import RECIPES

RANKS = 2, 4, 8, 16, 64, 256, 1024
# bytes a second in one direction, seconds before the first
NETWORKS = {"10 GbE": (1.25e9, 30e-6), "25 GbE": (3.125e9, 25e-6), "100 GbE": (12.5e9, 5e-6),
            "InfiniBand 400": (50e9, 2e-6), "NVLink 4": (450e9, 3e-6)}
HEADER = f"{'':28}" + "".join(f"{f'N = {n}':>10}" for n in RANKS)


class Net:
    """What the formulas need of the full net: numbers of weights, and of activations a picture
    that are sent to every other rank, forward and backward."""

    def __init__(self):
        model = memory.without_weights(
            alexnet.build(1000, [Device("cpu")] * 2, RECIPES["paper"], ALONE))
        weights = {name: w.size for name, w in model.parameters()}
        self.all = sum(weights.values())
        self.convolutions = sum(size for name, size in weights.items() if ".conv" in name)
        into = {name: w.shape[0] for name, w in model.parameters() if name.endswith("W")}
        fc6, fc7, fc8 = (into[name] for name in ("top.fc6.1.W", "top.fc7.1.W", "fc8.W"))
        self.sent = 2 * (fc6 + fc7 + fc8) + 1000

    def by_pictures(self, ranks, batch):
        """Bytes that a rank sends in a step if all layers are split by pictures."""
        return 4 * 2 * (ranks - 1) / ranks * self.all

    def ours(self, ranks, batch):
        """The same if dense layers are split by neurons. batch: of all ranks."""
        return 4 * (ranks - 1) / ranks * (2 * self.convolutions + batch * self.sent)


def seconds(sent, ranks, network, messages):
    speed, latency = network
    return sent / speed + messages * math.ceil(math.log2(ranks)) * latency


def efficiency(net, way, ranks, batch, network, of):
    """Of `ranks` ranks with a batch of so many pictures in all, in percent."""
    alone = batch / of.images_per_s + of.update
    ours = way == net.ours
    dense = 1 - net.convolutions / net.all             # whose update is shared as well
    update = of.update * (1 - dense + dense / ranks) if ours else of.update
    computing = batch / ranks / of.images_per_s + update
    talking = seconds(way(ranks, batch), ranks, network, 8 if ours else 2)
    return 100 * alone / ranks / (computing + talking)


def lines(net, of):
    ways = {"by pictures": net.by_pictures, "ours": net.ours}
    batches = {f"{of.batch} in all": lambda n: of.batch,
               f"{of.batch} a rank": lambda n: of.batch * n}

    def rows(number, digits):
        for size, batch in batches.items():
            for name, way in ways.items():
                cells = [f"{number(way, n, batch(n)):>10,.{digits}f}" if batch(n) >= n
                         else f"{'-':>10}" for n in RANKS]
                yield f"  {name + ', ' + size:26}" + "".join(cells)

    yield f"{net.all:,} weights, {net.convolutions:,} of them in convolutions"
    even = 2 * (net.all - net.convolutions) / net.sent
    yield f"batches above {even:,.0f} pictures in all are cheaper by pictures, for any N"
    yield ""
    yield "MB that a rank sends in a step"
    yield HEADER
    yield from rows(lambda way, n, batch: way(n, batch) / 1e6, 1)
    for name, network in NETWORKS.items():
        yield ""
        yield (f"{name}: {network[0] / 1e9:g} GB/s, {network[1] * 1e6:g} us; efficiency in %, of "
               f"{of.images_per_s:g} images/s and {of.update:g} s an update alone")
        yield HEADER
        yield from rows(lambda way, n, batch, network=network: efficiency(
            net, way, n, batch, network, of), 0)


def start(args):
    print(*lines(Net(), args), sep="\n")
    return 0


def parser():
    own = common.parser("ranks.py", __doc__)
    own.add_argument("--batch", type=common.positive, default=128, metavar="N",
                     help="pictures in a step (default: %(default)s)")
    own.add_argument("--images-per-s", type=common.above_0, default=70.0, metavar="X",
                     help="of one rank, without its update (default: %(default)s)")
    own.add_argument("--update", type=common.from_0, default=0.1, metavar="S",
                     help="seconds of an update (default: %(default)s)")
    return own


if __name__ == "__main__":
    sys.exit(common.main(start, parser()))
