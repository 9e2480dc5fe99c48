"""A product that cuBLAS is asked for directly is the product.

All of this runs on strict_cupy and strict_blas, and what is marked on a GPU.
"""
import numpy as np
import pytest

import strict_blas
from helpers import NO_GPU
from tinynet import products
from tinynet.device import Device


def operand(shape, transposed, draw):
    numbers = draw.standard_normal(shape[::-1] if transposed else shape, np.float32)
    return numbers, Device("gpu0").put(numbers)


@pytest.mark.gpu
@NO_GPU
def test_a_product_that_a_gpu_is_asked_for_directly_is_that_of_cupy():
    Device("gpu0").multiply_in("fp32")
    draw = np.random.default_rng(0)
    (a, x), (b, y) = operand((70, 130), False, draw), operand((50, 130), False, draw)
    with Device("gpu0"), products.without_cupy():
        for found, expected in ((products.product(x, y.T), a @ b.T),
                                (products.product(y, x.T), b @ a.T),
                                (products.product(x.T, x), a.T @ a)):
            assert found.get() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
@pytest.mark.parametrize("M, K, N", [
    (5, 7, 3), (1, 4, 6), (4, 1, 6), (4, 6, 1), (1, 1, 1), (8, 8, 8)])
def test_a_product_is_that_of_numpy_however_its_matrices_lie(gpus, precision, M, K, N):
    strict_blas.asked.clear()
    Device("gpu0").multiply_in(precision)
    draw = np.random.default_rng(0)
    for first in False, True:
        for second in False, True:
            a, x = operand((M, K), first, draw)
            b, y = operand((K, N), second, draw)
            with Device("gpu0") as device:
                x, y = x.T if first else x, y.T if second else y
                into = device.xp.empty((M, N), np.float32)
                with products.without_cupy():
                    assert products.product(x, y, out=into) is into
                    found = products.product(x, y).get(), into.get()
            expected = (a.T if first else a) @ (b.T if second else b)
            assert all(one == pytest.approx(expected, rel=1e-6, abs=1e-6) for one in found)
    assert strict_blas.asked == [precision] * 8


def test_a_product_of_strided_matrices_is_that_of_their_copies(gpus):
    a, x = operand((6, 8), False, np.random.default_rng(0))
    with Device("gpu0"), products.without_cupy():
        assert np.array_equal(products.product(x[::2, 1:5], x[:4, :3]).get(),
                              products.product(x[::2, 1:5].copy(), x[:4, :3].copy()).get())


@pytest.mark.parametrize("shapes, dtype", [
    ([(2, 3), (3, 2)], "float16"), ([(2, 2, 3), (3, 2)], "float32"), ([(3,), (3, 2)], "float32")])
def test_other_products_are_left_to_cupy(gpus, shapes, dtype):
    strict_blas.asked.clear()
    with Device("gpu0") as device, products.without_cupy():
        x, y = (device.xp.zeros(shape, np.dtype(dtype)) for shape in shapes)
        assert products.product(x, y).shape == np.matmul(*map(np.zeros, shapes)).shape
    assert strict_blas.asked == []


def test_what_is_no_product_is_refused(gpus, monkeypatch):
    with Device("gpu0") as device, products.without_cupy():
        x = device.xp.zeros((2, 3), np.float32)
        for a, b, out in (x, x, None), (x, x.T, x), (x.T, x, device.xp.zeros((6, 3), "f")[::2]), (
                x, x.T.astype(np.float16), None):
            with pytest.raises(ValueError, match="no product"):
                products.product(a, b, out=out)
        monkeypatch.setattr(strict_blas.Blas, "cublasGemmEx", lambda *args: 13)
        with pytest.raises(RuntimeError, match=r"cuBLAS: status 13 for \(2, 3\) @ \(3, 2\)"):
            products.product(x, x.T)
