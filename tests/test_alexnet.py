"""The numbers that the paper prints, and the whole net against PyTorch."""
import re

import numpy as np
import pytest

import alexnet
from tinynet import ops
from tinynet.device import Device, devices
from tinynet.engine import Tensor, graph, no_grad
from tinynet.layers import Dropout
from tinynet.recipes import RECIPES

PAPER = RECIPES["paper"]
CPU = Device("cpu")


@pytest.fixture(scope="module")
def net():
    return alexnet.AlexNet(1000, (CPU, CPU), PAPER).initialize(seed=0)


@pytest.fixture(scope="module")
def output(net):
    return net.eval()(Tensor(np.zeros((1, 227, 227, 3), np.float32)))


@pytest.fixture(scope="module")
def table(output):
    return alexnet.layer_table(output)


def test_there_are_60_965_224_parameters(net):
    assert sum(w.data.size for _, w in net.parameters()) == 60_965_224


def test_the_ungrouped_reading_has_62_378_344(capsys):
    alexnet.main(["show", "--one-tower"])
    assert "62,378,344   1,135,256,096" in capsys.readouterr().out


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


def test_the_kernels_are_those_of_section_3_5(net):
    t = net.top
    shapes = [dict(getattr(t, name).parameters())["0.W"].shape
              for name in ("conv1", "conv2", "conv3", "conv4", "conv5")]
    assert shapes == [(11, 11, 3, 48), (5, 5, 48, 128), (3, 3, 256, 192), (3, 3, 192, 192),
                      (3, 3, 192, 128)]


def test_relu_comes_before_lrn_and_lrn_before_pooling(net):
    for layer in (net.top.conv1, net.bottom.conv2):
        assert [type(step).__name__ for step in layer.steps] == [
            "Conv2D", "ReLU", "LRN", "MaxPool"]
    norm = net.top.conv1.steps[2]
    assert (norm.n, norm.k, norm.alpha, norm.beta) == (5, 2.0, 1e-4, 0.75)


def test_the_recipe_reaches_the_layers():
    recipe = PAPER.changed(dict(kernels=(4,) * 5, neurons=(4, 4), crop=67, lrn_alpha=0.5,
                                lrn_k=3.0, dropout=0.25, dropout_kind="inverted",
                                conv="im2col"))
    small = alexnet.AlexNet(3, (CPU, CPU), recipe)
    norm, drop = small.bottom.conv2.steps[2], small.top.fc7.steps[-1]
    assert {small.top.conv1.steps[0].form, small.bottom.conv5.steps[0].form} == {"im2col"}
    assert (norm.alpha, norm.k, drop.keep, drop.classic) == (0.5, 3.0, 0.75, False)


def test_dropout_follows_fc6_and_fc7_only(net):
    assert [type(step) is Dropout for step in net.top.fc6.steps] == [False] * 3 + [True]
    assert [type(step) is Dropout for step in net.top.fc7.steps] == [False] * 3 + [True]
    assert sum(type(layer) is Dropout for layer in net.every_layer()) == 4


def test_first_weights_have_standard_deviation_0_01_and_biases_1_where_the_paper_says(net):
    for name, w in net.parameters():
        if name.endswith("W"):
            assert w.data.std() == pytest.approx(0.01, rel=0.02), name
            assert abs(w.data.mean()) < 0.0005, name
        else:
            ones = any(layer in name for layer in ("conv2", "conv4", "conv5", "fc6", "fc7"))
            assert np.all(w.data == (1 if ones else 0)), name


def test_the_two_towers_start_differently(net):
    assert not np.any(net.top.conv2.steps[0].W.data == net.bottom.conv2.steps[0].W.data)


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
    assert re.findall(r"(\w+) +(\w+) -> (\w+) +([\d,]+) bytes", out) == [
        ("conv3", "cpu1", "cpu0", "11,075,584"), ("conv3", "cpu0", "cpu1", "11,075,584"),
        ("fc6", "cpu1", "cpu0", "2,359,296"), ("fc6", "cpu0", "cpu1", "2,359,296"),
        ("fc7", "cpu1", "cpu0", "1,048,576"), ("fc7", "cpu0", "cpu1", "1,048,576"),
        ("fc8", "cpu1", "cpu0", "1,048,576")]


@pytest.mark.parametrize("dtype, conv_form, tolerance", [
    ("float64", "auto", 1e-9), ("float32", "im2col", 1e-4), ("float32", "auto", 1e-3)])
def test_the_whole_net_agrees_with_pytorch(dtype, conv_form, tolerance):
    """Full width, the paper's first weights, training loss and all gradients.

    With weights that put more units near a kink, one relu or pool that rounds to the other
    side in float32 alone makes a difference of 1e-3 in conv1's gradient, in either library;
    and the fast convolutions, which round more, find such a pixel with these weights too.
    """
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    F = torch.nn.functional
    model = alexnet.AlexNet(1000, devices("cpu0,cpu1"),
                            PAPER.changed({"conv": conv_form})).initialize(seed=0).eval()
    for _, w in model.parameters():
        w.data = w.data.astype(dtype)
    image = 60 * np.random.default_rng(0).standard_normal((2, 227, 227, 3)).astype(dtype)
    labels = np.array([3, 997])
    logits = model(Tensor(image, "cpu0"))
    loss = ops.softmax_cross_entropy(logits, labels=labels)
    loss.backward()

    twins = {name: torch.tensor(w.data, requires_grad=True) for name, w in model.parameters()}

    def conv(x, layer, tower, **how):
        W, b = twins[f"{tower}.{layer}.0.W"], twins[f"{tower}.{layer}.0.b"]
        return F.relu(F.conv2d(x, W.permute(3, 2, 0, 1), b, **how))

    def norm_pool(x):                                  # PyTorch divides alpha by the size
        return F.max_pool2d(F.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2.0), 3, 2)

    def dense(x, layer, tower):
        W, b = twins[f"{tower}.{layer}.1.W"], twins[f"{tower}.{layer}.1.b"]
        return 0.5 * F.relu(x @ W + b)                 # the test-time half of classic dropout

    x = torch.tensor(image).permute(0, 3, 1, 2)
    halves = []
    for tower in ("top", "bottom"):
        half = norm_pool(conv(x, "conv1", tower, stride=4))
        halves.append(norm_pool(conv(half, "conv2", tower, padding=2)))
    x = torch.cat(halves, dim=1)
    halves = []
    for tower in ("top", "bottom"):
        half = x
        for layer in ("conv3", "conv4", "conv5"):
            half = conv(half, layer, tower, padding=1)
        halves.append(F.max_pool2d(half, 3, 2))
    x = torch.cat(halves, dim=1).permute(0, 2, 3, 1).flatten(1)
    for layer in ("fc6", "fc7"):
        x = torch.cat([dense(x, layer, tower) for tower in ("top", "bottom")], dim=1)
    theirs = x @ twins["fc8.W"] + twins["fc8.b"]
    their_loss = F.cross_entropy(theirs, torch.tensor(labels))
    their_loss.backward()

    def difference(ours, other):
        other = other.detach().numpy()
        return np.linalg.norm(ours - other) / np.linalg.norm(other)

    assert difference(logits.numpy(), theirs) < tolerance
    assert loss.item() == pytest.approx(their_loss.item(), rel=tolerance)
    for name, w in model.parameters():
        assert w.grad.dtype == dtype
        assert difference(w.grad, twins[name].grad) < tolerance, name
