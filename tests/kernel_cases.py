"""Every kernel beside the NumPy text that it stands for, at many shapes.

    python tests/kernel_cases.py REPORTS EVERY

runs the small ones on the stand-in for CuPy, as they are and with an error planted in a kernel:
one after the other of PLANTED, or EVERY second, third, ... test_kernels.py starts it under the
address sanitizer, which writes into files REPORTS.NUMBER.
"""
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np

import strict_cupy
from once import folder
from tinynet import columns, kernels, norm, ops, pool, rng
from tinynet.conv import col2im, conv2d, im2col, out_sizes
from tinynet.device import Device, to_host
from tinynet.engine import Parameter, Tensor
from tinynet.optim import SGD

TO_ROUNDING = 2e-6                     # of the largest number

# x's shape, kernels, their side, stride, padding: AlexNet's (paper; 2012), quickstart's, those of
# the CIFAR-10 nets; then odd ones.
CONVOLUTIONS = [
    ((2, 227, 227, 3), 48, 11, 4, (0, 0)), ((2, 224, 224, 3), 48, 11, 4, (0, 3)),
    ((2, 27, 27, 48), 128, 5, 1, (2, 2)), ((2, 13, 13, 256), 192, 3, 1, (1, 1)),
    ((2, 13, 13, 192), 192, 3, 1, (1, 1)), ((2, 13, 13, 192), 128, 3, 1, (1, 1)),
    ((2, 27, 27, 12), 32, 5, 1, (2, 2)), ((2, 13, 13, 64), 48, 3, 1, (1, 1)),
    ((2, 24, 24, 3), 64, 5, 1, (2, 2)), ((2, 32, 32, 3), 32, 5, 1, (2, 2)),
    ((2, 12, 12, 64), 64, 5, 1, (2, 2)), ((2, 16, 16, 32), 32, 5, 1, (2, 2)),
    ((3, 7, 9, 5), 3, 3, 2, (0, 2)), ((1, 6, 5, 4), 1, 2, 4, (3, 0)),
    ((2, 5, 5, 1), 7, 5, 1, (0, 0)), ((3, 4, 4, 8), 2, 1, 1, (0, 0)),
    ((2, 3, 3, 2), 9, 5, 2, (1, 1)), ((5, 8, 8, 6), 6, 3, 2, (1, 0)),
]
# x's shape, window, stride, whether the last one may overhang
POOLS = [
    ((2, 55, 55, 48), 3, 2, True), ((2, 27, 27, 128), 3, 2, True), ((2, 13, 13, 128), 3, 2, True),
    ((2, 32, 32, 32), 3, 2, True), ((2, 16, 16, 64), 2, 2, True), ((2, 13, 12, 5), 2, 2, False),
    ((3, 6, 6, 1), 3, 1, False), ((2, 14, 14, 3), 3, 2, True), ((2, 7, 7, 2), 3, 4, True),
    ((1, 5, 4, 7), 4, 1, False), ((2, 9, 9, 3), 9, 1, False), ((2, 8, 8, 2), 2, 3, True)]
# x's shape, n, alpha
NORMS = [((2, 55, 55, 48), 5, 1e-4), ((2, 27, 27, 128), 5, 1e-4), ((4, 7, 7, 12), 5, 2e-5),
         ((3, 5, 7), 5, 0.3), ((2, 3, 16), 4, 0.2), ((6, 3), 5, 0.5), ((5, 8), 1, 0.1),
         ((4, 2, 20), 20, 0.05), ((7, 1), 3, 1.0)]


def numbers(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def with_ties(shape):
    return np.random.default_rng(1).integers(-2, 3, shape).astype(np.float32)


def both(op, *arrays, **how):
    """The value and the gradients of an op on the stand-in, and on the CPU in float64."""
    results = []
    for place, kind in ("gpu0", np.float32), ("cpu", np.float64):
        with Device(place):
            tensors = [Tensor(a.astype(kind), place, requires_grad=True) for a in arrays]
            y = op(*tensors, **how)
            dy = y.device.put(numbers(y.shape, 5).astype(kind))
            results.append([to_host(a) for a in (y.data, *[f(dy) for f in y.node.grad_fns])])
    return results


def close(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape and one.dtype == np.float32
        worst = np.abs(one - other).max() / max(np.abs(other).max(), 1e-30)
        assert worst <= TO_ROUNDING, worst             # NaN, a number never written, fails too


def equal(ours, theirs):
    np.testing.assert_array_equal(ours, theirs, strict=True)


def on_gpu(x):
    return Device("gpu0").put(x)


def check_im2col(shape, O, side, stride, pad):
    """Equal to the bit, with the 1 for the bias and the zeros behind it."""
    x, sizes = numbers(shape), out_sizes("", shape, (side, side), stride, pad)
    wanted = im2col(x, (side, side), stride, pad)
    with Device("gpu0"):
        for bias in 0, 1:
            cols = to_host(columns.im2col(on_gpu(x), (side, side), stride, pad, sizes, bias))
            K = wanted.shape[1]
            assert cols.shape[1] % 4 == 0 and cols.shape[1] < K + bias + 4
            equal(cols[:, :K], wanted)
            equal(cols[:, K:K + bias], np.ones((len(cols), bias), np.float32))
            assert not cols[:, K + bias:].any()


def check_col2im(shape, O, side, stride, pad):
    """Equal to the bit: a pixel's sum has the same order."""
    sizes = out_sizes("", shape, (side, side), stride, pad)
    cols = numbers((shape[0] * sizes[0] * sizes[1], side * side * shape[3]))
    with Device("gpu0"):
        dx = kernels.empty(on_gpu(cols), *shape)
        columns.col2im(on_gpu(cols), dx, (side, side), stride, pad, sizes)
        equal(to_host(dx), col2im(cols, shape, (side, side), stride, pad))


def check_convolution(shape, O, side, stride, pad):
    W, b = numbers((side, side, shape[3], O), 1), numbers(O, 2)
    close(*both(conv2d, numbers(shape), W, b, stride=stride, pad=pad, form="im2col"))


def check_pool(shape, size, stride, ceil, ties, make):
    how = dict(size=size, stride=stride, ceil=ceil, ties=ties)
    (y, *dx), (y64, *dx64) = both(pool.max_pool, make(shape), **how)
    equal(y, y64.astype(np.float32))
    close(dx, dx64)


def check_lrn(shape, n, alpha, beta):
    close(*both(norm.lrn, 2 * numbers(shape), n=n, k=2.0, alpha=alpha, beta=beta))


def check_relu(shape):
    for ours, theirs in zip(*both(ops.relu, with_ties(shape) * 0.7), strict=True):
        equal(ours, theirs.astype(np.float32))


def check_dropout(count, step, layer, seed, keep):
    how = dict(keep=keep, scale=2.0, seed=seed, step=step, layer=layer)
    x = np.ones(count, np.float32)
    (y, dx), _ = both(ops.dropout, x, **how)
    kept = rng.mask(np, count, keep, seed=seed, purpose=rng.DROPOUT, step=step, stream=layer)
    equal(y, np.float32(2) * kept)
    equal(dx, numbers(count, 5) * (np.float32(2) * kept))


def check_dropout_at(count, step, layer, seed, keep):
    """The same with a step whose halves are on the card."""
    key = rng.counter_and_key(seed=seed, purpose=rng.DROPOUT)[1]
    with Device("gpu0") as place:
        x, at = place.put(numbers(count)), place.put(np.array([step], np.uint64).view(np.uint32))
        y, expected = (kernels.dropout(x, keep, 2.0, where, layer, key) for where in (at, step))
        equal(y.get(), expected.get())


def check_sgd(shape):
    """Two updates, equal to the bit."""
    results = []
    for place in "gpu0", "cpu":
        with Device(place):
            w = Parameter(lambda shape, **_: numbers(shape), shape=shape)
            w.to = w.device = Device(place)
            w.data = w.device.put(numbers(shape))
            optimizer = SGD([("w", w)], lr=0.0123)
            for step in range(2):
                w.grad = w.device.put(numbers(shape, 7 + step))
                optimizer.step()
            results.append([to_host(w.data), to_host(optimizer.velocity["w"])])
    for ours, theirs in zip(*results, strict=True):
        equal(ours, theirs)


def check_crop(side, size, aligned):
    """Equal to the bit."""
    pictures = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    mean, shifts, far = numbers((side, side, 3)), numbers((3, 3), 1), side - size
    places = np.int32([(1, 0, far, 0), (0, far, 0, 1), (1, far, far, 1)])
    with Device("gpu0"):
        found = to_host(kernels.crop(*map(on_gpu, (pictures, mean, places, shifts)), 0.5, size,
                                     aligned))

    def cut(a, top, left, mirrored):
        return a[top:top + size, left:left + size][:, ::-1 if mirrored else 1]

    for crop, (which, *place), shift in zip(found, places, shifts, strict=True):
        less = cut(mean, *(place if aligned else (far // 2, far // 2, False)))
        equal(crop, (np.float32(cut(pictures[which], *place)) - less + shift) * np.float32(0.5))


def cases():
    """(text, what, function) for every comparison; text: the kernel that it is about."""
    for shape in CONVOLUTIONS:
        yield "IM2COL", f"im2col {shape}", partial(check_im2col, *shape)
        yield "COL2IM", f"col2im {shape}", partial(check_col2im, *shape)
        yield "TO_ROWS", f"convolution {shape}", partial(check_convolution, *shape)
    for shape in POOLS:
        for text, ties in ("TO_FIRST", "first"), ("TO_ALL", "all"):
            for make in numbers, with_ties:
                yield text, f"pool {shape} {ties} {make.__name__}", partial(
                    check_pool, *shape, ties, make)
        yield "MAX_POOL", f"pool {shape}", partial(check_pool, *shape, "first", with_ties)
    for shape in NORMS:
        for beta in 0.75, 0.6:
            for text in "LRN", "LRN_BACKWARD":
                yield text, f"{text} {shape} {beta}", partial(check_lrn, *shape, beta)
    for shape in (1000, (3, 5, 7)):
        for text in "RELU", "RELU_BACKWARD":
            yield text, f"{text} {shape}", partial(check_relu, shape)
        yield "SGD", f"sgd {shape}", partial(check_sgd, shape)
    for case in ((1000, 3, 1, 7, 0.5), (65537, 2 ** 33 + 5, 0, 2 ** 40 + 11, 0.75),
                 (6, 0, 0, 0, 0.1), (9, 1, 2, 3, 1.0)):
        yield "DROPOUT", f"dropout {case}", partial(check_dropout, *case)
        yield "DROPOUT_AT", f"dropout at {case}", partial(check_dropout_at, *case)
    for aligned in True, False:
        yield "CROP", f"crop {aligned}", partial(check_crop, 11, 7, aligned)


# An error of one in a kernel's text: where, what it says, and what it would say.
PLANTED = [
    ("IM2COL", "h >= H", "h > H"), ("IM2COL", "w >= W", "w > W"), ("IM2COL", "h < 0", "h < -1"),
    ("IM2COL", "w < 0", "w < -1"), ("IM2COL", "k + j >= K", "k + j > K"),
    ("IM2COL", "k + j == K", "k + j == K + 1"), ("COL2IM", "oh >= OH", "oh > OH"),
    ("COL2IM", "ow >= OW", "ow > OW"), ("COL2IM", "h < kh", "h + 1 < kh"),
    ("COL2IM", "kw < KW", "kw <= KW"), ("TO_ROWS", "k < K", "k <= K"), ("LRN", "c >= C", "c > C"),
    ("LRN", "c < 0", "c < -1"), ("LRN", "u < j + WINDOW", "u < j + WINDOW - 1"),
    ("LRN_BACKWARD", "c >= C", "c > C"), ("LRN_BACKWARD", "j >= AFTER", "j > AFTER"),
    ("MAX_POOL", "top + a >= H", "top + a > H"), ("MAX_POOL", "left + b >= W", "left + b > W"),
    ("TO_FIRST", "oh < OH", "oh <= OH"), ("TO_FIRST", "ow <= w / STRIDE", "ow < w / STRIDE"),
    ("TO_ALL", "ow < OW", "ow <= OW"), ("TO_ALL", "/ STRIDE + 1", "/ STRIDE"),
    ("DROPOUT", "4 * i + j < count", "4 * i + j <= count"), ("DROPOUT_AT", "at[0]", "at[2]"),
    *((text, "NUMBER(i, n)", "NUMBER(i, n + 1)") for text in ("RELU", "RELU_BACKWARD", "SGD",
                                                              "CROP"))]


def small_cases():
    """The cases that take no time, odd shapes among them: (text, function)."""
    for text, _, check in cases():
        first = check.args[0]
        if np.prod(first) < 20_000:
            yield text, check


def found(chosen, old, new):
    """Replace OLD in a kernel by NEW, and let a comparison raise AssertionError."""
    home = columns if hasattr(columns, chosen) else kernels
    text = getattr(home, chosen)
    assert old in text, f"{old!r} is not in {chosen}"
    setattr(home, chosen, text.replace(old, new))
    for about, check in small_cases():
        if about == chosen:
            check()


def in_a_child(work, reports):
    """Who objects when work() runs in a child of this process: "the sanitizer", by a report in a
    file whose name begins as `reports` does; "a comparison", by an AssertionError; "the system",
    which ends the process; "NOBODY"."""
    child = os.fork()
    if not child:
        try:
            work()
        except AssertionError:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if Path(f"{reports}.{child}").exists():
        return "the sanitizer"
    return "the system" if os.WIFSIGNALED(status) else ["NOBODY", "a comparison"][bool(status)]


def everything():
    for _, check in small_cases():
        check()


if __name__ == "__main__":
    sys.modules["cupy"] = strict_cupy.Cupy()
    folder()                                           # the first child compiles, for all
    print("as they are", in_a_child(everything, sys.argv[1]), sep=" | ", flush=True)
    for planted in PLANTED[::int(sys.argv[2])]:
        print(*planted, in_a_child(partial(found, *planted), sys.argv[1]), sep=" | ", flush=True)
