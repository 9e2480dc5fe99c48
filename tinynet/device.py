"""What is a device?

A `Device` has a name ("cpu", "cpu1", "gpu0", "gpu0:a"), the array library that computes
there (`xp`: NumPy or CuPy), and `put`, which brings an array there; `to_host` brings one back.
This is the one file that imports CuPy, and only when a GPU is asked for.
"""
import ctypes
import math
import os
import re
import sys
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from .errors import UserError

NAME = re.compile(r"(cpu|gpu)(0|[1-9][0-9]*|)(:\w+)?")
# glibc's malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX
MALLOC = {-1: (1 << 31) - 1, -3: 1 << 30, -8: 1}


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
        if self.is_gpu:
            self.cuda.__enter__()
        return self

    def __exit__(self, *error):
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


_blas_limit = None
