"""The numbers that the paper prints."""
import math
import re

import numpy as np
import pytest

import alexnet
from tinynet import ops
from tinynet.device import Device
from tinynet.engine import Tensor, graph, no_grad
from tinynet.layers import Dropout
from tinynet.tools import anatomy
from tinynet.training.recipes import RECIPES

PAPER = RECIPES["paper"]


def test_what_caffe_and_torchvision_have_is_in_their_recipes():
    """train_val.prototxt and solver.prototxt of bvlc_alexnet; 20 epochs are 100,000 batches of
    256. torchvision's references/classification trains alexnet with batches of 32 and 1e-4."""
    caffe, owt = RECIPES["caffe"], RECIPES["owt"]
    assert caffe.std == (0.01, 0.01, 0.01, 0.01, 0.01, 0.005, 0.005, 0.01)
    assert caffe.bias == (0, 0.1, 0, 0.1, 0.1, 0.1, 0.1, 0)
    assert (caffe.schedule, caffe.step_epochs, caffe.batch_size) == ("step", 20, 256)
    assert (caffe.momentum, caffe.wd, caffe.bias_lr, caffe.bias_wd) == (0.9, 0.0005, 2, False)
    assert (owt.schedule, owt.step_epochs, owt.epochs, owt.batch_size) == ("step", 30, 90, 32)
    assert (owt.lr, owt.momentum, owt.wd) == (0.01, 0.9, 1e-4)
CPU = Device("cpu")


@pytest.fixture(scope="module")
def net():
    return alexnet.AlexNet(1000, (CPU, CPU), PAPER).initialize(seed=0)


@pytest.fixture(scope="module")
def output(net):
    return net.eval()(Tensor(np.zeros((1, 227, 227, 3), np.float32)))


@pytest.fixture(scope="module")
def table(output):
    return anatomy.layer_table(output)


def test_there_are_60_965_224_parameters(net):
    assert sum(w.data.size for _, w in net.parameters()) == 60_965_224


def test_the_ungrouped_reading_has_62_378_344(capsys):
    alexnet.main(["show", "--ungrouped"])
    assert re.search(r"62,378,344 +1,135,256,096", capsys.readouterr().out)


@pytest.mark.parametrize("layer, parameters", [
    ("conv1", 34_944), ("conv2", 307_456), ("conv3", 885_120), ("conv4", 663_936),
    ("conv5", 442_624), ("fc6", 37_752_832), ("fc7", 16_781_312), ("fc8", 4_097_000)])
def test_each_layer_has_its_parameters(table, layer, parameters):
    assert table[layer]["parameters"] == parameters


def test_one_image_takes_724_million_multiply_adds(table):
    assert sum(row["macs"] for row in table.values()) == 724_406_816


def test_the_maps_are_those_of_figure_2(output):
    shapes = [t.shape[1:] for t in graph(output) if t.op == "conv2d"]
    assert shapes == [(55, 55, 48)] * 2 + [(27, 27, 128)] * 2 + [(13, 13, 192)] * 4 + [
        (13, 13, 128)] * 2
    pools = [t.shape[1:] for t in graph(output) if t.op == "max_pool"]
    assert pools == [(27, 27, 48)] * 2 + [(13, 13, 128)] * 2 + [(6, 6, 128)] * 2
    dense = [t.shape[1:] for t in graph(output) if t.op == "dense"]
    assert dense == [(2048,)] * 4 + [(1000,)]
    neurons = [math.prod(t.shape[1:]) for t in graph(output) if t.op in ("conv2d", "dense")]
    assert sum(neurons) == 659_272 and sum(neurons[:2]) == 290_400         # the caption: 253,440


def test_the_kernels_are_those_of_section_3_5(net):
    t = net.top
    shapes = [dict(getattr(t, name).parameters())["0.W"].shape
              for name in ("conv1", "conv2", "conv3", "conv4", "conv5")]
    assert shapes == [(11, 11, 3, 48), (5, 5, 48, 128), (3, 3, 256, 192), (3, 3, 192, 192),
                      (3, 3, 192, 128)]


def test_relu_comes_before_lrn_and_lrn_before_pooling(net):
    for layer in (net.top.conv1, net.bottom.conv2):
        assert [type(step).__name__ for step in layer] == [
            "Conv2D", "ReLU", "LRN", "MaxPool"]
    norm = net.top.conv1[2]
    assert (norm.n, norm.k, norm.alpha, norm.beta) == (5, 2.0, 1e-4, 0.75)


def shown(capsys, *options, device="cpu0,cpu1"):
    """The layer table of a variant, and how often something crosses into each layer."""
    assert alexnet.main(["show", "--device", device, *options]) == 0
    out = capsys.readouterr().out
    table = dict(re.findall(r"^(\w+) +(?:2 x )?(\d+\S*) ", out, re.MULTILINE))
    return table, re.findall(r"^  (\w+) +cpu\d -> ", out, re.MULTILINE)


def test_the_one_gpu_net_has_half_the_kernels_but_in_conv5(capsys):
    """145-half of the authors, with which section 3.2 compares."""
    table, crossings = shown(capsys, "--towers", "1", device="cpu")
    assert table["total"] == "59,798,312" and not crossings
    assert [table[f"conv{i}"] for i in range(1, 6)] == [
        "55x55x48", "27x27x128", "13x13x192", "13x13x192", "13x13x256"]
    assert table["fc6"] == table["fc7"] == "4096"


def test_a_sixth_convolution_sees_both_towers(capsys):
    table, crossings = shown(capsys, "--conv6")
    assert table["total"] == "61,555,304" and table["conv6"] == "6x6x128"
    assert crossings == ["conv3"] * 2 + ["conv6"] * 2 + ["fc6"] * 2 + ["fc7"] * 2 + ["fc8"]


def test_without_overlap_the_maps_are_those_of_run_147():
    model = alexnet.build(10, (CPU, CPU), PAPER.changed({"pool": 2}))
    with no_grad():
        x, sides = Tensor(np.zeros((1, 227, 227, 3), np.float32)), []
        for layer in ("conv1", "conv2"):
            for step in getattr(model.top, layer):
                x = step(x)
                sides.append(x.shape[1])
    assert sides == [55, 55, 55, 28, 26, 26, 26, 13]
    recipe = PAPER.changed({"pool": 2})
    assert recipe.map_sides() == (55, 6)
    assert dict(model.parameters())["top.fc6.1.W"].shape == (9216, 2048)


def test_a_crop_of_224_gives_55_as_in_the_2012_program():
    assert PAPER.changed({"crop": 224}).map_sides() == (55, 6)
    conv1 = alexnet.build(10, (CPU, CPU), RECIPES["2012"]).top.conv1[0]
    assert conv1(Tensor(np.zeros((1, 224, 224, 3), np.float32))).shape == (1, 55, 55, 48)
    assert conv1.pad == (0, 3)


def test_the_recipe_2012_is_what_the_program_did():
    model = alexnet.build(1000, (CPU, CPU), RECIPES["2012"])
    kinds = [[type(step).__name__ for step in layer]
             for layer in (model.top.conv1, model.bottom.conv2)]
    assert kinds == [["Conv2D", "LRN", "MaxPool", "ReLU"],
                     ["Conv2D", "ReLU", "LRN", "SameMapLRN", "MaxPool"]]
    norm, same, pool = model.top.conv1[1], *model.top.conv2[3:]
    assert (norm.k, norm.alpha) == (2.0, pytest.approx(2e-5))
    assert (same.size, same.k, same.alpha, pool.ties) == (5, 1.0, 4e-5, "all")
    spread = [layer.std for _, layer in model.named_layers() if hasattr(layer, "std")]
    assert spread == 2 * [0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01] + [0.01]


def test_no_norm_means_neither_of_them():
    model = alexnet.build(10, (CPU, CPU), RECIPES["2012"].changed({"lrn": "none"}))
    assert not [layer for _, layer in model.named_layers() if "LRN" in type(layer).__name__]


def test_the_recipe_reaches_the_layers():
    recipe = PAPER.changed(dict(kernels=(4,) * 5, neurons=(4, 4), crop=67, lrn_alpha=0.5,
                                lrn_k=3.0, dropout=0.25, dropout_kind="inverted",
                                conv="im2col"))
    small = alexnet.AlexNet(3, (CPU, CPU), recipe)
    norm, drop = small.bottom.conv2[2], small.top.fc7[-1]
    assert {small.top.conv1[0].form, small.bottom.conv5[0].form} == {"im2col"}
    assert (norm.alpha, norm.k, drop.keep, drop.classic) == (0.5, 3.0, 0.75, False)


def test_dropout_follows_fc6_and_fc7_only(net):
    assert [type(step) is Dropout for step in net.top.fc6] == [False] * 3 + [True]
    assert [type(step) is Dropout for step in net.top.fc7] == [False] * 3 + [True]
    assert sum(type(layer) is Dropout for _, layer in net.named_layers()) == 4


def test_first_weights_have_standard_deviation_0_01_and_biases_1_where_the_paper_says(net):
    for name, w in net.parameters():
        if name.endswith("W"):
            assert w.data.std() == pytest.approx(0.01, rel=0.02), name
            assert abs(w.data.mean()) < 0.0005, name
        else:
            ones = any(layer in name for layer in ("conv2", "conv4", "conv5", "fc6", "fc7"))
            assert np.all(w.data == (1 if ones else 0)), name


def test_the_two_towers_start_differently(net):
    assert not np.any(net.top.conv2[0].W.data == net.bottom.conv2[0].W.data)


def test_224_with_three_zeros_on_the_far_side_is_also_55():
    from tinynet.conv import out_size
    assert out_size(224, 11, 4, (0, 3)) == out_size(227, 11, 4) == 55


def test_an_untrained_net_says_ln_1000(net):
    image = np.random.default_rng(0).integers(0, 256, (4, 227, 227, 3)) - 120.0
    with no_grad():
        logits = net.eval()(Tensor(image.astype(np.float32)))
        loss = ops.softmax_cross_entropy(logits, labels=np.arange(4))
    assert loss.item() == pytest.approx(np.log(1000), abs=1.0)


def test_show_prints_the_table_and_the_crossings(capsys):
    assert alexnet.main(["show", "--device", "cpu0,cpu1"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"conv1 +2 x 55x55x48 +2 x 48 of 11x11x3 +34,944 +105,415,200", out)
    assert re.search(r"total +60,965,224 +724,406,816", out)
    wide = anatomy._table_lines({"fc8": dict(output="300000", kernels="300000 of 4096", macs=0,
                                             parameters=1_229_100_000, bytes=1)}, 1)
    assert "300000 of 4096 1,229,100,000" in [*wide][1]
    assert re.findall(r"(\w+) +(\w+) -> (\w+) +([\d,]+) bytes", out) == [
        ("conv3", "cpu1", "cpu0", "11,075,584"), ("conv3", "cpu0", "cpu1", "11,075,584"),
        ("fc6", "cpu1", "cpu0", "2,359,296"), ("fc6", "cpu0", "cpu1", "2,359,296"),
        ("fc7", "cpu1", "cpu0", "1,048,576"), ("fc7", "cpu0", "cpu1", "1,048,576"),
        ("fc8", "cpu1", "cpu0", "1,048,576")]


@pytest.mark.parametrize("options", [[], ["--ungrouped"], ["-b", "1024"], ["--towers", "1"]])
def test_what_show_prints_fits_into_80_columns(capsys, options):
    assert alexnet.main(["show", "--device", "cpu", *options]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
