"""A net is never without weights, no layer in it is overlooked, and what goes wrong says where."""
import copy
import inspect
import math
import textwrap

import numpy as np
import pytest

import alexnet
from tinynet import layers, ops, rng, store
from tinynet.device import Device, devices
from tinynet.engine import Parameter, Tensor, no_grad
from tinynet.errors import UserError
from tinynet.layers import (
    LRN,
    AvgPool,
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
from tinynet.tools import memory
from tinynet.training.cuda_convnet import Local2D
from tinynet.training.recipes import RECIPES

CPU = Device("cpu")
ONES = Tensor(np.ones((2, 4), np.float32))


class Blocks(Layer):
    """Layers wherever a newcomer puts them."""

    def __init__(self):
        self.blocks = [Dense(4, 4), (ReLU(), Dense(4, 4))]
        self.heads = {"left": Dense(4, 2), "right": Dense(4, 3)}
        self.gains = [Parameter(np.ones(3, np.float32))]
        self.out = Sequential(Dense(2, 2))

    def forward(self, x):
        first, (relu, second) = self.blocks
        x = relu(second(first(x)))
        return self.out(self.heads["left"](x)), self.heads["right"](x) * self.gains[0]


NAMES = ["gains.0", "blocks.0.W", "blocks.0.b", "blocks.1.1.W", "blocks.1.1.b", "heads.left.W",
         "heads.left.b", "heads.right.W", "heads.right.b", "out.0.W", "out.0.b"]


@pytest.fixture
def draws(monkeypatch):
    """The names under which weights are drawn, in order."""
    names, plain = [], rng.gaussian_weights

    def gaussian_weights(*shape, name, **how):
        names.append(name)
        return plain(*shape, name=name, **how)

    monkeypatch.setattr(rng, "gaussian_weights", gaussian_weights)
    return names


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
    with pytest.raises(ValueError, match="^Sequential: the name layers is taken"):
        Sequential(layers=Dense(4, 2))


# --- what goes wrong says where ---------------------------------------------------------


class Fails(Layer):
    def __init__(self, error):
        self.error = error

    def forward(self, x):
        raise self.error


@pytest.mark.parametrize("kind", [ValueError, TypeError, RuntimeError, UserError])
def test_an_error_names_the_innermost_layer_and_keeps_its_kind(kind):
    net = Sequential(a=Sequential(ReLU(), Sequential(Fails(kind("no way")))))
    with pytest.raises(kind, match=r"^a\.1\.0 \(Fails\): no way$") as caught:
        net(ONES)
    assert type(caught.value) is kind
    assert caught.traceback[-1].name == "forward"


def test_the_whole_path_is_named_where_some_layers_are_only_holders():
    recipe = RECIPES["quickstart"].changed({"kernels": (4, 8, 8, 8, 8), "neurons": (16, 16),
                                            "crop": 67})
    net = alexnet.AlexNet(5, (CPU, CPU), recipe)
    with pytest.raises(ValueError, match=r"^top\.fc6\.1 \(Dense\): "):
        net(Tensor(np.ones((2, 131, 131, 3), np.float32)))
    heads = Blocks()
    heads.heads["left"] = Fails(ValueError("no"))
    with pytest.raises(ValueError, match=r"^heads\.left \(Fails\): no$"):
        heads(ONES)


def test_an_error_of_an_op_says_which_layer_called_it():
    net = Sequential(fc1=Dense(5, 3), fc2=Dense(4, 2))
    with pytest.raises(ValueError, match=r"^fc1 \(Dense\): "):
        net(ONES)
    with pytest.raises(TypeError, match=r"^fc1 \(Dense\): dense takes tensors"):
        net(np.ones((2, 5), np.float32))


def test_other_errors_pass_as_they_are():
    for error in (KeyError("k"), KeyboardInterrupt(), ValueError(), ValueError("two", "parts"),
                  UnicodeDecodeError("utf-8", b"x", 0, 1, "why")):
        args = error.args
        with pytest.raises(type(error)) as caught:
            Sequential(Fails(error))(ONES)
        assert caught.value is error and error.args == args


def test_a_layer_on_its_own_adds_nothing():
    with pytest.raises(ValueError, match="^no$"):
        Fails(ValueError("no"))(ONES)


@pytest.mark.parametrize("make, says", [
    (lambda: Dense(0, 2), "Dense: inputs is a whole number and at least 1, not 0"),
    (lambda: Dense(4, 2.0), "Dense: outputs is a whole number and at least 1, not 2.0"),
    (lambda: Dense("4", 2), "Dense: inputs is .* not '4'"),
    (lambda: Conv2D(3, -1, 5), "Conv2D: kernels is .* not -1"),
    (lambda: Conv2D(3, 8, (3, 3)), r"Conv2D: size is .* not \(3, 3\)"),
    (lambda: Conv2D(3, 8, 3, stride=0), "Conv2D: stride is .* not 0"),
    (lambda: Local2D(3, 8, 3, side=None), "Local2D: side is .* not None"),
    (lambda: MaxPool(0), "MaxPool: size is .* not 0"),
    (lambda: AvgPool(3, stride=1.5), "AvgPool: stride is .* not 1.5"),
    (lambda: Dropout(1.0), r"Dropout: p is a probability in \[0, 1\), not 1.0"),
    (lambda: Dropout(-0.1), "Dropout: p is .* not -0.1")])
def test_sizes_that_cannot_be_are_refused_by_the_constructor(make, says):
    with pytest.raises(ValueError, match="^" + says):
        make()


def test_numpy_s_whole_numbers_are_sizes():
    assert Dense(np.int64(4), np.int32(2))(ONES).shape == (2, 2)


# --- files ------------------------------------------------------------------------------


def test_a_net_is_saved_and_loaded_to_the_bit(tmp_path):
    net, other = Blocks().initialize(1), Blocks().initialize(2)
    net.save(tmp_path / "net.npz")
    assert other.load(tmp_path / "net.npz") is other
    for y, z in zip(net(ONES), other(ONES), strict=True):
        assert np.array_equal(y.numpy(), z.numpy())


def test_a_net_and_a_training_checkpoint_read_each_other(tmp_path):
    net, other = Blocks().initialize(1), Blocks().initialize(2)
    optimizer = SGD(net.parameters())
    arrays = {f"weights/{name}": w.numpy() for name, w in net.parameters()}
    arrays |= {f"velocity/{name}": v for name, v in optimizer.velocity.items()}
    store.save(tmp_path / "last.npz", arrays, {"step": 1})
    other.load(tmp_path)                                       # a run's folder
    assert np.array_equal(net.out[0].W.data, other.out[0].W.data)
    other.initialize(3).save(tmp_path / "net.npz")
    store.Checkpoint(tmp_path / "net.npz").load_weights(net)
    assert np.array_equal(net.out[0].W.data, other.out[0].W.data)


def test_another_net_is_refused(tmp_path):
    Dense(4, 2).save(tmp_path / "net.npz")
    with pytest.raises(UserError, match=r"holds another net: W is \(4, 2\) there and \(4, 3\)"):
        Dense(4, 3).load(tmp_path / "net.npz")
    with pytest.raises(UserError, match="holds another net: .* on one side only"):
        Sequential(Dense(4, 2)).load(tmp_path / "net.npz")
    with pytest.raises(UserError, match="there is no such checkpoint"):
        Dense(4, 2).load(tmp_path / "none.npz")


# --- what one can print -----------------------------------------------------------------


@pytest.mark.parametrize("code", [
    "Dense(4, 2)", "Conv2D(48, 128, 5, pad=2)", "Conv2D(3, 8, 11, stride=4, pad=(0, 3), std=0.01)",
    "Local2D(3, 8, 3, 5, pad=1)", "Dropout()", "Dropout(p=0.2, classic=False)", "MaxPool()",
    "AvgPool(size=2, ceil=True)", "LRN(k=1.0)", "ReLU()",
    "Sequential(Dense(4, 8), ReLU())", "Sequential(fc=Dense(4, 8), relu=ReLU())", """\
Sequential(
    conv1=Sequential(
        Conv2D(3, 16, 5, stride=2, pad=2),
        ReLU(),
        LRN(),
        MaxPool(size=2, ceil=True)),
    fc=Dense(16, 10))"""])
def test_a_layer_is_printed_as_it_is_written(code):
    assert repr(eval(code)) == code


def test_a_layer_that_does_not_keep_its_arguments_can_be_printed():
    class Scaled(Layer):
        def __init__(self, channels, factor=2):
            self.gain = Parameter(np.ones(channels))

    assert repr(Scaled(3)) == "Scaled()"
    assert repr(Sequential(Scaled(3))) == "Sequential(Scaled())"


def rows_of(summary):
    return [line.split() for line in summary.splitlines()]


def test_a_summary_counts_what_a_pass_needs():
    net = Sequential(conv=Sequential(Conv2D(4, 6, 3, pad=1), ops.relu, MaxPool(2)),
                     local=Local2D(6, 3, 3, side=4), out=Sequential(Flatten(), Dense(12, 5)))
    expected = """
        layer                output  parameters  multiply-adds
        conv.0   Conv2D      8x8x6    222        13824
        conv.1   Function    8x8x6    0          0
        conv.2   MaxPool     4x4x6    0          0
        local    Local2D     2x2x3    660        648
        out.0    Flatten     12       0          0
        out.1    Dense       5        65         60
        total                         947        14532"""
    expected = rows_of(expected)[1:]
    array = np.zeros((3, 8, 8, 4), np.float32)
    for x in (1, 8, 8, 4), array, Tensor(array):
        assert rows_of(net.summary(x).replace(",", "")) == expected


def test_the_summary_of_the_paper_s_net_has_the_paper_s_numbers():
    net = memory.without_weights(alexnet.AlexNet(1000, devices("cpu,cpu"), RECIPES["paper"]))
    text = net.summary((1, 227, 227, 3))
    assert text.splitlines()[-1].split() == ["total", "60,965,224", "724,406,816"]
    assert max(map(len, text.splitlines())) < 80


def test_a_summary_leaves_the_net_as_it_was(draws):
    net = Sequential(Dense(4, 8), Dropout(), Sequential(Dropout(), Dense(8, 2)).eval())
    net.initialize(1)
    net[1](ONES)
    net.summary((2, 4))
    with pytest.raises(ValueError):
        net.summary((2, 5))
    assert [layer.training for _, layer in net.named_layers()] == [True] * 3 + [False] * 3
    assert net[1].step == 1 and not any("forward" in vars(layer)
                                        for _, layer in net.named_layers())
    assert np.array_equal(net[0].W.data, Sequential(Dense(4, 8)).initialize(1)[0].W.data)


def test_a_summary_counts_shared_weights_once():
    dense = Dense(4, 4)
    assert rows_of(Sequential(dense, dense).summary((1, 4)))[-1] == ["total", "20", "32"]


def test_watched_layers_compute_what_they_are_told_and_are_themselves_again():
    net, seen = Sequential(Dense(4, 2), ReLU()), []

    def doubled(name, forward, x):
        seen.append((name, x.shape))
        return forward(x) * 2.0

    plain = net(ONES).numpy()
    with layers.watched({"first": net[0]}, doubled):
        assert np.array_equal(net(ONES).numpy(), 2 * plain)
    with pytest.raises(RuntimeError), layers.watched({"first": net[0]}, doubled):
        raise RuntimeError
    assert np.array_equal(net(ONES).numpy(), plain) and seen == [("first", (2, 4))]


# --- how to write a layer ---------------------------------------------------------------


def test_the_layer_in_the_docstring_works_as_printed():
    lines = inspect.getdoc(Layer).splitlines()
    start = next(i for i, line in enumerate(lines) if "class Scaled" in line)
    example = "\n".join(line for line in lines[start:] if line.startswith("    ") or not line)
    names = dict(Layer=Layer, Parameter=Parameter, np=np)
    exec(textwrap.dedent(example), names)
    net = Sequential(names["Scaled"](4), Dense(4, 2)).initialize()
    assert [name for name, _ in net.parameters()] == ["0.gain", "1.W", "1.b"]
    assert net[0](ONES).numpy().tolist() == ONES.numpy().tolist()


def test_every_layer_says_which_shapes_it_takes_and_gives():
    public = [value for value in vars(layers).values() if inspect.isclass(value)
              and issubclass(value, Layer) and value.__module__ == layers.__name__]
    general = {layers.Layer, layers.Function, layers.Sequential, layers.Weighted, layers.Dropout}
    assert len(public) > 12
    for layer in set(public) - general:
        assert "->" in layer.__doc__, layer.__name__
    assert LRN in public
