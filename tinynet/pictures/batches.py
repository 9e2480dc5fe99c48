"""How are batches made while the device computes? (paper, section 4.1: "in effect,
computationally free")

Pictures are read a few batches ahead (readers.py) and made into what the net takes (upload.py).
What is in a batch follows from (seed, epoch, position) alone, so the number of workers changes
nothing but the speed.
"""
import itertools
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from ..cores import LANES, edges
from ..engine import Tensor
from ..errors import UserError
from ..progress import bar, warn
from ..ranks import ALONE
from . import images, readers, upload


@dataclass
class Batch:
    """images: (N, crop, crop, 3) float32, on the Loader's device; of ten views, (N, 10, crop,
    crop, 3). labels: (N,), on the host.

    indices: which pictures of the data set they are, (N,). end: how many pictures of the epoch
    are behind us after this batch. waited: for how many seconds the device had nothing to do for
    want of pictures; a GPU says so some batches later. lanes: how many pictures each lane has,
    as cores.lanes takes them. Of several ranks each has only the images of its own lanes; all else
    is of all. twins: the images on other cards, {device: array}.
    """
    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    end: int
    waited: float
    lanes: list = None
    twins: dict = field(default_factory=dict)

    def tensors(self, device):
        """What a net with its first layer on this device takes: the images, and their twins."""
        return [Tensor(images, place)
                for place, images in ((device, self.images), *self.twins.items())]


class Loader:
    """Makes the batches of a data set.

    pictures: a dataset.DataSet. prepare: an images.Preparation. workers: threads that read, or
    processes beside a GPU. devices: where the images are to be, as model.devices says it: on the
    first of them, and on the other as well if both are cards. A GPU crops them itself, of one
    epoch at a time. ranks: each reads the pictures of its own lanes. ahead: how many batches are
    in the making while one is used. Files that cannot be read are left out of their batch, named
    once on stderr, and kept in `skipped`, {index: why}. Raises UserError when nothing at all can
    be read. tells: False for who looks into `skipped` himself: then nothing is said or raised.
    """

    def __init__(self, pictures, prepare, batch_size, workers=2, devices=(), ranks=ALONE,
                 ahead=2, tells=True):
        if batch_size < 1 or workers < 1:
            raise UserError("the batch size and the number of workers must be at least 1, "
                            f"not {batch_size} and {workers}")
        self.pictures, self.prepare = pictures, prepare
        self.batch_size, self.workers, self.ahead = batch_size, workers, ahead
        self.skipped, self.tells, self.ranks = {}, tells, ranks
        self.cards = upload.cards_of(devices)
        own = min(batch_size, -(-batch_size // LANES) * len(ranks.lanes))
        self.maker = (upload.Gpu(pictures, prepare, workers, self.cards, own, ahead + 2)
                      if self.cards else upload.Host(pictures, prepare, workers))

    def length(self, epoch):
        """How many pictures an epoch has: always the same."""
        return len(self.pictures)

    def __len__(self):
        """Batches in an epoch; the last one may be smaller."""
        return -(-len(self.pictures) // self.batch_size)

    def training(self, epoch, start=0):
        """The batches of an epoch in random order, without its first `start` pictures."""
        def places(indices, positions):
            return [[place] for place in self.prepare.places(indices, positions, epoch)]

        return self._batches(self.prepare.order(self.pictures, epoch), places, start)

    def testing(self, views=1):
        """All pictures once, in their own order: the central crop of each, or its ten views."""
        same = self.prepare.views(views)
        return self._batches(np.arange(len(self.pictures)),
                             lambda indices, positions: [same] * len(indices))

    def _batches(self, order, places, start=0):
        """Yield the batches in order, with `ahead` more in the making all the while.

        places(indices, positions): for every picture the list of Places at which it is seen.
        positions: where in `order` the pictures are.
        """
        starts = iter(range(start, len(order), self.batch_size))
        making = deque()
        with self.maker.reading() as begin:
            while True:
                for first in itertools.islice(starts, self.ahead + 1 - len(making)):
                    indices = order[first:first + self.batch_size]
                    end, own = first + len(indices), self.ranks.own(len(indices))
                    seen = places(indices[own], np.arange(first, end)[own])
                    making.append((end, indices, *begin(indices[own], seen)))
                if not making:
                    break
                batch = self._finish(*making.popleft())
                if len(batch.labels):
                    batch.waited = self.maker.waited()
                    yield batch
        if self.tells and len(self.skipped) == len(self.pictures):
            raise UserError(f"none of the pictures in {self.pictures.root} can be read")

    def _finish(self, end, indices, batch, jobs):
        problems = self.maker.results(jobs)
        own, whole = self.ranks.own(len(indices)), np.ones(len(indices), bool)
        broken = [(own.start + i, str(problem)) for i, problem in enumerate(problems) if problem]
        for row, problem in itertools.chain(*self.ranks.agree(broken)):
            whole[row] = False
            if indices[row] not in self.skipped:
                self.skipped[int(indices[row])] = problem
                if self.tells:
                    warn(f"skipped: {problem}")
        lanes = [int(whole[i:j].sum()) for i, j in itertools.pairwise(edges(len(indices)))]
        images, *twins = self.maker.finish(batch, whole[own])
        indices, twins = indices[whole], dict(zip(self.cards[1:], twins, strict=True))
        labels = np.asarray(self.pictures.labels)[indices].astype(np.int64)    # a byte overflows
        return Batch(images, labels, indices, end, 0.0, lanes, twins)


def measure(pictures, workers):
    """The images.Statistics of a data set: one pass over all of its pictures, with a bar.

    Pictures that cannot be read are left out; whoever trains with them hears their names.
    Raises UserError if none can be read.
    """
    def read(index):
        with suppress(images.BrokenPicture):
            return readers.read(pictures, index)

    def readable():
        for picture in in_order(read, range(len(pictures)), workers):
            progress.update()
            if picture is not None:
                yield picture

    with bar(len(pictures), "mean image and colours") as progress:
        return images.statistics(readable())


def in_order(job, items, workers):
    """job(item) for every item, in order, done by `workers` threads a little ahead."""
    pool = readers.threads(workers)
    items, making = iter(items), deque()
    try:
        while True:
            for item in itertools.islice(items, 8 * workers - len(making)):
                making.append(pool.submit(job, item))
            if not making:
                break
            yield making.popleft().result()
    finally:                           # also when the caller stops half-way, or Ctrl-C
        pool.shutdown(cancel_futures=True)
