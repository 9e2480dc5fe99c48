"""The fast forms of a convolution, and the one with fewer multiplications above all, are the plain
one to rounding."""
import numpy as np
import pytest

from helpers import distinct, naive_conv2d
from tinynet import conv, cores, winograd
from tinynet.conv import conv2d
from tinynet.engine import Tensor, no_grad
from tinynet.gradcheck import contract

#                 N   H   W    C   O  K   pad
SHAPES = {
    "conv2": (2, 27, 27, 48, 128, 5, (2, 2)),
    "conv3": (17, 13, 13, 256, 192, 3, (1, 1)),
    "neither side a whole number of tiles": (3, 11, 7, 5, 4, 3, (1, 1)),
    "no padding": (3, 12, 9, 4, 6, 5, (0, 0)),
    "padding on one side": (2, 8, 6, 3, 4, 5, (0, 3)),
    "two outputs, of tiles that reach far beyond": (2, 6, 5, 3, 2, 5, (0, 0)),
    "more padding than picture": (2, 1, 2, 3, 4, 3, (4, 4)),
    "as much padding as kernel": (2, 6, 5, 3, 4, 3, (3, 3)),
    "one picture": (1, 10, 10, 3, 4, 3, (1, 1)),
    "no picture": (0, 10, 10, 3, 4, 3, (1, 1)),
}


#                     N   H   W    C  O   K   pad     stride
STRIDED = {
    "conv1": (1, 227, 227, 3, 48, 11, (0, 0), 4),
    "conv1 on a crop of 224": (2, 24, 28, 3, 8, 11, (0, 3), 4),
    "pixels left over": (2, 18, 21, 3, 4, 9, (0, 0), 3),
    "a block ends before them": (2, 20, 22, 3, 4, 9, (0, 0), 4),
    "padding that counts no more": (2, 26, 27, 3, 4, 9, (1, 1), 2),
    "padding on both sides": (3, 17, 14, 4, 5, 5, (2, 1), 2),
}


def values_and_gradients(form, dtype, shape):
    """y, dx, dW, db for numbers like a net's: pixels positive, half of them zero."""
    N, H, W, C, O, K, pad, stride = (*shape, 1)[:8]
    draw = np.random.default_rng(0)
    arrays = [np.maximum(draw.standard_normal((N, H, W, C)), 0),
              draw.standard_normal((K, K, C, O)), draw.standard_normal(O)]
    tensors = [Tensor(array.astype(dtype), requires_grad=True) for array in arrays]
    y = conv2d(*tensors, stride=stride, pad=pad, form=form)
    contract(y, u=draw.standard_normal(y.shape).astype(dtype)).backward()
    return [y.numpy()] + [tensor.grad for tensor in tensors]


@pytest.mark.parametrize("form", ["im2col", "winograd"])
@pytest.mark.parametrize("name", {**SHAPES, **STRIDED})
def test_it_is_the_plain_form_in_float64(name, form):
    fast = values_and_gradients(form, "float64", {**SHAPES, **STRIDED}[name])
    plain = values_and_gradients("plain", "float64", {**SHAPES, **STRIDED}[name])
    for a, b in zip(fast, plain, strict=True):
        assert a.shape == b.shape and np.abs(a - b).max(initial=0) < 1e-10


@pytest.mark.parametrize("name", ["conv1", "conv2", "conv3"])
def test_float32_costs_two_digits_and_no_more(name):
    fast = values_and_gradients("winograd", "float32", {**SHAPES, **STRIDED}[name])
    exact = values_and_gradients("plain", "float64", {**SHAPES, **STRIDED}[name])
    for what, a, b in zip(("y", "dx", "dW", "db"), fast, exact, strict=True):
        assert a.dtype == "float32"
        error = np.abs(a - b).max() / np.abs(b).max()
        assert error < (1.6e-5 if what in ("y", "dx") else 1e-5), what


@pytest.mark.parametrize("K", [3, 5])
def test_it_is_the_sum_over_every_window(place, K):
    x, W, b = distinct(2, 9, 8, 3), distinct(K, K, 3, 4, seed=1), distinct(4, seed=2)
    y = conv2d(*[Tensor(a, place) for a in (x, W, b)], pad=2, form="winograd").numpy()
    assert y == pytest.approx(naive_conv2d(x, W, b, pad=(2, 2)), abs=1e-12)


@pytest.mark.parametrize("K, m", [(3, 2), (3, 3), (3, 4), (3, 5), (3, 6), (5, 2), (5, 3), (5, 4)])
def test_every_tile_size_multiplies_two_polynomials(K, m):
    A, B, G = winograd.matrices(m, K)
    d, g = distinct(m + K - 1, m + K - 1), distinct(K, K, seed=1)
    y = A.T @ ((G @ g @ G.T) * (B.T @ d @ B)) @ A
    windows = np.lib.stride_tricks.sliding_window_view(d, (K, K))
    assert y == pytest.approx((windows * g).sum(axis=(2, 3)), abs=1e-12)


def test_tiles_are_chosen_for_the_fewest_products():
    assert winograd.tile_size(27, 27, 5) == 4       # 7 x 7 tiles of 64: conv2
    assert winograd.tile_size(13, 13, 3) == 5       # 3 x 3 tiles of 49: conv3, conv4, conv5
    assert winograd.tile_size(2, 2, 3) == 2


def test_results_do_not_depend_on_the_number_of_threads():
    before, results = cores._threads, []
    try:
        for count in (1, 2, 4):
            cores.set_threads(count)
            results.append(values_and_gradients("winograd", "float32", SHAPES["conv3"]))
    finally:
        cores.set_threads(before)
    for one, *others in zip(*results, strict=True):
        assert all(np.array_equal(one, other) for other in others)


@pytest.mark.parametrize("scratch", [1, 1 << 20])
@pytest.mark.parametrize("name", [*sorted(SHAPES.keys() - {
    "more padding than picture", "as much padding as kernel"}), "conv1"])
def test_tiles_that_are_kept_are_those_that_would_be_made_again(monkeypatch, name, scratch):
    """To the bit, whatever the slices are. Those of a larger picture are made again."""
    shape, kept = {**SHAPES, **STRIDED}[name], []
    monkeypatch.setattr(cores, "CPU_SCRATCH", scratch)
    monkeypatch.setattr(winograd, "room_to_keep", lambda *how: kept.append(
        cores.room_to_keep(*how)) or kept[-1])
    monkeypatch.setattr(cores, "KEPT", 4 << 20)
    with_room = values_and_gradients("winograd", "float32", shape)
    monkeypatch.setattr(cores, "KEPT", 0)
    without = values_and_gradients("winograd", "float32", shape)
    assert kept[0] is not None and kept[1] is None and len(kept) == 2    # dx asks for none
    assert all(map(np.array_equal, with_room, without))


def test_tiles_that_are_kept_are_found_by_a_backward_pass_that_is_cut_otherwise(monkeypatch):
    def gradient(form):
        tensors = [Tensor(array, requires_grad=True)
                   for array in (distinct(6, 9, 9, 3), distinct(3, 3, 3, 4, seed=1), distinct(4))]
        with cores.lanes([4, 2]):
            y = conv2d(*tensors, form=form)
        contract(y, u=distinct(*y.shape, seed=2)).backward()
        return tensors[1].grad
    assert gradient("winograd") == pytest.approx(gradient("plain"), abs=1e-10)


@pytest.mark.parametrize("form, K, stride", [("im2col", 3, 1), ("winograd", 3, 1),
                                             ("winograd", 5, 2)])
def test_nothing_is_kept_inside_no_grad(monkeypatch, form, K, stride):
    x, W, b = (Tensor(distinct(*shape)) for shape in ((2, 9, 9, 3), (K, K, 3, 4), (4,)))
    asked = []
    for module in conv, winograd:
        monkeypatch.setattr(module, "room_to_keep", lambda *how: asked.append(how))
    with no_grad():
        conv2d(x, W, b, form=form, stride=stride)
    assert asked == []
    conv2d(x, W, b, form=form, stride=stride)
    assert len(asked) == 1


@pytest.mark.parametrize("form, dtype, K, stride, channels, expected", [
    ("auto", "float32", 3, 1, 32, True), ("auto", "float32", 5, 1, 32, True),
    ("auto", "float64", 3, 1, 32, False), ("auto", "float32", 3, 1, 7, False),
    ("auto", "float32", 3, 1, 8, True),
    ("im2col", "float32", 3, 1, 32, False), ("winograd", "float64", 3, 1, 3, True),
    ("winograd", "float32", 3, 2, 32, False), ("winograd", "float32", 7, 1, 32, False),
    ("auto", "float32", 5, 2, 2, True), ("auto", "float32", 5, 2, 1, False)])
def test_conv2d_takes_it_where_it_can_and_where_it_pays(
        monkeypatch, form, dtype, K, stride, channels, expected):
    taken = []
    monkeypatch.setattr(conv, "winograd", lambda *a, **how: taken.append(1) or winograd.winograd(
        *a, **how))
    shapes = (1, 9, 9, channels), (K, K, channels, 32), (32,)
    arrays = [np.ones(shape, dtype) for shape in shapes]
    conv2d(*map(Tensor, arrays), stride=stride, form=form)
    assert bool(taken) == expected


def test_a_nan_spoils_its_tile_and_with_im2col_only_the_windows_that_see_it():
    x, W, b = (np.ones(shape, np.float32) for shape in ((1, 20, 20, 8), (3, 3, 8, 8), (8,)))
    x[0, 10, 10, 0] = np.nan
    lost = {form: np.isnan(conv2d(*map(Tensor, (x, W, b)), pad=1, form=form).numpy()).any(axis=3)
            for form in ("plain", "im2col", "winograd")}
    assert lost["plain"].sum() == lost["im2col"].sum() == 9
    assert lost["winograd"].sum() > 9 and not lost["winograd"].all()
