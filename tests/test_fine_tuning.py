"""Layers that learn at a rate of their own, or not at all."""
from dataclasses import replace

import numpy as np
import pytest

import alexnet
from command_line import NET, SMALL, is_clean_error, same_net, weights
from helpers import IMAGES, LABELS, net
from helpers import SMALL as RECIPE
from tinynet import SGD, Device, Tensor, ops
from tinynet.engine import graph
from tinynet.training import recipes
from tinynet.training.saved import Saved
from tinynet.training.schedules import set_rates
from tinynet.training.stall import examine, remedies
from tinynet.training.weights import layer_of
from together import together

CPU = [Device("cpu")] * 2
FROZEN = {"conv1", "conv2", "conv3", "conv4", "conv5"}


def a_step(model, recipe, ranks=None):
    """The loss of a step, and the optimizer that took it."""
    optimizer = SGD(model, recipe.lr)
    set_rates(optimizer, recipe, 0)
    images = IMAGES[:8] if ranks is None else IMAGES[:8][ranks.own(8)]
    loss = ops.softmax_cross_entropy(model.train(0)(Tensor(images)), labels=LABELS[:8])
    kinds = [node.op for node in graph(loss)]
    loss.backward()
    if ranks:
        ranks.sum_gradients(model)
    optimizer.step()
    return kinds, optimizer


def test_layers_that_stand_still_stay_and_the_others_learn(run, data, trained, tmp_path):
    words = "--layer-lr", "conv=0", "--init-from", trained.folder
    out = run("train", data, *SMALL, *words, "--output-dir", tmp_path / "run").out
    assert "layer_lr (0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0), not (1.0," in out
    before, after = weights(trained.folder), weights(tmp_path / "run")
    for name in before:
        kind, _, own = name.partition("/")
        still = layer_of(own) in FROZEN
        if kind == "weights":
            assert np.array_equal(before[name], after[name]) == still, name
        else:
            assert still == (not after[name].any()), name


def test_a_run_that_is_resumed_keeps_the_rates_of_its_layers(run, data, trained, tmp_path):
    words = ["train", data, *SMALL, "--layer-lr", "conv=0,fc8=3", "--init-from", trained.folder]
    run(*words, "--output-dir", tmp_path / "whole")
    run(*words, "--output-dir", tmp_path / "half", "--steps", 3)
    assert run("train", "--resume", tmp_path / "half", "--device", "cpu").code == 0
    assert same_net(tmp_path / "whole", tmp_path / "half")
    assert Saved.of_alexnet(tmp_path / "half").recipe["layer_lr"] == [0, 0, 0, 0, 0, 1, 1, 3]


def test_layers_that_stand_still_cost_no_gradient():
    model, recipe = net(CPU), RECIPE.changed({"layer_lr": (0,) * 5 + (1,) * 3})
    kinds, _ = a_step(model, recipe)
    assert "conv2d" not in kinds and "lrn" not in kinds and "dense" in kinds
    for name, w in model.parameters():
        assert (w.grad is None) == (layer_of(name) in FROZEN), name
    kinds, _ = a_step(model, RECIPE)                   # and with all rates, all ask again
    assert kinds.count("conv2d") == 10


def test_what_lies_before_a_layer_that_stands_still_learns_all_the_same():
    model = net(CPU)
    a_step(model, RECIPE.changed({"layer_lr": (1, 0, 0, 0, 0, 1, 1, 1)}))
    assert model.top.conv1[0].W.grad.any() and model.top.conv2[0].W.grad is None


@pytest.mark.parametrize("schedule", ["plateau", "constant", "2012", "linear"])
def test_the_rate_of_a_layer_is_a_multiple_of_what_the_schedule_says(schedule):
    model = net(CPU)
    recipe = RECIPE.changed({"schedule": schedule, "layer_lr": (0.5,) + (1,) * 6 + (4,)})
    plain = RECIPE.changed({"schedule": schedule})
    one, other = SGD(model, 0.01), SGD(model, 0.01)
    for epoch in 0, 60, 68, 80:                        # of 90: 2012 slows conv1, then stops it
        set_rates(one, recipe, epoch)
        set_rates(other, plain, epoch)
        for name, _ in model.parameters():
            multiple = {"conv1": 0.5, "fc8": 4}.get(layer_of(name), 1)
            assert one.rate(name) == pytest.approx(multiple * other.rate(name)), (name, epoch)


def test_the_sixth_convolution_learns_like_the_fifth():
    rates = RECIPE.changed({"layer_lr": (1,) * 4 + (0.5,) + (1,) * 3}).rates_of_layers()
    assert rates == {"conv5": 0.5, "conv6": 0.5}


def test_several_ranks_add_the_gradients_that_there_are():
    recipe = RECIPE.changed({"layer_lr": (0, 0, 0, 0, 1, 1, 1, 1)})

    def job(ranks):
        model = alexnet.build(5, CPU, RECIPE, ranks).initialize(1)
        with ranks.batch([1] * 8):
            a_step(model, recipe, ranks)
        return {name: w.data for name, w in model.parameters() if w.part is None}

    alone = net(CPU)
    a_step(alone, recipe)
    for found in together(2, job):
        for name, w in alone.parameters():
            assert name not in found or np.array_equal(found[name], w.data), name


def test_the_rate_is_not_judged_by_layers_that_stand_still():
    """Else the median layer of a net whose convolutions stand would not move at all."""
    model = net(CPU)
    recipe = RECIPE.changed({"layer_lr": (0,) * 5 + (1,) * 3, "lr": 1e-3})
    _, optimizer = a_step(model, recipe)
    rows = examine(model, optimizer, IMAGES[:8])
    assert rows["top.conv2"].step == rows["top.conv2"].gradient == 0 < rows["fc8"].step
    rows = {name: replace(row, dead=0.0) for name, row in rows.items()}
    lines = remedies(rows, IMAGES[:8], LABELS[:8], optimizer, recipe)
    assert not [line for line in lines if "the median layer" in line], lines


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_weights_that_were_learned_for_another_computation_are_told(
        run, data, trained, tmp_path, ending):
    """conv1 of a net that saw pixels / 64 would see numbers 64 times as large, without a word."""
    path = trained.folder / "best.npz"
    if ending == ".safetensors":
        path = tmp_path / "net.safetensors"
        run("export", trained.folder, path)
    words = ["train", data, *SMALL, "--init-from", path, "--steps", 1, "--output-dir"]
    assert "but they were" not in run(*words, tmp_path / "same", "--wd", 0, "--dropout", 0).out
    out = run(*words, tmp_path / "other", "--pixel-scale", 1, "--lrn", "none").out
    assert "but they were learned with pixel_scale 0.015625, not 1.0: is that meant?" in out
    assert "but they were learned with lrn sum, not none" in out and out.count("but they") == 2
    out = run(*words, tmp_path / "third", "--fit", "squeeze").out
    assert "but they were learned with fit crop, not squeeze" in out


@pytest.mark.parametrize("text", ["conv1", "conv7=1", "=1", "conv1=x", "conv1=1,", "0.1"])
def test_what_names_no_layer_or_number_is_refused(run, data, text):
    done = run("train", data, "--layer-lr", text)
    assert done.code == 2 and "--layer-lr: must be layers with numbers, as in" in done.err


@pytest.mark.parametrize("text", ["conv1=nan", "fc8=-1", "conv=0,fc=0", "conv1=inf"])
def test_rates_with_which_no_net_could_learn_are_refused(run, data, text):
    assert is_clean_error(run("train", data, *SMALL, "--layer-lr", text), "layer_lr takes")


@pytest.mark.parametrize("schedule", ["2012", "dexp"])
def test_a_schedule_that_ends_without_conv1_wants_another_layer_to_learn(run, data, schedule):
    words = ["train", data, *NET, "--schedule", schedule, "--layer-lr"]
    assert is_clean_error(run(*words, "conv=0,fc=0,conv1=1"), f"with schedule {schedule} conv1")
    recipe = recipes.RECIPES["2012"].changed(dict(layer_lr=(1,) + 6 * (0,) + (1,)))
    assert recipe.changed(dict(schedule=schedule)).schedule == schedule


def test_a_new_layer_that_is_to_stand_still_is_told(run, data, trained, tmp_path):
    words = ["train", data, *SMALL, "--conv6", "--init-from", trained.folder, "--steps", 1,
             "--output-dir"]
    told = "conv6  drawn anew, and it is to stand still: is that meant?"
    out = run(*words, tmp_path / "a", "--layer-lr", "conv=0").out
    assert told in out and out.count("is that meant?") == 1
    assert "is that meant?" not in run(*words, tmp_path / "b").out


def test_layers_are_named_one_by_one_or_by_how_they_begin():
    option, = [field for field in recipes.options() if field.name == "layer_lr"]
    read = recipes.reader(option)
    assert read("conv=0,conv5=0.5,fc8=10") == (0, 0, 0, 0, 0.5, 1, 1, 10)
    assert read("fc=0,conv1=2") == (2, 1, 1, 1, 1, 0, 0, 0)
