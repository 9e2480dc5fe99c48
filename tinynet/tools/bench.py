"""How fast is it, and how fast could it be on this machine?

Every speed stands beside a ceiling. Both are measured in turn in the same run, so that both
suffer alike when the machine is busy with other things.
"""
import io
import math
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import numpy as np
from PIL import Image

from ..cores import edges, matmul, over_batch
from ..device import Device, precision_of
from ..engine import Tensor, graph, no_grad
from ..layers import watched
from ..ops import softmax_cross_entropy
from ..optim import SGD
from ..pictures import upload
from ..pictures.batches import Loader, measure
from ..pictures.dataset import Some
from ..pictures.images import KINDS, Preparation, decoded
from ..ranks import ALONE
from ..replay import Replayed
from . import machine, memory
from .anatomy import layer_name, layers_of


def interval(values):
    """Median, smallest and largest of some measurements, as a dict."""
    return dict(median=median(values), low=min(values), high=max(values))


# --- the input pipeline -----------------------------------------------------------------


def repeated(pictures, count):
    """`count` pictures: those of a data set, over and over if it has fewer."""
    return Some(pictures, np.arange(count) % len(pictures))


def input_speed(pictures, recipe, workers, rounds=5):
    """Pictures per second of the input pipeline, and of what it cannot do without.

    Two things are measured in turn, with the same number of threads: the loader (read, decode,
    enlarge, crop, flip, colour, mean), and a bare decode of the same stored bytes. Returns a
    dict of intervals. `share` is the loader's part of the decoder's speed, round by round.
    """
    Device("cpu")                                      # as in training: keeps freed memory
    about = pictures.statistics                        # else those of some will do for their speed
    about = about or measure(repeated(pictures, min(100, len(pictures))), workers)
    batch = recipe.batch_size
    warm_up = 4 * batch                # of three batches in the making and one in use
    pictures = repeated(pictures, warm_up + max(1024, 4 * batch))
    loader = Loader(pictures, Preparation(recipe, about), batch, workers)
    made, decoded = [], []
    for epoch in range(rounds):
        made.append(_loader_speed(loader, epoch))
        decoded.append(_decode_speed(pictures, workers))
    shares = [one / other for one, other in zip(made, decoded, strict=True)]
    return dict(workers=workers, batch_size=recipe.batch_size,
                loader_pictures_per_s=interval(made), decode_pictures_per_s=interval(decoded),
                share=interval(shares))


def report_input(result):
    """What input_speed found, as lines of text."""
    for what, name in (("read, decode, crop, flip, colour, mean", "loader_pictures_per_s"),
                       ("bare decode of the same files", "decode_pictures_per_s")):
        one = result[name]
        yield (f"{what:40}{one['median']:>8,.0f} pictures/s "
               f"({one['low']:,.0f} ... {one['high']:,.0f})")
    share = result["share"]
    yield (f"share of the bare decode: {share['median']:.0%} ({share['low']:.0%} ... "
           f"{share['high']:.0%}), {result['workers']} workers")


def _loader_speed(loader, epoch):
    """From the moment on when every array of the loader has been filled once."""
    pictures = 0
    for number, batch in enumerate(loader.training(epoch)):
        if number < loader.ahead + 2:
            start = time.perf_counter()
        else:
            pictures += len(batch.labels)
    return pictures / (time.perf_counter() - start)


def _decode_speed(pictures, workers):
    def decode(index):
        try:
            if decoded(data := pictures.bytes(index)) is None:
                Image.open(io.BytesIO(data), formats=KINDS).load()
        except Exception:                  # a damaged file can fail in any way
            return 0
        return 1

    start = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        count = sum(pool.map(decode, range(len(pictures))))
    return count / (time.perf_counter() - start)


# --- the net ----------------------------------------------------------------------------


def net_speed(build, classes, devices, recipe, rounds=5, ranks=ALONE):
    """How fast a net tells images apart and learns, what memory that takes, and what this
    machine could do.

    build(classes, devices, recipe) is called here, so that the net's own memory counts. In
    turn, `rounds` times after a warm-up: inference, a training step (forward, backward,
    update), the same step op by op, and the ceilings. Returns a dict of intervals and rows. Of
    several ranks all do this together, and each tells of itself.
    """
    before = {machine.place(device): machine.in_use(device) for device in devices}
    model = build(classes, devices, recipe, ranks).initialize()
    needs = memory.by_place(memory.of_model(model))
    optimizer = SGD(model.parameters(), recipe.lr, recipe.momentum, recipe.wd)
    work = Work(model, optimizer, (recipe.batch_size, recipe.crop, recipe.crop, 3), classes)
    peak = work.peak()
    held = {place: peak[place] and peak[place] - before[place] for place in peak}
    return dict(
        device=[str(device) for device in devices], recipe=recipe.name,
        precision=precision_of(devices, recipe.precision),
        memory={place: dict(need.parts(recipe.batch_size), total=need.total(recipe.batch_size),
                            measured=held[place]) for place, need in needs.items()},
        **work_speed(work, rounds), **work.talk())


def work_speed(work, rounds=5):
    """What net_speed measures in turn, of a Work."""
    ceilings = Ceilings(work.devices[0], *work.largest_product())
    repeat = IN_A_ROW if work.devices[0].is_gpu else 1
    seen = []
    for _ in range(1 + rounds):
        seen.append((*[timed(job, work.devices, repeat) for job in (work.infer, work.step)],
                     work.step_by_op(), ceilings.measure()))
    infer, step, by_op, ceiling = zip(*seen[1:], strict=True)
    batch = len(work.labels)
    operations = sum(row["forward_gflop"] + row["backward_gflop"] for row in by_op[0])
    return dict(
        batch_size=batch, step_gflop=operations,
        inference_images_per_s=interval([batch / seconds for seconds in infer]),
        step_images_per_s=interval([batch / seconds for seconds in step]),
        step_ms=interval([1000 * seconds for seconds in step]), ops=_median_rows(by_op),
        ceilings={name: interval([one[name] for one in ceiling]) for name in ceiling[0]},
        share_of_sgemm=interval([operations / seconds / one["sgemm_gflops"]
                                 for seconds, one in zip(step, ceiling, strict=True)]))


def timed(f, devices, repeat=1):
    """How many seconds f() takes, all that it makes these devices do included. repeat: how often
    to do it in a row, if that is no more work for a GPU than waiting for it."""
    for device in devices:
        device.synchronize()
    start = time.perf_counter()
    for _ in range(repeat):
        f()
    for device in devices:
        device.synchronize()
    return (time.perf_counter() - start) / repeat


class Work:
    """A batch of noise, and what is done with it. On a GPU, or on both, it is there already: the
    Loader brings a batch while the one before is computed."""

    def __init__(self, model, optimizer, shape, classes):
        self.model, self.optimizer, self.devices = model, optimizer, model.devices
        self.ranks = getattr(model, "ranks", ALONE)
        self.lanes = np.diff(edges(shape[0])).tolist()
        draw = np.random.default_rng(0)
        images = draw.standard_normal(shape, np.float32)[self.ranks.own(shape[0])]
        self.images = [Tensor(device.put(images), device)
                       for device in upload.cards_of(self.devices) or self.devices[:1]]
        self.labels = self.devices[0].put(draw.integers(0, classes, shape[0]))
        self.find_gradients = Replayed(lambda: [self._gradients_of(self.loss())], model)

    def infer(self):
        self.model.eval()
        with no_grad(), self.ranks.batch(self.lanes):
            self.model(*self.images)

    def loss(self):
        self.model.train()
        with self.ranks.batch(self.lanes):
            logits = self.model(*self.images)
        return softmax_cross_entropy(logits, labels=self.labels)

    def _gradients_of(self, loss):
        self.optimizer.zero_grad()
        with self.ranks.batch(self.lanes):
            loss.backward()
            self.ranks.sum_gradients(self.model)
        return loss

    def learn_from(self, loss):
        self._gradients_of(loss)
        self.optimizer.step()

    def step(self):
        """As `train` takes it: replayed, on one GPU."""
        self.model.train()
        self.find_gradients()
        self.optimizer.step()

    def talk(self):
        """What one more step has to say to other ranks, if there are some."""
        if self.ranks.size == 1:
            return {}
        sent, talked = self.ranks.sent, self.ranks.talked
        seconds = timed(self.step, self.devices)
        return dict(ranks=self.ranks.size, sent_mb=(self.ranks.sent - sent) / 1e6, talked=max(
            self.ranks.everywhere((self.ranks.talked - talked) / seconds)))

    def peak(self):
        """{place: the most bytes held during a training step}, None if nobody knows."""
        self.step()                                    # velocities and gradients exist now
        for device in self.devices:
            machine.forget_peak(device)
        self.step()
        return {machine.place(device): machine.peak(device) for device in self.devices}

    def largest_product(self):
        """(rows, K, columns) of the layer with the most multiplications, as one product."""
        node = max(graph(self.loss()), key=lambda node: gflop(node)[0])
        *seen, columns = node.inputs[1].shape
        return math.prod(node.shape[:-1]), math.prod(seen), columns

    def step_by_op(self):
        """A step in which every op is waited for: a row for each op of each layer, in order,
        both towers together, and a last one for all that is no op: the update above all."""
        seconds = {}                                   # node -> [forward, backward]
        leaves = {path: layer for path, layer in self.model.named_layers() if not layer.layers()}

        def clocked(_, forward, x):
            y = []
            spent = timed(lambda: y.append(forward(x)), [x.device])
            seconds[y[0].node] = [spent, 0.0]
            return y[0]

        losses = []
        with watched(leaves, clocked):
            forward = timed(lambda: losses.append(self.loss()), self.devices)
        rows = {}
        for node, layer in layers_of(losses[0]).items():
            clock = seconds.setdefault(node, [0.0, 0.0])
            rows.setdefault((layer, node.op), []).append((clock, gflop(node)))
            node.grad_fns = [_clocked_gradient(f, clock, node.device) for f in node.grad_fns]
        backward = timed(lambda: self.learn_from(losses.pop()), self.devices)
        rest = [total - sum(clock[i] for clock in seconds.values())
                for i, total in enumerate((forward, backward))]
        rows["", "update and the rest"] = [(rest, (0.0, 0.0))]
        return [_row(*name, *zip(*parts, strict=True)) for name, parts in rows.items()]


def _clocked_gradient(grad_fn, clock, device):
    def clocked(dy):
        dx = []
        clock[1] += timed(lambda: dx.append(grad_fn(dy)), [device])
        return dx[0]
    return clocked


def gflop(node):
    """Operations of an op that multiplies by weights, forward and backward, in units of 1e9.

    Two for each multiply-add of the direct form, whichever form computed it. Backward there
    is a product for the weights, and one for the input unless that is the image.
    """
    if not layer_name(node):
        return 0.0, 0.0
    x, W = node.inputs[:2]
    forward = 2e-9 * math.prod(node.shape[:-1]) * W.data.size
    return forward, forward * (x.requires_grad + W.requires_grad)


def _row(layer, op, clocks, gflops):
    forward, backward = (1000 * sum(clock[i] for clock in clocks) for i in (0, 1))
    return dict(layer=layer, op=op, forward_ms=forward, backward_ms=backward,
                forward_gflop=sum(g[0] for g in gflops), backward_gflop=sum(g[1] for g in gflops))


def _median_rows(rounds):
    """The rows with the medians of their times over all rounds, and their share of the sum."""
    rows = [dict(same[0], **{name: median(row[name] for row in same)
                             for name in ("forward_ms", "backward_ms")})
            for same in zip(*rounds, strict=True)]
    total = sum(row["forward_ms"] + row["backward_ms"] for row in rows)
    for row in rows:
        row["share"] = (row["forward_ms"] + row["backward_ms"]) / total
    return rows


def report(result):
    """What net_speed found, as lines of text."""
    def said(name, unit):
        one = result[name] if name in result else result["ceilings"][name]
        return (f"{one['median']:,.1f} {unit} "
                f"({one['low']:,.1f} ... {one['high']:,.1f})")

    yield (f"{'layer':7}{'op':22}{'forward ms':>11}{'GFLOP/s':>9}{'backward ms':>13}"
           f"{'GFLOP/s':>9}{'share':>8}")
    for row in result["ops"]:
        if row["share"] >= 0.0005:
            yield (f"{row['layer']:7}{row['op']:22}" + "".join(
                f"{row[way + '_ms']:>{width}.1f}{_rate(row, way):>9}"
                for way, width in (("forward", 11), ("backward", 13))) + f"{row['share']:>8.1%}")
    yield (f"batches of {result['batch_size']}; {result['step_gflop']:,.1f} GFLOP a step (direct "
           f"form), {result['precision']}; median (low ... high):")
    yield "inference      " + said("inference_images_per_s", "images/s")
    yield "training step  " + said("step_images_per_s", "images/s")
    yield "               " + said("step_ms", "ms")
    yield "large sgemm    " + said("sgemm_gflops", "GFLOP/s")
    yield "net's sgemm    " + said("own_sgemm_gflops", "GFLOP/s") + ", its largest layer"
    yield "large copy     " + said("copy_gb_per_s", "GB/s")
    share = result["share_of_sgemm"]
    for place, need in result["memory"].items():
        measured = need["measured"] and f"{need['measured'] / 1e6:,.1f} MB"
        yield (f"peak memory    {measured or 'not known here'} on {place}; predicted: "
               f"{need['total'] / 1e6:,.1f} MB")
    if "ranks" in result:
        yield (f"{result['ranks']} ranks: this one sends {result['sent_mb']:,.2f} MB a step, and "
               f"talks and waits {result['talked']:.0%} of the time")
    yield (f"the step runs at {share['median']:.0%} ({share['low']:.0%} ... "
           f"{share['high']:.0%}) of the large sgemm")


def _rate(row, way):
    rate = 1000 * row[way + "_gflop"] / row[way + "_ms"] if row[way + "_ms"] else 0
    return f"{rate:,.1f}" if rate else ""


IN_A_ROW = 20                  # steps, products or copies that a GPU does before it is waited for
CEILINGS = 560 << 20           # bytes: what Ceilings hold at most, beside the results


class Ceilings:
    """What the machine gives when it does nothing else: one large product, a product of the
    net's own shape, one large copy, on all cores."""

    def __init__(self, device, rows, inner, columns, size=2048):
        self.device = device
        rows, columns = (min(size, 2 ** 25 // inner) for size in (rows, columns))     # 128 MB
        with device:
            ones = device.xp.ones
            self.large = ones((2 * size, size), np.float32), ones((size, size), np.float32)
            self.own = ones((rows, inner), np.float32), ones((inner, columns), np.float32)
            self.source = ones(2 ** 25, np.float32)
            self.target = device.xp.empty_like(self.source)

    def measure(self):
        """GFLOP/s of both products, and GB/s of the copy, reading and writing counted."""
        def copy():
            over_batch(_copy, self.source, out=self.target)

        with self.device:
            return dict(sgemm_gflops=self._gflops(*self.large),
                        own_sgemm_gflops=self._gflops(*self.own),
                        copy_gb_per_s=2e-9 * self.source.nbytes / self._timed(copy))

    def _gflops(self, a, b):
        return 2e-9 * a.size * b.shape[1] / self._timed(lambda: matmul(a, b))

    def _timed(self, f):
        return timed(f, [self.device], IN_A_ROW if self.device.is_gpu else 1)


def _copy(source, target):
    target[...] = source
