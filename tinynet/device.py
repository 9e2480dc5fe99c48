"""What is a device, and how is the work of one op spread over its cores?

A `Device` has a name ("cpu", "cpu1", "gpu0", "gpu0:a"), the array library that computes
there (`xp`: NumPy or CuPy), and `put`, the only function in tinynet that moves an array.
This is the one file that imports CuPy, and only when a GPU is asked for.
"""
import ctypes
import functools
import math
import os
import re
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

NAME = re.compile(r"(cpu|gpu)(0|[1-9][0-9]*|)(:\w+)?")
LANES = 8                      # a sum over slices goes through this many partial sums
CPU_SCRATCH = 4 << 20          # bytes of scratch a slice may use: less takes turns too often
GPU_SCRATCH = 256 << 20        # on a GPU: enough work to fill it, little of its memory
SMALL = 256 << 10              # below this many bytes, cutting costs more than it gains
SMALL_PRODUCT = 10 ** 6        # multiplications up to which OpenBLAS packs no operand
# glibc's malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX
MALLOC = {-1: (1 << 31) - 1, -3: 1 << 30, -8: 1}

_active = threading.local()


class UserError(ValueError):
    """Something that the reader can put right: what, where, and what to do next.

    The command line prints it without a traceback.
    """


class Device:
    """A place where arrays live and are computed with.

    name: "cpu" or "cpu0", "cpu1", ... (the CPU may pretend to be several devices),
    "gpu0", "gpu1", ... (CUDA's numbering), each with an optional label: "gpu0:a" and
    "gpu0:b" are two logical devices on one card. Two devices are equal when their names
    are. Raises UserError for a name that cannot be read or a device that this machine does
    not have, and says what would work.

    The first CPU device sets BLAS to one thread in this process, since ops are spread over
    the cores by our own pool, and lets the process keep the memory that it frees.
    """

    def __init__(self, name):
        match = NAME.fullmatch(name)
        if not match or (match[1] == "gpu" and not match[2]):
            raise UserError(
                f"{name!r} is no device: write cpu, cpu0, cpu1, gpu0, gpu1, "
                "or gpu0:a and gpu0:b for two devices on one card")
        self.name = name
        self.is_gpu = match[1] == "gpu"
        if self.is_gpu:
            self.cuda = _cuda_device(name, int(match[2]))
        else:
            _set_up_cpu()

    @property
    def xp(self):
        """numpy or cupy: whichever computes here."""
        return _cupy() if self.is_gpu else np

    def __repr__(self):
        return self.name

    def __eq__(self, other):
        return isinstance(other, Device) and self.name == other.name

    def __hash__(self):
        return hash(self.name)

    def __enter__(self):
        """Make this the current device: CuPy puts every new array on the current one."""
        _stack().append(self)
        if self.is_gpu:
            self.cuda.__enter__()
        return self

    def __exit__(self, *error):
        _stack().pop()
        if self.is_gpu:
            self.cuda.__exit__(*error)

    def put(self, array):
        """A copy of `array` that lives here, contiguous, whatever device it came from.

        It is made contiguous on its own device first: CuPy refuses to copy a strided
        array between two cards, and the gradient of a concatenation is just that.
        """
        if is_on_gpu(array):
            if not self.is_gpu:
                return to_host(array)
            with array.device:
                array = self.xp.ascontiguousarray(array)
        with self:
            return self.xp.array(array, order="C")

    @property
    def place(self):
        """Whose memory it is: "cpu", or "gpu0" for gpu0:a as well."""
        return self.name.partition(":")[0] if self.is_gpu else "cpu"

    @property
    def scratch(self):
        """Bytes of work memory that an op may use at a time."""
        return GPU_SCRATCH if self.is_gpu else _threads * CPU_SCRATCH

    def in_use(self):
        """Bytes that this process holds of this device's memory, None if nobody knows."""
        if self.is_gpu:
            with self:
                return self.xp.get_default_memory_pool().total_bytes()
        return _kilobytes("/proc/self/status", "VmRSS")

    def peak(self):
        """The most that in_use() has been since forget_peak(). CuPy's pool never shrinks."""
        return self.in_use() if self.is_gpu else _kilobytes("/proc/self/status", "VmHWM")

    def forget_peak(self):
        if self.is_gpu:
            with self:
                self.xp.get_default_memory_pool().free_all_blocks()
        else:
            try:
                Path("/proc/self/clear_refs").write_text("5")
            except OSError:            # not Linux, or not allowed: the peak of all our life
                pass

    def room(self):
        """Bytes that this process has or could have here, None if nobody knows."""
        if self.is_gpu:
            with self:
                return self.xp.cuda.runtime.memGetInfo()[0] + self.in_use()
        free, limit = _kilobytes("/proc/meminfo", "MemAvailable"), _container_limit()
        return None if free is None else min(free + self.in_use(), limit or math.inf)

    def synchronize(self):
        """Wait until everything asked of this device is done (before reading a clock)."""
        if self.is_gpu:
            self.cuda.synchronize()


def devices(text):
    """The devices of a --device option: "cpu0,cpu1" -> [Device("cpu0"), Device("cpu1")]."""
    return [Device(name.strip()) for name in text.split(",")]


def default_devices():
    """What --device means when it is left out: the first two GPUs, one, or the CPU."""
    count = gpu_count()
    return ",".join(f"gpu{i}" for i in range(min(count, 2))) or "cpu"


def current_device():
    """The innermost device of this thread's `with` statements, or None."""
    return _stack()[-1] if _stack() else None


def get_array_module(array):
    """numpy for a NumPy array, cupy for a CuPy array."""
    return _cupy() if is_on_gpu(array) else np


def is_on_gpu(array):
    return type(array).__module__.partition(".")[0] == "cupy"


def to_host(array):
    """The same numbers as a NumPy array. Waits for the device."""
    if not is_on_gpu(array):
        return array
    with array.device:                 # else CuPy copies on the current device's stream
        return array.get()


def gpu_count():
    """How many GPUs answer. 0 without CuPy, and 0 with CuPy but without a driver."""
    try:
        cupy = _cupy()
    except ImportError:
        return 0
    return cupy.cuda.runtime.getDeviceCount() if cupy.cuda.is_available() else 0


def gpu_report():
    """What CuPy says of itself and of the cards: a dict, for `alexnet.py doctor`.

    version, folder; runtime, driver: CUDA versions as 13000 (driver 0: there is none);
    cards: a dict each, see _card. Raises whatever `import cupy` raises.
    """
    cupy = _cupy()
    runtime, count = cupy.cuda.runtime, gpu_count()
    return dict(version=cupy.__version__, folder=os.path.dirname(cupy.__file__),
                runtime=runtime.runtimeGetVersion(), driver=runtime.driverGetVersion(),
                cards=[_card(cupy, i, count) for i in range(count)])


def _card(cupy, index, count):
    """name, capability ("9.0"), total and free memory in bytes, peers (for each card, whether
    this one can read its memory), fault (what a first product raised, or None)."""
    runtime = cupy.cuda.runtime
    about = runtime.getDeviceProperties(index)
    peers = [i != index and bool(runtime.deviceCanAccessPeer(index, i)) for i in range(count)]
    card = dict(name=about["name"].decode(), capability=f"{about['major']}.{about['minor']}",
                total=about["totalGlobalMem"], free=None, peers=peers, fault=None)
    try:
        with cupy.cuda.Device(index) as current:
            card["free"] = current.mem_info[0]
            ones = cupy.ones((2, 2), np.float32)
            (ones @ ones).get()                # needs the compiler and cuBLAS
    except Exception as error:                 # CuPy has a dozen kinds; all are the finding
        card["fault"] = error
    return card


def _cupy():
    import cupy
    return cupy


def _cuda_device(name, index):
    try:
        cupy = _cupy()
    except ImportError:
        raise UserError(
            f"{name}: CuPy is not installed, so there are no GPUs here; "
            "pip install 'tinynet[gpu-cuda13]' (or gpu-cuda12), or use cpu") from None
    count = gpu_count()
    if index >= count:
        found = ", ".join(f"gpu{i}" for i in range(count)) or "no GPU that answers"
        hint = "gpu0 or gpu0:a,gpu0:b" if count else "cpu or cpu0,cpu1"
        raise UserError(f"{name}: this machine has {found}; use {hint}")
    return cupy.cuda.Device(index)


def _kilobytes(path, name):
    """The line "name:  123 kB" of a file of Linux, in bytes; None elsewhere."""
    try:
        text = Path(path).read_text()
    except OSError:
        return None
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return found and 1024 * int(found[1])


def _container_limit():
    """What a container may use, in bytes, or None."""
    for name in "memory.max", "memory/memory.limit_in_bytes":      # cgroups 2 and 1
        try:
            return int(Path("/sys/fs/cgroup", name).read_text())
        except (OSError, ValueError):                  # not there; "max"
            pass


def _stack():
    if not hasattr(_active, "devices"):
        _active.devices = []
    return _active.devices


# --- how an op is spread over the batch -------------------------------------------------
#
# On a CPU the slices run on a pool of threads, one core each. Where the cuts are made
# depends on the shapes alone and never on the number of cores, and sums are taken in a
# fixed order, so a result is the same to the bit on any machine of one kind.


def over_batch(f, *arrays, out=None, scratch=None, least=1):
    """f(*arrays), computed slice by slice along the first axis and put together again.

    f: takes a slice of each array and returns the same rows of the result.
    out: an array for the result. f then gets its rows as well, last, and writes into them.
    scratch: bytes of work memory that f needs for one row (default: the rows themselves);
    0 if f does not gain from staying in cache.
    least: rows that make a slice worth what it costs by itself, whatever their scratch.
    """
    if out is not None:
        arrays = (*arrays, out)
        _for_each(lambda rows: f(*[array[rows] for array in arrays]),
                  _slices(arrays, scratch, least), out)
        return out
    slices = _slices(arrays, scratch, least)
    if len(slices) <= 1:
        return f(*arrays)
    lock = threading.Lock()
    result = []

    def work(rows):
        part = f(*[array[rows] for array in arrays])
        with lock:
            if not result:         # the first to finish knows the shape
                xp = get_array_module(part)
                shape = (arrays[0].shape[0], *part.shape[1:])
                result.append(xp.empty(shape, part.dtype))
        result[0][rows] = part

    _for_each(work, slices, arrays[0])
    return result[0]


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
    """a @ b for matrices, in blocks along the longer side of the result."""
    xp = get_array_module(a)
    if a.shape[0] < b.shape[1]:
        return xp.ascontiguousarray(matmul(b.T, a.T).T)
    return over_batch(lambda a, out: xp.matmul(a, b, out=out), a, scratch=0,
                      out=xp.empty((a.shape[0], b.shape[1]), a.dtype))


def part_of_product(array, size, others, least):
    """Into how large parts to cut one side of a matrix product on this array's device.

    size: of that side; others: the product of the other two; least: what makes a part worth
    while, else the side stays whole. For small products OpenBLAS has kernels that do not
    pack their operands first, which at some shapes takes as long as multiplying.
    """
    return size if is_on_gpu(array) else _part_of_product(size, others, least)


@functools.lru_cache(maxsize=None)
def _part_of_product(size, others, least):
    most = min(size, SMALL_PRODUCT // max(others, 1))
    return max((part for part in range(least, most + 1) if size % part == 0), default=size)


def in_place(f, changed, *read):
    """f(*changed, *read) on matching blocks of arrays of one shape.

    changed: a list of contiguous arrays whose numbers f may change; read: others. (The
    optimizer: three passes over a block in cache cost what one pass over memory does.)
    """
    if not all(array.flags.c_contiguous for array in changed):
        raise ValueError("an array that is changed in place must be contiguous")
    flat = [array.reshape(-1) for array in (*changed, *read)]
    _for_each(lambda block: f(*[array[block] for array in flat]), _slices(flat, None),
              flat[0])


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


def _slices(arrays, scratch, least=1):
    count = arrays[0].shape[0]
    row = max(1, sum(array.nbytes for array in arrays) // max(count, 1))
    fits = count if scratch == 0 else most_scratch(arrays[0]) // (scratch or row)
    if is_on_gpu(arrays[0]):
        size = fits
    else:
        size = max(min(-(-count // LANES), max(fits, least)), SMALL // row)
    size = max(1, size)
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


def _set_up_cpu():
    """Once: one BLAS thread, because one with threads of its own would fight our pool.

    And freed arrays are kept for the next step, in one heap for all threads. Left alone, the
    C library on Linux gives them back to the system, and every step waits for fresh pages.
    """
    global _blas_limit
    if _blas_limit is not None:
        return
    _blas_limit = threadpool_limits(1, user_api="blas")
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)      # not in every C library
        for option, value in MALLOC.items() if mallopt else ():
            mallopt(option, value)


def cores():
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:         # macOS, Windows
        return os.cpu_count() or 1


_blas_limit = None
_pool = None
set_threads(cores())
if hasattr(os, "register_at_fork"):    # a forked child has none of our threads
    os.register_at_fork(after_in_child=lambda: set_threads(_threads))
