"""The authors' 80-second net against PyTorch, by the program that compares their time."""
import numpy as np
import pytest

import common
from data.cifar10 import Labelled


@pytest.fixture(scope="module")
def example():
    pytest.importorskip("torch", reason="PyTorch is not installed")
    import cifar10_with_torch
    return cifar10_with_torch


@pytest.fixture
def pictures():
    """300 of noise, with labels that can be seen: brighter ones belong to later classes."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 10, 300)
    images = draw.integers(0, 130, (300, 32, 32, 3)) + 12 * labels[:, None, None, None]
    some = Labelled(images.astype(np.uint8), labels)
    return common.Pictures(some, some)


def sides(example, pictures):
    """Both in float64: in float32 a few units that round to the other side of a kink make
    3e-3 of what conv1 learns."""
    pictures.mean = pictures.mean.astype(np.float64)
    ours = example.Ours(pictures, epochs=10)
    theirs = example.Theirs(pictures, 10, example.torch_weights(ours.model))
    theirs.model.double()
    for name, w in ours.model.parameters():
        w.data = w.data.astype(np.float64)
        ours.optimizer.velocity[name] = np.zeros_like(w.data)
    return ours, theirs


def difference_after_two_epochs(example, ours, theirs):
    """How much what the two sides have learned differs, relative, at worst."""
    first = {name: w.copy() for name, w in example.torch_weights(ours.model).items()}
    for epoch in range(2):
        assert ours.epoch(epoch) > 0 and theirs.epoch(epoch) > 0
    learned = example.torch_weights(ours.model)
    weights = {name: w.detach().numpy() for name, w in theirs.model.named_parameters()}
    assert learned.keys() == weights.keys() and len(learned) == 10
    return max(np.linalg.norm(learned[name] - w) / np.linalg.norm(learned[name] - first[name])
               for name, w in weights.items())


def test_both_sides_learn_the_same(example, pictures):
    ours, theirs = sides(example, pictures)
    assert difference_after_two_epochs(example, ours, theirs) < 1e-10
    assert ours.test_error() == theirs.test_error()


@pytest.mark.parametrize("wrong", ["decay", "factor"])
def test_another_decay_or_rate_would_be_noticed(example, pictures, wrong):
    """Of the last layer's weights, or of the biases."""
    ours, theirs = sides(example, pictures)
    group = theirs.optimizer.param_groups[-1 if wrong == "factor" else -2]
    group["weight_decay" if wrong == "decay" else "factor"] = 1.0
    assert difference_after_two_epochs(example, ours, theirs) > 1e-3


def test_the_rate_falls_within_an_epoch_if_the_schedule_says_so(example, pictures):
    ours, rates = example.Ours(pictures, epochs=1), []
    ours.step = lambda images, labels, rate: rates.append(rate)
    ours.epoch(0)
    assert rates == [0.001, 0.001, 0.0001]             # batches that begin at 0, 43 and 85 %


def test_it_trains_both_and_says_who_was_first(example, few, capsys):
    status = common.main(example.start, example.parser(), ["--epochs", "1", "--from", few])
    said = capsys.readouterr().out.splitlines()
    assert "seconds, test error" in said[0] and said[1].split()[0] == "1"
    slower = said[-2].partition("PyTorch takes ")[2].split()[0]
    assert said[-1] == f"of them, {slower} times ({slower} ... {slower})"
    slower = float(slower)
    assert said[-3].startswith("1 epochs: tinynet ") and max(map(len, said)) <= 80
    assert slower >= 1 if status == 0 else slower <= 1
