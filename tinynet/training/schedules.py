"""When does the learning rate fall? (paper, section 5)

The paper divided it by 10 "when the validation error rate stopped improving", by hand. `Plateau`
does the same by a rule. SCHEDULES has the dates at which the authors did it, from the log of
the 2012 program, and the schedules that came after. A new schedule is a function there.
"""
import math
from dataclasses import dataclass, field

# Run 145 on ILSVRC-2012, 91 epochs: the net of the paper. After so many epochs, what changes,
# and to which multiple of the first rate. Biases kept their rate of 0.02 to the end.
EPOCHS_2012 = 91
RATES_2012 = (25, 0.1), (51, 0.01), (79, 0.001)
SLOW_2012 = 67                              # conv1 learns slower
FROZEN_2012 = 72                            # conv1 stands still

# Run 170, as good and without a hand: the rate falls geometrically in equal parts.
EPOCHS_DEXP = 95
FROZEN_DEXP = 74

# After which of how many epochs the authors switched the colour noise off.
COLOUR_ENDS = {"2012": (67, EPOCHS_2012), "dexp": (68, EPOCHS_DEXP)}


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

    @classmethod
    def of(cls, recipe):
        """The plateau of a recipe; None if it has another schedule."""
        if recipe.schedule == "plateau":
            return cls(recipe.patience, recipe.threshold, most=recipe.drops)

    def restore(self, state):
        """Go on from what a checkpoint kept: STATE by name; of another schedule, nothing."""
        for name, value in (state or {}).items():
            if value is not None:
                setattr(self, name, value)

    def multiplier(self, error):
        """What to multiply the rate by after a validation with this error: 1 or factor."""
        if error < self.best - self.threshold:
            self.best, self.bad = error, 0
        else:
            self.bad += 1
        if self.bad < self.patience or self.drops >= self.most:
            return 1.0
        self.bad = 0
        self.drops += 1
        return self.factor


@dataclass
class Rates:
    """Multiples of the first rates: of weights, of biases, and of single layers beside
    these, {"conv1": 0.1} or {"conv1.W": 0.1}, as optim.SGD has them."""
    weights: float = 1.0
    biases: float = 1.0
    layers: dict = field(default_factory=dict)


def set_rates(optimizer, recipe, epochs_done):
    """Set the rates of an optim.SGD for its next step, but for what a Plateau keeps.

    epochs_done: epochs that are behind us, with the part of this one. What stands still asks
    for no gradient: nothing is kept or computed for it, nor for what lies before it.
    """
    schedule = SCHEDULES[recipe.schedule]
    rates, own = schedule(recipe, epochs_done) if schedule else Rates(), recipe.rates_of_layers()
    optimizer.rates = {layer: own.get(layer, 1.0) * rates.layers.get(layer, 1.0)
                       for layer in own | rates.layers}
    if schedule:
        optimizer.lr = recipe.lr * rates.weights
        # After 324 tenths nothing is left of either.
        optimizer.bias_lr = recipe.bias_lr * (rates.weights and rates.biases / rates.weights)
    for name, w in optimizer.parameters.items():
        w.requires_grad = optimizer.multiple(name) > 0


def when_the_authors_did(recipe, epochs_done):
    """The dates of their log, stretched to recipe.epochs."""
    then = int(epochs_done) * EPOCHS_2012 / recipe.epochs
    weights = next((multiple for date, multiple in reversed(RATES_2012) if then >= date), 1.0)
    if then >= FROZEN_2012:
        return Rates(weights, layers={"conv1": 0.0})
    return Rates(weights, layers={"conv1.W": 0.1} if then >= SLOW_2012 else {})


def dexp(recipe, epochs_done):
    """Their automatic schedule, run 170, stretched to recipe.epochs."""
    epoch = int(epochs_done)                # they changed it between epochs
    frozen = epoch * EPOCHS_DEXP / recipe.epochs >= FROZEN_DEXP
    done = epoch / recipe.epochs
    return Rates(_geometric(done, parts=4, factor=250), _geometric(done, parts=2, factor=10),
                 {"conv1": 0.0} if frozen else {})


def _geometric(done, parts, factor):
    """1 in the first of `parts` equal parts, 1 / factor in the last, geometric between."""
    part = min(int(done * parts), parts - 1)
    return factor ** (-part / (parts - 1))


def step(recipe, epochs_done):
    """A tenth after every step_epochs."""
    rate = 0.1 ** (epochs_done // recipe.step_epochs)
    return Rates(rate, rate)


def linear(recipe, epochs_done):
    """A straight line down to 0 at the end of the last epoch."""
    left = 1 - epochs_done / recipe.epochs
    return Rates(left, left)


def constant(recipe, epochs_done):
    """The first rate to the end."""
    return Rates()


SCHEDULES = {"plateau": None, "2012": when_the_authors_did, "dexp": dexp, "step": step,
             "linear": linear, "constant": constant}
