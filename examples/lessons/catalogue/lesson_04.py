"""What must backward remember?"""
from dataclasses import dataclass

import numpy as np

from exercise import Exercise, Question, counted, where


@dataclass(frozen=True)
class Op(Exercise):
    """An exercise whose function returns what an op does: its value and a gradient function. A
    case holds dy as well; what is compared is the value, dx, and the bytes that are kept."""

    def verdict(self, mine):
        for x, dy in self.cases:
            try:
                result = mine(x.copy())
                if not isinstance(result, (tuple, list)) or len(result) != 2:
                    return (f"two values are wanted, y and the function dx: {self.name} returns "
                            f"{'None' if result is None else counted(result)}")
                if not callable(result[1]):
                    return ("the second of the two values is to be the function dx, and not what "
                            "it gives")
                if result[1](dy.copy()) is None:
                    return "dx returns None: is there a return?"
            except Exception as error:
                return where(error, mine)
        return super().verdict(used(mine))

    def remark(self, answers):
        for name, *results in zip(("y", "dx(dy)"), *answers, strict=False):
            for result in results:
                if np.asarray(result).dtype != np.float32:
                    return (f"the numbers are right, but {name} is {result.dtype}, where x and dy "
                            "are float32. What comes after computes with it, and takes that "
                            "dtype as well")
        return None

    def results(self, function):
        return super().results(used(function))

    def difference(self, answers, wanted):
        for (*values, kept), (*right, least) in zip(answers, wanted, strict=True):
            if self.agree([values], [right]) and kept[0] != least[0]:
                return (f"y and dx are right, but what dx mentions takes {kept[0]} bytes, and "
                        f"{least[0]} would do")
        return super().difference(answers, wanted)

    def show(self):
        x, dy = self.cases[0]
        y, dx = self.reference(x)
        return (f"{self.name}(x) returns y and a function dx(dy)\n{self.ask}\n\nx = {x}\n"
                f"dy = {dy}\ngives y = {y}\n and dx(dy) = {dx(dy)}")


def used(function):
    """The function on x and dy: (y, dx, bytes kept). Of these, the bytes of all arrays that dx
    mentions, of those that are x, and of those that are y."""
    def run(x, dy):
        y, dx = function(x)
        kept = mentioned(dx, {})
        return y, dx(dy), np.array([
            max(sum(map(size, kept.values())), x.nbytes // 4),     # who keeps less is right too
            sum(size(v) for v in kept.values() if np.may_share_memory(v, x)),
            sum(size(v) for v in kept.values() if np.may_share_memory(v, y))])
    return run


def size(array):
    return array.nbytes


def mentioned(value, found):
    """{id: array} behind a function's closure and defaults."""
    if isinstance(value, np.ndarray):
        found[id(value)] = value
    elif isinstance(value, (tuple, list)):
        for part in value:
            mentioned(part, found)
    elif callable(value) and id(value) not in found:
        for cell in getattr(value, "__closure__", None) or ():
            mentioned(cell.cell_contents, found)
        mentioned(getattr(value, "__defaults__", None) or (), found)
    return found


def pixels():
    draw = np.random.default_rng(4)
    return [(np.array([[-2.0, 0, 3], [1.5, -0.5, 4]], np.float32),
             np.array([[10.0, 20, 30], [40, 50, 60]], np.float32)),
            tuple(draw.standard_normal((5, 7, 3)).astype(np.float32) for _ in range(2))]


def with_mask(x):
    positive = x > 0
    def dx(dy): return dy * positive
    return np.maximum(x, 0), dx


def keeping_y(x):
    y = np.maximum(x, 0)
    def dx(dy): return dy * (y > 0)
    return y, dx


def keeping_x(x):
    def dx(dy): return dy * (x > 0)
    return np.maximum(x, 0), dx


def keeping_both(x):
    y = np.maximum(x, 0)
    def dx(dy): return np.where(x > 0, dy, 0 * y)
    return y, dx


def keeping_floats(x):
    positive = (x > 0).astype(x.dtype)
    def dx(dy): return dy * positive
    return x * positive, dx


def keeping_integers(x):
    positive = (x > 0).astype(np.int64)
    def dx(dy): return dy * positive
    return np.maximum(x, 0), dx


def mask_and_x(x):
    positive = x > 0
    def dx(dy): return np.where(positive, dy, 0 * x)
    return np.maximum(x, 0), dx


def passing_zero(x):
    positive = x >= 0
    def dx(dy): return dy * positive
    return np.maximum(x, 0), dx


def slope_only(x):
    positive = x > 0
    def dx(dy): return positive.astype(np.float32)
    return np.maximum(x, 0), dx


RELU = Op(
    "4.1", "relu",
    "A ReLU that keeps as little as it can. x is float32; y is x where x is\n"
    "positive, else 0. dx(dy) is dy where x is positive, else 0. What dx mentions\n"
    "may take a quarter of the bytes of x, and neither x nor y may be among it.",
    with_mask, pixels(),
    {"y is kept: four bytes a number. In a net that costs nothing if the next op keeps it anyway, "
     "so tinynet does so. Here nobody else keeps it": keeping_y,
     "x is kept: four bytes a number, and in a net nobody else keeps it": keeping_x,
     "x and y are kept: eight bytes a number. One bit of each is needed": keeping_both,
     "what is kept is 0 or 1, but each takes four bytes: it has become a float32": keeping_floats,
     "what is kept is 0 or 1, but each takes eight bytes: it has become an int64 or a float64":
     keeping_integers,
     "the small array is there, but dx still mentions x, so x is kept as well": mask_and_x,
     "the gradient passes where x is 0. There y is not positive": passing_zero,
     "dx returns the slope of this op alone. It has to be multiplied by dy": slope_only},
    hint="What does dx have to know of each number, and which dtype of NumPy has room for just "
         "that?")

ROW = 128 * 2048

TANH = Question(
    "4.2",
    "x has 128 rows of 2,048 float32. y = tanh(x), whose gradient function is dy * (1 - y * y). "
    "Then z = y @ W, whose gradient functions are dz @ W.T and y.T @ dz. How many bytes do the "
    "two ops keep for backward, W not counted?",
    4 * ROW,
    {"y is counted twice. Two functions mention it, but it is one array": 8 * ROW,
     "y is counted twice, and x as well. Who mentions x?": 12 * ROW,
     "that is how many numbers are kept. A float32 takes four bytes": ROW,
     "nothing is kept? Then dy * (1 - y * y) could not be computed": 0},
    hint="List the arrays that the three gradient functions mention.")

WEIGHTS, KEPT, PASSING, CARD = 4 * 60_965_224, 6_155_160, 1_161_600, 3_000_000_000


def largest(times=3, weights=WEIGHTS, picture=KEPT + PASSING, card=CARD):
    return (card - times * weights) // picture


BATCH = Question(
    "4.3",
    "A card has 3,000,000,000 bytes. AlexNet has 60,965,224 parameters, float32. Of each it needs "
    "the parameter, its gradient and its velocity. Each picture makes it keep 6,155,160 bytes, "
    "and 1,161,600 more while gradients are on their way. What is the largest batch that fits?",
    largest(),
    {"the velocities are missing: one more number for each parameter": largest(times=2),
     "only the parameters themselves are counted. Gradients and velocities are as many again, "
     "each": largest(times=1),
     "the gradients on their way are missing": largest(picture=KEPT),
     "parameters are numbers, not bytes. Each takes four": largest(weights=WEIGHTS // 4),
     "that much fits without any parameters": largest(times=0),
     "a batch one larger does not fit any more: it has to be rounded down": largest() + 1,
     "a gigabyte is counted as 2 ** 30 bytes. Here the card has 3,000,000,000":
     largest(card=3 * 2 ** 30)},
    hint="First take away what does not depend on the batch.")

EXERCISES = [RELU, TANH, BATCH]
