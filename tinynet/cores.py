"""How is the work of one op spread over the cores?

Along the batch. On a CPU the slices run on a pool of threads, one core each. Where the cuts are
made depends on the shapes alone and never on the number of cores, and sums are taken in a
fixed order, so a result is the same to the bit on any machine of one kind.

That order is made for several processes as well: a batch has eight lanes, each a contiguous
eighth of its rows, and the sums of the lanes are added as a binary tree. A process that has two,
or four, of the lanes has a whole branch of this tree.
"""
import functools
import math
import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate, pairwise

import numpy as np
from threadpoolctl import threadpool_info

from .device import get_array_module, is_on_gpu
from .products import product

LANES = 8                      # of a batch: a sum over it is a sum of so many sums
CPU_SCRATCH = 9 << 19          # bytes of scratch a slice may use: less takes turns too often
GPU_SCRATCH = 1 << 30          # on a GPU: a batch of 128 in one slice, below 2**31 numbers
KEPT = 512 << 10               # bytes of a row that are kept rather than made again
SMALL = 256 << 10              # below this many bytes, cutting costs more than it gains
SMALL_PRODUCT = 10 ** 6        # multiplications up to which OpenBLAS packs no operand

_active = threading.local()    # .worker: this thread works on a slice; .lanes: rows of each


def over_batch(f, *arrays, out, scratch=None, least=1):
    """Fill `out` slice by slice along the first axis, and return it.

    f: takes the same rows of every array, and of `out` last, into which it writes.
    scratch: bytes of work memory that f needs for one row. Without it f makes every number by
    itself, and where it is cut changes nothing. With it, f may be a matrix product, which rounds
    otherwise with fewer rows: then no slice holds rows of two lanes.
    least: rows that make a slice worth what it costs by itself, whatever their scratch.
    """
    arrays = (*arrays, out)
    cut = _slices if scratch is None else _slices_of_lanes
    _for_each(lambda rows: f(*[array[rows] for array in arrays]),
              [rows for lane in cut(arrays, scratch, least) for rows in lane], out)
    return out


def sum_over_batch(f, *arrays, scratch=None, least=1):
    """The sum of f over slices of the batch (a weight gradient): f(*arrays) to rounding.

    Within a lane slices are added in order, the lanes as a tree.
    """
    lanes = _slices_of_lanes(arrays, scratch, least)
    if not any(lanes):                 # not a row: f knows the shape
        return f(*arrays)
    sums = [None] * len(lanes)

    def work(lane):
        for rows in lanes[lane]:
            part = f(*[array[rows] for array in arrays])
            if sums[lane] is None:
                sums[lane] = part
            else:
                sums[lane] += part

    _for_each(work, range(len(lanes)), arrays[0])
    return tree(sums)


def room_to_keep(array, *shape):
    """Memory for what the backward pass would else make again of every row of `array`.

    It is an array (rows, *shape), or None if that is too much, and on a GPU, where columns.py
    decides what is kept.
    """
    row = math.prod(shape) * array.itemsize
    fits = row <= KEPT and not is_on_gpu(array)
    return np.empty((len(array), *shape), array.dtype) if fits else None


def for_two(f):
    """f(dy), which holds two gradients, made once: the second one asks with the same dy, to which
    nobody has written meanwhile. The two share memory."""
    last = []

    def made(dy):
        if not (last and last[0] is dy):
            last[:] = dy, f(dy)
        return last[1]
    return made


def tree(parts):
    """((p0 + p1) + (p2 + p3)) + ((p4 + p5) + (p6 + p7)), and so on; None stands for nothing.

    Whoever holds p4 and p5 can add them up alone, and hand on one sum. Changes some of the parts.
    """
    while len(parts) > 1:
        parts = [_plus(*parts[i:i + 2]) for i in range(0, len(parts), 2)]
    return parts[0] if parts else None


def _plus(a, b=None):
    if a is None or b is None:
        return b if a is None else a
    a += b
    return a


def matmul(a, b):
    """a @ b. For two matrices, in blocks along the longer side of the result."""
    xp = get_array_module(a)
    if is_on_gpu(a):
        return product(a, b)
    if a.ndim > 2 or b.ndim > 2:
        return xp.matmul(a, b)
    if a.shape[0] < b.shape[1]:
        return xp.ascontiguousarray(matmul(b.T, a.T).T)
    out = xp.empty((a.shape[0], b.shape[1]), xp.result_type(a, b))
    [slices] = _slices([a, out], scratch=0)
    _for_each(lambda rows: xp.matmul(a[rows], b, out=out[rows]), slices, a)
    return out


def matmul_in_blocks(a, b, rows, inner, columns):
    """a @ b for two matrices on the CPU, of which nothing but these cuts decides how it rounds.

    rows, columns: where the result is cut (as `edges` gives it) into blocks, each of which is
    made by itself. inner: where its sums are cut: into parts that are added as a tree.
    """
    if len(a) == 1:    # BLAS has another function for one row: it looks at how b lies in memory
        return matmul_in_blocks(np.repeat(a, 2, axis=0), b, [0, 2], inner, columns)[:1]
    out = (np.empty if len(inner) == 2 else np.zeros)((a.shape[0], b.shape[1]), a.dtype)

    def work(block):
        r, c = block
        cols = b[:, c] if c.stop - c.start > 1 else np.ascontiguousarray(b[:, c])
        if len(inner) == 2:
            np.matmul(a[r], cols, out=out[r, c])
            return
        total = tree([a[r, i:j] @ cols[i:j] if j > i else None for i, j in pairwise(inner)])
        if total is not None:
            out[r, c] = total

    blocks = [(slice(*r), slice(*c)) for r in pairwise(rows) for c in pairwise(columns)]
    if a.nbytes + b.nbytes + out.nbytes < SMALL:
        for block in blocks:
            work(block)
    else:
        _for_each(work, blocks, a)
    return out


def part_of_product(array, size, others, least):
    """Into how large parts to cut one side of a matrix product on this array's device.

    size: of that side; others: the product of the other two; least: what makes a part worth
    while, else the side stays whole. For small products OpenBLAS has kernels that do not
    pack their operands first, which at some shapes takes as long as multiplying.
    """
    return size if is_on_gpu(array) else _part_of_product(size, others, least)


@functools.cache
def _part_of_product(size, others, least):
    most = min(size, SMALL_PRODUCT // max(others, 1))
    return max((part for part in range(least, most + 1) if size % part == 0), default=size)


def set_threads(count):
    """Use `count` threads for ops on the CPU (default: every core this process may use)."""
    global _threads, _pool
    if count < 1:
        raise ValueError(f"threads must be at least 1, not {count}")
    _threads = count
    _pool = ThreadPoolExecutor(count - 1, initializer=_mark_worker) if count > 1 else None


def most_scratch(array):
    """How many bytes of scratch a slice may use where this array lives."""
    return GPU_SCRATCH if is_on_gpu(array) else CPU_SCRATCH


def scratch_of_all(device):
    """Bytes of work memory that ops on a Device may use at a time, all threads together."""
    return GPU_SCRATCH if device.is_gpu else _threads * CPU_SCRATCH


@contextmanager
def lanes(rows):
    """Inside, arrays of sum(rows) rows are cut into lanes of so many rows each, and not into
    eighths. For a process that has only some of a batch's lanes, and for a batch that lacks
    some pictures."""
    before, _active.lanes = getattr(_active, "lanes", None), rows
    try:
        yield
    finally:
        _active.lanes = before


def edges(count, parts=LANES):
    """Where to cut so many things into lanes (or parts) as even as can be: 10 into 4 parts ->
    [0, 2, 5, 7, 10]"""
    return [i * count // parts for i in range(parts + 1)]


def _slices_of_lanes(arrays, scratch, least=1):
    """For every lane, also for one without rows, its slices: equal ones, so none is small."""
    count = arrays[0].shape[0] if arrays[0].ndim else 0
    if is_on_gpu(arrays[0]) or count == 0:
        return _slices(arrays, scratch, least)
    rows = getattr(_active, "lanes", None)
    starts = [0, *accumulate(rows)] if rows and sum(rows) == count else edges(count)
    fits = max(1, least, CPU_SCRATCH // (scratch or _bytes_of_row(arrays)))
    return [_cut(first, end, -(-(end - first) // fits)) for first, end in pairwise(starts)]


def _cut(first, end, parts):
    places = edges(end - first, parts) if parts else []
    return [slice(first + i, first + j) for i, j in pairwise(places)]


def _slices(arrays, scratch=None, least=1):
    """One lane of everything: slices that may be cut anywhere."""
    if arrays[0].ndim == 0:
        return [[...]]                 # one number: array[...] is all of it
    count, row = arrays[0].shape[0], _bytes_of_row(arrays)
    fits = count if scratch == 0 else most_scratch(arrays[0]) // (scratch or row)
    if not is_on_gpu(arrays[0]):
        # In short ops threads wait for each other's Python. (Cuts of a product decide its bits.)
        small = SMALL if scratch == 0 else 4 * SMALL
        fits = max(min(-(-count // LANES), max(fits, least)), small // row)
    size = max(1, fits)
    return [[slice(i, min(i + size, count)) for i in range(0, count, size)]]


def _bytes_of_row(arrays):
    return max(1, sum(array.nbytes for array in arrays) // max(arrays[0].shape[0], 1))


def _for_each(work, items, array):
    """work(item) for every item: on all cores for NumPy arrays, in turn on a GPU."""
    nested = getattr(_active, "worker", False)     # would wait for threads that wait for us
    if is_on_gpu(array) or _pool is None or nested or len(items) == 1:
        for item in items:
            work(item)
        return
    todo = deque(items)                # whoever is free takes the next one

    def take_turns():
        while True:
            try:
                item = todo.popleft()
            except IndexError:
                return
            work(item)

    helpers = [_pool.submit(take_turns) for _ in range(min(_threads, len(items)) - 1)]
    _active.worker = True              # so is this thread, until all is done
    try:
        take_turns()
    finally:
        _active.worker = False
        todo.clear()                   # after an error, or Ctrl-C, nobody begins anything
        for helper in helpers:
            helper.cancel() or helper.result()


def _mark_worker():
    _active.worker = True


def mask():
    """The numbers of the cores that this process may use."""
    try:
        return sorted(os.sched_getaffinity(0))
    except AttributeError:         # macOS, Windows
        return list(range(os.cpu_count() or 1))


def cores():
    """How many cores this process may use."""
    return len(mask())


def architecture():
    """For which processor BLAS rounds."""
    return next((library.get("architecture") or "unknown" for library in threadpool_info()
                 if library["user_api"] == "blas"), "unknown")


_pool = None
set_threads(cores())
if hasattr(os, "register_at_fork"):    # a forked child has none of our threads
    os.register_at_fork(after_in_child=lambda: set_threads(_threads))
