"""Which functions does AlexNet need besides convolution? Sorted from easy to hard.

Every op returns its value and one gradient function per tensor: given dy, the gradient of
the loss with respect to the value, `dx(dy)` is the gradient with respect to x.
"""
import math

from . import device, rng
from .cores import matmul, over_batch
from .device import get_array_module
from .engine import op


@op
def flatten(x):
    """(N, ...) -> (N, rest)"""
    def dx(dy): return dy.reshape(x.shape)
    return x.reshape(x.shape[0], math.prod(x.shape[1:])), dx


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
def part(x, *, index, of):
    """The index-th of `of` equal parts of the last axis: the other way round of concat."""
    size, rest = divmod(x.shape[-1], of)
    if rest:
        raise ValueError(f"part: {x.shape[-1]} maps do not fall into {of} equal parts")
    channels = slice(index * size, (index + 1) * size)
    shape, dtype = x.shape, x.dtype

    def dx(dy):
        xp = get_array_module(dy)
        zeros = xp.zeros(shape, dtype)
        zeros[..., channels] = dy
        return zeros

    return x[..., channels], dx


@op
def relu(x):
    """max(x, 0) (paper, section 3.1). The gradient passes where the output is positive."""
    xp = get_array_module(x)
    y = over_batch(lambda x, y: xp.maximum(x, 0, out=y), x, out=xp.empty_like(x))

    def dx(dy):
        return over_batch(lambda y, dy, dx: xp.multiply(dy, y > 0, out=dx), y, dy,
                          out=xp.empty_like(y))

    return y, dx


@op
def tanh(x):
    """The saturating nonlinearity that section 3.1 compares with."""
    xp = get_array_module(x)
    y = over_batch(lambda x: xp.tanh(x), x)
    def dx(dy): return dy * (1 - y * y)
    return y, dx


@op
def dense(x, W, b):
    """y = xW + b        x (N, in), W (in, out), b (out,) -> (N, out)"""
    def dx(dy): return matmul(dy, W.T)
    def dW(dy): return matmul(x.T, dy)
    def db(dy): return dy.sum(axis=0)
    return matmul(x, W) + b, dx, dW, db


@op
def dropout(x, *, keep, scale, seed, step, layer):
    """Set each output to zero with probability 1 - keep; multiply the rest by `scale`.

    scale: 1 for the dropout of 2012 (which multiplies by `keep` at test time instead),
    1 / keep for today's inverted form. The mask is a function of (seed, step, layer).
    """
    xp = get_array_module(x)
    kept = rng.mask(xp, x.size, keep, seed=seed, purpose=rng.DROPOUT, step=step,
                    stream=layer).reshape(x.shape) * x.dtype.type(scale)

    def dx(dy): return dy * kept
    return x * kept, dx


@op
def scale(x, *, by):
    """x times a constant."""
    def dx(dy): return dy * by
    return x * by, dx


@op
def softmax(x):
    """exp(x) normalised over the last axis: (N, classes) -> probabilities (N, classes)"""
    y = _softmax(x)
    def dx(dy): return y * (dy - (dy * y).sum(axis=-1, keepdims=True))
    return y, dx


@op
def softmax_cross_entropy(x, *, labels):
    """The mean over the batch of -log softmax(x)[label]: what the paper minimises.

    x (N, classes), labels (N,) integers -> one number. Fused with the softmax, because
    the gradient is then simply p - onehot, and nothing overflows.
    """
    xp = get_array_module(x)
    _check_labels(labels, *x.shape)
    rows, labels = xp.arange(x.shape[0]), xp.asarray(labels)
    loss = -_log_softmax(x)[rows, labels].mean()

    def dx(dy):
        gradient = _softmax(x)
        gradient[rows, labels] -= 1
        return gradient * (dy / len(labels))

    return loss, dx


def _softmax(x):
    xp = get_array_module(x)
    e = xp.exp(x - x.max(axis=-1, keepdims=True))      # the largest exponent is 0
    return e / e.sum(axis=-1, keepdims=True)


def _log_softmax(x):
    xp = get_array_module(x)
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(axis=-1, keepdims=True))


def mean_over_views(logits, views):
    """Log of the mean probability of each class over the views of each picture (an array).

    logits (N * views, classes) -> (N, classes). Averaged are probabilities, as in the paper
    (section 4.1), but in logarithms, where a very small one does not become zero.
    """
    xp = get_array_module(logits)
    logs = _log_softmax(logits).reshape(-1, views, logits.shape[-1])
    largest = logs.max(axis=1, keepdims=True)
    return largest[:, 0] + xp.log(xp.exp(logs - largest).mean(axis=1))


def _check_labels(labels, count, classes):
    if labels.shape != (count,):
        raise ValueError(f"{count} rows need {count} labels, not {labels.shape}")
    if not device.is_on_gpu(labels) and count and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels of {classes} classes are 0 ... {classes - 1}, "
                         f"not {labels.min()} ... {labels.max()}")


def errors(logits, labels, k):
    """How many rows do not have their label among the k largest logits (an array).

    A label that ties with others, or with a NaN, counts as ranked below all of them: a net
    that says the same of every class is always wrong, as it should be.
    """
    xp = get_array_module(logits)
    labels = xp.asarray(labels)
    mine = logits[xp.arange(len(labels)), labels][:, None]
    ahead = (~(logits < mine)).sum(axis=-1) - 1        # less one: the label itself
    return (ahead >= k).sum()
