"""How does a long job say how it goes, and how is it stopped without losing anything?"""
import os
import signal
import sys
import time

from tqdm import tqdm

from . import ops
from .device import get_array_module, to_host


def bar(total, what, done=0):
    """A tqdm bar on stderr; where that is no terminal, nothing (log lines suffice)."""
    return tqdm(total=total, initial=done, desc=what, disable=None, leave=False,
                dynamic_ncols=True, smoothing=0.05)


def say(line):
    """Print a line without breaking the bar. If nobody reads any more, the job goes on."""
    try:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")


def warn(line):
    """The same on stderr."""
    tqdm.write(line, file=sys.stderr)


def shown(path):
    """A path as short as it can be typed from here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def in_words(seen):
    """Loss and errors, as Meter.read gives them, for a line of text."""
    return (f"loss {seen['loss']:.4f}  error top-1 {seen['top1_error']:.1%} "
            f"top-5 {seen['top5_error']:.1%}")


class Meter:
    """Loss and errors summed over batches, on the device until somebody reads them.

    Reading a number makes the host wait for a GPU, so it is not done at every step.
    """

    def __init__(self):
        self.reset()

    def reset(self):
        self.sums = None
        self.pictures, self.waited = 0, 0.0
        self.start = time.perf_counter()

    def add(self, loss, logits, labels, waited):
        """Count a batch. loss, logits: tensors; labels: an array on their device; waited:
        seconds spent on waiting for pictures. Of fewer than five classes, top-5 is all."""
        count, classes = logits.shape
        xp = get_array_module(logits.data)
        with logits.device:
            sums = xp.stack([loss.data * count,
                             ops.errors(logits.data, labels, 1),
                             ops.errors(logits.data, labels, min(5, classes))],
                            dtype=xp.float64)          # counts beyond 2**24 stay exact
            self.sums = sums if self.sums is None else self.sums + sums
        self.pictures += count
        self.waited += waited

    def read(self):
        """Means since the last reset, as a dict. Errors and waited are shares (0 ... 1)."""
        loss, top1, top5 = (to_host(self.sums) / self.pictures).tolist()
        seconds = time.perf_counter() - self.start
        return dict(loss=loss, top1_error=top1, top5_error=top5, pictures=self.pictures,
                    images_per_s=self.pictures / seconds, waited=self.waited / seconds)


class Interruptible:
    """Inside, Ctrl-C (or a termination signal) is noted instead of breaking off.

    Ask `if interrupted:` between two steps. A second Ctrl-C leaves at once.
    """

    SIGNALS = signal.SIGINT, signal.SIGTERM

    def __init__(self):
        self.asked = False

    def __bool__(self):
        return self.asked

    def __enter__(self):
        self.before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *error):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        self.asked = True
        signal.signal(number, signal.default_int_handler)
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"\nfinishing this step, then saving (Ctrl-C again: leave at once)\n")
