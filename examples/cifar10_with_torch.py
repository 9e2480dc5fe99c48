"""The authors' 80-second net in tinynet and in PyTorch: who has learned it first?

    python examples/cifar10_with_torch.py              10 epochs each, in turn

Both have the same net, first weights, pictures, order and schedule (examples/cifar10.py).
PyTorch runs in a process of its own. The clock runs while they train, from cutting out pictures
to the update, and not while they are tested. The exit status is 1 if PyTorch was faster. (Where
several pixels of a window are the largest, once in some millions, PyTorch's pool sends the
gradient to the first.) Needs PyTorch: pip install torch.
"""
import statistics
import sys
import time

import common
from cifar10 import CONFIGS, phase_at, scaled, sgd
from compare_with_torch import Elsewhere, F, nn, torch
from tinynet import Device, Tensor, ops
from tinynet.split import layer_of
from tinynet.training.evaluation import evaluate

BUILD, CONFIG = CONFIGS["80sec"]


class Torch80sec(nn.Module):
    """net_80sec of cifar10.py."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 32, 5, padding=2)
        self.conv3 = nn.Conv2d(32, 64, 5, padding=2)
        self.fc64 = nn.Linear(64 * 4 * 4, 64)
        self.fc10 = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True))
        x = F.avg_pool2d(F.relu(self.conv2(x)), 3, 2, ceil_mode=True)
        x = F.avg_pool2d(F.relu(self.conv3(x)), 3, 2, ceil_mode=True)
        x = x.permute(0, 2, 3, 1).flatten(1)           # tinynet's order: row, column, channel
        return self.fc10(F.relu(self.fc64(x)))


def torch_weights(model):
    """The weights of net_80sec under PyTorch's names and in its shapes."""
    weights = {}
    for name, w in model.parameters():
        kind = "weight" if name.endswith("W") else "bias"
        array = w.numpy()
        weights[f"{layer_of(name)}.{kind}"] = (array.transpose(3, 2, 0, 1) if array.ndim == 4
                                               else array.T)
    return weights


class Learner:
    """What both sides do alike: epochs of batches in the same order, at the same rates."""

    def __init__(self, pictures, epochs):
        self.pictures = pictures
        self.phases = scaled(CONFIG.phases, epochs)

    def epoch(self, number):
        """Learn for an epoch. Returns how many seconds that took."""
        start = time.perf_counter()
        seen, count = 0, self.pictures.length(number)
        for batch in self.pictures.training(number):
            rate = phase_at(self.phases, number + seen / count).rate
            self.step(batch.images, batch.labels, rate)
            seen = batch.end
        return time.perf_counter() - start


class Ours(Learner):
    def __init__(self, pictures, epochs):
        super().__init__(pictures, epochs)
        self.device = Device("cpu")
        self.model = BUILD().initialize(0)
        self.optimizer = sgd(self.model, CONFIG)

    def step(self, images, labels, rate):
        self.optimizer.lr = rate
        loss = ops.softmax_cross_entropy(self.model.train()(Tensor(images, self.device)),
                                         labels=labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def test_error(self):
        return evaluate(self.model, self.pictures, self.device)["top1_error"]


class Theirs(Learner):
    def __init__(self, pictures, epochs, weights):
        super().__init__(pictures, epochs)
        self.model = Torch80sec()
        self.model.load_state_dict({name: torch.tensor(w) for name, w in weights.items()})
        layers = dict(self.model.named_children())
        self.optimizer = torch.optim.SGD(
            [dict(params=[layers[name].weight], weight_decay=decay, factor=1)
             for name, decay in CONFIG.decay.items()]
            + [dict(params=[layer.bias for layer in layers.values()], factor=2)],
            lr=0.0, momentum=0.9)

    def step(self, images, labels, rate):
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        logits = self.model(self.tensor(images))
        loss = F.cross_entropy(logits, torch.from_numpy(labels))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def tensor(self, images):
        return torch.from_numpy(images.transpose(0, 3, 1, 2)).contiguous()

    def test_error(self):
        labels, wrong = self.pictures.test.labels, 0
        with torch.no_grad():
            for first in range(0, len(labels), 500):
                rows = slice(first, first + 500)
                logits = self.model(self.tensor(self.pictures.views(rows, 1)))
                wrong += int((logits.argmax(1).numpy() != labels[rows]).sum())
        return wrong / len(labels)


def start(args):
    pictures = common.Pictures(*common.load(args.source))
    ours = Ours(pictures, args.epochs)
    theirs = Elsewhere(Theirs, pictures, args.epochs, torch_weights(ours.model))
    seconds = []
    print(f"{'epoch':>7}{'tinynet':>20}{'PyTorch':>20}   seconds, test error")
    for epoch in range(args.epochs):
        time.sleep(0.3)        # for a while after their work PyTorch's threads keep the cores
        seconds.append((ours.epoch(epoch), theirs.ask("epoch", epoch)))
        errors = ours.test_error(), theirs.ask("test_error")
        cells = [f"{took:10.1f}{error:10.2%}"
                 for took, error in zip(seconds[-1], errors, strict=True)]
        print(f"{epoch + 1:>7}" + "".join(cells), flush=True)
    theirs.close()
    mine, others = map(sum, zip(*seconds, strict=True))
    ratios = [other / own for own, other in seconds]
    print(f"{args.epochs} epochs: tinynet {mine:.0f} s and {errors[0]:.2%}, "
          f"PyTorch {torch.__version__} {others:.0f} s and {errors[1]:.2%}\n"
          f"PyTorch takes {others / mine:.2f} times as long; for an epoch, in the median\n"
          f"of them, {statistics.median(ratios):.2f} times ({min(ratios):.2f} ... "
          f"{max(ratios):.2f})")
    return 0 if mine < others else 1


def parser():
    parser = common.parser("cifar10_with_torch.py", __doc__)
    parser.add_argument("--epochs", type=common.positive, default=10, metavar="N",
                        help="of the schedule, which shrinks in proportion (default: 10)")
    parser.add_argument("--from", dest="source", metavar="PATH",
                        help="CIFAR-10: a folder or an archive (default: in TINYNET_DATA, or "
                             "data/cifar10)")
    return parser


if __name__ == "__main__":
    sys.exit(common.main(start, parser()))
