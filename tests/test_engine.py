"""The graph: who gets which gradient, what is kept, what is refused."""
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tinynet import ops
from tinynet.device import Device, to_host
from tinynet.engine import Tensor, add, copy_to, graph, no_grad, op


def leaf(*values, device="cpu"):
    return Tensor(np.array(values), device, requires_grad=True)


@op
def total(x):
    shape = x.shape
    def dx(dy): return np.broadcast_to(dy, shape)
    return x.sum(), dx


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
    y = 3 * a - b * a + (1 - b) - (-a)
    assert y.item() == 6 - 10 - 4 + 2
    y.backward()
    assert a.grad == 3 - 5 + 1
    assert b.grad == -2 - 1


def test_gradients_of_two_backwards_add_up():
    a = leaf(1.0)
    (a * 2).backward()
    (a * 3).backward()
    assert a.grad == 5


def test_a_gradient_is_summed_over_what_was_repeated():
    a, b = leaf(1.0, 2.0), Tensor(np.ones((3, 2)), requires_grad=True)
    total(a * b).backward()
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
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
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
    product(Tensor([2.0]), b).backward()
    assert b.grad == 2


def test_what_is_saved_is_what_the_gradient_functions_mention():
    x = leaf(-1.0, 2.0)
    hidden = x * 2
    before = weakref.ref(hidden.data)
    y = ops.relu(hidden)                      # relu's gradient mentions its output only
    after = weakref.ref(y.data)
    y = total(y)
    del hidden
    assert before() is None and after() is not None
    y.backward()
    assert after() is None                    # backward has used it


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

    with pytest.raises(ValueError, match=r"wrong: a gradient of shape \(\)"):
        wrong(leaf(1.0, 2.0)).backward()


def test_copying_to_the_same_device_does_nothing():
    x = leaf(1.0)
    assert copy_to(x, "cpu") is x


def test_a_copy_shares_no_memory_and_its_gradient_comes_home(pair):
    here, there = pair
    x = Tensor(np.array([1.0, 2.0]), here, requires_grad=True)
    y = x.copy_to(there)
    assert y.device == there and y.node.op == "copy_to"
    assert y.numpy().tolist() == [1, 2]
    with here:
        x.data *= 0
    assert y.numpy().tolist() == [1, 2]


def test_ops_run_with_their_device_current_forward_and_backward(pair, monkeypatch):
    here, there = pair
    current, seen = [], []
    enter, leave = Device.__enter__, Device.__exit__
    monkeypatch.setattr(Device, "__enter__", lambda self: current.append(self) or enter(self))
    monkeypatch.setattr(Device, "__exit__", lambda self, *how: current.pop() and leave(self, *how))

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

    class Watched(Device):
        def __enter__(self):
            places.append(str(self))
            return super().__enter__()

    x.device = Watched(str(here))
    y = copy_to(x, there) * Tensor([2.0], there) + copy_to(x, there)
    places.clear()
    y.backward()
    assert to_host(x.grad) == 3
    # Twice a gradient is put here, twice added to the others, once stored as x.grad.
    assert places.count(str(here)) == 5


def test_the_graph_lists_every_tensor_oldest_first():
    a = leaf(1.0)
    b = a * a
    c = b + a
    assert graph(c) == [a, b.node, c.node]


def test_no_grad_silences_its_own_thread_only():
    x = leaf(1.0)
    with no_grad(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: ops.relu(x).requires_grad).result()
        assert not ops.relu(x).requires_grad


def test_an_array_times_a_tensor_is_a_tensor():
    y = np.ones(3) * leaf(1.0, 2.0, 3.0)
    assert isinstance(y, Tensor) and y.numpy().tolist() == [1, 2, 3]


def test_integers_are_refused_instead_of_rounded():
    with pytest.raises(TypeError, match="multiply takes floating-point numbers, not int64"):
        Tensor(np.array([1, 2])) * 0.5
