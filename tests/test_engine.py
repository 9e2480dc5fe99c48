"""The tensor and its graph: who gets which gradient, what is kept, what is refused."""
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tinynet import cores, ops
from tinynet.device import to_host
from tinynet.engine import Tensor, add, graph, matmul, no_grad, op
from tinynet.split import copy_to


def leaf(*values, device="cpu"):
    return Tensor(np.array(values), device, requires_grad=True)


def test_a_tensor_used_twice_gets_both_gradients():
    a = leaf(3.0)
    b = a + a
    c = b + b
    c.backward()
    assert a.grad == 4


def test_a_diamond_is_visited_from_the_newest_tensor_on():
    a = leaf(2.0)
    b = a * a
    c = b * a              # uses b, and a again
    (b + c).backward()     # a^2 + a^3
    assert a.grad == 2 * 2 + 3 * 2 ** 2


def test_the_operators_are_those_of_arithmetic():
    a, b = leaf(2.0), leaf(5.0)
    y = 3 * a - b * a + (1 - b) - (-a) + 10 / a - b / 4 + a ** 3
    assert y.item() == 6 - 10 - 4 + 2 + 5 - 1.25 + 8
    y.backward()
    assert a.grad == 3 - 5 + 1 - 10 / 4 + 3 * 4
    assert b.grad == -2 - 1 - 0.25


def test_gradients_of_two_backwards_add_up():
    a = leaf(1.0)
    (a * 2).backward()
    (a * 3).backward()
    assert a.grad == 5


def test_a_gradient_is_summed_over_what_was_repeated():
    a, b = leaf(1.0, 2.0), Tensor(np.ones((3, 2)), requires_grad=True)
    (a * b).sum().backward()
    assert a.grad.tolist() == [3, 3]
    assert b.grad.tolist() == [[1, 2]] * 3


def test_gradients_stay_on_leaves_only():
    a = leaf(1.0)
    b = a * 2
    (b * 3).backward()
    assert a.grad == 6 and b.grad is None


def test_a_used_graph_refuses_a_second_backward():
    a = leaf(1.0)
    y = a * 2
    y.backward()
    with pytest.raises(RuntimeError, match="already used by backward"):
        y.backward()


def test_a_graph_that_shares_a_used_part_is_refused_before_it_changes_a_gradient():
    a, b = leaf(1.0), leaf(1.0)
    shared = a * 2
    shared.backward()
    with pytest.raises(RuntimeError, match="already used by backward"):
        (shared * b).backward()
    assert b.grad is None and a.grad == 2


def test_backward_starts_from_one_number():
    with pytest.raises(ValueError, match=r"shape \(2,\): take the sum"):
        (leaf(1.0, 2.0) * 2).backward()


def test_backward_says_when_there_is_nothing_to_differentiate():
    with pytest.raises(RuntimeError, match="nothing to differentiate"):
        (Tensor(1.0) * 2).backward()
    a = leaf(1.0)
    with no_grad():
        y = a * 2
    with pytest.raises(RuntimeError, match="no_grad"):
        y.backward()


def test_only_wanted_gradients_are_computed():
    @op
    def product(x, y):
        def dx(dy): raise AssertionError("nobody wants this gradient")
        def dy_(dy): return dy * x
        return x * y, dx, dy_

    b = leaf(3.0)
    product(Tensor(np.array([2.0])), b).backward()
    assert b.grad == 2


def test_what_is_saved_is_what_the_gradient_functions_mention():
    x = leaf(-1.0, 2.0)
    hidden = x * 2
    before = weakref.ref(hidden.data)
    y = ops.relu(hidden)                      # relu's gradient mentions its output only
    after = weakref.ref(y.data)
    y = y.sum()
    del hidden
    assert before() is None and after() is not None
    y.backward()
    assert after() is None                    # backward has used it


@pytest.mark.parametrize("combine", [lambda a, b: a + b, lambda a, b: a - b])
def test_a_sum_and_a_difference_keep_nothing(combine):
    """Their gradient functions need two shapes, and no numbers."""
    x = leaf(-1.0, 2.0)
    hidden, other = x * 2, x * 3
    before = weakref.ref(hidden.data), weakref.ref(other.data)
    y = combine(hidden, other)
    del hidden, other
    assert [data() for data in before] == [None, None] and y.requires_grad


def test_no_grad_keeps_nothing():
    x = leaf(1.0)
    with no_grad():
        y = ops.relu(x * 2)
    assert not y.requires_grad and graph(y) == [y]


def test_a_chain_of_five_thousand_ops_needs_no_recursion():
    x = y = leaf(1.0)
    for _ in range(5000):
        y = y + x
    y.backward()
    assert x.grad == 5001


def test_no_reference_cycles_hold_memory():
    gc.collect()
    gc.disable()
    try:
        x = leaf(1.0)
        y = ops.relu(x * 2)
        data = weakref.ref(y.data)
        del y
        assert data() is None
    finally:
        gc.enable()


def test_a_mixture_of_devices_is_refused_with_the_way_out():
    with pytest.raises(RuntimeError, match="add: .*cpu0, cpu1; .*copy_to"):
        add(leaf(1.0, device="cpu0"), leaf(1.0, device="cpu1"))


def test_an_array_is_no_tensor():
    with pytest.raises(TypeError, match="relu takes tensors, not ndarray"):
        ops.relu(np.ones(3))


def test_a_gradient_of_the_wrong_shape_is_named():
    @op
    def wrong(x):
        return x.sum(), lambda dy: dy

    with pytest.raises(ValueError, match=r"wrong: .* of shape \(2,\), not \w+, \(\)$"):
        wrong(leaf(1.0, 2.0)).backward()


def test_copying_to_the_same_device_does_nothing():
    x = leaf(1.0)
    assert copy_to(x, "cpu") is x


def test_a_copy_shares_no_memory_and_its_gradient_comes_home(pair):
    here, there = pair
    x = Tensor(np.array([1.0, 2.0]), here, requires_grad=True)
    y = copy_to(x, there)
    assert y.device == there and y.node.op == "copy_to"
    there.synchronize()                # else x might still be on its way when it is written to
    with here:
        x.data *= 0
    assert y.numpy().tolist() == [1, 2]


def test_ops_run_with_their_device_current_forward_and_backward(pair, monkeypatch):
    here, there = pair
    current, seen = [], []
    kind = type(here)
    enter, leave = kind.__enter__, kind.__exit__
    monkeypatch.setattr(kind, "__enter__", lambda self: current.append(self) or enter(self))
    monkeypatch.setattr(kind, "__exit__", lambda self, *how: current.pop() and leave(self, *how))

    @op
    def look(x):
        seen.append(current[-1])

        def dx(dy):
            seen.append(current[-1])
            return dy

        return x + 0, dx

    x = Tensor(np.array([1.0]), here, requires_grad=True)
    look(copy_to(look(x), there)).backward()
    assert seen == [here, there, there, here]


def test_gradients_are_added_on_the_device_of_the_tensor(pair):
    here, there = pair
    x = Tensor(np.array([1.0]), here, requires_grad=True)
    places = []

    class Watched(type(here)):
        def __enter__(self):
            places.append(str(self))
            return super().__enter__()

    x.device = Watched(str(here))
    y = copy_to(x, there) * Tensor(np.array([2.0]), there) + copy_to(x, there)
    places.clear()
    y.backward()
    assert to_host(x.grad) == 3
    # Twice a gradient comes home, is handed on where x departed, and is added to the others; once
    # it is stored as x.grad. A card that is both puts it there itself, and is made current, twice.
    both = here.is_gpu and here.cuda == there.cuda
    assert places.count(str(here)) == (9 if both else 7)


def test_the_graph_lists_every_tensor_oldest_first():
    a = leaf(1.0)
    b = a * a
    c = b + a
    assert graph(c) == [a, b.node, c.node]


def test_an_error_inside_no_grad_ends_it():
    with pytest.raises(ZeroDivisionError), no_grad():
        raise ZeroDivisionError
    assert (leaf(1.0) * 2).requires_grad


def test_no_grad_silences_its_own_thread_only():
    x = leaf(1.0)
    with no_grad(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: ops.relu(x).requires_grad).result()
        assert not ops.relu(x).requires_grad


def test_an_array_times_a_tensor_is_a_tensor():
    y = np.ones(3) * leaf(1.0, 2.0, 3.0)
    assert isinstance(y, Tensor) and y.numpy().tolist() == [1, 2, 3]


def test_integers_are_refused_instead_of_rounded():
    with pytest.raises(TypeError, match=r"add takes floating-point .* int64, int64: .*astype"):
        Tensor(np.array([1, 2])) + Tensor(np.array([1, 2]))


SINGLE, DOUBLE = np.ones((3, 2), np.float32), np.ones((2, 5))


@pytest.mark.parametrize("function, arrays", [
    (add, (SINGLE, SINGLE.astype(float))), (matmul, (SINGLE, DOUBLE)),
    (matmul, (np.ones((7, 2), np.float32), DOUBLE)), (matmul, (np.ones((7, 2)), SINGLE.T)),
    (ops.dense, (SINGLE.astype(float), SINGLE.T, np.ones(3, np.float32))),
    (ops.concat, (SINGLE, SINGLE.astype(np.float16)))])
def test_floats_of_two_widths_are_refused_whatever_their_shapes(function, arrays):
    with pytest.raises(TypeError, match=r"of one width, not float.*Tensor\(x.astype\(np.float32"):
        function(*map(Tensor, arrays))


@pytest.mark.parametrize("rows", [2, 20])
def test_a_product_of_two_widths_has_the_wider_one_whatever_its_shape(rows):
    """Of arrays, that is: tensors never get so far."""
    assert cores.matmul(np.ones((rows, 2), np.float32), DOUBLE).dtype == np.float64
    assert cores.matmul(np.ones((rows, 2)), DOUBLE.astype(np.float32)).dtype == np.float64


def test_numbers_and_lists_become_float32_and_arrays_stay_what_they_are():
    assert [Tensor(x).dtype for x in (3, 3.0, [1, 2], [[1.0], [2.0]], [True])] == [np.float32] * 5
    assert Tensor(np.ones(2)).dtype == Tensor(np.float64(1)).dtype == np.float64
    assert Tensor(np.array([1, 2])).dtype == np.int64


@pytest.mark.parametrize("data", [None, [1.0, None], "three", ["1"]])
def test_what_is_no_number_makes_no_tensor(data):
    with pytest.raises(TypeError, match="a tensor is made of numbers"):
        Tensor(data)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arithmetic_with_numbers_keeps_the_dtype(dtype):
    x = Tensor(np.array([1.0, 2.0], dtype), requires_grad=True)
    for number in (2, 2.0, True, np.float64(2), np.float32(2), np.int64(2)):
        for y in (x * number, number * x, x + number, 1 - x, x - number, x / number, 2 / x,
                  x ** number, -x, x + [1, 2], ops.scale(x, by=number)):
            assert isinstance(y, Tensor) and y.dtype == dtype
    (x * np.float64(2) + x ** np.float64(2)).sum().backward()
    assert x.grad.dtype == dtype and x.grad.tolist() == [4, 6]


def test_a_number_that_multiplies_is_never_an_array_on_the_device(gpus):
    x = Tensor(np.ones(3, np.float32), "gpu0")
    gpus.clear()
    2 * (-x * 0.5) ** 2
    assert gpus == []


def test_an_exponent_is_a_number():
    with pytest.raises(TypeError, match=r"power: the exponent is a number, not Tensor; .*exp\("):
        leaf(2.0) ** leaf(3.0)


def test_a_batch_of_products_is_the_product_of_each(place):
    a, b = np.arange(24.0).reshape(2, 3, 4), np.arange(40.0).reshape(2, 4, 5)
    y = Tensor(a, place) @ Tensor(b, place)
    assert np.array_equal(y.numpy(), np.stack([a[0] @ b[0], a[1] @ b[1]]))


@pytest.mark.parametrize("left, right", [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)),
                                         ((), (2, 2)), ((2, 3), (2, 3)), ((5, 2, 3), (5, 2, 3))])
def test_what_does_not_fit_is_not_multiplied(left, right):
    with pytest.raises(ValueError, match=r"matmul: \(.*\) @ \(.*\), where \(..., N, K\)"):
        Tensor(np.ones(left)) @ Tensor(np.ones(right))


def test_a_tensor_shows_its_numbers_while_they_are_few():
    x = Tensor([[1.0, 2.5], [3, 4]], requires_grad=True)
    assert repr(Tensor(7.0)) == "Tensor(7., float32, cpu)"
    assert repr(x) == "Tensor([[1. , 2.5],\n        [3. , 4. ]], float32, cpu)"
    assert repr(x * 2).endswith("float32, cpu, scale)")
    assert repr(Tensor(np.zeros((3, 50)), "cpu1")) == "Tensor(shape (3, 50), float64, cpu1)"
    assert repr(Tensor(np.zeros((0, 2)))) == "Tensor(shape (0, 2), float64, cpu)"


def test_a_tensor_says_what_an_array_says(place):
    x = Tensor(np.arange(6.0).reshape(2, 3), place)
    assert (x.shape, x.ndim, x.size, x.dtype, len(x)) == ((2, 3), 2, 6, np.float64, 2)
    assert float(x[1, 2]) == 5.0 and x.T.shape == (3, 2)
    assert np.array_equal(np.asarray(x), x.numpy())
    assert np.asarray(x, np.float32).dtype == np.float32
    assert f"{Tensor(2.5).item():.1f}" == "2.5"


def test_np_array_of_a_tensor_is_a_copy():
    x = Tensor([1.0, 2.0])
    np.array(x)[:] = 0
    assert x.numpy().tolist() == [1, 2]


def test_a_tensor_ends_when_it_is_iterated():
    assert [row.numpy().tolist() for row in leaf(1.0, 2.0)] == [1, 2]
    with pytest.raises(TypeError):
        list(Tensor(3.0))
    with pytest.raises(IndexError):
        leaf(1.0, 2.0)[2]


def test_methods_are_those_of_numpy(place):
    array = np.arange(1.0, 25.0).reshape(2, 3, 4)
    x = Tensor(array, place)
    for ours, theirs in [
            (x.sum(), array.sum()), (x.sum(0), array.sum(0)), (x.sum(axis=(0, -1), keepdims=True),
             array.sum((0, -1), keepdims=True)), (x.mean(axis=1), array.mean(1)),
            (x.max(2), array.max(2)), (x.exp(), np.exp(array)), (x.log(), np.log(array)),
            ((x - 9).relu(), np.maximum(array - 9, 0)), (x.reshape(4, -1), array.reshape(4, -1)),
            (x.reshape((6, 4)), array.reshape(6, 4)), (x.transpose(), array.transpose()),
            (x.transpose(0, 2, 1), array.transpose(0, 2, 1)), (x.T, array.T),
            (x.transpose((2, 0, 1)), array.transpose(2, 0, 1)), (x[0], array[0]),
            (x[..., 1:, [0, 2]], array[..., 1:, [0, 2]]), (x[:, None], array[:, None])]:
        assert ours.numpy() == pytest.approx(theirs, rel=1e-14) and ours.shape == theirs.shape


def test_to_the_power_of_nothing_there_is_no_slope_not_even_at_zero():
    a = leaf(0.0, 2.0)
    (a ** 0).sum().backward()
    assert a.grad.tolist() == [0, 0]
