"""Which functions does a net need besides convolution? Sorted from easy to hard.

Every op returns its value and one gradient function per tensor: given dy, the gradient of
the loss with respect to the value, `dx(dy)` is the gradient with respect to x.

`over_batch(f, x, out=y)` is f(x, y), some rows at a time, each core its own. The ops behind
+ - * / ** @ are in engine.py; convolution, pools and norms have files of their own.
"""
import math
from itertools import pairwise

import numpy as np

from . import cores, kernels, rng
from .cores import over_batch
from .device import get_array_module, is_on_gpu
from .engine import Tensor, op, scale

WIDE = 512               # outputs of a dense layer's lane that are worth two products
NARROW = 512             # inputs that are worth a product


@op
def relu(x):
    """max(x, 0): (...) -> (...), paper, section 3.1. The gradient passes where y is positive."""
    if kernels.suit(x):
        y = kernels.relu(x)
        return y, lambda dy: kernels.relu_backward(y, dy)
    xp = get_array_module(x)
    y = over_batch(lambda x, y: xp.maximum(x, 0, out=y), x, out=xp.empty_like(x))

    def dx(dy):
        return over_batch(lambda y, dy, dx: xp.multiply(dy, y > 0, out=dx), y, dy,
                          out=xp.empty_like(y))

    return y, dx


@op
def tanh(x):
    """The saturating nonlinearity that section 3.1 compares with: (...) -> (...)"""
    xp = get_array_module(x)
    y = over_batch(lambda x, y: xp.tanh(x, out=y), x, out=xp.empty_like(x))
    def dx(dy): return dy * (1 - y * y)
    return y, dx


@op
def exp(x):
    """e to the power of x: (...) -> (...)"""
    y = get_array_module(x).exp(x)
    def dx(dy): return dy * y
    return y, dx


@op
def log(x):
    """The natural logarithm: (...) -> (...)"""
    def dx(dy): return dy / x
    return get_array_module(x).log(x), dx


@op
def reshape(x, *, shape):
    """The same numbers in another shape: (6, 4) -> shape, such as (2, 3, 4) or (-1, 8)"""
    before = x.shape
    def dx(dy): return dy.reshape(before)
    return x.reshape(*shape), dx


def flatten(x):
    """(N, ...) -> (N, rest)"""
    return reshape(x, shape=(*x.shape[:1], math.prod(x.shape[1:])))


@op
def transpose(x, *, axes=()):
    """The axes in another order, last first if none is given: (2, 3, 4) -> (4, 3, 2)"""
    axes = np.ravel(axes).tolist() or range(x.ndim)[::-1]
    def dx(dy): return dy.transpose(np.argsort(np.asarray(axes) % dy.ndim).tolist())
    return x.transpose(axes), dx


@op
def sum(x, *, axis=None, keepdims=False):
    """The sum along an axis, along several, or of all: (4, 3) -> (3,) for axis=0

    keepdims: axes that were summed stay, with length 1.
    """
    xp, shape = get_array_module(x), x.shape
    y = x.sum(axis=axis, keepdims=True)
    def dx(dy): return xp.broadcast_to(dy.reshape(y.shape), shape)
    return y if keepdims else y.squeeze(axis), dx


def mean(x, *, axis=None, keepdims=False):
    """The mean, with the options of `sum`: (4, 3) -> (3,) for axis=0"""
    total = sum(x, axis=axis, keepdims=keepdims)
    return scale(total, by=total.size / x.size if x.size else math.nan)


@op
def max(x, *, axis=None, keepdims=False):
    """The largest, with the options of `sum`: (4, 3) -> (3,) for axis=0

    If several are the largest, each gets an equal part of the gradient.
    """
    y = x.max(axis=axis, keepdims=True)

    def dx(dy):
        largest = (x == y).astype(x.dtype)
        return largest * (dy.reshape(y.shape) / largest.sum(axis=axis, keepdims=True))

    return y if keepdims else y.squeeze(axis), dx


@op
def take(x, *, key):
    """x[key], for every key that NumPy has: (4, 3) -> (3,) for x[0]

    A number that is taken several times gets the sum of these gradients.
    """
    xp, shape, dtype = get_array_module(x), x.shape, x.dtype
    keys = key if isinstance(key, tuple) else (key,)
    keys = tuple(xp.array(k, int if isinstance(k, list) and not k else None)     # a copy
                 if hasattr(k, "__len__") else k for k in keys)

    def dx(dy):
        dx = xp.zeros(shape, dtype)
        if any(hasattr(k, "__len__") for k in keys):   # an array may name a number twice
            xp.add.at(dx, keys, dy)
        else:
            dx[keys] = dy
        return dx

    return x[keys], dx


@op
def concat(*parts):
    """Join along the last axis: (..., C1), (..., C2) -> (..., C1 + C2)"""
    xp = get_array_module(parts[0])
    grad_fns = []
    start = 0
    for part in parts:
        channels = slice(start, start + part.shape[-1])
        grad_fns.append(lambda dy, channels=channels: dy[..., channels])
        start = channels.stop
    return xp.concatenate(parts, axis=-1), *grad_fns


@op
def dense(x, W, b, *, cuts=None):
    """y = xW + b        x (N, in), W (in, out), b (out,) -> (N, out)

    cuts: lanes of outputs, [0, 512, 1024]. Whoever has only some lanes of a layer then
    computes the same numbers of them, to the bit, as who has all (on a CPU).
    """
    _check_dense(x, W, b)
    if cuts and len(cuts) > 1 and not is_on_gpu(x):
        return _dense_in_lanes(x, W, b, cuts)
    def dx(dy): return cores.matmul(dy, W.T)
    def dW(dy): return cores.matmul(x.T, dy)
    def db(dy): return dy.sum(axis=0)
    return cores.matmul(x, W) + b, dx, dW, db


def _dense_in_lanes(x, W, b, cuts):
    rows, inputs = [0, len(x)], cores.edges(len(W), min(cores.LANES, len(W) // NARROW or 1))
    halves = [*cuts, *(int(i + j) // 2 for i, j in pairwise(cuts) if j - i >= WIDE)]
    def dx(dy): return cores.matmul_in_blocks(dy, W.T, rows, cuts, inputs)
    def dW(dy): return cores.matmul_in_blocks(x.T, dy, inputs, rows, cuts)
    def db(dy): return np.concatenate([dy[:, i:j].sum(axis=0) for i, j in pairwise(cuts)])
    y = cores.matmul_in_blocks(x, W, rows, [0, len(W)], sorted(halves))
    return y + b, dx, dW, db


def _check_dense(x, W, b):
    if b.shape != W.shape[1:]:
        raise ValueError(f"dense: W {W.shape} and b {b.shape} differ in their outputs")
    if x.ndim and x.shape[-1] != len(W):
        raise ValueError(f"dense: {x.shape[-1]} inputs come in, {len(W)} are wanted: "
                         "is a Flatten missing? Or has the picture another size?")
    if x.ndim != 2:
        raise ValueError(f"dense: rows (N, {len(W)}) are wanted, not {x.shape}; "
                         f"x.reshape(-1, {len(W)}) makes them")


@op
def softmax(x):
    """exp(x) normalised over the last axis: (N, classes) -> probabilities (N, classes)"""
    _, e, total = _exponentials(x)
    y = e / total
    def dx(dy): return y * (dy - (dy * y).sum(axis=-1, keepdims=True))
    return y, dx


@op
def softmax_cross_entropy(x, *, labels):
    """The mean over the batch of -log softmax(x)[label]: what the paper minimises.

    x (N, classes), labels (N,), integers in an array or a list -> one number. Fused with the
    softmax, because the gradient is then simply p - onehot, and nothing overflows.
    """
    xp = get_array_module(x)
    labels = xp.asarray(_checked_labels(labels, x.shape))
    shifted, e, total = _exponentials(x)
    loss = -(shifted - xp.log(total))[xp.arange(len(labels)), labels].mean()

    def dx(dy):
        gradient = e / total
        gradient -= labels[:, None] == xp.arange(e.shape[1])       # to mention x is to keep x
        return gradient * (dy / len(labels))

    return loss, dx


def _exponentials(x):
    """The logits less their largest, so that nothing overflows, e to the power of them, and the
    sums of that."""
    shifted = x - x.max(axis=-1, keepdims=True)
    e = get_array_module(x).exp(shifted)
    return shifted, e, e.sum(axis=-1, keepdims=True)


def log_softmax(x):
    """The logarithm of softmax, of an array and not of a tensor: (..., classes) -> the same"""
    shifted, _, total = _exponentials(x)
    return shifted - get_array_module(x).log(total)


def _checked_labels(labels, shape):
    """labels as an array, if they are labels for logits of this shape."""
    name = "softmax_cross_entropy"
    if len(shape) != 2 or shape[1] == 0:
        raise ValueError(f"{name}: logits (N, classes) are wanted, not {shape}")
    count, classes = shape
    labels = labels if is_on_gpu(labels) else np.array(labels)    # a copy: the caller's may change
    if labels.shape != (count,):
        ways_out = {shape: "; of one-hot rows, np.argmax(labels, axis=1)",
                    (count, 1): "; np.ravel(labels)"}
        raise ValueError(f"{name}: {count} rows need {count} labels, not {labels.shape}"
                         + ways_out.get(labels.shape, ""))
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{name}: labels are integers, not {labels.dtype}: labels.astype(int)")
    if not is_on_gpu(labels) and count and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"{name}: labels of {classes} classes are 0 ... {classes - 1}, "
                         f"not {labels.min()} ... {labels.max()}")
    return labels


@op
def dropout(x, *, keep, scale, seed, step, layer, columns=None, width=None):
    """Set each number to zero with probability 1 - keep; multiply the rest by `scale`.

    (...) -> (...). scale: 1 for the dropout of 2012 (which multiplies by `keep` at test time
    instead), 1 / keep for today's inverted form. The mask is a function of (seed, step, layer).
    step: a number; on a GPU its place, as kernels.dropout takes it, if the step is recorded.
    columns, width: x has only these columns (a slice) of a matrix of this width, and gets theirs
    of its mask.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"dropout: keep is above 0 and at most 1, not {keep}")
    if not 0 <= seed < 2 ** 56:
        raise ValueError(f"dropout: a seed is at least 0 and below 2**56, not {seed}")
    of = dict(seed=seed, purpose=rng.DROPOUT, step=step, stream=layer)
    if kernels.suit(x) and columns is None:
        _, key = rng.counter_and_key(seed=seed, purpose=rng.DROPOUT)
        def dropped(x): return kernels.dropout(x, keep, scale, step, layer, key)
        return dropped(x), dropped             # made anew, the mask takes no memory
    if hasattr(step, "shape") and step.shape:
        raise ValueError("dropout: only kernels look up a step (replay.py): float32, no columns")
    xp = get_array_module(x)
    kept = rng.mask(xp, x.size, keep, **of).reshape(x.shape) if columns is None else (
        rng.mask_of_columns(xp, len(x), width, columns, keep, **of))
    kept = kept * x.dtype.type(scale)

    def dx(dy): return dy * kept
    return x * kept, dx


# What reads well behind a tensor, as in NumPy. It is given to Tensor here and not written into
# the class, because imports go one way: this file needs engine.py.
Tensor.relu, Tensor.exp, Tensor.log = relu, exp, log
Tensor.sum = lambda x, axis=None, keepdims=False: sum(x, axis=axis, keepdims=keepdims)
Tensor.mean = lambda x, axis=None, keepdims=False: mean(x, axis=axis, keepdims=keepdims)
Tensor.max = lambda x, axis=None, keepdims=False: max(x, axis=axis, keepdims=keepdims)
Tensor.reshape = lambda x, *shape: reshape(x, shape=shape)
Tensor.transpose = lambda x, *axes: transpose(x, axes=axes)
Tensor.T = property(transpose)
Tensor.__getitem__ = lambda x, key: take(x, key=key)
