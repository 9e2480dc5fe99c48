"""Is another program's net AlexNet, and which?

A net is compared as a plan: its steps in their order, each a dict, {"is": "conv", "stride": 4,
...}. A reader makes one of what its file says of the net, of_net of a net of tinynet; ONNX is
written from one.
"""
import math
import re
from dataclasses import dataclass, field

import numpy as np

from ..conv import both_sides


@dataclass
class Foreign:
    """The net in a file of another program.

    program: whose. layers: name -> array, conv1.weight ... fc8.bias in PyTorch's layout, as
    views of the file's bytes. steps: its plan, if the file has one. blue_first: whether it wants
    blue before green before red. about: what alexnet.py wrote beside the weights, text by name.
    mean: a mean image (3, 256, 256) in the file. notes: what else is to be said of it.
    """
    program: str
    layers: dict
    steps: list = None
    blue_first: bool = False
    about: dict = field(default_factory=dict)
    mean: np.ndarray = None
    notes: list = field(default_factory=list)

    def __post_init__(self):
        """Raises ValueError for a plan of another net than its weights, or without numbers."""
        kinds = [step["is"] for step in self.steps or [] if step["is"] in ("conv", "dense")]
        if self.steps and kinds != ["conv" if "conv" in name else "dense"
                                    for name in self.layers if name.endswith(".weight")]:
            raise ValueError("its steps are not those of its weights")
        for step in self.steps or []:
            values = {**step, "pad": 0, "first": step.get("pad", [0])[0], "is": 0}
            if not all(type(value) in (int, float) for value in values.values()):
                raise ValueError(f"its {step['is']} has a setting that is no number")

    def recipe_fields(self):
        """What its plan says about the fields of a recipe: a dict. What it leaves open, which is
        everything if there is no plan, is not there."""
        return recipe_fields(self.steps) if self.steps else {}

    def difference(self, model):
        """In words, where its plan differs from that of a net of tinynet; or None."""
        return self.steps and difference(self.steps, of_net(model))


def named(pairs):
    """name -> array, as AlexNet's layers are called, for (weights, biases) pairs in their order:
    five or six convolutions, then three dense layers. Raises ValueError for other nets."""
    pairs = list(pairs)
    axes = [weights.ndim for weights, _ in pairs]
    if axes not in ([4] * 5 + [2] * 3, [4] * 6 + [2] * 3):
        raise ValueError(f"its weights have {axes} axes, AlexNet's {[4] * 5 + [2] * 3}"[:200])
    names = [f"conv{1 + place}" for place in range(axes.count(4))] + ["fc6", "fc7", "fc8"]
    layers = {}
    for name, (weights, biases) in zip(names, pairs, strict=True):
        if biases.shape != weights.shape[:1] or not weights.size:
            raise ValueError(f"{name} has weights {weights.shape} and biases {biases.shape}")
        layers |= {f"{name}.weight": weights, f"{name}.bias": biases}
    return layers


def named_by_prefix(arrays):
    """The same for a dict of arrays called <layer>.weight and <layer>.bias, in the order of their
    numbers: features.3 comes before features.10."""
    layers = {}
    for name, array in arrays.items():
        layer, _, what = name.rpartition(".")
        if what not in ("weight", "bias"):
            raise ValueError(f"AlexNet has no {name!r}")
        layers.setdefault(layer, {})[what] = array
    for name, both in layers.items():
        if len(both) < 2:
            raise ValueError(f"{name!r} has no {'bias' if 'weight' in both else 'weight'}")

    def order(name):
        return layers[name]["weight"].ndim != 4, [
            (not part.isdigit(), int(part) if part.isdigit() else part)
            for part in re.findall(r"\d{1,9}|\D+", name)]

    return named((layers[name]["weight"], layers[name]["bias"])
                 for name in sorted(layers, key=order))


# --- plans ------------------------------------------------------------------------------------


def of_net(model):
    """The plan of a net of alexnet.py, in test mode."""
    tower, rows = model.towers[0], len(model.towers)
    layers = dict(tower.layers())
    layers.setdefault("fc8", getattr(model, "fc8", None))      # of two towers it is outside
    maps, steps = 3, []
    for name, layer in layers.items():
        for _, leaf in layer.layers() or [("", layer)]:
            kind = type(leaf).__name__
            if kind == "Conv2D":
                steps.append({"is": "conv", "layer": name, "size": leaf.size,
                              "stride": leaf.stride, "pad": both_sides(leaf.pad),
                              "groups": maps // leaf.channels})
                maps = rows * leaf.kernels
            elif kind in ("LRN", "AcrossLRN"):
                steps.append({"is": "lrn", "size": leaf.n, "alpha": leaf.n * leaf.alpha,
                              "beta": leaf.beta, "k": leaf.k, "maps": maps,
                              "window": maps // (rows if kind == "LRN" else 1)})
            elif kind == "SameMapLRN":
                steps.append({"is": "same-map-lrn", "size": leaf.size, "k": leaf.k,
                              "alpha": leaf.alpha, "beta": leaf.beta})
            elif kind == "MaxPool":
                steps.append({"is": "pool", "size": leaf.size, "stride": leaf.stride})
            elif kind == "Dropout":
                if leaf.classic and leaf.p:            # else it keeps all
                    steps.append({"is": "scale", "by": leaf.keep})
            elif kind == "ReLU":
                steps.append({"is": "relu"})
            elif kind != "Flatten":
                steps.append({"is": "dense", "layer": name})
    return steps


def recipe_fields(steps):
    kinds = [step["is"] for step in steps]
    convs = [place for place, kind in enumerate(kinds) if kind == "conv"]
    first = steps[convs[0]]
    fields = {"after_conv1": tuple(kinds[convs[0] + 1:convs[1]]),
              "after_conv2": tuple(kinds[convs[1] + 1:convs[2]]),
              "conv1_zeros": "around" if first["pad"][0] else "end"}
    norms = [step for step in steps if step["is"] == "lrn"]
    if not norms:
        return fields | {"lrn": "none"}
    one = norms[0]
    window = "tower" if one["window"] < one["maps"] else "layer"
    return fields | {"lrn": "mean", "lrn_alpha": one["alpha"], "lrn_k": one["k"],
                     "lrn_window": window}


def difference(theirs, ours):
    """In words, the first step in which two plans differ; or None.

    Numbers that a file holds as float32 count as equal if they are so there. Only where a
    convolution begins to read zeros counts: what it reads at the far end follows from the sizes.
    """
    for number, (step, own) in enumerate(zip(theirs, ours, strict=False), 1):
        where = f"step {number}, {own.get('layer') or own['is']}"
        if step["is"] != own["is"]:
            return f"{where}: {step['is']} there"
        for name in sorted(own.keys() & step.keys() - {"is", "layer"}):
            there, here = (of[name][0] if name == "pad" else of[name] for of in (step, own))
            if not math.isclose(there, here, rel_tol=1e-6):
                return f"{where}: {name} is {there:g} there and {here:g} here"
    if len(theirs) != len(ours):
        return f"{len(theirs)} steps there and {len(ours)} here"
    return None
