"""Is every step that a GPU takes the CPU's step?

    python tests/gpu_losses.py DIR [--device gpu0] [--precision tf32] [--steps 100]

Two runs part sooner or later, as training is chaotic. So here the CPU trains the quickstart net
on the pictures of DIR, and before each of its steps the GPU is given its weights and velocities.
Both take the step with the same pictures. How far apart are the two losses, and how far do the
two steps end from each other, of their length? The GPU replays its steps, as in training.
"""
import argparse
import math
import sys

import numpy as np

import alexnet
from tinynet import SGD, ops
from tinynet.device import PRECISIONS, to_host
from tinynet.pictures import packed
from tinynet.pictures.batches import Loader, measure
from tinynet.pictures.images import Preparation
from tinynet.replay import Replayed
from tinynet.training.options import two_devices
from tinynet.training.recipes import RECIPES
from tinynet.training.schedules import set_rates

# How far losses and steps may be apart. In flat parts of a photograph the pixels of a pooling
# window are equal, and rounding decides which of them gets the gradient: the CPU's own two forms
# of a convolution take steps that are 4e-3 apart.
BARS = {"fp32": (1e-4, 2e-2), "tf32": (1e-2, 2e-1)}
RECIPE = RECIPES["quickstart"]
SAID = 1, 2, 5, 10, 20, 50, 100        # steps


class Side:
    """A net on a device, its pictures, and how it takes a step."""

    def __init__(self, device, recipe, pictures, statistics):
        self.top, bottom = two_devices(device, recipe)
        self.recipe = recipe
        self.model = alexnet.build(len(pictures.classes), (self.top, bottom), recipe)
        self.optimizer = SGD(self.model.initialize(0).parameters(), recipe.lr, recipe.momentum,
                             recipe.wd, recipe.bias_lr, recipe.bias_wd)
        self.loader = Loader(pictures, Preparation(recipe, statistics, 0), recipe.batch_size,
                             devices=self.model.devices)
        self.learn = Replayed(self.plain, self.model)

    def plain(self, labels, *images):
        loss = ops.softmax_cross_entropy(self.model(*images), labels=labels)
        self.optimizer.zero_grad()
        loss.backward()
        return [loss]

    def step(self, number, batch, epochs_done):
        set_rates(self.optimizer, self.recipe, epochs_done)
        self.model.train(number)
        [loss] = self.learn(self.top.put(batch.labels), *batch.tensors(self.top))
        self.optimizer.step()
        return loss.item()

    def weights(self):
        return [to_host(w.data).copy() for _, w in self.model.parameters()]

    def begin_as(self, other):
        """Take the weights and velocities of another one. They stay where they are: replay.py."""
        theirs = dict(other.model.parameters())
        for name, w in self.model.parameters():
            with w.device:
                w.data[...] = w.device.put(theirs[name].data)
                self.optimizer.velocity[name][...] = w.device.put(other.optimizer.velocity[name])


def together(recipe, device, pictures, statistics, steps):
    """Yield (step, loss of the CPU, of the other, how far apart the two steps are)."""
    sides = cpu, other = [Side(name, recipe, pictures, statistics) for name in ("cpu", device)]
    number, epoch = 0, 0
    while True:
        for batches in zip(*[side.loader.training(epoch) for side in sides], strict=True):
            before = cpu.weights()
            other.begin_as(cpu)
            losses = [side.step(number, batch, recipe.epochs * number / steps)
                      for side, batch in zip(sides, batches, strict=True)]
            number += 1
            after = cpu.weights()
            yield number, *losses, distance(other.weights(), after) / distance(before, after)
            if number == steps:
                return
        epoch += 1


def distance(some, others):
    return math.sqrt(sum(np.sum((a - b) ** 2, dtype=float)
                         for a, b in zip(some, others, strict=True)))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pictures", metavar="DIR")
    parser.add_argument("--device", default="gpu0")
    parser.add_argument("--precision", choices=PRECISIONS, default="tf32")
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args(argv)
    recipe = RECIPE.changed({"precision": args.precision})
    pictures = packed.data_set(args.pictures, "train")
    statistics = pictures.statistics or measure(pictures, 8)
    worst = np.zeros(2)
    for step, loss, there, apart in together(recipe, args.device, pictures, statistics,
                                             args.steps):
        worst = np.maximum(worst, (abs(there - loss) / loss, apart))         # keeps a NaN
        if step in SAID:
            print(f"step {step}: loss {loss:.6f}, there {there:.6f}; so far at most "
                  f"{worst[0]:.1e} apart, and the steps {worst[1]:.1e} of their length",
                  flush=True)
    return not (worst <= BARS[args.precision]).all()


if __name__ == "__main__":
    sys.exit(main())
