"""How do pictures get to a GPU while it computes?

As bytes, which are a quarter of what their crops are as numbers. Workers write the pictures of a
batch into page-locked memory. From there the card fetches them by itself, in a stream of its own,
while it still computes the step before. Then a kernel cuts out the crops.

Two streams know nothing of each other but by events. Here each waits for the other in one place:
no crop is cut before its pictures have come, and no picture overwrites one that is still needed.
"""
import itertools
import math

import numpy as np

from .. import kernels
from .images import SIDE

MOST_VIEWS = 10


class Host:
    """Where a Loader's batches are made if they are to stay on the host: an array each."""

    def __init__(self, prepare):
        self.prepare = prepare

    def room(self, seen):
        """An empty batch. seen: for every picture the list of Places at which it is seen."""
        side = self.prepare.crop
        return np.empty((len(seen), len(seen[0]), side, side, 3), np.float32)

    def put(self, batch, position, picture, places):
        """Put a (256, 256, 3) picture into a batch. Threads may, each at positions of its own."""
        for place, view in zip(places, batch[position], strict=True):
            self.prepare.fill(picture, view, place)

    def finish(self, batch, whole):
        """The images of a batch, (N, crop, crop, 3), or (N, views, crop, crop, 3) of several.
        whole: (N,) booleans; the others are left out."""
        images = batch if whole.all() else batch[whole]
        return images[:, 0] if images.shape[1] == 1 else images


class Gpu:
    """Where they are made if a GPU takes them: the same three steps, and the images are there.

    slots: for how many batches there is room. A batch takes that of the batch `slots` before it.
    """

    def __init__(self, prepare, device, batch_size, slots):
        self.prepare, self.device = prepare, device
        with device:
            self.copying = device.xp.cuda.Stream(non_blocking=True)
            self.mean = device.put(prepare.statistics.mean)
            self.slots = itertools.cycle([Slot(device, batch_size) for _ in range(slots)])

    def room(self, seen):
        slot = next(self.slots)
        slot.copied.synchronize()      # long since; else this batch would mix with one before
        places = [(position, *place[:3]) for position, views in enumerate(seen) for place in views]
        shifts = [place.shift for views in seen for place in views]
        slot.is_shifted = shifts[0] is not None
        slot.on_host["places"][:len(places)] = places
        slot.on_host["shifts"][:len(shifts)] = shifts if slot.is_shifted else 0
        slot.views = len(seen[0])
        return slot

    def put(self, slot, position, picture, places):
        slot.on_host["pictures"][position] = picture

    def finish(self, slot, whole):
        kept = np.flatnonzero(np.repeat(whole, slot.views))
        for table in slot.on_host["places"], slot.on_host["shifts"]:
            table[:len(kept)] = table[kept]
        with self.device as device:
            computing = device.xp.cuda.get_current_stream()
            self.copying.wait_event(slot.cropped)
            slot.device_bytes.set(slot.host_bytes, stream=self.copying)
            slot.copied.record(self.copying)
            computing.wait_event(slot.copied)
            images = kernels.crop(
                slot.on_device["pictures"], self.mean, slot.on_device["places"][:len(kept)],
                slot.on_device["shifts"][:len(kept)], self.prepare.factor(slot.is_shifted),
                self.prepare.crop, self.prepare.aligned)
            slot.cropped.record(computing)
            views = [slot.views] if slot.views > 1 else []
            return images.reshape(-1, *views, *images.shape[1:])


class Slot:
    """Room for the pictures of a batch and the places of their crops, on the host and on a GPU.

    copied: the event after which the host may write into it again. cropped: the one after which
    what is on the GPU may be overwritten.
    """

    def __init__(self, device, batch_size):
        crops = batch_size * MOST_VIEWS
        self.parts = dict(pictures=((batch_size, SIDE, SIDE, 3), np.uint8),
                          places=((crops, 4), np.int32), shifts=((crops, 3), np.float32))
        size = sum(np.dtype(kind).itemsize * math.prod(shape)
                   for shape, kind in self.parts.values())
        cuda = device.xp.cuda
        self.host_bytes = np.frombuffer(cuda.alloc_pinned_memory(size), np.uint8, size)
        self.device_bytes = device.xp.empty(size, np.uint8)
        self.on_host, self.on_device = map(self.split, (self.host_bytes, self.device_bytes))
        self.copied, self.cropped = (cuda.Event(disable_timing=True) for _ in range(2))
        self.cropped.record(cuda.get_current_stream())     # the memory may have been another's

    def split(self, memory):
        """The parts of this memory, one behind the other: {name: array}"""
        found, end = {}, 0
        for name, (shape, kind) in self.parts.items():
            start, end = end, end + np.dtype(kind).itemsize * math.prod(shape)
            found[name] = memory[start:end].view(kind).reshape(shape)
        return found
