"""When the rate falls: by the plateau rule, and on the authors' dates."""
import numpy as np
import pytest

from tinynet.engine import Parameter
from tinynet.optim import SGD
from tinynet.training.recipes import RECIPES
from tinynet.training.schedules import Plateau, set_rates

NAMES = ("top.conv1.0.W", "top.conv1.0.b", "top.conv2.0.W", "top.conv2.0.b", "fc8.W", "fc8.b")


def rates(schedule, epochs, **options):
    """The rate of every parameter in each epoch: name -> array."""
    recipe = RECIPES["2012"].changed(dict(schedule=schedule, epochs=epochs, **options))
    optimizer = SGD([(name, Parameter(np.ones(1))) for name in NAMES], recipe.lr,
                    bias_lr=recipe.bias_lr)
    found = {name: [] for name in NAMES}
    for epoch in range(epochs):
        set_rates(optimizer, recipe, epoch)
        for name in NAMES:
            found[name].append(optimizer.rate(name))
    return {name: np.array(values) for name, values in found.items()}


def pieces(values):
    """[(first epoch, value), ...] of a curve made of steps."""
    starts = [0, *(np.flatnonzero(np.diff(values)) + 1)]
    return [(int(start), pytest.approx(values[start], rel=1e-12)) for start in starts]


def test_2012_are_the_dates_of_the_authors_log():
    found = rates("2012", 91)
    assert pieces(found["fc8.W"]) == [(0, 1e-2), (25, 1e-3), (51, 1e-4), (79, 1e-5)]
    assert pieces(found["top.conv2.0.W"]) == pieces(found["fc8.W"])
    assert pieces(found["top.conv1.0.W"]) == [(0, 1e-2), (25, 1e-3), (51, 1e-4), (67, 1e-5),
                                              (72, 0.0)]
    assert pieces(found["top.conv1.0.b"]) == [(0, 0.02), (72, 0.0)]
    assert pieces(found["fc8.b"]) == [(0, 0.02)]


def test_2012_is_stretched_to_the_epochs_there_are():
    assert pieces(rates("2012", 182)["fc8.W"]) == [(0, 1e-2), (50, 1e-3), (102, 1e-4),
                                                   (158, 1e-5)]


def test_dexp_falls_geometrically_in_four_parts_and_biases_in_two():
    found = rates("dexp", 96)
    assert pieces(found["fc8.W"]) == [(0, 0.01), (24, 0.01 / 250 ** (1 / 3)),
                                      (48, 0.01 / 250 ** (2 / 3)), (72, 0.00004)]
    assert found["fc8.W"][24] == pytest.approx(0.00158740, abs=5e-9)       # as it was logged
    assert found["fc8.W"][48] == pytest.approx(0.00025198, abs=5e-9)
    assert pieces(found["fc8.b"]) == [(0, 0.02), (48, 0.002)]
    frozen = rates("dexp", 95)["top.conv1.0.W"]
    assert frozen[73] > 0 and not frozen[74:].any()


def test_step_divides_weights_and_biases_alike():
    found = rates("step", 50, step_epochs=20)
    assert pieces(found["fc8.W"]) == [(0, 1e-2), (20, 1e-3), (40, 1e-4)]


def test_a_rate_that_was_divided_until_nothing_is_left_is_0():
    found = rates("step", 400, step_epochs=1)
    for name in "fc8.W", "fc8.b":
        assert found[name][300] > 0 and not found[name][330:].any()
    assert found["fc8.b"] == pytest.approx(2 * found["fc8.W"], rel=1e-12)


def test_linear_and_constant_are_what_they_say():
    assert rates("linear", 4)["fc8.W"] == pytest.approx([0.01, 0.0075, 0.005, 0.0025])
    assert pieces(rates("constant", 4)["fc8.b"]) == [(0, 0.02)]


def test_a_plateau_is_left_alone_by_the_dates():
    optimizer = SGD([("fc8.W", Parameter(np.ones(1)))], lr=0.125)
    set_rates(optimizer, RECIPES["paper"], 50.5)
    assert optimizer.lr == 0.125


# --- the plateau rule -------------------------------------------------------------------


def drops(errors, **how):
    """After which validations (counted from 0) the rate falls."""
    plateau = Plateau(**how)
    factors = [plateau.multiplier(error) for error in errors]
    assert set(factors) <= {1.0, 0.1}
    return [i for i, factor in enumerate(factors) if factor == 0.1]


def test_the_rate_drops_when_the_error_stops_improving_three_times_at_most():
    errors = [0.9, 0.8, 0.795, 0.795, 0.7] + [0.7] * 20
    assert drops(errors, patience=2, threshold=0.01) == [3, 6, 8]
    assert drops(errors, patience=2, threshold=0.01, most=1) == [3]
    assert drops([0.5, 0.25, 0.25], patience=1, threshold=0.25) == [1, 2]      # not by more
    assert drops([0.5, 0.5, 0.4], patience=1, threshold=0.0) == [1]


def test_the_rate_stays_when_fewer_drops_are_allowed_than_there_were():
    plateau = Plateau(patience=1, threshold=1.0, most=1)
    plateau.restore({"drops": 3})
    assert [plateau.multiplier(0.9) for _ in range(4)] == [1.0] * 4


DATES = 25, 51, 79


def like_the_authors(noise, seed=0):
    """Validation errors of 91 epochs in the shape of run 145's: after each of its drops (25,
    51, 79) the error falls quickly, then hardly; it ends at the 40.7 % of the paper.

    The dates and the end are logged; the levels between them are made up."""
    epoch = np.arange(91)
    error = 0.407 + 0.40 * np.exp(-epoch / 2.5)
    for date, gain in zip(DATES, (0.12, 0.04, 0.01), strict=True):
        error += gain * np.where(epoch < date, 1.0, np.exp(-(epoch - date + 1.0)))
    return error + np.random.default_rng(seed).normal(0, noise, 91)


@pytest.mark.parametrize("noise, seed", [(0.0, 0), (0.001, 1), (0.001, 2), (0.002, 3)])
def test_the_rule_drops_on_the_plateaus_of_the_authors_curve(noise, seed):
    """A drop makes the curve go on as theirs did after their drop. It must not come while
    the error still falls, and not much later than theirs."""
    plateau, error = Plateau(patience=5, threshold=0.001), like_the_authors(noise, seed)
    level = like_the_authors(0.0)
    for start, end in zip((0, *DATES[:-1]), DATES, strict=True):
        waited = next(i for i in range(end - start + 8)
                      if plateau.multiplier(error[min(start + i, end - 1)]) < 1)
        at = min(start + waited, end - 1)
        assert level[at] - level[end - 1] < 0.005, "it was still falling"
        assert waited <= end - start
    assert all(plateau.multiplier(0.4) == 1 for _ in range(50))


