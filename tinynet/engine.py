"""How does a program differentiate itself?

By the chain rule. Let x be an input of an op, y its output, and the loss a number computed from
y. If x grows by a little h, y grows by h * (the slope of y along x), and the loss by that * (the
slope of the loss along y). So the slope of the loss along x is the product of the two. If x is
used in several places, each adds its share: the slopes are summed.

This makes every op a matter of its own. Its gradient function is given `dy`, the gradient of
the loss with respect to the output y: an array of the shape of y, one slope for every number.
It multiplies by the slopes of this op alone, and returns `dx`, the same for the input x:

    y = x * x        dx(dy) = dy * 2 * x

Running an op on tensors records it: its inputs, and one gradient function per input. `backward`
walks this record from the loss, whose own dy is 1, to the oldest tensor. In every leaf that asked
for it, it leaves the gradient of the loss.
"""
import functools
import inspect
import itertools
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Real
from operator import attrgetter

import numpy as np

from . import cores
from .device import as_device, get_array_module, to_host

FEW = 16                           # numbers of a tensor that are worth printing
_clock = itertools.count()
recording = ContextVar("recording", default=True)      # in this thread; False inside no_grad()


class Tensor:
    """An array that knows its device and how it was computed.

    data: an array, of which a copy is made, or numbers of Python, which become float32. device: a
    Device or its name, where the data are put. requires_grad: whether backward should leave
    d(loss)/d(this) in `.grad`. Read it, do not write into it: others may share its memory.

    Operators and methods mean what they mean in NumPy; `x[...]`, `x.T`, `x.sum()` and the like
    come from ops.py. There are no comparisons: nothing flows back through them.
    """

    __array_ufunc__ = None         # array * tensor is our business, not NumPy's
    op, inputs, grad_fns = "", (), ()

    def __init__(self, data, device="cpu", requires_grad=False):
        device = as_device(device)
        self._set(device.put(_array(data, np.float32)), device, requires_grad)

    def _set(self, data, device, requires_grad, computed_by=None):
        """Make this tensor, new or the output of an op, of data that are in their place."""
        self.data, self.device, self.requires_grad = data, device, requires_grad
        self.grad = None
        self.order = next(_clock)
        self._computed_by = computed_by
        return self

    @property
    def node(self):
        """What stands for this tensor in the graph: how it was computed, or itself."""
        # Nodes hold no data, so that what no gradient function needs is freed during the forward
        # pass. (For a leaf, `self.node = self` would be a circle, freed only by the collector.)
        return self._computed_by or self

    def __repr__(self):
        numbers = f"shape {self.shape}"
        if 0 < self.size <= FEW:
            numbers = np.array2string(self.numpy(), separator=", ", prefix="Tensor(")
        made_by = f", {self.node.op}" if self.node.op else ""
        return f"Tensor({numbers}, {self.dtype}, {self.device}{made_by})"

    shape = property(lambda self: self.data.shape)
    dtype = property(lambda self: self.data.dtype)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)

    def numpy(self):
        """The data on the host, in NumPy. On the CPU they are the tensor's own, not a copy."""
        return to_host(self.data)

    def __bool__(self, *other):
        raise TypeError("a tensor is neither true nor false: ask x.item() or x.numpy()")

    def item(self):
        """The one number in this tensor, as a Python number. Waits for the device."""
        return self.numpy().item()

    __float__, __eq__, __hash__ = item, __bool__, object.__hash__

    def __array__(self, dtype=None, copy=None):
        """What np.asarray(tensor) gives: the numbers, without their history."""
        return np.array(self.numpy(), dtype, copy=copy)

    def __len__(self):
        return len(self.data)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __add__(self, other):
        return add(self, _tensor(other, self))

    def __sub__(self, other):
        return subtract(self, _tensor(other, self))

    def __mul__(self, other):
        if isinstance(other, Real):
            return scale(self, by=other)
        return multiply(self, _tensor(other, self))

    def __truediv__(self, other):
        return divide(self, _tensor(other, self))

    def __pow__(self, exponent):
        return power(self, by=exponent)

    def __matmul__(self, other):
        return matmul(self, _tensor(other, self))

    def __neg__(self):
        return scale(self, by=-1)

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other):
        return subtract(_tensor(other, self), self)

    def __rtruediv__(self, other):
        return divide(_tensor(other, self), self)

    def backward(self):
        """Send d(self)/d(everything) back through the graph, newest tensor first.

        Why newest first? A tensor is younger than its inputs. So when we reach one, everything
        that used it has added its share to `pending`. Recursion would pass on b too early, or
        once for every path, as soon as a tensor is used twice: b = a + a, c = b + b.

        Only one number (a loss) can start. The graph is used up: what its gradient functions had
        saved is freed as we go, and a second backward raises RuntimeError.
        """
        if self.data.size != 1:
            raise ValueError(f"backward starts from one number, not from shape {self.shape}: "
                             "take the sum() or the mean() of it")
        if not self.requires_grad:
            raise RuntimeError("nothing to differentiate: no input of this tensor requires "
                               "a gradient, or it was computed under no_grad()")
        for node in graph(self):
            if node.grad_fns is None:
                raise RuntimeError(f"the graph behind this {node.op} was already used by "
                                   "backward(); run the forward pass again")
        with self.device:
            xp = get_array_module(self.data)
            pending = {self.node: xp.ones_like(self.data)}
        while pending:
            node = max(pending, key=attrgetter("order"))
            dy = pending.pop(node)
            if isinstance(node, Tensor):               # a leaf
                with node.device:
                    node.grad = dy if node.grad is None else node.grad + dy
                continue
            for x, grad_fn in zip(node.inputs, node.grad_fns, strict=True):
                if not x.requires_grad:
                    continue
                with node.device:
                    dx = grad_fn(dy)
                if isinstance(dx, Tensor) or getattr(dx, "shape", None) != x.shape:
                    raise ValueError(f"{node.op}: a gradient is an array of shape {x.shape}, not "
                                     f"{type(dx).__name__}, {getattr(dx, 'shape', 'no shape')}")
                # Behind a crossing dx lives over there, with x, and is added there. `a + b`,
                # never `+=`: two inputs may share one gradient.
                with x.device:
                    pending[x] = pending[x] + dx if x in pending else dx
            node.inputs, node.grad_fns = (), None


class Node:
    """What the graph keeps of a computed tensor: not its data.

    inputs: nodes. grad_fns: a function for each, None after backward; they hold what is needed.
    """

    requires_grad = True

    def __init__(self, op, device, value, inputs, grad_fns):
        self.op, self.device = op, device
        self.shape, self.nbytes = value.shape, value.nbytes
        self.inputs, self.grad_fns = inputs, grad_fns
        self.order = next(_clock)


def graph(output):
    """The recorded nodes of `output` and of all that it was computed from, oldest first."""
    todo, seen = [output.node], {output.node}
    while todo:
        for x in todo.pop().inputs:
            if x not in seen:
                seen.add(x)
                todo.append(x)
    return sorted(seen, key=lambda node: node.order)


class Parameter(Tensor):
    """A tensor that is learned. `name` says where it sits in the net: "top.conv1.0.W".

    data: as for a Tensor. Or a function draw(shape, seed=..., name=...), and the shape. It is
    called when somebody first looks at `data`: so no net lacks weights, and one that is filled
    from a file draws none. Before `initialize` the seed is 0, the name unlike all others.
    """

    part, whole_shape = None, property(lambda self: self.shape)        # split.Columns has others

    def __init__(self, data, device="cpu", shape=None):
        self.draw = data if callable(data) else None
        super().__init__(0.0 if self.draw else data, device, requires_grad=True)
        self.seed, self.name = 0, f"parameter {self.order}"
        self._shape = shape
        if self.draw:
            del self.data

    @functools.cached_property
    def data(self):
        return self.device.put(self.draw(self._shape, seed=self.seed, name=self.name))

    @property
    def is_drawn(self):
        return "data" in vars(self)    # where cached_property, and whoever sets data, leave it

    @property
    def shape(self):
        return self.data.shape if self.is_drawn else self._shape

    def __imul__(self, other):
        raise TypeError("a layer would lose this parameter: change its numbers, w.data *= 2")

    __iadd__ = __isub__ = __itruediv__ = __ipow__ = __imatmul__ = __imul__

    def initialize(self, seed, name):
        """Forget what was drawn or loaded: it is drawn anew, of seed and name. Given data stay."""
        self.seed, self.name = seed, name
        if self.draw:
            vars(self).pop("data", None)


@contextmanager
def no_grad():
    """Inside, nothing is recorded, so nothing is kept: for testing a net."""
    before = recording.set(False)
    try:
        yield
    finally:
        recording.reset(before)


def op(function):
    """Make a function on arrays into an op on tensors.

    The function returns its value, then one gradient function per positional argument; options,
    behind a star, have none. It sees plain arrays. What its gradient functions mention is kept.
    """
    name, spec = function.__name__, inspect.getfullargspec(function)

    @functools.wraps(function)
    def run(*inputs, **options):
        _check_inputs(name, spec, inputs)
        device = inputs[0].device
        with device:
            result = function(*[x.data for x in inputs], **options)
        _check_result(name, len(inputs), result)
        return record(name, result[0], device, inputs, result[1:])

    return run


def _check_inputs(name, spec, inputs):
    """spec: what `inspect` says of the arguments of the op's function."""
    if not inputs or len(inputs) != len(spec.args) and not spec.varargs:
        tensors = spec.args or [f"{spec.varargs}, ..."]
        call = ", ".join([*tensors, *(f"{option}=..." for option in spec.kwonlyargs)])
        raise TypeError(f"{name}: {len(inputs)} came by position; write {name}({call})")
    for x in inputs:
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} takes tensors, not {type(x).__name__}: wrap data in Tensor("
                            "..., device); what NumPy makes of a tensor has lost its gradient")
    if len({x.dtype for x in inputs}) > 1 or inputs[0].dtype.kind != "f":
        kinds = ", ".join(str(x.dtype) for x in inputs)
        raise TypeError(f"{name} takes floating-point numbers of one width, not {kinds}: "
                        "convert them first, Tensor(x.astype(np.float32))")
    if any(x.device != inputs[0].device for x in inputs):
        places = ", ".join(str(x.device) for x in inputs)
        raise RuntimeError(f"{name}: inputs live on {places}; bring them together with copy_to")


def _check_result(name, count, result):
    value, *grad_fns = result if isinstance(result, tuple) else (result,)
    if len(grad_fns) != count or not all(map(callable, grad_fns)) or isinstance(value, Tensor):
        found = ", ".join(type(part).__name__ for part in (value, *grad_fns))
        raise TypeError(f"{name}: an op returns its value, an array, then one gradient function "
                        f"per tensor, here {count}; what came is {found}")


def record(name, value, device, inputs, grad_fns):
    """The output of an op. The graph keeps how it was computed, if a gradient is wanted."""
    node = None
    if recording.get() and any(x.requires_grad for x in inputs):
        node = Node(name, device, value, tuple(x.node for x in inputs), tuple(grad_fns))
    return Tensor.__new__(Tensor)._set(value, device, node is not None, node)


def _array(data, dtype):
    """Numbers and lists of numbers as an array of this dtype. An array keeps its own."""
    if hasattr(data, "dtype"):
        return data
    array = np.asarray(data)
    if array.dtype.kind not in "bif":
        raise TypeError(f"a tensor is made of numbers, not of {array.dtype}")
    return array.astype(dtype)


def _tensor(value, like):
    """The other operand beside the tensor `like`. A number takes the dtype of the tensor."""
    if isinstance(value, Tensor):
        return value
    value = float(value) if isinstance(value, Real) else value
    return Tensor(_array(value, like.dtype), like.device)


def _unbroadcast(dy, shape):
    """Sum dy over the axes along which an operand of this shape was repeated."""
    extra = dy.ndim - len(shape)
    repeated = [i for i in range(dy.ndim)
                if i < extra or (shape[i - extra] == 1 and dy.shape[i] != 1)]
    return dy.sum(axis=tuple(repeated)).reshape(shape) if repeated else dy


@op
def add(a, b):
    """a + b        broadcast as in NumPy: (4, 3), (3,) -> (4, 3)"""
    def da(dy, shape=a.shape): return _unbroadcast(dy, shape)      # to mention a is to keep a
    def db(dy, shape=b.shape): return _unbroadcast(dy, shape)
    return a + b, da, db


@op
def subtract(a, b):
    """a - b        broadcast as in NumPy: (4, 3), (3,) -> (4, 3)"""
    def da(dy, shape=a.shape): return _unbroadcast(dy, shape)
    def db(dy, shape=b.shape): return _unbroadcast(-dy, shape)
    return a - b, da, db


@op
def multiply(a, b):
    """a * b        broadcast as in NumPy: (4, 3), (3,) -> (4, 3)"""
    def da(dy): return _unbroadcast(dy * b, a.shape)
    def db(dy): return _unbroadcast(dy * a, b.shape)
    return a * b, da, db


@op
def divide(a, b):
    """a / b        broadcast as in NumPy: (4, 3), (3,) -> (4, 3)"""
    y = a / b
    def da(dy, shape=a.shape): return _unbroadcast(dy / b, shape)
    def db(dy): return _unbroadcast(-dy * y / b, b.shape)
    return y, da, db


@op
def scale(x, *, by):
    """x times a number: (...) -> (...)"""
    by = float(by)                     # a NumPy number could make the result wider than x
    def dx(dy): return dy * by
    return x * by, dx


@op
def power(x, *, by):
    """x to the power of a number: (...) -> (...)"""
    if not isinstance(by, Real):
        raise TypeError(f"power: the exponent is a number, not {type(by).__name__}; "
                        "for a tensor y write (y * x.log()).exp()")
    by = float(by)
    def dx(dy): return dy * (by * x ** (by - 1) if by else 0.0)    # 0 * x ** -1 is NaN at 0
    return x ** by, dx


@op
def matmul(a, b):
    """a @ b        a (..., N, K), b (..., K, M) -> (..., N, M)"""
    if min(a.ndim, b.ndim) < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: {a.shape} @ {b.shape}, where (..., N, K) @ (..., K, M) "
                         "is wanted")
    def da(dy): return _unbroadcast(cores.matmul(dy, b.swapaxes(-1, -2)), a.shape)
    def db(dy): return _unbroadcast(cores.matmul(a.swapaxes(-1, -2), dy), b.shape)
    return cores.matmul(a, b), da, db
