"""A stand-in for cuBLAS, beside that for CuPy: it takes pointers, and counts down the columns."""
import ctypes

import numpy as np

import strict_cupy
from strict_streams import Refused, current, here

asked = []                             # in which precision, for every product


class Blas:
    """What ctypes finds in cuBLAS, as far as tinynet asks for it. A new stream takes the workspace
    away; without one, cuBLAS would ask for memory while a step is recorded."""

    has_workspace = False

    def cublasSetStream_v2(self, handle, stream):
        self.has_workspace = False
        return 0 if (handle, stream) == (here(), current().ptr) else 1

    def cublasSetWorkspace_v2(self, handle, place, size):
        self.has_workspace = strict_cupy.memory[place].nbytes >= size
        return 0 if self.has_workspace else 7

    def cublasGemmEx(self, handle, how_a, how_b, m, n, k, alpha, a, kind_a, wide_a, b, kind_b,
                     wide_b, beta, c, kind_c, wide_c, precision, algorithm):
        if {kind_a, kind_b, kind_c} != {0} or (alpha[0], beta[0], algorithm) != (1, 0, -1):
            raise Refused("cublasGemmEx: this stand-in knows float32, alpha 1 and beta 0")
        if not self.has_workspace:
            raise Refused("cublasGemmEx: no workspace since the stream was set")
        asked.append({68: "fp32", 77: "tf32"}[precision])
        places = [(a, (m, k), how_a, wide_a), (b, (k, n), how_b, wide_b), (c, (m, n), 0, wide_c)]
        arrays = [strict_cupy._array(strict_cupy.memory[place], here()) for place, *_ in places]

        def gemm(*numbers):
            x, y, out = (_matrix(place, numbers.size, *how) for numbers, (place, *how) in
                         zip(numbers, places, strict=True))
            np.matmul(x, y, out=out)
        gemm.written = arrays[2:]
        strict_cupy._run(gemm, arrays, {})
        return 0


def _matrix(place, size, shape, transposed, width):
    """The matrix (rows, columns) at a place: column by column, `width` numbers for each."""
    rows, columns = shape[::-1] if transposed else shape
    if width < rows or width * (columns - 1) + rows > size:
        raise Refused(f"cublasGemmEx: {rows} x {columns}, {width} apart, of {size} numbers")
    numbers = np.frombuffer((ctypes.c_float * (width * columns)).from_address(place), np.float32)
    matrix = numbers.reshape(columns, width)[:, :rows].T
    return matrix.T if transposed else matrix
