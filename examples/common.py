"""What do the examples share? Pictures in memory, runs that stop and go on, and curves.

An example imports this first: it makes `data` and `tinynet` importable.
"""
import argparse
import csv
import io
import json
import math
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parent.parent


from data import cifar10
from tinynet import device, ops, rng, store
from tinynet.engine import Tensor, no_grad
from tinynet.errors import UserError
from tinynet.progress import Interruptible, Meter, bar, say, shown

RUNS = ROOT / "runs"


# --- pictures ---------------------------------------------------------------------------


class Pictures:
    """Pictures in memory, and how they are cut out and shifted before the net sees them.

    train, test: cifar10.Labelled. The training mean is subtracted, and the rest multiplied
    by `scale`. crop: pixels on a side of what the net sees; augment: for training, random
    crops, mirrored or not, instead of the central one. What is random is a function of
    (seed, epoch, picture).
    """

    def __init__(self, train, test, crop=32, augment=False, scale=1.0, seed=0):
        self.train, self.test, self.seed = train, test, seed
        self.crop, self.augment = crop, augment
        self.scale = np.float32(scale)
        edge = (32 - crop) // 2
        mean = train.images.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.mean = mean[edge:edge + crop, edge:edge + crop]

    def order(self, epoch, first=None):
        """The first `first` training pictures (default: all) in the order of an epoch."""
        return rng.permutation(len(self.train.labels[:first]), seed=self.seed,
                               purpose=rng.ORDER, step=epoch)

    def batch(self, chosen, epoch):
        """Training pictures: images (N, crop, crop, 3) float32 and labels (N,)."""
        if self.augment:
            draw = rng.words(np, chosen, seed=self.seed, purpose=rng.CROP, step=epoch)
            draw = draw.astype(np.int64)
            side = np.arange(self.crop)
            rows, columns = side + draw[:, :2].T[:, :, None] % (33 - self.crop)
            columns = np.where(draw[:, 2:3] % 2, columns[:, ::-1], columns)      # mirrored
            images = self.train.images[chosen[:, None, None], rows[:, :, None],
                                       columns[:, None, :]]
        else:
            images = self.view(self.train.images[chosen], *self.places(1)[0])
        return self.shifted(images), self.train.labels[chosen]

    def views(self, rows, count):
        """Test pictures: `count` (1 or 9) views of each, (N * count, crop, crop, 3)."""
        images = self.test.images[rows]
        views = [self.view(images, *place) for place in self.places(count)]
        return self.shifted(np.stack(views, axis=1)).reshape(-1, self.crop, self.crop, 3)

    def places(self, count):
        """(top, left) of the central crop, or of a 3 x 3 grid of crops."""
        room = 32 - self.crop
        steps = (room // 2,) if count == 1 else (0, room // 2, room)
        return [(top, left) for top in steps for left in steps]

    def view(self, images, top, left):
        return images[:, top:top + self.crop, left:left + self.crop]

    def shifted(self, images):
        images = images - self.mean
        images *= self.scale
        return images


def load(source=None):
    """CIFAR-10 as (train, test), where `source` says or where cifar10.find finds it.

    Raises UserError, which says how to get it.
    """
    try:
        return cifar10.load(source)
    except (OSError, ValueError) as error:
        raise UserError(error) from error


def test(model, pictures, where, views=1, batch_size=500):
    """Loss and error on the test pictures, of the mean probability over `views` crops.

    batch_size: views at a time.
    """
    model.eval()
    meter = Meter()
    labels = pictures.test.labels
    with no_grad():
        for start in range(0, len(labels), batch_size // views):
            rows = slice(start, start + batch_size // views)
            logits = model(Tensor(pictures.views(rows, views), where))
            if views > 1:
                with logits.device:
                    logits = Tensor(ops.mean_over_views(logits.data, views), logits.device)
            answers = where.put(labels[rows])
            meter.add(ops.softmax_cross_entropy(logits, labels=answers), logits, answers, 0)
    seen = meter.read()
    return dict(test_loss=seen["loss"], test_error=seen["top1_error"])


# --- runs -------------------------------------------------------------------------------


class Interrupted(Exception):
    """Somebody pressed Ctrl-C; everything is saved."""


class Diverged(UserError):
    """The loss is no finite number any more; the file holds the last point where it was."""


class Run:
    """A training run that lives in a file: who starts it again goes on where it stopped, and
    has the curve of a finished one at once.

    settings: what the run is a function of (JSON can hold it); a file made with others is
    refused. steps: how many there will be, for the bar. curve: a dict for every `point`;
    result: what the run was finished with, or None.
    """

    KEPT = "epoch", "position", "length", "step", "seconds", "curve", "result"

    def __init__(self, path, settings, model, optimizer, steps):
        self.path, self.steps = Path(path), steps
        self.settings = json.loads(json.dumps(settings))       # tuples become lists
        self.model, self.optimizer = model, optimizer
        self.epoch = self.step = 0
        self.position, self.length = 0, 1      # pictures of this epoch: behind us, and all
        self.seconds = 0.0                     # of training, without the tests
        self.curve, self.result = [], None
        self.meter, self.resumed = Meter(), False
        if self.path.exists():
            self._restore(store.Checkpoint(self.path))

    def __enter__(self):
        if not self.path.exists():
            self.save()                # what would keep us from it shows now, not in an hour
        self.interrupted = Interruptible().__enter__()
        self.bar = bar(self.steps, self.path.stem, self.step)
        return self

    def __exit__(self, *error):
        self.bar.close()
        self.interrupted.__exit__(*error)
        if self.interrupted and error == (None, None, None):
            raise Interrupted          # it came when nobody looked any more

    def batches(self, pictures, size=128, most=None, points=0):
        """The rest of this epoch as (images, labels). Raises Interrupted after Ctrl-C.

        most: only so many pictures, the first ones, in random order. points: how many points
        of the curve to make on the way; without them a point is due after the epoch.
        """
        if self.resumed:
            say(f"{shown(self.path)}: going on at epoch {self.epochs:.2f}")
            self.resumed = False
        order = pictures.order(self.epoch, most)
        self.length = len(order)
        for first in range(self.position, self.length, size):
            start = time.perf_counter()
            chosen = order[first:first + size]
            yield pictures.batch(chosen, self.epoch)
            end = first + len(chosen)
            over = end == self.length
            self.epoch, self.position = self.epoch + over, 0 if over else end
            self.step += 1
            self.seconds += time.perf_counter() - start
            self.bar.update()
            if end * points // self.length > first * points // self.length:
                self.point()
            elif self.interrupted and not over:        # else the point of this epoch is due
                self.save()
                raise Interrupted

    @property
    def epochs(self):
        """How many epochs are behind us, with the part of this one."""
        return self.epoch + self.position / self.length

    def point(self, **more):
        """Add to the curve, and say, how training went since the last point; save.

        Raises Interrupted after Ctrl-C, and Diverged.
        """
        seen = self.meter.read()
        if not math.isfinite(seen["loss"]):
            raise Diverged(f"{self.path.stem}: the loss is {seen['loss']} in epoch "
                           f"{self.epochs:.4g}: training has diverged; the rate is too large")
        self.meter.reset()
        point = dict(epoch=self.epochs, loss=seen["loss"], error=seen["top1_error"], **more)
        self.curve.append(dict(point, seconds=round(self.seconds, 1)))
        say(f"{self.path.stem}: epoch {point.pop('epoch'):.4g}  "
            + "  ".join(f"{name.replace('_', ' ')} "
                        + (f"{value:.2%}" if "error" in name else f"{value:.4f}")
                        for name, value in point.items())
            + f"  {self.seconds:.0f} s")
        self.save()
        if self.interrupted:
            raise Interrupted

    def finish(self, **result):
        """Nothing more will come but what is said here."""
        self.result = result
        self.save()

    def save(self):
        arrays = store.training_arrays(self.model, self.optimizer)
        state = {name: getattr(self, name) for name in self.KEPT}
        sums = self.meter.sums
        since = [] if sums is None else [self.meter.pictures, device.to_host(sums).tolist()]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            store.save(self.path, arrays, dict(settings=self.settings, state=state,
                                                    since_point=since))
        except OSError as error:
            raise UserError(f"cannot write {shown(self.path)}: {error.strerror or error}; what "
                            "was saved before is kept, and the same command goes on") from error

    def _restore(self, saved):
        settings = saved.meta.get("settings")
        if settings != self.settings:
            raise UserError(f"{shown(self.path)} was made with other settings:\n"
                            f"    {settings}\nnot\n    {self.settings}\n"
                            "rename or delete it to train anew")
        saved.load_training(self.model, self.optimizer)
        vars(self).update(saved.meta["state"])
        if saved.meta["since_point"]:
            where = next(iter(self.optimizer.parameters.values())).device
            self.meter.pictures, sums = saved.meta["since_point"]
            self.meter.sums = where.put(np.array(sums))
        self.resumed = True


# --- pictures and tables of what came out -----------------------------------------------


def write_csv(path, curves):
    """A row for every point of {name: curve}, curves as Run has them."""
    table = io.StringIO(newline="")
    rows = [dict(run=name, **point) for name, curve in curves.items() for point in curve]
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with store.replacing(path) as file:
        file.write(table.getvalue().encode())


def draw_curves(path, lines, title, across="Epochs", up="Error"):
    """A PNG with (label, points, style) lines: points (x, share), style a colour and "solid",
    "dashed" or "thin". Lines without a label are not in the legend."""
    width, height, left, top, right, bottom = 1280, 860, 130, 90, 40, 110
    paper = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(paper)
    font = {size: ImageFont.load_default(size) for size in (22, 26, 30)}
    largest = [max(point[axis] for _, points, _ in lines for point in points) for axis in (0, 1)]
    steps = [nice_step(value) for value in largest]
    most = [step * -(-value // step) for value, step in zip(largest, steps)]

    def at(x, y):
        return (left + (width - left - right) * x / most[0],
                height - bottom - (height - top - bottom) * y / most[1])

    pen.text((width / 2, top / 2), title, "black", font[30], "mm")
    pen.text((width / 2, height - 30), across, "black", font[26], "mm")
    pen.text((14, top - 44), up, "black", font[26], "lm")
    for tick in np.arange(0, most[0] + steps[0] / 2, steps[0]):
        pen.line([at(tick, 0), at(tick, most[1])], "#e4e4e4")
        pen.text((at(tick, 0)[0], height - bottom + 26), f"{tick:g}", "black", font[22], "mm")
    for tick in np.arange(0, most[1] + steps[1] / 2, steps[1]):
        pen.line([at(0, tick), at(most[0], tick)], "#e4e4e4")
        pen.text((left - 14, at(0, tick)[1]), f"{tick:.3g}" if most[1] > 1 else f"{tick:.0%}",
                 "black", font[22], "rm")
    pen.line([at(0, most[1]), at(0, 0), at(most[0], 0)], "black", 2)
    legend = top + 14
    for label, points, (colour, stroke) in lines:
        stretch(pen, [at(*point) for point in points], colour, stroke)
        if label:
            stretch(pen, [(width - 430, legend), (width - 370, legend)], colour, stroke)
            pen.text((width - 355, legend), label, "black", font[22], "lm")
            legend += 34
    with store.replacing(path) as file:
        paper.save(file, "PNG")


def nice_step(largest):
    """A distance of ticks, 1, 2 or 5 times a power of ten, of which 4 to 10 fit."""
    largest = largest or 1.0           # of a curve that is zero everywhere
    tens = 10.0 ** np.floor(np.log10(largest))
    return next(step * tens for step in (0.1, 0.2, 0.5, 1.0) if largest / (step * tens) <= 10)


def stretch(pen, corners, colour, stroke):
    """A line through corners, solid, thin or dashed."""
    if stroke != "dashed":
        pen.line(corners, colour, 2 if stroke == "thin" else 5, "curve")
        return
    x, y = np.transpose(corners)
    far = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    for start in np.arange(0, far[-1], 24):
        steps = np.linspace(start, min(start + 14, far[-1]), 8)
        pen.line(list(zip(np.interp(steps, far, x), np.interp(steps, far, y))), colour, 5)


# --- the command line -------------------------------------------------------------------


def add_options(parser, towers=1, output=True):
    """Options that all examples share. towers: how many devices there may be; output:
    whether files are written."""
    default = ",".join(device.default_devices().split(",")[:towers])
    parser.add_argument("--device", metavar="D" if towers == 1 else "D[,D]", default=default,
                        help="cpu, gpu0, ... (default here: %(default)s)")
    parser.add_argument("--from", dest="source", metavar="PATH",
                        help="CIFAR-10: a folder or an archive (default: in TINYNET_DATA, or "
                             "data/cifar10)")
    if output:
        parser.add_argument("--output-dir", metavar="DIR", type=Path,
                            help=f"default: {shown(RUNS)}/<what is run>")
    return parser


def positive(text):
    """An argparse type: an integer that is at least 1."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return int(text)


def seed(text):
    """An argparse type: an integer that rng.words takes."""
    if not 0 <= int(text) < 2 ** 56:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 2**56, not {text}")
    return int(text)


def numbers(text):
    """An argparse type: "0.01,0.1" as a list of numbers."""
    return [float(word) for word in text.split(",")]


def main(run, parser, argv=None):
    """Run an example; errors and Ctrl-C become a line on stderr and an exit status."""
    args = parser.parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)    # a net that diverges overflows
            return run(args)
    except (UserError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    except Interrupted:
        print(f"{parser.prog}: interrupted; the same command goes on", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"\n{parser.prog}: interrupted", file=sys.stderr)
    return 130
