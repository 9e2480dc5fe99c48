"""How much sooner does a net with ReLUs learn than one with tanh? (paper, figure 1)

    python examples/figure1.py
    python examples/figure1.py --first-weights authors

A four-layer convolutional net learns CIFAR-10 until its training error is 25 %, once with
ReLU and once with tanh, without regularisation of any kind. The rates are chosen separately:
every rate trains a net for two epochs, and the best of them goes on. The paper finds that the
ReLUs need six times fewer epochs, and does not say what the first weights were; those of the
authors' nets of that time are far smaller than today's. Ctrl-C stops; the same command goes on;
when all is done it draws the figure again.
"""
import sys

import numpy as np

import common
from common import Pictures, shown
from tinynet import (
    SGD,
    AvgPool,
    Conv2D,
    Dense,
    Device,
    Flatten,
    MaxPool,
    ReLU,
    Sequential,
    Tanh,
    Tensor,
    ops,
)
from tinynet.progress import say
from tinynet.training import figures
from tinynet.training.program import SEED
from tinynet.training.runs import Diverged, Run
from tinynet.training.saved import Saved

GOAL = 0.25                    # training error
# First weights: the standard deviation of conv1 ... fc4; what multiplies the pixels (0 ... 255
# less their mean). The authors' are those of their layers-19pct.
FIRST = {"he": (("he", "he", "he", 0.01), 1 / 64), "authors": ((0.0001, 0.01, 0.01, 0.01), 1.0)}
RATES = 0.001, 0.002, 0.005, 0.01, 0.02, 0.05          # to choose from
SEARCH = 2                     # epochs that every rate is given
POINTS = 4                     # of the curve, in an epoch


def four_layers(unit, std=FIRST["he"][0]):
    """The net of the authors' layers-19pct. std: of the first weights of its layers."""
    def pool(kind):
        return kind(3, stride=2, ceil=True)
    return Sequential(
        conv1=Sequential(Conv2D(3, 32, 5, pad=2, std=std[0]), unit(), pool(MaxPool)),
        conv2=Sequential(Conv2D(32, 32, 5, pad=2, std=std[1]), unit(), pool(AvgPool)),
        conv3=Sequential(Conv2D(32, 64, 5, pad=2, std=std[2]), unit(), pool(AvgPool)),
        fc4=Sequential(Flatten(), Dense(64 * 4 * 4, 10, std=std[3])))


def train(unit, rate, epochs, pictures, args):
    """Train a net until GOAL, or for so many epochs in all; returns its curve."""
    where = Device(args.device)
    model = four_layers(unit, FIRST[args.first_weights][0]).initialize(args.seed).to(where)
    optimizer = SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=0.0)
    folder = args.output_dir / f"{unit.__name__.lower()}-rate-{rate:g}-seed-{args.seed}"
    settings = dict(unit=unit.__name__, rate=rate, seed=args.seed,
                    first_weights=args.first_weights,
                    training_pictures=len(pictures.train.labels), pictures=pictures.digest())
    run = Run(folder, model, optimizer, pictures, epochs=epochs, saved=Saved(settings=settings),
              points=POINTS)
    with run.resume():
        while run.goes_on() and not needed(run.history):
            for batch in run.batches():
                if needed(run.history):
                    break
                labels = where.put(batch.labels)
                logits = model.train()(Tensor(batch.images, where))
                loss = ops.softmax_cross_entropy(logits, labels=labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.saw(loss, logits, labels)
            run.end_epoch()
    return run.history


def needed(history):
    """How many epochs a net needed to reach GOAL, or None. Between two points of its curve
    a straight line is assumed."""
    before, before_error = 0.0, 0.9
    for epochs, error in figures.errors(history, "train"):
        if error <= GOAL:
            share = (before_error - GOAL) / (before_error - error)
            return before + share * (epochs - before)
        before, before_error = epochs, error
    return None


def start(args):
    name = "figure1" + f"-{args.first_weights}" * (args.first_weights != "he")
    args.output_dir = args.output_dir or common.RUNS / name
    Device(args.device)                                # before anything long: is it there?
    _, scale = FIRST[args.first_weights]
    pictures = Pictures(*common.load(args.source), scale=scale, seed=args.seed)
    histories, search = {}, min(SEARCH, args.epochs)
    for unit in ReLU, Tanh:
        def after_search(rate, unit=unit):
            try:
                history = train(unit, rate, search, pictures, args)
            except Diverged as error:
                say(str(error))
                return np.inf, np.inf
            early = [row for row in history if row["epochs"] <= search]
            return needed(early) or np.inf, early[-1]["top1_error"]
        best = min(args.rates or RATES, key=after_search)
        history = train(unit, best, args.epochs, pictures, args)
        histories[f"{unit.__name__}, rate {best:g}"] = history
        if needed(history):
            say(f"{unit.__name__} at its best rate, {best:g}: {GOAL:.0%} training error after "
                f"{needed(history):.2f} epochs")
        else:
            last = history[-1]
            say(f"{unit.__name__} at its best rate, {best:g}: {last['top1_error']:.1%} training "
                f"error after {last['epochs']:g} epochs, not {GOAL:.0%}; --epochs gives it more")

    picture = args.output_dir / f"{name}.png"
    figures.write_csv(picture.with_suffix(".csv"), histories)
    lines = [(name, [(0, 0.9), *figures.errors(history, "train")], ("black", stroke))
             for (name, history), stroke in zip(histories.items(), ("solid", "dashed"),
                                                strict=True)]
    title = f"A four-layer convolutional net on CIFAR-10; first weights: {args.first_weights}"
    figures.draw_curves(picture, lines, title, up="Training error")
    print(f"figure: {shown(picture)} and .csv")
    relu, tanh = map(needed, histories.values())
    if relu:
        least = "" if tanh else "more than "
        longest = history[-1]["epochs"]                # of tanh, which was the last
        print(f"tanh needs {least}{(tanh or longest) / relu:.1f} times the epochs of ReLU "
              "(the paper: 6)")
    return 0 if relu and tanh else 1


def parser():
    parser = common.parser("figure1.py", __doc__)
    parser.add_argument("--epochs", type=common.positive, default=60, metavar="N",
                        help="give up after so many (default: %(default)s)")
    parser.add_argument("--first-weights", choices=FIRST, default="he",
                        help="he: sqrt(2 / inputs); authors: 0.0001 in conv1, 0.01 elsewhere, for "
                             "pixels of 0 ... 255 (default: %(default)s)")
    parser.add_argument("--rates", type=common.rates, metavar="R,R",
                        help=f"to choose from (default: {', '.join(map(str, RATES))})")
    parser.add_argument("--seed", type=SEED, default=0, metavar="N", help="default: 0")
    return common.add_options(parser)


if __name__ == "__main__":
    sys.exit(common.main(start, parser()))
