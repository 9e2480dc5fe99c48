"""Layers: first weights, learning, what is found, Sequential."""
import copy
import inspect
import math

import numpy as np
import pytest

import alexnet
from blocks import CPU, NAMES, ONES, Blocks
from tinynet import ops, rng
from tinynet.device import Device
from tinynet.engine import Tensor, no_grad
from tinynet.layers import (
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool,
    ReLU,
    Sequential,
)
from tinynet.optim import SGD
from tinynet.training.cuda_convnet import Local2D
from tinynet.training.recipes import RECIPES

# --- first weights ----------------------------------------------------------------------


def test_a_net_that_nobody_initialized_has_weights():
    net = Sequential(Dense(4, 8), ReLU(), Dense(8, 2))
    assert np.all(net(ONES).numpy() != 0)
    assert all(w.data.std() > 0.1 for name, w in net.parameters() if name.endswith("W"))


def test_two_layers_of_one_shape_start_differently_also_without_initialize():
    one, other = Dense(4, 8), Dense(4, 8)
    assert not np.any(one.W.data == other.W.data)
    assert np.array_equal(one.W.data, one.W.data)


def test_two_dropouts_have_masks_of_their_own_also_without_initialize():
    x = Tensor(np.ones((50, 50), np.float32))
    assert not np.array_equal(Dropout()(x).numpy(), Dropout()(x).numpy())


@pytest.mark.parametrize("layer, inputs", [
    (Conv2D(2, 4, 3), 3 * 3 * 2),
    (Local2D(2, 3, 3, side=5, pad=1), 3 * 3 * 2), (Dense(6, 4), 6)],
    ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("std", ["he", 0.01])
def test_initialize_draws_a_function_of_seed_and_name(layer, inputs, std):
    how = {name: getattr(layer, name) for name in inspect.signature(type(layer)).parameters}
    net = Sequential(conv=Sequential(type(layer)(**{**how, "std": std, "bias": 0.5})))
    net.initialize(seed=7)
    W, b = net.conv[0].W, net.conv[0].b
    std = (2 / inputs) ** 0.5 if std == "he" else std
    expected = rng.gaussian_weights(W.shape, std=std, seed=7, name="conv.0.W")
    assert np.array_equal(W.data, expected) and W.data.dtype == np.float32
    assert np.all(b.data == 0.5) and b.shape == b.data.shape
    assert [w.name for w in (W, b)] == ["conv.0.W", "conv.0.b"]


def test_initialize_draws_anew_what_was_trained_and_keeps_what_was_given():
    net = Blocks().initialize(1)
    first = {name: w.numpy().copy() for name, w in net.parameters()}
    for _, w in net.parameters():
        w.data += 1
    net.initialize(1)
    for name, w in net.parameters():
        assert np.array_equal(w.data, first[name] + (name == "gains.0")), name


def test_weights_are_drawn_once_and_not_before_somebody_looks(draws):
    net = Blocks().to("cpu1").initialize(0).to("cpu").initialize(3)
    assert sum(math.prod(w.shape) for _, w in net.parameters()) > 50
    repr(net), net.train(), copy.deepcopy(net)
    assert draws == []
    for _ in range(2):
        net(ONES)
    assert sorted(draws) == sorted(name for name in NAMES if name.endswith("W"))


def test_the_paper_s_net_is_built_and_filled_without_a_draw(draws, tmp_path):
    small = RECIPES["quickstart"].changed({"kernels": (4, 8, 8, 8, 8), "neurons": (16, 16),
                                           "crop": 67})
    first = alexnet.AlexNet(5, (CPU, CPU), small).initialize(1)
    first.save(tmp_path / "net.npz")
    assert len(draws) == 15
    second = alexnet.AlexNet(5, (CPU, CPU), small).initialize(2).load(tmp_path / "net.npz")
    alexnet.main(["show"])
    assert len(draws) == 15
    for (_, w), (_, v) in zip(first.parameters(), second.parameters(), strict=True):
        assert np.array_equal(w.data, v.data)


def test_weights_are_drawn_where_the_layer_lives(gpus):
    for layer in (Dense(4, 2).to("gpu1"), Dense(4, 2).initialize().to("gpu1"),
                  Dense(4, 2).to("gpu1").initialize()):
        assert layer.W.data.device == layer.W.device.cuda == Device("gpu1").cuda
    here = layer.to("cpu").W
    assert isinstance(here.data, np.ndarray) and here.device == CPU


# --- do they learn? ---------------------------------------------------------------------


def blotches(count, seed):
    """Pictures (N, 16, 16, 1) of ten blotches, each shifted and with noise; and their labels."""
    shapes = np.random.default_rng(0).random((10, 4, 4)) > 0.5
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.arange(count) % 10)
    images = 0.3 * draw.standard_normal((count, 16, 16, 1))
    for image, label, (top, left) in zip(images, labels, draw.integers(0, 5, (count, 2)),
                                         strict=True):
        image[top:top + 12, left:left + 12, 0] += shapes[label].repeat(3, 0).repeat(3, 1)
    return images.astype(np.float32), labels


def test_a_net_of_default_layers_learns():
    images, labels = blotches(640, seed=1)
    unseen, answers = blotches(100, seed=2)
    net = Sequential(Conv2D(1, 8, 5, pad=2), ReLU(), MaxPool(), Conv2D(8, 16, 3, pad=1), ReLU(),
                     MaxPool(), Flatten(), Dense(16 * 3 * 3, 32), ReLU(), Dense(32, 10))
    net.initialize(0)
    optimizer = SGD(net.parameters(), lr=0.02)
    for step in range(200):
        rows = np.arange(32 * step, 32 * step + 32) % len(labels)
        loss = ops.softmax_cross_entropy(net(Tensor(images[rows])), labels=labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with no_grad():
        found = net(Tensor(unseen)).numpy().argmax(axis=1)
    assert (found != answers).mean() < 0.1                     # chance: 0.9


# --- which layers there are -------------------------------------------------------------


def test_layers_and_parameters_in_lists_tuples_and_dicts_are_found_in_order():
    assert [name for name, _ in Blocks().parameters()] == NAMES
    assert [path for path, layer in Blocks().named_layers() if isinstance(layer, Dense)] == [
        name.removesuffix("W") for name in NAMES if name.endswith("W")]


def test_layers_in_lists_are_trained_moved_and_switched():
    net = Blocks().to("cpu1")
    assert {w.device for _, w in net.parameters()} == {Device("cpu1")}
    assert not any(layer.training for _, layer in net.eval().named_layers())
    net.to("cpu")
    one, other = net(ONES)
    ops.softmax_cross_entropy(one, labels=np.array([0, 1])).backward()
    assert {name for name, w in net.parameters() if w.grad is not None} == {
        name for name in NAMES if not name.startswith(("heads.right", "gains"))}


def test_what_two_layers_share_is_listed_once():
    class Tied(Layer):
        def __init__(self):
            self.one, self.other = Dense(4, 4), Dense(4, 4)
            self.other.W = self.one.W
            self.both = [self.other, self.one, self]

    names = [name for name, _ in Tied().parameters()]
    assert names == ["one.W", "one.b", "other.b"]
    assert [name for name, _ in Tied().layers()] == ["one", "other"]


def test_parameters_can_be_walked_twice():
    pairs = Dense(4, 2).parameters()
    assert [name for name, _ in pairs] == [name for name, _ in pairs] == ["W", "b"]


# --- Sequential -------------------------------------------------------------------------


def test_steps_may_have_names_which_are_the_first_part_of_the_paths():
    net = Sequential(conv1=Sequential(Conv2D(1, 2, 3), ReLU()), flat=Flatten(), fc=Dense(8, 2))
    assert [name for name, _ in net.parameters()] == ["conv1.0.W", "conv1.0.b", "fc.W", "fc.b"]
    assert net.fc is net[2] is list(net)[-1] and len(net) == 3 and net.conv1[0].size == 3
    assert net(Tensor(np.ones((5, 4, 4, 1), np.float32))).shape == (5, 2)


def test_steps_may_be_plain_functions():
    net = Sequential(Dense(4, 3), ops.relu, lambda x: x * 2.0, last=ops.softmax)
    plain = ops.softmax(ops.relu(net[0](ONES)) * 2.0)
    assert np.array_equal(net(ONES).numpy(), plain.numpy())
    assert repr(net) == "Sequential(Dense(4, 3), relu, <lambda>, last=softmax)"


def test_a_layer_may_be_two_steps():
    dense = Dense(4, 4)
    net = Sequential(dense, ReLU(), dense)
    assert np.array_equal(net(ONES).numpy(), dense(ops.relu(dense(ONES))).numpy())
    assert [name for name, _ in net.parameters()] == ["0.W", "0.b"]


@pytest.mark.parametrize("steps, says", [
    (([Dense(4, 2), ReLU()],), r"step 0 is \[Dense\(4, 2\), ReLU\(\)\], neither a layer"),
    ((Dense(4, 2), ReLU), "step 1 is <class .*ReLU'>, neither"), ((None,), "step 0 is None")])
def test_what_is_no_step_is_refused_with_a_sentence(steps, says):
    with pytest.raises(TypeError, match="^Sequential: " + says):
        Sequential(*steps)


def test_a_step_cannot_take_the_name_of_a_method():
    for name in "layers", "forward":
        with pytest.raises(ValueError, match=f"^Sequential: the name {name} is taken"):
            Sequential(**{name: Dense(4, 2)})
