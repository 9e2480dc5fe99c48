"""How do pictures get to a device while it computes?

To a CPU as crops, prepared by the threads that read them. To a GPU as bytes, which are a third
of what their crops are as numbers. Readers write them into page-locked memory. From there the
card fetches them by itself, in a stream of its own, while it still computes the step before. Then
a kernel cuts out the crops. If each tower has its card, both fetch the bytes and cut out the same
crops: to copy the crops from one to the other would take three times as many bytes.

Two streams know nothing of each other but by events. Here each waits for the other in one place:
no crop is cut before its pictures have come, and no picture overwrites one that is still needed.

How long pictures were waited for is not what the host's clock says, which runs ahead of a GPU: the
host may wait while the card still computes. So the card is asked.
"""
import itertools
import math
import time
import weakref
from collections import deque
from contextlib import contextmanager

import numpy as np

from .. import kernels
from ..errors import UserError
from ..progress import warn
from . import readers
from .images import SIDE, BrokenPicture, enlarged

MOST_VIEWS = 10


def cards_of(devices):
    """The devices whose cards make the images of a net on `devices`: of those on one card the
    first, and none at all if the first device is no card."""
    first = {d.cuda.id: d for d in reversed(devices) if d.is_gpu and devices[0].is_gpu}
    return sorted(first.values(), key=devices.index)


class Host:
    """Where a Loader's batches are made if they are to stay on the host: an array each."""

    def __init__(self, pictures, prepare, workers):
        self.pictures, self.prepare, self.workers = pictures, prepare, workers
        self.seconds = 0.0             # that were spent on waiting, since somebody asked

    @contextmanager
    def reading(self):
        """Inside, start(indices, seen) begins a batch: it returns the batch and the jobs that fill
        it. seen: for every picture the list of Places at which it is seen."""
        pool = readers.threads(self.workers)

        def start(indices, seen):
            side = self.prepare.crop
            views = len(seen[0]) if seen else 1        # a rank may have none of a small batch
            batch = np.empty((len(indices), views, side, side, 3), np.float32)
            work = list(zip(indices, seen, batch, strict=True))
            return batch, [pool.submit(self._some, work[part])
                           for part in readers.in_parts(len(work), self.workers)]

        try:
            yield start
        finally:                       # also when the caller stops half-way, or Ctrl-C
            pool.shutdown(wait=False, cancel_futures=True)

    def _some(self, work):
        return [self._one(*item) for item in work]

    def _one(self, index, places, views):
        """Fill views (V, crop, crop, 3) with a picture as it is seen at its places. Returns what
        was wrong with it, or None."""
        try:
            picture = readers.read(self.pictures, index)
        except BrokenPicture as error:
            return error
        for place, view in zip(places, views, strict=True):
            self.prepare.fill(enlarged(picture, place.square), view, place)

    def results(self, jobs):
        """What jobs gave, for each picture what was wrong with it, or None. Waits for them."""
        start = time.perf_counter()
        problems = readers.results(jobs)
        self.seconds += time.perf_counter() - start
        return problems

    def waited(self):
        """For how many seconds the device had nothing to do for want of pictures, since the last
        time that this was asked."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds

    def finish(self, batch, whole):
        """The images of a batch, (N, crop, crop, 3), or (N, views, crop, crop, 3) of several, in
        a list. whole: (N,) booleans; the others are left out."""
        images = batch if whole.all() else batch[whole]
        return [images[:, 0] if images.shape[1] == 1 else images]


class Gpu:
    """Where they are made if a GPU takes them, or two; images, in the end, are there.

    slots: for how many batches there is room. A batch takes that of the batch `slots` before it.
    """

    def __init__(self, pictures, prepare, workers, devices, batch_size, slots):
        self.pictures, self.prepare, self.workers = pictures, prepare, workers
        self.readers, self.is_reading, self.begins = None, False, True
        with devices[0] as device:     # else CUDA would wake gpu0 to lock the slots
            self.slots = [Slot(device.xp.cuda, batch_size, number) for number in range(slots)]
        self.cards = [Card(device, prepare, self.slots) for device in devices]
        if not all(slot.is_locked for slot in self.slots):
            warn("the system locks no more memory, so pictures get to the GPU more slowly; it may "
                 "want a larger /dev/shm (of a container: --shm-size) or ulimit -l")
        self.next = itertools.cycle(self.slots)
        self.waits = deque()           # pairs of events between which a batch was missing

    @contextmanager
    def reading(self):
        if self.is_reading:            # two would write into the same slots
            raise UserError("for a GPU a Loader makes the batches of one epoch at a time: close() "
                            "the iterator over the other, or take a Loader for each")
        if not self.readers:           # processes take a second to begin, and stay
            self.readers = readers.beside_a_gpu(
                self.pictures, [slot.memory for slot in self.slots], self.workers)

        def start(indices, seen):
            slot = next(self.next)
            self._wait(slot)           # long since; else this batch would mix with one before
            slot.see(seen)
            squares = [views[0].square for views in seen]      # that of all its views
            return slot, self.readers.read(slot.number, indices, squares)

        self.is_reading = True
        try:
            yield start
        finally:
            self.readers.stop()        # before a slot is written to again, or freed
            for slot in self.slots:
                self._wait(slot)
            self.is_reading = False

    def _wait(self, slot):
        """Wait until the slot may be written to: every card has copied what was in it."""
        for card in self.cards:
            card.rooms[slot.number].copied.synchronize()

    def results(self, jobs):
        with self.cards[0].device as device:
            self.asked = device.xp.cuda.Event()
            self.asked.record(device.xp.cuda.get_current_stream())
        return readers.results(jobs)

    def waited(self):
        """The same of the first card, as far as it has come: it is some steps behind the host."""
        seconds = 0.0
        while self.waits and all(event.done for event in self.waits[0]):
            with self.cards[0].device as device:
                milliseconds = device.xp.cuda.get_elapsed_time(*self.waits.popleft())
            seconds += max(milliseconds, 0) / 1000     # less, if they were there before
        return seconds

    def finish(self, slot, whole):
        """The images of a batch, as Host makes them, on each card."""
        kept = np.flatnonzero(np.repeat(whole, slot.views))
        for table in slot.on_host["places"], slot.on_host["shifts"]:
            table[:len(kept)] = table[kept]
        images = [card.crops(slot, len(kept)) for card in self.cards]
        if not self.begins:            # the first batch waits for readers to begin, once
            self.waits.append((self.asked, self.cards[0].rooms[slot.number].copied))
        self.begins = False
        return images


class Card:
    """A GPU that fetches the bytes of every slot, and cuts crops out of them."""

    def __init__(self, device, prepare, slots):
        self.device, self.prepare = device, prepare
        with device:
            self.copying = device.xp.cuda.Stream(non_blocking=True)
            self.mean = device.put(prepare.statistics.mean)
            self.rooms = [Room(device, slot) for slot in slots]

    def crops(self, slot, count):
        room = self.rooms[slot.number]
        with self.device as device:
            computing = device.xp.cuda.get_current_stream()
            self.copying.wait_event(room.cropped)
            room.bytes.set(slot.host_bytes, stream=self.copying)
            room.copied = device.xp.cuda.Event()       # a new one: its time is still asked for
            room.copied.record(self.copying)
            computing.wait_event(room.copied)
            images = kernels.crop(
                room.parts["pictures"], self.mean, room.parts["places"][:count],
                room.parts["shifts"][:count], self.prepare.factor(slot.is_shifted),
                self.prepare.crop, self.prepare.aligned)
            room.cropped.record(computing)
            views = [slot.views] if slot.views > 1 else []
            return images.reshape(-1, *views, *images.shape[1:])


class Room:
    """Room for what is in a slot, on a card. copied: the event after which the host may write into
    the slot again, as far as this card is concerned. cropped: the one after which what is here may
    be overwritten."""

    def __init__(self, device, slot):
        cuda = device.xp.cuda
        self.bytes = device.xp.empty(slot.host_bytes.size, np.uint8)
        self.parts = slot.split(self.bytes)
        self.copied, self.cropped = (cuda.Event(disable_timing=True) for _ in range(2))
        self.cropped.record(cuda.get_current_stream())     # the memory may have been another's


class Slot:
    """Room for the pictures of a batch and the places of their crops, on the host."""

    def __init__(self, cuda, batch_size, number):
        crops = batch_size * MOST_VIEWS
        self.parts = dict(pictures=((batch_size, SIDE, SIDE, 3), np.uint8),
                          places=((crops, 4), np.int32), shifts=((crops, 3), np.float32))
        size = sum(np.dtype(kind).itemsize * math.prod(shape)
                   for shape, kind in self.parts.values())
        self.number, self.memory = number, readers.shared(size)
        self.host_bytes = np.frombuffer(self.memory, np.uint8)
        self.on_host = self.split(self.host_bytes)
        address = self.host_bytes.ctypes.data
        try:                           # page-locked, for all cards (1): they read it themselves
            cuda.runtime.hostRegister(address, size, 1)
            weakref.finalize(self.memory, cuda.runtime.hostUnregister, address)
            self.is_locked = True
        except RuntimeError:           # of CUDA
            self.is_locked = False

    def split(self, memory):
        """The parts of this memory, one behind the other: {name: array}"""
        found, end = {}, 0
        for name, (shape, kind) in self.parts.items():
            start, end = end, end + np.dtype(kind).itemsize * math.prod(shape)
            found[name] = memory[start:end].view(kind).reshape(shape)
        return found

    def see(self, seen):
        """Keep where pictures are seen: for each a list of Places. A rank may have none."""
        places = [(position, *place[:3]) for position, views in enumerate(seen) for place in views]
        shifts = [place.shift for views in seen for place in views]
        self.views = len(seen[0]) if seen else 1
        self.is_shifted = bool(shifts) and shifts[0] is not None
        if places:
            self.on_host["places"][:len(places)] = places
            self.on_host["shifts"][:len(shifts)] = shifts if self.is_shifted else 0
