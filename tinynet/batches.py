"""How are batches made while the device computes? (paper, section 4.1: "in effect,
computationally free")

Threads read and prepare pictures a few batches ahead. What is in a batch follows from (seed,
epoch, position) alone, so the number of workers changes nothing but the speed.
"""
import itertools
import math
import time
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from . import images, rng
from .device import UserError
from .progress import warn

TOGETHER = 8           # pictures a thread prepares in a row: handing over costs time as well


@dataclass
class Batch:
    """images (N, crop, crop, 3) float32, or (N, 10, crop, crop, 3), with labels (N,).

    end: how many pictures of the epoch are behind us after this batch. waited: how many
    seconds somebody waited for it.
    """
    images: np.ndarray
    labels: np.ndarray
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
        order = rng.permutation(len(self.pictures), seed=self.prepare.seed,
                                purpose=rng.ORDER, step=epoch)

        def chosen(indices):
            fill = self.prepare.for_training
            return [(fill, draw) for draw in self.prepare.draws(indices, epoch)]

        return self._batches(order, chosen, start)

    def testing(self, views=1):
        """All pictures once, in their own order: the central crop of each, or its ten views."""
        fill = self.prepare.for_testing if views == 1 else self.prepare.ten_views
        return self._batches(np.arange(len(self.pictures)), lambda chosen: [(fill,)] * len(chosen),
                             views=() if views == 1 else (views,))

    def _batches(self, order, chosen, start=0, views=()):
        """Yield the batches in order, with `ahead` more in the making all the while."""
        memory = Memory()
        side = self.prepare.crop
        shape = *views, side, side, 3
        starts = iter(range(start, len(order), self.batch_size))
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="pictures")
        making = deque()
        try:
            while True:
                for first in itertools.islice(starts, self.ahead + 1 - len(making)):
                    indices = order[first:first + self.batch_size]
                    out = memory.array((self.batch_size, *shape))[:len(indices)]
                    making.append((first + len(indices), indices,
                                   *self._start(pool, indices, chosen, out)))
                if not making:
                    break
                batch = self._finish(*making.popleft())
                if len(batch.labels):
                    yield batch
        finally:                       # also when the caller stops half-way, or Ctrl-C
            pool.shutdown(wait=False, cancel_futures=True)
        if len(self.skipped) == len(self.pictures):
            raise UserError(f"none of the pictures in {self.pictures.root} can be read")

    def _start(self, pool, indices, chosen, out):
        work = list(zip(indices, out, chosen(indices)))
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
        return Batch(out, self.pictures.labels[indices], end, waited)


class Memory:
    """Arrays whose memory is used again as soon as nobody refers to them any more.

    The system gives out new memory page by page, each filled with zeros: for a batch of
    the paper's size that takes as long as the arithmetic on it.
    """

    def __init__(self):
        self.free = []

    def array(self, shape):
        """A float32 array of any content. All of one Memory have the same shape."""
        size = math.prod(shape)
        memory = self.free.pop() if self.free else memoryview(np.empty(size, np.float32))
        # The views that others hold, however deep, refer to this array, not to `memory`.
        array = np.frombuffer(memory, np.float32)
        weakref.finalize(array, self.free.append, memory)
        return array.reshape(shape)


def read_all(pictures, workers):
    """Every readable picture, (256, 256, 3) uint8, in order, read by `workers` threads.

    Those that cannot be read give None.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="pictures") as pool:
        indices, making = deque(range(len(pictures))), deque()
        while indices or making:
            while indices and len(making) < 8 * workers:
                making.append(pool.submit(pictures.read, indices.popleft()))
            try:
                yield making.popleft().result()
            except images.BrokenPicture:       # whoever trains with it hears its name
                yield None
