"""How is a whole step asked of a GPU at once?

A step of AlexNet is some 250 kernels, each of which Python asks for by itself: together that took
hosts of 2026 from 9 to 17 milliseconds, where an H100 needs 9. But they are the same at every
step. So CUDA records once what is asked for, as a graph, and one call asks for all of it again.

A recording knows where numbers lie, and nothing of what Python did. So whatever is another one at
every step, pictures, labels and the number that dropout counts with, has a place on the card that
is written to before. The memory that was in use meanwhile stays with the recording, in a pool of
its own: all that CuPy frees there is taken again by the next replay.
"""
import gc
import weakref
from contextlib import suppress

import numpy as np

from . import products
from .engine import Tensor
from .layers import Dropout
from .progress import warn

SAME = 1e-5                    # so far apart, of their size, the numbers of a replay may be


class Replayed:
    """A function that teaches a net something: on one GPU it is recorded, and then replayed.

    function(*inputs) -> tensors. inputs: tensors that need no gradient, and arrays of their
    device. The function leaves gradients behind, needs none that were there, and else changes
    nothing on the card. What Python does in it, it does while it is recorded, and not again.
    Dropout layers, each used once, count as ever. Weights may change. If they come to lie
    elsewhere, or layers, what learns, the mode of a layer or the precision of products are others,
    the step is recorded anew.

    The second call in a row of one size is recorded. For others, as of the last batch of an
    epoch, the function is called as it is. If it cannot be recorded, or if its replay gives
    other numbers, this is said, and from then on it is always called as it is.
    """

    def __init__(self, function, model):
        self.function, self.model, self.recording, self.last = function, model, None, None
        self.fails = False

    def __call__(self, *inputs):
        kinds, before = [_kind(x) for x in inputs], self.last
        self.last = kinds
        if self.recording and not self.recording.holds():
            self._end()
        if not self.recording and kinds == before and self._suits():
            self.recording = self._record(inputs)
        if self.recording and self.recording.kinds == kinds:
            return self.recording.replay(*inputs)
        return self.beside(self.function, *inputs)

    def _suits(self):
        cards = {w.device.cuda.id if w.device.is_gpu else None
                 for _, w in self.model.parameters()}
        ranks = getattr(self.model, "ranks", None)     # others are asked in the middle of a step
        return (not self.fails and len(cards) == 1 and None not in cards
                and (not ranks or ranks.size == 1))

    def beside(self, f, *args, **how):
        """f(*args, **how). If beside a recording there is no room for it, the recording ends."""
        before = [layer.step for layer in self.recording.dropouts] if self.recording else []
        try:
            return f(*args, **how)
        except MemoryError:
            if not self.recording:
                raise
        for layer, step in zip(self.recording.dropouts, before, strict=True):
            layer.step = step
        self._end()
        return f(*args, **how)

    def _end(self):
        self.recording.end()
        self.recording = None

    def _record(self, inputs):
        recording = Recording(self.model, inputs)
        try:
            recording.record(self.function, inputs)
            return recording
        except Exception as error:     # of CUDA, of CuPy, or of the memory
            why = f"{type(error).__name__}: {error}"
        recording.end()                # now that no traceback keeps its arrays
        self.fails = True
        warn(f"a step cannot be recorded ({why}), so the GPU may wait for the host")


class Recording:
    """What a function asks of a card."""

    def __init__(self, model, inputs):
        self.model, self.weights = model, [(w, w.data) for _, w in model.parameters()]
        self.dropouts = [layer for _, layer in model.named_layers() if isinstance(layer, Dropout)]
        self.device, self.kinds = self.weights[0][0].device, [_kind(x) for x in inputs]
        self.gradients, self.inputs, self.how = [], [], self._how()
        with self.device as device:
            self.pool = Pool(device.xp.cuda)

    def record(self, function, inputs):
        """Raises whatever keeps it from being recorded."""
        if any(wants_gradient for *_, wants_gradient in self.kinds):
            raise ValueError("an input wants a gradient")
        with self.device as device:
            self.inputs = [_copy(x) for x in inputs]
            self.steps = [device.xp.zeros(1, np.uint64) for _ in self.dropouts]
            self._record(device.xp, function)
            device.xp.get_default_memory_pool().free_all_blocks()      # what it took besides

    def _record(self, xp, function):
        before = [layer.step for layer in self.dropouts]
        try:
            for layer, step in zip(self.dropouts, self.steps, strict=True):
                layer.place = step.view(np.uint32)
            with products.without_cupy():
                expected = self._numbers(function(*self.inputs))       # compiles what is new
                xp.get_default_memory_pool().free_all_blocks()         # for the second time
                self.uses = [layer.step - step
                             for layer, step in zip(self.dropouts, before, strict=True)]
                if max(self.uses, default=0) > 1:
                    raise RuntimeError("a dropout layer is used twice in it")
                self.graph, self.results = self._recorded(xp.cuda, function)
        finally:
            self.gradients = [w.grad for w, _ in self.weights]
            for layer, step in zip(self.dropouts, before, strict=True):
                layer.place, layer.step = None, step
        if not self.holds():
            raise RuntimeError("it gives the net other weights, or another mode")
        self.graph.launch(xp.cuda.get_current_stream())
        if not all(_same(xp, *pair) for pair in
                   zip(self._numbers(self.results), expected, strict=True)):
            raise RuntimeError("its replay gives other numbers")

    def _numbers(self, results):
        return [x.data for x in results] + [w.grad for w, _ in self.weights if w.grad is not None]

    def _recorded(self, cuda, function):
        """The graph, and what the function returned."""
        stream = cuda.Stream(non_blocking=True)
        with stream, cuda.using_allocator(self.pool.cupys.malloc):
            stream.begin_capture()
            try:
                results = function(*self.inputs)
            except BaseException:
                with suppress(RuntimeError):           # of CUDA, since the end comes too early
                    stream.end_capture()
                raise
            graph = stream.end_capture()
        if self.pool.was_short():
            raise MemoryError("the card has too little left for a second place for it")
        return graph, results

    def _how(self):
        return ([(layer, layer.training) for _, layer in self.model.named_layers()],
                products.precision(self.device.xp),
                [w.requires_grad for w, _ in self.weights])

    def holds(self):
        """Whether a step would be the same, and all weights are where they were."""
        now = [w for _, w in self.model.parameters()]
        return len(now) == len(self.weights) and self.how == self._how() and all(
            w is same and w.data is array
            for w, (same, array) in zip(now, self.weights, strict=True))

    def replay(self, *inputs):
        """What the function returns for these inputs, in arrays of its own."""
        with self.device as device:
            for place, x in zip(self.inputs, inputs, strict=True):
                _array(place)[...] = _array(x)
            for layer, step, uses in zip(self.dropouts, self.steps, self.uses, strict=True):
                step.fill(layer.step)
                layer.step += uses
            self.graph.launch(device.xp.cuda.get_current_stream())
            for (w, _), gradient in zip(self.weights, self.gradients, strict=True):
                w.grad = gradient
            return [_copy(result) for result in self.results]

    def end(self):
        """Give its memory back. CuPy's pool would keep it for ever, even if it is dropped."""
        for (w, _), gradient in zip(self.weights, self.gradients, strict=False):
            if w.grad is gradient:
                w.grad = None
        self.graph = self.results = self.inputs = None
        self.gradients = []
        gc.collect()                   # of the graph behind a tensor that was not used up
        with self.device:
            self.pool.cupys.free_all_blocks()

    def __del__(self):
        with suppress(Exception):      # at the end of Python, CuPy may have gone before
            if self.inputs is not None:
                self.end()


class Pool:
    """Memory of one recording, on the current card."""

    def __init__(self, cuda):
        taken = self.taken = []        # bytes that it has had from the card

        def allocate(size):
            place = cuda.MemoryPointer(cuda.Memory(size), 0)
            taken.append(size)
            return place

        self.cupys = cuda.MemoryPool(allocate)
        pools.add(self)

    def was_short(self):
        """If the card has no more, CuPy gives back what seems free. A graph would write to it."""
        return self.cupys.total_bytes() < sum(self.taken)


pools = weakref.WeakSet()


def held():
    """Bytes of the current card that recordings hold."""
    return sum(pool.cupys.total_bytes() for pool in pools)


def _kind(x):
    return x.shape, _array(x).dtype, getattr(x, "requires_grad", False)


def _array(x):
    return x.data if isinstance(x, Tensor) else x


def _copy(x):
    return Tensor(x.data, x.device) if isinstance(x, Tensor) else x.copy()


def _same(xp, found, expected):
    """Whether these are the same numbers, but for rounding. Those that are none have no others."""
    size = float(xp.linalg.norm(expected.ravel()))
    return not size < np.inf or float(xp.linalg.norm((found - expected).ravel())) <= SAME * size
