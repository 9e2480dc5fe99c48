"""Random numbers are a function of what they are for."""
import numpy as np
import pytest

from tinynet import rng


@pytest.mark.parametrize("counter, key, expected", [
    ((0, 0, 0, 0), (0, 0), (0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8)),
    ((0xffffffff,) * 4, (0xffffffff,) * 2,
     (0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd)),
    ((0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344), (0xa4093822, 0x299f31d0),
     (0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1)),
])
def test_philox_gives_the_published_known_answers(counter, key, expected):
    assert tuple(int(word) for word in rng.philox(counter, key)) == expected


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint64])
def test_a_number_of_numpy_s_counts_as_any_other(kind):
    of = dict(purpose=rng.CROP, seed=7, step=5)
    assert np.array_equal(rng.words(np, range(9), **of | dict(seed=kind(7), step=kind(5))),
                          rng.words(np, range(9), **of))
    with pytest.raises(TypeError):
        rng.words(np, range(9), **of | dict(step=5.0))


def test_words_stand_where_they_always_stood_in_counter_and_key():
    """As in the third published answer. Else older checkpoints would go on otherwise."""
    words = rng.words(np, [0x243f6a88], step=0x13198a2e85a308d3, stream=0x03707344, purpose=0x29,
                      seed=0x9f31d0a4093822)
    assert words.tolist() == [[0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]]
    assert (rng.DROPOUT, rng.ORDER, rng.CROP, rng.COLOUR, rng.PACKING) == (1, 2, 3, 4, 5)


def test_words_of_some_indices_are_those_of_all_indices():
    of = dict(seed=3, purpose=rng.CROP, step=7)
    everything = rng.words(np, np.arange(100), **of)
    assert np.array_equal(rng.words(np, np.array([42, 5]), **of), everything[[42, 5]])


@pytest.mark.parametrize("change", [
    dict(seed=4), dict(seed=3 + 2 ** 32), dict(purpose=rng.COLOUR), dict(step=8),
    dict(step=7 + 2 ** 32), dict(stream=1)])
def test_every_part_of_the_key_matters(change):
    of = dict(seed=3, purpose=rng.CROP, step=7, stream=0)
    one, other = (rng.words(np, np.arange(50), **{**of, **c}) for c in ({}, change))
    assert not np.any(one == other)


def test_a_mask_keeps_the_share_it_is_asked_to_keep():
    mask = rng.mask(np, 100_001, 0.3, seed=0, purpose=rng.DROPOUT)
    assert mask.shape == (100_001,)
    assert mask.mean() == pytest.approx(0.3, abs=0.006)      # four standard deviations


def test_a_mask_can_keep_everything():
    assert rng.mask(np, 1000, 1.0, seed=0, purpose=rng.DROPOUT).all()


def test_a_permutation_holds_every_number_once_and_is_even():
    firsts = []
    for epoch in range(2000):
        order = rng.permutation(5, seed=0, purpose=rng.ORDER, step=epoch)
        assert sorted(order) == [0, 1, 2, 3, 4]
        firsts.append(order[0])
    assert np.bincount(firsts) == pytest.approx(400, abs=80)


def test_normal_numbers_have_the_moments_of_a_gaussian():
    words = rng.words(np, np.arange(100_000), seed=1, purpose=rng.COLOUR)
    values = rng.normal(words)
    assert np.isfinite(values).all()
    assert np.isfinite(rng.normal(np.uint64([[0] * 4, [rng.LOW] * 4]))).all()
    assert values.mean(axis=0) == pytest.approx(np.zeros(4), abs=0.013)
    assert np.cov(values.T) == pytest.approx(np.eye(4), abs=0.02)
    assert (values ** 4).mean() == pytest.approx(3, abs=0.1)


def test_first_weights_depend_on_seed_and_name_alone():
    draw = dict(std=0.01, seed=5, name="top.conv1.0.W")
    weights = rng.gaussian_weights((40, 50), **draw)
    assert np.array_equal(weights, rng.gaussian_weights((40, 50), **draw))
    for change in (dict(seed=6), dict(name="bottom.conv1.0.W")):
        other = rng.gaussian_weights((40, 50), **{**draw, **change})
        assert not np.any(weights == other)
    assert weights.std() == pytest.approx(0.01, rel=0.05)
