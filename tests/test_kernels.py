"""Do the kernels compute what the NumPy text says, do they stay inside their arrays, and what does
a training step ask of a GPU?

On a machine without one: kernels run on the host (host_kernels.py), and are compiled for two
generations of GPUs where nvcc is found.
"""
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import host_kernels
import kernel_cases
import strict_cupy
from alexnet import AlexNet
from helpers import NO_GPU, environment
from tinynet import columns, cores, kernels, ops, products
from tinynet.conv import conv2d
from tinynet.device import Device, precision_of, to_host
from tinynet.engine import Parameter, Tensor
from tinynet.errors import UserError
from tinynet.ops import softmax_cross_entropy
from tinynet.optim import SGD
from tinynet.pool import max_pool
from tinynet.tools import memory
from tinynet.training.evaluation import Meter
from tinynet.training.options import two_devices
from tinynet.training.recipes import RECIPES

NVCC = shutil.which("nvcc")


CASES = [pytest.param(check, id=what) for _, what, check in kernel_cases.cases()]


@pytest.mark.parametrize("check", CASES)
def test_a_kernel_computes_what_the_text_in_numpy_says(gpus, check):
    check()


@pytest.mark.gpu
@NO_GPU
@pytest.mark.parametrize("check", CASES)
def test_a_kernel_computes_it_on_a_gpu_as_well(check):
    Device("gpu0").multiply_in("fp32")
    check()


def test_the_sanitizer_and_the_comparisons_find_an_error_of_one(tmp_path, request):
    """Every error of PLANTED with --fuzz, some of them without."""
    every = 1 if request.config.getoption("--fuzz") else 9
    if not host_kernels.COMPILER:
        pytest.skip(host_kernels.WHY_NOT)
    variables = host_kernels.sanitized(tmp_path / "reports")
    done = subprocess.run(
        [sys.executable, kernel_cases.__file__, tmp_path / "reports", str(every)],
        env=environment(**variables), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    as_they_are, *planted = [line.split(" | ") for line in done.stdout.splitlines()]
    assert as_they_are == ["as they are", "NOBODY"]
    assert len(planted) == len(kernel_cases.PLANTED[::every])
    assert [line for line in planted if line[-1] == "NOBODY"] == []
    assert sum(line[-1] == "the sanitizer" for line in planted) >= len(planted) // 2


def test_an_array_that_32_bits_cannot_count_is_refused(gpus, monkeypatch):
    monkeypatch.setattr(kernels, "LARGEST", 100)
    with Device("gpu0") as device:
        x = device.put(np.zeros(100, np.float32))
        with pytest.raises(UserError, match="an array of 100 numbers.*smaller batch"):
            kernels.relu(x)
        assert kernels.relu(x[:99]).shape == (99,)


def test_a_kernel_takes_views_and_odd_addresses(gpus):
    with Device("gpu0") as device:
        x = device.put(np.arange(-20, 20, dtype=np.float32).reshape(5, 8))
        assert kernels.relu(x[:, ::2]).get().tolist() == np.maximum(x[:, ::2].get(), 0).tolist()
        shifted = x.reshape(-1)[3:]
        assert kernels.relu(shifted).get().tolist() == np.maximum(shifted.get(), 0).tolist()
        assert kernels.relu(x[:0]).shape == (0, 8)


def test_both_gradients_of_a_convolution_are_those_of_the_dy_that_they_are_asked_with(gpus):
    """They come out of one product, which is kept for the second to ask."""
    with Device("gpu0") as device:
        x, W, b = (device.put(np.ones(shape, np.float32))
                   for shape in ((2, 4, 4, 3), (3, 3, 3, 5), 5))
        y, dx, dW, db = columns.convolution(x, W, b, 1, (0, 0))
        dy = device.put(np.ones(y.shape, np.float32))
        for factor in 1.0, 2.0:
            assert dW(factor * dy).get().tolist() == np.full(W.shape, 8 * factor).tolist()
            assert db(3 * factor * dy).get().tolist() == [24 * factor] * 5


@pytest.mark.parametrize("where", range(4))
def test_a_nan_stays_a_nan(gpus, where):
    x = np.arange(4, dtype=np.float32)
    x[where] = np.nan
    with Device("gpu0") as device:
        x = device.put(x.reshape(1, 2, 2, 1))
        assert np.isnan(kernels.relu(x).get()).sum() == 1
        y, _ = kernels.max_pool(x, 2, 2, "first", (1, 1))
        assert np.isnan(y.get()).all()


@pytest.mark.parametrize("kind", [np.float64, np.float16])
def test_a_kernel_takes_a_gradient_of_another_width(gpus, kind):
    """An op of a user's may give one, and a CPU takes it."""
    with Device("gpu0") as device:
        y = device.put(np.arange(-4, 4, dtype=np.float32))
        dy = device.put(np.arange(8).astype(kind))
        assert kernels.relu_backward(y, dy).get().tolist() == [0, 0, 0, 0, 0, 5, 6, 7]
        assert kernels.relu_backward(y, y.astype(kind)).dtype == np.float32


@pytest.mark.parametrize("kind", [np.float64, np.float16])
@pytest.mark.parametrize("op", [
    lambda x, W, b: max_pool(x), lambda x, W, b: max_pool(x, ties="all"),
    lambda x, W, b: ops.dropout(x, keep=0.5, scale=2.0, seed=0, step=0, layer=1),
    lambda x, W, b: conv2d(x, W, b), lambda x, W, b: conv2d(x, W, b, stride=2)],
    ids=["max_pool", "ties", "dropout", "conv2d", "conv2d, stride 2"])
def test_what_a_kernel_writes_is_of_its_own_width(gpus, op, kind):
    """Whatever the width of dy: of another one, half would be left out, or written behind it."""
    draw = np.random.default_rng(0)
    arrays = [draw.standard_normal(shape, np.float32) for shape in ((2, 7, 7, 4), (3, 3, 4, 4),
                                                                   (4,))]
    found = []
    for place, width in ("cpu", np.float32), ("gpu0", kind):
        with Device(place) as device:
            y = op(*(Tensor(array, device, requires_grad=True) for array in arrays))
            up = (np.arange(y.size).reshape(y.shape) % 5).astype(width)
            found.append(to_host(y.node.grad_fns[0](device.put(up))))
    assert found[1] == pytest.approx(found[0], abs=1e-4)


@pytest.mark.parametrize("names, precision", [
    ("gpu0", products.COMPUTE_TF32), ("gpu1", products.COMPUTE_FP32),
    ("gpu0,gpu1", products.COMPUTE_FP32), ("gpu1,gpu0", products.COMPUTE_FP32)])
def test_two_unlike_cards_multiply_alike(gpus, monkeypatch, names, precision):
    """As the older one can, whichever is named first: it is one setting for both."""
    card = type(Device("gpu0").cuda)
    monkeypatch.setattr(card, "compute_capability", property(lambda self: f"{90 - 20 * self.id}"))
    found = two_devices(names)
    assert products.precision(found[0].xp) == precision
    assert precision_of(found, "tf32") == (
        "tf32" if precision == products.COMPUTE_TF32 else "fp32")


@pytest.mark.parametrize("velocity", [
    lambda put: put(np.zeros((3, 2), np.float32)).T, lambda put: put(np.zeros((2, 3))),
    lambda put: put(np.zeros(7, np.float32))[1:].reshape(2, 3)],
    ids=["transposed", "float64", "between two multiples of 16 bytes"])
def test_a_velocity_that_a_kernel_would_copy_is_updated_as_well(gpus, velocity):
    with Device("gpu0") as device:
        w = Parameter(np.ones((2, 3), np.float32), device)
        w.grad = device.put(np.ones((2, 3), np.float32))
        optimizer = SGD([("w", w)], lr=1.0, weight_decay=0.0)
        optimizer.velocity["w"] = velocity(device.put)
        optimizer.step()
        assert optimizer.velocity["w"].get().tolist() == [[-1.0] * 3] * 2


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Every kernel of the cases, as it would be given to the compiler of a GPU, in one file: each
    with a number in its name, since shapes are macros."""
    found = {}

    class Kernel(strict_cupy.Cupy.RawKernel):
        def __init__(self, code, name, options=()):
            found[code.replace(f"void {name}(", f"void {name}_{len(found)}(")] = options
            super().__init__(code, name, options)

    with pytest.MonkeyPatch.context() as patch:
        if not host_kernels.COMPILER:
            pytest.skip(host_kernels.WHY_NOT)
        patch.setattr(strict_cupy.Cupy, "RawKernel", Kernel)
        patch.setitem(sys.modules, "cupy", strict_cupy.Cupy())
        for _, _, check in kernel_cases.cases():
            check()
    undefine = "".join(f"#undef {name}\n" for name in sorted(set(
        re.findall(r"#define (\w+)", "".join(found)))))
    path = tmp_path_factory.mktemp("cuda") / "kernels.cu"
    path.write_text("".join(f"namespace n{i} {{\n{text}}}\n{undefine}"
                            for i, text in enumerate(found)))
    return path, len(found), next(iter(found.values()))


@pytest.mark.parametrize("generation", ["sm_80", "sm_90"])
def test_every_kernel_compiles_for_a_gpu_without_a_stack(texts, generation):
    if not NVCC:
        pytest.skip("no nvcc here: kernels cannot be compiled for a GPU")
    path, count, options = texts
    done = subprocess.run([NVCC, *options, f"-arch={generation}", "-cubin", "-Xptxas", "-v",
                           "-o", path.with_suffix(f".{generation}"), path],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    used = re.findall(r"(\d+) bytes (stack frame|spill stores|spill loads)", done.stderr)
    assert len(used) >= 3 * count and {size for size, _ in used} == {"0"}


# --- what a training step asks of a GPU ---------------------------------------------------


class Asked:
    """Counts, on the stand-in, the kernels that work is done by, and the bytes they read and
    write: of every operand and every result, once. A view is no work."""

    def __init__(self, monkeypatch):
        self.launches = self.bytes = 0
        run = strict_cupy._run

        def counted(function, args, kwargs):
            result = run(function, args, kwargs)
            operands = []
            strict_cupy._opened(args, operands)
            strict_cupy._opened(kwargs, operands)
            read = {id(x._numbers): x._numbers for x in operands}
            made = getattr(result, "_numbers", None)
            new = made is not None and id(made) not in read
            is_view = new and made.size and any(
                np.shares_memory(made, x) for x in read.values() if x.size)
            if not is_view and not function.__name__.startswith("empty"):
                several = function.__name__ in ("concatenate", "stack")
                self.launches += len(operands) if several else 1
                self.bytes += sum(x.nbytes for x in read.values()) + (made.nbytes if new else 0)
            return result

        monkeypatch.setattr(strict_cupy, "_run", counted)


def asked_by_a_step(places, batches, monkeypatch):
    """[(launches, bytes)] of training steps of the paper's net, each of a batch of another size.
    A step before them makes what is made once."""
    towers = two_devices(places)
    model = AlexNet(1000, towers, RECIPES["paper"])
    memory.without_weights(model)
    optimizer, meter = SGD(model.parameters(), 0.01), Meter()
    found = []
    with monkeypatch.context() as patch:
        for step, batch in enumerate([1, *batches]):
            images, labels = np.ones((batch, 227, 227, 3), np.float32), np.zeros(batch, int)
            there = towers[0].put(labels), Tensor(images, towers[0])
            strict_cupy.copies.clear()
            asked = Asked(patch)
            logits = model.train(step)(there[1])
            loss = softmax_cross_entropy(logits, labels=there[0])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            meter.add(loss, logits, there[0], 0.0)
            assert [copy for copy in strict_cupy.copies if copy.target == "host"] == []
            found.append((asked.launches, asked.bytes))
    return found[1:]


@pytest.mark.parametrize("places, most", [("gpu0", 350), ("gpu0,gpu1", 400)])
def test_a_step_takes_few_launches_and_moves_few_bytes(gpus, monkeypatch, places, most):
    """As counted at batch 128. And nobody waits for the GPU."""
    monkeypatch.setattr(cores, "GPU_SCRATCH", 1 << 30)
    (launches, two), (again, three) = asked_by_a_step(places, (2, 3), monkeypatch)
    moved = two + 126 * (three - two)
    print(f"{launches} launches, {moved / 1e9:.1f} GB")
    assert launches == again <= most
    assert moved <= 24e9
