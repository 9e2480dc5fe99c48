"""The stand-in for CuPy shows what is wrong with streams: copies are late, and work that no event
orders is refused."""
import numpy as np
import pytest

from strict_streams import NULL, Event, Unordered, WrongDevice
from tinynet.device import Device


@pytest.fixture
def cards(gpus):
    """The two cards, and an array on each, which its null stream has made."""
    cuda = Device("gpu0").xp.cuda
    one, other = cuda.Device(0), cuda.Device(1)
    with one:
        stream = cuda.Stream(non_blocking=True)
    arrays = [Device(name).put(np.ones(4, np.float32)) for name in ("gpu0", "gpu1")]
    return [one, other, *arrays, stream]


def waits(stream, *cards):
    for card in cards:
        with card:
            stream.wait_event(NULL.record())


def begun(cards):
    """A copy from one card to the other that waits for both."""
    one, other, source, target, stream = cards
    waits(stream, one, other)
    target.data.copy_from_device_async(source.data, source.nbytes, stream)
    with one:
        return stream.record()


def test_a_copy_is_late_and_reading_before_it_is_refused(cards):
    one, other, source, target, _ = cards
    with one:
        source._numbers[:] = 2                         # without a word: nobody can object
    done = begun(cards)
    source._numbers[:] = 3
    assert not done.done and target._numbers.tolist() == [1] * 4
    with other, pytest.raises(Unordered, match="may still copy"):
        target + 1
    with one:
        NULL.wait_event(done)           # the other card does not wait for it yet
    assert done.done and target._numbers.tolist() == [3] * 4
    with other:
        NULL.wait_event(done)
        assert (target + 1).get().tolist() == [4] * 4


@pytest.mark.parametrize("write", [
    lambda x: x.__iadd__(1), lambda x: x.__setitem__(0, 1),
    lambda x: Device("gpu0").xp.multiply(x, 2, out=x),
    lambda x: x.set(np.zeros(4, np.float32))])
def test_writing_to_what_is_still_to_be_copied_is_refused(cards, write):
    done = begun(cards)
    with cards[0]:
        cards[2] + 1                                   # to read it as well does no harm
        with pytest.raises(Unordered, match="may still copy"):
            write(cards[2])
        NULL.wait_event(done)
        write(cards[2])


@pytest.mark.parametrize("missing, complaint", [
    (0, "reads what gpu0"), (1, "overwrites what gpu1")])
def test_a_copy_that_does_not_wait_for_both_cards_is_refused(cards, missing, complaint):
    one, other, source, target, stream = cards
    waits(stream, [other, one][missing])
    with pytest.raises(Unordered, match=complaint):
        target.data.copy_from_device_async(source.data, source.nbytes, stream)


@pytest.mark.parametrize("known", [False, True])
def test_an_array_that_goes_before_its_copy_is_done_is_missed(cards, known):
    one, other = cards[:2]
    done = begun(cards)
    with other:
        NULL.wait_event(done)                          # which says nothing to the source's card
    if known:
        assert done.done
    cards.clear()
    with one:
        if known:
            Device("gpu0").xp.zeros(3, np.float32)
            return
        with pytest.raises(Unordered, match="an array that is gone"):
            Device("gpu0").xp.zeros(3, np.float32)


def test_an_event_belongs_to_its_card(cards):
    one, other, *_, stream = cards
    with other:
        event = Event()
    with pytest.raises(WrongDevice):
        event.record(stream)
    with one, pytest.raises(WrongDevice):
        event.record()
