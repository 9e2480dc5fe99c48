"""Is a gradient right? Ask the definition of a derivative.

Contract an op's output with a random vector u, and disturb its input along a random vector
v: then u . (f(x + e v) - f(x - e v)) / 2e must equal (gradient of u . f) . v. Two
evaluations per input check all its elements at once, whatever its size.
"""
import numpy as np

from .device import get_array_module, to_host
from .engine import Tensor, op

ROUNDINGS = 4                      # so many eps of itself may a value of f be wrong by


def gradcheck(f, *arrays, device="cpu", step=1e-5, seed=0):
    """How far the gradients of f are from finite differences, relative, along a random
    direction for each input; the largest of them.

        assert gradcheck(my_op, np.random.standard_normal((4, 3))) < 1e-6

    f: a function of tensors that returns one tensor. arrays: numbers, lists or arrays, one per
    tensor, which become float64; so must be whatever weights f holds itself (for every w of a
    net's parameters(), w.data = w.data.astype(float)). Keep a few `step` away from any kink of
    f (the 0 of a ReLU, two equal numbers in a pool). A right gradient gives about 1e-9 or less,
    or 0 where the rest is rounding. More than 1e-6, or NaN, is a wrong one. Keep the arrays
    small: one wrong slope among a million is drowned by the others.
    """
    arrays = [np.asarray(array, np.float64) for array in arrays]
    draw = np.random.default_rng(seed)
    inputs = [Tensor(array, device, requires_grad=True) for array in arrays]
    y = f(*inputs)
    u = draw.standard_normal(y.shape)
    contract(y, u=u).backward()

    # Both values of f that are subtracted below are rounded. Where f is saturated its slope is
    # smaller than what rounding alone makes of the quotient, and that much proves nothing.
    rounding = ROUNDINGS * np.finfo(float).eps * np.sum(np.abs(u * y.numpy())) / step

    def moved(i, by):
        """u . f after the i-th input has moved."""
        near = [array + by if j == i else array for j, array in enumerate(arrays)]
        return np.sum(u * f(*[Tensor(array, device) for array in near]).numpy())

    errors = []
    for i, (x, array) in enumerate(zip(inputs, arrays, strict=True)):
        v = draw.standard_normal(array.shape)
        numerical = (moved(i, step * v) - moved(i, -step * v)) / (2 * step)
        shares = v * (0.0 if x.grad is None else to_host(x.grad))
        analytic = np.sum(shares)
        size = max(abs(numerical), np.sqrt(np.sum(shares ** 2)), 1e-12)
        errors.append(max(abs(numerical - analytic) - rounding, 0.0) / size)
    return float(np.max(errors))       # not Python's max, which overlooks NaN


@op
def contract(y, *, u):
    """sum(u * y): (...) -> one number. Its gradient is u, read-only as behind a `sum`, strided as
    behind a `concat`: an op which writes into dy, or counts on its layout, is found out."""
    xp = get_array_module(y)
    wide = xp.zeros((*y.shape, 2), y.dtype)
    wide[..., 0] = xp.asarray(u)
    strided = wide[..., 0]
    if xp is np:
        strided.flags.writeable = False

    def dy(_): return strided
    return (strided * y).sum(), dy
