"""What a user may write wrong around ops and nets is refused in a sentence, and never silent."""
import numpy as np
import pytest

from tinynet import SGD, Dense, Dropout, Layer, Parameter, Sequential, Tensor, op, ops


def leaf(*values):
    return Tensor(np.array(values), requires_grad=True)


# --- an op ------------------------------------------------------------------------------

@pytest.mark.parametrize("made, found", [
    (lambda x, w: (x * w, lambda dy: dy * w), "ndarray, function"),
    (lambda x, w: x * w, "ndarray"), (lambda x, w: [x * w, 1, 2], "list"),
    (lambda x, w: (x * w, *[lambda dy: dy] * 3), "ndarray, function, function, function"),
    (lambda x, w: (x * w, w, x), "ndarray, ndarray, ndarray"),
    (lambda x, w: (Tensor(x * w), *[lambda dy: dy] * 2), "Tensor, function, function")])
def test_an_op_without_a_gradient_function_for_every_tensor_is_refused_at_once(made, found):
    made.__name__ = "mine"
    with pytest.raises(TypeError, match=rf"mine: .* here 2; what came is {found}$"):
        op(made)(leaf(1.0), leaf(2.0))


def test_a_gradient_function_that_returns_nothing_is_named():
    @op
    def forgetful(x):
        def dx(dy): dy * 2
        return x * 2, dx

    with pytest.raises(ValueError, match="forgetful: .* not NoneType, no shape"):
        forgetful(leaf(1.0)).sum().backward()


def test_a_gradient_that_is_a_tensor_is_refused():
    @op
    def wrapped(x):
        return x * 2, lambda dy: Tensor(dy * 2)

    with pytest.raises(ValueError, match="is an array of shape .*, not Tensor"):
        wrapped(leaf(1.0)).sum().backward()


@pytest.mark.parametrize("ask", [
    bool, lambda x: x == x.numpy(), lambda x: x.numpy() == x, lambda x: x != 0, lambda x: 0 == x])
def test_a_tensor_is_neither_true_nor_false_nor_equal(ask):
    with pytest.raises(TypeError, match="ask x.item"):
        ask(Tensor([0.0]))
    assert len({Tensor([0.0]), Tensor([0.0])}) == 2            # it may stand in a set


@pytest.mark.parametrize("change", ["w *= 2", "w += 1", "w -= 1", "w /= 2", "w **= 2", "w @= w"])
def test_a_parameter_is_not_replaced_by_changing_it_in_place(change):
    with pytest.raises(TypeError, match="w.data"):
        exec(change, {"w": Parameter([1.0])})


@pytest.mark.parametrize("call, written", [
    (lambda x: ops.softmax_cross_entropy(x, [0]), r"softmax_cross_entropy\(x, labels=...\)"),
    (lambda x: ops.dense(x, x), r"2 came by position; write dense\(x, W, b, cuts=...\)"),
    (lambda x: ops.relu(), r"0 came by position; write relu\(x\)"),
    (lambda x: ops.concat(), r"write concat\(parts, ...\)")])
def test_an_op_says_how_it_is_called(call, written):
    with pytest.raises(TypeError, match=written):
        call(leaf(1.0))


# --- a net ------------------------------------------------------------------------------


def test_two_parameters_of_one_name_are_refused():
    """Two nets name their parameters alike; a dict would hold those of the last one alone."""
    one, other = Sequential(Dense(4, 3)), Sequential(Dense(4, 3))
    with pytest.raises(TypeError, match="each name once"):
        SGD(one.parameters() + other.parameters())
    assert len(SGD(Sequential(a=one, b=other)).parameters) == 4


def test_train_false_is_test_mode():
    net = Sequential(Dropout())
    assert not net.train(False).training and not net[0].training
    assert net.train(0)[0].training and net[0].step == 0
    assert not net.train(np.False_).training and net[0].step == 0
    assert net.train(np.True_).training and net.train(np.int64(3))[0].step == 3


def test_an_attribute_cannot_take_the_name_of_a_method():
    class Net(Layer):
        def __init__(self):
            self.layers = [Dense(4, 2)]

    with pytest.raises(ValueError, match="^Net: the name layers is taken"):
        Net()


def test_an_attribute_that_a_layer_lacks_is_missed_by_name():
    class Net(Layer):
        def forward(self, x):
            return self.hidden(x)

    with pytest.raises(AttributeError, match=r"^inner \(Net\): 'Net' object has no attribute"):
        Sequential(inner=Net())(leaf(1.0))
