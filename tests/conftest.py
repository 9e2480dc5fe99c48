"""Which devices are there to test on, and what numbers are safe to differentiate at?"""
import os
from pathlib import Path

import numpy as np
import pytest

from tinynet import device

GPUS = device.gpu_count()
NO_GPU = pytest.mark.skipif(GPUS < 1, reason="no GPU answers here (CuPy and a driver needed)")
TWO_GPUS = pytest.mark.skipif(GPUS < 2, reason=f"needs two GPUs, found {GPUS}")

DEVICES = ["cpu", "cpu1", "cpu0:a", pytest.param("gpu0", marks=[pytest.mark.gpu, NO_GPU]),
           pytest.param("gpu0:b", marks=[pytest.mark.gpu, NO_GPU])]
PAIRS = ["cpu0,cpu1", pytest.param("gpu0:a,gpu0:b", marks=[pytest.mark.gpu, NO_GPU]),
         pytest.param("gpu0,gpu1", marks=[pytest.mark.two_gpus, TWO_GPUS])]


@pytest.fixture(params=DEVICES)
def place(request):
    """Each device in turn, by name."""
    return request.param


@pytest.fixture(params=PAIRS)
def pair(request):
    """Each kind of two devices in turn."""
    return device.devices(request.param)


@pytest.fixture(scope="session")
def real_pictures():
    """The folder with CIFAR-10, Tiny ImageNet and ImageNet photographs."""
    if "TINYNET_DATA" not in os.environ:
        pytest.skip("TINYNET_DATA is not set: no real pictures here")
    return Path(os.environ["TINYNET_DATA"])


def distinct(*shape, seed=0):
    """Different numbers in random order, at least 0.001 apart and none near zero, so that no
    kink of relu or max_pool is within reach of a gradient check's small step."""
    count = int(np.prod(shape))
    values = (np.arange(count) - count / 2 + 0.25) * max(2 / count, 0.001)
    return np.random.default_rng(seed).permutation(values).reshape(shape)
