"""What is a device?

A `Device` has a name ("cpu", "cpu1", "gpu0", "gpu0:a"), the array library that computes
there (`xp`: NumPy or CuPy), and `put`, which copies an array to it. `to_host` copies one back.
This is the one file that imports CuPy, and it does so only when a GPU is asked for.
"""
import ctypes
import functools
import importlib
import os
import re
import sys

import numpy as np
from threadpoolctl import threadpool_limits

from . import cards
from .errors import UserError

PRECISIONS = "tf32", "fp32"
# glibc's malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX; and M_MMAP_MAX
THRESHOLD, MAPPINGS = -3, -4
MALLOC = {-1: (1 << 31) - 1, THRESHOLD: 1 << 30, -8: 1}


class Device:
    """A place where arrays live and are computed with: Device("cpu1"), Device("gpu0:a").

    Each kind of device is a subclass, which says by `pattern` what its names look like. A
    label makes two logical devices of one: "gpu0:a" and "gpu0:b" share a card. Two devices
    are equal when their names are. Raises UserError for a name that cannot be read and for a
    device that this machine does not have, and says what would work.

    A subclass has `xp`, the array library; `put(array)`, a contiguous copy that lives here,
    whatever device the array came from; and, where the work is done behind the host's back,
    __enter__, __exit__ and synchronize.
    """

    is_gpu = False

    def __new__(cls, name):
        for kind in Device.__subclasses__() if cls is Device else [cls]:
            if kind.pattern.fullmatch(name):
                return super().__new__(kind)
        raise UserError(f"{name!r} is no device: write cpu, cpu0, cpu1, gpu0, gpu1, "
                        "or gpu0:a and gpu0:b for two devices on one card")

    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return self.name

    def __eq__(self, other):
        return isinstance(other, Device) and self.name == other.name

    def __hash__(self):
        return hash(self.name)

    def __reduce__(self):
        """How to copy and pickle a device: by its name, also into another process."""
        return Device, (self.name,)

    def __enter__(self):
        """Make this the current device: CuPy puts every new array on the current one."""
        return self

    def __exit__(self, *error):
        pass

    def begin_put(self, array, home):
        """Begin to put an array of the device `home` here. The copy that it returns is on its way:
        nobody may touch it before end_put. Other copies may begin, and others end, meanwhile."""
        return self.put(array)

    def end_put(self, copy, home):
        """The copy that begin_put has returned. What is asked of this device from now on waits
        for it; the host does not."""
        return copy

    def synchronize(self):
        """Wait until everything asked of this device is done (before reading a clock)."""

    def multiply_in(self, precision):
        """Compute products of float32 matrices in this of PRECISIONS, from now on, or as near to
        it as can be.

        fp32: as they are. tf32: GPUs round the factors to 10 bits behind the point, and add up in
        float32; since 2020 (Ampere) that is several times as fast, and what PyTorch does in its
        convolutions. It is a setting of the whole process. CPUs, and older cards, have fp32 only.
        """

    def nearest(self, precision):
        """Which of PRECISIONS it has instead of this one, or this one."""
        return "fp32"


class Cpu(Device):
    """The processor, with NumPy. It may pretend to be several devices: cpu0, cpu1, ...

    The first one sets BLAS to one thread in this process, since our own pool spreads ops over
    the cores. It also lets the process keep the memory that it frees.
    """

    pattern = re.compile(r"cpu(0|[1-9][0-9]*|)(:\w+)?")
    xp = np

    def __init__(self, name):
        super().__init__(name)
        _set_up_cpu()

    def put(self, array):
        return to_host(array) if is_on_gpu(array) else np.array(array, order="C")


class Gpu(Device):
    """A card of NVIDIA, with CuPy: gpu0, gpu1, ... as CUDA counts them."""

    pattern = re.compile(r"gpu(0|[1-9][0-9]*)(:\w+)?")
    is_gpu = True

    def __init__(self, name):
        super().__init__(name)
        try:
            self.xp = cupy()
        except ImportError as error:
            raise UserError(
                f"{name}: GPUs need CuPy, which does not load here ({error}); use cpu, or type in "
                'the folder of tinynet\n  pip install -e ".[gpu-cuda13]"      (or gpu-cuda12)'
            ) from None
        # A put from card to card needs the null stream for its order; cards.py would not.
        if os.environ.get("CUPY_CUDA_PER_THREAD_DEFAULT_STREAM", "0") != "0":
            raise UserError(f"{name}: unset CUPY_CUDA_PER_THREAD_DEFAULT_STREAM: copies between "
                            "cards are in order only in the stream that all threads share")
        index, count = int(self.pattern.fullmatch(name)[1]), gpu_count()
        if index >= count:
            found = ", ".join(f"gpu{i}" for i in range(count)) or "no GPU that answers"
            hint = "gpu0 or gpu0:a,gpu0:b" if count else "cpu or cpu0,cpu1"
            raise UserError(f"{name}: this machine has {found}; use {hint}")
        self.cuda = self.xp.cuda.Device(index)

    def __enter__(self):
        self.cuda.__enter__()
        return self

    def __exit__(self, *error):
        self.cuda.__exit__(*error)

    def put(self, array):
        # The array is made contiguous on its own card first: CuPy refuses to copy a strided
        # one between two cards. The copy is in the null stream, and so it waits for all that
        # both cards were asked to compute, and what they are asked to later waits for it.
        if is_on_gpu(array) and not array.flags.c_contiguous:
            with array.device:
                array = self.xp.ascontiguousarray(array)
        with self:
            return self.xp.array(array, order="C")

    def begin_put(self, array, home):
        way = self._way_from(home)
        return way.send(array) if way else self.put(array)

    def end_put(self, copy, home):
        way = self._way_from(home)
        if way:
            way.wait()
        return copy

    def _way_from(self, home):
        """Nothing if `home` is on this card as well, or is no card."""
        if home.is_gpu and home.cuda != self.cuda:
            return cards.way(self.xp, home.cuda.id, self.cuda.id)

    def synchronize(self):
        self.cuda.synchronize()

    def multiply_in(self, precision):
        linalg = self.xp._core._routines_linalg        # CuPy's own way is CUPY_TF32, read once
        with self:
            linalg.set_compute_type(np.dtype(np.float32), linalg.COMPUTE_TYPE_TF32
                                    if self.nearest(precision) == "tf32"
                                    else linalg.COMPUTE_TYPE_DEFAULT)

    def nearest(self, precision):
        return precision if int(self.cuda.compute_capability) >= 80 else "fp32"


def devices(text):
    """The devices of a --device option: "cpu0,cpu1" -> [Device("cpu0"), Device("cpu1")]."""
    return [Device(name.strip()) for name in text.split(",")]


def precision_of(devices, precision):
    """Which of PRECISIONS all of these have, if this one is wanted: fp32, if one has no other."""
    return min(device.nearest(precision) for device in devices)


def as_device(device):
    """A Device, or the one of this name."""
    return Device(device) if isinstance(device, str) else device


def default_devices(most=2):
    """What --device means when it is left out: the first `most` GPUs that answer, else "cpu".

    most: how many devices the net can use, 1 for a net of one tower.
    """
    return ",".join(f"gpu{i}" for i in range(min(gpu_count(), most))) or "cpu"


def get_array_module(array):
    """numpy for a NumPy array, cupy for a CuPy array."""
    return cupy() if is_on_gpu(array) else np


def is_on_gpu(array):
    """Whether it is an array of CuPy."""
    return _is_of_cupy(type(array))


@functools.cache                       # it is asked several times for every op
def _is_of_cupy(kind):
    return kind.__module__.partition(".")[0] == "cupy"


def to_host(array):
    """The same numbers as a NumPy array. Waits for the device."""
    if not is_on_gpu(array):
        return array
    with array.device:                 # else CuPy copies on the current device's stream
        return array.get()


def gpu_count():
    """How many GPUs answer. 0 without CuPy, and 0 with CuPy but without a driver."""
    try:
        cuda = cupy().cuda
    except ImportError:
        return 0
    return cuda.runtime.getDeviceCount() if cuda.is_available() else 0


def cupy():
    """The module CuPy. Raises whatever its import raises."""
    import cupy
    return cupy


def nccl():
    """The module of CuPy by which cards of several processes exchange arrays. Raises ImportError
    without NVIDIA's library, which CuPy brings along as little as that of MPI."""
    return importlib.import_module("cupy.cuda.nccl")


def _set_up_cpu():
    """Do once what the CPU needs: one BLAS thread, and a heap that keeps freed arrays.

    A BLAS with threads of its own would fight our pool. Left alone, the C library on Linux
    gives freed arrays back to the system, and every step waits for fresh pages.
    """
    global _blas_limit
    if _blas_limit is not None:
        return
    _blas_limit = threadpool_limits(1, user_api="blas")
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)      # not in every C library
        for option, value in MALLOC.items() if mallopt else ():
            # Before glibc 2.35 no threshold above 32 MiB is taken: then nothing has a mapping.
            if not mallopt(option, value) and option == THRESHOLD:
                mallopt(MAPPINGS, 0)


_blas_limit = None
