"""Every op and layer against finite differences, in float64, on every device.

The check contracts with a random vector whose memory is read-only and strided, so an op
that writes into the gradient it is given, or counts on its layout, fails here.
"""
import copy

import numpy as np
import pytest

from helpers import distinct
from tinynet import conv, engine, layers, norm, ops, pool
from tinynet.device import to_host
from tinynet.engine import Tensor, op
from tinynet.gradcheck import contract, gradcheck
from tinynet.training import cuda_convnet

LABELS = np.array([3, 0, 6, 2])
OPS = {name: value for module in (engine, ops, conv, pool, norm, cuda_convnet)
       for name, value in vars(module).items()
       if hasattr(value, "__wrapped__") and value.__module__ == module.__name__
       and name != "no_grad"}


def using(function, **options):
    return lambda *tensors: function(*tensors, **options)


TABLE = {
    "add": (engine.add, (4, 3), (4, 3)),
    "add, repeated": (engine.add, (4, 3), (3,)),
    "subtract": (engine.subtract, (4, 1), (4, 3)),
    "multiply": (engine.multiply, (4, 3), (1, 3)),
    "divide": (engine.divide, (4, 3), (4, 3)),
    "divide, repeated": (engine.divide, (3,), (2, 4, 3)),
    "divide, one number": (engine.divide, (4, 3), ()),
    "scale": (using(engine.scale, by=0.5), (4, 5)),
    "power": (using(engine.power, by=3), (4, 5)),
    "power, a quotient": (using(engine.power, by=-2), (4, 5)),
    "power, of nothing": (using(engine.power, by=0), (4, 5)),
    "power, a root": (lambda x: engine.power(x * x, by=0.5), (4, 5)),
    "matmul": (engine.matmul, (4, 3), (3, 5)),
    "matmul, large": (engine.matmul, (150, 70), (70, 130)),
    "matmul, a batch": (engine.matmul, (6, 4, 3), (6, 3, 5)),
    "matmul, a batch and a matrix": (engine.matmul, (2, 6, 4, 3), (3, 5)),
    "matmul, a matrix and a batch": (engine.matmul, (4, 3), (6, 3, 5)),
    "matmul, batches of one": (engine.matmul, (6, 1, 4, 3), (1, 2, 3, 5)),
    "relu": (ops.relu, (4, 5, 5, 3)),
    "relu, many slices": (ops.relu, (40, 30, 30, 3)),
    "relu, one number": (ops.relu, ()),
    "tanh": (ops.tanh, (4, 5, 5, 3)),
    "tanh, one number": (ops.tanh, ()),
    "exp": (ops.exp, (4, 5)),
    "log": (lambda x: ops.log(x * x), (4, 5)),
    "reshape": (using(ops.reshape, shape=(4, -1)), (3, 8)),
    "reshape, to one number": (lambda x: x.reshape(()), (1, 1)),
    "flatten": (ops.flatten, (3, 4, 5, 2)),
    "flatten, one number": (ops.flatten, ()),
    "transpose": (ops.transpose, (3, 4, 5)),
    "transpose, in a circle": (using(ops.transpose, axes=(1, 2, 0)), (3, 4, 5)),
    "transpose, counted from the end": (using(ops.transpose, axes=(0, -1, -2)), (3, 4, 5)),
    "sum": (ops.sum, (4, 3)),
    "sum, one axis": (using(ops.sum, axis=0), (4, 3, 2)),
    "sum, two axes": (using(ops.sum, axis=(0, -1)), (4, 3, 2)),
    "sum, axes that stay": (using(ops.sum, axis=(1, 2), keepdims=True), (4, 3, 2)),
    "sum, an axis of one": (using(ops.sum, axis=1), (1, 4, 1)),
    "sum, one number": (ops.sum, ()),
    "mean": (ops.mean, (4, 3)),
    "mean, two axes": (using(ops.mean, axis=(0, 1)), (4, 3, 2)),
    "mean, an axis that stays": (using(ops.mean, axis=-1, keepdims=True), (4, 3, 2)),
    "max": (ops.max, (4, 3)),
    "max, one axis": (using(ops.max, axis=1), (4, 3, 2)),
    "max, axes that stay": (using(ops.max, axis=(0, 2), keepdims=True), (4, 3, 2)),
    "take, a number": (using(ops.take, key=-1), (4, 3)),
    "take, one element": (using(ops.take, key=(1, 2)), (4, 3)),
    "take, slices": (using(ops.take, key=(slice(None, None, -2), slice(1, 3))), (5, 4)),
    "take, an axis more": (using(ops.take, key=(..., None, 0)), (4, 3)),
    "take, twice the same": (using(ops.take, key=[2, 0, 2, 2]), (4, 3)),
    "take, rows and columns": (using(ops.take, key=(np.array([0, 1, 1]), [2, 0, 0])), (4, 3)),
    "take, an array among slices":
        (using(ops.take, key=(slice(1, 3), ..., np.array([[1, 1], [0, -1]]))), (4, 2, 3)),
    "take, a mask": (using(ops.take, key=np.arange(12).reshape(4, 3) % 5 < 2), (4, 3)),
    "concat": (ops.concat, (3, 4, 2), (3, 4, 5)),
    "dense": (ops.dense, (4, 6), (6, 3), (3,)),
    "dropout": (using(ops.dropout, keep=0.6, scale=1 / 0.6, seed=1, step=2, layer=3), (9, 7)),
    "softmax": (ops.softmax, (4, 7)),
    "softmax_cross_entropy": (using(ops.softmax_cross_entropy, labels=LABELS), (4, 7)),
    "conv2d": (conv.conv2d, (3, 6, 7, 2), (3, 3, 2, 4), (4,)),
    "conv2d, kernel not square": (conv.conv2d, (2, 6, 7, 2), (2, 3, 2, 4), (4,)),
    "conv2d, stride": (using(conv.conv2d, stride=2), (2, 7, 9, 2), (3, 3, 2, 3), (3,)),
    "conv2d, stride leaves pixels over":
        (using(conv.conv2d, stride=3), (2, 9, 8, 2), (2, 2, 2, 3), (3,)),
    "conv2d, more maps than kernels": (
        using(conv.conv2d, pad=(0, 1)), (2, 6, 5, 4), (3, 3, 4, 2), (2,)),
    "conv2d, more maps than kernels, much padding": (
        using(conv.conv2d, pad=(0, 3)), (2, 6, 5, 4), (3, 3, 4, 2), (2,)),
    "conv2d, pad": (using(conv.conv2d, pad=2), (2, 5, 4, 2), (5, 5, 2, 3), (3,)),
    "conv2d, pad on one side":
        (using(conv.conv2d, stride=4, pad=(0, 3)), (2, 12, 12, 3), (11, 11, 3, 2), (2,)),
    "conv2d, stride and pad":
        (using(conv.conv2d, stride=2, pad=1), (3, 7, 8, 2), (3, 3, 2, 3), (3,)),
    "conv2d, many slices":
        (using(conv.conv2d, pad=1), (20, 13, 13, 24), (3, 3, 24, 16), (16,)),
    "conv2d, plain":
        (using(conv.conv2d, stride=2, pad=(1, 2), form="plain"), (3, 6, 7, 2), (3, 4, 2, 4), (4,)),
    "local2d": (using(cuda_convnet.local2d, pad=1), (3, 4, 5, 2), (4, 5, 3, 3, 2, 4), (4, 5, 4)),
    "local2d, kernel not square":
        (cuda_convnet.local2d, (2, 5, 4, 3), (4, 2, 2, 3, 3, 2), (4, 2, 2)),
    "local2d, many places":
        (using(cuda_convnet.local2d, pad=1), (16, 9, 9, 8), (9, 9, 3, 3, 8, 6), (9, 9, 6)),
    "conv2d, winograd":
        (using(conv.conv2d, pad=1, form="winograd"), (3, 6, 8, 2), (3, 3, 2, 4), (4,)),
    "conv2d, winograd, many slices":
        (using(conv.conv2d, pad=(0, 3), form="winograd"), (40, 9, 7, 8), (5, 5, 8, 6), (6,)),
    "max_pool": (pool.max_pool, (2, 7, 9, 3)),
    "max_pool, all ties": (using(pool.max_pool, ties="all"), (2, 7, 9, 3)),
    "max_pool, with gaps": (using(pool.max_pool, size=2, stride=3), (2, 9, 8, 3)),
    "avg_pool, with gaps": (using(pool.avg_pool, size=2, stride=3), (2, 9, 8, 3)),
    "max_pool, no overlap": (using(pool.max_pool, size=2, stride=2), (2, 6, 7, 3)),
    "max_pool, over the edge": (using(pool.max_pool, ceil=True), (2, 8, 7, 3)),
    "max_pool, all ties, over the edge": (using(pool.max_pool, ties="all", ceil=True),
                                          (2, 6, 8, 3)),
    "max_pool, many slices": (pool.max_pool, (40, 27, 27, 8)),
    "avg_pool": (pool.avg_pool, (2, 7, 9, 3)),
    "avg_pool, over the edge": (using(pool.avg_pool, ceil=True), (2, 8, 10, 3)),
    "avg_pool, many slices": (using(pool.avg_pool, ceil=True), (40, 28, 28, 8)),
    "lrn": (using(norm.lrn, alpha=0.5), (2, 3, 4, 9)),
    "lrn, even window": (using(norm.lrn, n=4, alpha=0.5, beta=0.6), (2, 3, 4, 9)),
    "lrn, window wider than the maps": (using(norm.lrn, n=9, alpha=0.5), (2, 3, 2, 4)),
    "lrn, a window of one": (using(norm.lrn, n=1, alpha=0.5), (2, 3, 2, 4)),
    "lrn_same_map": (using(cuda_convnet.lrn_same_map, size=3, alpha=0.5), (2, 5, 4, 3)),
    "lrn_same_map, wider than the map":
        (using(cuda_convnet.lrn_same_map, alpha=0.5), (2, 3, 2, 4)),
    "lrn_same_map, many slices": (using(cuda_convnet.lrn_same_map, alpha=0.5), (40, 14, 14, 24)),
    "lrn, many slices": (using(norm.lrn, alpha=0.5), (40, 14, 14, 24)),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_gradient_of_an_op_is_the_slope(name, place):
    function, *shapes = TABLE[name]
    arrays = [distinct(*shape, seed=i) for i, shape in enumerate(shapes)]
    assert gradcheck(function, *arrays, device=place) < 1e-7


@pytest.mark.parametrize("name", TABLE)
def test_an_op_stays_in_float32_and_agrees_with_the_cpu(gpus, name):
    """The gradient checks run in float64, where no slip into float64 shows."""
    function, *shapes = TABLE[name]
    arrays = [np.random.default_rng(i).standard_normal(shape).astype(np.float32)
              for i, shape in enumerate(shapes)]
    results = []
    for place in "cpu", "gpu1":
        inputs = [Tensor(array, place, requires_grad=True) for array in arrays]
        y = function(*inputs)
        contract(y, u=np.ones(y.shape, np.float32)).backward()
        results.append([y.data, *[x.grad for x in inputs]])
    for here, there in zip(*results, strict=True):
        assert here.dtype == there.dtype == np.float32
        assert np.abs(to_host(there) - here).max() <= 1e-4 * np.abs(here).max()


def test_the_table_names_every_op():
    composed = {"flatten", "mean"}             # of other ops
    assert {*OPS, *composed} == {name.partition(",")[0] for name in TABLE}


@pytest.mark.parametrize("name", OPS)
def test_the_docstring_of_an_op_says_what_shape_becomes_of_what_shape(name):
    assert "->" in OPS[name].__doc__


LAYERS = {
    "Conv2D": (layers.Conv2D(2, 4, 3, stride=2, pad=1), (2, 7, 6, 2)),
    "Local2D": (cuda_convnet.Local2D(2, 3, 3, side=5, pad=1), (2, 5, 5, 2)),
    "MaxPool": (layers.MaxPool(3, stride=2), (2, 7, 7, 3)),
    "MaxPool, over the edge": (layers.MaxPool(3, stride=2, ceil=True), (2, 8, 8, 3)),
    "AvgPool, over the edge": (layers.AvgPool(3, stride=2, ceil=True), (2, 8, 8, 3)),
    "AvgPool": (layers.AvgPool(3, stride=2), (2, 7, 7, 3)),
    "LRN": (layers.LRN(alpha=0.5), (2, 3, 3, 8)),
    "Dense": (layers.Dense(6, 4), (3, 6)),
    "ReLU": (layers.ReLU(), (3, 6)),
    "Tanh": (layers.Tanh(), (3, 6)),
    "Softmax": (layers.Softmax(), (3, 6)),
    "Flatten": (layers.Flatten(), (3, 2, 2, 4)),
    "Sequential": (layers.Sequential(layers.Conv2D(2, 3, 3), layers.Tanh(), layers.AvgPool(),
                                     layers.Flatten(), layers.Dense(12, 5)), (2, 7, 7, 2)),
    "Dropout, classic": (layers.Dropout(0.4), (6, 8)),
    "Dropout, inverted": (layers.Dropout(0.4, classic=False), (6, 8)),
    "Dropout, classic, in a test": (layers.Dropout(0.4).eval(), (6, 8)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_gradient_of_a_layer_is_the_slope(name, place):
    layer, shape = copy.deepcopy(LAYERS[name])
    layer.to(place)
    for i, (_, parameter) in enumerate(layer.parameters()):
        parameter.data = parameter.device.put(distinct(*parameter.shape, seed=i + 1))
    parameters = dict(layer.parameters())

    def run(x, *weights):
        for path, new in zip(parameters, weights, strict=True):
            holder = layer
            *owners, attribute = path.split(".")
            for owner in owners:
                holder = dict(holder.layers())[owner]
            setattr(holder, attribute, new)
        layer.train(step=0)
        if "in a test" in name:
            layer.eval()
        return layer(x)

    arrays = [distinct(*shape)] + [p.numpy() for p in parameters.values()]
    assert gradcheck(run, *arrays, device=place) < 1e-7


def test_the_largest_share_their_gradient():
    x = Tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]], requires_grad=True)
    x.max(axis=1).sum().backward()
    assert x.grad == pytest.approx(np.array([[0, 1 / 2, 1 / 2], [1 / 3, 1 / 3, 1 / 3]]))


def test_the_check_itself_finds_a_wrong_gradient():
    @op
    def wrong(x):
        def dx(dy): return dy * 2.001 * x
        return x * x, dx

    assert gradcheck(wrong, distinct(4, 5)) > 1e-5


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("at", [0.0, 3.0, 8.0, -12.0, 40.0])
def test_the_check_itself_accuses_no_right_gradient_where_a_function_is_flat(at, seed):
    """There the slope is smaller than the rounding of the two values that are subtracted."""
    assert gradcheck(ops.tanh, at, seed=seed) < 1e-6
    assert gradcheck(ops.softmax, [[at, 0.0, -at]], seed=seed) < 1e-6


@pytest.mark.parametrize("at", [0.5, 3.0, 7.0])
def test_the_check_itself_finds_a_wrong_gradient_where_a_function_is_nearly_flat(at):
    @op
    def wrong(x):
        y = np.tanh(x)
        def dx(dy): return dy * (1 - y * y) * 1.01
        return y, dx

    assert gradcheck(wrong, at) > 1e-3


def test_the_check_itself_is_not_content_with_nan():
    @op
    def wrong(x):
        def dx(dy): return dy * np.nan
        return x * 1, dx

    assert not gradcheck(wrong, [1.0, 2.0]) < 1e-6


def test_the_check_takes_numbers_and_lists():
    assert gradcheck(engine.multiply, 3, [1, 2]) < 1e-9


def test_the_check_knows_that_an_input_may_not_matter():
    assert gradcheck(lambda x, y: x * 2, 3.0, [1.0, 2.0]) < 1e-9


def test_the_check_itself_refuses_an_op_that_writes_into_dy():
    @op
    def rude(x):
        def dx(dy):
            dy *= 2
            return dy
        return x * 2, dx

    with pytest.raises(ValueError, match="read-only"):
        gradcheck(rude, distinct(4, 5))


@pytest.mark.parametrize("stride, pad", [(1, (0, 0)), (2, (1, 1)), (3, (2, 0)), (4, (0, 3))])
def test_col2im_is_the_mirror_of_im2col(stride, pad):
    x = distinct(3, 11, 12, 2)
    cols = conv.im2col(x, (3, 4), stride, pad)
    c = distinct(*cols.shape, seed=1)
    back = conv.col2im(c, x.shape, (3, 4), stride, pad)
    assert np.sum(cols * c) == pytest.approx(np.sum(x * back), rel=1e-12)
