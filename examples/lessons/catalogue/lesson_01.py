"""Is this gradient right?"""
import numpy as np

from exercise import Exercise, Question


def sum_of_cubes(x):
    return (x * x * x).sum()


def exp_of_neighbours(x):
    """Each number counts with the next one, so that a move of one is felt by two."""
    return np.exp(np.ravel(x)[:-1] * np.ravel(x)[1:]).sum()


def one_by_one(f, x, quotient):
    """quotient(f, x, one) for each number of x, as an array in its shape. one: 1 there, else 0."""
    gradient = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        one = np.zeros(x.shape)
        one[place] = 1
        gradient[place] = quotient(f, x, one)
    return gradient


def numeric_gradient(f, x, step):
    """The central difference along each number of x."""
    return one_by_one(f, x, lambda f, x, one: (f(x + step * one) - f(x - step * one))
                      / (2 * step))


def not_restored(f, x, step):
    """Works on one copy of x, and leaves each number where it moved to last."""
    moved, gradient = x.copy(), np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        moved[place] = x[place] + step
        up = f(moved)
        moved[place] = x[place] - step
        gradient[place] = (up - f(moved)) / (2 * step)
    return gradient


def restored_once(f, x, step):
    """Goes up by one step, down by one: back at x, where it wanted to be below."""
    return one_by_one(f, x, lambda f, x, one: (f(x + step * one) - f(x)) / (2 * step))


def in_integers(f, x, step):
    return numeric_gradient(f, x, step).astype(int).astype(float)


def all_at_once(f, x, step):
    return np.full(x.shape, (f(x + step) - f(x - step)) / (2 * step))


NUMERIC = Exercise(
    "1.1", "numeric_gradient",
    "Measure the gradient of f at x: the central difference with this step, along one number of "
    "x after the other. f takes an array of the shape of x and returns one number. x may have any "
    "shape, which is the shape of the result, and x itself must stay as it is. (The steps of the "
    "cases are large, so that the formula shows.)",
    numeric_gradient,
    [(sum_of_cubes, np.array([2.0, -1.0, 0.5]), 0.1),
     (exp_of_neighbours, np.array([[0.3, -0.7, 1.1], [0.9, 0.2, -0.4]]), 0.05)],
    {"it goes up only: a forward difference. Go down as well, and the part of the error that is "
     "in proportion to the step cancels": lambda f, x, step: one_by_one(
         f, x, lambda f, x, one: (f(x + step * one) - f(x)) / step),
     "it goes down only: a backward difference, which is as far off as the forward one":
     lambda f, x, step: one_by_one(f, x, lambda f, x, one: (f(x) - f(x - step * one)) / step),
     "it is twice too large: from x - h to x + h the way is two steps, and you divide by one":
     lambda f, x, step: 2 * numeric_gradient(f, x, step),
     "it is far too small: / 2 * step divides by 2 and then multiplies by step":
     lambda f, x, step: numeric_gradient(f, x, step) * step ** 2,
     "it divides by two steps but moves by one: the second value is f(x) itself. Did x move back "
     "to where it was, and not on to x - h?": restored_once,
     "the sign is that of f(x - h) - f(x + h)":
     lambda f, x, step: -numeric_gradient(f, x, step),
     "the first number is right, later ones are not: a number that was moved did not return to "
     "its place before the next one moved": not_restored,
     "all numbers move at once. That measures the sum of all slopes, and not each": all_at_once,
     "the result has no digits behind the point: an array of integers was made for it":
     in_integers},
    hint="Change a copy of x at one place. np.ndindex(x.shape) runs through the places of an "
         "array of any shape. (To add a step to x itself and take it off again is not enough: the "
         "result is rounded.)")

BEST_STEP = Question(
    "1.2",
    "In the lesson the best step for x³ at x = 2 was 0.01 in float32. Which power of ten is the "
    "best step in float32 at x = 200, for a central difference of x³? Guess first; then measure "
    "at the 41 numbers np.linspace(190, 210, 41, dtype=np.float32), compare with 3x² in float64, "
    "and take the mean of the relative errors.",
    1.0,
    {"that is the best step at x = 2. At x = 200, x + h has the digits of 200: two fewer are left "
     "for h. The step has to grow with x": 0.01,
     "that is the best step of float64 near x = 1. Are your x and your step both float32? A "
     "float64 array makes everything float64": 1e-5,
     "that is the best step of float64 at x = 200. Some number in your program is float64": 1e-3,
     "with this step the rounding is still the larger error. It falls once more when the step "
     "grows": 0.1,
     "with this step the error of the formula is the larger one. It is that of h = 0.1 at x = 2":
     10.0,
     "one part in ten million is where the digits of float32 end. A step so small is lost in "
     "x + h, and the difference is zero": 1e-7})

EXERCISES = [NUMERIC, BEST_STEP]
