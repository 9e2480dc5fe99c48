"""How much does each idea of the paper help, on CIFAR-10?

    python examples/ablations.py overlap      pools of 3 x 3 every 2 pixels, or 2 x 2 (3.4)
    python examples/ablations.py lrn          with and without response normalisation (3.3)
    python examples/ablations.py dropout      with and without dropout (4.2)
    python examples/ablations.py augment      random or central crops (4.1)
    python examples/ablations.py towers       two towers, or one with half the kernels (3.2)

Two nets that differ in nothing else are trained on several seeds each: first weights, order
and crops. The program prints the test error of both, as mean and standard deviation over the
seeds, and whether their difference is larger than chance would make it. Ctrl-C stops; the same
command goes on; when all is done it draws the curves again.
"""
import sys

import numpy as np

import common
from common import Pictures, shown
from tinynet import (
    LRN,
    SGD,
    Conv2D,
    Dense,
    Device,
    Dropout,
    Flatten,
    Layer,
    MaxPool,
    ReLU,
    Sequential,
    Tensor,
    ops,
)
from tinynet.split import exchange, gather, send_to_both
from tinynet.training import figures
from tinynet.training.evaluation import evaluate
from tinynet.training.runs import Run
from tinynet.training.saved import Saved

SCALE = 1 / 64                 # of the pixels
RATE = 0.02                    # falls to 0 in a straight line


def block(maps, kernels, size, pool=3, norm=True):
    """A convolution with its ReLU, norm and pool, which halves the map: 32, 16, 8, 4."""
    # LRN squares its input: for pixels that are 64 times smaller the paper's 1e-4 is 0.41.
    norms = [LRN(alpha=1e-4 / SCALE ** 2)] if norm else []
    return Sequential(Conv2D(maps, kernels, size, pad=size // 2), ReLU(), *norms,
                      MaxPool(pool, stride=2, ceil=True))


def one_tower(kernels=32, pool=3, norm=True, dropout=0.0, side=4):
    """AlexNet in small: three convolutions, and two layers that see all of a side x side map."""
    return Sequential(
        conv1=block(3, kernels, 5, pool, norm),
        conv2=block(kernels, kernels, 5, pool, norm),
        conv3=block(kernels, 64, 3, pool, norm=False),
        fc4=Sequential(Flatten(), Dense(64 * side ** 2, 256), ReLU(), Dropout(dropout)),
        fc5=Dense(256, 10, std=0.01))


class TwoTowers(Layer):
    """The same in two rows, which meet before conv3 and in fc4."""

    def __init__(self):
        def row():
            return Sequential(conv1=block(3, 16, 5), conv2=block(16, 16, 5))
        self.top, self.bottom = row(), row()
        self.top3, self.bottom3 = block(32, 32, 3, norm=False), block(32, 32, 3, norm=False)
        self.rest = Sequential(Flatten(), Dense(64 * 4 * 4, 256), ReLU(), Dense(256, 10, std=0.01))

    def forward(self, image):
        top, bottom = send_to_both(image, image.device, image.device)
        top, bottom = exchange(self.top(top), self.bottom(bottom))
        return self.rest(gather(self.top3(top), self.bottom3(bottom)))


# What is compared: for either side its name, its net, and how it sees the pictures.
# (Of crops of 24 x 24 pixels the last map is 3 x 3.)
WHOLE = dict(crop=32, augment=False)
PAIRS = {
    "overlap": [("overlapping, 3 x 3", one_tower, WHOLE),
                ("side by side, 2 x 2", lambda: one_tower(pool=2), WHOLE)],
    "lrn": [("with LRN", one_tower, WHOLE),
            ("without", lambda: one_tower(norm=False), WHOLE)],
    "dropout": [("with dropout", lambda: one_tower(dropout=0.5), WHOLE),
                ("without", one_tower, WHOLE)],
    "augment": [("random crops", lambda: one_tower(side=3), dict(crop=24, augment=True)),
                ("central crops", lambda: one_tower(side=3), dict(crop=24, augment=False))],
    "towers": [("two towers of 16", TwoTowers, WHOLE),
               ("one tower of 16", lambda: one_tower(kernels=16), WHOLE)],
}


def train(side, build, how, seed, sets, args):
    """One net on one seed, for args.epochs: its Run."""
    pictures = Pictures(*sets, scale=SCALE, seed=seed, **how)
    where = Device(args.device)
    model = build().initialize(seed).to(where)
    optimizer = SGD(model.parameters(), momentum=0.9, weight_decay=0.0005)
    settings = dict(how, what=args.what, side=side, seed=seed, epochs=args.epochs, rate=RATE,
                    training_pictures=len(pictures.train.labels), pictures=pictures.digest())
    name = "".join(letter if letter.isalnum() else "-" for letter in side)
    folder = args.output_dir / f"{args.what}-{name}-{args.epochs}-epochs-seed-{seed}"
    run = Run(folder, model, optimizer, pictures, epochs=args.epochs,
              saved=Saved(settings=settings))
    with run.resume():
        while run.goes_on():
            for batch in run.batches():
                optimizer.lr = RATE * (1 - run.epochs_done / args.epochs)
                labels = where.put(batch.labels)
                logits = model.train(run.step)(Tensor(batch.images, where))
                loss = ops.softmax_cross_entropy(logits, labels=labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.saw(loss, logits, labels)
            run.validated(evaluate(model, pictures, where, interrupted=run.interrupted))
    return run


def start(args):
    args.output_dir = args.output_dir or common.RUNS / "ablations"
    Device(args.device)                                # before anything long: is it there?
    sets = common.load(args.source)
    histories, errors, lines, seconds = {}, [], [], 0.0
    for (side, build, how), colour in zip(PAIRS[args.what], ("#c03000", "#0050a0"), strict=True):
        runs = [train(side, build, how, seed, sets, args) for seed in range(args.seeds)]
        histories.update({f"{side}, seed {seed}": run.history for seed, run in enumerate(runs)})
        seconds += sum(run.at.seconds for run in runs)
        errors.append([run.history[-1]["top1_error"] for run in runs])
        lines += line_per_run(side, [run.history for run in runs], colour)

    picture = args.output_dir / f"{args.what}-{args.epochs}-epochs.png"
    figures.write_csv(picture.with_suffix(".csv"), histories)
    figures.draw_curves(picture, lines, f"{args.what}: mean and each of {args.seeds} seeds",
                        up="Test error")
    for (side, _, _), found in zip(PAIRS[args.what], errors, strict=True):
        doubt = f"{std_of_seeds(found):.2%}" if args.seeds > 1 else "?"
        print(f"{side:22} {np.mean(found):7.2%} ± {doubt}   test error after "
              f"{args.epochs} epochs, {args.seeds} seeds")
    print(verdict(*[side for side, _, _ in PAIRS[args.what]], *errors))
    print(f"{seconds:.0f} s of training; curves: {shown(picture)} and .csv")
    return 0


def line_per_run(side, histories, colour):
    """A thin line for every seed and a thick one for their mean."""
    drawn = [figures.errors(history, "validation") for history in histories]
    return ([("", points, (colour, "thin")) for points in drawn]
            + [(side, np.mean(drawn, axis=0).tolist(), (colour, "solid"))])


def std_of_seeds(errors):
    """The standard deviation between seeds, of which there are at least two."""
    return np.std(errors, ddof=1)


# How many of its own standard deviations a difference must measure until chance makes it in
# one case out of twenty only, by the number of seeds: Student's t for 2 (seeds - 1). For more
# seeds the value of ten is a little too careful.
SURE = {2: 4.30, 3: 2.78, 4: 2.45, 5: 2.31, 6: 2.23, 7: 2.18, 8: 2.14, 9: 2.12, 10: 2.10}


def verdict(first, second, a, b):
    """What the errors of two nets on the same number of seeds allow to say."""
    gain = np.mean(b) - np.mean(a)
    if abs(gain) < 1e-9:               # of the same errors in another order, say
        return f"{first} is as good as {second}"
    better = f"{first} is {'better' if gain > 0 else 'WORSE'} by {100 * abs(gain):.2f} points"
    if len(a) == 1:
        return f"{better}; one seed cannot say whether that is chance: --seeds 3"
    doubt = SURE[min(len(a), 10)] * np.hypot(std_of_seeds(a), std_of_seeds(b)) / np.sqrt(len(a))
    better += f" (95 %: ± {100 * doubt:.2f})"
    if abs(gain) > doubt:
        return f"{better}: more than chance"
    return (f"{better}: NO MORE THAN CHANCE, so this shows no difference between {first} and "
            f"{second}")


def parser():
    parser = common.parser("ablations.py", __doc__)
    parser.add_argument("what", choices=PAIRS)
    parser.add_argument("--seeds", type=common.positive, default=3, metavar="N",
                        help="default: %(default)s")
    parser.add_argument("--epochs", type=common.positive, default=8, metavar="N",
                        help="default: %(default)s")
    return common.add_options(parser)


if __name__ == "__main__":
    sys.exit(common.main(start, parser()))
