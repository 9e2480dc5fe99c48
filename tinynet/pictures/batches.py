"""How are batches made while the device computes? (paper, section 4.1: "in effect,
computationally free")

Threads read and prepare pictures a few batches ahead. What is in a batch follows from (seed,
epoch, position) alone, so the number of workers changes nothing but the speed.
"""
import itertools
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from .. import rng
from ..errors import UserError
from ..progress import warn
from . import images

TOGETHER = 8           # pictures a thread prepares in a row: handing over costs time as well


@dataclass
class Batch:
    """images (N, crop, crop, 3) float32, or (N, 10, crop, crop, 3), with labels (N,).

    indices: which pictures of the data set they are. end: how many pictures of the epoch are
    behind us after this batch. waited: how many seconds somebody waited for it.
    """
    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    end: int
    waited: float


class Loader:
    """Makes the batches of a data set.

    pictures: images.Pictures; prepare: images.Preparation; workers: threads. Files that
    cannot be read are left out of their batch, named once on stderr, and kept in
    `skipped`. Raises UserError when nothing at all can be read.
    """

    def __init__(self, pictures, prepare, batch_size, workers=2, ahead=2):
        if batch_size < 1 or workers < 1:
            raise UserError("the batch size and the number of workers must be at least 1, "
                            f"not {batch_size} and {workers}")
        self.pictures, self.prepare = pictures, prepare
        self.batch_size, self.workers, self.ahead = batch_size, workers, ahead
        self.skipped = set()

    def __len__(self):
        """Batches in an epoch; the last one may be smaller."""
        return -(-len(self.pictures) // self.batch_size)

    def training(self, epoch, start=0):
        """The batches of an epoch in random order, without its first `start` pictures."""
        order = self._order(epoch)

        def chosen(indices, first):
            fill = self.prepare.for_training
            positions = np.arange(first, first + len(indices))
            return [(fill, draw) for draw in self.prepare.draws(indices, positions, epoch)]

        return self._batches(order, chosen, start)

    def _order(self, epoch):
        """A new order for every epoch; or one that stays: that in which the pictures are
        stored, if they were shuffled then, which reads a disk from front to back."""
        if self.prepare.shuffle == "once":
            if self.pictures.shuffled:
                return np.arange(len(self.pictures))
            epoch = 0
        return rng.permutation(len(self.pictures), seed=self.prepare.seed,
                               purpose=rng.ORDER, step=epoch)

    def testing(self, views=1):
        """All pictures once, in their own order: the central crop of each, or its ten views."""
        fill = self.prepare.for_testing if views == 1 else self.prepare.ten_views
        return self._batches(np.arange(len(self.pictures)),
                             lambda indices, first: [(fill,)] * len(indices),
                             views=() if views == 1 else (views,))

    def _batches(self, order, chosen, start=0, views=()):
        """Yield the batches in order, with `ahead` more in the making all the while.

        chosen(indices, first): how to fill the row of each picture; `first` is the position
        of the first in the epoch.
        """
        side = self.prepare.crop
        shape = *views, side, side, 3
        starts = iter(range(start, len(order), self.batch_size))
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="pictures")
        making = deque()
        try:
            while True:
                for first in itertools.islice(starts, self.ahead + 1 - len(making)):
                    indices = order[first:first + self.batch_size]
                    making.append((first + len(indices), indices,
                                   *self._start(pool, indices, chosen(indices, first), shape)))
                if not making:
                    break
                batch = self._finish(*making.popleft())
                if len(batch.labels):
                    yield batch
        finally:                       # also when the caller stops half-way, or Ctrl-C
            pool.shutdown(wait=False, cancel_futures=True)
        if len(self.skipped) == len(self.pictures):
            raise UserError(f"none of the pictures in {self.pictures.root} can be read")

    def _start(self, pool, indices, chosen, shape):
        out = np.empty((len(indices), *shape), np.float32)
        work = list(zip(indices, out, chosen))
        return out, [pool.submit(self._some, work[i:i + TOGETHER])
                     for i in range(0, len(work), TOGETHER)]

    def _some(self, work):
        return [self._one(index, row, *how) for index, row, how in work]

    def _one(self, index, out, fill, *draw):
        try:
            picture = self.pictures.read(index)
        except images.BrokenPicture as error:
            return error
        fill(picture, out, *draw)

    def _finish(self, end, indices, out, jobs):
        start = time.perf_counter()
        problems = [problem for job in jobs for problem in job.result()]
        waited = time.perf_counter() - start
        whole = np.array([problem is None for problem in problems])
        for index, problem in zip(indices, problems):
            if problem is not None and index not in self.skipped:
                self.skipped.add(index)
                warn(f"skipped: {problem}")
        if not whole.all():
            out, indices = out[whole], indices[whole]
        return Batch(out, self.pictures.labels[indices], indices, end, waited)


def read_all(pictures, workers):
    """Every readable picture, (256, 256, 3) uint8, in order, read by `workers` threads.

    Those that cannot be read give None.
    """
    def picture(index):
        try:
            return pictures.read(index)
        except images.BrokenPicture:           # whoever trains with it hears its name
            return None

    return in_order(picture, range(len(pictures)), workers)


def in_order(job, items, workers):
    """job(item) for every item, in order, done by `workers` threads a little ahead."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="pictures")
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
