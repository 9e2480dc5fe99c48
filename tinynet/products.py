"""How are two matrices multiplied on a GPU?

By cuBLAS, NVIDIA's library. CuPy asks it, but refuses to while a step is recorded (replay.py).
Then it is asked from here.
"""
import ctypes
import functools
import os
import sys
from contextlib import contextmanager

import numpy as np

from .device import get_array_module

FLOAT = np.dtype(np.float32)
# From cublas_api.h and library_types.h.
AS_IT_IS, TRANSPOSED, FLOAT32, COMPUTE_FP32, COMPUTE_TF32, DEFAULT = 0, 1, 0, 68, 77, -1
WORKSPACE = 32 << 20           # bytes, as NVIDIA advises for its Hopper cards
ONE, ZERO = (ctypes.pointer(ctypes.c_float(number)) for number in (1, 0))


_without_cupy = False


@contextmanager
def without_cupy():
    """Inside, products are asked for from here."""
    global _without_cupy
    _without_cupy = True
    try:
        yield
    finally:
        _without_cupy = False


def product(a, b, out=None):
    """a @ b for arrays of one GPU: (M, K), (K, N) -> (M, N), into `out`, contiguous, if given.

    Without CuPy it takes matrices of float32. Raises RuntimeError if cuBLAS has something to say.
    """
    xp = get_array_module(a)
    if not _without_cupy or a.ndim != 2 or b.ndim != 2 or FLOAT not in (a.dtype, b.dtype):
        return xp.matmul(a, b, out=out)
    library = cublas(xp)
    (M, K), (rows, N) = a.shape, b.shape
    if out is None:
        out = xp.empty((M, N), FLOAT)
    if a.dtype != b.dtype or K != rows or out.shape != (M, N) or not out.flags.c_contiguous:
        raise ValueError(f"no product: {a.dtype} {a.shape} @ {b.dtype} {b.shape} into {out.shape}")
    # cuBLAS counts down the columns, so to it every matrix is transposed: out.T = b.T @ a.T
    (a, how_a, width_a), (b, how_b, width_b) = map(_in_memory, (a, b))
    handle = xp.cuda.device.get_cublas_handle()
    for status in (
            library.cublasSetStream_v2(handle, xp.cuda.get_current_stream().ptr),
            library.cublasSetWorkspace_v2(handle, _workspace(xp, xp.cuda.Device().id).data.ptr,
                                          WORKSPACE),
            library.cublasGemmEx(handle, how_b, how_a, N, M, K, ONE, b.data.ptr, FLOAT32, width_b,
                                 a.data.ptr, FLOAT32, width_a, ZERO, out.data.ptr, FLOAT32, N,
                                 precision(xp), DEFAULT)):
        if status:
            raise RuntimeError(f"cuBLAS: status {status} for ({M}, {K}) @ ({K}, {N})")
    return out


def precision(xp):
    """How cuBLAS multiplies float32, as Device.multiply_in has set it."""
    linalg = xp._core._routines_linalg
    tf32 = linalg.get_compute_type(FLOAT) == linalg.COMPUTE_TYPE_TF32
    return COMPUTE_TF32 if tf32 else COMPUTE_FP32


def _in_memory(matrix):
    """The matrix as it lies in memory, what to do with it, and the length of a row there."""
    if matrix.flags.f_contiguous and not matrix.flags.c_contiguous:
        return matrix.T, TRANSPOSED, matrix.shape[0]
    return get_array_module(matrix).ascontiguousarray(matrix), AS_IT_IS, matrix.shape[1]


@functools.cache
def cublas(xp):
    """The library that CuPy has loaded, for ctypes. Raises OSError if it has another name."""
    major = xp.cuda.cublas.getVersion(xp.cuda.device.get_cublas_handle()) // 10000
    name = f"cublas64_{major}.dll" if sys.platform == "win32" else f"libcublas.so.{major}"
    library = ctypes.CDLL(name, getattr(os, "RTLD_NOLOAD", 0))         # no other one of the name
    number, place, scalar = ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_float)
    library.cublasSetStream_v2.argtypes = place, place
    library.cublasSetWorkspace_v2.argtypes = place, place, ctypes.c_size_t
    library.cublasGemmEx.argtypes = (
        place, *5 * [number], scalar, *2 * [place, number, number], scalar, place, *4 * [number])
    return library


@functools.cache
def _workspace(xp, card):
    return xp.empty(WORKSPACE, np.uint8)
