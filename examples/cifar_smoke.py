"""Does it all work here? Two towers learn CIFAR-10 in about a minute.

    python examples/cifar_smoke.py
    python examples/cifar_smoke.py --device cpu0,cpu1         or gpu0,gpu1, or gpu0:a,gpu0:b

The towers are AlexNet's in small: they meet in layers 3 and 4 and end in one layer. Without
CIFAR-10 the net learns drawn patterns instead. The exit status is 0 only if it has learned.
"""
import sys
import time

import numpy as np

import common
from common import Pictures
from data import cifar10
from tinynet import (
    LRN,
    SGD,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    MaxPool,
    ReLU,
    Sequential,
    Tensor,
    UserError,
    ops,
)
from tinynet.device import devices
from tinynet.pictures import patterns
from tinynet.progress import bar, say
from tinynet.split import exchange, gather, send_to_both
from tinynet.training.evaluation import Meter, evaluate, in_words

LEARNED = 0.5                  # test error below which a net has learned; chance is 0.9
BATCH = 64


class Tower(Layer):
    """One row of Figure 2 for pictures of 32 x 32 pixels."""

    def __init__(self, where):
        self.conv1 = Sequential(Conv2D(3, 16, 5, pad=2), ReLU(), LRN(), MaxPool())
        self.conv2 = Sequential(Conv2D(16, 32, 3, pad=1), ReLU(), LRN(), MaxPool())
        self.conv3 = Sequential(Conv2D(64, 32, 3, pad=1), ReLU(), MaxPool())
        self.fc4 = Sequential(Flatten(), Dense(64 * 3 * 3, 64), ReLU())
        self.to(where)


class TwoTowers(Layer):
    """Both rows, each on a device of its own; where they meet, the activations cross."""

    def __init__(self, top, bottom):
        self.top, self.bottom = Tower(top), Tower(bottom)
        self.fc5 = Dense(2 * 64, 10, std=0.01).to(top)
        self.devices = top, bottom

    def forward(self, image):
        t, b = self.top, self.bottom
        top, bottom = send_to_both(image, *self.devices)
        top, bottom = t.conv1(top), b.conv1(bottom)
        top, bottom = t.conv2(top), b.conv2(bottom)
        top, bottom = exchange(top, bottom)
        top, bottom = t.conv3(top), b.conv3(bottom)
        top, bottom = exchange(top, bottom)
        top, bottom = t.fc4(top), b.fc4(bottom)
        return self.fc5(gather(top, bottom))


def load(source):
    """CIFAR-10 if it is here, else drawn patterns, and a warning that cannot be missed."""
    if source or cifar10.find():
        return common.load(source)
    print("*** CIFAR-10 is not here: these are DRAWN PATTERNS instead. To get CIFAR-10:\n"
          "***     python data/cifar10.py\n"
          "*** or name a copy, with --from PATH or in TINYNET_DATA.", file=sys.stderr)
    return draw("train", 800), draw("val", 100)


def draw(split, count):
    """`count` patterns of each class, three times too large and then reduced: at 32 pixels
    as they are, most windows would see no more than a piece of a stripe."""
    large = np.array([patterns.picture(name, number, split, size=96)
                      for name in patterns.CLASSES for number in range(count)])
    images = large.reshape(-1, 32, 3, 32, 3, 3).mean(axis=(2, 4)).astype(np.uint8)
    return cifar10.Labelled(images, np.arange(len(patterns.CLASSES)).repeat(count))


def start(args):
    began = time.perf_counter()
    towers = devices(args.device)
    if len(towers) > 2:
        raise UserError(f"--device {args.device}: there are two towers, so name one device or two")
    top, bottom = towers[0], towers[-1]
    pictures = Pictures(*load(args.source), scale=1 / 64, batch_size=BATCH)
    count = pictures.length(0)
    say(f"{count:,} pictures to learn from, {args.steps} steps of {BATCH}, towers on {top} and "
        f"{bottom}")
    model = TwoTowers(top, bottom).initialize(seed=0)
    optimizer = SGD(model.parameters(), lr=args.lr)
    meter = Meter()
    epochs = range(-(-args.steps * BATCH // count))
    batches = (batch for epoch in epochs for batch in pictures.training(epoch))
    with bar(args.steps, "training") as progress:
        for step, batch in zip(range(1, args.steps + 1), batches, strict=False):
            optimizer.lr = args.lr * (1 - (step - 1) / args.steps)
            labels = top.put(batch.labels)
            logits = model.train()(Tensor(batch.images, top))
            loss = ops.softmax_cross_entropy(logits, labels=labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            meter.add(loss, logits, labels)
            progress.update()
            if step % 100 == 0:
                say(f"step {step}  {in_words(meter.read(), classes=10)}")
                meter.reset()
    error = evaluate(model, pictures, top)["top1_error"]
    verdict = "it has learned" if error < LEARNED else "IT HAS NOT LEARNED"
    say(f"{verdict}: test error {error:.1%} on {len(pictures.test.labels):,} pictures it has "
        f"not seen (chance: 90 %), after {time.perf_counter() - began:.0f} s")
    return 0 if error < LEARNED else 1


def parser():
    parser = common.parser("cifar_smoke.py", __doc__)
    parser.add_argument("--lr", type=common.from_0, default=0.02, metavar="X",
                        help="first rate; it falls to 0 in a straight line (default: 0.02)")
    parser.add_argument("--steps", type=common.positive, default=800, metavar="N",
                        help="default: %(default)s")
    return common.add_options(parser, towers=2, output=False)


if __name__ == "__main__":
    sys.exit(common.main(start, parser()))
