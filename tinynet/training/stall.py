"""Why does a run not learn?

A net that guesses has a loss of ln(classes), and AlexNet is known for being stuck there.
StallWatch notices it; diagnosis looks at every layer, and says what usually helps.
"""
import math
import re
from dataclasses import dataclass

import numpy as np

from .. import device
from ..engine import Tensor, no_grad
from ..layers import ReLU, Weighted, watched

DEAD = 0.5                     # a layer is sick if so many of its units are dead,
TINY = 1e-3                    # if its outputs are so small,
FLAT = 0.05                    # or if so little of them depends on the picture
STEP = 1e-5, 1e-2              # outside of this |step| / |W| is too slow or too fast
TOGETHER = 50                  # losses read at once, unless a stall is due: a GPU waits then
PIXELS = 0.1, 10               # "he" is made for inputs whose spread is near 1


class StallWatch:
    """Notices, once, that the loss does not come 1 % below ln(classes), that of guessing.

    steps: for how long; 0: never. What was before this process began is unknown, so a
    checkpoint has nothing to keep. The loss may well be above: with the paper's rate and first
    values it sways up to 3 % over ln(classes) while it is stuck.
    """

    def __init__(self, classes, steps):
        self.guessing, self.steps = math.log(classes), steps
        self.since = None                  # up to this step the loss was lower, or is unknown
        self.losses = []
        self.spoken = not steps or classes == 1        # of which nothing has to be guessed

    def saw(self, step, loss):
        """Take the loss, a tensor, of a step; true the first time that it is a stall."""
        if self.spoken:
            return False
        if self.since is None:
            self.since = step - 1
        self.losses.append(loss)
        if len(self.losses) < TOGETHER and step - self.since < self.steps:
            return False
        mean = sum(one.item() for one in self.losses) / len(self.losses)
        self.losses = []
        if mean < 0.99 * self.guessing:
            self.since = step
        self.spoken = step - self.since >= self.steps
        return self.spoken


@dataclass
class Row:
    """What diagnosis says of a layer.

    dead: the share of units (maps, neurons) that are zero at every place of every picture;
    None where there is no ReLU. mean, std: of all outputs. varies: the spread of an output
    over the pictures, relative to the size (root mean square) of the outputs. step, gradient:
    |last step| / |W| and |dW| / |W|.
    """
    dead: float
    mean: float
    std: float
    varies: float
    step: float
    gradient: float

    @property
    def is_dead(self):
        return self.dead is not None and self.dead >= DEAD

    def fault(self):
        """Why layers after this one have little to go by, in words; or None."""
        if self.is_dead:
            return f"{self.dead:.0%} of its units are dead"
        if math.hypot(self.mean, self.std) < TINY:
            return f"its outputs are below {TINY:g}"
        if self.varies < FLAT:
            return f"only {self.varies:.1g} of its output depends on the picture"
        return None


def diagnosis(model, optimizer, batch, recipe):
    """Lines on why a net learns nothing: every layer, the batch, and what usually helps.

    Call it after a step, with the batch of that step: its gradients are still there. Nothing
    that the run depends on changes. Of several ranks each looks at what it has of the net, so all
    of them call it.
    """
    pixels, labels = device.to_host(batch.images), batch.labels
    rows = examine(model, optimizer, pixels)
    if not model.ranks.first or len(pixels) < 2:       # of one picture nothing varies
        return ["the loss does not fall below that of guessing; this batch has too few pictures "
                "to say why"]
    counts, classes = np.bincount(labels), model.fc8.b.whole_shape[0]
    decay = optimizer.lr * optimizer.weight_decay / (1 - optimizer.momentum)
    lines = [f"the loss does not fall below ln({classes}) = {math.log(classes):.3f}, that of "
             "guessing. What the net does with this batch:",
             f"{'layer':13}{'dead':>5}{'mean':>10}{'std':>9}{'varies':>9}{'|step|/|W|':>12}"
             f"{'|dW|/|W|':>10}"]
    for name, row in rows.items():
        dead = "" if row.dead is None else f"{row.dead:.0%}"
        lines.append(f"{name:13}{dead:>5}{row.mean:>10.2g}{row.std:>9.2g}{row.varies:>9.2g}"
                     f"{row.step:>12.2g}{row.gradient:>10.2g}")
    lines += [
        "  dead: units at 0 for all these pictures. varies: the part of the outputs (no dropout)",
        "  that depends on the picture: 0.3 is healthy. |step|/|W|: the last step; 1e-3 is usual,",
        f"  {decay:.1g} is weight decay alone",
        f"pixels: {pixels.min():.3g} ... {pixels.max():.3g}, mean {pixels.mean():.2g}, std "
        f"{pixels.std():.2g}",
        f"labels: {np.count_nonzero(counts)} of {classes} classes among {len(labels)} pictures, "
        f"the commonest {counts.max()} times",
        "what may help:"]
    return lines + [f"  {line}" for line in remedies(rows, pixels, labels, optimizer, recipe)]


def examine(model, optimizer, images):
    """{"top.conv1": Row, ...}, in the order in which the layers compute.

    images: (N, H, W, 3). Outputs are those of a pass of their own in test mode, so that no
    dropout hides what depends on the picture.
    """
    outputs, weights = {}, {}
    for path, layer in model.named_layers():
        name = re.sub(r"(\.\d+)?\.$", "", path)
        if isinstance(layer, Weighted):
            weights[name] = path + "W"
        if isinstance(layer, (Weighted, ReLU)):        # a ReLU wins over the layer before it
            outputs[name] = layer
    seen = {}

    def listening(name, forward, *inputs):
        output = forward(*inputs)
        if output.size:                                # else other ranks have all of it
            with output.device:
                seen[name] = _numbers(output.data)
        return output

    training = model.training
    model.eval()
    try:
        with watched(outputs, listening), no_grad():
            model(Tensor(images, model.devices[0]))
    finally:
        (model.train if training else model.eval)()
    rows = {}
    for name, numbers in seen.items():
        dead, mean, std, spread = device.to_host(numbers).tolist()
        step, gradient = _relative(optimizer, weights[name])
        rows[name] = Row(dead if isinstance(outputs[name], ReLU) else None, mean, std,
                         spread / (math.hypot(mean, std) or 1.0), step, gradient)
    return rows


def _numbers(y):
    """Share of dead units, mean, std, and mean spread over the pictures: on the device."""
    xp = device.get_array_module(y)
    units = y.reshape(-1, y.shape[-1])
    dead = (units.max(axis=0) <= 0).mean(dtype=y.dtype)
    return xp.stack([dead, y.mean(), y.std(), y.std(axis=0).mean()])


def _relative(optimizer, name):
    """|last step| / |W| and |dW| / |W|."""
    w = optimizer.parameters[name]
    xp = device.get_array_module(w.data)
    with w.device:
        size, step, gradient = (0.0 if array is None else float(xp.linalg.norm(array))
                                for array in (w.data, optimizer.velocity[name], w.grad))
    return step / (size or 1.0), gradient / (size or 1.0)


def remedies(rows, pixels, labels, optimizer, recipe):
    """One line for each thing found, with the option to type; data first, patience last."""
    lines = []
    if len(labels) >= 16 and (np.diff(labels) >= 0).all():
        lines.append("look at train/: the labels of this batch are sorted or all the same")
    if pixels.std(axis=0).mean() <= FLAT * pixels.std():
        lines.append("look at train/: the pictures of this batch are all alike")
    name, row = next(((name, row) for name, row in rows.items() if row.fault()), (None, None))
    if row:                                    # the layers after it suffer from its fault
        options = better_start(recipe, pixels.std(), row.is_dead)
        if options:
            lines.append(f"start again with {options}: {name} fails first, {row.fault()}")
    pace = np.median([row.step for row in rows.values() if row.step or row.gradient] or [0.0])
    if row and row.is_dead:
        lines.append(f"--lr {optimizer.lr / 10:.2g}: units die of steps that are too large, those "
                     f"of {name} first")
    elif not STEP[0] <= pace <= STEP[1]:
        rate = optimizer.lr * (10 if pace < STEP[0] else 0.1)
        lines.append(f"--lr {rate:.2g}: the median layer changes by {pace:.1g} of |W| in a step")
    lines.append("patience: the paper's first values may take many hundreds of steps, and some "
                 "--seed never" if any(std != "he" for std in recipe.std) else
                 "patience, or another --seed")
    return lines


def better_start(recipe, spread, dead):
    """The options of a start in which all layers pass the picture on; "" if it was one.

    spread: of the pixels; dead: whether units die (if not: whether the signal does).
    """
    options = []
    if not dead and any(std != "he" for std in recipe.std):
        options.append("--std he")
    if options or "he" in recipe.std:
        if any(recipe.bias):
            options.append("--bias 0")
        if not PIXELS[0] < spread < PIXELS[1]:
            options.append(f"--pixel-scale {recipe.pixel_scale / (spread or 1.0):.1g}")
    return " ".join(options)
