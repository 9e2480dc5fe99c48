"""Does it all work here? Two towers learn CIFAR-10 in about a minute.

    python examples/cifar_smoke.py
    python examples/cifar_smoke.py --device cpu0,cpu1         or gpu0,gpu1, or gpu0:a,gpu0:b

The towers are AlexNet's in small: they meet in layers 3 and 4 and end in one layer. Without
CIFAR-10 the net learns drawn patterns instead. The exit status is 0 only if it has learned.
"""
import argparse
import sys
import time

import numpy as np

import common
from common import Pictures, say
from data import cifar10
from tinynet import device, ops
from tinynet.engine import Tensor
from tinynet.errors import UserError
from tinynet.layers import LRN, Conv2D, Dense, Flatten, Layer, MaxPool, ReLU, Sequential
from tinynet.optim import SGD
from tinynet.pictures import patterns
from tinynet.progress import Meter, bar, in_words
from tinynet.split import exchange, gather, send_to_both

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
    towers = device.devices(args.device)
    if len(towers) > 2:
        raise UserError(f"--device {args.device}: there are two towers, so name one device or two")
    top, bottom = towers[0], towers[-1]
    pictures = Pictures(*load(args.source), scale=1 / 64)
    say(f"{len(pictures.train.labels):,} pictures to learn from, {args.steps} steps of {BATCH}, "
        f"towers on {top} and {bottom}")
    model = TwoTowers(top, bottom).initialize(seed=0)
    optimizer = SGD(model.parameters(), lr=args.lr)
    meter = Meter()
    epochs = -(-args.steps * BATCH // len(pictures.train.labels))
    orders = [(epoch, pictures.order(epoch)) for epoch in range(epochs)]
    batches = [(chosen, epoch) for epoch, order in orders
               for chosen in np.split(order, range(BATCH, len(order), BATCH))]
    with bar(args.steps, "training") as progress:
        for step, (chosen, epoch) in enumerate(batches[:args.steps], start=1):
            optimizer.lr = args.lr * (1 - (step - 1) / args.steps)
            images, labels = pictures.batch(chosen, epoch)
            labels = top.put(labels)
            logits = model.train()(Tensor(images, top))
            loss = ops.softmax_cross_entropy(logits, labels=labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            meter.add(loss, logits, labels, 0)
            progress.update()
            if step % 100 == 0:
                say(f"step {step}  {in_words(meter.read())}")
                meter.reset()
    error = common.test(model, pictures, top)["test_error"]
    verdict = "it has learned" if error < LEARNED else "IT HAS NOT LEARNED"
    say(f"{verdict}: test error {error:.1%} on {len(pictures.test.labels):,} pictures it has "
        f"not seen (chance: 90 %), after {time.perf_counter() - began:.0f} s")
    return 0 if error < LEARNED else 1


def parser():
    parser = argparse.ArgumentParser(prog="cifar_smoke.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lr", type=float, default=0.02, help="first rate; it falls to 0 in a "
                                                               "straight line (default: 0.02)")
    parser.add_argument("--steps", type=common.positive, default=800, metavar="N",
                        help="default: %(default)s")
    return common.add_options(parser, towers=2, output=False)


if __name__ == "__main__":
    sys.exit(common.main(start, parser()))
