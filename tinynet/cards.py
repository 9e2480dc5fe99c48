"""How do two cards send each other numbers while they compute?

A plain copy between two cards (`Device.put`) is in the null stream. It waits for all that both
were asked to compute before, and what they are asked to later waits for it. A crossing of
activations is too frequent for that. So it has a stream of its own, on the card that sends, and
what comes the other way has another. Two streams know nothing of each other but by events: a copy
waits for two, and one is behind it.
"""
import functools
from collections import deque


@functools.cache
def way(xp, source, target):
    """The one way between two cards in this direction. source, target: their numbers."""
    return Way(xp, source, target)


class Way:
    """Sends arrays from one card to another. source, target: their numbers."""

    def __init__(self, xp, source, target):
        self.xp, self.source, self.target = xp, xp.cuda.Device(source), xp.cuda.Device(target)
        self.sent = deque()            # (event behind a copy, the array that is copied)
        with self.source:
            self.stream = xp.cuda.Stream(non_blocking=True)

    def send(self, array):
        with self.source:
            if not array.flags.c_contiguous:           # as the gradient of a concatenation is
                array = self.xp.ascontiguousarray(array)
            self.stream.wait_event(self._now())        # then the numbers are there
        with self.target:
            copy = self.xp.empty(array.shape, array.dtype)
            self.stream.wait_event(self._now())        # this memory may still be another's
        with self.source:
            copy.data.copy_from_device_async(array.data, array.nbytes, self.stream)
            self.done = self.stream.record(self._event())
        # Memory that is let go is handed out again at once, and whoever computes in it then does
        # not wait for our stream. So we hold the array until a later send finds it copied. (Nobody
        # changes it: ops write only to what they have made, and weights are not sent this way.)
        self.sent.append((self.done, array))
        while self.sent and self.sent[0][0].done:
            self.sent.popleft()
        return copy

    def wait(self):
        """Let what the target is asked from now on wait for all that was sent."""
        with self.target:
            self.xp.cuda.get_current_stream().wait_event(self.done)

    def _now(self):
        """An event behind all that the current card was asked to compute."""
        return self.xp.cuda.get_current_stream().record(self._event())

    def _event(self):
        return self.xp.cuda.Event(disable_timing=True)  # it belongs to the current card
