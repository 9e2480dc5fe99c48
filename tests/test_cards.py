"""Copies between two cards go beside what the cards compute: who waits for whom?

On the stand-in every stream is on its own, and what no event orders is refused
(strict_streams.py).
"""
import numpy as np
import pytest

from helpers import IMAGES, LABELS, SMALL, net
from strict_streams import Event, Null, Queue, Stream, Unordered, log
from tinynet import ops
from tinynet.cards import way
from tinynet.device import devices, to_host
from tinynet.engine import Tensor
from tinynet.optim import SGD
from tinynet.split import copy_to, exchange, gather


def learned(places, steps=2):
    """The losses of some steps, and all weights after them."""
    model = net(devices(places), SMALL.changed({"lrn": "none"}))
    optimizer, losses = SGD(model.parameters(), lr=0.01), []
    for step in range(steps):
        model.train(step)
        losses.append(ops.softmax_cross_entropy(model(Tensor(IMAGES, places.partition(",")[0])),
                                                labels=LABELS))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    return [loss.item() for loss in losses], [w.numpy() for _, w in model.parameters()]


def same_as_the_cpu(expected):
    losses, weights = learned("gpu0,gpu1")
    assert losses == pytest.approx(expected[0], rel=1e-5)
    for w, v in zip(weights, expected[1], strict=True):
        assert w == pytest.approx(v, rel=1e-4, abs=1e-6)


@pytest.fixture(scope="module")
def expected():
    return learned("cpu,cpu")


def test_steps_on_two_cards_are_those_of_the_cpu(gpus, expected):
    same_as_the_cpu(expected)
    copies = [request.stream for request in log if request.what == "copy"]
    assert len(copies) == 2 * (1 + 2 * 7)              # the images, seven crossings, their mirrors


def every_other(function, first):
    """A method that does nothing every second time: from the first, or from the second one on."""
    calls = [first]

    def method(self, *args):
        calls[0] = not calls[0]
        return function(self, *args) if calls[0] else None
    return method


class Forgetful(list):
    """Keeps nothing of what is sent."""

    def append(self, item):
        pass


@pytest.mark.parametrize("left_out", [
    "for the numbers", "for the memory", "for the copy", "keeping"])
def test_who_leaves_out_a_wait_is_found(gpus, monkeypatch, expected, left_out):
    if left_out == "for the numbers":
        monkeypatch.setattr(Stream, "wait_event", every_other(Queue.wait_event, True))
    elif left_out == "for the memory":
        monkeypatch.setattr(Stream, "wait_event", every_other(Queue.wait_event, False))
    elif left_out == "for the copy":
        monkeypatch.setattr(Null, "wait_event", lambda self, event: None)
    else:
        for pair in (0, 1), (1, 0):
            monkeypatch.setattr(way(devices("gpu0")[0].xp, *pair), "sent", Forgetful())
    with pytest.raises((AssertionError, Unordered)):
        same_as_the_cpu(expected)


@pytest.mark.parametrize("wait", ["wait_event", "record"])
def test_without_any_events_nothing_is_in_order(gpus, monkeypatch, expected, wait):
    owner = Event if wait == "record" else Queue
    monkeypatch.setattr(owner, wait, lambda self, *args: None)
    with pytest.raises((AssertionError, Unordered)):
        same_as_the_cpu(expected)


def asked_by(job):
    """What a job asks, in order: "copy", and "wait" of a null stream. And the copies."""
    log.clear()
    job()
    seen = [request for request in log if request.what == "copy"
            or request.what == "wait" and not isinstance(request.stream, Stream)]
    return [request.what for request in seen], [r for r in seen if r.what == "copy"]


def test_both_directions_of_an_exchange_go_side_by_side(gpus):
    pair = devices("gpu0,gpu1")
    top, bottom = (Tensor(np.full((3, 4), float(i)), device, requires_grad=True)
                   for i, device in enumerate(pair))
    found = []
    for job in (lambda: found.append(exchange(top, bottom)),
                lambda: gather(*found[0]).sum().backward()):
        order, copies = asked_by(job)
        one, other = copies[-2:]                       # backward, that of `gather` comes before
        assert order[-4:] == ["copy", "copy", "wait", "wait"]
        assert {one.stream.card, other.stream.card} == {"gpu0", "gpu1"}
        for copy, beside in (one, other), (other, one):        # none waits for the other
            assert not copy.clock.knows(beside.stream, beside.clock[beside.stream])
    assert to_host(top.grad).tolist() == to_host(bottom.grad).tolist() == [[2.0] * 4] * 3


def test_in_a_whole_step_every_exchange_goes_side_by_side(gpus):
    model = net(devices("gpu0,gpu1"))
    losses, image = [], Tensor(IMAGES, "gpu0")
    forward, _ = asked_by(lambda: losses.append(ops.softmax_cross_entropy(
        model(image), labels=LABELS)))
    both = ["copy", "copy", "wait", "wait"]
    assert forward == ["copy", "wait", *both * 3, "copy", "wait"]      # the image; fc8
    backward, _ = asked_by(losses[0].backward)
    assert backward == ["copy", "wait", *both * 3]


def test_all_devices_of_a_pair_of_cards_share_a_stream_for_each_direction(gpus):
    for name, other in ("gpu0", "gpu1"), ("gpu0:a", "gpu1"), ("gpu0", "gpu1:b"):
        x = Tensor([1.0, 2.0], name, requires_grad=True)
        copy_to(x, other).sum().backward()
    there, back = ({r.stream for r in log if r.what == "copy" and r.stream.card == card}
                   for card in ("gpu0", "gpu1"))
    assert len(there) == len(back) == 1 and there != back


def test_devices_that_share_a_card_need_no_stream(gpus):
    x = Tensor([1.0, 2.0], "gpu0:a", requires_grad=True)
    copy_to(x, "gpu0:b").sum().backward()
    assert not log and to_host(x.grad).tolist() == [1, 1]


def test_what_was_sent_is_kept_until_it_is_copied_and_no_longer(gpus):
    one, other = devices("gpu0,gpu1")
    sent = way(one.xp, 0, 1).sent
    arrays = [one.put(np.full(4, i, np.float32)) for i in range(5)]
    copies = [other.begin_put(array, one) for array in arrays]
    assert [array for _, array in sent] == arrays  # their events may all be far away
    for copy in copies:
        other.end_put(copy, one)
    copies.append(other.begin_put(arrays[0], one))
    assert len(sent) == 1
    assert to_host(other.end_put(copies[-1], one)).tolist() == [0] * 4
    assert to_host(copies[3]).tolist() == [3] * 4


def test_a_copy_keeps_the_shape_and_takes_strided_arrays(gpus):
    one, other = devices("gpu0,gpu1")
    for numbers in np.array(2.0), np.zeros((0, 3)), np.arange(6.0).reshape(2, 3).T:
        with one:
            source = one.put(numbers)
            source = source.T
        there = other.end_put(other.begin_put(source, one), one)
        assert there.device == other.cuda and there.shape == numbers.T.shape
        np.testing.assert_array_equal(to_host(there), numbers.T)
