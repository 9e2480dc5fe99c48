"""What is there to compute with, and what of it is broken?"""
import importlib.metadata
import importlib.util
import itertools
import math
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from PIL import features
from threadpoolctl import threadpool_info

from .. import cores, device
from ..progress import shown
from ..ranks import OF_LAUNCHERS
from . import machine

PACKAGE = "tinynet-alexnet"    # as pip knows it
CUPY = re.compile("cupy(-(cuda|rocm).*)?")
CHECKPOINTS = 1.5e9            # bytes: last.npz and best.npz of the full net, and one beside


class Report(NamedTuple):
    """What there is to compute with.

    facts: (name, fact) pairs; of MPI the last ones, which come when it has loaded. broken: what
    cannot work as it is. hints: what could be better. Each of these says which command to run.
    """
    facts: Iterable
    broken: list
    hints: list


def main():
    """Print the report. Returns the exit status: 1 if something is broken."""
    found = report()
    for line in lines(found):
        print(line, flush=True)        # nobody waits for MPI to read the other facts
    return 1 if found.broken else 0


def lines(found):
    """A Report as lines of text."""
    for name, fact in found.facts:
        yield f"{name:10}{fact}"
    yield from (f"broken: {line}" for line in found.broken)
    yield from (f"hint: {line}" for line in found.hints)


def report():
    """Look at this machine, its Python and its cards: a Report."""
    installed = {found.metadata["Name"]: found.version
                 for found in importlib.metadata.distributions()}
    total, free = machine.host_memory()
    limit, own = machine.container_limit(), machine.process_limit()
    limited = limit is not None and limit < (total or math.inf)
    disk = {name: shutil.disk_usage(name).free for name in (".", tempfile.gettempdir())}
    blas = [f"{library['internal_api']} {library['version']}, {library['num_threads']} threads, "
            f"for {library.get('architecture', 'any processor')}"
            for library in threadpool_info() if library["user_api"] == "blas"]
    facts = [
        ("tinynet", f"{installed.get(PACKAGE, 'not installed')}, in "
                    f"{Path(__file__).resolve().parent.parent}"),
        ("Python", f"{platform.python_version()}, {sys.executable}"),
        ("platform", platform.platform()),
        ("NumPy", np.__version__),
        ("BLAS", "; ".join(blas) or "unknown"),
        ("Pillow", f"{PIL.__version__}, libjpeg-turbo "
                   f"{features.version('libjpeg_turbo') or 'no'}; simplejpeg "
                   f"{installed.get('simplejpeg', 'not installed')}"),
        ("cores", f"{cores.cores()} to use of {os.cpu_count()}; training runs as many threads, "
                  "each with one of BLAS"),
        ("memory", f"{_GB(free)} free of {_GB(total)}"
                   + (f"; the limit of this container is {_GB(limit)}" if limited else "")),
        *[("", f"ulimit leaves {_GB(own)} for arrays")] * (own < math.inf),
        ("disk", "; ".join(f"{_GB(free)} free in {name}" for name, free in disk.items()))]
    packages = sorted(name for name in installed if name and CUPY.fullmatch(name))
    cards = gpus(packages)
    hints = [] if disk["."] >= CHECKPOINTS else [
        f"a run of the full net keeps {_GB(CHECKPOINTS)} of checkpoints:\n"
        "  train with --output-dir on another disk"]
    facts = itertools.chain(facts, cards.facts, mpi(installed))
    return Report(facts, cards.broken, hints + cards.hints)


def mpi(installed):
    """What there is for several processes (ranks.py), fact by fact."""
    if not importlib.util.find_spec("mpi4py"):
        yield "MPI", "mpi4py is not installed; for several processes:"
        yield "", _pip("mpi-local")
        return
    found = loaded_mpi()
    launcher = shutil.which("mpiexec", path=os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    yield "MPI", f"mpi4py {installed.get('mpi4py', '')}, {found}"
    yield "", f"start with {launcher or 'the mpirun of this MPI'}"
    if "Open MPI" in found and hasattr(os, "geteuid") and os.geteuid() == 0:
        yield "", "as root, its mpirun wants --allow-run-as-root"


def loaded_mpi():
    """The name of the MPI that mpi4py loads. A process of its own loads it: an MPI may end the
    process that does. (MPICH takes 40 ms for it, to measure a clock.)"""
    question = ("import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; "
                "print(MPI.Get_library_version().splitlines()[0])")
    alone = {name: value for name, value in os.environ.items()
             if not name.startswith(OF_LAUNCHERS)}
    try:
        asked = subprocess.run([sys.executable, "-c", question], env=alone, text=True, timeout=60,
                               capture_output=True)
    except subprocess.TimeoutExpired:
        return "no MPI that loads: it does not answer"
    name = " ".join(asked.stdout.replace("\0", "").split()).partition(",")[0]
    return name or "no MPI that loads: " + " ".join(asked.stderr.split())[-200:]


def gpus(packages):
    """A Report on CuPy and the cards. packages: the packages of CuPy that pip has installed."""
    try:
        found = machine.gpus()
    except Exception as error:                 # whatever it is, it is the finding
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy" and not packages:
            return Report([("CuPy", "not installed"), ("--device", "cpu")], [],
                          ["for NVIDIA cards (gpu-cuda12 if the driver is older than 580):"
                           + _install()])
        return Report([("CuPy", f"does not load ({', '.join(packages) or 'no package of pip'})"),
                       ("--device", "cpu")],
                      [f"CuPy: {_first_line(error)}:{_install(packages)}"], [])
    driver, runtime, cards = found["driver"], found["runtime"], found["cards"]
    newer = bool(driver) and driver // 1000 < runtime // 1000
    again = _install(packages, 12 if newer or runtime < 13000 else 13)
    facts = [("CuPy", f"{found['version']}, {' and '.join(packages)} in {found['folder']}"),
             ("NCCL", found.get("nccl") or "does not load; several ranks talk through the host"),
             ("CUDA", f"CuPy is made for {_cuda(runtime)}; the driver is "
                      + (f"good for {_cuda(driver)}" if driver else "missing"))]
    broken = [f"two packages of CuPy at once:{again}"] if len(packages) > 1 else []
    hints = []
    if newer:
        broken.append(f"CuPy is made for a newer driver; install a newer driver, or:{again}")
    elif not cards:
        hints.append("no NVIDIA card answers CuPy (CUDA_VISIBLE_DEVICES may hide some):\n"
                     "  nvidia-smi")
    for i, card in enumerate(cards):
        facts.append((f"gpu{i}", f"{card['name']}, compute capability {card['capability']}, "
                                 f"{_GB(card['free'])} free of {_GB(card['total'])}"))
        if len(cards) > 1:
            peers = [f"gpu{j}" for j, is_peer in enumerate(card["peers"]) if is_peer]
            none = "no other card; copies go through the host"
            facts.append(("", f"reads directly: {', '.join(peers) or none}"))
        if card["fault"]:
            broken.append(f"gpu{i} cannot compute, {_first_line(card['fault'])}:{again}")
    return Report([*facts, ("--device", device.default_devices())], broken, hints)


def _install(packages=(), cuda=13):
    """The command that installs CuPy instead of these packages, on a line of its own."""
    pip = f"{shlex.quote(shown(sys.executable))} -m pip"
    remove = f"{pip} uninstall -y {' '.join(packages)} && " if packages else ""
    return f'\n  {remove}{pip} install -e ".[gpu-cuda{cuda}]"'


def _pip(extra):
    return f"{shlex.quote(shown(sys.executable))} -m pip install -e \".[{extra}]\""


def _first_line(error):
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _cuda(version):
    return f"{version // 1000}.{version % 1000 // 10}"


def _GB(size):
    return "unknown" if size is None else f"{size / 1e9:.1f} GB"


if __name__ == "__main__":
    sys.exit(main())
