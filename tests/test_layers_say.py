"""What layers say, print, keep in files, and how one is written."""
import inspect
import textwrap

import numpy as np
import pytest

import alexnet
from blocks import CPU, ONES, Blocks
from tinynet import layers, ops, store
from tinynet.device import devices
from tinynet.engine import Parameter, Tensor
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

# --- what goes wrong says where ---------------------------------------------------------


class Fails(Layer):
    def __init__(self, error):
        self.error = error

    def forward(self, x):
        raise self.error


@pytest.mark.parametrize("kind", [ValueError, TypeError, RuntimeError, IndexError, UserError])
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
    with pytest.raises(ValueError, match=r"^top\.fc6\.1 \(DenseInLanes\): "):
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
