"""A sum over a batch has an order that several processes can keep."""
import numpy as np
import pytest

from tinynet import cores, ops
from tinynet.conv import conv2d
from tinynet.engine import Tensor

COUNTS = 1, 5, 9, 29, 64                     # of pictures: some lanes are empty, or uneven


def parts_of(count, ranks):
    """(first row, last, rows of each lane) for each of so many ranks."""
    edges = cores.edges(count)
    each = cores.LANES // ranks
    for first in range(0, cores.LANES, each):
        own = edges[first:first + each + 1]
        yield own[0], own[-1], [int(n) for n in np.diff(own)]


def test_lanes_are_as_even_as_can_be():
    for count in range(100):
        sizes = np.diff(cores.edges(count))
        assert sum(sizes) == count and max(sizes) - min(sizes) <= 1
    assert cores.edges(10, 4) == [0, 2, 5, 7, 10]


def test_a_tree_adds_neighbours_first_and_skips_what_is_not_there():
    class Term(str):
        def __iadd__(self, other):
            return Term(f"({self}{other})")

    assert cores.tree([Term(n) for n in "01234567"]) == "(((01)(23))((45)(67)))"
    assert cores.tree([None, Term("1"), Term("2"), None]) == "(12)"
    assert cores.tree([None, None]) is None and cores.tree([Term("0")]) == "0"


def test_the_order_of_a_sum_is_that_of_the_tree():
    """1 is lost beside 2 ** 24, and is not if it is added to another 1 first."""
    lane = np.float32([2 ** 24, 1, 1, 1, 0, 0, 0, 0])
    total = cores.sum_over_batch(lambda x: x.sum(axis=0), lane.reshape(8, 1))
    assert total == np.float32(2 ** 24 + 2) != lane.cumsum()[-1]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("ranks", [2, 4, 8])
@pytest.mark.parametrize("how", [dict(form="winograd"), dict(form="im2col"),
                                 dict(form="winograd", stride=2), dict(form="im2col", stride=2)])
def test_what_ranks_compute_of_their_lanes_is_what_one_computes_of_all(monkeypatch, count,
                                                                         ranks, how):
    """Values, gradients of the input and, as a tree, of the weights: to the bit. The scratch is
    so small that lanes are cut again."""
    monkeypatch.setattr(cores, "CPU_SCRATCH", 1 << 20)
    draw = np.random.default_rng(0).standard_normal
    x, W, b = (draw(shape, np.float32) for shape in ((count, 13, 13, 8), (5, 5, 8, 12), (12,)))
    dy = draw(conv2d(Tensor(x[:1]), Tensor(W), Tensor(b), pad=2, **how).shape[1:], np.float32)

    def run(rows, lanes):
        tensors = [Tensor(array, requires_grad=True) for array in (x[rows], W, b)]
        with cores.lanes(lanes):
            y = conv2d(*tensors, pad=2, **how)
            (y * Tensor(dy)).sum().backward()
        return y.numpy(), [tensor.grad for tensor in tensors]

    whole, (dx, *dWb) = run(slice(None), None)
    sums = []
    for first, last, lanes in parts_of(count, ranks):
        y, (own_dx, *own) = run(slice(first, last), lanes)
        assert np.array_equal(y, whole[first:last]) and np.array_equal(own_dx, dx[first:last])
        sums.append(own if last > first else None)
    for i in range(2):
        total = cores.tree([own and own[i].copy() for own in sums])
        assert np.array_equal(total, dWb[i])


def test_lanes_end_with_their_block_and_count_for_no_other_array():
    x = np.float32([2 ** 24, 1, 1, 0, 0, 0, 0, 0, 0]).reshape(9, 1)
    def total(x): return cores.sum_over_batch(lambda x: x.sum(axis=0), x)
    eighths, fewer = total(x), total(x[:8])
    with cores.lanes([1, 8]):
        assert total(x) == 2 ** 24 + 2 and total(x[:8]) == fewer != 2 ** 24 + 2
    assert total(x) == eighths


def test_an_op_that_makes_every_number_by_itself_may_be_cut_anywhere():
    x = np.random.default_rng(0).standard_normal((29, 7, 7, 3))
    with cores.lanes([3, 26]):
        assert np.array_equal(ops.relu(Tensor(x)), np.maximum(x, 0))


@pytest.mark.parametrize("count", [1, 5, 32])
@pytest.mark.parametrize("inputs, outputs", [(288, 64), (64, 10), (30, 3), (1024, 4096)])
def test_a_dense_layer_of_some_lanes_computes_what_one_of_all_lanes_does(count, inputs, outputs):
    draw = np.random.default_rng(0).standard_normal
    x, W, b, dy = (draw(shape, np.float32) for shape in (
        (count, inputs), (inputs, outputs), (outputs,), (count, outputs)))

    def run(columns, lanes):
        tensors = [Tensor(array, requires_grad=True) for array in (x, W[:, columns], b[columns])]
        y = ops.dense(*tensors, cuts=lanes)
        (y * Tensor(dy[:, columns])).sum().backward()
        return y.numpy(), *(tensor.grad for tensor in tensors)

    edges = cores.edges(outputs)
    y, dx, dW, db = run(slice(None), edges)
    assert np.allclose(y, x @ W + b, rtol=1e-4, atol=1e-2)
    assert np.allclose(dx, dy @ W.T, rtol=1e-4, atol=1e-2)
    assert np.allclose(dW, x.T @ dy, rtol=1e-4, atol=1e-2)
    assert np.allclose(db, dy.sum(axis=0), rtol=1e-4, atol=1e-2)
    for ranks in 2, 4, 8:
        sums = []
        for first in range(0, cores.LANES, cores.LANES // ranks):
            own = edges[first:first + cores.LANES // ranks + 1]
            columns = slice(own[0], own[-1])
            own_y, own_dx, own_dW, own_db = run(columns, [place - own[0] for place in own])
            assert np.array_equal(own_y, y[:, columns])
            assert np.array_equal(own_dW, dW[:, columns])
            assert np.array_equal(own_db, db[columns])
            sums.append(own_dx)
        assert np.array_equal(cores.tree(sums), dx)
