"""Which devices are there to test on, and what numbers are safe to differentiate at?"""
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import strict_cupy
from data.cifar10 import TEST, TRAIN
from helpers import GPUS
from tinynet import cores, device

NO_GPU = pytest.mark.skipif(GPUS < 1, reason="no GPU answers here (CuPy and a driver needed)")
TWO_GPUS = pytest.mark.skipif(GPUS < 2, reason=f"needs two GPUs, found {GPUS}")

STRICT = "strict "                       # before a device's name: on the stand-in for CuPy
DEVICES = ["cpu", "cpu1", "cpu0:a", STRICT + "gpu0",
           pytest.param("gpu0", marks=[pytest.mark.gpu, NO_GPU]),
           pytest.param("gpu0:b", marks=[pytest.mark.gpu, NO_GPU])]
PAIRS = ["cpu0,cpu1", STRICT + "gpu0,gpu1", STRICT + "gpu0:a,gpu0:b",
         pytest.param("gpu0:a,gpu0:b", marks=[pytest.mark.gpu, NO_GPU]),
         pytest.param("gpu0,gpu1", marks=[pytest.mark.two_gpus, TWO_GPUS])]


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs that are not there: the strict stand-in takes the place of CuPy. The value is the
    list of the copies that it sees. Small arrays are cut into slices as large ones are."""
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.Cupy())
    monkeypatch.setattr(cores, "GPU_SCRATCH", 32 << 10)
    strict_cupy.copies.clear()
    return strict_cupy.copies


@pytest.fixture(params=DEVICES)
def place(request):
    """Each device in turn, by name."""
    return _named(request)


@pytest.fixture(params=PAIRS)
def pair(request):
    """Each kind of two devices in turn."""
    return device.devices(_named(request))


def _named(request):
    if request.param.startswith(STRICT):
        request.getfixturevalue("gpus")
    return request.param.removeprefix(STRICT)


@pytest.fixture(scope="session")
def real_pictures():
    """The folder with CIFAR-10, Tiny ImageNet and ImageNet photographs."""
    if "TINYNET_DATA" not in os.environ:
        pytest.skip("TINYNET_DATA is not set: no real pictures here")
    return Path(os.environ["TINYNET_DATA"])


@pytest.fixture(scope="session")
def few(tmp_path_factory):
    """40 pictures of noise to learn from and 8 to test with, in the binary layout."""
    folder = tmp_path_factory.mktemp("cifar") / "cifar-10-batches-bin"
    folder.mkdir()
    rows = np.random.default_rng(0).integers(0, 256, (6, 8, 3073)).astype(np.uint8)
    rows[:, :, 0] %= 10
    for name, part in zip((*TRAIN, TEST), rows, strict=True):
        (folder / f"{name}.bin").write_bytes(part.tobytes())
    return str(folder)
