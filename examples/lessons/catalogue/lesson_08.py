"""Maps that compete."""
import numpy as np

from exercise import Exercise, Question
from tinynet import Tensor, norm


def reference_dx(x, dy, n, k, alpha, beta):
    leaf = Tensor(x, requires_grad=True)
    (norm.lrn(leaf, n=n, k=k, alpha=alpha, beta=beta) * Tensor(dy)).sum().backward()
    return leaf.grad


def numbers():
    """Alpha is large, so that a wrong neighbour shows; no constant is 1 or equals another."""
    draw = np.random.default_rng(8)
    return [(np.array([[1., 2, 4, 0.5, 3, 1]]), 3, 2.0, 0.5, 0.75),
            (draw.standard_normal((4, 9)), 5, 1.5, 0.4, 0.75),
            (draw.standard_normal((2, 8)), 7, 3.0, 0.3, 0.6)]


def with_dy(case):
    x, *constants = case
    dy = np.random.default_rng(9).standard_normal(x.shape)
    return x, dy.round(1) if len(x) == 1 else dy, *constants


def near(x, n):
    """A band matrix: 1 where two of the maps of x are neighbours."""
    maps = np.arange(x.shape[-1])
    return abs(np.subtract.outer(maps, maps)) <= n // 2


def energy(x, n):
    return x ** 2 @ near(x, n)


def wrapped(x, n, k, alpha, beta):
    sums = sum(np.roll(x ** 2, shift, axis=1) for shift in range(-(n // 2), n // 2 + 1))
    return x / (k + alpha * sums) ** beta


def sliced(before, after):
    """lrn whose neighbours of map i are the maps before(i, n) ... after(i, n)."""
    def lrn(x, n, k, alpha, beta):
        sums = [(x[:, before(i, n):after(i, n)] ** 2).sum(axis=1) for i in range(x.shape[1])]
        return x / (k + alpha * np.stack(sums, axis=1)) ** beta
    return lrn


def in_place(x, n, k, alpha, beta):
    y = x.copy()
    for i in range(x.shape[1]):
        near = y[:, max(0, i - n // 2):i + n // 2 + 1]
        y[:, i] = y[:, i] / (k + alpha * (near ** 2).sum(axis=1)) ** beta
    return y


def over_places(axis):
    """The lesson's loop, which is for the maps of one place, on an array (places, C)."""
    def lrn(x, n, k, alpha, beta):
        y = np.empty_like(x)
        for i in range(len(x)):
            near = x[max(0, i - n // 2):i + n // 2 + 1]
            y[i] = x[i] / (k + alpha * (near ** 2).sum(axis)) ** beta
        return y
    return lrn


LRN = Exercise(
    "8.1", "lrn",
    "Local response normalization over the maps of x (places, C), as the paper prints it: each "
    "number is divided by a power, beta, of k + alpha * the sum of the squares of its n "
    "neighbours. n is odd. The number itself counts as a neighbour, and at the ends "
    "there are fewer.",
    lambda x, n, k, alpha, beta: norm.plain_lrn(x, n=n, k=k, alpha=alpha, beta=beta),
    numbers(),
    {"alpha is divided by n. That is the program of 2012, Caffe and PyTorch, not the paper's "
     "formula": lambda x, n, k, alpha, beta: x / (k + alpha / n * energy(x, n)) ** beta,
     "it takes the mean over the neighbours that exist. The paper's formula has a sum":
     lambda x, n, k, alpha, beta: x / (
         k + alpha * energy(x, n) / near(x, n).sum(axis=0)) ** beta,
     "the window reaches to one side only: from each map on to the next ones": 
     sliced(lambda i, n: i, lambda i, n: i + n),
     "the window reaches to one side only: from each map back to those before it":
     sliced(lambda i, n: max(0, i - n + 1), lambda i, n: i + 1),
     "only half of the window is there: the maps before each one are missing":
     sliced(lambda i, n: i, lambda i, n: i + n // 2 + 1),
     "the last neighbour is missing: a slice ends before its second number":
     sliced(lambda i, n: max(0, i - n // 2), lambda i, n: i + n // 2),
     "a slice of the first maps begins at a number below 0, which counts from the end":
     sliced(lambda i, n: i - n // 2, lambda i, n: i + n // 2 + 1),
     "the window wraps round: the first map and the last one are no neighbours": wrapped,
     "k is missing. It keeps the division from blowing up where all neighbours are small":
     lambda x, n, k, alpha, beta: x / (alpha * energy(x, n)) ** beta,
     "k is always 1. That is the default of Caffe and PyTorch":
     lambda x, n, k, alpha, beta: x / (1 + alpha * energy(x, n)) ** beta,
     "alpha multiplies k as well": lambda x, n, k, alpha, beta: x / (
         alpha * (k + energy(x, n))) ** beta,
     "the window reaches n maps to either side. n is the size of the window; TensorFlow has the "
     "radius": lambda x, n, k, alpha, beta: x / (k + alpha * energy(x, 2 * n + 1)) ** beta,
     "a map is left out of its own neighbours": lambda x, n, k, alpha, beta: x / (
         k + alpha * (energy(x, n) - x ** 2)) ** beta,
     "the neighbours are not squared": lambda x, n, k, alpha, beta: x / (
         k + alpha * abs(x @ near(x, n))) ** beta,
     "it has no exponent: beta is forgotten":
     lambda x, n, k, alpha, beta: x / (k + alpha * energy(x, n)),
     "all maps of the place are summed: there is no window": lambda x, n, k, alpha, beta: x / (
         k + alpha * (x ** 2).sum(axis=1, keepdims=True)) ** beta,
     "the window runs over the places; the maps are the last axis": over_places(axis=0),
     "the window runs over the places; the maps are the last axis. And the sum takes all maps of "
     "the window": over_places(axis=None),
     "it writes into the array from which it still reads: the neighbours on the left are "
     "normalized already": in_place},
    hint="For map i the neighbours are a slice of the last axis. A slice may end beyond the last "
         "map, but it must not begin below 0.")


def dx_with(second):
    """The first term of the gradient, and a second one that is given."""
    def lrn_dx(x, dy, n, k, alpha, beta):
        d = k + alpha * energy(x, n)
        return dy / d ** beta + second(x, dy, d, near(x, n), alpha, beta)
    return lrn_dx


LRN_DX = Exercise(
    "8.2", "lrn_dx",
    "The gradient of `lrn` of 8.1 with respect to x (places, C). dy, of the same shape, is the "
    "gradient with respect to its output.",
    reference_dx, [with_dy(case) for case in numbers()],
    {"the first term alone: d is taken for a constant. At alpha = 1e-4 hardly anybody would "
     "notice": dx_with(lambda x, dy, d, near, alpha, beta: 0.0),
     "the second term is added. A map that grows makes its neighbours smaller":
     dx_with(lambda x, dy, d, near, alpha, beta:
             2 * alpha * beta * x * ((x * dy / d ** (beta + 1)) @ near)),
     "the 2 of the derivative of the square is missing":
     dx_with(lambda x, dy, d, near, alpha, beta:
             -alpha * beta * x * ((x * dy / d ** (beta + 1)) @ near)),
     "beta is missing in front of the second term":
     dx_with(lambda x, dy, d, near, alpha, beta:
             -2 * alpha * x * ((x * dy / d ** (beta + 1)) @ near)),
     "alpha is missing in front of the second term":
     dx_with(lambda x, dy, d, near, alpha, beta:
             -2 * beta * x * ((x * dy / d ** (beta + 1)) @ near)),
     "in the second term d has the power beta. The derivative brings one power more":
     dx_with(lambda x, dy, d, near, alpha, beta:
             -2 * alpha * beta * x * ((x * dy / d ** beta) @ near)),
     "a map sees itself alone in the second term: what it takes from its neighbours is missing":
     dx_with(lambda x, dy, d, near, alpha, beta:
             -2 * alpha * beta * x * x * dy / d ** (beta + 1)),
     "within the sum stands the d of the map itself. Each neighbour has its own d":
     dx_with(lambda x, dy, d, near, alpha, beta:
             -2 * alpha * beta * x / d ** (beta + 1) * ((x * dy) @ near)),
     "dy stands outside of the sum. Each neighbour has its own dy":
     dx_with(lambda x, dy, d, near, alpha, beta:
             -2 * alpha * beta * x * dy * ((x / d ** (beta + 1)) @ near)),
     "x stands twice within the sum, or is squared there. One of the two is the x of the map "
     "that moves, the other that of its neighbour":
     dx_with(lambda x, dy, d, near, alpha, beta:
             -2 * alpha * beta * ((x * x * dy / d ** (beta + 1)) @ near)),
     "dy is forgotten: those are the slopes for dy = 1 everywhere":
     lambda x, dy, *constants: reference_dx(x, np.ones_like(dy), *constants)},
    hint="Write d first. The sum over the neighbours runs over a new array, the products of what "
         "belongs to each neighbour.")


PYTORCH = Question(
    "8.3",
    "PyTorch's LocalResponseNorm(size, alpha, beta, k) divides alpha by size before it multiplies "
    "the sum. Which alpha makes it the paper's LRN, with size 5, beta 0.75 and k 2?",
    5e-4,
    {"the same name is not the same number: PyTorch makes 2e-5 of it. That is the program of "
     "2012": 1e-4,
     "this is divided by 5 already, and PyTorch divides it again": 2e-5,
     "this is divided by 5 twice": 4e-6,
     "multiplied once too often, or by the square of the window as in the same-map norm": 2.5e-3},
    tolerance=1e-6,
    hint="The number that multiplies the sum has to be 1e-4 after the division.")

EXERCISES = [LRN, LRN_DX, PYTORCH]
