"""How is the work of one op spread over the cores?

Along the batch. On a CPU the slices run on a pool of threads, one core each. Where the cuts are
made depends on the shapes alone and never on the number of cores, and sums are taken in a
fixed order, so a result is the same to the bit on any machine of one kind.
"""
import functools
import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from .device import get_array_module, is_on_gpu

LANES = 8                      # a sum over slices goes through this many partial sums
CPU_SCRATCH = 4 << 20          # bytes of scratch a slice may use: less takes turns too often
GPU_SCRATCH = 1 << 30          # on a GPU: a batch of 128 in one slice, below 2**31 numbers
SMALL = 256 << 10              # below this many bytes, cutting costs more than it gains
SMALL_PRODUCT = 10 ** 6        # multiplications up to which OpenBLAS packs no operand

_active = threading.local()    # .worker: this thread works on a slice


def over_batch(f, *arrays, out, scratch=None, least=1, weighed=None):
    """Fill `out` slice by slice along the first axis, and return it.

    f: takes the same rows of every array, and of `out` last, into which it writes.
    scratch: bytes of work memory that f needs for one row (default: the rows themselves);
    0 if f does not gain from staying in cache.
    least: rows that make a slice worth what it costs by itself, whatever their scratch.
    weighed: the arrays whose bytes decide where to cut (default: all). Where it is cut is part
    of a result: a product of fewer rows is rounded otherwise.
    """
    arrays = (*arrays, out)
    _for_each(lambda rows: f(*[array[rows] for array in arrays]),
              _slices(weighed or arrays, scratch, least), out)
    return out


def sum_over_batch(f, *arrays, scratch=None, least=1):
    """The sum of f over slices of the batch (a weight gradient): f(*arrays) to rounding.

    Lane i adds up slices i, i + LANES, ...; the lanes are added in order at the end.
    """
    slices = _slices(arrays, scratch, least)
    if len(slices) <= 1:
        return f(*arrays)
    lanes = [None] * min(LANES, len(slices))

    def work(lane):
        for rows in slices[lane::LANES]:
            part = f(*[array[rows] for array in arrays])
            if lanes[lane] is None:
                lanes[lane] = part
            else:
                lanes[lane] += part

    _for_each(work, range(len(lanes)), arrays[0])
    total = lanes[0]
    for lane in lanes[1:]:
        total += lane
    return total


def matmul(a, b):
    """a @ b. For two matrices, in blocks along the longer side of the result."""
    xp = get_array_module(a)
    if a.ndim > 2 or b.ndim > 2 or is_on_gpu(a):
        return xp.matmul(a, b)
    if a.shape[0] < b.shape[1]:
        return xp.ascontiguousarray(matmul(b.T, a.T).T)
    return over_batch(lambda a, out: xp.matmul(a, b, out=out), a, scratch=0,
                      out=xp.empty((a.shape[0], b.shape[1]), xp.result_type(a, b)))


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


def scratch(device):
    """Bytes of work memory that ops on a Device may use at a time, all threads together."""
    return GPU_SCRATCH if device.is_gpu else _threads * CPU_SCRATCH


def _slices(arrays, scratch, least=1):
    if arrays[0].ndim == 0:
        return [...]                   # one number: array[...] is all of it
    count = arrays[0].shape[0]
    row = max(1, sum(array.nbytes for array in arrays) // max(count, 1))
    fits = count if scratch == 0 else most_scratch(arrays[0]) // (scratch or row)
    if not is_on_gpu(arrays[0]):
        fits = max(min(-(-count // LANES), max(fits, least)), SMALL // row)
    size = max(1, fits)
    return [slice(i, min(i + size, count)) for i in range(0, count, size)]


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


def cores():
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:         # macOS, Windows
        return os.cpu_count() or 1


_pool = None
set_threads(cores())
if hasattr(os, "register_at_fork"):    # a forked child has none of our threads
    os.register_at_fork(after_in_child=lambda: set_threads(_threads))
