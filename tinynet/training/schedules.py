"""When does the learning rate fall? (paper, section 5)

The paper divided it by 10 "when the validation error rate stopped improving", by hand. `Plateau`
does the same by a rule; `scheduled` knows the dates at which the authors did it, from the log
of the 2012 program, and the schedules that came after.
"""
import math

# Run 145 on ILSVRC-2012, 91 epochs: the net of the paper. After so many epochs, what changes,
# and to which multiple of the first rate. Biases kept their rate of 0.02 to the end.
EPOCHS_2012 = 91
RATES_2012 = (25, 0.1), (51, 0.01), (79, 0.001)
COLOUR_2012 = 67                            # no colour noise any more, conv1 learns slower
FROZEN_2012 = 72                            # conv1 stands still

# Run 170, as good and without a hand: the rate falls geometrically in equal parts.
EPOCHS_DEXP = 95
DEXP = dict(parts=4, factor=250)
DEXP_BIAS = dict(parts=2, factor=10)
FROZEN_DEXP = 74
COLOUR_DEXP = 68


class Plateau:
    """Divide the rate by 10 when the validation error stops improving.

    The rate drops at the patience-th validation in a row that does not beat the best by
    more than `threshold` (in error, 0.001 is 0.1 points); most: how often it may drop.
    """

    STATE = "best", "bad", "drops"     # what a checkpoint keeps; the rest are settings

    def __init__(self, patience=5, threshold=0.001, factor=0.1, most=3):
        self.patience, self.threshold = patience, threshold
        self.factor, self.most = factor, most
        self.best, self.bad, self.drops = math.inf, 0, 0

    def multiplier(self, error):
        """What to multiply the rate by after a validation with this error: 1 or factor."""
        if error < self.best - self.threshold:
            self.best, self.bad = error, 0
        else:
            self.bad += 1
        if self.bad < self.patience or self.drops == self.most:
            return 1.0
        self.bad = 0
        self.drops += 1
        return self.factor


def set_rates(optimizer, recipe, epoch, done):
    """Set the rates of an optim.SGD for its next step, unless a Plateau keeps them.

    epoch: epochs that are behind us; done: share of all steps that is, 0 ... 1. The dates of
    2012 are stretched to recipe.epochs.
    """
    if recipe.schedule == "plateau":
        return
    weights = biases = 1.0                 # multiples of the first rates
    optimizer.rates = {}
    if recipe.schedule == "linear":
        weights = biases = 1 - done
    elif recipe.schedule == "step":
        weights = biases = 0.1 ** (epoch // recipe.step_epochs)
    elif recipe.schedule == "2012":
        then = epoch * EPOCHS_2012 / recipe.epochs
        weights = _latest(RATES_2012, then)
        if then >= FROZEN_2012:
            optimizer.rates = {"conv1": 0.0}
        elif then >= COLOUR_2012:
            optimizer.rates = {"conv1.W": 0.1}
    elif recipe.schedule == "dexp":
        then = epoch * EPOCHS_DEXP / recipe.epochs
        weights = _dexp(epoch / recipe.epochs, **DEXP)
        biases = _dexp(epoch / recipe.epochs, **DEXP_BIAS)
        if then >= FROZEN_DEXP:
            optimizer.rates = {"conv1": 0.0}
    optimizer.lr = recipe.lr * weights
    optimizer.bias_lr = recipe.bias_lr * biases / weights


def _latest(dates, epoch):
    """The multiple that counts after so many epochs: 1 before the first date."""
    return next((multiple for date, multiple in reversed(dates) if epoch >= date), 1.0)


def _dexp(done, parts, factor):
    """1 in the first of `parts` equal parts, 1 / factor in the last, geometric between."""
    part = min(int(done * parts), parts - 1)
    return factor ** (-part / (parts - 1))
