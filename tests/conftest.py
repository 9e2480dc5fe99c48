"""Which devices are there to test on, and what do several files of tests set up alike?"""
import contextlib
import io
import os
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import alexnet
import cifar_smoke
import command_line
import common
import host_kernels
import once
import strict_blas
import strict_cupy
import strict_nccl
from data.cifar10 import TEST, TRAIN
from helpers import GPUS, NO_GPU
from tinynet import cores, device, products, rng
from tinynet.pictures import packed, patterns, readers
from tinynet.pictures.batches import Loader
from tinynet.training.runs import Run
from tinynet.training.saved import Saved

TWO_GPUS = pytest.mark.skipif(GPUS < 2, reason=f"needs two GPUs, found {GPUS}")

STRICT = "strict "                       # before a device's name: on the stand-in for CuPy
DEVICES = ["cpu", "cpu1", "cpu0:a", STRICT + "gpu0",
           pytest.param("gpu0", marks=[pytest.mark.gpu, NO_GPU]),
           pytest.param("gpu0:b", marks=[pytest.mark.gpu, NO_GPU])]
PAIRS = ["cpu0,cpu1", STRICT + "gpu0,gpu1", STRICT + "gpu0:a,gpu0:b",
         pytest.param("gpu0:a,gpu0:b", marks=[pytest.mark.gpu, NO_GPU]),
         pytest.param("gpu0,gpu1", marks=[pytest.mark.two_gpus, TWO_GPUS])]


def pytest_configure():
    """In the background (`nohup pytest &`) a process begins with signals ignored, and what it
    starts would ignore them as well: tests sent Ctrl-C to runs that could not hear it, and waited
    for ever. What a handler ignores is heard by those it starts, as in a terminal."""
    folder = once.folder()                             # before there are workers, who share it
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):    # each start would compile all files
        os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    for name in "SIGINT", "SIGHUP":
        number = getattr(signal, name, None)           # there is no SIGHUP on Windows
        if number and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda number, frame: None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """Each takes up to 1.5 GB; several would share the memory of a GPU."""
    return 0 if GPUS else min(cores.cores(), 8)


def pytest_addoption(parser):
    parser.addoption("--fuzz", type=int, default=0, metavar="N", help=(
        "feed N damaged and odd inputs to every reader, and try every place of a crash"))
    parser.addoption("--soak", type=int, default=0, metavar="N", help=(
        "count memory, threads and open files over a run of N steps"))


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs that are not there: the strict stand-in takes the place of CuPy. The value is the
    list of the copies that it sees. Small arrays are cut into slices as large ones are, and
    threads read pictures: processes take a second to begin."""
    if not host_kernels.COMPILER:
        pytest.skip(host_kernels.WHY_NOT)
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.Cupy())
    monkeypatch.setitem(sys.modules, "cupy.cuda", strict_cupy.Cupy.cuda)
    monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", strict_nccl.Nccl())
    monkeypatch.setattr(products, "cublas", lambda xp: strict_blas.Blas())
    monkeypatch.setattr(products, "WORKSPACE", 1 << 10)
    products._workspace.cache_clear()
    monkeypatch.setattr(cores, "GPU_SCRATCH", 32 << 10)
    monkeypatch.setattr(readers, "beside_a_gpu", readers.Threads)
    strict_cupy.forget()
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
    name = request.param.removeprefix(STRICT)
    for each in device.devices(name):  # a test before may have chosen another, for the process
        each.multiply_in("fp32")
    return name


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


class TooLong(BaseException):
    """No handler of the program takes it for an error of its own."""


@pytest.fixture
def alarm():
    """No test of a command runs for ever. Two minutes, as a machine may have much else to do."""
    def too_long(number, frame):
        raise TooLong("a command did not end")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A small data set with a space in its name and hidden files."""
    folder = tmp_path_factory.mktemp("data") / "small patterns"
    patterns.draw(folder, train=command_line.TRAIN, val=command_line.VAL, progress=False)
    for parent in (folder / "val").iterdir():
        (parent / ".hidden").touch()
    return folder


@pytest.fixture(scope="session")
def trained(data, tmp_path_factory):
    """A finished run: its folder, output and exit code. Not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with contextlib.redirect_stdout(io.StringIO()) as out, \
            contextlib.redirect_stderr(io.StringIO()) as err:
        code = alexnet.main(["train", str(data), *command_line.SMALL, "--output-dir", str(folder)])
    return SimpleNamespace(folder=folder, code=code, out=out.getvalue(),
                           err=err.getvalue())


@pytest.fixture(scope="session")
def report(trained, tmp_path_factory):
    """The folder of a report: the.html and its CSV files."""
    folder = tmp_path_factory.mktemp("report")
    assert alexnet.main(["report", str(trained.folder), "-o", str(folder / "the.html"),
                         "--device", "cpu"]) == 0
    return folder


@pytest.fixture(scope="session")
def loaded(trained):
    """A Saved, its net, and a Loader of its validation set."""
    saved = Saved.of_alexnet(trained.folder / "last.npz")
    model, prepare = alexnet.load(saved, "cpu")
    return saved, model, Loader(packed.data_set(saved.data, "val"), prepare, 4)


@pytest.fixture
def run(capsys):
    """Run a command in this process: its exit code, and what it printed."""
    def run(*argv):
        capsys.readouterr()
        try:
            code = alexnet.main([str(word) for word in argv])
        except SystemExit as exit:                  # argparse leaves in this way
            code = exit.code
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return run


@pytest.fixture(scope="session")
def half_trained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("half") / "run"
    with contextlib.redirect_stdout(io.StringIO()):
        assert alexnet.main(["train", str(data), *command_line.SMALL, "--steps", "3",
                             "--output-dir", str(folder)]) == 0
    return folder


@pytest.fixture
def half(half_trained, tmp_path):
    """A run that stopped after three steps, in the middle of the first epoch: a copy, in which
    best.npz is another name of last.npz, as in the run itself."""
    folder = shutil.copytree(half_trained, tmp_path / "half")
    if half_trained.joinpath("best.npz").samefile(half_trained / "last.npz"):
        (folder / "best.npz").unlink()
        os.link(folder / "last.npz", folder / "best.npz")
    return folder


@pytest.fixture
def small_batches(monkeypatch):
    """Three batches an epoch."""
    monkeypatch.setattr(common, "BATCH", 16)
    monkeypatch.setattr(cifar_smoke, "BATCH", 16)


@pytest.fixture
def draws(monkeypatch):
    """The names under which weights are drawn, in order."""
    names, plain = [], rng.gaussian_weights

    def gaussian_weights(*shape, name, **how):
        names.append(name)
        return plain(*shape, name=name, **how)

    monkeypatch.setattr(rng, "gaussian_weights", gaussian_weights)
    return names


@pytest.fixture
def at_step(monkeypatch):
    """A function: let something happen, once, when a run has taken a step."""
    def at_step(step, job):
        saw, jobs = Run.saw, [job]

        def watched(run, *seen):
            saw(run, *seen)
            if run.step == step and jobs:
                jobs.pop()(run.folder)

        monkeypatch.setattr(Run, "saw", watched)
    return at_step
