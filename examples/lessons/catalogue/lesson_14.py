"""More pictures out of one."""
import numpy as np

from exercise import Exercise, Question
from tinynet.training.evaluation import mean_over_views


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
    "14.1", "colour_noise",
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
    "14.2", "say_together",
    "What a net says of pictures that it saw in several views: logits (N, views, classes) -> "
    "probabilities (N, classes), as in the paper.",
    say, answers(),
    {"the mean is of logits. (The geometric mean of the probabilities, made to sum to 1, is the "
     "same.) A very sure view then outvotes the others; the paper takes the mean of "
     "probabilities": lambda x: softmax(x.mean(axis=1)),
     "that is the geometric mean of the probabilities: its sum is less than 1, and a view that is "
     "sure against a class has a veto. The paper's is the plain mean": geometric,
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

LETTER = Question(
    "14.3",
    "Pixels of 0 to 1, and the formula as the paper has it: 0.1 times a Gaussian number times the "
    "eigenvalue. Along the first component the pixels of ImageNet have a standard deviation of "
    "121.78 grey levels (of 255). How many grey levels is the standard deviation of the shift "
    "along it? Two digits will do.",
    0.1 * 121.78 ** 2 / 255,
    {"that takes the standard deviation, as the authors' program did. The paper's letter has its "
     "square, the variance": 12.178,
     "that takes the standard deviation, and divides by 1.1: so it was in the program, but not in "
     "the paper": 12.178 / 1.1,
     "that is the variance of pixels of 0 to 255. Here they are scaled before it is taken": 1483,
     "that is right in units of 0 to 1. Grey levels are asked for": 0.1 * (121.78 / 255) ** 2,
     "the 0.1 is missing": 121.78 ** 2 / 255,
     "that is the deviation in units of 0 to 1: square it, and go back to grey levels":
     0.1 * 121.78 / 255,
     "nearly all of that is lost: it was divided by 255 squared and by 255 again":
     0.1 * 121.78 ** 2 / 255 ** 3},
    tolerance=0.015,                                    # 12 is 12.178 to two digits
    hint="First the deviation in units of 0 to 1. Its square is the eigenvalue there.")

EXERCISES = [COLOUR, VIEWS, LETTER]
