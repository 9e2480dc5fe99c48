"""Forward passes against loops so plain that they are obviously right, and against PyTorch.

A gradient check proves that backward fits forward; only an independent forward proves that
forward is right.
"""
import numpy as np
import pytest

from helpers import distinct, grouped_conv2d, naive_conv2d, naive_windows
from tinynet import conv, cores, layers, ops
from tinynet.conv import FORMS, conv2d, im2col, out_size, padded, windows
from tinynet.device import to_host
from tinynet.engine import Tensor
from tinynet.gradcheck import contract
from tinynet.norm import lrn, plain_lrn
from tinynet.pool import avg_pool, max_pool
from tinynet.training.cuda_convnet import Local2D, local2d, lrn_same_map, sum_around
from tinynet.training.evaluation import mean_over_views, wrong


def forward(function, *arrays, device="cpu", **options):
    return function(*[Tensor(array, device) for array in arrays], **options).numpy()


def naive_local2d(x, W, b, pad):
    size, _, C, O = W.shape[2:]
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    y = np.zeros((len(x), *b.shape))
    for n, oh, ow, window in naive_windows(x, size, size, 1):
        for o in range(O):
            y[n, oh, ow, o] = np.sum(window * W[oh, ow, :, :, :, o]) + b[oh, ow, o]
    return y


def naive_pool_over_the_edge(x, size, stride, reduce):
    """Windows start at 0, stride, ... until one has seen the last pixel."""
    starts = []
    for side in x.shape[1:3]:
        starts.append([0])
        while starts[-1][-1] + size < side and starts[-1][-1] + stride < side:
            starts[-1].append(starts[-1][-1] + stride)
    y = np.zeros((len(x), len(starts[0]), len(starts[1]), x.shape[3]))
    for oh, top in enumerate(starts[0]):
        for ow, left in enumerate(starts[1]):
            window = x[:, top:top + size, left:left + size]
            y[:, oh, ow] = reduce(window, axis=(1, 2))
    return y


def naive_pool(x, size, stride, reduce):
    rows = (x.shape[1] - size) // stride + 1, (x.shape[2] - size) // stride + 1
    y = np.zeros((len(x), *rows, x.shape[3]))
    for n, oh, ow, window in naive_windows(x, size, size, stride):
        for c in range(x.shape[3]):
            y[n, oh, ow, c] = reduce(window[:, :, c])
    return y


def naive_lrn(x, n, k, alpha, beta):
    """The paper's formula, letter by letter: a sum over j from i - n/2 to i + n/2."""
    N = x.shape[-1]
    b = np.zeros_like(x)
    for i in range(N):
        energy = 0.0
        for j in range(max(0, i - n // 2), min(N - 1, i + n // 2) + 1):
            energy = energy + x[..., j] ** 2
        b[..., i] = x[..., i] / (k + alpha * energy) ** beta
    return b


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stride, pad", [(1, (0, 0)), (1, (2, 2)), (2, (1, 1)), (3, (0, 0)),
                                         (2, (0, 1)), (4, (0, 3))])
def test_conv2d_is_the_sum_over_every_window(place, stride, pad, form):
    x, W, b = distinct(2, 8, 9, 3), distinct(3, 3, 3, 4, seed=1), distinct(4, seed=2)
    y = forward(conv2d, x, W, b, device=place, stride=stride, pad=pad, form=form)
    assert y == pytest.approx(naive_conv2d(x, W, b, stride, pad), abs=1e-12)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("scratch", [1, 5000, 1 << 20])
def test_conv2d_in_strips_is_conv2d(monkeypatch, count, scratch):
    monkeypatch.setattr(cores, "CPU_SCRATCH", scratch)
    monkeypatch.setattr(cores, "KEPT", 0)
    x, W, b = distinct(count, 12, 9, 3), distinct(4, 3, 3, 5, seed=1), distinct(5, seed=2)
    tensors = [Tensor(array, requires_grad=True) for array in (x, W, b)]
    y = conv2d(*tensors, stride=2, pad=(1, 0))
    assert y.numpy() == pytest.approx(naive_conv2d(x, W, b, 2, (1, 0)), abs=1e-12)
    u = distinct(*y.shape, seed=3)
    contract(y, u=u).backward()
    cols = im2col(x, (4, 3), 2, (1, 0))
    assert tensors[1].grad.reshape(-1, 5) == pytest.approx(cols.T @ u.reshape(-1, 5), abs=1e-12)


@pytest.mark.parametrize("count", [0, 1, 3, 37])
@pytest.mark.parametrize("stride", [1, 2])
def test_columns_that_are_kept_are_those_that_would_be_made_again(monkeypatch, count, stride):
    """To the bit, and so are all gradients. Those of a larger picture are made again."""
    draw = np.random.default_rng(0).standard_normal
    x, W, b = (draw(shape, np.float32) for shape in ((count, 14, 13, 3), (5, 5, 3, 32), (32,)))
    largest = conv.out_size(14, 5, stride) * conv.out_size(13, 5, stride) * 76 * 4

    def run(limit):
        made = []
        monkeypatch.setattr(cores, "KEPT", limit)
        monkeypatch.setattr(conv, "im2col", lambda *how, **more: made.append(how) or im2col(
            *how, **more))
        tensors = [Tensor(array, requires_grad=True) for array in (x, W, b)]
        y = conv2d(*tensors, stride=stride, form="im2col")
        forward = len(made)
        contract(y, u=np.float32(1) / (1 + np.arange(y.size).reshape(y.shape))).backward()
        return len(made) > forward, [y.numpy(), *(tensor.grad for tensor in tensors)]

    again, numbers = run(largest - 1)
    kept_again, kept = run(largest)
    assert again and not kept_again
    assert all(map(np.array_equal, numbers, kept))


def test_conv2d_of_columns_that_are_cut_is_conv2d():
    x, W, b = distinct(2, 32, 32, 3), distinct(5, 5, 3, 8, seed=1), distinct(8, seed=2)
    assert cores.part_of_product(x, 2 * 32 * 32, W.size, least=200) == 1024
    tensors = [Tensor(array, requires_grad=True) for array in (x, W, b)]
    y = conv2d(*tensors, pad=2, form="im2col")
    assert y.numpy() == pytest.approx(naive_conv2d(x, W, b, 1, (2, 2)), abs=1e-11)
    u = distinct(*y.shape, seed=3)
    contract(y, u=u).backward()
    cols = im2col(x, (5, 5), 1, (2, 2))
    assert tensors[1].grad.reshape(-1, 8) == pytest.approx(cols.T @ u.reshape(-1, 8), abs=1e-11)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("view", [lambda grey: grey[..., None],
                                  lambda grey: grey.reshape(2, 1, 9, 8).transpose(0, 2, 3, 1)])
def test_one_channel_may_have_any_stride(form, view):
    """Grey pictures get their axis by None, or by a transpose of (N, 1, H, W)."""
    grey, W, b = distinct(2, 9, 8), distinct(3, 3, 1, 5, seed=1), distinct(5, seed=2)
    y = conv2d(view(Tensor(grey)), Tensor(W), Tensor(b), form=form).numpy()
    assert y == pytest.approx(naive_conv2d(grey.reshape(2, 9, 8, 1), W, b, 1, (0, 0)), abs=1e-11)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_a_grouped_convolution_keeps_its_groups_apart(groups):
    """Of the oracle that the towers are compared with."""
    W, b = distinct(3, 3, 6 // groups, 12, seed=1), distinct(12, seed=2)
    x = distinct(2, 5, 4, 6)
    y = grouped_conv2d(Tensor(x), Tensor(W), Tensor(b), groups, pad=1)
    assert y.numpy() == pytest.approx(naive_conv2d(x, W, b, pad=(1, 1), groups=groups), abs=1e-12)


@pytest.mark.parametrize("size, stride", [(3, 2), (2, 2), (3, 1), (2, 3)])
def test_pools_are_the_largest_and_the_mean_of_every_window(place, size, stride):
    x = distinct(2, 8, 9, 3)
    how = dict(device=place, size=size, stride=stride)
    assert np.array_equal(forward(max_pool, x, **how), naive_pool(x, size, stride, np.max))
    assert forward(avg_pool, x, **how) == pytest.approx(
        naive_pool(x, size, stride, np.mean), abs=1e-14)


@pytest.mark.parametrize("size, stride", [(3, 2), (2, 2), (3, 1), (2, 3)])
def test_pools_are_one_line_over_the_windows(size, stride):
    x = distinct(2, 8, 9, 3)
    views = list(windows(x, (size, size), stride))
    assert len(views) == size * size
    assert np.array_equal(forward(max_pool, x, size=size, stride=stride), np.max(views, axis=0))
    assert forward(avg_pool, x, size=size, stride=stride) == pytest.approx(
        sum(views) / size ** 2, abs=1e-14)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_a_sum_down_and_then_across_is_the_sum_over_every_square(size):
    x, reach = distinct(2, 4, 6, 3), size // 2
    squares = windows(padded(x, (reach, reach)), (size, size))
    assert sum_around(x, size) == pytest.approx(sum(squares), abs=1e-13)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_lrn_of_the_same_map_sums_over_a_square(place, size):
    x = distinct(2, 4, 6, 3)
    y = forward(lrn_same_map, x, device=place, size=size, k=1.5, alpha=0.5)
    expected, reach = np.empty_like(x), size // 2
    for n, h, w, c in np.ndindex(x.shape):
        square = x[n, max(h - reach, 0):h + reach + 1, max(w - reach, 0):w + reach + 1, c]
        expected[n, h, w, c] = x[n, h, w, c] / (1.5 + 0.5 * (square ** 2).sum()) ** 0.75
    assert y == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("size, stride", [(3, 2), (2, 2), (3, 1), (2, 3), (4, 3), (1, 4)])
@pytest.mark.parametrize("H, W", [(8, 9), (32, 24), (7, 6), (4, 5)])
def test_windows_that_hang_over_the_edge_see_what_is_there(place, H, W, size, stride):
    x = distinct(2, H, W, 3) - 10              # below zero, which must not be mistaken for it
    how = dict(device=place, size=size, stride=stride, ceil=True)
    assert np.array_equal(forward(max_pool, x, **how),
                          naive_pool_over_the_edge(x, size, stride, np.max))
    assert forward(avg_pool, x, **how) == pytest.approx(
        naive_pool_over_the_edge(x, size, stride, np.mean), abs=1e-14)


def test_a_window_larger_than_the_picture_hangs_over_its_edge(place):
    x = distinct(2, 1, 2, 3) - 10
    how = dict(device=place, size=2, ceil=True)
    assert np.array_equal(forward(max_pool, x, **how), x.max(axis=(1, 2), keepdims=True))
    assert forward(avg_pool, x, **how) == pytest.approx(x.mean(axis=(1, 2), keepdims=True))


@pytest.mark.parametrize("pad", [0, 1, 2])
def test_local2d_has_kernels_of_its_own_at_every_place(place, pad):
    x = distinct(3, 6, 5, 2)
    places = 4 + 2 * pad, 3 + 2 * pad
    W, b = distinct(*places, 3, 3, 2, 4, seed=1), distinct(*places, 4, seed=2)
    y = forward(local2d, x, W, b, device=place, pad=pad)
    assert y == pytest.approx(naive_local2d(x, W, b, pad), abs=1e-12)


def test_local2d_with_the_same_kernels_everywhere_is_a_convolution():
    layer, conv = Local2D(3, 4, 3, side=6, pad=1), layers.Conv2D(3, 4, 3, pad=1)
    conv.initialize(seed=1)
    layer.W.data[:], layer.b.data[:] = conv.W.data, conv.b.data
    x = Tensor(distinct(2, 6, 6, 3).astype(np.float32))
    assert layer(x).numpy() == pytest.approx(conv(x).numpy(), abs=1e-6)


@pytest.mark.parametrize("n, beta", [(5, 0.75), (3, 0.75), (5, 0.5), (9, 0.75), (1, 1.0)])
def test_lrn_is_the_formula_of_section_3_3(place, n, beta):
    x = distinct(2, 3, 4, 8)          # alpha is large: with 1e-4 no mistake would show
    y = forward(lrn, x, device=place, n=n, k=2.0, alpha=0.5, beta=beta)
    assert y == pytest.approx(naive_lrn(x, n, 2.0, 0.5, beta), rel=1e-13)


@pytest.mark.parametrize("shape", [(8,), (5, 8), (2, 3, 4, 8)])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 9, 17])
def test_lrn_is_its_plain_form(place, shape, n):
    x = distinct(*shape)
    how = dict(n=n, k=1.5, alpha=0.5, beta=0.6)
    assert forward(lrn, x, device=place, **how) == pytest.approx(plain_lrn(x, **how), rel=1e-13)


@pytest.mark.parametrize("n, beta", [(5, 0.75), (3, 0.5), (1, 1.0)])
def test_the_plain_form_of_lrn_is_the_formula_of_section_3_3(n, beta):
    x = distinct(2, 3, 4, 8)
    assert plain_lrn(x, n=n, alpha=0.5, beta=beta) == pytest.approx(
        naive_lrn(x, n, 2.0, 0.5, beta), rel=1e-13)


def test_the_last_bits_of_padding_and_rounding_down():
    assert out_size(227, 11, 4) == 55
    assert out_size(224, 11, 4) == 54             # why 224 needs padding of (0, 3)
    assert out_size(224, 11, 4, (0, 3)) == 55
    assert [out_size(side, 3, 2, ceil=True) for side in (32, 16, 8, 24, 12)] == [16, 8, 4, 12, 6]
    assert [out_size(side, 3, 2, ceil=True) for side in (55, 27, 13)] == [27, 13, 6]
    assert out_size(5, 1, 4, ceil=True) == out_size(6, 1, 4, ceil=True) == 2   # none outside
    with pytest.raises(ValueError, match="a window of 5 does not fit into 4 pixels"):
        out_size(4, 5, 1)


@pytest.mark.parametrize("ties, expected", [("first", [1, 0, 0, 0]), ("all", [1, 1, 1, 1])])
def test_tied_pixels_of_a_pool_share_as_they_are_told(ties, expected):
    x = Tensor(np.ones((1, 2, 2, 1)), requires_grad=True)
    y = max_pool(x, size=2, stride=2, ties=ties)
    y.sum().backward()
    assert x.grad.ravel().tolist() == expected


def test_softmax_cross_entropy_is_the_mean_of_minus_log_p(place):
    x, labels = 3 * distinct(5, 7), np.array([1, 0, 6, 6, 3])
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    assert forward(ops.softmax, x, device=place) == pytest.approx(p, rel=1e-13)
    loss = forward(ops.softmax_cross_entropy, x, device=place, labels=labels)
    assert loss == pytest.approx(-np.log(p[np.arange(5), labels]).mean(), rel=1e-13)


def test_views_are_averaged_as_probabilities():
    logits = 3 * distinct(3 * 10, 7)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = p.reshape(3, 10, 7).mean(axis=1)
    assert np.exp(mean_over_views(logits, 10)) == pytest.approx(expected, rel=1e-13)


def test_a_probability_too_small_for_float32_still_has_a_logarithm():
    logits = np.array([[0.0, 400.0], [0.0, 300.0]], np.float32)
    assert mean_over_views(logits, 2)[0, 0] == pytest.approx(-300 - np.log(2), rel=1e-6)


def test_softmax_survives_large_numbers():
    x = np.array([[1e4, 0.0], [-1e4, 0.0]], np.float32)
    assert forward(ops.softmax, x).tolist() == [[1, 0], [0, 1]]
    loss = forward(ops.softmax_cross_entropy, x, labels=np.array([1, 1]))
    assert loss == 5000


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0], [1], [[0, 1]]])
def test_labels_that_fit_no_class_or_no_row_are_refused(labels):
    with pytest.raises(ValueError, match="labels"):
        forward(ops.softmax_cross_entropy, np.zeros((2, 3)), labels=np.array(labels))


def test_an_empty_batch_stays_empty():
    x = np.zeros((0, 9, 9, 2))
    for function in (max_pool, avg_pool, lrn, lrn_same_map, ops.relu, ops.flatten):
        assert len(forward(function, x)) == 0


def test_errors_count_labels_outside_the_k_largest():
    logits = np.array([[3.0, 2, 1, 0], [0, 1, 2, 3], [1, 1, 1, 1]])
    labels = np.array([0, 1, 2])
    assert [int(wrong(logits, labels, k)) for k in (1, 2, 3, 4)] == [2, 2, 1, 0]


def test_a_net_that_says_nan_is_always_wrong():
    logits = np.array([[np.nan, np.nan, np.nan], [0, np.nan, 1]])
    assert int(wrong(logits, np.array([0, 1]), 2)) == 2


def test_dense_and_take_and_concat(place):
    x, W, b = distinct(4, 6), distinct(6, 3), distinct(3)
    assert forward(ops.dense, x, W, b, device=place) == pytest.approx(x @ W + b)
    left, right = (forward(ops.take, x, device=place, key=(slice(None), slice(i, i + 3)))
                   for i in (0, 3))
    assert np.array_equal(left, x[:, :3]) and np.array_equal(right, x[:, 3:])
    assert np.array_equal(forward(ops.concat, left, right, device=place), x)


def test_classic_dropout_drops_in_training_and_halves_in_tests():
    layer = layers.Dropout(0.5)
    x = Tensor(np.ones((100, 100)))
    y = layer(x).numpy()
    assert set(np.unique(y)) == {0, 1} and y.mean() == pytest.approx(0.5, abs=0.02)
    assert np.all(layer.eval()(x).numpy() == 0.5)


def test_inverted_dropout_doubles_in_training_and_does_nothing_in_tests():
    layer = layers.Dropout(0.5, classic=False)
    x = Tensor(np.ones((100, 100)))
    assert set(np.unique(layer(x).numpy())) == {0, 2}
    assert layer.eval()(x) is x


def test_dropout_masks_differ_by_step_and_layer_and_return_with_the_step():
    x = Tensor(np.ones((50, 50)))
    net = layers.Sequential(layers.Dropout(), layers.Dropout()).initialize(seed=1)
    one, other = net
    masks = [one(x).numpy(), one(x).numpy(), other(x).numpy()]
    assert not np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])
    net.train(step=1)
    assert np.array_equal(one(x).numpy(), masks[1])


TORCH = {
    "conv2d": (lambda F, x, W, b: F.conv2d(x, W, b, stride=2, padding=1),
               lambda x, W, b: conv2d(x, W, b, stride=2, pad=1),
               (2, 9, 8, 3), (3, 3, 3, 4), (4,)),
    "max_pool": (lambda F, x: F.max_pool2d(x, 3, 2), max_pool, (2, 9, 8, 3)),
    "avg_pool": (lambda F, x: F.avg_pool2d(x, 3, 2), avg_pool, (2, 9, 8, 3)),
    "max_pool, over the edge": (lambda F, x: F.max_pool2d(x, 3, 2, ceil_mode=True),
                                lambda x: max_pool(x, ceil=True), (2, 8, 10, 3)),
    "lrn": (lambda F, x: F.local_response_norm(x, 5, alpha=5 * 0.3, beta=0.75, k=2.0),
            lambda x: lrn(x, alpha=0.3), (2, 3, 4, 9)),      # theirs divides alpha by n
    "relu": (lambda F, x: F.relu(x), ops.relu, (2, 3, 4, 5)),
    "tanh": (lambda F, x: x.tanh(), ops.tanh, (2, 3, 4, 5)),
}


def in_torch_order(array, is_weight=False):
    """N H W C -> N C H W, and KH KW C O -> O C KH KW."""
    if array.ndim < 4:
        return array
    return np.ascontiguousarray(array.transpose((3, 2, 0, 1) if is_weight else (0, 3, 1, 2)))


@pytest.mark.parametrize("name", TORCH)
def test_values_and_gradients_agree_with_pytorch(name, place):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    theirs, ours, *shapes = TORCH[name]
    arrays = [distinct(*shape, seed=i) for i, shape in enumerate(shapes)]
    tensors = [Tensor(array, place, requires_grad=True) for array in arrays]
    y = ours(*tensors)
    u = distinct(*y.shape, seed=9)
    contract(y, u=u).backward()

    twins = [torch.tensor(in_torch_order(array, is_weight=i == 1), requires_grad=True)
             for i, array in enumerate(arrays)]
    z = theirs(torch.nn.functional, *twins)
    (z * torch.tensor(in_torch_order(u))).sum().backward()
    assert in_torch_order(y.numpy()) == pytest.approx(z.detach().numpy(), abs=1e-12)
    for i, (tensor, twin) in enumerate(zip(tensors, twins, strict=True)):
        gradient = in_torch_order(to_host(tensor.grad), is_weight=i == 1)
        assert gradient == pytest.approx(twin.grad.numpy(), abs=1e-11)
