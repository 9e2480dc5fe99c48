"""What an op says to numbers that it cannot take, and what it makes of the smallest ones."""
import numpy as np
import pytest

from tinynet import ops
from tinynet.device import to_host
from tinynet.engine import Tensor
from tinynet.pool import max_pool

LOGITS = np.zeros((4, 3), np.float32)


def test_the_simple_ops_take_one_number():
    assert Tensor(3.0).relu().item() == 3 and Tensor(-3.0).relu().item() == 0
    assert ops.tanh(Tensor(0.5)).item() == pytest.approx(np.tanh(0.5), rel=1e-6)
    assert ops.flatten(Tensor(3.0)).shape == (1,)


def test_the_mean_of_nothing_is_no_number(place):
    x = Tensor(np.zeros((0, 3), np.float32), place)
    assert np.isnan(x.mean().item()) and np.isnan(to_host(x.mean(axis=0).data)).all()


def test_a_nan_passes_through_and_has_no_slope(place):
    x = Tensor(np.array([np.nan, -1.0, 2.0]), place, requires_grad=True)
    y = ops.relu(x)
    assert np.isnan(y.numpy()).tolist() == [True, False, False]
    y.sum().backward()
    assert to_host(x.grad).tolist() == [0, 0, 1]
    for i in range(4):
        four = np.arange(4.0)
        four[i] = np.nan
        assert np.isnan(max_pool(Tensor(four.reshape(1, 2, 2, 1), place), size=2).numpy()).all()


def dense(x_shape, W_shape=(9, 2), b_shape=(2,)):
    return ops.dense(*[Tensor(np.zeros(shape)) for shape in (x_shape, W_shape, b_shape)])


@pytest.mark.parametrize("shape", [(4, 8), (8,), (4, 2, 2, 8), (4, 3, 8)])
def test_dense_says_how_many_inputs_come_in_and_how_many_are_wanted(shape):
    with pytest.raises(ValueError, match="^dense: 8 inputs come in, 9 are wanted: is a Flatten"):
        dense(shape)


@pytest.mark.parametrize("shape", [(), (9,), (4, 3, 9), (1, 4, 3, 9)])
def test_dense_wants_rows(shape):
    with pytest.raises(ValueError, match=r"^dense: rows \(N, 9\) are wanted, .*reshape\(-1, 9\)"):
        dense(shape)


def test_a_bias_of_another_length_is_not_repeated():
    with pytest.raises(ValueError, match=r"^dense: W \(9, 2\) and b \(1,\) differ"):
        dense((4, 9), b_shape=(1,))


@pytest.mark.parametrize("labels", [[0, 2, 1, 1], (0, 2, 1, 1), np.array([0, 2, 1, 1], np.uint8),
                                    Tensor(np.array([0, 2, 1, 1]))])
def test_labels_are_integers_in_whatever_holds_them(labels):
    assert ops.softmax_cross_entropy(Tensor(LOGITS), labels=labels).item() == pytest.approx(
        np.log(3), rel=1e-6)


def test_labels_and_keys_may_be_filled_anew_before_the_gradient_is_asked_for():
    labels, key = np.array([0, 2, 1, 1]), np.array([0, 1])
    x = Tensor(LOGITS, requires_grad=True)
    loss, taken = ops.softmax_cross_entropy(x, labels=labels), x[key].sum()
    labels[:], key[:] = [1, 1, 0, 0], 3
    loss.backward()
    assert list(x.grad.argmin(axis=1)) == [0, 2, 1, 1]
    x.grad = None
    taken.backward()
    assert list(x.grad[:, 0]) == [1, 1, 0, 0]


@pytest.mark.parametrize("error, labels, said", [
    (TypeError, np.zeros(4), "integers, not float64: labels.astype"),
    (TypeError, [0.0, 1.0, 2.0, 1.0], "integers, not float64"),
    (TypeError, [True, False, True, True], "integers, not bool"),
    (TypeError, Tensor([0, 1, 2, 1]), "integers, not float32"),
    (ValueError, np.eye(3)[[0, 1, 2, 1]], r"not \(4, 3\); of one-hot rows, np.argmax"),
    (ValueError, [[0], [1], [2], [1]], r"not \(4, 1\); np.ravel\(labels\)"),
    (ValueError, [0, 1, 2], r"4 rows need 4 labels, not \(3,\)$"),
    (ValueError, [0, 1, 2, 3], "labels of 3 classes are 0 ... 2, not 0 ... 3"),
    (ValueError, [0, 1, 2, -1], "labels of 3 classes are 0 ... 2, not -1 ... 2")])
def test_labels_of_another_kind_are_refused_each_with_its_own_sentence(error, labels, said):
    with pytest.raises(error, match="^softmax_cross_entropy: .*" + said):
        ops.softmax_cross_entropy(Tensor(LOGITS), labels=labels)


@pytest.mark.parametrize("shape", [(), (4,), (4, 0), (4, 3, 2)])
def test_logits_are_rows_of_classes(shape):
    with pytest.raises(ValueError, match=r"^softmax_cross_entropy: logits \(N, classes\) are"):
        ops.softmax_cross_entropy(Tensor(np.zeros(shape)), labels=[0, 0, 0, 0])


def dropout(**how):
    return ops.dropout(Tensor(LOGITS), **dict(dict(keep=0.5, scale=1, seed=0, step=0, layer=0),
                                              **how))


@pytest.mark.parametrize("keep", [0, -0.5, 1.5, np.nan])
def test_dropout_keeps_something_and_not_more_than_all(keep):
    with pytest.raises(ValueError, match="^dropout: keep is above 0 and at most 1, not"):
        dropout(keep=keep)


@pytest.mark.parametrize("seed", [-1, 2 ** 56])
def test_dropout_takes_no_seed_that_is_not_a_counter(seed):
    with pytest.raises(ValueError, match="^dropout: a seed is at least 0 and below"):
        dropout(seed=seed)


def test_axes_are_those_that_numpy_takes():
    x = Tensor(np.arange(24.0).reshape(2, 3, 4))
    assert x.transpose(-1, 0, 1).shape == (4, 2, 3) == x.transpose(2, -3, -2).shape
    for axes in (0, 3), (0, 1, 3), (0, 1, -4), (0, 0, 1), (0, 1):
        with pytest.raises(ValueError, match="axes don't match|out of bounds|repeated axis"):
            x.transpose(*axes)
    with pytest.raises(TypeError):
        x.transpose(1.7, 0.2, 2)


def test_an_empty_list_takes_nothing():
    x = Tensor(np.ones((4, 3)))
    assert x[[]].shape == (0, 3) and x[:, []].shape == (4, 0)
