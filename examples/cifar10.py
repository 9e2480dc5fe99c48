"""How well did the authors' CIFAR-10 nets do, of the year before AlexNet and of its own?

    python examples/cifar10.py 80sec                          10 epochs
    python examples/cifar10.py 13pct --epochs 20 --device gpu0

The nets and their schedules are those that came with the program which AlexNet was trained
with: pixels of 0 ... 255 less the mean image, batches of 128, momentum 0.9. Biases learn
twice as fast as weights and do not decay. Ctrl-C stops; the same command goes on; once a run
is finished the same command draws its curve again.
"""
import sys
from dataclasses import asdict, dataclass
from typing import NamedTuple

import common
from common import VIEWS, Pictures, shown
from tinynet import (
    LRN,
    SGD,
    AvgPool,
    Conv2D,
    Dense,
    Device,
    Flatten,
    MaxPool,
    ReLU,
    Sequential,
    Tensor,
    ops,
)
from tinynet.errors import UserError
from tinynet.progress import say
from tinynet.training import figures
from tinynet.training.cuda_convnet import Local2D, SameMapLRN
from tinynet.training.evaluation import evaluate
from tinynet.training.program import SEED
from tinynet.training.runs import Run
from tinynet.training.saved import Saved

# --- the nets ---------------------------------------------------------------------------
#
# Pools round sizes up: 32 -> 16 -> 8 -> 4, and 24 -> 12 -> 6. A ReLU behind a max pool gives
# what it gives before it, at a quarter of the work. Of several largest pixels in a window the
# program sent the gradient to all.


def max_pool():
    return MaxPool(3, stride=2, ties="all", ceil=True)


def avg_pool():
    return AvgPool(3, stride=2, ceil=True)


def net_80sec():
    return Sequential(
        conv1=Sequential(Conv2D(3, 32, 5, pad=2, std=0.0001), max_pool(), ReLU()),
        conv2=Sequential(Conv2D(32, 32, 5, pad=2, std=0.01), ReLU(), avg_pool()),
        conv3=Sequential(Conv2D(32, 64, 5, pad=2, std=0.01), ReLU(), avg_pool(), Flatten()),
        fc64=Sequential(Dense(64 * 4 * 4, 64, std=0.1), ReLU()),
        fc10=Dense(64, 10, std=0.1))


def net_19pct(norm=Sequential):
    return Sequential(
        conv1=Sequential(Conv2D(3, 32, 5, pad=2, std=0.0001), max_pool(), ReLU(), norm()),
        conv2=Sequential(Conv2D(32, 32, 5, pad=2, std=0.01), ReLU(), avg_pool(), norm()),
        conv3=Sequential(Conv2D(32, 64, 5, pad=2, std=0.01), ReLU(), avg_pool(), Flatten()),
        fc10=Dense(64 * 4 * 4, 10, std=0.01))


def net_18pct():
    """The same with a norm over 3 x 3 pixels of the same map."""
    return net_19pct(norm=lambda: SameMapLRN(3, k=1.0, alpha=5e-5 / 9))


def net_13pct():
    """The paper's "four-layer CNN" (section 3.3); its upper layers share no kernels."""
    return Sequential(
        conv1=Sequential(Conv2D(3, 64, 5, pad=2, std=0.0001), max_pool(), ReLU()),
        conv2=Sequential(Conv2D(64, 64, 5, pad=2, std=0.01), max_pool(), ReLU()),
        local3=Sequential(Local2D(64, 32, 3, side=6, pad=1, std=0.04), ReLU()),
        local4=Sequential(Local2D(32, 32, 3, side=6, pad=1, std=0.04), ReLU(), Flatten()),
        fc10=Dense(32 * 6 * 6, 10, std=0.01))


def net_11pct():
    """The same "with normalisation"; and local3 is twice as wide, which the paper leaves out."""
    def norm():
        return LRN(n=9, k=1.0, alpha=0.001 / 9)
    return Sequential(
        conv1=Sequential(Conv2D(3, 64, 5, pad=2, std=0.0001), max_pool(), ReLU(), norm()),
        conv2=Sequential(Conv2D(64, 64, 5, pad=2, std=0.01), ReLU(), norm(), max_pool()),
        local3=Sequential(Local2D(64, 64, 3, side=6, pad=1, std=0.04), ReLU()),
        local4=Sequential(Local2D(64, 32, 3, side=6, pad=1, std=0.04), ReLU(), Flatten()),
        fc10=Dense(32 * 6 * 6, 10, std=0.01))


class Phase(NamedTuple):
    """A part of a schedule. pictures: the nets below 18 % keep the fifth batch for
    validation at first, and learn from it as well when it has told them enough."""
    epochs: float
    rate: float
    pictures: int = 50_000


@dataclass(frozen=True)
class Config:
    """How a net is trained. decay: what is taken off the weights of each layer, times the
    rate. crop: 32, or 24: random crops and mirror images, and in the end a test on several
    views. reported: test error, as the authors give it."""
    phases: tuple
    decay: dict
    reported: str
    crop: int = 32
    views: int = 1


CONFIGS = {
    "80sec": (net_80sec, Config(
        phases=(Phase(8, 0.001), Phase(2, 0.0001)),
        decay=dict(conv1=0.004, conv2=0.004, conv3=0.004, fc64=0.03, fc10=0.03),
        reported="26 %")),
    "19pct": (net_19pct, Config(
        phases=(Phase(120, 0.001), Phase(10, 0.0001), Phase(10, 0.00001)),
        decay=dict(conv1=0.004, conv2=0.004, conv3=0.004, fc10=3.0),
        reported="19 %")),
    "18pct": (net_18pct, Config(
        phases=(Phase(120, 0.001), Phase(10, 0.0001), Phase(10, 0.00001)),
        decay=dict(conv1=0.004, conv2=0.004, conv3=0.004, fc10=1.0),
        reported="18 %")),
    "13pct": (net_13pct, Config(
        phases=(Phase(100, 0.001, 40_000), Phase(40, 0.001), Phase(10, 0.0001),
                Phase(10, 0.00001)),
        decay=dict(conv1=0.0, conv2=0.0, local3=0.004, local4=0.004, fc10=0.004),
        reported="13 %", crop=24, views=9)),
    "11pct": (net_11pct, Config(
        phases=(Phase(350, 0.001, 40_000), Phase(150, 0.001), Phase(10, 0.0001),
                Phase(10, 0.00001)),
        decay=dict(conv1=0.0, conv2=0.0, local3=0.004, local4=0.004, fc10=0.01),
        reported="11 %", crop=24, views=10)),
}


def scaled(phases, epochs):
    """The same schedule in proportion, so that it takes `epochs`."""
    full = sum(phase.epochs for phase in phases)
    return [phase._replace(epochs=phase.epochs * epochs / full) for phase in phases]


def phase_at(phases, epoch):
    """The phase that an epoch, or a point within it, belongs to."""
    for phase in phases[:-1]:
        if epoch < phase.epochs:
            return phase
        epoch -= phase.epochs
    return phases[-1]


# --- training ---------------------------------------------------------------------------


def sgd(model, config):
    """The program's update for one of its nets; the rate is the phase's."""
    return SGD(model.parameters(), momentum=0.9, weight_decay=1.0, decays=config.decay,
               bias_lr=2.0, decay_biases=False)


def start(args):
    build, config = CONFIGS[args.net]
    views = args.views or config.views
    if views > 1 and config.crop == 32:
        raise UserError(f"{args.net} sees whole pictures, of which there is one view: leave out "
                        f"--views {views}")
    full = sum(phase.epochs for phase in config.phases)
    epochs = args.epochs or full
    phases = scaled(config.phases, epochs)
    if epochs != full:
        parts = ", ".join(f"{phase.epochs:.3g} at {phase.rate:g}" for phase in phases)
        say(f"{epochs} epochs instead of {full}: the schedule in proportion, {parts}")
    where = Device(args.device)
    train, test = common.load(args.source)
    pictures = Pictures(train, test, config.crop, augment=config.crop < 32, seed=args.seed,
                        most=lambda epoch: phase_at(phases, epoch).pictures)
    model = build().initialize(args.seed).to(where)
    optimizer = sgd(model, config)

    name = f"{args.net}-{epochs}-epochs-seed-{args.seed}"
    folder = (args.output_dir or common.RUNS / "cifar10") / name
    settings = dict(asdict(config), net=args.net, epochs=epochs, seed=args.seed,
                    training_pictures=len(train.labels), pictures=pictures.digest())
    del settings["views"]                              # nothing is learned from them
    run = Run(folder, model, optimizer, pictures, epochs=epochs, saved=Saved(settings=settings))
    with run.resume():
        while run.goes_on():
            for batch in run.batches():
                optimizer.lr = phase_at(phases, run.epochs_done).rate
                labels = where.put(batch.labels)
                logits = model.train()(Tensor(batch.images, where))
                loss = ops.softmax_cross_entropy(logits, labels=labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.saw(loss, logits, labels)
            run.validated(evaluate(model, pictures, where, interrupted=run.interrupted))
        in_the_end = views > 1 and evaluate(model, pictures, where, views, run.interrupted)
    result = in_the_end or run.history[-1]
    curve = folder / "curve.png"
    figures.write_csv(curve.with_suffix(".csv"), {name: run.history})
    figures.draw_curves(curve, [
        (what, figures.errors(run.history, kind), style)
        for what, kind, style in (("training", "train", ("black", "dashed")),
                                  ("test", "validation", ("#c03000", "solid")))], args.net)
    print(f"{args.net}: test error {result['top1_error']:.2%} after {epochs} of {full} epochs "
          f"({VIEWS[views]}; the authors: {config.reported} after {full}), "
          f"{run.at.seconds:.0f} s of training\ncurve: {shown(curve)} and .csv")
    return 0


def parser():
    parser = common.parser("cifar10.py", __doc__)
    parser.add_argument("net", choices=CONFIGS)
    parser.add_argument("--epochs", type=common.positive, metavar="N",
                        help="default: the authors' schedule; another number of epochs "
                             "shortens or stretches it in proportion")
    parser.add_argument("--views", type=int, choices=VIEWS,
                        help="of every test picture in the end (default: as the authors; 9 and "
                             "10 are for the nets that see 24 x 24 pixels)")
    parser.add_argument("--seed", type=SEED, default=0, metavar="N", help="default: 0")
    return common.add_options(parser)


if __name__ == "__main__":
    sys.exit(common.main(start, parser()))
