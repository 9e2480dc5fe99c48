"""The mean image and the colours of a data set."""

import numpy as np
import pytest

from pictures import COLOURED
from tinynet.errors import UserError
from tinynet.pictures import images

# --- statistics -----------------------------------------------------------------------


def some_pictures(count):
    """Noise around a tilted plane in another colour each: correlated channels."""
    draw = np.random.default_rng(1)
    slope = np.linspace(-30, 30, 256)[:, None, None]
    for _ in range(count):
        light = draw.normal(0, 20, (256, 256, 1))
        noise = draw.normal(0, 5, (256, 256, 3))
        pixels = draw.uniform(60, 190, 3) + slope + light * [1, 0.8, 0.5] + noise
        yield np.uint8(np.clip(pixels, 0, 255))


def test_statistics_are_the_mean_and_the_principal_components():
    pictures = list(some_pictures(5))
    found = images.statistics(iter(pictures))
    assert found.mean.dtype == np.float32
    assert found.mean == pytest.approx(np.mean(pictures, axis=0), abs=1e-4)
    pixels = np.reshape(pictures, (-1, 3)).astype(np.float64)
    covariance = np.cov(pixels.T, bias=True)
    assert found.variances == pytest.approx(np.linalg.eigvalsh(covariance), rel=1e-6)
    assert found.components.T @ found.components == pytest.approx(np.eye(3))
    rebuilt = found.components @ np.diag(found.variances) @ found.components.T
    assert rebuilt == pytest.approx(covariance, rel=1e-6)


def test_statistics_do_not_depend_on_the_order():
    pictures = list(some_pictures(7))
    forward, backward = images.statistics(pictures), images.statistics(pictures[::-1])
    for name, array in vars(forward).items():
        assert np.array_equal(array, vars(backward)[name]), name


def test_statistics_of_one_colour_have_no_negative_variances():
    found = images.statistics([np.full((256, 256, 3), COLOURED, np.uint8)] * 3)
    assert (found.variances >= 0).all()
    assert found.variances == pytest.approx(np.zeros(3), abs=1e-6)


def test_no_pictures_have_no_statistics():
    with pytest.raises(UserError, match="none"):
        images.statistics([])
