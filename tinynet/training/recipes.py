"""What exactly is trained, on what, and how? Every choice is a named field.

A recipe is stored in every checkpoint and printed when training starts, and each of its
fields is an option of `alexnet.py train` (`--lr`, `--pixel-scale`, ...).
"""
import math
from dataclasses import asdict, dataclass, field, fields, replace

from ..errors import UserError
from . import schedules


def _field(default, help):
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Recipe:
    """The defaults are the letter of the paper; section numbers refer to it."""

    name: str = "paper"

    # the net
    towers: int = _field(2, "rows of figure 2; 1: the one-GPU net of 3.2, with half the kernels "
                            "in conv1 ... conv4")
    conv6: bool = _field(False, "a sixth convolution after the last pool, as in the nets with "
                                "an asterisk (6)")
    kernels: tuple = _field((48, 128, 192, 192, 128),
                            "kernels of conv1 ... conv5 in each tower (figure 2)")
    neurons: tuple = _field((2048, 2048), "neurons of fc6, fc7 in each tower (figure 2)")
    std: tuple = _field((0.01,) * 8, "spread of the first weights of conv1 ... fc8 (5), a "
                                     "number or he: sqrt(2 / inputs); one for all or eight")
    bias: tuple = _field((0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0),
                         "first biases of conv1 ... fc8 (5), one for all or eight")
    after_conv1: tuple = _field(("relu", "lrn", "pool"),
                                "the order of relu, lrn, same-map-lrn and pool (3.5)")
    after_conv2: tuple = _field(("relu", "lrn", "pool"), "the same for layer 2 (3.5)")
    pool: int = _field(3, "side of a pool's window, every 2 pixels (3.4); 2: no overlap")
    pool_ties: str = _field("first", "who gets the gradient of several largest pixels: the "
                                     "first or all of them")
    lrn: str = _field("sum", "sum: alpha multiplies the sum over 5 maps (3.3); mean: their "
                             "mean, as in the 2012 program; none: no normalisation")
    lrn_alpha: float = _field(1e-4, "LRN's alpha (3.3)")
    lrn_k: float = _field(2.0, "LRN's k (3.3)")
    dropout: float = _field(0.5, "probability to drop an output of fc6, fc7 (4.2)")
    dropout_kind: str = _field("classic", "classic: halve at test time (4.2), or inverted")
    conv: str = _field("auto", "how convolutions are computed: im2col; winograd, with fewer "
                               "multiplications, wherever it can be; auto, where it is faster")

    # the pictures
    crop: int = _field(227, "side of the random crops from 256 x 256 pictures (4.1); the net "
                            "reads zeros beyond the edge of 224")
    share: int = _field(1, "how many pictures in a row share a crop and a mirror (4.1: not said)")
    shuffle: str = _field("epoch", "epoch: a new order in every epoch; once: always the same")
    mean: str = _field("aligned", "aligned: the mean image is cropped where the picture is (2); "
                                  "centre: always its centre, never mirrored")
    pixel_scale: float = _field(1.0, "multiplies the pixels (0 ... 255) after the mean "
                                     "image was subtracted (2)")
    colour: str = _field("eigenvalue",
                         "PCA colour noise (4.1): none, eigenvalue (the paper's letter, on "
                         "pixels of 0 ... 1), or stdev (what its authors ran: on ImageNet "
                         "about twice as much, and the picture divided by 1 + its size)")
    colour_sigma: float = _field(0.1, "size of the colour noise (4.1)")

    # learning
    batch_size: int = _field(128, "pictures in a step, over all devices (5)")
    epochs: int = _field(90, "cycles through the training pictures (5)")
    lr: float = _field(0.01, "first learning rate (5)")
    schedule: str = _field("plateau", "plateau: divide the rate by 10 when the validation "
                                      "error stops improving (5); 2012: when the authors did; "
                                      "dexp: their automatic one; step: every step_epochs; "
                                      "linear: down to 0 at the last epoch; or constant")
    patience: int = _field(5, "plateau: validations without improvement before the rate drops")
    threshold: float = _field(0.001, "plateau: what counts as an improvement of the error")
    drops: int = _field(3, "plateau: how often the rate drops at most (5)")
    step_epochs: int = _field(30, "step: divide the rate by 10 every so many epochs")
    momentum: float = _field(0.9, "momentum (5)")
    wd: float = _field(0.0005, "weight decay (5)")
    bias_lr: float = _field(1.0, "the rate of biases, as a multiple (5: equal for all layers)")
    bias_wd: bool = _field(True, "whether biases decay (5: not said)")

    @property
    def colour_epochs(self):
        """How many epochs have colour noise: the authors' log ends it in the last quarter."""
        if self.schedule == "2012":
            return math.ceil(schedules.COLOUR_2012 * self.epochs / schedules.EPOCHS_2012)
        if self.schedule == "dexp":
            return math.ceil(schedules.COLOUR_DEXP * self.epochs / schedules.EPOCHS_DEXP)
        return math.inf

    def changed(self, options):
        """The same recipe with some fields set, from a dict. Raises UserError."""
        recipe = replace(self, **{name: _spread(name, value)
                                  for name, value in options.items()})
        recipe.check()
        return recipe

    def check(self):
        """Raise UserError for what no net could be built of or trained with."""
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} is one of {', '.join(allowed)}, "
                                f"not {getattr(self, name)!r}")
        for name, length in LENGTHS.items():
            if len(getattr(self, name)) != length:
                raise UserError(f"{name} takes {length} numbers, not {getattr(self, name)}")
        for name in ("after_conv1", "after_conv2"):
            for word in getattr(self, name):
                if word not in AFTER_CONV:
                    raise UserError(f"{name} is made of {', '.join(AFTER_CONV)}, not {word!r}")
        for name in ("kernels", "neurons", "crop", "share", "batch_size", "epochs", "patience",
                     "step_epochs"):
            value = getattr(self, name)
            if min(value if isinstance(value, tuple) else (value,)) < 1:
                raise UserError(f"{name} must be at least 1, not {value}")
        for name in ("dropout", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 0 and less than 1, "
                                f"not {getattr(self, name)}")
        for name in ("std", "lrn_alpha", "lrn_k", "pixel_scale", "colour_sigma", "lr", "wd",
                     "bias_lr", "threshold", "drops"):
            value = getattr(self, name)
            numbers = [x for x in value if x != "he"] if name == "std" else [value]
            if not all(0 <= number < math.inf for number in numbers):
                raise UserError(f"{name} must be at least 0, not {value}")

    def lines(self):
        """One line a field, for the start of a run; what is not the recipe's own is marked."""
        own = asdict(RECIPES[self.name])
        return [f"  {name:13} {value}{'' if value == own[name] else '   (changed)'}"
                for name, value in asdict(self).items()]


CHOICES = {
    "towers": (1, 2),
    "pool": (2, 3),
    "pool_ties": ("first", "all"),
    "lrn": ("sum", "mean", "none"),
    "conv": ("auto", "im2col", "winograd"),
    "dropout_kind": ("classic", "inverted"),
    "shuffle": ("epoch", "once"),
    "mean": ("aligned", "centre"),
    "colour": ("none", "eigenvalue", "stdev"),
    "schedule": ("plateau", "2012", "dexp", "step", "linear", "constant"),
}
AFTER_CONV = "relu", "lrn", "same-map-lrn", "pool"
LENGTHS = {"kernels": 5, "neurons": 2, "std": 8, "bias": 8}

RECIPES = {
    "paper": Recipe(),
    # What the program did that won in 2012, from its configuration (layers-145.cfg).
    "2012": Recipe(
        name="2012", crop=224, share=32, shuffle="once", mean="centre", colour="stdev",
        after_conv1=("lrn", "pool", "relu"), after_conv2=("relu", "lrn", "same-map-lrn", "pool"),
        pool_ties="all", lrn="mean", std=(0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01),
        schedule="2012", epochs=91, bias_lr=2.0, bias_wd=False),
    # bvlc_alexnet of Caffe, but for its pictures (squeezed to 256 x 256, blue before red) and
    # for its LRN's window, which reaches from one tower's maps into the other's.
    "caffe": Recipe(
        name="caffe", colour="none", lrn="mean", lrn_k=1.0, dropout_kind="inverted",
        std=(0.01,) * 5 + (0.005, 0.005, 0.01), bias=(0.0, 0.1, 0.0, 0.1, 0.1, 0.1, 0.1, 0.0),
        batch_size=256, schedule="step", step_epochs=20, bias_lr=2.0, bias_wd=False),
    # The paper's settings do not leave ln(classes) within minutes. This is the same net, a
    # quarter as wide and scaled so that it does. conv1 starts close to zero, so that what
    # its kernels show in the end is what they have learned.
    "quickstart": Recipe(
        name="quickstart", kernels=(12, 32, 48, 48, 32), neurons=(256, 256),
        std=(0.003,) + ("he",) * 7, bias=(0.0,) * 8, dropout=0.25, pixel_scale=1 / 64,
        colour="none", batch_size=32, epochs=6, lr=0.01, schedule="linear"),
}


def from_dict(values):
    """The recipe that asdict() made this of, as read from JSON (tuples are lists there)."""
    known = {f.name for f in fields(Recipe)}
    return Recipe(**{name: tuple(value) if isinstance(value, list) else value
                     for name, value in values.items() if name in known})


def options():
    """The fields of a recipe that are options of the command line: all but its name."""
    return [f for f in fields(Recipe) if f.metadata]


def reader(option):
    """What turns an option's text into its field's value: "12,32" -> (12, 32)."""
    if option.type is not tuple:
        return option.type
    number = type(option.default[0])

    def numbers(text):
        return tuple("he" if word == "he" and option.name == "std" else number(word)
                     for word in text.split(","))

    return numbers


def _spread(name, value):
    """One number for a field of eight layers stands for all of them."""
    return value * LENGTHS[name] if name in ("std", "bias") and len(value) == 1 else value
