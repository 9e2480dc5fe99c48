"""Does the doctor name what a machine has, and find what is broken, with every kind of CuPy?"""
import importlib.metadata
import importlib.util
import math
import re
import subprocess
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

import alexnet
from tinynet import device
from tinynet.tools import doctor, machine


def fake_cupy(cards=0, driver=13000, peers=(), broken=(), runtime=13000):
    """What the doctor asks of CuPy. peers: pairs of cards that reach each other; broken: cards
    on which nothing can be computed."""
    current = []

    @contextmanager
    def card(index):
        current.append(index)
        yield SimpleNamespace(mem_info=(60 * 10 ** 9, 80 * 10 ** 9))
        current.pop()

    class Array:
        def __matmul__(self, other):
            if current[-1] in broken:
                raise RuntimeError("libcublas.so.13: cannot open shared object file\nmore")
            return self

        def get(self):
            return np.full((2, 2), 2.0)

    def reaches(i, j):
        assert i != j                                  # CUDA refuses to answer this one
        return int((i, j) in peers or (j, i) in peers)

    return SimpleNamespace(
        __version__="14.2.0", __file__="/site/cupy/__init__.py", ones=lambda *how: Array(),
        cuda=SimpleNamespace(
            is_available=lambda: cards > 0, Device=card, runtime=SimpleNamespace(
                getDeviceCount=lambda: cards, deviceCanAccessPeer=reaches,
                runtimeGetVersion=lambda: runtime, driverGetVersion=lambda: driver,
                getDeviceProperties=lambda i: dict(
                    name=b"NVIDIA H200", major=9, minor=0, totalGlobalMem=80 * 10 ** 9))))


@pytest.fixture
def told(monkeypatch, capsys):
    """A function: exit code and words of `alexnet.py doctor`, with this cupy installed."""
    def told(cupy, *packages):
        installed = [SimpleNamespace(metadata={"Name": name}, version="1")
                     for name in ("numpy", "cupy-xarray", *packages)]
        monkeypatch.setattr(importlib.metadata, "distributions", lambda: installed)
        monkeypatch.setattr(doctor, "loaded_mpi", lambda: "MPICH Version: 5.0.2")
        if isinstance(cupy, Exception):
            def fail():
                raise cupy
            monkeypatch.setattr(device, "cupy", fail)
        else:
            monkeypatch.setitem(sys.modules, "cupy", cupy)
        code = alexnet.main(["doctor"])
        return code, capsys.readouterr().out

    return told


def test_without_cupy_the_machine_is_sound_and_the_hint_says_what_to_install(told):
    code, out = told(None)                             # `import cupy` finds nothing
    assert code == 0 and "broken" not in out
    assert re.search('hint: .*:\n  .*pip install -e ".\\[gpu-cuda13\\]"', out)
    assert re.search("--device +cpu\n", out)
    for fact in ("tinynet", "Python", "platform", "NumPy", "BLAS", "Pillow", "cores", "memory",
                 "disk"):
        assert len(re.findall(f"^{fact} +\\S", out, re.MULTILINE)) == 1


def test_cupy_without_a_driver_is_a_hint(told):
    code, out = told(fake_cupy(driver=0), "cupy-cuda13x")
    assert code == 0 and "broken" not in out
    assert "14.2.0, cupy-cuda13x in /site/cupy" in out and "the driver is missing" in out
    assert re.search("hint: no NVIDIA card answers CuPy.*:\n  nvidia-smi\n", out)
    assert re.search("--device +cpu\n", out)


def test_two_cards_and_who_reaches_whom(told):
    code, out = told(fake_cupy(3, peers=[(0, 1)]), "cupy-cuda13x")
    assert code == 0 and "broken" not in out and "hint:" not in out
    lines = out[out.index("gpu0"):].splitlines()
    assert lines[0].endswith("NVIDIA H200, compute capability 9.0, 60.0 GB free of 80.0 GB")
    assert [line.strip() for line in lines[1:6:2]] == [
        "reads directly: gpu1", "reads directly: gpu0",
        "reads directly: no other card; copies go through the host"]
    assert re.search("--device +gpu0,gpu1\n", out)


def test_one_card_has_no_peers(told):
    code, out = told(fake_cupy(1), "cupy-cuda13x")
    assert code == 0 and "reads directly" not in out and re.search("--device +gpu0\n", out)


def test_a_card_that_cannot_compute_is_broken(told):
    code, out = told(fake_cupy(2, broken=[1]), "cupy-cuda13x")
    assert code == 1 and out.count("broken:") == 1
    assert "broken: gpu1 cannot compute, RuntimeError: libcublas.so.13: cannot open" in out
    assert "more" not in out and 'pip uninstall -y cupy-cuda13x && ' in out


def test_an_install_that_does_not_load_is_broken(told):
    for error in ImportError("libcudart.so.13: cannot open"), AttributeError("no cuda"):
        code, out = told(error, "cupy-cuda12x")
        assert code == 1 and "does not load (cupy-cuda12x)" in out
        assert f"broken: CuPy: {type(error).__name__}: {error}:\n  " in out
        assert 'uninstall -y cupy-cuda12x && ' in out


def test_two_packages_of_cupy_are_named(told):
    code, out = told(fake_cupy(1), "cupy-cuda12x", "cupy-cuda13x")
    assert code == 1
    assert re.search("two packages of CuPy.*:\n.* uninstall -y cupy-cuda12x cupy-cuda13x && "
                     ".*cuda13]", out)


def test_a_driver_too_old_for_cupy_gets_the_cupy_that_fits(told):
    code, out = told(fake_cupy(driver=12040), "cupy-cuda13x")
    assert code == 1 and "the driver is good for 12.4" in out
    assert "broken: CuPy is made for a newer driver" in out and "gpu-cuda12]" in out


def test_memory_is_the_smaller_of_machine_and_container(told, monkeypatch):
    monkeypatch.setattr(machine, "host_memory", lambda: (64 * 10 ** 9, 32 * 10 ** 9))
    monkeypatch.setattr(machine, "container_limit", lambda: 4 * 10 ** 9)
    assert "32.0 GB free of 64.0 GB; the limit of this container is 4.0 GB" in told(None)[1]
    monkeypatch.setattr(machine, "host_memory", lambda: (None, None))
    assert re.search("memory +unknown free of unknown", told(None)[1])


def test_the_limit_of_the_process_is_told_where_there_is_one(told, monkeypatch):
    monkeypatch.setattr(machine, "process_limit", lambda: math.inf)
    assert "ulimit" not in told(None)[1]
    monkeypatch.setattr(machine, "process_limit", lambda: 2 * 10 ** 9)
    assert "\n          ulimit leaves 2.0 GB for arrays\n" in told(None)[1]


def test_a_disk_too_full_for_checkpoints_is_a_hint(told, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=10 ** 9))
    code, out = told(None)
    assert code == 0 and re.search("hint: .*checkpoints:\n.*--output-dir", out)


def test_the_version_is_that_of_our_own_package(told):
    """Not that of a stranger's `tinynet`."""
    assert re.search("^tinynet +not installed, in ", told(None, "tinynet")[1])
    assert re.search("^tinynet +1, in ", told(None, "tinynet", "tinynet-alexnet")[1])


def test_all_else_is_said_before_mpi_is_loaded(monkeypatch, capsys):
    """It may take long, or never answer."""
    said = []
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(doctor, "loaded_mpi",
                        lambda: said.append(capsys.readouterr().out) or "Open MPI v5.0.7")
    assert alexnet.main(["doctor"]) == 0
    assert said[0].startswith("tinynet ") and re.search("--device +cpu\n$", said[0])
    assert re.match("MPI +mpi4py .*Open MPI v5.0.7\n +start with ", capsys.readouterr().out)


@pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="mpi4py is not installed")
def test_the_mpi_is_named_that_mpi4py_loads(monkeypatch):
    assert re.match("(MPICH Version: |Open MPI v|Intel)", doctor.loaded_mpi())
    monkeypatch.setenv("MPI4PY_MPIABI", "none")
    assert doctor.loaded_mpi().startswith("no MPI that loads: ")


def test_it_runs_as_a_module_too():
    done = subprocess.run([sys.executable, "-m", "tinynet.tools.doctor"], text=True,
                          capture_output=True)
    assert re.search("^NumPy +\\d", done.stdout, re.MULTILINE), done.stderr


def test_all_but_paths_and_commands_fits_into_80_columns(told, monkeypatch):
    monkeypatch.setattr(machine, "host_memory", lambda: (640 * 10 ** 9, 320 * 10 ** 9))
    monkeypatch.setattr(machine, "container_limit", lambda: 128 * 10 ** 9)
    monkeypatch.setattr(machine, "process_limit", lambda: 128 * 10 ** 9)
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 128)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=10 ** 9))
    packages = "cupy-cuda12x", "cupy-cuda13x"
    for cupy in None, fake_cupy(0), fake_cupy(2, driver=12040):
        out = told(cupy, *(packages if cupy else ()))[1]
        for line in out.splitlines():
            assert len(line) <= 80 or re.match("tinynet|Python|platform|BLAS|  ", line), line
