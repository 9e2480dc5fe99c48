"""The update rule of section 5."""
import numpy as np
import pytest

from tinynet.device import Cpu
from tinynet.engine import Parameter
from tinynet.layers import Dense, ReLU
from tinynet.optim import SGD


def weights_after(steps, lrs=None, name="W", **options):
    w = Parameter(np.array([2.0, -1.0]))
    optimizer = SGD([(name, w)], **options)
    for step in range(steps):
        if lrs:
            optimizer.lr = lrs[step]
        w.grad = np.array([0.5, 3.0]) * (step + 1)
        optimizer.step()
    return w.data


def by_hand(steps, rates, momentum, decay):
    w, v = np.array([2.0, -1.0]), np.zeros(2)
    for step in range(steps):
        dw = np.array([0.5, 3.0]) * (step + 1)
        v = momentum * v - decay * rates[step] * w - rates[step] * dw
        w = w + v
    return w


def test_the_update_is_the_papers_term_by_term():
    w = weights_after(5, lr=0.01, momentum=0.9, weight_decay=0.0005)
    assert w == pytest.approx(by_hand(5, [0.01] * 5, 0.9, 0.0005), rel=1e-14)


def test_the_rate_stands_inside_the_velocity():
    rates = [0.1, 0.1, 0.01, 0.01]
    w = weights_after(4, rates, momentum=0.9, weight_decay=0.0)
    assert w == pytest.approx(by_hand(4, rates, 0.9, 0.0), rel=1e-14)


def test_decay_follows_the_rate_down():
    rates = [0.1, 0.1, 0.01, 0.01]
    w = weights_after(4, rates, momentum=0.9, weight_decay=0.5)
    assert w == pytest.approx(by_hand(4, rates, 0.9, 0.5), rel=1e-14)


def test_biases_decay_like_weights_unless_they_are_told_not_to():
    w = weights_after(3, name="top.conv1.0.b", lr=0.01, momentum=0.9, weight_decay=0.5)
    assert w == pytest.approx(by_hand(3, [0.01] * 3, 0.9, 0.5), rel=1e-14)


@pytest.mark.parametrize("name, rate, decay", [
    ("top.conv1.0.W", 0.001, 0.5), ("bottom.conv1.0.b", 0.002, 0.0),
    ("top.conv2.0.W", 0.01, 0.5), ("top.fc6.1.W", 0.01, 100.0), ("fc6.b", 0.02, 0.0)])
def test_a_layer_may_have_a_rate_and_a_decay_of_its_own(name, rate, decay):
    w = Parameter(np.array([2.0, -1.0]))
    others = [(other, Parameter(np.zeros(2))) for other in ("conv1.1.W", "fc6.W")]
    optimizer = SGD([*others, (name, w)], lr=0.01, momentum=0.9, weight_decay=0.5, bias_lr=2.0,
                    decay_biases=False, rates={"conv1": 0.1}, decays={"fc6": 200.0})
    for step in range(3):
        w.grad = np.array([0.5, 3.0]) * (step + 1)
        optimizer.step()
    assert w.data == pytest.approx(by_hand(3, [rate] * 3, 0.9, decay), rel=1e-13)


@pytest.mark.parametrize("key, about", [
    ("a", "a.0.W a.0.b"), ("a.0", "a.0.W a.0.b"), ("a.0.W", "a.0.W"), ("a.W", "a.0.W"),
    ("b", "b.W b.b"), ("b.W", "b.W"), ("gain", "gain"),
    ("0", "0.0.W 0.0.b"), ("0.0", "0.0.W 0.0.b"), ("0.b", "0.0.b"), ("1", "1.0.W")])
def test_rates_are_asked_for_by_the_names_that_a_summary_prints(key, about):
    optimizer = SGD([(name, Parameter(np.zeros(1)))
                     for name in ("a.0.W", "a.0.b", "b.W", "b.b", "gain", "again", "0.0.W",
                                  "0.0.b", "1.0.W")],
                    rates={key: 0.5}, decays={key: 2.0})
    found = [name for name in optimizer.parameters if optimizer.multiple(name) == 0.5]
    assert found == about.split()
    assert found == [name for name in optimizer.parameters if optimizer.decay(name) == 0.001]


@pytest.mark.parametrize("key", ["conv9", "a.1", "a.W.0", "A", "a.0.c", "W", ".W", "", "0"])
def test_a_rate_for_what_is_not_there_is_refused(key):
    for how in {"rates": {key: 0.0}}, {"decays": {key: 0.0}}:
        with pytest.raises(ValueError, match=r"^SGD: .*is in no name of a\.0\.W, b\.W$"):
            SGD([("a.0.W", Parameter(np.zeros(1))), ("b.W", Parameter(np.zeros(1)))], **how)


@pytest.mark.parametrize("of_numpy", [np.float64, np.float32, lambda value: np.array(value)])
def test_a_rate_of_numpy_s_makes_the_same_step(of_numpy):
    found = []
    for kind in (float, of_numpy):
        w = Parameter(np.linspace(-1, 1, 999, dtype=np.float32))
        optimizer = SGD([("W", w)], lr=kind(0.013), momentum=kind(0.9))
        for _ in range(5):
            w.grad = np.sin(w.data) / 3
            optimizer.step()
        found.append(w.data)
    assert found[0].tobytes() == found[1].tobytes()


def test_a_number_without_axes_learns_whatever_was_done_to_it(place):
    w = Parameter(2.0, place)
    optimizer = SGD([("gain", w)], lr=0.1, momentum=0.0, weight_decay=0.0)
    for wanted in 0.5, -0.25:
        with w.device:
            w.data = w.data / 2            # which of NumPy's arrays makes a number
            w.grad = w.device.put(np.array(5.0))
        optimizer.step()
        assert w.numpy() == pytest.approx(wanted)


def test_a_frozen_layer_stands_still_momentum_and_all():
    w = Parameter(np.array([1.0]))
    optimizer = SGD([("top.conv1.0.W", w)])
    w.grad = np.array([1.0])
    optimizer.step()
    moved, optimizer.rates = w.data.copy(), {"conv1": 0.0}
    optimizer.step()
    assert np.array_equal(w.data, moved) and not np.array_equal(moved, [1.0])


def test_a_step_runs_with_the_device_of_each_parameter_current():
    entered = []

    class Watched(Cpu):
        def __enter__(self):
            entered.append(str(self))
            return super().__enter__()

    w, v = Parameter(np.ones(2), Watched("cpu0")), Parameter(np.ones(2), Watched("cpu1"))
    optimizer = SGD([("w", w), ("v", v)])
    w.grad = v.grad = np.ones(2)
    entered.clear()
    optimizer.step()
    assert entered == ["cpu0", "cpu1"]


def test_biases_may_learn_faster_and_not_decay():
    how = dict(lr=0.01, momentum=0.9, weight_decay=0.5, bias_lr=2.0, decay_biases=False)
    assert weights_after(3, name="top.conv1.0.b", **how) == pytest.approx(
        by_hand(3, [0.02] * 3, 0.9, 0.0), rel=1e-14)
    assert weights_after(3, name="top.conv1.0.W", **how) == pytest.approx(
        by_hand(3, [0.01] * 3, 0.9, 0.5), rel=1e-14)


def test_what_has_no_gradient_is_left_alone():
    w = Parameter(np.array([2.0]))
    SGD([("W", w)]).step()
    assert w.data == 2


def test_a_large_array_is_updated_everywhere_in_place():
    w = Parameter(np.ones((700, 1000), np.float32))
    data = w.data
    w.grad = np.ones((1000, 700), np.float32).T            # not contiguous, as dW may be
    SGD([("W", w)], lr=1.0, momentum=0.0, weight_decay=0.0).step()
    assert w.data is data and np.all(data == 0) and data.dtype == np.float32


def test_a_net_may_be_given_whole():
    net = Dense(2, 3)
    assert list(SGD(net).parameters) == ["W", "b"] == list(SGD(net.parameters()).parameters)


def test_a_generator_that_was_read_before_is_not_taken_for_a_net():
    parameters = (pair for pair in Dense(2, 3).parameters())
    list(parameters)
    with pytest.raises(ValueError, match="SGD: no parameters: .* generator that had been read"):
        SGD(parameters)


def test_a_net_without_weights_has_nothing_to_learn():
    with pytest.raises(ValueError, match="SGD: no parameters"):
        SGD(ReLU())


@pytest.mark.parametrize("parameters", [[Parameter([1.0, 2.0])], {"W": Parameter([1.0])}])
def test_a_parameter_has_a_name(parameters):
    with pytest.raises(TypeError, match=r"SGD takes a net, or \(name, Parameter\) pairs"):
        SGD(parameters)


@pytest.mark.parametrize("how", [
    dict(lr=np.nan), dict(momentum=np.inf), dict(weight_decay=-np.inf)])
def test_rates_that_are_no_numbers_are_refused(how):
    with pytest.raises(ValueError, match=r"^SGD: lr .*(nan|inf)"):
        SGD([("W", Parameter(np.zeros(1)))], **how)
