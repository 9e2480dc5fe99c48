"""The streams and events of the stand-in for CuPy, lazy where a GPU may be.

What is computed is computed at once, in the null stream of its card. A copy in another stream is
made as late as it may be: when somebody waits for an event behind it. So who reads too early finds
what was there before, and who overwrites the source too early has another copied.

Nobody knows when a GPU does what. So it is not enough that the numbers come out right: whatever
happens, events must say who is first. Each stream counts its work, and has a `Clock`: the work of
every stream that is done before its own next. Two streams that use the same memory, one of
them to write, are refused (`Unordered`) unless the later one's clock knows of the earlier work;
and so is the use of memory that was just handed out, since its owner before may still need it, and
the end of memory that is still to be copied. A copy in the null stream between two cards waits for
both, and both for it. Every request is noted in `log`.
"""
import threading
import time
import weakref
from collections import deque, namedtuple
from contextlib import contextmanager

import numpy as np

Request = namedtuple("Request", "what stream clock")   # "copy", "record" or "wait"
log = []                                               # of Requests, in order
Copy = namedtuple("Copy", "source target bytes")       # source, target: "host", "gpu0", "gpu1"
copies = []                                            # in the order in which they were made


class Refused(Exception):
    """What CuPy refuses, or does silently and slowly, or does wrong."""


class WrongDevice(Refused, ValueError):
    pass


class Unordered(Exception):
    """Two streams use an array, and no event says who is first."""


# --- the current device -----------------------------------------------------------------


_thread = threading.local()


def stack():
    if not hasattr(_thread, "devices"):
        _thread.devices = []
    return _thread.devices


def here():
    """The current device. CuPy begins with gpu0, where a forgotten `with` does not show."""
    if not stack():
        raise WrongDevice("work for a GPU, and no `with device:` says for which")
    return stack()[-1]


def note(source, target, size):
    copies.append(Copy(source, target, size))


class Device:
    compute_capability = "90"

    def __init__(self, device=None):
        self.id = int(here()[3:] if device is None else device)
        self.name = f"gpu{self.id}"
        self.pci_bus_id = f"0000:{self.id + 1:02}:00.0"

    def __enter__(self):
        stack().append(self.name)
        return self

    def __exit__(self, *error):
        stack().pop()

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self):
        return self.id

    def synchronize(self):
        synchronize(self.name)
        note(self.name, "host", 0)                    # the host waits, and learns nothing


# --- who knows what is done -------------------------------------------------------------


class Clock(dict):
    """{stream: the number of its work up to which all is done}"""

    def knows(self, stream, number):
        return self.get(stream, 0) >= number

    def meet(self, other):
        """Know what the other knows as well."""
        for stream, number in list(other.items()):
            self[stream] = max(self.get(stream, 0), number)


# What the host asks for comes after what it knows to be done, by an event or by `synchronize`.
# That it waits for a number that it reads is no order to rely on: between reports it reads none.
HOST = Clock()


class Memory:
    """Who uses the memory of an array: its card, last at this number of its null stream; and
    `copies` in other streams, (stream, number, whether it is written)."""

    def __init__(self, card, last):
        self.null, self.last, self.copies = null_of(card), last, []

    def use(self, stream, writes):
        """A stream uses it for its newest work."""
        if not stream.clock.knows(self.null, self.last):
            raise Unordered(f"{stream} {'overwrites' if writes else 'reads'} what {self.null} may "
                            "still be writing or reading")
        self.copies = [copy for copy in self.copies if not stream.clock.knows(*copy[:2])]
        if any(writes or written for _, _, written in self.copies):
            raise Unordered(f"{stream} uses an array that {self.copies[0][0]} may still copy")
        if stream is self.null:
            self.last = stream.count
        else:
            self.copies.append((stream, stream.count, writes))

    def end(self):
        """Its array is gone, and the card takes it for another one."""
        after = Clock(self.null.clock)
        after.meet(HOST)
        self.null.freed.extend(
            f"{stream} was still to copy an array that is gone: keep it"
            for stream, number, _ in self.copies if not after.knows(stream, number))


# --- streams ----------------------------------------------------------------------------


class Queue:
    """What Streams and null streams have: a name, a clock, the number of their newest work.

    host_knows: the number of the copy up to which the host has waited by `synchronize`. freed:
    what is wrong with memory of this null stream's card that has ended.
    """

    def __init__(self, name, card):
        self.name, self.card, self.count, self.work = name, card, 0, deque()
        self.clock, self.host_knows, self.freed = Clock(), 0, []

    def __repr__(self):
        return self.name

    def begin(self):
        """One more piece of work: its number."""
        if null_of(self.card).freed:
            raise Unordered(null_of(self.card).freed[0])
        self.clock.meet(HOST)
        self.count += 1
        self.clock[self] = self.count
        return self.count

    def wait_event(self, event):
        event.make()
        self.clock.meet(event.clock)
        self.note("wait")

    def note(self, what):
        log.append(Request(what, self, Clock(self.clock)))

    def until(self, number):
        while self.work and self.work[0][0] <= number:
            self.work.popleft()[1]()


class Stream(Queue):
    """sources: {address on the host: the number of the last copy from there}"""

    def __init__(self, non_blocking=False):
        if not non_blocking:
            raise Unordered("a stream that waits for the null stream overlaps with nothing")
        super().__init__(f"a stream of {here()}", here())
        self.sources = {}
        streams.add(self)

    def copy(self, job, target, source):
        """Do a job some time. target: the Memory that it writes to; source: that it reads from,
        or its address on the host."""
        number = self.begin()
        self.note("copy")
        target.use(self, writes=True)
        if isinstance(source, Memory):
            source.use(self, writes=False)
        elif self.sources.get(source, 0) > self.host_knows:
            raise Unordered("the host may have overwritten what was still to be copied")
        else:
            self.sources[source] = number
        self.work.append((number, job))

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def __enter__(self):
        _thread.current = self
        return self

    def __exit__(self, *error):
        _thread.current = None

    def begin_capture(self, mode=None):
        if current() is not self:
            raise Recorded("what is asked for meanwhile would go to another stream")
        if not getattr(_thread, "own", False):
            raise Recorded("its memory would be another's before it is replayed")
        _thread.jobs, _thread.fresh = [], []

    def end_capture(self):
        """What a card is asked for while it records it does not do: the numbers are none."""
        jobs, _thread.jobs = _thread.jobs, None
        for numbers in _thread.fresh:
            poisoned(numbers)
        return Graph(jobs)

    @property
    def ptr(self):
        return self.name


@contextmanager
def own(allocator):
    """Inside, arrays have memory of this allocator, and so of nobody else."""
    _thread.own = True
    try:
        yield
    finally:
        _thread.own = False


class Graph:
    """What a stream has recorded."""

    def __init__(self, jobs):
        self.jobs = jobs

    def launch(self, stream):
        if stream is not NULL:
            raise Unordered("a graph in a stream of its own")
        for job in self.jobs:
            job()


def poisoned(numbers):
    """The array, with what nobody has written."""
    numbers.fill(np.nan if numbers.dtype.kind == "f" else numbers.itemsize > 1)
    return numbers


def fresh(numbers):
    """Numbers of an array that is made while a stream records."""
    _thread.fresh.append(numbers)


def current():
    return getattr(_thread, "current", None) or NULL


class Recorded(Refused, RuntimeError):
    """What cannot be recorded."""


def recorded():
    """The jobs that the current stream has recorded so far; None if it records nothing."""
    return getattr(_thread, "jobs", None)


class Null:
    """The stream in which everything is computed: of whichever card is the current one."""

    ptr = property(lambda self: here())

    def wait_event(self, event):
        null_of(here()).wait_event(event)

    def record(self, event=None):
        event = event or Event()
        event.record()
        return event


class Event:
    """stream, number: behind which work of which stream; clock: what that stream knew; seconds:
    when it was recorded, by the host's clock."""

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self.card, self.stream, self.number, self.clock = here(), None, 0, Clock()
        self.seconds, self.is_timed = None, not disable_timing

    def record(self, stream=None):
        if stream is None or stream is NULL:
            stream = null_of(here())
        if stream.card != self.card:                   # cudaErrorInvalidResourceHandle
            raise WrongDevice(f"an event of {self.card} is recorded in {stream}")
        stream.note("record")
        self.stream, self.number, self.clock = stream, stream.count, Clock(stream.clock)
        self.seconds = time.perf_counter()

    def make(self):
        """Do now all that it is behind."""
        if self.stream:
            self.stream.until(self.number)

    @property
    def done(self):
        """As late as may be: once somebody has waited for it."""
        if self.stream and self.stream.work and self.stream.work[0][0] <= self.number:
            return False
        HOST.meet(self.clock)
        return True

    def synchronize(self):
        self.make()
        HOST.meet(self.clock)
        if self.stream:
            self.stream.host_knows = max(self.stream.host_knows, self.number)


def elapsed(start, end):
    """Milliseconds from one event to the other, as if a card did at once what it is asked for.
    Both are timed, of one card, and past."""
    if not (start.is_timed and end.is_timed) or start.card != end.card:
        raise WrongDevice("events without times, or of two cards")     # ...InvalidResourceHandle
    for event in start, end:
        if not event.stream or not HOST.knows(event.stream, event.number):     # cudaErrorNotReady
            raise Unordered("an event is asked for its time before the host knows that it is past")
    return 1000 * (end.seconds - start.seconds)


NULL = Null()
_nulls = {}
streams = weakref.WeakSet()


def null_of(card):
    """The null stream of a card."""
    if card not in _nulls:
        _nulls[card] = Queue(card, card)
    return _nulls[card]


def synchronize(*cards):
    """The host waits for all streams of a card."""
    for stream in [*map(null_of, cards), *(s for s in list(streams) if s.card in cards)]:
        stream.until(stream.count)
        HOST.meet(stream.clock)


def both(one, other):
    """The null streams of two cards wait for each other, as around a copy of theirs."""
    clock = Clock(null_of(one).clock)
    clock.meet(null_of(other).clock)
    for card in one, other:
        null_of(card).clock.meet(clock)


def forget():
    """Begin anew: what tests before have left undone is no matter."""
    _thread.jobs = _thread.current = None
    for each in log, HOST, _nulls:
        each.clear()
