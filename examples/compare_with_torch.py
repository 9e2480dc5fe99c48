"""The same net with the same weights in PyTorch: does it agree, and which is faster?

    python examples/compare_with_torch.py                        batches of 128
    python examples/compare_with_torch.py --device gpu0 --no-lrn

PyTorch's net has grouped convolutions and nn.LocalResponseNorm. First outputs and gradients
are compared, in float32. Then training steps and inference are timed in turn (A B A B), with LRN
and without; on GPUs the pictures are there already, and both sides multiply in TF32. PyTorch
runs in a process of its own, as people run it: in ours it would profit from the allocator's
settings (device.py), and leave us a heap in pieces. With
GLIBC_TUNABLES=glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=2147483647
it has them too, and takes some two thirds of its time. Needs PyTorch: pip install torch.
"""
import argparse
import json
import math
import multiprocessing
import signal
import statistics
import sys
import time
from functools import partial

import numpy as np

import alexnet
import common
from tinynet import SGD, Device, Tensor, UserError, cores, no_grad, ops
from tinynet.device import PRECISIONS, default_devices
from tinynet.replay import Replayed
from tinynet.training import recipes
from tinynet.training.program import at_least
from tinynet.training.weights import whole_layers

try:
    import torch
    from torch import nn
    from torch.nn import functional as F
except ImportError:
    sys.exit("this comparison needs PyTorch: pip install torch")


CHECKED = 8                    # images on which the two nets may agree
IN_A_ROW = 20                  # steps of a measurement on a GPU: the host is ahead of it


class Norm(nn.Module):
    """LRN over the channels of each tower alone, as each GPU of the paper sees only its own.

    PyTorch divides alpha by n, so alpha is multiplied by n first. together: one call over all
    channels, in which two channels of zeros between the towers keep their windows apart.
    """

    def __init__(self, recipe, together):
        super().__init__()
        self.norm = nn.LocalResponseNorm(5, 5 * recipe.lrn_alpha, 0.75, recipe.lrn_k)
        self.together = together

    def forward(self, x):
        halves = x.chunk(2, dim=1)
        if not self.together:
            return torch.cat([self.norm(half) for half in halves], dim=1)
        zeros = torch.zeros_like(x[:, :2])
        y = self.norm(torch.cat([halves[0], zeros, halves[1]], dim=1))
        channels = halves[0].shape[1]
        return torch.cat([y[:, :channels], y[:, channels + 2:]], dim=1)


class TorchAlexNet(nn.Module):
    """AlexNet in PyTorch: towers as groups, channels of the top tower first."""

    def __init__(self, recipe, classes, norm=None):
        super().__init__()
        k1, k2, k3, k4, k5 = (2 * k for k in recipe.kernels)
        n6, n7 = (2 * n for n in recipe.neurons)
        self.conv1 = nn.Conv2d(3, k1, 11, stride=4)
        self.conv2 = nn.Conv2d(k1, k2, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(k2, k3, 3, padding=1)
        self.conv4 = nn.Conv2d(k3, k4, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(k4, k5, 3, padding=1, groups=2)
        _, side = recipe.map_sides()
        self.fc6 = nn.Linear(k5 * side ** 2, n6)
        self.fc7 = nn.Linear(n6, n7)
        self.fc8 = nn.Linear(n7, classes)
        self.norm = norm or nn.Identity()
        self.dropout = recipe.dropout

    def forward(self, x):
        x = F.max_pool2d(self.norm(F.relu(self.conv1(x))), 3, 2)
        x = F.max_pool2d(self.norm(F.relu(self.conv2(x))), 3, 2)
        x = F.relu(self.conv4(F.relu(self.conv3(x))))
        x = F.max_pool2d(F.relu(self.conv5(x)), 3, 2).flatten(1)
        x = F.dropout(F.relu(self.fc6(x)), self.dropout, self.training)
        x = F.dropout(F.relu(self.fc7(x)), self.dropout, self.training)
        return self.fc8(x)


class Side:
    """What both sides do alike. `logits`, `loss` and `gradients` are their own.

    `batch` is the slice of the images that are timed. On a GPU they are there already: a loader
    would bring them while the step before is computed.
    """

    def step(self):
        self.model.train()
        self.find_gradients()
        self.optimizer.step()

    def find_gradients(self):
        self.optimizer.zero_grad()
        _, loss = self.loss()
        loss.backward()
        return [loss]

    def infer(self):
        self.model.eval()
        with self.no_grad():
            self.logits()

    def images_per_s(self, job):
        self.synchronize()
        start = time.perf_counter()
        for _ in range(self.repeat):
            getattr(self, job)()
        self.synchronize()
        return self.repeat * len(self.labels[self.batch]) / (time.perf_counter() - start)

    def results(self, index):
        """Logits and gradients of one image, as NumPy arrays by name.

        The net is in test mode, since the two sides would draw different dropout masks.
        """
        self.model.eval()
        self.optimizer.zero_grad()
        logits, loss = self.loss(slice(index, index + 1))
        loss.backward()
        return {"logits": self.host(logits), **self.gradients()}


class Ours(Side):
    no_grad = staticmethod(no_grad)

    def __init__(self, args, recipe, images, labels):
        self.device = Device(args.device)
        self.images, self.labels, self.batch = images, labels, slice(recipe.batch_size)
        self.repeat = IN_A_ROW if self.device.is_gpu else 1
        if self.device.is_gpu:
            self.images, self.labels = map(self.device.put, (images, labels))
        self.model = alexnet.build(args.classes, (self.device, self.device), recipe).initialize(0)
        # Rate 0: the same work, and weights that stay as they are for any number of rounds.
        self.optimizer = SGD(self.model.parameters(), 0.0, recipe.momentum, recipe.wd)
        # As in `train`: on a GPU it is replayed.
        self.find_gradients = Replayed(self.find_gradients, self.model)

    def multiply_in(self, precision):
        self.device.multiply_in(precision)

    def logits(self, chosen=None):
        with self.device:
            images = Tensor(self.images[chosen or self.batch], self.device)
        return self.model(images)

    def loss(self, chosen=None):
        logits = self.logits(chosen)
        with self.device:
            labels = self.device.put(self.labels[chosen or self.batch])
        return logits, ops.softmax_cross_entropy(logits, labels=labels)

    def gradients(self):
        return whole_layers(self.model, lambda w: w.grad)

    def host(self, tensor):
        return tensor.numpy()

    def synchronize(self):
        self.device.synchronize()


class Theirs(Side):
    no_grad = staticmethod(torch.no_grad)

    def __init__(self, weights, images, labels, args, recipe, norm):
        card = args.device.partition(":")[0].removeprefix("gpu")
        self.device = f"cuda:{card}" if card.isdigit() else "cpu"
        self.images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        self.labels, self.batch = labels, slice(recipe.batch_size)
        self.repeat = 1 if self.device == "cpu" else IN_A_ROW
        if self.device != "cpu":
            self.images, self.labels = (torch.tensor(a, device=self.device)
                                        for a in (self.images, labels))
        self.model = TorchAlexNet(recipe, args.classes, norm)
        self.model.to(torch.as_tensor(self.images[:1]).dtype)
        self.model.load_state_dict({name: torch.tensor(w) for name, w in weights.items()})
        self.model.to(self.device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.0, recipe.momentum,
                                         weight_decay=recipe.wd)

    def be_exact(self):
        """Until multiply_in: in float32, and not by cuDNN, whose convolutions may round more."""
        self.multiply_in("fp32")
        torch.backends.cudnn.enabled = False

    def multiply_in(self, precision):
        torch.backends.cudnn.enabled = True
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"

    def logits(self, chosen=None):
        return self.model(torch.as_tensor(self.images[chosen or self.batch]).to(self.device))

    def loss(self, chosen=None):
        labels = torch.as_tensor(self.labels[chosen or self.batch]).to(self.device)
        logits = self.logits(chosen)
        return logits, F.cross_entropy(logits, labels)

    def gradients(self):
        return {name: self.host(w.grad) for name, w in self.model.named_parameters()}

    def host(self, tensor):
        return tensor.detach().cpu().numpy()

    def synchronize(self):
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)


def differences(ours, theirs):
    """How much the logits and gradients of two `results` differ: {name: |a - b| / |b|}."""
    found = {name: float(np.linalg.norm(ours[name] - b) / np.linalg.norm(b))
             for name, b in theirs.items()}
    return {name: math.inf if math.isnan(value) else value for name, value in found.items()}


def check(ours, theirs, tolerance):
    """The `differences` on one image after another until all are small enough: of each name
    the smallest so far. ours, theirs: functions from an image's index to its `results`.

    A unit near a kink of relu or max_pool may round to the other side, in either library. That
    alone makes a difference of 1e-3 in a gradient of this image. A wrong net is wrong on all.
    """
    smallest = {}
    for index in range(CHECKED):
        for name, value in differences(ours(index), theirs(index)).items():
            smallest[name] = min(value, smallest.get(name, value))
        if max(smallest.values()) <= tolerance:
            break
    return smallest


class Elsewhere:
    """An object in a process of its own, which is asked for one thing at a time."""

    def __init__(self, make, *how):
        spawn = multiprocessing.get_context("spawn")
        self.pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()                 # so that its end is noticed
        self.pipe.send((make, how))

    def ask(self, what, *how):
        try:
            self.pipe.send((what, how))
            return self.pipe.recv()
        except (EOFError, OSError):
            sys.exit("PyTorch's process ended before its time; what it said stands above")

    def close(self):
        self.pipe.send(None)
        self.process.join()


def serve(pipe):
    signal.signal(signal.SIGINT, signal.SIG_IGN)       # Ctrl-C is our parent's; we end with it
    torch.set_num_threads(cores.cores())
    try:
        make, how = pipe.recv()
        net = make(*how)
        for what, how in iter(pipe.recv, None):
            pipe.send(getattr(net, what)(*how))
    except EOFError:                                   # our parent has ended
        pass


def compare(args, recipe):
    """Check, in float32, then time, in the recipe's precision. Returns rows: what was done,
    images/s of both sides, and their ratio."""
    draw = np.random.default_rng(0)
    shape = max(recipe.batch_size, CHECKED), recipe.crop, recipe.crop, 3
    images = 60 * recipe.pixel_scale * draw.standard_normal(shape, np.float32)
    labels = draw.integers(0, args.classes, len(images))
    ours = Ours(args, recipe, images, labels)
    ours.multiply_in("fp32")
    weights = whole_layers(ours.model)
    norms = ({"none": None} if recipe.lrn == "none" else
             {"a call a tower": Norm(recipe, False), "one call": Norm(recipe, True)})
    largest, elsewhere = {}, {}
    for name, norm in norms.items():
        elsewhere[name] = Elsewhere(Theirs, weights, images, labels, args, recipe, norm)
        elsewhere[name].ask("be_exact")
        found = check(ours.results, partial(elsewhere[name].ask, "results"), args.tolerance)
        worst = max(found, key=found.get)
        largest[name] = found[worst]
        if not found[worst] <= args.tolerance:
            sys.exit(f"the two nets disagree: {worst} by {found[worst]:.1e} "
                     f"(relative; allowed: {args.tolerance:.0e})")
    rows = []
    ours.multiply_in(recipe.precision)
    for theirs in elsewhere.values():
        theirs.ask("multiply_in", recipe.precision)
    for job in "step", "infer":
        speeds = {name: [] for name in ("tinynet", *norms)}
        for _ in range(1 + args.rounds):               # the first is the warm-up
            time.sleep(0.3)    # for a while after their work PyTorch's threads keep the cores
            speeds["tinynet"].append(ours.images_per_s(job))
            for name, theirs in elsewhere.items():
                speeds[name].append(theirs.ask("images_per_s", job))
        for name in norms:
            pairs = list(zip(speeds["tinynet"], speeds[name], strict=True))[1:]
            ratios = [a / b for a, b in pairs]
            rows.append(dict(
                job=job, lrn=name, largest_difference=largest[name],
                tinynet_images_per_s=statistics.median(a for a, _ in pairs),
                torch_images_per_s=statistics.median(b for _, b in pairs),
                ratio=statistics.median(ratios), lowest=min(ratios), highest=max(ratios)))
    for theirs in elsewhere.values():
        theirs.close()
    return rows


def start(args):
    changes = dict(batch_size=args.batch_size, dropout_kind="inverted",
                   precision=args.precision)
    if args.conv:
        changes["conv"] = args.conv
    recipe = recipes.RECIPES[args.recipe].changed(changes)
    if Device(args.device).is_gpu and not torch.cuda.is_available():
        raise UserError(f"{args.device}: this PyTorch ({torch.__version__}) has no GPU; install "
                        "one that has, or use --device cpu")
    torch.set_num_threads(cores.cores())
    rows = [row for lrn in ((True, False) if args.lrn is None else (args.lrn,))
            for row in compare(args, recipe if lrn else recipe.changed({"lrn": "none"}))]
    if args.json:
        print(json.dumps(dict(torch=torch.__version__, numpy=np.__version__, device=args.device,
                              batch_size=args.batch_size, precision=args.precision,
                              rows=rows)))
    else:
        print(*report(rows), sep="\n")
        precision = f", {args.precision}" * Device(args.device).is_gpu
        print(f"images/s on {args.device}{precision}, batches of {args.batch_size}, "
              f"PyTorch {torch.__version__}")
    return 0


def report(rows):
    """The rows as lines of text."""
    yield (f"{'':7}{'LRN in PyTorch':16}{'tinynet':>10}{'PyTorch':>10}{'ratio':>7}"
           f"{'low ... high':>16}{'differ by':>12}")
    for row in rows:
        between = f"{row['lowest']:.2f} ... {row['highest']:.2f}"
        yield (f"{row['job']:7}{row['lrn']:16}{row['tinynet_images_per_s']:>10,.1f}"
               f"{row['torch_images_per_s']:>10,.1f}{row['ratio']:>7.2f}{between:>16}"
               f"{row['largest_difference']:>12.0e}")


def parser():
    parser = common.parser("compare_with_torch.py", __doc__)
    parser.add_argument("--device", metavar="D", default=default_devices(1),
                        help="cpu, gpu0, ... (default here: %(default)s)")
    parser.add_argument("-b", "--batch-size", type=common.positive, default=128, metavar="N",
                        help="default: %(default)s")
    parser.add_argument("--rounds", type=common.positive, default=5, metavar="N",
                        help="measurements of each, in turn (default: %(default)s)")
    parser.add_argument("--lrn", action=argparse.BooleanOptionalAction,
                        help="with LRN only, or without only (default: both)")
    parser.add_argument("--recipe", choices=("paper", "small", "quickstart"), default="paper",
                        help="those whose net TorchAlexNet is (default: %(default)s)")
    parser.add_argument("--classes", type=at_least(2), default=1000, metavar="N",
                        help="default: %(default)s")
    parser.add_argument("--conv", metavar="C",
                        help="how tinynet computes convolutions (default: as the recipe says)")
    parser.add_argument("--precision", choices=PRECISIONS, default="tf32",
                        help="in which GPUs multiply while they are timed (default: tf32)")
    parser.add_argument("--tolerance", type=common.above_0, default=1e-4, metavar="T",
                        help="largest relative difference (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    return parser


def main(argv=None):
    return common.main(start, parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
