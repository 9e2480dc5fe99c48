"""How much sooner does a net with ReLUs learn than one with tanh? (paper, figure 1)

    python examples/figure1.py

A four-layer convolutional net learns CIFAR-10 until its training error is 25 %, once with
ReLU and once with tanh, without regularisation of any kind. The rates are chosen separately:
every rate trains a net for two epochs, and the best of them goes on. The paper finds that the
ReLUs need six times fewer epochs. Ctrl-C stops; the same command goes on; when all is done
it draws the figure again.
"""
import argparse
import sys

import numpy as np

import common
from common import Diverged, Pictures, Run, say, shown
from tinynet import device, ops
from tinynet.engine import Tensor
from tinynet.layers import AvgPool, Conv2D, Dense, Flatten, MaxPool, ReLU, Sequential, Tanh
from tinynet.optim import SGD

GOAL = 0.25                    # training error
RATES = 0.001, 0.002, 0.005, 0.01, 0.02, 0.05
SEARCH = 2                     # epochs that every rate is given
POINTS = 4                     # of the curve, in an epoch
BATCH = 128


def four_layers(unit):
    """The net of the authors' layers-19pct; first weights fit pixels of about -2 ... 2."""
    def pool(kind):
        return kind(3, stride=2, ceil=True)
    return Sequential(
        conv1=Sequential(Conv2D(3, 32, 5, pad=2), unit(), pool(MaxPool)),
        conv2=Sequential(Conv2D(32, 32, 5, pad=2), unit(), pool(AvgPool)),
        conv3=Sequential(Conv2D(32, 64, 5, pad=2), unit(), pool(AvgPool)),
        fc4=Sequential(Flatten(), Dense(64 * 4 * 4, 10, std=0.01)))


def train(unit, rate, epochs, pictures, args):
    """Train a net until GOAL, or for so many epochs in all; returns its curve."""
    where = device.Device(args.device)
    model = four_layers(unit).initialize(args.seed).to(where)
    optimizer = SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=0.0)
    path = args.output_dir / f"{unit.__name__.lower()}-rate-{rate:g}-seed-{args.seed}.npz"
    count = len(pictures.train.labels)
    settings = dict(unit=unit.__name__, rate=rate, seed=args.seed, training_pictures=count)
    with Run(path, settings, model, optimizer, epochs * -(-count // BATCH)) as run:
        while run.epoch < epochs and not needed(run.curve):
            for images, labels in run.batches(pictures, BATCH, points=POINTS):
                if needed(run.curve):
                    break
                labels = where.put(labels)
                logits = model.train()(Tensor(images, where))
                loss = ops.softmax_cross_entropy(logits, labels=labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.meter.add(loss, logits, labels, 0)
    return run.curve


def needed(curve):
    """How many epochs a net needed to reach GOAL, or None. Between two points of its curve
    a straight line is assumed."""
    before = dict(epoch=0.0, error=0.9)
    for point in curve:
        if point["error"] <= GOAL:
            share = (before["error"] - GOAL) / (before["error"] - point["error"])
            return before["epoch"] + share * (point["epoch"] - before["epoch"])
        before = point
    return None


def start(args):
    args.output_dir = args.output_dir or common.RUNS / "figure1"
    device.Device(args.device)                         # before anything long: is it there?
    pictures = Pictures(*common.load(args.source), scale=1 / 64, seed=args.seed)
    curves, search = {}, min(SEARCH, args.epochs)
    for unit in ReLU, Tanh:
        def after_search(rate):
            try:
                curve = train(unit, rate, search, pictures, args)
            except Diverged as error:
                say(str(error))
                return np.inf, np.inf
            early = [point for point in curve if point["epoch"] <= search]
            return needed(early) or np.inf, early[-1]["error"]
        best = min(args.rates, key=after_search)
        curve = train(unit, best, args.epochs, pictures, args)
        curves[f"{unit.__name__}, rate {best:g}"] = curve
        if needed(curve):
            say(f"{unit.__name__} at its best rate, {best:g}: {GOAL:.0%} training error after "
                f"{needed(curve):.2f} epochs")
        else:
            last = curve[-1]
            say(f"{unit.__name__} at its best rate, {best:g}: {last['error']:.1%} training "
                f"error after {last['epoch']:g} epochs, not {GOAL:.0%}; --epochs gives it more")

    picture = args.output_dir / "figure1.png"
    common.write_csv(picture.with_suffix(".csv"), curves)
    lines = [(name, [(0, 0.9)] + [(point["epoch"], point["error"]) for point in curve], style)
             for (name, curve), style in zip(curves.items(), [("black", "solid"),
                                                              ("black", "dashed")])]
    common.draw_curves(picture, lines, "Four convolutional layers on CIFAR-10",
                       up="Training error")
    print(f"figure: {shown(picture)} and .csv")
    relu, tanh = map(needed, curves.values())
    if relu:
        least = "" if tanh else "more than "
        longest = curve[-1]["epoch"]                   # of tanh, which was the last
        print(f"tanh needs {least}{(tanh or longest) / relu:.1f} times the epochs of ReLU "
              "(the paper: 6)")
    return 0 if relu and tanh else 1


def parser():
    parser = argparse.ArgumentParser(prog="figure1.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=common.positive, default=60, metavar="N",
                        help="give up after so many (default: %(default)s)")
    parser.add_argument("--rates", type=common.numbers, default=RATES, metavar="R,R",
                        help=f"to choose from (default: {','.join(map(str, RATES))})")
    parser.add_argument("--seed", type=common.seed, default=0, metavar="N", help="default: 0")
    return common.add_options(parser)


if __name__ == "__main__":
    sys.exit(common.main(start, parser()))
