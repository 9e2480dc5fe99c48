"""What a training step needs, read off its graph."""
import math
import mmap
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import alexnet
import strict_cupy
from helpers import ROOT, environment
from tinynet import cores
from tinynet.cores import LANES
from tinynet.device import devices
from tinynet.engine import Parameter, Tensor
from tinynet.pictures.batches import Loader
from tinynet.ranks import Pretended
from tinynet.tools import bench as speed
from tinynet.tools import machine, memory
from tinynet.training.program import exit_status
from tinynet.training.recipes import RECIPES

if os.name == "posix":
    import resource

MB = 10 ** 6
NONE = "no batch is sure to fit: take another --device, or smaller --kernels and --neurons"


def needs(names, recipe="quickstart", classes=10, **options):
    recipe = RECIPES[recipe].changed(options)
    model = memory.without_weights(alexnet.AlexNet(classes, devices(names), recipe))
    return memory.of_model(model)


def test_weights_velocities_and_gradients_are_four_bytes_a_parameter():
    need, = needs("cpu", "paper", 1000).values()
    assert need.weights == need.velocities == need.gradients == 4 * 60_965_224


def test_activations_are_those_that_a_gradient_needs_each_once():
    """By hand, in floats of one image: what relu, lrn, pool and dropout put out, and dropout's
    mask; and the tiles of conv2 ... conv5 at their points, instead of what exchange copies to
    conv3. Not the output of a convolution, nor that of a pool before exchange copies it."""
    k1, k2, k3, k4, k5 = RECIPES["quickstart"].kernels
    n6, n7 = RECIPES["quickstart"].neurons
    tower = (k1 * (2 * 55 ** 2 + 27 ** 2) + k2 * (2 * 27 ** 2 + 13 ** 2)   # relu, lrn, pool
             + (k3 + k4) * 13 ** 2                                   # relu, relu
             + (7 * 8) ** 2 * k1 + (3 * 7) ** 2 * (2 * k2 + k3 + k4)     # tiles of 8 x 8, 7 x 7
             + k5 * (13 ** 2 + 6 ** 2) + 2 * k5 * 6 ** 2             # relu, pool, exchange
             + 2 * n6 + 2 * n6 + 2 * n7)                             # relu, mask; exchange
    need, = needs("cpu").values()
    blocks = 228 ** 2 * 3              # of the image: conv1 makes them, each tower its own
    assert need.kept == pytest.approx(4 * (2 * blocks + 2 * tower), rel=0.02)


def test_scratch_holds_the_partial_sums_of_the_largest_convolution():
    need, = needs("cpu", "paper", 1000).values()
    assert need.work >= LANES * 4 * 3 * 3 * 256 * 192
    assert need.passing == 2 * 4 * 55 * 55 * 48                      # dy and dx of relu


def test_every_thread_has_scratch_of_its_own(monkeypatch):
    monkeypatch.setattr(cores, "_threads", 1)
    one, = needs("cpu").values()
    monkeypatch.setattr(cores, "_threads", 5)
    five, = needs("cpu").values()
    assert five.work - one.work == 4 * cores.CPU_SCRATCH


def test_two_devices_need_together_what_one_needs_and_an_image_more():
    one, = needs("cpu", conv="im2col").values()
    pair = needs("cpu0,cpu1", conv="im2col")
    together = memory.by_place(pair)["cpu"]
    assert len(pair) == 2 and together.weights == one.weights
    assert together.kept - one.kept == pytest.approx(4 * 227 ** 2 * 3, rel=0.1)


def test_the_largest_batch_fits_and_one_more_does_not():
    need = memory.Need(weights=5 * MB, kept=2 * MB, passing=MB)
    assert need.largest_batch(12 * MB - 1) == 2 and need.largest_batch(11 * MB) == 2
    assert need.total(2) == 11 * MB and need.total(3) > 12 * MB
    assert need.largest_batch(4 * MB) == 0


def test_show_prints_what_each_device_needs(capsys):
    assert alexnet.main(["show", "--device", "cpu0,cpu1"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"MB at batch 128 +weights +velocities +gradients +activations", out)
    weights = [float(size) for size in re.findall(r"^  cpu[01] +([\d.]+)", out, re.MULTILINE)]
    assert len(weights) == 2 and sum(weights) == pytest.approx(4 * 60_965_224 / MB, abs=0.1)


def too_large(*args):
    raise MemoryError("a stand-in")


@pytest.mark.parametrize("command, classes", [
    (["train"], 10), (["train", "--resume", "auto"], 10), (["bench"], 1000),
    (["bench", "--classes", "7"], 7)])
def test_out_of_memory_says_which_batch_fits(monkeypatch, capsys, tmp_path, command, classes):
    """Of a net for the classes that the data have."""
    net = ["--recipe", "quickstart", "--device", "cpu", "-b", "900"]
    need, = needs("cpu", classes=classes).values()
    bench = command[0] == "bench"
    need.kept += (1 if bench else 4) * 4 * 3 * 227 ** 2            # pictures of other batches
    need.work += speed.CEILINGS * bench
    monkeypatch.setattr(machine, "available", lambda device: need.total(17) / memory.FILLED + 1)
    monkeypatch.setattr(alexnet.SGD, "__init__", too_large)
    where = []
    if command[0] == "train":
        alexnet.patterns.draw(tmp_path / "data", train=1, val=1, progress=False)
        where = [str(tmp_path / "data"), "--output-dir", str(tmp_path / "run")]
    assert alexnet.main([command[0], *where, *command[1:], *net]) == 1
    err = capsys.readouterr().err
    assert "out of memory" in err and "MB at batch 900" in err and "Traceback" not in err
    assert "the largest batch that fits: --batch-size 17\n" in err


def advice(available):
    return [*memory.advice_lines({devices("cpu")[0]: memory.Need(weights=5, kept=1)}, 2,
                                 available)]


def test_a_net_that_does_not_fit_at_all_is_said_to():
    assert advice({"cpu": 3})[-1] == NONE


def test_a_batch_that_did_not_fit_is_not_advised():
    """The memory may have been short for a while only, or the count be wrong."""
    assert advice({"cpu": 10 ** 9})[-1] == "the largest batch that fits: --batch-size 1"


def test_of_a_memory_some_is_left_free():
    assert advice({"cpu": 6 / 0.94})[-1] == "the largest batch that fits: --batch-size 1"
    assert advice({"cpu": 6 / 0.96})[-1] == NONE


def test_the_batches_that_wait_are_counted_as_the_loader_has_them():
    assert memory.BATCHES == Loader([], None, 1).ahead + 2


def test_what_is_kept_once_for_every_batch_is_not_of_an_image():
    w, v = (Parameter(np.zeros(count, np.float32)) for count in (1000, 10))

    def loss_of(count):
        once = w * Tensor(np.zeros(1000, np.float32))
        return once.sum() + (v * Tensor(np.zeros((count, 10), np.float32))).sum()

    need, = memory.needs(loss_of).values()
    assert need.kept == 4 * 10
    scratch = cores.scratch_of_all(w.device)
    assert need.work - scratch == pytest.approx(4 * 1000, abs=16)      # and the two sums


@pytest.mark.parametrize("names, cards", [("gpu0:a,gpu0:b", 1), ("gpu0,gpu1", 2)])
def test_every_card_has_room_for_the_pictures_that_wait(gpus, monkeypatch, names, cards):
    """Devices on one card share it."""
    model = alexnet.AlexNet(10, devices(names), RECIPES["quickstart"])
    loader = Loader([], SimpleNamespace(statistics=SimpleNamespace(mean=np.zeros(3))), 7, 1,
                    model.devices)
    held = [sum(room.bytes.nbytes for room in card.rooms) for card in loader.maker.cards]
    needs, told = memory.of_model(memory.without_weights(model)), []
    monkeypatch.setattr(machine, "available", lambda device: 1 << 40)
    monkeypatch.setattr(memory, "advice_lines", lambda needs, *rest: told.append(needs) or [])
    memory.advice(model, 7)
    more = [7 * (told[0][device].kept - needs[device].kept) for device in needs]
    assert [size for size in more if size] == held and len(held) == cards


def test_a_rank_has_room_for_its_own_pictures(monkeypatch):
    told, recipe = [], RECIPES["quickstart"]
    monkeypatch.setattr(memory, "advice_lines", lambda needs, *rest: told.append(needs) or [])
    for size in 1, 4:
        model = alexnet.build(10, devices("cpu") * 2, recipe, Pretended(size))
        before, = memory.of_model(memory.without_weights(model)).values()
        memory.advice(model, 64)
        after, = told.pop().values()
        assert after.kept - before.kept == memory.BATCHES * 12 * recipe.crop ** 2 // size


@pytest.mark.parametrize("room, kernels", [(10 ** 9, 2 ** 20), (10 ** 6, 4), (10 ** 9, 4)])
def test_a_net_without_room_is_told_by_the_shapes_of_its_weights(monkeypatch, room, kernels):
    """Nothing is drawn, be there room for the weights or not."""
    recipe = RECIPES["quickstart"].changed(dict(kernels=(kernels, 8, 8, 8, 8)))
    model = alexnet.AlexNet(10, devices("cpu"), recipe)
    size = sum(4 * math.prod(w.shape) for _, w in model.parameters())
    monkeypatch.setattr(machine, "available", lambda device: room)
    monkeypatch.setattr(alexnet.AlexNet, "forward", too_large)
    first, head, row, there, last = memory.advice(model, 900).split("\n")
    assert first == "out of memory; this is what a net without images needs"
    assert head.split()[:4] == ["MB", "at", "batch", "0"] and last == NONE
    number = f"{size / MB:,.1f}"
    assert row.split() == ["cpu", *[number] * 3, "0.0", "0.0", f"{3 * size / MB:,.1f}"]
    assert there == f"  available on cpu: {room / MB:,.1f} MB"


def test_the_failed_step_makes_room(monkeypatch):
    model = alexnet.AlexNet(10, devices("cpu"), RECIPES["quickstart"]).initialize()
    for _, w in model.parameters():
        w.grad = w.data
    assert not any(w.grad is not None or w.data.any()
                   for _, w in memory.without_weights(model).parameters())


@pytest.mark.parametrize("text", [
    "cudaErrorMemoryAllocation: out of memory", "CUDA_ERROR_OUT_OF_MEMORY: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED"])
def test_a_card_that_says_so_itself_is_out_of_memory(capsys, text):
    def run():
        raise RuntimeError(text)

    assert exit_status("x", run, out_of_memory=lambda: "a batch of 2 fits") == 1
    assert capsys.readouterr().err == "x: error: a batch of 2 fits\n"


def test_no_error_of_the_count_hides_that_memory_was_short(capsys):
    def run():
        raise MemoryError

    assert exit_status("x", run, out_of_memory=lambda: 1 / 0) == 1
    assert capsys.readouterr().err == "x: error: out of memory\n"


@pytest.mark.parametrize("error", [
    RuntimeError("can't start new thread"),
    ImportError("x.so: failed to map segment from shared object")])
def test_a_thread_or_a_library_without_room_is_one_line(capsys, error):
    def run():
        raise error

    assert exit_status("x", run) == 1
    assert capsys.readouterr().err == (
        f"x: error: {error}; is a limit reached, ulimit -v or -u?\n")


@pytest.mark.parametrize("error", [RuntimeError, ImportError, NotImplementedError])
def test_other_errors_of_these_kinds_stay_what_they_are(error):
    def run():
        raise error("can't be")

    with pytest.raises(error, match="can't be"):
        exit_status("x", run)


@pytest.mark.parametrize("command, less", [
    ("train x", ""), ("export a b", ""), ("doctor", ""),
    ("predict a b", "a smaller --batch-size, "), ("test a", "a smaller --batch-size, "),
    ("bench --input", "a smaller --batch-size, "),
    ("show", "smaller --classes, --kernels and --neurons, ")])
def test_what_is_advised_is_an_option_of_the_command(command, less):
    args = alexnet.parser().parse_args(command.split())
    assert args.out_of_memory() == f"out of memory; what may help: {less}a higher ulimit -v"
    for option in re.findall(r"--(\w+-?\w+)", less):
        assert hasattr(args, option.replace("-", "_"))


def limited(size, *words):
    """What `alexnet.py train` says on one core, with at most `size` bytes of addresses."""
    def limit():
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        resource.setrlimit(resource.RLIMIT_AS, (size, size))

    done = subprocess.run(
        [sys.executable, ROOT / "alexnet.py", "train", "--device", "cpu", *words], text=True,
        preexec_fn=limit, capture_output=True, env=environment(OPENBLAS_NUM_THREADS="1"))
    assert done.stderr.count("Traceback") == 0
    return done


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space, as Linux has them")
def test_under_a_limit_the_batch_that_is_advised_runs(tmp_path):
    alexnet.patterns.draw(tmp_path / "data", train=12, val=1, progress=False)
    small = [tmp_path / "data", "--recipe", "quickstart", "--kernels", "4,8,8,8,8", "--neurons",
             "16,16", "--steps", "1", "--output-dir", tmp_path / "run"]
    full = limited(400 * MB, tmp_path / "data", "--recipe", "paper", "--output-dir",
                   tmp_path / "full")
    assert full.returncode == 1 and full.stderr.endswith(NONE + "\n")
    done = limited(300 * MB, *small, "-b", "3000")
    assert done.returncode == 1
    batch = re.search(r"the largest batch that fits: --batch-size (\d+)\n$", done.stderr)[1]
    assert 5 < int(batch) < 120
    assert limited(300 * MB, *small, "-b", batch).returncode == 0


def test_where_nobody_knows_the_memory_nothing_is_promised():
    lines = advice({"cpu": None})
    assert lines[-1] == "try a smaller --batch-size" and not any("available" in x for x in lines)


def test_this_machine_knows_its_memory():
    here, = devices("cpu")
    if machine.in_use(here) is None:
        pytest.skip("no /proc here")
    before = machine.in_use(here)
    machine.forget_peak(here)
    lots = np.frombuffer(mmap.mmap(-1, 64 * MB), np.uint8)        # no freed memory again
    lots += 1
    assert machine.in_use(here) - before > 60 * MB
    del lots
    assert machine.peak(here) - before > 60 * MB
    assert machine.available(here) > machine.in_use(here)


@pytest.mark.parametrize("container, own, expected", [
    (None, math.inf, 4), (4, math.inf, 3), (6, math.inf, 4), (None, 2, 2), (4, 2, 2), (4, 9, 3)])
def test_available_is_what_we_hold_and_what_is_free_within_the_limits(monkeypatch, container, own,
                                                                      expected):
    """The program itself, of which nothing can be spared, does not count."""
    monkeypatch.setattr(machine, "in_use", lambda device: 2)
    monkeypatch.setattr(machine, "host_memory", lambda: (8, 3))
    monkeypatch.setattr(machine, "container_limit", lambda: container)
    monkeypatch.setattr(machine, "process_limit", lambda: own)
    monkeypatch.setitem(machine.PROGRAM, "VmRSS", 1)
    assert machine.available(devices("cpu")[0]) == expected


@pytest.mark.skipif(os.name != "posix", reason="there are no such limits")
@pytest.mark.parametrize("addresses, data, expected", [
    (-1, -1, math.inf), (600, -1, 600 - 100 - 96), (-1, 600, 600 - 50 - 96),
    (600, 500, 500 - 50 - 96), (90, -1, 0)])
def test_limits_of_the_process_count_threads_and_program(monkeypatch, addresses, data, expected):
    """In MiB: on each of two cores a stack of 8 and a buffer of 32, and two readers' stacks."""
    limits = {resource.RLIMIT_AS: addresses, resource.RLIMIT_DATA: data}
    limits = {kind: resource.RLIM_INFINITY if limit < 0 else limit << 20
              for kind, limit in limits.items()}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limits[kind], resource.RLIM_INFINITY))
    monkeypatch.setattr(machine.cores, "cores", lambda: 2)
    monkeypatch.setattr(machine, "PROGRAM", dict(VmSize=100 << 20, VmData=50 << 20))
    assert machine.process_limit() == expected * (1 if expected == math.inf else 1 << 20)


def test_windows_has_no_such_limits(monkeypatch):
    monkeypatch.setattr(machine, "os", SimpleNamespace(name="nt"))
    assert machine.process_limit() == math.inf


def test_what_nobody_knows_is_none(monkeypatch, tmp_path):
    """On a system without the files of Linux."""
    monkeypatch.setattr(machine, "Path", lambda *parts: tmp_path / "no" / "file")
    here, = devices("cpu")
    machine.forget_peak(here)
    assert machine.host_memory() == (None, None)
    assert [f(here) for f in (machine.in_use, machine.peak, machine.available)] == [None] * 3
    assert machine.container_limit() is None


def test_a_container_without_limit_has_none(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(machine, "Path", lambda folder, name: tmp_path / name)
    assert machine.container_limit() is None
    (tmp_path / "memory.max").write_text("4096\n")
    assert machine.container_limit() == 4096


def test_on_a_card_cupys_pool_counts(gpus, monkeypatch):
    """What the pool holds can be used again, so it is available beside what is free."""
    card, = devices("gpu1")
    current, freed = [], []

    def here(value):
        current.append(strict_cupy.Device().name)      # raises where no device is current
        return value

    pool = SimpleNamespace(total_bytes=lambda: here(3 * MB),
                           free_all_blocks=lambda: freed.append(here(True)))
    runtime = SimpleNamespace(memGetInfo=lambda: here((10 * MB, 80 * MB)))
    monkeypatch.setattr(card, "xp", SimpleNamespace(get_default_memory_pool=lambda: pool,
                                                    cuda=SimpleNamespace(runtime=runtime)))
    assert machine.in_use(card) == machine.peak(card) == 3 * MB
    assert machine.available(card) == 13 * MB
    machine.forget_peak(card)
    assert freed == [True] and set(current) == {"gpu1"}


def test_devices_on_one_card_share_its_memory(gpus):
    places = [machine.place(device) for device in devices("cpu,cpu1,cpu0:a,gpu0:a,gpu0:b,gpu1")]
    assert places == ["cpu"] * 3 + ["gpu0", "gpu0", "gpu1"]


def test_what_a_large_net_on_cards_needs_fits_into_80_columns():
    gpu = memory.Need(weights=10 ** 10, velocities=10 ** 10, gradients=10 ** 10, kept=10 ** 7)
    lines = [*memory.advice_lines({devices("cpu0:left")[0]: gpu}, 1024, {"cpu": 8 * 10 ** 10})]
    assert max(map(len, lines)) <= 80 and "available on cpu: 80,000.0 MB" in lines[3]
