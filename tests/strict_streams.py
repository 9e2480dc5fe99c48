"""The streams and events of the stand-in for CuPy, lazy where a GPU may be.

The null stream computes at once. A copy in another stream is made as late as it may be: when
somebody waits for an event behind it. So who reads too early finds what was there before, and who
overwrites the source too early has another copied; and to copy a source once more is refused where
the host has not waited for the copy before. A copy into an array that was used after the
last event that its stream waits for is refused (`Unordered`): a GPU might overwrite it in use.
"""
from collections import deque


class Unordered(Exception):
    """Two streams use an array, and no event says who is first."""


class Stream:
    """knows: the work of the null stream, as a number, up to which this one has waited.
    host_knows: the number of the copy up to which the host has."""

    host_knows = 0

    def __init__(self, non_blocking=False):
        if not non_blocking:
            raise Unordered("a stream that waits for the null stream overlaps with nothing")
        self.work, self.issued, self.knows, self.sources = deque(), 0, 0, {}

    def copy(self, job, last_use, source):
        """Do a job some time. last_use: of the array that it writes to; source: the address that
        it reads from."""
        if last_use > self.knows:
            raise Unordered("an array is overwritten that may still be in use")
        if self.sources.get(source, 0) > self.host_knows:
            raise Unordered("the host may have overwritten what was still to be copied")
        self.issued += 1
        self.sources[source] = self.issued
        self.work.append((self.issued, job))

    def wait_event(self, event):
        event.stream.until(event.number)               # what it is behind is done before ours
        self.knows = max(self.knows, event.work)

    def until(self, number):
        while self.work and self.work[0][0] <= number:
            self.work.popleft()[1]()


class Null(Stream):
    """The stream in which everything is computed, of every card. ptr: the card's name."""

    work = 0                                           # pieces of work so far

    def __init__(self):
        pass

    def on(self, card):
        self.ptr = card
        return self

    def wait_event(self, event):
        event.stream.until(event.number)

    def until(self, number):
        pass


class Event:
    """stream, number: behind which work of which stream; work: of the null stream."""

    def __init__(self, block=True, disable_timing=False, interprocess=False):
        self.stream, self.number, self.work = NULL, 0, 0

    def record(self, stream=None):
        self.stream = stream or NULL
        self.number = getattr(self.stream, "issued", 0)
        self.work = NULL.work if self.stream is NULL else self.stream.knows

    def synchronize(self):
        self.stream.until(self.number)
        self.stream.host_knows = max(self.stream.host_knows, self.number)


NULL = Null()
