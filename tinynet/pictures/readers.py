"""Who reads pictures while a device computes?

Threads, if that is a CPU: its ops take milliseconds, and decoding runs beside them. A GPU wants
a kernel every 30 microseconds, from a thread that waits each time until no other one runs
Python; beside eight threads that read, steps of 8.6 ms took 68 on an H200. So for a GPU
processes read, into memory that all of them see.
"""
import os
import pickle
import signal
import sys
import threading
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager

import numpy as np

from ..errors import UserError
from ..progress import warn
from .images import SIDE, BrokenPicture, enlarged

PARTS, TOGETHER = 8, 8     # of a batch, and the fewest pictures in one: handing over costs


def threads(workers):
    return ThreadPoolExecutor(workers, thread_name_prefix="pictures")


def in_parts(count, workers):
    """Slices of so many pictures: PARTS of them or one for each worker, or fewer with TOGETHER
    pictures each."""
    size = max(TOGETHER, -(-count // max(PARTS, workers)))
    return [slice(i, min(i + size, count)) for i in range(0, count, size)]


def shared(size):
    """So many bytes that processes may share: an object to send to them."""
    return _spawn().RawArray("B", size)


def as_pictures(memory):
    """Shared memory as rows of pictures: (N, SIDE, SIDE, 3) uint8"""
    picture = SIDE * SIDE * 3
    size = len(memory) // picture * picture
    return np.frombuffer(memory, np.uint8)[:size].reshape(-1, SIDE, SIDE, 3)


def read(pictures, index):
    """A picture of a data set. Raises TypeError if it is none of (256, 256, 3) uint8."""
    picture = pictures.read(index)
    if (picture.shape, picture.dtype) != ((SIDE, SIDE, 3), np.uint8):
        raise TypeError(f"{type(pictures).__name__}.read({index}) gave {picture.dtype} "
                        f"{picture.shape}, not uint8 {(SIDE, SIDE, 3)}")
    return picture


def read_into(pictures, rows, indices, squares):
    """Read pictures of a data set into rows, of each a square as `enlarged` takes it: for each
    what was wrong with it, or None."""
    problems = []
    for row, index, square in zip(rows, indices, squares, strict=True):
        try:
            row[...] = enlarged(read(pictures, index), square)
            problems.append(None)
        except BrokenPicture as error:
            problems.append(str(error))
    return problems


class Threads:
    """Threads that read pictures of a data set into shared memories."""

    def __init__(self, pictures, memories, workers):
        self.pictures, self.rows = pictures, [as_pictures(memory) for memory in memories]
        self.pool, self.jobs, self.workers = threads(workers), [], workers

    def read(self, number, indices, squares=None):
        """Begin to read the pictures of these indices into a memory, from its first row on.
        Returns jobs; what they give, one after the other, is what read_into gives."""
        squares = squares or [None] * len(indices)
        jobs = [self._submit(number, part, indices[part], squares[part])
                for part in in_parts(len(indices), self.workers)]
        self.jobs = [job for job in self.jobs if not job.done()] + jobs
        return jobs

    def _submit(self, number, part, *what):
        return self.pool.submit(read_into, self.pictures, self.rows[number][part], *what)

    def stop(self):
        """Begin nothing more, and wait until nobody writes."""
        for job in self.jobs:
            job.cancel()
        wait(self.jobs)


class Processes(Threads):
    """Processes that do so. They end with this one, however it ends."""

    def __init__(self, data, memories, workers):
        """data: a data set, as pickle.dumps gives it."""
        # In memory that all see: who sends it to one that ends too early would wait for ever.
        there = shared(len(data))
        memoryview(there).cast("B")[:] = data
        from concurrent.futures import ProcessPoolExecutor
        with _no_ctrl_c():
            self.pool = ProcessPoolExecutor(workers, _spawn(), _begin, (there, memories))
        self.jobs, self.workers = [], workers

    def _submit(self, number, part, *what):
        with _no_ctrl_c(), _told_if_killed():
            return self.pool.submit(_read, number, part, *what)


def beside_a_gpu(pictures, memories, workers):
    """Processes that read; threads, and a word of it, if the data set cannot be sent to them."""
    try:
        data = pickle.dumps(pictures)
        program = getattr(sys.modules["__main__"], "__file__", None)
        if (program or b"__main__" in data) and not os.path.isfile(program or ""):
            raise TypeError("they have no file to read this program from")
    except Exception as error:         # whatever it is made of
        warn(f"a {type(pictures).__name__} cannot be sent to other processes ({error}): threads "
             "read its pictures, and the GPU waits for them")
        return Threads(pictures, memories, workers)
    return Processes(data, memories, workers)


def results(jobs):
    """What jobs gave, one after the other. Raises UserError if a process was killed."""
    with _told_if_killed():
        return [result for job in jobs for result in job.result()]


@contextmanager
def _told_if_killed():
    try:
        yield
    except BrokenExecutor as error:
        raise UserError("a process that reads pictures has ended; what it said stands above. If "
                        "it said nothing, it may be for want of memory: give fewer --workers"
                        ) from error


def _spawn():
    """How processes begin: a fork of one that has a GPU would be broken. To import it takes time
    that nobody has to wait for who has no GPU."""
    import multiprocessing
    return multiprocessing.get_context("spawn")


def _begin(data, memories):
    """Make this process a reader."""
    import multiprocessing
    global _pictures, _rows

    def end_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    _pictures, _rows = pickle.loads(data), [as_pictures(memory) for memory in memories]


def _read(number, part, indices, squares):
    return read_into(_pictures, _rows[number][part], indices, squares)


@contextmanager
def _no_ctrl_c():
    """Processes that begin inside never hear it, nor that the terminal was closed, nor what
    launchers pass on (SIGUSR1): that is for this one, which ends them."""
    if not hasattr(signal, "pthread_sigmask"):         # Windows
        yield
        return
    before = signal.pthread_sigmask(
        signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP, signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
