"""What several nets say together."""
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from tinynet import Tensor, UserError
from tinynet.training import answers, evaluation


def logs_of(*probabilities):
    return np.log(np.array(probabilities, float))


ONE = [[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]]
TWO = [[0.1, 0.8, 0.1], [0.5, 0.2, 0.3]]


def test_the_mean_is_of_probabilities():
    mean = np.exp(evaluation.average(logs_of(ONE, TWO), [1, 1]))
    assert mean == pytest.approx(np.array([[0.35, 0.55, 0.1], [0.35, 0.45, 0.2]]))


def test_weights_count_by_their_share():
    logs = logs_of(ONE, TWO)
    mean = np.exp(evaluation.average(logs, [3, 1]))
    assert mean == pytest.approx(0.75 * np.array(ONE) + 0.25 * np.array(TWO))
    assert evaluation.average(logs, [0.5, 0]) == pytest.approx(logs[0])


def test_a_very_small_probability_is_not_lost():
    logs = np.array([[[-800.0, 0.0]], [[-900.0, 0.0]]], np.float32)
    assert evaluation.average(logs, [1, 1])[0, 0] == pytest.approx(-800 - np.log(2))


def test_the_search_finds_the_net_that_knows():
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 10, 200)
    useless, good = draw.dirichlet(np.ones(10), (2, 200))
    good[np.arange(200), labels] += draw.random(200) < 0.8
    logs = np.log(np.stack([useless, good / good.sum(axis=1, keepdims=True)]))
    weights = evaluation.search(logs, labels, k=1)
    found = evaluation.wrong(evaluation.average(logs, weights), labels, 1)
    assert found < evaluation.wrong(evaluation.average(logs, [1, 1]), labels, 1)
    every = [evaluation.wrong(evaluation.average(logs, [0.5, w]), labels, 1)
             for w in evaluation.GRID]
    assert found <= min(every)
    assert all(weight in evaluation.GRID for weight in weights)


def test_equal_nets_keep_equal_weights():
    assert evaluation.search(logs_of(ONE, ONE, ONE), np.array([0, 1]), k=1) == [0.5] * 3


@pytest.mark.parametrize("classes, said", [(5, "loss 1.0000  error 20.0%"),
                                           (6, "loss 1.0000  error 20.0% (top-5 10.0%)")])
def test_a_top_5_error_of_five_classes_is_not_told(classes, said):
    """It is 0 whatever the net says."""
    assert evaluation.in_words(dict(loss=1.0, top1_error=0.2, top5_error=0.1), classes) == said


@pytest.mark.parametrize("classes, k", [(4, 1), (9, 5)])
def test_weights_of_nets_are_searched_for_an_error_that_can_fall(classes, k):
    logs = np.log(np.random.default_rng(0).dirichlet(np.ones(classes), (2, 30)))
    labels = np.arange(30) % classes
    _, lines = evaluation.together(logs, labels, "search")
    assert lines[0].startswith(f"weights with the lowest top-{k} error")


def test_messages_of_before_a_report_are_not_counted_in_it():
    ranks = SimpleNamespace(size=2, talked=1000.0, everywhere=lambda value: [value, value])
    meter = evaluation.Meter(ranks)
    meter.add(Tensor(np.float32(1)), Tensor(np.eye(2, dtype=np.float32)), np.array([0, 1]))
    assert meter.read()["talked"] == 0


def test_the_result_counts_a_tie_as_an_error():
    logs = logs_of([[0.4, 0.4, 0.2], [0.1, 0.2, 0.7]])[0]
    result = evaluation.result(logs, np.array([0, 2]))
    assert result["loss"] == pytest.approx(-(np.log(0.4) + np.log(0.7)) / 2)
    assert result["top1_error"] == 0.5 and result["top5_error"] == 0


def test_of_several_nets_one_at_a_time_is_in_memory(monkeypatch, capsys):
    class Model:
        devices, crop = ["cpu"], 227

    alive, before, net = weakref.WeakSet(), [], SimpleNamespace(
        path="net.npz", classes=["a", "b", "c"], words={}, recipe=dict(name="paper", fit="crop"),
        progress=SimpleNamespace(step=1))

    def opened(net):
        before.append(len(alive))
        model, loader = Model(), SimpleNamespace(skipped={1: "not there"})
        alive.add(model)
        return model, loader

    monkeypatch.setattr(evaluation, "log_probabilities", lambda *how: (
        np.log(ONE), np.array([0, 1]), np.arange(2)))
    args = SimpleNamespace(views=1, weights=None, per_class=False, save_probs=None)
    pictures = type("Pictures", (list,), {"root": "DIR"})([0, 1])
    answers.test(args, [net] * 3, pictures, opened)
    assert before == [0, 0, 0] and "1 unreadable pictures" in capsys.readouterr().out


def test_what_a_class_is_called_most_often_instead_is_counted_alone():
    """Two of three mistakes are one kind, and one is another."""
    labels = np.array([0, 0, 0, 0, 1, 2])
    logs = np.log(np.eye(3)[[1, 1, 2, 0, 1, 2]] * 0.9 + 0.03)
    lines = list(evaluation.by_class(logs, labels, ["cat", "dog", "cow"], {}))
    assert lines[1].split() == ["75.0%", "3", "of", "4", "cat", "dog", "(2)"]


def test_nets_that_saw_other_pictures_have_no_mean(monkeypatch, capsys):
    """A file that can be read for one and not for the next."""
    net = SimpleNamespace(path="net.npz", classes=["a", "b", "c"], words={},
                          recipe=dict(name="paper", fit="crop"), progress=SimpleNamespace(step=1))
    seen = iter([np.arange(2), np.array([0, 2])])
    monkeypatch.setattr(evaluation, "log_probabilities", lambda *how: (
        np.log(ONE), np.array([0, 1]), next(seen)))
    model, loader = SimpleNamespace(devices=["cpu"], crop=227), SimpleNamespace(skipped={})
    args = SimpleNamespace(views=1, weights=None, per_class=False, save_probs=None)
    pictures = type("Pictures", (list,), {"root": "DIR"})([0, 1, 2])
    with pytest.raises(UserError, match="net.npz has been shown other pictures in DIR"):
        answers.test(args, [net] * 2, pictures, lambda net: (model, loader))


def test_a_net_without_weight_decides_nothing():
    sure, other = np.array([[-150.0, 0, -160]]), np.array([[0, -150.0, -150]])
    mean = evaluation.average(np.stack([sure, other]).astype(np.float32), [1, 0])
    assert np.array_equal(mean, sure.astype(np.float32))


def test_for_one_net_no_weights_are_searched():
    assert evaluation.together(logs_of(ONE), np.array([0, 1]), "search")[1] == []
