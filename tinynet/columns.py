"""How is a convolution computed on a GPU?

As one product again (conv.py), for as many pictures at a time as there is memory for, with the
columns made by a kernel. Work beside the product is avoided where it can be: the bias and its
gradient come out of the same products, and the columns are kept for the backward pass.
"""
from .cores import for_two, over_batch, sum_over_batch
from .device import get_array_module
from .kernels import as_read, empty, launch
from .products import product

# Four numbers a thread. A row is K numbers long; a 1 may follow, for the bias; zeros fill it up to
# ROW, a multiple of four: products with TF32 want rows that begin at multiples of 16 bytes.
IM2COL = r"""
extern "C" __global__ void im2col(const float* __restrict__ x, float4* __restrict__ cols, uint n) {
    NUMBER(i, n);
    const int k = i % (ROW / 4) * 4;
    uint t = i / (ROW / 4);
    const int left = int(t % OW * STRIDE) - PAD;    t /= OW;
    const int top = int(t % OH * STRIDE) - PAD;     t /= OH;       // of picture t
    float v[4] = {0, 0, 0, 0};
    #pragma unroll
    for (int j = 0; j < 4; j += STEP) {
        const int h = top + (k + j) / (KW * C), w = left + (k + j) / C % KW;
        if (BIAS && k + j == K) v[j] = 1;
        if (k + j >= K || h < 0 || h >= H || w < 0 || w >= W) continue;
        const float* from = x + ((t * H + h) * W + w) * C + (k + j) % C;
        if (STEP == 4) { cols[i] = *(const float4*)from; return; }
        v[j] = *from;
    }
    cols[i] = float4{v[0], v[1], v[2], v[3]};
}
"""


def im2col(x, kernel, stride, pad, out_sizes, bias=False):
    """conv.im2col with longer rows: x (N, H, W, C) -> (N * OH * OW, ROW)

    With bias a 1 follows in every row; zeros fill it up to a multiple of four numbers.
    """
    (N, H, W, C), (KH, KW), (OH, OW) = x.shape, kernel, out_sizes
    K, x = KH * KW * C, as_read(x)
    cols = empty(x, N * OH * OW, _row(K + bias))
    return launch(IM2COL, cols, x, threads=cols.size // 4, H=H, W=W, C=C, KW=KW, OH=OH, OW=OW,
                  STRIDE=stride, PAD=pad[0], K=K, ROW=_row(K + bias), BIAS=int(bias),
                  STEP=1 if C % 4 or x.data.ptr % 16 else 4)       # four begin at 16 bytes


def _row(K):
    return -(-K // 4) * 4


COL2IM = r"""
extern "C" __global__ void col2im(const float* __restrict__ cols, float* __restrict__ dx, uint n) {
    NUMBER(i, n);                                   // a pixel's channel, and all patches with it
    const uint c = i % C;
    uint t = i / C;
    const int w = t % W + PAD;    t /= W;
    const int h = t % H + PAD;    t /= H;           // of picture t
    float sum = 0;
    for (int kh = 0; kh < KH; kh++)
        for (int kw = 0; kw < KW; kw++) {
            const int oh = (h - kh) / STRIDE, ow = (w - kw) / STRIDE;
            if (h < kh || w < kw || (h - kh) % STRIDE || (w - kw) % STRIDE || oh >= OH || ow >= OW)
                continue;
            sum += cols[((t * OH + oh) * OW + ow) * ROW + (kh * KW + kw) * C + c];
        }
    dx[i] = sum;
}
"""


def col2im(cols, dx, kernel, stride, pad, out_sizes):
    """conv.col2im of rows of any length, of which the first KH * KW * C numbers count, into dx
    (N, H, W, C)."""
    (_, H, W, C), (KH, KW), (OH, OW) = dx.shape, kernel, out_sizes
    return launch(COL2IM, dx, cols, H=H, W=W, C=C, KH=KH, KW=KW, OH=OH, OW=OW,
                  STRIDE=stride, PAD=pad[0], ROW=cols.shape[1])


TO_ROWS = r"""
extern "C" __global__ void rows(const float* __restrict__ W, const float* __restrict__ b,
                                float* __restrict__ rows, uint n) {
    NUMBER(i, n);
    const uint k = i / O;
    rows[i] = k < K ? W[i] : BIAS && k == K ? b[i % O] : 0;
}
"""


def convolution(x, W, b, stride, pad):
    """conv.as_columns with these kernels: y, dx, dW, db.

    A bias is the weight of an input that is always 1. Appended to the columns, this input gives
    b and its gradient by the products that are made anyway. b may be None.

    Where one slice holds the whole batch, its columns are kept for dW: making them anew would
    take as long as the product.
    """
    xp, bias = get_array_module(x), b is not None
    KH, KW, C, O = W.shape
    kernel, shape, K = (KH, KW), x.shape, KH * KW * C
    sizes = tuple((side + sum(pad) - size) // stride + 1
                  for side, size in zip(shape[1:3], kernel, strict=True))
    where = kernel, stride, pad, sizes
    weights = launch(TO_ROWS, empty(W, _row(K + bias), O), W, b if bias else W, K=K, O=O,
                     BIAS=int(bias))
    scratch = sizes[0] * sizes[1] * len(weights) * x.itemsize
    kept = []

    def forward(x, y):
        cols = im2col(x, *where, bias)
        product(cols, weights, out=y.reshape(-1, O))
        if len(x) == shape[0]:
            kept.append(cols)

    def dx(dy):
        mirrored_pad = KH - 1 - pad[0], KH - 1 - pad[1]
        if stride == 1 and KH == KW and O <= C and min(mirrored_pad) >= 0:
            # The mirrored kernels, slid over dy, give the same sums from smaller columns.
            mirrored = xp.ascontiguousarray(W[::-1, ::-1].swapaxes(2, 3))
            return convolution(dy, mirrored, None, 1, mirrored_pad)[0]

        def backward(dy, dx):
            col2im(product(dy.reshape(-1, O), W.reshape(K, O).T), dx, *where)
        return over_batch(backward, dy, out=empty(dy, *shape), scratch=scratch)

    @for_two
    def dW_and_db(dy):
        def backward(x, dy):
            cols = kept[0] if kept else im2col(x, *where, bias)
            return product(cols.T, dy.reshape(-1, O))
        return sum_over_batch(backward, x, dy, scratch=scratch)

    def dW(dy): return dW_and_db(dy)[:K].reshape(W.shape)
    def db(dy): return dW_and_db(dy)[K]
    y = over_batch(forward, x, out=empty(x, len(x), *sizes, O), scratch=scratch)
    return y, dx, dW, db
