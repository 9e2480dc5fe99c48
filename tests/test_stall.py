"""Is a run that learns nothing noticed and explained, without a trace left in it?"""
import math
import re
import shlex
from types import SimpleNamespace

import numpy as np
import pytest

import alexnet
from tinynet import ops
from tinynet.engine import Tensor
from tinynet.optim import SGD
from tinynet.pictures import patterns
from tinynet.training import options, recipes
from tinynet.training.stall import TOGETHER, StallWatch, better_start, diagnosis, examine

LN10 = math.log(10)
SMALL = recipes.RECIPES["quickstart"].changed(
    dict(kernels=(8, 16, 16, 16, 16), neurons=(64, 64), crop=67, batch_size=16))
NET = ["--recipe", "quickstart", "--kernels", "4,8,8,8,8", "--neurons", "16,16", "--crop", "67",
       "-b", "8", "--device", "cpu", "-p", "2"]


def test_the_scale_of_pixels_that_is_advised_builds_on_the_one_there_is():
    recipe = recipes.RECIPES["paper"].changed(dict(pixel_scale=0.01))
    assert "--pixel-scale 0.0001" in better_start(recipe, 70.0, dead=False).split("  ")[0]


# --- when it speaks ---------------------------------------------------------------------


def spoke(watch, losses, every=10, start=0):
    """The steps at which the watch called it a stall; every loss comes `every` times."""
    losses = np.repeat(losses, every)
    return [step for step, loss in enumerate(losses, start + 1) if watch.saw(step, Tensor([loss]))]


def test_a_stall_is_told_once():
    assert spoke(StallWatch(10, 200), [LN10] * 60) == [200]


def test_a_loss_that_falls_is_no_stall():
    assert spoke(StallWatch(10, 200), np.linspace(LN10, 1.5, 60)) == []


@pytest.mark.parametrize("share, steps", [(0.9899, []), (0.9901, [200]), (1.03, [200])])
def test_a_stall_is_a_loss_that_is_never_one_percent_below_guessing(share, steps):
    assert spoke(StallWatch(10, 200), [share * LN10] * 60) == steps


def test_fifty_better_steps_start_the_count_anew():
    assert spoke(StallWatch(10, 200), [LN10] * 12 + [2.0] + [LN10] * 60) == [350]


def test_what_was_before_a_restart_does_not_count():
    assert spoke(StallWatch(10, 200), [LN10] * 60, start=400) == [600]


@pytest.mark.parametrize("steps, at", [(8, 8), (50, 50), (51, 51), (60, 60), (99, 99), (120, 120)])
def test_a_stall_is_told_when_it_is_due(steps, at):
    assert TOGETHER <= 50 and spoke(StallWatch(10, steps), [LN10] * 60) == [at]


def test_of_one_class_nothing_has_to_be_guessed():
    """Its loss is 0 = ln(1) from the first step on, as it should be."""
    assert spoke(StallWatch(1, 50), [0.0] * 20) == []


def test_zero_steps_is_never():
    assert spoke(StallWatch(10, 0), [LN10] * 50) == []


# --- what it says -----------------------------------------------------------------------


@pytest.fixture
def after_a_step():
    """A function: a small net after two steps with some recipe, as train() has it."""
    def net(labels=None, pixels=None, device="cpu", **changes):
        recipe = SMALL.changed(changes)
        model = alexnet.AlexNet(10, options.two_devices(device), recipe).initialize(0)
        optimizer = SGD(model.parameters(), recipe.lr, recipe.momentum, recipe.wd)
        draw = np.random.default_rng(0)
        coarse = draw.normal(0, 64 * recipe.pixel_scale, (16, 6, 6, 3)).astype(np.float32)
        images = coarse.repeat(12, axis=1).repeat(12, axis=2)[:, :67, :67]
        if pixels is not None:
            images = pixels(images)
        labels = draw.permutation(16) % 10 if labels is None else labels
        for step in range(2):
            before = {name: w.numpy().copy() for name, w in model.parameters()}
            logits = model.train(step)(Tensor(images, model.devices[0]))
            optimizer.zero_grad()
            ops.softmax_cross_entropy(logits, labels=labels).backward()
            optimizer.step()
        return SimpleNamespace(recipe=recipe, model=model, optimizer=optimizer, before=before,
                               batch=SimpleNamespace(images=images, labels=labels))

    return net


def said(net):
    return diagnosis(net.model, net.optimizer, net.batch, net.recipe)


def advice(net):
    lines = said(net)
    return "\n".join(lines[lines.index("what may help:") + 1:])


def test_every_layer_has_a_row_in_the_order_of_computing(after_a_step):
    net = after_a_step()
    rows = examine(net.model, net.optimizer, net.batch.images)
    towers = [f"{tower}.{layer}" for layer in recipes.LAYERS[:-1] for tower in ("top", "bottom")]
    assert list(rows) == [*towers, "fc8"]
    for name in rows:
        assert sum(line.startswith(name + " ") for line in said(net)) == 1
    assert len(said(net)) <= 25


@pytest.mark.parametrize("device", ["cpu", "cpu0,cpu1"])
def test_the_numbers_of_a_layer_are_what_plain_loops_find(after_a_step, device):
    net = after_a_step(device=device)
    net.model.top.conv2[0].b.data[:3] = -1e6                     # these three die
    rows = examine(net.model, net.optimizer, net.batch.images)
    tower = net.model.eval().top
    y = tower.conv1(Tensor(net.batch.images, net.model.devices[0]))
    for layer in tower.conv2[:2]:                                # as far as the ReLU
        y = layer(y)
    y = y.numpy().astype(float)
    dead = [not any(y[n, i, j, unit] > 0 for n in range(16) for i in range(y.shape[1])
                    for j in range(y.shape[2])) for unit in range(16)]
    spread = [np.std(y[:, i, j, unit]) for i in range(y.shape[1]) for j in range(y.shape[2])
              for unit in range(16)]
    row = rows["top.conv2"]
    assert 3 <= sum(dead) < 16 and row.dead == sum(dead) / 16
    assert row.mean == pytest.approx(y.mean()) and row.std == pytest.approx(y.std(), rel=1e-5)
    assert row.varies == pytest.approx(np.mean(spread) / np.sqrt((y ** 2).mean()), rel=1e-5)
    assert rows["fc8"].dead is None


def test_step_and_gradient_are_those_of_the_last_step(after_a_step):
    net = after_a_step()
    rows = examine(net.model, net.optimizer, net.batch.images)
    for name, path in ("bottom.conv3", "bottom.conv3.0.W"), ("top.fc6", "top.fc6.1.W"), (
            "fc8", "fc8.W"):
        w = net.optimizer.parameters[path]
        size = np.linalg.norm(w.data.astype(float))
        step = np.linalg.norm(w.data.astype(float) - net.before[path])
        assert rows[name].step == pytest.approx(step / size, rel=1e-4)
        assert rows[name].gradient == pytest.approx(
            np.linalg.norm(w.grad.astype(float)) / size, rel=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_the_net_is_left_as_it_was(after_a_step, training):
    net = after_a_step(dropout=0.5)
    (net.model.train if training else net.model.eval)()

    def state():
        arrays = [array for name, w in net.model.parameters()
                  for array in (w.data, w.grad, net.optimizer.velocity[name])]
        others = [{key: value for key, value in vars(layer).items() if np.isscalar(value)
                   or callable(value)} for _, layer in net.model.named_layers()]
        return [array.copy() for array in arrays], others

    arrays, others = state()
    said(net)
    arrays_after, others_after = state()
    assert all(map(np.array_equal, arrays, arrays_after)) and others == others_after
    assert {layer.training for _, layer in net.model.named_layers()} == {training}
    assert not any("forward" in vars(layer) for _, layer in net.model.named_layers())


@pytest.mark.parametrize("changes, says", [
    (dict(std=(1e-4,)), "--std he: top.conv2 fails first, its outputs are below 0.001"),
    (dict(std=(0.01,), bias=(1.0,)), "--std he --bias 0: top.conv"),
    (dict(std=(0.01,), bias=(1.0,), pixel_scale=1.0), "--std he --bias 0 --pixel-scale 0.02: "),
    (dict(std=("he",), pixel_scale=1.0, lr=0.1), "start again with --pixel-scale 0.02: "),
    (dict(lr=10.0), "--lr 1: units die of steps that are too large"),
    (dict(lr=1e-7, wd=0.0), "--lr 1e-06: the median layer changes by")],
    ids=["tiny", "flat", "the paper's", "pixels", "fast", "slow"])
def test_each_disease_has_its_remedy(after_a_step, changes, says):
    assert says in advice(after_a_step(**changes))


def test_a_sound_start_needs_nothing_but_patience(after_a_step):
    assert re.fullmatch("  patience: .*", advice(after_a_step()))


def test_labels_that_come_sorted_are_told(after_a_step):
    for labels in np.zeros(16, int), np.arange(16) // 2:
        assert "look at train/: the labels" in advice(after_a_step(labels=labels))
    net = after_a_step()                               # of few pictures that says nothing
    net.batch.images, net.batch.labels = net.batch.images[:15], np.arange(15) // 2
    assert "the labels" not in "\n".join(said(net))


def test_pictures_that_are_all_alike_are_told(after_a_step):
    same = after_a_step(pixels=lambda images: np.repeat(images[:1], 16, axis=0))
    assert "look at train/: the pictures" in advice(same)
    blank = after_a_step(pixels=np.zeros_like)
    assert "look at train/: the pictures" in advice(blank)


@pytest.mark.parametrize("count", [0, 1])
def test_of_fewer_than_two_pictures_nothing_is_said_to_vary(after_a_step, count):
    net = after_a_step()
    net.batch.images, net.batch.labels = net.batch.images[:count], net.batch.labels[:count]
    assert said(net) == ["the loss does not fall below that of guessing; this batch has too few "
                         "pictures to say why"]


def test_pixels_and_labels_are_described(after_a_step):
    net = after_a_step(labels=np.array([3] * 9 + [5] * 7))
    text = "\n".join(said(net))
    assert "labels: 2 of 10 classes among 16 pictures, the commonest 9 times" in text
    assert f"pixels: {net.batch.images.min():.3g} ... {net.batch.images.max():.3g}" in text


def test_every_option_it_names_exists():
    recipe = recipes.RECIPES["paper"]
    options = " ".join([better_start(recipe, 70.0, dead=False), "--lr 0.1 --seed 3"])
    args = alexnet.parser().parse_args(["train", *shlex.split(options)])
    assert args.std == ("he",) and args.bias == (0.0,) and args.pixel_scale == 0.01


# --- in a run ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    patterns.draw(folder, train=4, val=1, progress=False)
    return folder


def test_a_stalled_run_hears_of_it_once_and_ends_the_same_to_the_bit(pictures, tmp_path, capsys):
    spoken, weights = {}, {}
    for stall_steps in "8", "0":
        folder = tmp_path / stall_steps
        assert alexnet.main(["train", str(pictures), *NET, "--std", "0.0001", "--dropout", "0.5",
                             "--epochs", "3", "--stall-steps", stall_steps,
                             "--output-dir", str(folder)]) == 0
        spoken[stall_steps] = capsys.readouterr().out
        with np.load(folder / "last.npz") as file:
            weights[stall_steps] = {name: file[name] for name in file.files
                                    if name.startswith(("weights/", "velocity/"))}
    assert spoken["8"].count("that of guessing") == 1 and "--std he" in spoken["8"]
    assert spoken["8"].index("step 6 ") < spoken["8"].index("guessing") < (
        spoken["8"].index("step 10 "))
    assert "guessing" not in spoken["0"]
    assert len(weights["0"]) > 30
    assert all(np.array_equal(weights["0"][name], weights["8"][name]) for name in weights["0"])


def test_a_stall_is_heard_of_in_time_however_rarely_a_line_is_printed(pictures, tmp_path, capsys):
    assert alexnet.main(["train", str(pictures), *NET, "--std", "0.0001", "--epochs", "3",
                         "--stall-steps", "8", "--print-freq", "1000",
                         "--output-dir", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert out.count("that of guessing") == 1
    assert out.index("guessing") < out.index("epoch 3/3")


def test_a_run_that_learns_hears_nothing(pictures, tmp_path, capsys):
    assert alexnet.main(["train", str(pictures), *NET, "--dropout", "0", "--epochs", "8",
                         "--lr", "0.01", "--stall-steps", "16",
                         "--output-dir", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "guessing" not in out
