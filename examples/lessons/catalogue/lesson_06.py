"""The gradients of a convolution."""
import numpy as np

from exercise import Exercise, Question
from tinynet import conv


def shares():
    """Rows to be added back, and the x that they were taken from: sizes, strides, padding."""
    draw = np.random.default_rng(6)
    return [(np.arange(1.0, 25).reshape(6, 4), (1, 3, 4, 1), 2, 2, 1, 0),
            (draw.standard_normal((2 * 3 * 5, 4 * 2 * 3)), (2, 7, 9, 3), 4, 2, 2, 1)]


def added_back(cols, shape, KH, KW, stride, pad, order=(0, 1, 2, 3, 4, 5), step=None, keep=1.0,
               cut=None):
    """col2im whose rows have their axes in another `order`, whose windows are `step` apart, which
    keeps `keep` of what was there, and cuts `cut` pixels from the top and the left."""
    N, H, W, C = shape
    OH, OW = (H + 2 * pad - KH) // stride + 1, (W + 2 * pad - KW) // stride + 1
    sizes = np.array([N, OH, OW, KH, KW, C])
    patches = cols.reshape(sizes[list(order)]).transpose(np.argsort(order))
    x = np.zeros((N, H + 2 * pad, W + 2 * pad, C))
    for i, j in np.ndindex(OH, OW):
        top, left = i * (step or stride), j * (step or stride)
        window = x[:, top:top + KH, left:left + KW]
        window[...] = keep * window + patches[:, i, j]
    cut = pad if cut is None else cut
    return x[:, cut:cut + H, cut:cut + W]


def mean_of_shares(cols, shape, KH, KW, stride, pad):
    counts = added_back(np.ones_like(cols), shape, KH, KW, stride, pad)
    return added_back(cols, shape, KH, KW, stride, pad) / np.maximum(counts, 1)


def with_border(cols, shape, KH, KW, stride, pad):
    N, H, W, C = shape
    return added_back(cols, (N, H + 2 * pad, W + 2 * pad, C), KH, KW, stride, 0)


COL2IM = Exercise(
    "6.1", "col2im",
    "The mirror of im2col, with padding: add every row of cols, (N * OH * OW, KH * KW * C), back "
    "to the patch of x that it was taken from, and return the sums in the shape of x, "
    "(N, H, W, C). The windows lay on x with `pad` rows and columns of zeros on every side, "
    "and moved by `stride` pixels.",
    lambda cols, shape, KH, KW, stride, pad: conv.col2im(cols, shape, (KH, KW), stride,
                                                         (pad, pad)),
    shares(),
    {"the last window wins: where windows overlap, `=` forgets what the others had brought. "
     "Such a function undoes im2col, and its gradient is wrong":
     lambda *a: added_back(*a, keep=0.0),
     "the shares are averaged. Each window is a way for the pixel to change the loss, and ways "
     "add up": mean_of_shares,
     "the border is still on: zeros that were put round x have no place in its gradient":
     with_border,
     "the border is cut off on one side only: rows and columns of padding are left above and on "
     "the left": lambda *a: added_back(*a, cut=0),
     "the border is cut off twice above and on the left, and not on the other side":
     lambda *a: added_back(*a, cut=2 * a[-1]),
     "the windows are one pixel apart: the stride is not in their places":
     lambda *a: added_back(*a, step=1),
     "within a row, columns of pixels are taken for rows: im2col writes KH before KW":
     lambda *a: added_back(*a, order=(0, 1, 2, 4, 3, 5)),
     "within a row, all pixels of a channel are taken together. im2col writes of every pixel all "
     "channels": lambda *a: added_back(*a, order=(0, 1, 2, 5, 3, 4)),
     "the rows are taken column of places by column: im2col goes along OW first, then down OH":
     lambda *a: added_back(*a, order=(0, 2, 1, 3, 4, 5))},
    hint="Start with zeros for the padded picture. Loop over the places as im2col did, add, and "
         "cut the border off at the end.")


def slopes():
    draw = np.random.default_rng(66)
    return [(10 ** np.arange(6).reshape(1, 2, 3, 1),
             np.arange(1, 7).reshape(2, 3, 1, 1), 0),
            (draw.standard_normal((2, 6, 7, 5)), draw.standard_normal((4, 3, 2, 5)), 1)]


def reference_dx(dy, W, pad):
    KH, KW, C, O = W.shape
    N, OH, OW, _ = dy.shape
    x = np.zeros((N, OH + KH - 1 - 2 * pad, OW + KW - 1 - 2 * pad, C))
    _, dx, *_ = conv.plain(x, W, np.zeros(O), 1, (pad, pad))
    return dx(dy)


def slid(dy, W, pads):
    """The kernels W (KH, KW, O, C), as they are, over dy with zeros around it."""
    KH, KW, O, C = W.shape
    (down, across), N = pads, len(dy)
    wide = np.pad(dy, ((0, 0), (down, down), (across, across), (0, 0)))
    H, width = wide.shape[1] - KH + 1, wide.shape[2] - KW + 1
    return (conv.im2col(wide, (KH, KW)) @ W.reshape(-1, C)).reshape(N, H, width, C)


def mirrored_dx(dy, W, pad, mirror=(0, 1), change=None, pads=None):
    """dx by kernels that are mirrored along the axes `mirror`, and then changed otherwise."""
    KH, KW, *_ = W.shape
    pads = pads or (KH - 1 - pad, KW - 1 - pad)
    return slid(dy, (change or exchanged)(np.flip(W, mirror)), pads)


def exchanged(W):
    return W.transpose(0, 1, 3, 2)


CONV_DX = Exercise(
    "6.2", "conv_dx",
    "The gradient of x, by kernels that slide over dy. dy is (N, OH, OW, O), W is (KH, KW, C, O), "
    "the stride was 1 and x had `pad` zeros on every side. Return dx, (N, H, W, C), where "
    "H = OH + KH - 1 - 2 * pad.",
    reference_dx, slopes(),
    {"the kernels are not mirrored. The sum of dx is right all the same, so a test of its mean "
     "would pass": lambda *a: mirrored_dx(*a, mirror=()),
     "only the rows of the kernels are mirrored, not the columns":
     lambda *a: mirrored_dx(*a, mirror=0),
     "only the columns of the kernels are mirrored, not the rows":
     lambda *a: mirrored_dx(*a, mirror=1),
     "the channels are mirrored as well. Only places have a direction: a channel stays the same":
     lambda *a: mirrored_dx(*a, mirror=(0, 1, 2)),
     "the kernels are transposed, rows for columns. Half a turn is another thing: both axes are "
     "read backwards, and stay where they are":
     lambda *a: mirrored_dx(*a, mirror=(), change=lambda W: W.transpose(1, 0, 3, 2)),
     "C and O are exchanged by a reshape. The shape fits then, and the weights are mixed up":
     lambda *a: mirrored_dx(*a, change=lambda W: W.reshape(*W.shape[:2], *W.shape[:1:-1])),
     "dy got the forward pass's padding, so dx has the wrong size. A kernel hangs over by K - 1 "
     "pixels, less what x had been padded by":
     lambda dy, W, pad: mirrored_dx(dy, W, pad, pads=(pad, pad)),
     "dy is padded by K - 1 whatever the padding of x was: its border is still on":
     lambda dy, W, pad: mirrored_dx(dy, W, 0),
     "the padding of dy has the same size on both axes, but the kernels are not square":
     lambda dy, W, pad: mirrored_dx(dy, W, pad, pads=2 * (len(W) - 1 - pad,)),
     "dy is mirrored instead of the kernels: so dx comes out upside down and reversed":
     lambda dy, W, pad: mirrored_dx(dy[:, ::-1, ::-1], W, pad, mirror=())},
    hint="np.pad makes the zeros around dy, conv.im2col its rows. What has to stand in the rows "
         "of W's matrix, and what in its columns, if dy has O channels and dx has C?")


ADJOINT = Question(
    "6.3",
    "x holds the pixels 1 to 16 as 4 x 4, and c = np.ones((4, 9)) has the shape of "
    "im2col(x, 3, 3). Predict (im2col(x, 3, 3) * c).sum(), and then (x * col2im(c)).sum(): are "
    "they one number or two? Answer with the first alone.",
    306,
    {"that is the sum of the pixels, each counted once. im2col copies a pixel into every window "
     "that holds it": 136,
     "each pixel is counted nine times. Only a pixel that every place of the kernel meets would "
     "be; here none is": 1224,
     "each pixel is counted four times, once a window. Only the middle four lie in all windows":
     544,
     "that is how many numbers the rows have: the sum of c": 36,
     "that is the sum of the counts times the sum of the pixels. The sum of products is another "
     "number": 36 * 136},
    hint="The lesson has drawn how many windows hold each pixel.")

EXERCISES = [COL2IM, CONV_DX, ADJOINT]
