"""How does a program differentiate itself?

Running an op on tensors records it: its inputs, and one gradient function per input. From
the last tensor (the loss) `backward` walks this record from the newest tensor to the
oldest, and leaves in every leaf that asked for it the gradient of the loss.
"""
import functools
import itertools
import threading
from contextlib import contextmanager

from . import cores
from . import device as dev

_clock = itertools.count()
_local = threading.local()         # .silent: inside no_grad()


class Tensor:
    """An array that knows its device and how it was computed.

    data: a NumPy or CuPy array, or anything that can become one; a copy is made.
    device: a Device or its name; the data are put there.
    requires_grad: whether backward should leave d(loss)/d(this) in `.grad`, an array that
    may share its memory with other gradients: read it, do not write into it.
    """

    __array_ufunc__ = None         # array * tensor is our business, not NumPy's
    op, inputs, grad_fns = "", (), ()

    def __init__(self, data, device="cpu", requires_grad=False):
        self.device = dev.Device(device) if isinstance(device, str) else device
        self.data = self.device.put(data)
        self.requires_grad = requires_grad
        self.grad = None
        self.order = next(_clock)
        self._computed_by = None

    @property
    def node(self):
        """What stands for this tensor in the graph: how it was computed, or itself."""
        return self._computed_by or self

    def __repr__(self):
        made_by = f", {self.node.op}" if self.node.op else ""
        return f"Tensor({self.shape}, {self.data.dtype}, {self.device}{made_by})"

    @property
    def shape(self):
        return self.data.shape

    def numpy(self):
        """The data as a NumPy array on the host."""
        return dev.to_host(self.data)

    def item(self):
        """The one number in this tensor, as a Python number. Waits for the device."""
        return self.numpy().item()

    def copy_to(self, device):
        return copy_to(self, device)

    def __add__(self, other):
        return add(self, _tensor(other, self))

    def __sub__(self, other):
        return subtract(self, _tensor(other, self))

    def __mul__(self, other):
        return multiply(self, _tensor(other, self))

    def __neg__(self):
        return multiply(self, _tensor(-1.0, self))

    def __matmul__(self, other):
        return matmul(self, _tensor(other, self))

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other):
        return subtract(_tensor(other, self), self)

    def backward(self):
        """Send d(self)/d(everything) back through the graph, newest tensor first.

        Why newest first? A tensor is always younger than its inputs. So when we reach a
        tensor, everything that used it has already added its share to `pending`. Plain
        recursion gets this wrong as soon as a tensor is used twice: with b = a + a and
        c = b + b it would visit b before b's gradient is complete.

        Only a scalar (a loss) can start. The graph is used up: what its gradient functions
        had saved is freed as we go, and a second backward raises RuntimeError.
        """
        if self.data.size != 1:
            raise ValueError(f"backward starts from one number, not from shape {self.shape}")
        if not self.requires_grad:
            raise RuntimeError("nothing to differentiate: no input of this tensor requires "
                               "a gradient, or it was computed under no_grad()")
        for node in graph(self):
            if node.grad_fns is None:
                raise RuntimeError(f"the graph behind this {node.op} was already used by "
                                   "backward(); run the forward pass again")
        with self.device:
            xp = dev.get_array_module(self.data)
            pending = {self.node: xp.ones_like(self.data)}
        while pending:
            node = max(pending, key=lambda node: node.order)
            dy = pending.pop(node)
            if isinstance(node, Tensor):               # a leaf
                with node.device:
                    node.grad = dy if node.grad is None else node.grad + dy
                continue
            for x, grad_fn in zip(node.inputs, node.grad_fns):
                if not x.requires_grad:
                    continue
                with node.device:
                    dx = grad_fn(dy)
                if dx.shape != x.shape:
                    raise ValueError(f"{node.op}: a gradient of shape {dx.shape} for an "
                                     f"input of shape {x.shape}")
                # Mind the device: behind a crossing dx lives over there, with x, and is
                # added there. `a + b`, never `+=`: two inputs may share one gradient.
                with x.device:
                    pending[x] = pending[x] + dx if x in pending else dx
            node.inputs, node.grad_fns = (), None


class Node:
    """What the graph keeps of a computed tensor: how, where and how large, not its data.

    op: the op's name. inputs: the nodes it read; a leaf is its own node. grad_fns: one
    gradient function per input, None after backward. Their closures hold what is needed of
    the data, so that the rest can go as soon as the forward pass has no more use for it.
    """

    requires_grad = True

    def __init__(self, op, device, value, inputs, grad_fns):
        self.op, self.device = op, device
        self.shape, self.nbytes = value.shape, value.nbytes
        self.inputs, self.grad_fns = inputs, grad_fns
        self.order = next(_clock)


def graph(output):
    """The nodes of every tensor that `output` was computed from, oldest first."""
    todo, seen = [output.node], {output.node}
    while todo:
        for x in todo.pop().inputs:
            if x not in seen:
                seen.add(x)
                todo.append(x)
    return sorted(seen, key=lambda node: node.order)


class Parameter(Tensor):
    """A tensor that is learned. `name` says where it sits in the net: "top.conv1.0.W".

    data: as for a Tensor. Or a function draw(shape, seed=..., name=...) that returns the first
    values, and their shape. They are drawn when somebody first looks at `data`: so no net is
    without weights, and one that is only counted, or filled from a file, draws none.
    `initialize` says seed and name; until then it is seed 0, and a name unlike all others.
    """

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

    def initialize(self, seed, name):
        """Draw first values, as a function of seed and name. Data that were given stay."""
        self.seed, self.name = seed, name
        if self.draw:
            vars(self).pop("data", None)


@contextmanager
def no_grad():
    """Inside, nothing is recorded and so nothing is kept: for testing a net."""
    before, _local.silent = getattr(_local, "silent", False), True
    try:
        yield
    finally:
        _local.silent = before


def op(function):
    """Make a function on arrays into an op on tensors.

    The function returns its value, followed by one gradient function per positional
    argument; keyword-only arguments are options without gradient. It sees plain arrays
    and runs with their device current. What its gradient functions mention is kept for
    backward; there is no other list of saved tensors.
    """

    @functools.wraps(function)
    def run(*inputs, **options):
        for x in inputs:
            if not isinstance(x, Tensor):
                raise TypeError(f"{function.__name__} takes tensors, not "
                                f"{type(x).__name__}: wrap it in Tensor(..., device)")
            if x.data.dtype.kind != "f":
                raise TypeError(f"{function.__name__} takes floating-point numbers, not "
                                f"{x.data.dtype}: convert them before Tensor(...)")
        device = inputs[0].device
        if any(x.device != device for x in inputs):
            places = ", ".join(str(x.device) for x in inputs)
            raise RuntimeError(f"{function.__name__}: inputs live on {places}; "
                               "bring them together with copy_to")
        with device:
            value, *grad_fns = function(*[x.data for x in inputs], **options)
        return _record(function.__name__, value, device, inputs, grad_fns)

    return run


def _record(name, value, device, inputs, grad_fns):
    tensor = Tensor.__new__(Tensor)        # no put: the value is already where it belongs
    tensor.data, tensor.device, tensor.grad = value, device, None
    recording = not getattr(_local, "silent", False)
    tensor.requires_grad = recording and any(x.requires_grad for x in inputs)
    tensor._computed_by = None
    if tensor.requires_grad:
        nodes = tuple(x.node for x in inputs)
        tensor._computed_by = Node(name, device, value, nodes, tuple(grad_fns))
    tensor.order = next(_clock)
    return tensor


def copy_to(x, device):
    """Move a tensor to another device, and its gradient back: the one op whose output
    lives elsewhere than its input. To the same device it is the tensor itself."""
    device = dev.Device(device) if isinstance(device, str) else device
    if device == x.device:
        return x
    home = x.device
    return _record("copy_to", device.put(x.data), device, (x,), (lambda dy: home.put(dy),))


def _tensor(value, like):
    if isinstance(value, Tensor):
        return value
    xp = like.device.xp
    with like.device:
        return Tensor(xp.asarray(value, dtype=like.data.dtype), like.device)


def _unbroadcast(dy, shape):
    """Sum dy over the axes along which an operand of this shape was repeated."""
    extra = dy.ndim - len(shape)
    repeated = [i for i in range(dy.ndim)
                if i < extra or (shape[i - extra] == 1 and dy.shape[i] != 1)]
    return dy.sum(axis=tuple(repeated)).reshape(shape) if repeated else dy


@op
def add(a, b):
    def da(dy): return _unbroadcast(dy, a.shape)
    def db(dy): return _unbroadcast(dy, b.shape)
    return a + b, da, db


@op
def subtract(a, b):
    def da(dy): return _unbroadcast(dy, a.shape)
    def db(dy): return _unbroadcast(-dy, b.shape)
    return a - b, da, db


@op
def multiply(a, b):
    def da(dy): return _unbroadcast(dy * b, a.shape)
    def db(dy): return _unbroadcast(dy * a, b.shape)
    return a * b, da, db


@op
def matmul(a, b):
    """a @ b        a (N, K), b (K, M) -> (N, M)"""
    def da(dy): return cores.matmul(dy, b.T)
    def db(dy): return cores.matmul(a.T, dy)
    return cores.matmul(a, b), da, db
