"""What do the inner loops look like on a GPU?

Like this: a kernel is a function in CUDA C which thousands of threads run at once. Each finds by
its own number `i` which number of the result it is to compute, and computes that one. Where a
NumPy op adds something to many places, its kernel turns the question round: every place collects
what belongs to it. So no two threads write to the same number, and sums have a fixed order.

The NumPy text stays the definition, and what every kernel is tested against. CuPy would run it as
well, but slowly: each pass goes through memory, and a view with strides costs a dozen divisions
for every number. Here a pass is one kernel, and shapes are macros, so that the compiler turns the
divisions into multiplications. A kernel is compiled when its shapes are first seen.

Arrays are float32, channels last: N H W C. Letters are those of conv.py.
"""
import functools
import re

import numpy as np

from .device import get_array_module, is_on_gpu
from .errors import UserError

THREADS = 256                  # in a block: a multiple of 32, enough to hide the wait for memory
LARGEST_WINDOW = 256           # side of a pool's: a place in it is a number of 16 bits
LARGEST = 2 ** 31              # numbers in an array: a thread counts in 32 bits
# Without fused multiply-adds sums and products round as NumPy's do.
OPTIONS = "-std=c++17", "--fmad=false"

PRELUDE = r"""
typedef unsigned int uint;
typedef unsigned char uchar;
typedef unsigned short ushort;
#define NUMBER(i, n) const uint i = blockIdx.x * blockDim.x + threadIdx.x; if (i >= (n)) return
"""


def suit(x):
    """Whether there are kernels for this array: float32 on a GPU."""
    return is_on_gpu(x) and x.dtype == np.float32


def launch(text, out, *inputs, threads=None, **macros):
    """Fill `out`, a contiguous array, with the kernel of this text, and return it.

    inputs: arrays, and numbers of NumPy. The kernel is called with them, with `out`, and with the
    number of threads that have something to do (default: one for each number in `out`). Raises
    UserError for arrays of 2**31 numbers and more.
    """
    xp = get_array_module(out)
    arguments = [as_read(x) if isinstance(x, xp.ndarray) else x for x in inputs]
    threads = out.size if threads is None else threads
    for x in (out, *arguments):
        if x.size >= LARGEST:
            raise UserError(f"an array of {x.size:,} numbers: kernels count up to "
                            f"{LARGEST - 1:,}; take a smaller batch")
    if threads:
        kernel = _compiled(xp, text, tuple(macros.items()))
        kernel((-(-threads // THREADS),), (THREADS,), (*arguments, out, np.uint32(threads)))
    return out


def as_read(x):
    """The array as a kernel reads it: contiguous, and of float32 if it is of another width."""
    if x.dtype.char in "de":           # a gradient may be wider: an op of a user's made it so
        x = x.astype(np.float32)
    return x if x.flags.c_contiguous else get_array_module(x).ascontiguousarray(x)


@functools.cache
def _compiled(xp, text, macros):
    name = re.search(r"__global__ void (\w+)", text)[1]
    defines = "".join(f"#define {macro} {_literal(value)}\n" for macro, value in macros)
    return xp.RawKernel(defines + PRELUDE + text, name, options=OPTIONS)


def _literal(value):
    return f"{value!r}f" if isinstance(value, float) else str(value)


def empty(like, *shape):
    """An array for a kernel to fill, of float32, wherever and of whatever width `like` is."""
    return get_array_module(like).empty(shape or like.shape, np.float32)


# --- number by number (ops.py, optim.py) ----------------------------------------------------

RELU = r"""
extern "C" __global__ void relu(const float* __restrict__ x, float* __restrict__ y, uint n) {
    NUMBER(i, n);
    y[i] = x[i] < 0 ? 0 : x[i];                     // NaN stays NaN
}
"""
RELU_BACKWARD = r"""
extern "C" __global__ void relu_backward(const float* __restrict__ y, const float* __restrict__ dy,
                                         float* __restrict__ dx, uint n) {
    NUMBER(i, n);
    dx[i] = dy[i] * (y[i] > 0);
}
"""


def relu(x):
    """ops.relu: (...) -> (...)"""
    return launch(RELU, empty(x), x)


def relu_backward(y, dy):
    """dx of ops.relu: (...) -> (...)"""
    return launch(RELU_BACKWARD, empty(y), y, dy)


# Philox4x32-10 as in rng.py: four random words a thread, and the four numbers they decide on.
DROP = r"""
    NUMBER(i, n);
    uint c[4] = {i, step, step_high, stream};
    for (int round = 0; round < 10; round++) {
        const uint high0 = __umulhi(0xD2511F53u, c[0]), low0 = 0xD2511F53u * c[0];
        const uint high2 = __umulhi(0xCD9E8D57u, c[2]), low2 = 0xCD9E8D57u * c[2];
        c[0] = high2 ^ c[1] ^ k0;    c[1] = low2;
        c[2] = high0 ^ c[3] ^ k1;    c[3] = low0;
        k0 += 0x9E3779B9u;           k1 += 0xBB67AE85u;
    }
    for (uint j = 0; j < 4 && 4 * i + j < count; j++)
        y[4 * i + j] = x[4 * i + j] * (c[j] <= last ? scale : 0);
"""
DROPOUT = r"""
extern "C" __global__ void dropout(const float* __restrict__ x, uint step, uint step_high,
                                   uint stream, uint k0, uint k1, uint last, float scale,
                                   uint count, float* __restrict__ y, uint n) {
""" + DROP + "}"
DROPOUT_AT = r"""
extern "C" __global__ void dropout_at(const float* __restrict__ x, const uint* __restrict__ at,
                                      uint stream, uint k0, uint k1, uint last, float scale,
                                      uint count, float* __restrict__ y, uint n) {
    const uint step = at[0], step_high = at[1];
""" + DROP + "}"


def dropout(x, keep, scale, step, stream, key):
    """x times `scale` where rng.mask has True, times 0 elsewhere: (...) -> (...)

    step, stream, key: what rng.words counts with besides the number of a block of four. step is
    a number, or on the card its two halves, the lower one first: (2,) uint32. The gradient is the
    same function of dy, so no mask is kept.
    """
    last = max(int(keep * 2 ** 32) - 1, 0)             # of the words that keep: all, if keep is 1
    words = map(np.uint32, (stream, *key, last))
    at = [step] if is_on_gpu(step) else map(np.uint32, (step & 0xFFFFFFFF, step >> 32))
    return launch(DROPOUT_AT if is_on_gpu(step) else DROPOUT, empty(x), x, *at, *words,
                  np.float32(scale), np.uint32(x.size), threads=-(-x.size // 4))


SGD = r"""
extern "C" __global__ void sgd(float* __restrict__ v, const float* __restrict__ dw,
                               float momentum, float rate, float decay,
                               float* __restrict__ w, uint n) {
    NUMBER(i, n);
    v[i] = momentum * v[i] - rate * (dw[i] + decay * w[i]);
    w[i] += v[i];
}
"""


def sgd(w, v, dw, momentum, rate, decay):
    """The update of optim.py, in one pass: w and v, contiguous arrays, are overwritten."""
    launch(SGD, w, v, dw, *map(np.float32, (momentum, rate, decay)))


# --- local response normalisation (norm.py) -------------------------------------------------

# A thread computes PART channels of a pixel: four, where C is a multiple of four. So what
# neighbours share is computed once. What lies beyond the first or last channel counts as zero.
AROUND = r"""
#define BEFORE (WINDOW / 2)
#define AFTER ((WINDOW - 1) / 2)
__device__ inline float at(const float* a, uint pixel, int c) {
    return c < 0 || c >= C ? 0 : a[pixel + c];
}
__device__ inline void powers(float d, float* power, float* next) {   // d ** -BETA, over d
    const float root = rsqrtf(d);
    *power = BETA == 0.75f ? root * root * rsqrtf(root) : powf(d, -BETA);
    *next = *power * (root * root);
}
"""
LRN = AROUND + r"""
extern "C" __global__ void lrn(const float* __restrict__ x, float* __restrict__ y, uint n) {
    NUMBER(i, n);
    const int c = i % (C / PART) * PART;
    const uint pixel = i / (C / PART) * C;
    float v[PART + WINDOW - 1];
    #pragma unroll
    for (int j = 0; j < PART + WINDOW - 1; j++) v[j] = at(x, pixel, c - BEFORE + j);
    #pragma unroll
    for (int j = 0; j < PART; j++) {
        float energy = 0, power, next;
        #pragma unroll
        for (int u = j; u < j + WINDOW; u++) energy += v[u] * v[u];
        powers(K + ALPHA * energy, &power, &next);
        y[pixel + c + j] = v[j + BEFORE] * power;
    }
}
"""
LRN_BACKWARD = AROUND + r"""
extern "C" __global__ void lrn_backward(const float* __restrict__ x, const float* __restrict__ dy,
                                        float* __restrict__ dx, uint n) {
    NUMBER(i, n);
    const int c = i % (C / PART) * PART;
    const uint pixel = i / (C / PART) * C;
    float v[PART + 2 * (WINDOW - 1)], own[PART], through[PART + WINDOW - 1];
    #pragma unroll
    for (int j = 0; j < PART + 2 * (WINDOW - 1); j++) v[j] = at(x, pixel, c - WINDOW + 1 + j);
    #pragma unroll
    for (int j = 0; j < PART + WINDOW - 1; j++) {   // channels that have one of ours inside
        float energy = 0, power, next;
        #pragma unroll
        for (int u = j; u < j + WINDOW; u++) energy += v[u] * v[u];
        powers(K + ALPHA * energy, &power, &next);
        const float dy_j = at(dy, pixel, c - AFTER + j);
        if (j >= AFTER && j < AFTER + PART) own[j - AFTER] = dy_j * power;
        through[j] = v[j + BEFORE] * dy_j * next;
    }
    #pragma unroll
    for (int j = 0; j < PART; j++) {
        float sum = 0;
        #pragma unroll
        for (int u = j; u < j + WINDOW; u++) sum += through[u];
        dx[pixel + c + j] = own[j] - 2 * ALPHA * BETA * v[j + WINDOW - 1] * sum;
    }
}
"""


def lrn(x, **how):
    """norm.lrn with its n, k, alpha and beta: x (..., C) -> (..., C)"""
    return launch(LRN, empty(x), x, **_lrn(x, **how))


def lrn_backward(x, dy, **how):
    """dx of norm.lrn: (..., C) -> (..., C)"""
    return launch(LRN_BACKWARD, empty(x), x, dy, **_lrn(x, **how))


def _lrn(x, n, k, alpha, beta):
    C = x.shape[-1]
    part = 1 if C % 4 else 4
    return dict(threads=x.size // part, PART=part, C=C, WINDOW=n, K=float(k),
                ALPHA=float(alpha), BETA=float(beta))


# --- pools (pool.py) ------------------------------------------------------------------------

MAX_POOL = r"""
extern "C" __global__ void max_pool(const float* __restrict__ x, ushort* __restrict__ first,
                                    float* __restrict__ y, uint n) {
    NUMBER(i, n);
    const uint c = i % C;
    uint t = i / C;
    const int left = t % OW * STRIDE;    t /= OW;
    const int top = t % OH * STRIDE;     t /= OH;                  // of picture t
    float most = 0;
    int place = -1;
    #pragma unroll
    for (int a = 0; a < SIZE; a++)
        #pragma unroll
        for (int b = 0; b < SIZE; b++) {
            if (top + a >= H || left + b >= W) continue;
            const float v = x[((t * H + top + a) * W + left + b) * C + c];
            if (place < 0 || v > most || v != v) { most = v; place = a * SIZE + b; }
        }                                           // NaN stays, as in numpy.maximum
    y[i] = most;
    first[i] = place;
}
"""
# A pixel's channel collects from all windows that it lies in and has won.
OVER_WINDOWS = r"""
    NUMBER(i, n);
    const uint c = i % C;
    uint t = i / C;
    const int w = t % W;    t /= W;
    const int h = t % H;    t /= H;
    float sum = 0;
    for (int oh = h < SIZE ? 0 : (h - SIZE) / STRIDE + 1; oh <= h / STRIDE && oh < OH; oh++)
        for (int ow = w < SIZE ? 0 : (w - SIZE) / STRIDE + 1; ow <= w / STRIDE && ow < OW; ow++) {
            const uint o = ((t * OH + oh) * OW + ow) * C + c;
            if (WINS) sum += dy[o];
        }
    dx[i] = sum;
"""
TO_FIRST = r"""
#define WINS first[o] == (h - oh * STRIDE) * SIZE + w - ow * STRIDE
extern "C" __global__ void to_first(const ushort* __restrict__ first, const float* __restrict__ dy,
                                    float* __restrict__ dx, uint n) {
""" + OVER_WINDOWS + "}"
TO_ALL = r"""
#define WINS x[i] == y[o]
extern "C" __global__ void to_all(const float* __restrict__ x, const float* __restrict__ y,
                                  const float* __restrict__ dy, float* __restrict__ dx, uint n) {
""" + OVER_WINDOWS + "}"


def max_pool(x, size, stride, ties, out_sizes):
    """pool.max_pool of (N, H, W, C), and its gradient function."""
    (N, H, W, C), (OH, OW) = x.shape, out_sizes
    shape, y = x.shape, empty(x, N, OH, OW, C)
    first = get_array_module(x).empty(y.shape, np.uint16)
    how = dict(H=H, W=W, C=C, OH=OH, OW=OW, SIZE=size, STRIDE=stride)
    launch(MAX_POOL, y, x, first, **how)
    if ties == "first":                # then neither x nor y is kept
        return y, lambda dy: launch(TO_FIRST, empty(dy, *shape), first, dy, **how)
    return y, lambda dy: launch(TO_ALL, empty(dy, *shape), x, y, dy, **how)


# --- pictures (pictures/upload.py) ----------------------------------------------------------

CROP = r"""
extern "C" __global__ void crop(const uchar* __restrict__ pictures, const float* __restrict__ mean,
                                const int* __restrict__ places, const float* __restrict__ shifts,
                                float scale, float* __restrict__ out, uint n) {
    NUMBER(i, n);
    const uint c = i % 3;
    uint t = i / 3;
    const int w = t % SIZE;       t /= SIZE;
    const int h = t % SIZE;       t /= SIZE;        // of crop t
    const int picture = places[4 * t], top = places[4 * t + 1], left = places[4 * t + 2];
    const int column = left + (places[4 * t + 3] ? SIZE - 1 - w : w);
    const int of_picture = ((top + h) * SIDE + column) * 3 + c;
    const int of_mean = ALIGNED ? of_picture : ((CENTRE + h) * SIDE + CENTRE + w) * 3 + c;
    const float pixel = pictures[picture * (SIDE * SIDE * 3) + of_picture];
    out[i] = (pixel - mean[of_mean] + shifts[3 * t + c]) * scale;
}
"""


def crop(pictures, mean, places, shifts, scale, size, aligned):
    """images.Preparation.fill for many crops at once: (crops, size, size, 3) float32

    pictures: (N, SIDE, SIDE, 3) bytes; mean: (SIDE, SIDE, 3) float32. places: (crops, 4) int32:
    which picture, top, left, mirrored. shifts: (crops, 3) float32, added to R, G, B. aligned:
    the mean is cropped where the picture is, else in its centre.
    """
    side = mean.shape[0]
    return launch(CROP, empty(mean, len(places), size, size, 3), pictures, mean, places, shifts,
                  np.float32(scale), SIDE=side, SIZE=size, CENTRE=(side - size) // 2,
                  ALIGNED=int(aligned))
