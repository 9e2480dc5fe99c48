"""How much memory is there, and which cards?

Wherever a number of bytes is asked for, the answer is None if nobody knows it. What concerns
the host is read from the files of Linux.
"""
import math
import os
import re
from pathlib import Path

import numpy as np

from .. import cores, device, replay

if os.name == "posix":                 # it is not there on Windows
    import resource

STACK, BUFFER = 8 << 20, 32 << 20      # bytes of a thread, and of OpenBLAS in each, on Linux

# --- the memory of a device -------------------------------------------------------------


def place(device):
    """Whose memory a Device uses: "cpu", or "gpu0" for gpu0:a as well."""
    return device.name.partition(":")[0] if device.is_gpu else "cpu"


def in_use(device):
    """Bytes that this process holds of a device's memory."""
    if device.is_gpu:
        with device:
            return device.xp.get_default_memory_pool().total_bytes() + replay.held()
    return _kilobytes("/proc/self/status", "VmRSS")


def peak(device):
    """The most that in_use(device) has been since forget_peak(device).

    On a card it is in_use: CuPy's pools shrink only while a step is recorded.
    """
    return in_use(device) if device.is_gpu else _kilobytes("/proc/self/status", "VmHWM")


def forget_peak(device):
    """Let peak(device) count from now on."""
    if device.is_gpu:
        with device:
            device.xp.get_default_memory_pool().free_all_blocks()
    else:
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:            # not Linux, or not allowed: the peak of all our life
            pass


def available(device):
    """Bytes that this process holds, beside the program itself, or could still get on a device."""
    used = in_use(device)
    if device.is_gpu:
        with device:
            return device.xp.cuda.runtime.memGetInfo()[0] + used
    _, free = host_memory()
    if free is None:
        return None
    memory = min(free + used, container_limit() or math.inf)
    return min(memory - PROGRAM["VmRSS"], process_limit())


# --- the host ---------------------------------------------------------------------------


def host_memory():
    """(bytes of memory in the machine, bytes of it that are free)."""
    return _kilobytes("/proc/meminfo", "MemTotal"), _kilobytes("/proc/meminfo", "MemAvailable")


def container_limit():
    """Bytes that the control group of this process may use; None also if it has no limit."""
    for name in "memory.max", "memory/memory.limit_in_bytes":      # cgroups 2 and 1
        try:
            return int(Path("/sys/fs/cgroup", name).read_text())
        except (OSError, ValueError):                  # not there; "max"
            pass
    return None


def process_limit():
    """Bytes that arrays of this process may take by its own limits, ulimit -v and -d; infinity if
    it has none.

    These limits count what is mapped, written to or not: besides arrays that is the program, a
    stack for each thread, and OpenBLAS's buffer for each that multiplies.
    """
    if os.name != "posix":
        return math.inf
    taken = cores.cores() * (STACK + BUFFER) + 2 * STACK       # two threads read pictures
    limits = [(resource.getrlimit(kind)[0], PROGRAM[name]) for kind, name in (
        (resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData"))]
    return min((max(0, limit - program - taken) for limit, program in limits
                if limit != resource.RLIM_INFINITY), default=math.inf)


def _kilobytes(path, name):
    """The line "name:  123 kB" of a file of Linux, in bytes."""
    try:
        text = Path(path).read_text()
    except OSError:
        return None
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return found and 1024 * int(found[1])


# Bytes that the program itself takes: this is read before there is any net.
PROGRAM = {name: _kilobytes("/proc/self/status", name) or 0 for name in (
    "VmRSS", "VmSize", "VmData")}


# --- the cards --------------------------------------------------------------------------


def gpus():
    """What CuPy says of itself and of the cards, as a dict.

    version, folder: CuPy's. runtime, driver: versions of CUDA as 13000; driver 0: there is
    none. nccl: its version, None without it. cards: a dict for each, see _card. Raises whatever
    CuPy's import raises.
    """
    cupy = device.cupy()
    runtime, count = cupy.cuda.runtime, device.gpu_count()
    return dict(version=cupy.__version__, folder=os.path.dirname(cupy.__file__),
                runtime=runtime.runtimeGetVersion(), driver=runtime.driverGetVersion(),
                nccl=_nccl(), cards=[_card(cupy, i, count) for i in range(count)])


def _nccl():
    try:
        return str(device.nccl().get_version())
    except ImportError:
        return None


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
