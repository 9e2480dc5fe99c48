"""What do the examples share? Small pictures in memory, and their options."""
import hashlib
import math
import sys
import time
from pathlib import Path

try:
    import tinynet  # noqa: F401
except ImportError as problem:
    sys.exit(f"{problem}\nstart the environment with  . .venv/bin/activate   (README's first "
             "command makes it)")

import numpy as np

from data.cifar10 import load  # noqa: F401
from tinynet import mpi, rng
from tinynet.device import default_devices
from tinynet.pictures.batches import Batch
from tinynet.progress import shown
from tinynet.training.program import Parser, at_least, exit_status, typed

RUNS = Path(__file__).resolve().parent.parent / "runs"
BATCH = 128                    # training pictures in a step
TOGETHER = 500                 # views of test pictures that a net sees at a time
VIEWS = {1: "the central view", 9: "the mean of nine views", 10: "the mean of ten views"}


# --- pictures ---------------------------------------------------------------------------


class Pictures:
    """Pictures in memory, and how they are cut out and shifted before the net sees them.

    train, test: cifar10.Labelled. The training mean is subtracted, and the rest multiplied
    by `scale`. crop: pixels on a side of what the net sees; augment: for training, random
    crops, mirrored or not, instead of the central one. What is random is a function of
    (seed, epoch, picture). most: a function that says how many of the training pictures, the
    first ones, an epoch has (default: all).

    It offers a training.runs.Run and training.evaluation what a Loader offers them.
    """

    def __init__(self, train, test, crop=32, augment=False, scale=1.0, seed=0, batch_size=None,
                 most=None):
        self.train, self.test, self.seed = train, test, seed
        self.crop, self.augment = crop, augment
        self.batch_size, self.most = batch_size or BATCH, most
        self.scale = np.float32(scale)
        edge = (32 - crop) // 2
        mean = train.images.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.mean = mean[edge:edge + crop, edge:edge + crop]

    def digest(self):
        """What tells these pictures and labels from others, in 16 letters."""
        seen = hashlib.sha256()
        for part in self.train, self.test:
            for array in part.images, part.labels:
                seen.update(np.ascontiguousarray(array))
        return seen.hexdigest()[:16]

    def length(self, epoch):
        """How many pictures an epoch has."""
        count = len(self.train.labels)
        return min(count, self.most(epoch)) if self.most else count

    def order(self, epoch):
        """The training pictures of an epoch, in its order."""
        return rng.permutation(self.length(epoch), seed=self.seed, purpose=rng.ORDER, step=epoch)

    def training(self, epoch, start=0):
        """The batches of an epoch, without its first `start` pictures."""
        order = self.order(epoch)
        for first in range(start, len(order), self.batch_size):
            began = time.perf_counter()
            chosen = order[first:first + self.batch_size]
            images, labels = self.batch(chosen, epoch)
            yield Batch(images, labels, chosen, first + len(chosen), time.perf_counter() - began)

    def __len__(self):
        """Batches of test pictures."""
        return -(-len(self.test.labels) // TOGETHER)

    def testing(self, views=1):
        """The test pictures in their order: `views` of each, TOGETHER views at a time."""
        indices = np.arange(len(self.test.labels))
        for first in range(0, len(indices), TOGETHER // views):
            rows = indices[first:first + TOGETHER // views]
            yield Batch(self.views(rows, views), self.test.labels[rows], rows, rows[-1] + 1, 0.0)

    def batch(self, chosen, epoch):
        """Training pictures: images (N, crop, crop, 3) float32 and labels (N,)."""
        if self.augment:
            draw = rng.words(np, chosen, seed=self.seed, purpose=rng.CROP, step=epoch)
            draw = draw.astype(np.int64)
            side = np.arange(self.crop)
            rows, columns = side + draw[:, :2].T[:, :, None] % (33 - self.crop)
            columns = np.where(draw[:, 2:3] % 2, columns[:, ::-1], columns)      # mirrored
            images = self.train.images[chosen[:, None, None], rows[:, :, None],
                                       columns[:, None, :]]
        else:
            images = self.view(self.train.images[chosen], *self.cuts(1)[0])
        return self.shifted(images), self.train.labels[chosen]

    def views(self, rows, count):
        """Test pictures: `count` (of VIEWS) views of each, (N * count, crop, crop, 3)."""
        images = self.test.images[rows]
        views = [self.view(images, *cut) for cut in self.cuts(count)]
        return self.shifted(np.stack(views, axis=1)).reshape(-1, self.crop, self.crop, 3)

    def cuts(self, count):
        """(top, left, step) of `count` views; step is -1 where columns are read backwards.

        1: the central crop. 9: a grid of 3 x 3 crops, the authors' test until March 2012. 10: its
        corners and its centre, and the mirror images of these, their test from then on (in 2014
        it was the first one again).
        """
        room = 32 - self.crop
        grid = [(top, left) for top in (0, room // 2, room) for left in (0, room // 2, room)]
        places = {1: grid[4:5], 9: grid, 10: grid[::2]}[count]
        return [(*place, step) for step in ((1, -1) if count == 10 else (1,)) for place in places]

    def view(self, images, top, left, step):
        return images[:, top:top + self.crop, left:left + self.crop][:, :, ::step]

    def shifted(self, images):
        images = images - self.mean
        images *= self.scale
        return images


# --- the command line -------------------------------------------------------------------


def add_options(parser, towers=1, output=True):
    """Options that all examples share. towers: how many devices there may be; output:
    whether files are written."""
    default = default_devices(most=towers)
    parser.add_argument("--device", metavar="D" if towers == 1 else "D[,D]", default=default,
                        help="cpu, gpu0, ... (default here: %(default)s)")
    parser.add_argument("--from", dest="source", metavar="PATH",
                        help="CIFAR-10: a folder or an archive (default: in TINYNET_DATA, or "
                             "data/cifar10)")
    if output:
        parser.add_argument("--output-dir", metavar="DIR", type=Path,
                            help=f"default: {shown(RUNS)}/<what is run>")
    return parser


positive = at_least(1)


def finite(text, least=0.0):
    """A number that is finite and not below `least`."""
    if not least <= float(text) < math.inf:
        raise ValueError
    return float(text)


def more_than_0(text):
    return finite(text, least=math.ulp(0))             # the smallest number there is


from_0 = typed(finite, "a number, at least 0")
above_0 = typed(more_than_0, "a number above 0")
rates = typed(lambda text: [more_than_0(word) for word in text.split(",")],
              "numbers above 0 with commas between")


def parser(example, about):
    """A parser for an example; about: its docstring."""
    return Parser(prog=example, description=about)


def main(run, parser, argv=None):
    """Run an example; errors and Ctrl-C become a line on stderr and an exit status."""
    args = parser.parse_args(argv)

    def alone():
        mpi.start(alone=True)              # of several processes each would do all of it
        return run(args)

    return exit_status(parser.prog, alone)
