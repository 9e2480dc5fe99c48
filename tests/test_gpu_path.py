"""The net on GPUs that are not there: what is copied, when the host waits, and what comes out.

Everything here runs on strict_cupy, the stand-in for CuPy that raises at the first thing a GPU
would refuse; so do the tests of other files for the devices called "strict ...".
"""
import ast
import re
import sys
from collections import Counter

import numpy as np
import pytest

import alexnet
import cupy_names
import strict_cupy
from cupy_names import NotInCuPy
from helpers import IMAGES, LABELS, ROOT, SMALL, net
from strict_cupy import Doubled, Mixed, Strided, WrongDevice
from strict_streams import Copy
from tinynet import ops
from tinynet.device import Device, devices
from tinynet.engine import Tensor
from tinynet.errors import UserError
from tinynet.optim import SGD
from tinynet.pictures import patterns
from tinynet.tools.anatomy import crossings
from tinynet.training.evaluation import Meter
from tinynet.training.options import two_devices

PLACES = ["gpu0", "gpu0:a,gpu0:b", "gpu0,gpu1"]
BATCH = 8
COMMAND = ["--recipe", "quickstart", "--kernels", "6,8,12,12,8", "--neurons", "16,16", "--crop",
           "67", "-b", str(BATCH), "--lr", "0.01", "--epochs", "2", "--schedule", "constant"]


# --- the whole net ----------------------------------------------------------------------


def two_steps(places):
    """Train two steps: the net, its losses, what each phase of the last one copied, its
    crossings, and the meter."""
    towers = two_devices(places)
    model = net(towers)
    optimizer = SGD(model.parameters(), lr=0.01)
    losses, meter = [], Meter()
    for step in range(2):
        seen = dict(batch=[], forward=[], backward=[], rest=[])

        def note(phase, seen=seen):
            seen[phase] = [*strict_cupy.copies]
            strict_cupy.copies.clear()

        strict_cupy.copies.clear()
        model.train(step)
        labels, image = towers[0].put(LABELS), Tensor(IMAGES, towers[0])
        note("batch")
        logits = model(image)
        loss = ops.softmax_cross_entropy(logits, labels=labels)
        note("forward")
        crossed = crossings(loss)
        optimizer.zero_grad()
        loss.backward()
        note("backward")
        optimizer.step()
        meter.add(loss, logits, labels, 0.0)
        note("rest")
        losses.append(loss)
    return model, [loss.item() for loss in losses], seen, crossed, meter


def card(name):
    return name.partition(":")[0]


@pytest.mark.parametrize("places", PLACES)
def test_a_step_copies_the_batch_and_seven_crossings_and_their_mirrors(gpus, places):
    _, _, seen, crossed, _ = two_steps(places)
    top, bottom = (card(str(device)) for device in two_devices(places))
    n, c2, c5, f6, f7 = len(IMAGES), 8, 8, 16, 16
    to_top = [n * 3 * 3 * c2 * 4, n * c5 * 4, n * f6 * 4, n * f7 * 4]
    seven = [Copy(*way, size) for size in to_top for way in ((bottom, top), (top, bottom))][:-1]
    if "," not in places:
        seven = []
    assert seen["batch"] == [Copy("host", top, LABELS.nbytes), Copy("host", top, IMAGES.nbytes)]
    assert seen["forward"] == [Copy(top, bottom, IMAGES.nbytes)][:len(seven)] + seven
    assert seen["forward"][1:] == [Copy(card(c.source), card(c.target), c.bytes) for c in crossed]
    assert seen["backward"] == [Copy(c.target, c.source, c.bytes) for c in reversed(seven)]
    assert seen["rest"] == []


def test_a_stream_for_every_thread_is_refused(gpus, monkeypatch):
    monkeypatch.setenv("CUPY_CUDA_PER_THREAD_DEFAULT_STREAM", "1")
    with pytest.raises(UserError, match="gpu1: unset CUPY_CUDA_PER_THREAD_DEFAULT_STREAM"):
        Device("gpu1")


@pytest.mark.parametrize("capability, precision, taken", [
    ("90", "tf32", "tf32"), ("80", "tf32", "tf32"), ("75", "tf32", "fp32"),
    ("90", "fp32", "fp32")])
def test_products_are_in_the_recipes_precision_where_the_card_has_it(
        gpus, monkeypatch, capability, precision, taken):
    seen = sys.modules["cupy"]._precisions
    monkeypatch.setattr(strict_cupy.Device, "compute_capability", capability)
    seen.clear()
    two_devices("gpu0,gpu1", SMALL.changed({"precision": precision}))
    assert seen == [taken, taken]


@pytest.mark.parametrize("places", PLACES)
def test_two_steps_on_gpus_give_the_losses_weights_and_errors_of_the_cpu(gpus, places):
    expected, losses_there, _, _, meter_there = two_steps("cpu")
    model, losses, _, _, meter = two_steps(places)
    assert losses == pytest.approx(losses_there, rel=1e-6)
    for (name, w), (_, v) in zip(model.parameters(), expected.parameters(), strict=True):
        assert w.data.dtype == w.grad.dtype == np.float32, name
        assert w.numpy() == pytest.approx(v.numpy(), rel=1e-5, abs=1e-7), name
    for key in "loss", "top1_error", "top5_error":
        assert meter.read()[key] == pytest.approx(meter_there.read()[key], rel=1e-6)


# --- the program ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    patterns.draw(folder, train=4, val=1, progress=False)
    return folder


def run(*argv):
    assert alexnet.main([str(word) for word in argv]) == 0


def train(data, folder, places, steps, *more):
    run("train", data, *COMMAND, "--device", places, "--steps", steps, "--output-dir", folder,
        "--print-freq", 100, *more)


@pytest.mark.parametrize("places", ["gpu0", "gpu0,gpu1"])
def test_a_longer_run_copies_nothing_more_than_its_steps(gpus, places, data, tmp_path):
    """So between two reports the host never waits for a GPU."""
    runs = []
    for steps in 2, 4:
        gpus.clear()
        train(data, tmp_path / str(steps), places, steps)
        runs.append(Counter(gpus))
    _, _, seen, _, _ = two_steps(places)
    step = Counter(copy._replace(bytes=copy.bytes // len(IMAGES) * BATCH)
                   for copies in seen.values() for copy in copies)
    images = Copy("host", "gpu0", IMAGES.nbytes // len(IMAGES) * BATCH)
    pictures = BATCH * (256 * 256 * 3 + 10 * (4 + 3) * 4)          # as bytes, and their places
    step -= Counter([images, images._replace(source="gpu0", target="gpu1")])
    for card in places.split(","):                     # each fetches them, and cuts its own crops
        step += Counter([Copy("host", card, pictures), Copy(card, card, images.bytes)])
    if places == "gpu0":                               # replayed: loss and logits are its own
        step += Counter([Copy("gpu0", "gpu0", size) for size in (4, 4 * 10 * BATCH)])
    two, four = runs
    assert four - two == step + step and two - four == Counter()


def test_a_run_goes_on_from_any_device_to_any_other(gpus, data, tmp_path, capsys):
    train(data, tmp_path / "cpu", "cpu", 4)
    train(data, tmp_path / "run", "gpu0,gpu1", 1)
    for steps, places in (2, "gpu0"), (3, "cpu0,cpu1"), (4, "gpu0:a,gpu0:b"):
        run("train", data, "--resume", tmp_path / "run", "--device", places, "--steps", steps)
    one, other = (np.load(tmp_path / name / "last.npz") for name in ("cpu", "run"))
    names = [name for name in one.files if name.startswith(("weights/", "velocity/"))]
    assert len(names) == 60
    for name in names:
        assert one[name].dtype == other[name].dtype == np.float32
        np.testing.assert_allclose(other[name], one[name], rtol=1e-4, atol=1e-6)


def test_ten_views_and_predictions_are_those_of_the_cpu(gpus, data, tmp_path, capsys):
    train(data, tmp_path, "gpu0,gpu1", 2)
    picture = next(data.glob("val/*/*.jpg"))
    said = []
    for places in "cpu", *PLACES:
        capsys.readouterr()
        for views in 1, 10:
            run("test", tmp_path, "--device", places, "--views", views)
        run("predict", tmp_path, picture, "--device", places)
        said.append(capsys.readouterr().out)
    assert said[0].count("%") >= 9                     # errors twice, and five classes
    assert said[1:] == said[:1] * len(PLACES)


# --- names ------------------------------------------------------------------------------


def calls_on_xp():
    """Every name after xp. in the package, and the keywords it is called with."""
    for path in [*(ROOT / "tinynet").rglob("*.py"), ROOT / "alexnet.py"]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        keywords = {node.func: [k.arg for k in node.keywords] for node in ast.walk(tree)
                    if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            dotted = isinstance(node, ast.Attribute) and re.fullmatch(r"xp\.([\w.]+)",
                                                                      ast.unparse(node))
            if dotted and dotted[1] not in strict_cupy.MODULES:
                yield f"{path.name}:{node.lineno}", dotted[1], keywords.get(node, [])


def test_every_name_and_keyword_after_xp_is_one_of_cupys():
    """Also in lines that no test on the stand-in reaches."""
    calls = [*calls_on_xp()]
    assert len(calls) > 20
    for where, name, keywords in calls:
        name = name.replace("add.", "ufunc.")          # add.at is a method of a ufunc
        if hasattr(strict_cupy.Cupy, name.partition(".")[0]):      # RawKernel: not in NumPy
            continue
        assert name in cupy_names.names, f"{where}: CuPy has no {name}"
        for keyword in keywords:
            assert f" {keyword}=" in cupy_names.names[name], f"{where}: {name}({keyword}=)"


WITH_CUPY = pytest.mark.skipif(cupy_names.real_cupy is None, reason="CuPy is not installed")


@WITH_CUPY
def test_the_names_on_file_are_those_of_the_real_cupy():
    real, on_file = cupy_names.names, cupy_names.names_on_file()
    shared = real.keys() & on_file.keys()              # NumPy's version has a say in it as well
    assert len(shared) > 400
    assert {name: on_file[name] for name in shared} == {name: real[name] for name in shared}


@WITH_CUPY
def test_the_stand_in_has_no_name_of_its_own():
    cupy = cupy_names.real_cupy
    for ours, real in ((strict_cupy.Cupy, cupy), (strict_cupy.ndarray, cupy.ndarray),
                       (strict_cupy.Device, cupy.cuda.Device)):
        for name in vars(ours):
            assert hasattr(real, name) or name.startswith("_") or name == "name", name


# --- the stand-in is strict -------------------------------------------------------------


@pytest.fixture
def cp(gpus):
    """The module, as tinynet gets it."""
    import cupy
    with cupy.cuda.Device(0):
        yield cupy


@pytest.fixture
def x(cp):
    return cp.array(np.ones((4, 6), np.float32))


@pytest.mark.parametrize("mix", [
    lambda cp, x, a: x + a, lambda cp, x, a: a + x, lambda cp, x, a: a @ x.T,
    lambda cp, x, a: cp.maximum(x, a), lambda cp, x, a: cp.concatenate([x, a]),
    lambda cp, x, a: x.__setitem__(..., a), lambda cp, x, a: x[a[0] > 0],
    lambda cp, x, a: cp.stack([x.sum(), np.float32(1)]), lambda cp, x, a: x.__iadd__(a),
    lambda cp, x, a: np.asarray(x), lambda cp, x, a: a.__setitem__(..., x),
    lambda cp, x, a: cp.array([x, x]), lambda cp, x, a: np.concatenate([x, x]),
    lambda cp, x, a: np.sum(x, axis=0)])
def test_arrays_of_numpy_do_not_mix_with_those_of_a_gpu(cp, x, mix):
    with pytest.raises(Mixed):
        mix(cp, x, np.ones((4, 6), np.float32))


@pytest.mark.parametrize("ufunc", [
    lambda x, a: np.exp(x), lambda x, a: np.add(x, x), lambda x, a: a.__iadd__(x)])
def test_elementwise_functions_of_numpy_refuse_arrays_of_a_gpu(x, ufunc):
    with pytest.raises(TypeError, match="does not support ufuncs"):
        ufunc(x, np.ones((4, 6), np.float32))


def test_numbers_mix_with_arrays_of_a_gpu(x):
    for y in x * 2, 2.0 - x, x / np.float32(2), x ** np.array(2, np.float32), np.float32(3) * x:
        assert y.shape == (4, 6) and y.dtype == np.float32 and y.device == Device("gpu0").cuda


@pytest.mark.parametrize("work", [
    lambda cp, x: x + 1, lambda cp, x: x.sum(), lambda cp, x: cp.exp(x), lambda cp, x: x[1:],
    lambda cp, x: x.get(), lambda cp, x: float(x.sum()), lambda cp, x: cp.asarray(x),
    lambda cp, x: x.__setitem__(0, 1), lambda cp, x: x.copy(), lambda cp, x: x @ x.T,
    lambda cp, x: cp.maximum(cp.zeros((4, 6), x.dtype), x), lambda cp, x: cp.zeros_like(x)])
def test_work_on_another_device_than_the_current_one_is_refused(cp, x, work):
    work(cp, x)
    with cp.cuda.Device(1), pytest.raises(WrongDevice, match="gpu0.*gpu1"):
        work(cp, x)


def test_work_must_say_for_which_device(gpus):
    with pytest.raises(WrongDevice, match="no `with device:`"):
        Device("gpu0").xp.zeros(3, np.float32)


@pytest.mark.parametrize("call", [
    lambda cp, x: cp.block([x]), lambda cp, x: x.newbyteorder, lambda cp, x: x.flat,
    lambda cp, x: cp.sum(x, where=x > 0), lambda cp, x: x.sum(initial=1.0),
    lambda cp, x: cp.exp(x, where=x > 0), lambda cp, x: cp.add.at(x, 0, 1, 2),
    lambda cp, x: cp.lib.stride_tricks.as_strided(x, (2,), (4,), writeable=False),
    lambda cp, x: cp.lib.stride_tricks.sliding_window_views, lambda cp, x: cp.random])
def test_what_cupy_does_not_have_is_refused(cp, x, call):
    with pytest.raises(NotInCuPy, match="CuPy"):
        call(cp, x)


@pytest.mark.parametrize("double", [
    lambda cp, x: x * np.float64(2), lambda cp, x: x + cp.arange(6), lambda cp, x: cp.zeros(4),
    lambda cp, x: (x > 0).mean(), lambda cp, x: (x > 0) / 2,
    lambda cp, x: cp.stack([x[0], cp.arange(6)])])
def test_float64_that_nobody_asked_for_is_refused(cp, x, double):
    with pytest.raises(Doubled):
        double(cp, x)


def test_float64_may_be_asked_for(cp, x):
    assert x.astype(np.float64).dtype == cp.zeros(3, float).dtype == np.float64
    assert (x.astype(np.float64) * 2).sum(dtype=np.float64).dtype == np.float64


def test_a_copy_between_devices_must_be_contiguous(cp, x):
    part = x[:, 1:]
    with cp.cuda.Device(1):
        assert cp.array(x).device == cp.cuda.Device(1)
        with pytest.raises(Strided, match="gpu0.*gpu1"):
            cp.array(part)


def test_a_product_writes_only_into_contiguous_memory(cp, x):
    out = cp.empty((4, 8), x.dtype)
    with pytest.raises(Strided):
        cp.matmul(x, x.T, out=out[:, :4])
    out = out[:2].reshape(4, 4)
    assert cp.matmul(x, x.T, out=out) is out
    assert out.get().tolist() == [[6.0] * 4] * 4


def test_memory_that_was_never_written_reads_as_nan(cp, x):
    for y in cp.empty((2, 3), np.float32), cp.empty_like(x):
        assert np.isnan(y.get()).all()


def test_every_copy_and_every_wait_is_noted(cp, x, gpus):
    gpus.clear()
    with cp.cuda.Device(1):
        there = cp.array(x)
        cp.asarray(np.zeros(5))
        total = there.sum()
        float(total), bool(total), int(total), total.item(), total.tolist()
        there.get(out=np.empty((4, 6), np.float32))
        there.set(np.zeros((4, 6), np.float32))
        cp.cuda.Device().synchronize()
        assert float(there.sum()) == 0
    assert gpus == [Copy("gpu0", "gpu1", 96), Copy("host", "gpu1", 40),
                    *[Copy("gpu1", "host", 4)] * 5, Copy("gpu1", "host", 96),
                    Copy("host", "gpu1", 96), Copy("gpu1", "host", 0), Copy("gpu1", "host", 4)]


def test_views_share_memory_and_operators_in_place_keep_the_array(cp, x):
    y = x.reshape(-1)[::2]
    same = y
    y += 1
    y[:1] = 5
    assert y is same and x.get().ravel().tolist() == [5] + [1, 2] * 11 + [1]
    cp.add.at(x, [0, 0], 1)
    assert x.get()[0].tolist() == [7, 3, 4, 3, 4, 3]
    windows = cp.lib.stride_tricks.as_strided(x, (3, 2), (4, 4))
    assert cp.einsum("ij,ij->i", windows, windows).get().tolist() == [58, 25, 25]
    assert cp.where(x > 3, x, 0.0).dtype == np.float32


def test_without_the_stand_in_there_are_no_gpus_that_are_not_there(request):
    before = sys.modules.get("cupy")
    request.getfixturevalue("gpus")
    assert sys.modules["cupy"] is not before
    assert devices("gpu0,gpu1")[1].xp is sys.modules["cupy"]
