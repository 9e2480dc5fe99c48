"""More pictures out of one."""
import numpy as np

from exercise import Exercise
from tinynet.training.evaluation import mean_over_views


def view(picture, mean, top, left, side, mirrored):
    crop = (picture - mean)[top:top + side, left:left + side]
    return crop[:, ::-1] if mirrored else crop


def view_wrongly(picture, mean, top, left, side, mirrored, mirror=lambda crop: crop[:, ::-1],
                 mean_at=None, mirror_mean=True, mirror_first=False):
    """view, but: how a crop is mirrored; where the mean is cropped; whether it is mirrored;
    whether the whole picture is mirrored before it is cropped."""
    if mirror_first and mirrored:
        return (mirror(picture) - mirror(mean))[top:top + side, left:left + side]
    middle = (len(picture) - side) // 2
    y, x = {None: (top, left), "centre": (middle, middle), "corner": (0, 0)}[mean_at]
    crop = picture[top:top + side, left:left + side]
    of_mean = mean[y:y + side, x:x + side]
    if not mirrored:
        return crop - of_mean
    return mirror(crop) - (mirror(of_mean) if mirror_mean else of_mean)


def a_picture(draw, side):
    return draw.integers(0, 256, (side, side, 3)).astype(float)


def places():
    draw = np.random.default_rng(14)
    small = np.arange(16.0).reshape(4, 4, 1) * np.array([1, 10])
    return [(small, np.full((4, 4, 2), 5.0) + np.arange(4)[:, None], 1, 0, 2, True),
            (a_picture(draw, 8), a_picture(draw, 8), 1, 3, 4, True),
            (a_picture(draw, 9), a_picture(draw, 9), 3, 0, 5, False)]


VIEW = Exercise(
    "14.1", "view",
    "The crop of side x side pixels whose first row and column are `top` and `left`, less the "
    "mean image (as large as the picture, cropped at the same place), and mirrored left to right "
    "if `mirrored`.",
    view, places(),
    {"it is mirrored top to bottom": lambda *a: view_wrongly(*a, mirror=lambda crop: crop[::-1]),
     "its channels are mirrored: red and blue change places":
     lambda *a: view_wrongly(*a, mirror=lambda crop: crop[..., ::-1]),
     "it is turned over: rows and columns change places":
     lambda *a: view_wrongly(*a, mirror=lambda crop: crop.transpose(1, 0, 2)),
     "it is turned by 180 degrees":
     lambda *a: view_wrongly(*a, mirror=lambda crop: crop[::-1, ::-1]),
     "the picture is mirrored and then cropped. That is the mirror image of another place":
     lambda *a: view_wrongly(*a, mirror_first=True),
     "the mean is not mirrored with the crop": lambda *a: view_wrongly(*a, mirror_mean=False),
     "the mean is always its centre and mirrored": lambda *a: view_wrongly(*a, mean_at="centre"),
     "the mean is always its centre, never mirrored. So it was in the authors' program, but here "
     "it belongs to the same place": lambda *a: view_wrongly(*a, mean_at="centre",
                                                             mirror_mean=False),
     "the mean is always its upper left corner": lambda *a: view_wrongly(*a, mean_at="corner"),
     "it is never mirrored": lambda *a: view_wrongly(*a, mirror=lambda crop: crop),
     "the mean is not subtracted": lambda picture, mean, *a: view(picture, 0 * mean, *a),
     "top and left have changed places":
     lambda picture, mean, top, left, *a: view(picture, mean, left, top, *a)},
    hint="crop[:, ::-1] reads the columns from right to left.")


def colour_noise(picture, seed, variances, V):
    a = np.random.default_rng(seed).standard_normal(3)
    return picture + V @ (0.1 * a * np.sqrt(variances))


def colours():
    draw, cases = np.random.default_rng(15), []
    for seed, (H, W) in enumerate([(2, 2), (4, 3)]):
        pixels = draw.standard_normal((50, 3)) @ draw.standard_normal((3, 3)) * 40
        variances, V = np.linalg.eigh(np.cov(pixels.T))
        cases.append((np.round(draw.uniform(0, 255, (H, W, 3))), seed, variances, V))
    return cases


def three(seed, *shape):
    return np.random.default_rng(seed).standard_normal((*shape, 3))


COLOUR = Exercise(
    "14.2", "colour_noise",
    "A picture (H, W, 3) under the authors' colour noise of size 0.1, by standard deviations. "
    "variances: (3,), the eigenvalues; V: (3, 3), a column an eigenvector. Draw with "
    "np.random.default_rng(seed).standard_normal(3). Do not clip, do not divide by 1.1.",
    colour_noise, colours(),
    {"variances instead of standard deviations: the paper's letter, but then the scale of the "
     "pixels decides how strong it is":
     lambda x, seed, s, V: x + V @ (0.1 * three(seed) * s),
     "variances of pixels of 0 to 1 here, on a picture of 0 to 255. Deviations were asked for":
     lambda x, seed, s, V: x + V @ (0.1 * three(seed) * s / 255),
     "rows of V for columns: the noise goes along other colours":
     lambda x, seed, s, V: x + V.T @ (0.1 * three(seed) * np.sqrt(s)),
     "each pixel has noise of its own: that is grain. A change of light is the same everywhere":
     lambda x, seed, s, V: x + (0.1 * three(seed, *x.shape[:2]) * np.sqrt(s)) @ V.T,
     "each row of pixels has noise of its own":
     lambda x, seed, s, V: x + ((0.1 * three(seed, len(x)) * np.sqrt(s)) @ V.T)[:, None],
     "the 0.1 is missing: ten times too strong":
     lambda x, seed, s, V: x + V @ (three(seed) * np.sqrt(s)),
     "the 0.1 is under the root": lambda x, seed, s, V: x + V @ (three(seed) * np.sqrt(0.1 * s)),
     "V is missing: red, green and blue vary each by itself":
     lambda x, seed, s, V: x + 0.1 * three(seed) * np.sqrt(s),
     "a single number is drawn for all three components":
     lambda x, seed, s, V: x + V @ (0.1 * three(seed)[0] * np.sqrt(s)),
     "nothing is drawn: the noise is the same for every picture":
     lambda x, seed, s, V: x + V @ (0.1 * np.sqrt(s)),
     "the deviations are missing: only the directions count":
     lambda x, seed, s, V: x + V @ (0.1 * three(seed)),
     "it is divided by 1.1 as in the program. Here that was left out":
     lambda *a: colour_noise(*a) / 1.1,
     "the shift alone comes back, not the picture":
     lambda x, seed, s, V: colour_noise(0 * x, seed, s, V),
     "it is subtracted. That is as good as adding, but not what was asked for":
     lambda x, seed, s, V: 2 * x - colour_noise(x, seed, s, V)},
    hint="Three numbers for the whole picture: along each column of V, how far. NumPy adds an "
         "array (3,) to every pixel of (H, W, 3).")


def softmax(logits, axis=-1):
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def say(logits):
    N, views, classes = logits.shape
    return np.exp(mean_over_views(logits.reshape(N * views, classes), views))


def geometric(logits):
    return np.exp(np.log(softmax(logits)).mean(axis=1))


def voted(logits):
    return np.eye(logits.shape[-1])[logits.argmax(axis=-1)].mean(axis=1)


def answers():
    draw = np.random.default_rng(16)
    return [(np.array([[[9.0, 0, 0], [0, 2, 0], [0, 2, 0]]]),),
            (3 * draw.standard_normal((2, 10, 4)),), (draw.standard_normal((3, 5, 6)),)]


VIEWS = Exercise(
    "14.3", "say_together",
    "What a net says of pictures that it saw in several views: logits (N, views, classes) -> "
    "probabilities (N, classes), as in the paper.",
    say, answers(),
    {"the mean is of logits. A very sure view then outvotes the others; the paper takes the mean "
     "of probabilities": lambda x: softmax(x.mean(axis=1)),
     "that is the geometric mean of the probabilities: its sum is less than 1": geometric,
     "each view votes for one class. The paper's views say probabilities":
     voted,
     "only one view counts: the largest probability of each class":
     lambda x: softmax(x).max(axis=1),
     "the probabilities are summed, not averaged": lambda x: softmax(x).sum(axis=1),
     "softmax runs over the views. A view's probabilities of all classes make 1":
     lambda x: softmax(x, axis=1).mean(axis=1),
     "softmax is over all views and classes at once": lambda x: softmax(
         x.reshape(len(x), -1)).reshape(x.shape).mean(axis=1),
     "softmax is applied a second time, to the mean": lambda x: softmax(softmax(x).mean(axis=1)),
     "only the first view was asked": lambda x: softmax(x)[:, 0],
     "those are logits. Probabilities were asked for": lambda x: x.mean(axis=1),
     "those are logarithms of the probabilities": lambda x: np.log(say(x))},
    hint="First what each view says, then the mean over the views.")

EXERCISES = [VIEW, COLOUR, VIEWS]
