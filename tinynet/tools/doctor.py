"""What is there to compute with, and what of it is broken?"""
import importlib.metadata
import math
import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import PIL
from PIL import features
from threadpoolctl import threadpool_info

from .. import cores, device
from ..progress import shown

CUPY = re.compile("cupy(-(cuda|rocm).*)?")
ROOM = 1.5e9                   # bytes: last.npz and best.npz of the full net, and one beside


def machine():
    """What there is to compute with: ([(name, fact), ...], broken, hints).

    broken: lines on what cannot work as it is; hints: on what could be better. Each says
    which command to run.
    """
    installed = {found.metadata["Name"]: found.version
                 for found in importlib.metadata.distributions()}
    total, free = memory()
    limit = container_limit()
    disk = {name: shutil.disk_usage(name).free for name in (".", tempfile.gettempdir())}
    blas = [f"{library['internal_api']} {library['version']}, {library['num_threads']} threads, "
            f"for {library.get('architecture', 'any processor')}"
            for library in threadpool_info() if library["user_api"] == "blas"]
    facts = [
        ("tinynet", f"{installed.get('tinynet', 'not installed')}, in {Path(__file__).parent}"),
        ("Python", f"{platform.python_version()}, {sys.executable}"),
        ("platform", platform.platform()),
        ("NumPy", np.__version__),
        ("BLAS", "; ".join(blas) or "unknown"),
        ("Pillow", f"{PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo') or 'no'}"),
        ("cores", f"{cores.cores()} to use of {os.cpu_count()}; as many threads, while "
                  "training with one BLAS thread each"),
        ("memory", f"{_GB(free)} free of {_GB(total)}"
                   + (f"; the limit of this container is {_GB(limit)}"
                      if limit < (total or math.inf) else "")),
        ("disk", "; ".join(f"{_GB(free)} free in {name}" for name, free in disk.items()))]
    packages = sorted(name for name in installed if name and CUPY.fullmatch(name))
    cards, broken, hints = gpus(packages)
    if disk["."] < ROOM:
        hints.append(f"a run of the full net keeps {_GB(ROOM)} of checkpoints: train with "
                     "--output-dir on another disk")
    return facts + cards, broken, hints


def gpus(packages):
    """The same of CuPy and the cards. packages: names of CuPy that pip has installed."""
    try:
        found = device.gpu_report()
    except Exception as error:                 # whatever it is, it is the finding
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy" and not packages:
            return ([("CuPy", "not installed"), ("--device", "cpu")], [],
                    [f"for NVIDIA cards: {_install()}   (gpu-cuda12 if the driver is older "
                     "than 580)"])
        return ([("CuPy", f"does not load ({', '.join(packages) or 'no package of pip'})"),
                 ("--device", "cpu")], [f"CuPy: {_first_line(error)}: {_install(packages)}"], [])
    driver, runtime, cards = found["driver"], found["runtime"], found["cards"]
    newer = bool(driver) and driver // 1000 < runtime // 1000
    again = _install(packages, 12 if newer or runtime < 13000 else 13)
    facts = [("CuPy", f"{found['version']}, {' and '.join(packages)} in {found['folder']}"),
             ("CUDA", f"CuPy is made for {_cuda(runtime)}; the driver is "
                      + (f"good for {_cuda(driver)}" if driver else "missing"))]
    broken = [f"two packages of CuPy at once: {again}"] if len(packages) > 1 else []
    hints = []
    if newer:
        broken.append(f"CuPy is made for a newer driver: {again}   (or a newer driver)")
    elif not cards:
        hints.append("CuPy finds no NVIDIA card that answers: nvidia-smi   (what it lists may be "
                     "hidden by CUDA_VISIBLE_DEVICES)")
    for i, card in enumerate(cards):
        facts.append((f"gpu{i}", f"{card['name']}, compute capability {card['capability']}, "
                                 f"{_GB(card['free'])} free of {_GB(card['total'])}"))
        if len(cards) > 1:
            reached = [f"gpu{j}" for j, reach in enumerate(card["peers"]) if reach]
            none = "no other card; what crosses goes through the host"
            facts.append(("", f"reads directly: {', '.join(reached) or none}"))
        if card["fault"]:
            broken.append(f"gpu{i} cannot compute, {_first_line(card['fault'])}: {again}")
    return [*facts, ("--device", device.default_devices())], broken, hints


def memory():
    """Bytes of memory in the machine and free of it; None where nobody tells (not Linux)."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None, None
    kB = {name: int(size) for name, size in re.findall(r"(\w+): +(\d+) kB", text)}
    return kB["MemTotal"] << 10, kB["MemAvailable"] << 10


def container_limit():
    """Bytes that the control group of this process may use; infinite if nobody says."""
    for path in "memory.max", "memory/memory.limit_in_bytes":              # versions 2 and 1
        try:
            return int(Path("/sys/fs/cgroup", path).read_text())
        except (OSError, ValueError):                                      # "max"
            pass
    return math.inf


def _install(packages=(), cuda=13):
    pip = f"{shlex.quote(shown(sys.executable))} -m pip"
    remove = f"{pip} uninstall -y {' '.join(packages)} && " if packages else ""
    return f'{remove}{pip} install -e ".[gpu-cuda{cuda}]"'


def _first_line(error):
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _cuda(version):
    return f"{version // 1000}.{version % 1000 // 10}"


def _GB(size):
    return "unknown" if size is None else f"{size / 1e9:.1f} GB"
