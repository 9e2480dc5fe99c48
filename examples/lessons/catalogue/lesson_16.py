"""What did it learn to see?"""
import numpy as np

from exercise import Exercise, Question
from tinynet.training import figures


def codes():
    draw = np.random.default_rng(16)
    twins = np.array([1.0, 2, 4, 4, 11, 11, 14, 15.5])             # two pairs of equal codes
    return [(np.array([[0.0, 1], [3, 4], [0, 3], [1, 1], [9, 9]]), 2),
            (draw.standard_normal((7, 3)) + 1, 3),
            (np.stack([twins, 30 - 2 * twins], axis=1), 1)]


def squares(codes):
    return ((codes[:, None] - codes) ** 2).sum(axis=2)


def ordered(far, k, itself=np.inf):
    far = far.copy()
    np.fill_diagonal(far, itself)
    return far.argsort(axis=1)[:, :k]


def cosine(codes):
    length = np.sqrt((codes ** 2).sum(axis=1, keepdims=True))
    return -(codes / length) @ (codes / length).T


NEAREST = Exercise(
    "16.1", "nearest",
    "For each code, a row of `codes` (N, n), the numbers of the k other codes that are nearest to "
    "it by the sum of squared differences, the nearest first: (N, k).",
    lambda codes, k: ordered(squares(codes), k),
    codes(),
    {"it finds itself: each code is at distance 0 from itself, so the first neighbour is no news":
     lambda codes, k: ordered(squares(codes), k, 0.0),
     "the first of each row is dropped, as if it were always the code itself. Where another code "
     "is equal, that one may come first: it is lost, and the code finds itself":
     lambda codes, k: squares(codes).argsort(axis=1)[:, 1:k + 1],
     "whatever is at distance 0 is left out, and so are other codes that are equal to this one. "
     "Only the code itself should be": lambda codes, k:
     np.where(squares(codes) > 0, squares(codes), np.inf).argsort(axis=1)[:, :k],
     "these are the farthest: the order is turned round": lambda codes, k:
     ordered(-squares(codes), k),
     "nearest by angle (cosine). It is a fair measure, and often used today, but it takes no "
     "notice of how long a code is; the paper has Euclid's distance":
     lambda codes, k: ordered(cosine(codes), k),
     "the largest product of two codes. A long code is then near to all":
     lambda codes, k: ordered(-codes @ codes.T, k),
     "absolute differences are added up, not their squares": lambda codes, k:
     ordered(np.abs(codes[:, None] - codes).sum(axis=2), k),
     "the differences are added up without a square, and those up and down cancel":
     lambda codes, k: ordered(np.abs((codes[:, None] - codes).sum(axis=2)), k),
     "the neighbours of a code are in a column: k and N are exchanged":
     lambda codes, k: ordered(squares(codes), k).T,
     "k + 1 neighbours. Perhaps one was for the code itself, which is already left out":
     lambda codes, k: ordered(squares(codes), k + 1)})

MOVED = Question(
    "16.2",
    "A picture of stripes, sin(u) along a row of pixels; the same stripes moved by half their "
    "period; and plain grey, 0 everywhere. How many times as far from the first is the second as "
    "the third, by the sum of squared differences?",
    4,
    {"this is the ratio of the distances. The squares were asked for": 2,
     "they are not as far: where the one has 1 the other has -1, which makes a difference of 2":
     1,
     "the second is the same pattern, but no pixel knows that: moved by half a period, sin(u) "
     "becomes -sin(u)": 0,
     "the mean square of a sine is 1/2 in both distances, and cancels in their ratio": 8},
    tolerance=0.01,
    hint="What is sin(u) moved by half a period? Take the difference at the place where sin(u) = "
         "1.")


def kernels():
    draw = np.random.default_rng(61)
    return [(np.array([-40, -10, 0, 10, 20, 5, 60, 30, -20, 15, -5, 25]).reshape(2, 2, 3) / 100,),
            (draw.normal(0.1, 0.3, (5, 4, 3)),)]


def sheet(kernel):
    picture = figures.kernel_sheet(kernel[..., None], zoom=1)
    return np.asarray(picture)[4:-4, 4:-4]


def in_grey(kernel, low, high):
    return np.uint8(np.round(255 * np.clip((kernel - low) / (high - low), 0, 1)))


class Picture(Exercise):
    """An exercise whose result is a picture: its dtype counts."""

    def remark(self, answers):
        dtypes = {str(np.asarray(answer).dtype) for answer in answers} - {"uint8"}
        if not dtypes:
            return None
        return f"the numbers are right, but their dtype is {dtypes.pop()}; a picture is uint8"


GREY = Picture(
    "16.3", "drawn",
    "A kernel (KH, KW, 3) as a picture, uint8: its smallest weight becomes 0, its largest 255, "
    "and what is between is rounded.",
    sheet,
    kernels(),
    {"each colour is stretched by itself, to its own 0 and 255. That invents colours: a kernel "
     "that is nearly grey becomes a colourful one":
     lambda kernel: in_grey(kernel, kernel.min(axis=(0, 1)), kernel.max(axis=(0, 1))),
     "negative weights are cut off at 0. Half of the kernel is black":
     lambda kernel: in_grey(kernel, 0, kernel.max()),
     "absolute values: a dark edge looks like a bright one":
     lambda kernel: in_grey(np.abs(kernel), 0, np.abs(kernel).max()),
     "0 becomes the middle grey. It keeps the sign in sight, and is a good way to draw, but then "
     "one of the ends is not used":
     lambda kernel: in_grey(kernel, -np.abs(kernel).max(), np.abs(kernel).max()),
     "it is cut to whole numbers, not rounded: half a grey level too dark":
     lambda kernel: np.uint8(255 * (kernel - kernel.min()) / np.ptp(kernel)),
     "the numbers are not rounded. The levels of a picture are whole":
     lambda kernel: 255 * (kernel - kernel.min()) / np.ptp(kernel),
     "it ends at 1: the numbers have not been multiplied by 255 before they became uint8":
     lambda kernel: np.uint8((kernel - kernel.min()) / np.ptp(kernel)),
     "bright and dark are exchanged": lambda kernel: 255 - sheet(kernel)})

EXERCISES = [NEAREST, MOVED, GREY]
