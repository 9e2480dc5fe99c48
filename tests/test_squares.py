"""Which part of a picture is enlarged before the crop, and how."""
import numpy as np
import pytest

from tinynet.errors import UserError
from tinynet.pictures import images
from tinynet.training.recipes import Recipe

NOISE = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)


def preparation(**options):
    stats = images.Statistics(np.zeros((256, 256, 3), np.float32), np.ones(3), np.eye(3))
    return images.Preparation(Recipe().changed(options), stats, seed=1)


@pytest.mark.parametrize("area", [0.01, 0.3, 0.99])
def test_squares_lie_everywhere_and_are_evenly_large(area):
    prepare, count = preparation(area=area), 4000
    places = prepare.places(np.arange(count), np.arange(count), 2)
    top, left, side = np.array([place.square for place in places]).T
    assert min(top.min(), left.min()) == 0 and max((top + side).max(), (left + side).max()) == 256
    assert abs(side.min() - 256 * area ** 0.5) < 3 and side.max() == 256
    shares = ((side / 256) ** 2 - area) / (1 - area)
    if area < 0.9:
        assert np.quantile(shares, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.04)
        small = side < 250
        for first in top, left:
            where = first[small] / (256 - side[small])
            assert np.quantile(where, [0.25, 0.5, 0.75]) == pytest.approx(
                [0.25, 0.5, 0.75], abs=0.04)
        other = prepare.places(np.arange(count), np.arange(count), 3)
        assert np.mean([a.square == b.square for a, b in zip(places, other, strict=True)]) < 0.05
    again = prepare.places(np.arange(7, 9), np.arange(7, 9), 2)
    assert [place.square for place in again] == [place.square for place in places[7:9]]


@pytest.mark.parametrize("options", [{}, dict(area=0.5, augment=False)])
def test_by_default_and_without_augmentation_all_of_a_picture_is_seen(options):
    prepare = preparation(**options)
    assert {place.square for place in prepare.places(np.arange(9), np.arange(9), 0)} == {None}
    assert {place.square for place in preparation(area=0.5).views(10)} == {None}


def test_a_square_is_enlarged_as_pillow_does_it_and_nothing_else_of_the_picture():
    picture = NOISE.copy()
    assert images.enlarged(picture, None) is picture
    assert np.array_equal(images.enlarged(picture, (0, 0, 256)), picture)
    large = images.enlarged(picture, (30, 50, 64))
    picture[:30], picture[94:], picture[:, :50], picture[:, 114:] = 0, 0, 0, 0
    assert large.shape == (256, 256, 3) and large.dtype == np.uint8
    inner = (slice(8, -8), slice(8, -8))               # the filter reaches a pixel beyond
    assert np.array_equal(images.enlarged(picture, (30, 50, 64))[inner], large[inner])
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (256, 256, 3))
    rows = images.enlarged(np.ascontiguousarray(ramp), (100, 0, 128))[:, 0, 0]
    assert rows[[2, 128, 253]] == pytest.approx([100.75, 163.75, 226.25], abs=1)


@pytest.mark.parametrize("area", [0.0, 1.01, float("nan")])
def test_an_area_that_is_no_share_is_refused(area):
    with pytest.raises(UserError, match="area must be at least 0.01 and at most 1"):
        Recipe().changed(dict(area=area))
