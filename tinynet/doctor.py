"""What is wrong, with a run that does not learn, or with the machine?

A net that guesses has a loss of ln(classes), and AlexNet is known for being stuck there.
StallWatch notices it and diagnosis looks for the reason; machine is for what goes wrong before.
"""
import importlib.metadata
import math
import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from PIL import features
from threadpoolctl import threadpool_info

from . import device
from .engine import Tensor, no_grad
from .layers import ReLU, Weighted
from .progress import shown

DEAD = 0.5                     # a layer is sick if as many of its units are dead,
TINY = 1e-3                    # if its outputs are as small,
FLAT = 0.05                    # or if as little of them depends on the picture
STEP = 1e-5, 1e-2              # |step| / |W| outside of this is too slow or too fast
PIXELS = 0.1, 10               # "he" is made for inputs whose spread is near 1
ROOM = 1.5e9                   # bytes: last.npz and best.npz of the full net, and one beside


# --- a run that does not learn ----------------------------------------------------------


class StallWatch:
    """Notices, once, that the loss does not come 1 % below ln(classes), that of guessing.

    steps: for how long; 0: never. start: the step at which this process begins; what was
    before is unknown, so a checkpoint has nothing to keep. The loss may well be above: with
    the paper's rate and first values it sways up to 3 % over ln(classes) while it is stuck.
    """

    def __init__(self, classes, steps, start=0):
        self.guessing, self.steps = math.log(classes), steps
        self.since = start             # up to this step the loss was lower, or is unknown
        self.spoken = not steps

    def stalled(self, step, loss):
        """Take the mean loss since the last report; true the first time it is a stall."""
        if loss < 0.99 * self.guessing:
            self.since = step
        if self.spoken or step - self.since < self.steps:
            return False
        self.spoken = True
        return True


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
    def size(self):
        return math.hypot(self.mean, self.std)

    @property
    def is_dead(self):
        return self.dead is not None and self.dead >= DEAD

    def fault(self):
        """Why layers after this one have little to go by, in words; or None."""
        if self.is_dead:
            return f"{self.dead:.0%} of its units are dead"
        if self.size < TINY:
            return f"its outputs are as small as {self.size:.1g}"
        if self.varies < FLAT:
            return f"only {self.varies:.1g} of its output depends on the picture"
        return None


def diagnosis(model, optimizer, batch, recipe):
    """Lines on why a net learns nothing: every layer, the batch, and what usually helps.

    Call it after a step, with the batch of that step: its gradients are still there. Nothing
    that the run depends on changes.
    """
    rows = examine(model, optimizer, batch.images)
    pixels, labels = batch.images, batch.labels
    counts, classes = np.bincount(labels), model.fc8.b.shape[0]
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
    training = model.training
    model.eval()
    try:
        with listening(outputs, seen), no_grad():
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


@contextmanager
def listening(layers, seen):
    """Inside, every one of these layers leaves the numbers on its output in seen[name]."""
    for name, layer in layers.items():
        def forward(*inputs, name=name, forward=layer.forward):
            output = forward(*inputs)
            with output.device:
                seen[name] = _numbers(output.data)
            return output
        layer.forward = forward                        # hides the method of its class
    try:
        yield
    finally:
        for layer in layers.values():
            del layer.forward


def _numbers(y):
    """Share of dead units, mean, std, and mean spread over the pictures: on the device."""
    xp = device.get_array_module(y)
    units = y.reshape(-1, y.shape[-1])
    return xp.stack([(units.max(axis=0) <= 0).mean(), y.mean(), y.std(), y.std(axis=0).mean()])


def _relative(optimizer, name):
    """|last step| / |W| and |dW| / |W|."""
    w = optimizer.parameters[name]
    xp = device.get_array_module(w.data)
    with w.device:
        size, step, gradient = (float(xp.linalg.norm(array)) for array in (
            w.data, optimizer.velocity[name], w.grad))
    return step / (size or 1.0), gradient / (size or 1.0)


def remedies(rows, pixels, labels, optimizer, recipe):
    """One line for each thing found, with the option to type; data first, patience last."""
    lines = []
    if len(labels) >= 16 and (np.diff(labels) >= 0).all():
        lines.append("look at train/: the labels of this batch are sorted or all the same")
    if pixels.std(axis=0).mean() < FLAT * pixels.std():
        lines.append("look at train/: the pictures of this batch are all alike")
    name, row = next(((name, row) for name, row in rows.items() if row.fault()), (None, None))
    if row:                                    # the layers after it suffer from its fault
        options = first_values(recipe, pixels.std(), row.is_dead)
        if options:
            lines.append(f"start again with {options}: {name} fails first, {row.fault()}")
    pace = np.median([row.step for row in rows.values()])
    if row and row.is_dead:
        lines.append(f"--lr {optimizer.lr / 10:.2g}: too large a step kills units; {name} has "
                     "the first dead ones")
    elif pace > STEP[1]:
        lines.append(f"--lr {optimizer.lr / 10:.2g}: half of the layers change by more than "
                     f"{STEP[1]:g} of W in a step")
    elif pace < STEP[0]:
        lines.append(f"--lr {optimizer.lr * 10:.2g}: half of the layers change by less than "
                     f"{STEP[0]:g} of W in a step")
    lines.append("patience: the paper's first values may take many hundreds of steps, and some "
                 "--seed never")
    return lines


def first_values(recipe, spread, dead):
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


# --- the machine ------------------------------------------------------------------------


def machine():
    """What there is to compute with: ([(name, fact), ...], broken, hints).

    broken: lines on what cannot work as it is; hints: on what could be better. Each says
    which command to run.
    """
    total, free = memory()
    limit = container_limit()
    disk = {name: shutil.disk_usage(name).free for name in (".", tempfile.gettempdir())}
    facts = [
        ("tinynet", f"{_installed_version('tinynet') or 'not installed'}, "
                    f"in {Path(__file__).parent}"),
        ("Python", f"{platform.python_version()}, {sys.executable}"),
        ("platform", platform.platform()),
        ("NumPy", np.__version__),
        ("BLAS", "; ".join(
            f"{blas['internal_api']} {blas['version']}, {blas.get('architecture', '')}, "
            f"{blas['num_threads']} threads"
            for blas in threadpool_info() if blas["user_api"] == "blas") or "unknown"),
        ("Pillow", f"{PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo') or 'no'}"),
        ("cores", f"{device.cores()} to use of {os.cpu_count()}; as many threads, while "
                  "training with one BLAS thread each"),
        ("memory", f"{_GB(free)} free of {_GB(total)}"
                   + (f"; the limit of this container is {_GB(limit)}"
                      if limit < (total or math.inf) else "")),
        ("disk", "; ".join(f"{_GB(free)} free in {name}" for name, free in disk.items()))]
    cards, broken, hints = gpus()
    if disk["."] < ROOM:
        hints.append(f"a run of the full net keeps {_GB(ROOM)} of checkpoints: train with "
                     "--output-dir on another disk")
    return facts + cards, broken, hints


def gpus():
    """The same of CuPy and the cards."""
    packages = sorted({found.metadata["Name"] for found in importlib.metadata.distributions()
                       if re.fullmatch("cupy(-(cuda|rocm).*)?", found.metadata["Name"] or "")})
    try:
        found = device.gpu_report()
    except Exception as error:                 # whatever it is, it is the finding
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy" and not packages:
            return ([("CuPy", "not installed"), ("--device", "cpu")], [],
                    [f"for NVIDIA cards: {_install()}   (gpu-cuda12 if the driver is older "
                     "than 580)"])
        return ([("CuPy", f"does not load ({', '.join(packages) or 'no package of pip'})"),
                 ("--device", "cpu")], [f"CuPy: {_first_line(error)}: {_install(packages)}"], [])
    driver, runtime, cards = found["driver"], found["runtime"], found["cards"]
    newer = bool(driver) and driver // 1000 < runtime // 1000
    again = _install(packages, 12 if newer or runtime < 13000 else 13)
    facts = [("CuPy", f"{found['version']}, {' and '.join(packages)} in {found['folder']}"),
             ("CUDA", f"CuPy is made for {_cuda(runtime)}; the driver is "
                      + (f"good for {_cuda(driver)}" if driver else "missing"))]
    broken = [f"two packages of CuPy at once: {again}"] if len(packages) > 1 else []
    hints = []
    if newer:
        broken.append(f"CuPy is made for a newer driver: {again}   (or a newer driver)")
    elif not cards:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        hints.append("CuPy finds no NVIDIA card that answers: nvidia-smi   (lists what the "
                     "driver sees)" + (f"; CUDA_VISIBLE_DEVICES is {hidden!r}" if hidden is not None
                                       else ""))
    for i, card in enumerate(cards):
        facts.append((f"gpu{i}", f"{card['name']}, compute capability {card['capability']}, "
                                 f"{_GB(card['free'])} free of {_GB(card['total'])}"))
        if len(cards) > 1:
            reached = [f"gpu{j}" for j, reach in enumerate(card["peers"]) if reach]
            facts.append(("", "reads directly: " + (", ".join(reached) or
                              "no other card; what crosses goes through the host")))
        if card["fault"]:
            broken.append(f"gpu{i} cannot compute, {_first_line(card['fault'])}: {again}")
    return [*facts, ("--device", device.default_devices())], broken, hints


def memory():
    """Bytes of memory in the machine and free of it; None where nobody tells."""
    try:
        with open("/proc/meminfo") as file:
            kB = {name: int(rest.split()[0]) for name, rest in
                  (line.split(":") for line in file)}
        return kB["MemTotal"] << 10, kB["MemAvailable"] << 10
    except OSError:                            # macOS, Windows
        names = getattr(os, "sysconf_names", {})
        if "SC_PHYS_PAGES" not in names:
            return None, None
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None


def container_limit():
    """Bytes that the control group of this process may use; infinite if nobody says."""
    for path in "memory.max", "memory/memory.limit_in_bytes":              # versions 2 and 1
        try:
            return int(Path("/sys/fs/cgroup", path).read_text())
        except (OSError, ValueError):                                      # "max"
            pass
    return math.inf


def _install(packages=(), cuda=13):
    pip = f"{shlex.quote(shown(sys.executable))} -m pip"
    remove = f"{pip} uninstall -y {' '.join(packages)} && " if packages else ""
    return f'{remove}{pip} install -e ".[gpu-cuda{cuda}]"'


def _installed_version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _first_line(error):
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _cuda(version):
    return f"{version // 1000}.{version % 1000 // 10}"


def _GB(size):
    return "unknown" if size is None else f"{size / 1e9:.1f} GB"
