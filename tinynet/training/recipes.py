"""What exactly is trained, on what, and how? Every choice is a named field.

A recipe is stored in every checkpoint and printed when training starts, and each of its
fields is an option of `alexnet.py train` (`--lr`, `--pixel-scale`, ...).
"""
import math
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial

from .. import schema
from ..conv import FORMS, out_size
from ..device import PRECISIONS
from ..errors import UserError
from ..layers import LRN, Conv2D, Dropout, Flatten, MaxPool, ReLU, Sequential
from ..ranks import ALONE
from ..schema import COUNT
from ..split import AcrossLRN, DenseInLanes
from . import schedules
from .cuda_convnet import SameMapLRN


def _field(group, default, help):
    return field(default=default, metadata={"group": group, "help": help})


net, pictures, learning = (partial(_field, group) for group in (
    "the net", "the pictures", "learning"))


@dataclass(frozen=True)
class Recipe:
    """The defaults are the letter of the paper; section numbers refer to it."""

    name: str = "paper"

    # the net
    towers: int = net(2, "rows of figure 2; 1: the one-GPU net of 3.2, with half the kernels "
                         "in conv1 ... conv4")
    conv6: bool = net(False, "a sixth convolution after the last pool, as in the nets with "
                             "an asterisk (6)")
    kernels: tuple = net((48, 128, 192, 192, 128),
                         "kernels of conv1 ... conv5 in each tower (figure 2)")
    neurons: tuple = net((2048, 2048), "neurons of fc6, fc7 in each tower (figure 2)")
    std: tuple = net((0.01,) * 8, "standard deviation of the first weights of conv1 ... fc8 (5), "
                                  "a number or he: sqrt(2 / inputs); one for all or eight")
    bias: tuple = net((0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0),
                      "first biases of conv1 ... fc8 (5), one for all or eight")
    after_conv1: tuple = net(("relu", "lrn", "pool"),
                             "the order of relu, lrn, same-map-lrn and pool (3.5)")
    after_conv2: tuple = net(("relu", "lrn", "pool"), "the same for layer 2 (3.5)")
    pool: int = net(3, "side of a pool's window, every 2 pixels (3.4); 2: no overlap")
    pool_ties: str = net("first", "who gets the gradient of several largest pixels: the "
                                  "first or all of them")
    lrn: str = net("sum", "sum: alpha multiplies the sum over 5 maps (3.3); mean: their "
                          "mean, as in the 2012 program; none: no normalisation")
    lrn_alpha: float = net(1e-4, "LRN's alpha (3.3)")
    lrn_k: float = net(2.0, "LRN's k (3.3)")
    lrn_window: str = net("tower", "tower: over the maps of its own tower, as each GPU has them; "
                                   "layer: over those of both, as in Caffe")
    dropout: float = net(0.5, "probability to drop an output of fc6, fc7 (4.2)")
    dropout_kind: str = net("classic", "classic: halve at test time (4.2), or inverted")
    conv: str = net("auto", "how convolutions are computed: plain, the formula; im2col, the same "
                            "in strips; winograd, with fewer multiplications, wherever it can "
                            "be; auto, where it is faster")
    precision: str = net("tf32", "how GPUs multiply: tf32, with factors rounded to 10 bits, as "
                                 "PyTorch's convolutions do; or fp32")

    # the pictures
    crop: int = pictures(227, "side of the random crops from 256 x 256 pictures (4.1); the net "
                              "reads zeros beyond the edge of 224")
    conv1_zeros: str = pictures("end", "where these zeros lie: all at the end, as in the 2012 "
                                       "program; or around, as in torchvision")
    fit: str = pictures("crop", "crop: shorter side to 256, the central square (2); squeeze: both "
                                "sides to 256, as in Caffe")
    augment: bool = pictures(True, "random crops, perhaps mirrored (4.1); without it always the "
                                   "central one")
    area: float = pictures(1.0, "smallest share of a picture that is enlarged to 256 x 256 before "
                                "the crop, a random square of it; 1: always all of it (4.1)")
    share: int = pictures(1, "how many pictures in a row share a crop and a mirror (4.1: not "
                             "said)")
    shuffle: str = pictures("epoch", "epoch: a new order in every epoch; once: always the same")
    mean: str = pictures("aligned", "aligned: the mean image is cropped where the picture is (2); "
                                    "centre: always its centre, never mirrored")
    pixel_scale: float = pictures(1.0, "multiplies the pixels (0 ... 255) after the mean "
                                       "image was subtracted (2)")
    colour: str = pictures("eigenvalue",
                           "PCA colour noise (4.1): none, eigenvalue (the paper's letter, on "
                           "pixels of 0 ... 1), or stdev (what its authors ran: on ImageNet "
                           "about twice as much, and the picture divided by 1 + its size)")
    colour_sigma: float = pictures(0.1, "size of the colour noise (4.1)")

    # learning
    batch_size: int = learning(128, "pictures in a step, over all devices (5)")
    epochs: int = learning(90, "cycles through the training pictures (5)")
    lr: float = learning(0.01, "first learning rate (5)")
    layer_lr: tuple = learning((1.0,) * 8, "multiples of the rate, of layers that are to learn at "
                                           "another (5: none), as in conv=0,fc8=10, where conv "
                                           "means all that begin so; 0: they stand still, and "
                                           "cost no gradient")
    schedule: str = learning("plateau", "plateau: divide the rate by 10 when the validation "
                                        "error stops improving (5); 2012: when the authors did; "
                                        "dexp: their automatic one; step: every step_epochs; "
                                        "linear: down to 0 at the last epoch; or constant")
    patience: int = learning(5, "plateau: validations without improvement before the rate drops")
    threshold: float = learning(0.001, "plateau: what counts as an improvement of the error")
    drops: int = learning(3, "plateau: how often the rate drops at most (5)")
    step_epochs: int = learning(30, "step: divide the rate by 10 every so many epochs")
    momentum: float = learning(0.9, "momentum (5)")
    wd: float = learning(0.0005, "weight decay (5)")
    bias_lr: float = learning(1.0, "the rate of biases, as a multiple (5: equal for all layers)")
    bias_wd: bool = learning(True, "whether biases decay (5: not said)")

    @property
    def colour_epochs(self):
        """How many epochs have colour noise: the authors' log ends it in the last quarter."""
        if self.schedule not in schedules.COLOUR_ENDS:
            return math.inf
        end, of = schedules.COLOUR_ENDS[self.schedule]
        return math.ceil(end * self.epochs / of)

    def rates_of_layers(self):
        """{"conv1": 0.1, ...}: the layers whose rate is another, as a multiple of it."""
        rates = dict(zip(LAYERS, self.layer_lr, strict=True))
        rates["conv6"] = rates["conv5"]
        return {layer: rate for layer, rate in rates.items() if rate != 1}

    def map_sides(self):
        """Pixels on a side of the maps that conv1 makes and that fc6 sees.

        They are 55 and 6 for crops of 227, and of 224. Every pixel is seen, if need be by
        windows that reach beyond the edge, as in the 2012 program. Raises UserError.
        """
        try:
            first = out_size(self.crop, 11, 4, ceil=True)
            side = out_size(first, self.pool, 2, ceil=True)
            for _ in "conv2", "conv4":
                side = out_size(side - 2 * (3 - self.pool), self.pool, 2, ceil=True)
        except ValueError as error:
            raise UserError(f"--crop {self.crop} is too small for five layers: {error}") from None
        return first, side

    def changed(self, options):
        """The same recipe with some fields set, from a dict. Raises UserError."""
        recipe = replace(self, **{name: _for_all_layers(name, value)
                                  for name, value in options.items()})
        recipe.check()
        return recipe

    def check(self):
        """Raise UserError for what no net could be built of or trained with."""
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} is one of {', '.join(map(str, allowed))}, "
                                f"not {getattr(self, name)!r}")
        for name, length in LENGTHS.items():
            if len(getattr(self, name)) != length:
                raise UserError(f"{name} takes {length} numbers, not {getattr(self, name)}")
        for name in ("after_conv1", "after_conv2"):
            for word in getattr(self, name):
                if word not in AFTER_CONV:
                    raise UserError(f"{name} is made of {', '.join(AFTER_CONV)}, not {word!r}")
            if getattr(self, name).count("pool") != 1:         # map_sides counts on it
                raise UserError(f"{name} has one pool, not {','.join(getattr(self, name))}")
        for name in ("kernels", "neurons", "crop", "share", "batch_size", "epochs", "patience",
                     "step_epochs"):
            value = getattr(self, name)
            numbers = value if isinstance(value, tuple) else (value,)
            if not 1 <= min(numbers) <= max(numbers) <= MOST:
                raise UserError(f"{name} must be at least 1 and at most {MOST:,}, not {value}")
        if not all(map(math.isfinite, self.bias)):
            raise UserError(f"bias must be finite, not {self.bias}")
        for name in ("dropout", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 0 and less than 1, "
                                f"not {getattr(self, name)}")
        if not 0.01 <= self.area <= 1:
            raise UserError(f"area must be at least 0.01 and at most 1, not {self.area}")
        for name in ("std", "lrn_alpha", "lrn_k", "pixel_scale", "colour_sigma", "lr", "wd",
                     "bias_lr", "threshold", "drops"):
            value = getattr(self, name)
            numbers = [x for x in value if x != "he"] if name == "std" else [value]
            if not all(0 <= number < math.inf for number in numbers):
                raise UserError(f"{name} must be at least 0, not {value}")
        if not all(0 <= rate < math.inf for rate in self.layer_lr) or not any(self.layer_lr):
            raise UserError("layer_lr takes numbers of at least 0, and one above it: else nothing "
                            f"learns; not {self.layer_lr}")
        if self.schedule in ("2012", "dexp") and not any(self.layer_lr[1:]):
            raise UserError(f"with schedule {self.schedule} conv1 stands still in the end, and "
                            "layer_lr lets no other layer learn")
        if self.crop > 256:
            raise UserError(f"--crop {self.crop} does not fit into pictures of 256 x 256")
        self.map_sides()

    def lines(self, whole):
        """Lines of text: a line a field, or only what is not the named recipe's own."""
        own, fields = asdict(RECIPES[self.name]), asdict(self)
        if whole:
            return [f"  {name:13} {value}{'' if value == own[name] else '   (changed)'}"
                    for name, value in fields.items()]
        return [f"  {name} {value}, not {own[name]}" for name, value in fields.items()
                if value != own[name]]


CHOICES = {
    "towers": (1, 2),
    "pool": (2, 3),
    "pool_ties": ("first", "all"),
    "lrn": ("sum", "mean", "none"),
    "lrn_window": ("tower", "layer"),
    "conv1_zeros": ("end", "around"),
    "fit": ("crop", "squeeze"),
    "conv": FORMS,
    "precision": PRECISIONS,
    "dropout_kind": ("classic", "inverted"),
    "shuffle": ("epoch", "once"),
    "mean": ("aligned", "centre"),
    "colour": ("none", "eigenvalue", "stdev"),
    "schedule": tuple(schedules.SCHEDULES),
}
# Fields that only count with a certain value of another one.
NEEDS = {"area": ("augment", [True]), "share": ("augment", [True]),
         "patience": ("schedule", ["plateau"]), "threshold": ("schedule", ["plateau"]),
         "drops": ("schedule", ["plateau"]), "step_epochs": ("schedule", ["step"]),
         "colour_sigma": ("colour", ["eigenvalue", "stdev"]),
         "lrn_window": ("lrn", ["sum", "mean"]),
         "lrn_alpha": ("lrn", ["sum", "mean"]), "lrn_k": ("lrn", ["sum", "mean"])}
MOST = 1 << 20                             # kernels, epochs, ...: what is more is a slip
AFTER_CONV = "relu", "lrn", "same-map-lrn", "pool"
LENGTHS = {"kernels": 5, "neurons": 2, "std": 8, "bias": 8, "layer_lr": 8}

RECIPES = {
    "paper": Recipe(),
    # What the program did that won in 2012, from its configuration (layers-145.cfg).
    "2012": Recipe(
        name="2012", crop=224, share=32, shuffle="once", mean="centre", colour="stdev",
        after_conv1=("lrn", "pool", "relu"), after_conv2=("relu", "lrn", "same-map-lrn", "pool"),
        pool_ties="all", lrn="mean", std=(0.01, 0.01, 0.03, 0.03, 0.03, 0.01, 0.01, 0.01),
        schedule="2012", epochs=91, bias_lr=2.0, bias_wd=False),
    # bvlc_alexnet of Caffe, but that it saw blue before red. Its database was shuffled once, when
    # it was written (and a batch there may run over an epoch's end).
    "caffe": Recipe(
        name="caffe", shuffle="once", fit="squeeze", colour="none", lrn="mean", lrn_k=1.0,
        lrn_window="layer", dropout_kind="inverted",
        std=(0.01,) * 5 + (0.005, 0.005, 0.01), bias=(0.0, 0.1, 0.0, 0.1, 0.1, 0.1, 0.1, 0.0),
        batch_size=256, schedule="step", step_epochs=20, bias_lr=2.0, bias_wd=False),
    # The paper's net, as wide as there, for some thousand photographs: what is not the paper's is
    # there because these are few. Its first weights and pixels of 0 ... 255 stay at ln(classes)
    # for longer than there are batches; a mean spread near 1 and sqrt(2 / inputs) leave it at
    # once, and then no bias has to keep a ReLU awake. With batches of half the size there are
    # twice as many steps. A rate that falls to 0 needs nobody to see when it should. With the
    # paper's crops the net knew 9,469 photographs by heart after 45 epochs (training error below
    # 1 %, 18.8 % of others): so it sees another part of each, enlarged, every time.
    "small": Recipe(
        name="small", std=(0.003,) + ("he",) * 7, bias=(0.0,) * 8, pixel_scale=1 / 64, area=0.35,
        batch_size=64, epochs=52, schedule="linear"),
    # alexnet of torchvision, the net of "one weird trick" (arXiv:1404.5997) in one tower, as its
    # references train it. Other than there, crops are not of random areas, the pictures are less
    # the mean image and divided by one number, and dropout comes after fc6 and fc7.
    "owt": Recipe(
        name="owt", towers=1, kernels=(64, 192, 384, 256, 128), lrn="none", std=("he",) * 8,
        bias=(0.0,) * 8, dropout_kind="inverted", crop=224, conv1_zeros="around",
        pixel_scale=1 / 64, colour="none", batch_size=32, wd=1e-4, schedule="step"),
    # The paper's settings do not leave ln(classes) within minutes. This is the same net, with a
    # quarter of the maps and an eighth of the neurons, scaled so that it does. conv1 starts close
    # to zero, so that what its kernels show in the end is what they have learned.
    "quickstart": Recipe(
        name="quickstart", kernels=(12, 32, 48, 48, 32), neurons=(256, 256),
        std=(0.003,) + ("he",) * 7, bias=(0.0,) * 8, dropout=0.25, pixel_scale=1 / 64,
        colour="none", batch_size=32, epochs=6, lr=0.01, schedule="linear"),
}


def from_dict(values, where):
    """The recipe that asdict() made this of, as read from JSON (tuples are lists there).

    Raises UserError, which begins with `where`, for what is no recipe.
    """
    known = {f.name: values[f.name] for f in fields(Recipe) if values.get(f.name) is not None}
    schema.check(known, {f.name: (None, _form(f)) for f in fields(Recipe)}, f"{where}: recipe")
    try:
        recipe = Recipe().changed({name: tuple(value) if isinstance(value, list) else value
                                   for name, value in known.items()})
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    if recipe.name not in RECIPES:
        raise UserError(f"{where}: recipe.name: there is no recipe called {recipe.name!r}")
    return recipe


def _form(field):
    """What schema.check wants of a field."""
    if field.type is not tuple:
        return COUNT if field.type is int else field.type
    number = type(field.default[0])
    return [COUNT if number is int else (number, "he") if field.name == "std" else number]


def options():
    """The fields of a recipe that are options of the command line: all but its name."""
    return [f for f in fields(Recipe) if f.metadata]


def reader(option):
    """What turns an option's text into its field's value: "12,32" -> (12, 32)."""
    if option.name == "layer_lr":
        return _by_layer
    if option.type is not tuple:
        return option.type
    number = type(option.default[0])

    def numbers(text):
        return tuple("he" if word == "he" and option.name == "std" else number(word)
                     for word in text.split(","))

    return numbers


def _by_layer(text):
    """"conv=0,fc8=10" -> a number for each of LAYERS: 0, 0, 0, 0, 0, 1, 1, 10."""
    found = dict.fromkeys(LAYERS, 1.0)
    for word in text.split(","):
        name, _, number = word.partition("=")
        named = [layer for layer in LAYERS if name and layer.startswith(name)]
        if not named:
            raise ValueError(name)
        found.update(dict.fromkeys(named, float(number)))
    return tuple(found.values())


def _for_all_layers(name, value):
    """One number for a field of eight layers stands for all of them."""
    return value * LENGTHS[name] if name in ("std", "bias") and len(value) == 1 else value


# --- what a net is made of --------------------------------------------------------------


LAYERS = "conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"


class Bricks:
    """The parts of a net as a recipe has them: a layer with what follows it.

    row: which of the figure's rows they are for, of how many; ranks: whose neurons.
    """

    def __init__(self, recipe, ranks=ALONE, row=0, rows=1):
        self.recipe, self.lanes = recipe, ranks.lanes_of_tower(row, rows)
        # Without overlap a pool reads less beyond the edge; the program gave up as much
        # padding in conv2 and conv4, so that the maps stay nearly as large (run 147).
        self.less_pad = 3 - recipe.pool
        first, self.last_side = recipe.map_sides()              # 55, 6
        beyond = 4 * (first - 1) + 11 - recipe.crop             # 0; of a crop of 224: 3
        self.beyond_edge = (0, beyond) if recipe.conv1_zeros == "end" else (
            beyond - beyond // 2, beyond // 2)

    def conv(self, name, *sizes, then=("relu",), **how):
        """A convolution, and what follows it in the order of `then`. sizes, how: Conv2D's."""
        return Sequential(Conv2D(*sizes, **how, form=self.recipe.conv, **self.initial(name)),
                          *[self._following(step) for step in then
                            if self.recipe.lrn != "none" or "lrn" not in step])

    def dense(self, name, *sizes):
        """A layer in which every neuron sees everything, with its ReLU and dropout."""
        dense = DenseInLanes(*sizes, **self.lanes, **self.initial(name))
        dropout = Dropout(self.recipe.dropout, self.recipe.dropout_kind == "classic")
        if dense.W.part:
            dropout.part = dict(columns=dense.W.part, width=dense.outputs)
        return Sequential(Flatten(), dense, ReLU(), dropout)

    def last(self, *sizes):
        """fc8: a number for every class, before the softmax."""
        return DenseInLanes(*sizes, **self.lanes, **self.initial("fc8"))

    def initial(self, name):
        """std and bias of a layer's first values; conv6 starts like conv5."""
        i = LAYERS.index(name.replace("conv6", "conv5"))
        return dict(std=self.recipe.std[i], bias=self.recipe.bias[i])

    def _following(self, step):
        recipe = self.recipe
        if step == "relu":
            return ReLU()
        if step == "pool":
            return MaxPool(recipe.pool, stride=2, ties=recipe.pool_ties, ceil=True)
        if step == "same-map-lrn":
            return SameMapLRN()
        alpha = recipe.lrn_alpha / (5 if recipe.lrn == "mean" else 1)
        kind = AcrossLRN if recipe.lrn_window == "layer" else LRN
        return kind(n=5, k=recipe.lrn_k, alpha=alpha, beta=0.75)
