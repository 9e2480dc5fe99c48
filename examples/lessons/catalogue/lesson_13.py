"""Momentum, decay, plateau."""
import math

import numpy as np

from exercise import Exercise, Question
from tinynet import SGD, Parameter
from tinynet.training.schedules import Plateau


def step(w, v, dw, rate):
    weights = Parameter(w.copy())
    optimizer = SGD([("W", weights)], lr=rate)
    optimizer.velocity["W"], weights.grad = v.copy(), dw
    optimizer.step()
    return weights.data, optimizer.velocity["W"]


def wrongly(f):
    """A wrong step. f(w, v, dw, rate, g): the new v, and how far w moves. g: dw with decay."""
    def mine(w, v, dw, rate):
        v, move = f(w, v, dw, rate, dw + 0.0005 * w)
        return w + move, v
    return mine


def twice(v):
    return v, v


def weights():
    draw = np.random.default_rng(13)
    def normal(): return draw.standard_normal((2, 3))
    return [(np.array([40.0, -20.0]), np.array([1.0, 2.0]), np.array([10.0, -30.0]), 0.1),
            (9 * normal(), normal(), normal(), 0.5), (9 * normal(), normal(), normal(), 0.02)]


STEP = Exercise(
    "13.1", "step",
    "Return (w, v) after a step of the paper's rule, with momentum 0.9 and weight decay 0.0005. "
    "Arguments: the weights w, their velocity v, the gradient dw and the rate. Change none of "
    "them: the new w and v are new arrays.",
    step, weights(),
    {"the rate is outside the velocity. That is PyTorch's form, right in itself, and another one "
     "as soon as the rate changes":
     lambda w, v, dw, rate: (w - rate * (0.9 * v + dw + 0.0005 * w), 0.9 * v + dw + 0.0005 * w),
     "the rate multiplies the whole velocity when w moves. It belongs to the gradient and the "
     "decay alone": wrongly(lambda w, v, dw, rate, g: (0.9 * v - g, rate * (0.9 * v - g))),
     "the rate is there twice: in the velocity, and again when w moves":
     wrongly(lambda w, v, dw, rate, g: (0.9 * v - rate * g, rate * (0.9 * v - rate * g))),
     "the decay lacks the rate": wrongly(
         lambda w, v, dw, rate, g: twice(0.9 * v - rate * dw - 0.0005 * w)),
     "there is no decay": wrongly(lambda w, v, dw, rate, g: twice(0.9 * v - rate * dw)),
     "the decay has the wrong sign: it makes weights grow": wrongly(
         lambda w, v, dw, rate, g: twice(0.9 * v - rate * (dw - 0.0005 * w))),
     "the gradient has the wrong sign: it climbs": wrongly(
         lambda w, v, dw, rate, g: twice(0.9 * v + rate * dw - rate * 0.0005 * w)),
     "v is added up with plus: it climbs, and decay makes weights grow": wrongly(
         lambda w, v, dw, rate, g: twice(0.9 * v + rate * g)),
     "w moves against its velocity: w - v, where v already points downhill": wrongly(
         lambda w, v, dw, rate, g: (0.9 * v - rate * g, -(0.9 * v - rate * g))),
     "w decays apart from the velocity, as in AdamW. In the paper decay is in v": wrongly(
         lambda w, v, dw, rate, g: (0.9 * v - rate * dw,
                                    0.9 * v - rate * dw - rate * 0.0005 * w)),
     "w decays after it has moved, apart from the velocity": wrongly(
         lambda w, v, dw, rate, g: (
             0.9 * v - rate * dw,
             0.9 * v - rate * dw - rate * 0.0005 * (w + 0.9 * v - rate * dw))),
     "w moves by the old velocity": wrongly(lambda w, v, dw, rate, g: (0.9 * v - rate * g, v)),
     "there is no momentum: the old velocity is forgotten": wrongly(
         lambda w, v, dw, rate, g: twice(-rate * g)),
     "nothing slows the velocity down: the 0.9 is missing": wrongly(
         lambda w, v, dw, rate, g: twice(v - rate * g)),
     "the gradient counts for 0.1 of itself: that is a moving average. The paper's is a sum":
     wrongly(lambda w, v, dw, rate, g: twice(0.9 * v - 0.1 * rate * g)),
     "that is Nesterov's form, which moves on by the new velocity once more": wrongly(
         lambda w, v, dw, rate, g: (0.9 * v - rate * g, 0.9 * (0.9 * v - rate * g) - rate * g))},
    hint="First the new v, of three terms. Then w moves by the new v.")


AFTER_RATE = Question(
    "13.2",
    "The gradient is constant, and the velocity has settled. Now the rate is divided by 10. In "
    "the paper's form with momentum 0.9, which step (the first with the new rate is step 1) is "
    "the first one that is less than twice as long as the steps will be in the end?",
    21,
    {"that is PyTorch's form, with the rate outside: there the next step is a tenth at once": 1,
     "no: v has to fall from ten times the new length, and 0.9 a step is slow": 2,
     "1 / (1 - 0.9) is the time in which the old part falls to 0.37. From ten to less than two is "
     "more": 10,
     "after so many steps half of the old velocity is left, which is five times the new one": 7,
     "one too early: that step is 1 + 9 · 0.12 = 2.09 times as long": 20,
     "by then the old part is a tenth of itself. But the new part is not 1 yet: together they are "
     "below 2 one step earlier": 22,
     "by then it is within a tenth of the new length. Twice as long was asked for": 43},
    hint="In units of the new length the velocity is 10 before. Each step makes v of 0.9 v + 0.1.")


def drops(errors, patience):
    """The numbers of the validations after which the rate falls."""
    plateau = Plateau(patience)
    return [n for n, error in enumerate(errors, 1) if plateau.multiplier(error) < 1]


def drops_wrongly(errors, patience, threshold=0.001, most=3, late=0, last=False, keeps=False,
                  forgets=True, follows=False, forgives=False, start=math.inf, count=1):
    best, bad, found = start, 0, []
    for number, (before, error) in enumerate(zip([start, *errors], errors, strict=False), count):
        if error < best - threshold:
            best, bad = error, bad if keeps else 0
        elif forgives and error < before:
            bad = 0
        else:
            bad += 1
        if last:
            best = error
        if follows:
            best = min(best, error)
        if bad >= patience + late and len(found) < most:
            found.append(number)
            bad = 0 if forgets else bad
    return found


ERRORS = [
    [.9, .5, .6, .5, .4, .5, .6, .5, .3, .5, .4, .5],
    [.80, .70, .60, .65, .62, .599, .61, .5, .55, .54, .53, .52, .51, .505, .45, .46, .47, .44,
     .45, .46, .45, .47, .44, .45, .46, .45, .43, .44, .45, .44, .45, .44, .44, .43, .44, .44],
    [.5, .4, .3995, .399, .3985, .398, .3975, .397, .3965, .38, .379, .3785, .377, .3768],
    [.5, .51, .5, .51, .4, .41, .4, .39, .4, .4, .39, .4, .4, .4]]
DROPS = Exercise(
    "13.3", "drops",
    "After which validations does the rate fall? Count from 1. errors: of all validations, in "
    "order. The rate falls at the validation that is the `patience`-th in a row not to beat the "
    "best error so far by more than 0.001. Then the count begins anew, and the best error stays. "
    "It falls three times at most.",
    drops, list(zip(ERRORS, (3, 4, 2, 1), strict=True)),
    {"it compares with the last error. An error that swings up and down then counts as an "
     "improvement every other time": lambda *a: drops_wrongly(*a, last=True),
     "any improvement counts, however small: the 0.001 is missing":
     lambda *a: drops_wrongly(*a, threshold=0),
     "the rate falls one validation late. (PyTorch's ReduceLROnPlateau does so)":
     lambda *a: drops_wrongly(*a, late=1),
     "the rate falls one validation early": lambda *a: drops_wrongly(*a, late=-1),
     "bad validations count even if they are not in a row: an improvement starts the count anew":
     lambda *a: drops_wrongly(*a, keeps=True),
     "once the rate has fallen, it falls again at every bad validation: the count must begin anew":
     lambda *a: drops_wrongly(*a, forgets=False),
     "the count begins anew when an error is better than the one before it. Only an error that "
     "beats the best so far may do that": lambda *a: drops_wrongly(*a, forgives=True),
     "the first error is taken for the best before it was looked at. Then it does not beat the "
     "best, and counts as a bad validation":
     lambda errors, patience: drops_wrongly(errors, patience, start=errors[0]),
     "the validations are counted from 0": lambda *a: drops_wrongly(*a, count=0),
     "it falls more than three times": lambda *a: drops_wrongly(*a, most=99),
     "the best error follows improvements that are too small to count. Many of them in a row then "
     "never count": lambda *a: drops_wrongly(*a, follows=True)},
    hint="Keep three things: the best error so far, how many bad validations have come in a row, "
         "and the list of drops.")

EXERCISES = [STEP, AFTER_RATE, DROPS]
