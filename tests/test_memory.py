"""What a training step needs, read off its graph."""
import mmap
import re

import numpy as np
import pytest

import alexnet
from tinynet import device
from tinynet.cores import LANES
from tinynet.device import devices
from tinynet.tools import memory
from tinynet.training.recipes import RECIPES

MB = 10 ** 6


def needs(names, recipe="quickstart", classes=10, **options):
    recipe = RECIPES[recipe].changed(options)
    model = memory.without_weights(alexnet.AlexNet(classes, devices(names), recipe))
    return alexnet.needs(model)


def test_weights_velocities_and_gradients_are_four_bytes_a_parameter():
    need, = needs("cpu", "paper", 1000).values()
    assert need.weights == need.velocities == need.gradients == 4 * 60_965_224


def test_activations_are_those_that_a_gradient_needs_each_once():
    """By hand, in floats of one image: what relu, lrn, pool and dropout put out, and dropout's
    mask. Not the output of a convolution, nor that of a pool before exchange copies it."""
    k1, k2, k3, k4, k5 = RECIPES["quickstart"].kernels
    n6, n7 = RECIPES["quickstart"].neurons
    tower = (k1 * (2 * 55 ** 2 + 27 ** 2) + k2 * (2 * 27 ** 2 + 13 ** 2)   # relu, lrn, pool
             + 2 * k2 * 13 ** 2 + (k3 + k4) * 13 ** 2                # exchange, relu, relu
             + k5 * (13 ** 2 + 6 ** 2) + 2 * k5 * 6 ** 2             # relu, pool, exchange
             + 2 * n6 + 2 * n6 + 2 * n7)                             # relu, mask; exchange
    need, = needs("cpu").values()
    blocks = 228 ** 2 * 3              # of the image: conv1 makes them, each tower its own
    assert need.kept == pytest.approx(4 * (2 * blocks + 2 * tower), rel=0.02)


def test_scratch_holds_the_partial_sums_of_the_largest_convolution():
    need, = needs("cpu", "paper", 1000).values()
    assert need.work >= LANES * 4 * 3 * 3 * 256 * 192
    assert need.passing == 2 * 4 * 55 * 55 * 48                      # dy and dx of relu


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


@pytest.mark.parametrize("command", [["train"], ["train", "--resume", "auto"], ["bench"]])
def test_out_of_memory_says_which_batch_fits(monkeypatch, capsys, tmp_path, command):
    net = ["--recipe", "quickstart", "--device", "cpu", "-b", "900"]
    need, = needs("cpu", classes=1000).values()
    monkeypatch.setattr(device.Device, "room", lambda self: need.total(17) + 1)
    monkeypatch.setattr(alexnet.AlexNet, "initialize", too_large)
    where = []
    if command[0] == "train":
        alexnet.patterns.draw(tmp_path / "data", train=1, val=1, progress=False)
        where = [str(tmp_path / "data"), "--output-dir", str(tmp_path / "run")]
    assert alexnet.main([command[0], *where, *command[1:], *net]) == 1
    err = capsys.readouterr().err
    assert "out of memory" in err and "MB at batch 900" in err and "Traceback" not in err
    assert "the largest batch that fits: --batch-size 17\n" in err


def test_a_net_that_does_not_fit_at_all_is_said_to(monkeypatch):
    text = memory.advice({devices("cpu")[0]: memory.Need(weights=5, kept=1)}, 2, {"cpu": 3})
    assert "no batch fits" in text


def test_where_nobody_knows_the_memory_nothing_is_promised():
    text = memory.advice({devices("cpu")[0]: memory.Need(weights=5, kept=1)}, 2, {"cpu": None})
    assert text.endswith("try a smaller --batch-size")


def test_this_machine_knows_its_memory():
    here, = devices("cpu")
    if here.in_use() is None:
        pytest.skip("no /proc here")
    before = here.in_use()
    here.forget_peak()
    lots = np.frombuffer(mmap.mmap(-1, 64 * MB), np.uint8)        # no freed memory again
    lots += 1
    assert here.in_use() - before > 60 * MB
    del lots
    assert here.peak() - before > 60 * MB and here.room() > here.in_use()
