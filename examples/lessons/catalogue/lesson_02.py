"""A program that differentiates itself."""
import numpy as np

from exercise import Exercise, Question
from tinynet import engine


def exp(x, dy):
    y = np.exp(x)
    return y, dy * y


EXP = Exercise(
    "2.1", "exp",
    "The op e to the power of x, forward and backward at once: return the value y, and dx, the "
    "slopes of the loss along x. dy are its slopes along y.",
    exp,
    [(np.array([0.0, 0.5, -1.0]), np.array([3.0, -2.0, 0.25])),
     (np.array([[0.3, -0.8], [1.2, 0.1], [2.0, -1.5]]),
      np.array([[0.7, 1.1], [-0.4, 2.3], [0.9, -1.6]]))],
    {"dx is x times dy. x is the place, and the slope of exp there is its value":
     lambda x, dy: (np.exp(x), x * dy),
     "dy is not in dx. It is the slope of exp alone, and would be right if the loss were the sum "
     "of y": lambda x, dy: (np.exp(x), np.exp(x)),
     "dx is dy alone, as if y grew by as much as x. That is the gradient of x + 1":
     lambda x, dy: (np.exp(x), dy.copy()),
     "dx is exp of dy. What arrives is to be multiplied by a slope; the function itself belongs "
     "to the way forward": lambda x, dy: (np.exp(x), np.exp(dy)),
     "that is the rule of powers, for x to the n, where x is below. Here it is the exponent":
     lambda x, dy: (np.exp(x), dy * x * np.exp(x - 1)),
     "the slope and dy are added. Along a path slopes are multiplied":
     lambda x, dy: (np.exp(x), dy + np.exp(x)),
     "dx is divided by y: that is the way from y to x, the gradient of the logarithm":
     lambda x, dy: (np.exp(x), dy / np.exp(x)),
     "both are right, but in the other order: y comes first, then dx":
     lambda x, dy: exp(x, dy)[::-1]},
    hint="Two lines. The lesson measured the slope of exp at 0.5. Compare `multiply`: dy times a "
         "slope.")


def axes(dy, shape):
    """The axes of dy along which an array of this shape was repeated: (new ones, those of 1)."""
    new = dy.ndim - len(shape)
    return tuple(range(new)), tuple(
        i for i in range(new, dy.ndim) if shape[i - new] == 1 and dy.shape[i] != 1)


def over_all(reduce):
    """A wrong unbroadcast: `reduce` along the right axes, instead of the sum."""
    def wrong(dy, shape):
        new, ones = axes(dy, shape)
        return reduce(dy, axis=new + ones).reshape(shape)
    return wrong


def first_of(dy, axis):
    return dy[tuple(0 if i in axis else slice(None) for i in range(dy.ndim))]


def only_new(dy, shape):
    return dy.sum(axis=axes(dy, shape)[0])


def only_ones(dy, shape):
    return dy.sum(axis=axes(dy, shape)[1], keepdims=True)


def with_dimensions(dy, shape):
    new, ones = axes(dy, shape)
    return dy.sum(axis=new + ones, keepdims=True)


def numbers(*shape):
    return np.random.default_rng(len(shape)).integers(-9, 10, shape).astype(float)


UNBROADCAST = Exercise(
    "2.2", "unbroadcast",
    "An op has broadcast an array of the given shape to the shape of dy: it repeated a bias (3,) "
    "for each of four rows, or a column (2, 1) for each of five columns. Return the gradient "
    "along the array before that, in its shape. In the lesson's `add` this was a sum over rows.",
    lambda dy, shape: engine._unbroadcast(dy, shape),
    [(numbers(4, 3), (3,)), (numbers(2, 5), (2, 1)), (numbers(2, 4, 3), (4, 1)),
     (numbers(4, 3), (4, 3)), (numbers(3, 2), ())],
    {"nothing is summed: each repetition is a path of its own, and paths are added":
     lambda dy, shape: dy.copy(),
     "it takes the mean. Each repetition adds its full share to the loss, so it is the sum":
     over_all(np.mean),
     "it takes the share of one repetition. The others lead to the loss as well":
     over_all(first_of),
     "it takes the largest share": over_all(np.max),
     "it always sums along the first axis. That is right for a bias, but a column (2, 1) was "
     "repeated along the last one": lambda dy, shape: dy.sum(axis=0),
     "it always sums along the last axis. But a bias was repeated along the first, and has a "
     "number for each place of the last": lambda dy, shape: dy.sum(axis=-1),
     "it adds up everything, and gives each number the total": lambda dy, shape: np.full(
         shape, dy.sum()),
     "it sums along axes that the array did not have, but not along those where it had length 1":
     only_new,
     "it sums along axes of length 1, but not along those that the array did not have at all":
     only_ones,
     "the sums are right, but not the shape: the axes that NumPy put in front are still there":
     with_dimensions},
    hint="NumPy aligns shapes at their ends. An axis of dy was repeated if the array did not have "
         "it, or had length 1 there. dy.sum(axis=(0, 2)) sums along two axes at once.")

PATHS = Question(
    "2.3",
    "Take b = a * a and y = b * b + b, at a = 3. Draw the graph and add up the paths: what is the "
    "slope of y along a?",
    114,
    {"that is the slope of y along b. It goes on from b to a": 19,
     "that is the slope of b along a, only the first step": 6,
     "b is used three times: twice in b * b, once in the sum. One factor of b * b is missing": 60,
     "the straight path is missing, on which b goes into the sum": 108,
     "a is both factors of b = a * a. Each of the two is a path": 57,
     "the two steps are multiplied, not added": 25,
     "that is the value of y": 90,
     "only the last path counts: that is what = gives instead of +=, if the sum comes last": 3},
    hint="First the slope of y along b, from three paths; then the slope of b along a, from two.")

EXERCISES = [EXP, UNBROADCAST, PATHS]
