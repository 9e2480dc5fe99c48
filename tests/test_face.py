"""What a user writes who types `from tinynet import ...` and nothing else."""
import ast
import re
from pathlib import Path

import numpy as np
import pytest

import tinynet
from tinynet import (
    SGD,
    Dense,
    Layer,
    Parameter,
    Sequential,
    Tanh,
    Tensor,
    gradcheck,
    no_grad,
    op,
    ops,
)

FACE = """Tensor op ops no_grad gradcheck Layer Sequential Conv2D MaxPool AvgPool LRN Dense Dropout
          ReLU Tanh Softmax Flatten SGD Device UserError Parameter copy_to""".split()


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def test_the_face_is_what_it_says():
    assert sorted(tinynet.__all__) == sorted(FACE)
    assert all(hasattr(tinynet, name) for name in FACE)
    assert re.fullmatch(r"\d+\.\d+\.\d+", tinynet.__version__)


def test_its_docstring_lists_the_engine_in_the_order_of_the_imports():
    style = ast.parse(Path(__file__).with_name("test_style.py").read_text(encoding="utf-8"))
    order = next(ast.literal_eval(node.value) for node in style.body
                 if isinstance(node, ast.Assign) and node.targets[0].id == "ENGINE")
    listed = re.search(r"before it:\s+([^.]*)\.", tinynet.__doc__)[1]
    assert re.split(r",\s+", listed) == order


def test_the_example_of_its_docstring_runs():
    exec(re.search(r"^    (from .*)$", tinynet.__doc__, re.MULTILINE)[1], {})


def test_the_example_of_micrograd_gives_the_numbers_of_micrograd():
    a, b = (Tensor(np.float64(x), requires_grad=True) for x in (-4.0, 2.0))
    c = a + b
    d = a * b + b ** 3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + (b + a).relu()
    d += 3 * d + (b - a).relu()
    e = c - d
    f = e ** 2
    g = f / 2.0
    g += 10.0 / f
    g.backward()
    assert f"{float(g):.4f} {float(a.grad):.4f} {float(b.grad):.4f}" == "24.7041 138.8338 645.5773"


def test_a_mean_squared_error_can_be_written_and_falls():
    x = np.linspace(-2, 2, 60, dtype=np.float32).reshape(-1, 1)
    inputs, wanted = Tensor(x), Tensor(np.sin(2 * x))
    net = Sequential(Dense(1, 24, std=1.0), Tanh(), Dense(24, 1, std="he")).initialize(0)
    optimizer = SGD(net, lr=0.05, weight_decay=0.0)
    for _ in range(600):
        loss = ((net(inputs) - wanted) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with no_grad():
        error = (net(inputs) - wanted).numpy()
    assert np.std(np.sin(2 * x)) > 0.6 and np.sqrt(np.mean(error ** 2)) < 0.1


class BatchNorm(Layer):
    def __init__(self, channels):
        self.gamma, self.beta = Parameter(np.ones(channels)), Parameter(np.zeros(channels))

    def forward(self, x):
        axes = tuple(range(x.ndim - 1))
        centred = x - x.mean(axes, keepdims=True)
        variance = (centred ** 2).mean(axes, keepdims=True)
        return centred / (variance + 1e-5) ** 0.5 * self.gamma + self.beta


@pytest.mark.parametrize("shape", [(8, 3), (4, 5, 2, 3)])
def test_a_batch_norm_can_be_written_and_has_the_right_gradients(shape):
    layer = BatchNorm(3)
    assert [name for name, _ in layer.parameters()] == ["gamma", "beta"]
    y = layer(Tensor(5 + 2 * draw(*shape))).numpy().reshape(-1, 3)
    assert y.mean(0) == pytest.approx(0, abs=1e-12) and y.std(0) == pytest.approx(1, rel=1e-4)

    def run(x, gamma, beta):
        layer.gamma, layer.beta = gamma, beta
        return layer(x)

    assert gradcheck(run, draw(*shape), draw(3, seed=1), draw(3, seed=2)) < 1e-6


def attention(x, Wq, Wk, Wv):
    """x (N, T, C), each W (C, K) -> (N, T, K)"""
    q, k, v = x @ Wq, x @ Wk, x @ Wv
    return ops.softmax(q @ k.transpose(0, 2, 1) / q.shape[-1] ** 0.5) @ v


def test_an_attention_head_can_be_written_and_has_the_right_gradients():
    weights = [draw(4, 3, seed=seed) for seed in (1, 2, 3)]
    assert gradcheck(attention, draw(2, 5, 4), *weights) < 1e-6
    same = np.repeat(draw(2, 1, 4), 5, axis=1)             # five tokens alike: their mean is v
    assert attention(*map(Tensor, (same, *weights))).numpy() == pytest.approx(same @ weights[2])


def test_an_op_of_ones_own_can_be_written_and_checked():
    @op
    def leaky_relu(x, *, slope=0.01):
        """max(x, slope * x): (...) -> (...)"""
        def dx(dy): return dy * np.where(x > 0, 1.0, slope)
        return np.maximum(x, slope * x), dx

    assert gradcheck(lambda x: leaky_relu(x, slope=0.2), draw(4, 5)) < 1e-6
