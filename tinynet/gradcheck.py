"""Is a gradient right? Ask the definition of a derivative.

Contract an op's output with a random vector u, and disturb its input along a random vector
v: then u . (f(x + e v) - f(x - e v)) / 2e must equal (gradient of u . f) . v. Two
evaluations per input check all its elements at once, whatever its size.
"""
import numpy as np

from .device import get_array_module, to_host
from .engine import Tensor, op


def gradcheck(f, *arrays, device="cpu", step=1e-5, seed=0):
    """The largest relative difference between analytic and numerical gradient of f.

    f: a function of tensors that returns one tensor. arrays: float64 NumPy arrays, one per
    tensor, at a distance of a few `step` from any kink of f (the 0 of a ReLU, two equal
    numbers in a pool). Expect about 1e-9; more than 1e-6 is wrong.
    """
    draw = np.random.default_rng(seed)
    inputs = [Tensor(array, device, requires_grad=True) for array in arrays]
    y = f(*inputs)
    u = draw.standard_normal(y.shape)
    contract(y, u=u).backward()

    worst = 0.0
    for i, (x, array) in enumerate(zip(inputs, arrays)):
        v = draw.standard_normal(array.shape)

        def along(distance):
            moved = [a + distance * v if j == i else a for j, a in enumerate(arrays)]
            return np.sum(u * f(*[Tensor(a, device) for a in moved]).numpy())

        numerical = (along(step) - along(-step)) / (2 * step)
        shares = to_host(x.grad) * v
        analytic = shares.sum()
        size = max(abs(numerical), np.sqrt(np.sum(shares ** 2)), 1e-12)
        worst = max(worst, abs(numerical - analytic) / size)
    return float(worst)


@op
def contract(y, *, u):
    """sum(u * y). Its gradient is u: read-only and strided, as a crossing may bring one,
    so that an op which writes into dy, or counts on its layout, is found out."""
    xp = get_array_module(y)
    wide = xp.zeros((*y.shape, 2), y.dtype)
    wide[..., 0] = xp.asarray(u)
    strided = wide[..., 0]
    if xp is np:
        strided.flags.writeable = False

    def dy(_): return strided
    return (strided * y).sum(), dy
