"""What can be typed behind `alexnet.py`, and what does it mean?"""
import argparse
from pathlib import Path
from textwrap import fill

from .. import device, ranks
from ..errors import UserError
from ..progress import warn
from . import recipes
from . import saved as checkpoints
from .program import SEED, Parser, at_least, program_name, typed

# What takes less memory, of what a command has options for.
LESS = {**dict.fromkeys(("test", "predict", "bench"), "a smaller --batch-size, "),
        "show": "smaller --classes, --kernels and --neurons, "}

PATTERNS = Path("data", "patterns")    # where pictures are drawn for whoever gives no folder

# --- the options of alexnet.py --------------------------------------------------------------


def parser(about, commands, version):
    """The parser of alexnet.py.

    about: its help. commands: its functions, called train, test, ...
    """
    main = Parser(prog=program_name(), description=about)
    main.add_argument("--version", action="version", version=f"tinynet {version}")
    subs = main.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for function in commands:
        name = function.__name__.rstrip("_")       # import is a word of Python
        doc = function.__doc__ or ""       # python -OO throws them away
        sub = subs.add_parser(name, help=doc.partition("\n")[0], description=fill(doc, 78))
        sub.set_defaults(run=function, out_of_memory=lambda name=name: (
            f"out of memory; what may help: {LESS.get(name, '')}a higher ulimit -v"))
        if name not in ("doctor", "export"):
            sub.add_argument("--device", metavar="D[,D]", help=(
                "cpu, cpu0,cpu1, gpu0, gpu0,gpu1 or gpu0:a,gpu0:b: one device for both towers "
                "or one for each (default: all GPUs, else cpu)"))
        ADD[name](sub)
    return main


def _train(sub):
    sub.epilog = ("examples:\n  alexnet.py train\n  alexnet.py train DIR --recipe quickstart "
                  "--epochs 20\n  alexnet.py train DIR --device gpu0,gpu1 --resume auto")
    sub.add_argument("dir", nargs="?", metavar="DIR",
                     help="holds train/<class>/* and val/<class>/* (default: drawn patterns)")
    run = sub.add_argument_group("the run")
    run.add_argument("--steps", type=at_least(1), metavar="N",
                     help="stop after step N, counted from the very start")
    run.add_argument("--seed", type=SEED, metavar="N", help="default: 0")
    run.add_argument("--resume", metavar="PATH",
                     help="go on from a checkpoint, or from last.npz in a folder; auto: from "
                          "the newest run of this recipe, if there is one")
    run.add_argument("--init-from", metavar="FILE",
                     help="start from the layers of another net, a checkpoint or .safetensors, "
                          "where they fit")
    run.add_argument("--output-dir", metavar="DIR", help="default: runs/<recipe>")
    run.add_argument("-p", "--print-freq", type=at_least(1), default=10, metavar="N",
                     help="steps between two log lines (default: %(default)s)")
    run.add_argument("--save-freq", type=at_least(1), default=500, metavar="N",
                     help="steps between two checkpoints within an epoch (default: %(default)s)")
    run.add_argument("--stall-steps", type=at_least(0), default=200, metavar="N",
                     help="look for the reason, once, when for N steps the loss is that of "
                          "guessing; 0: never (default: %(default)s)")
    run.add_argument("--verbose", action="store_true", help="print the whole recipe")
    _workers(run)
    _recipe(sub, "the net", "the pictures", "learning")


def _test(sub):
    sub.epilog = ("examples:\n  alexnet.py test runs/paper/best.npz DIR --views 10\n"
                  "  alexnet.py test a.npz b.npz DIR --weights search --save-probs both.npz")
    sub.add_argument("checkpoint", metavar="CHECKPOINT", help="a net: best.npz or last.npz")
    sub.add_argument("more", nargs="*", metavar="CHECKPOINT|DIR",
                     help="of several nets, the mean of their probabilities counts; DIR, the "
                          "last, holds val/<class>/* (default: where the first was trained)")
    sub.add_argument("--weights", metavar="W,W...",
                     help="how much each of several counts, or search: find it on these "
                          "pictures (default: all the same)")
    sub.add_argument("--save-probs", metavar="FILE",
                     help="write probabilities, labels, classes and names of the pictures to "
                          "an .npz file")
    sub.add_argument("--per-class", action="store_true",
                     help="print the error of each class, the worst first, and what its pictures "
                          "are called instead")
    _asking(sub)


def _predict(sub):
    sub.epilog = ("examples:\n  alexnet.py predict runs/paper/best.npz cat.jpg dog.jpg\n"
                  "  alexnet.py predict runs/paper/best.npz DIR --json --top 1 > answers.jsonl")
    sub.add_argument("checkpoint", metavar="CHECKPOINT", help="a net: best.npz or last.npz")
    sub.add_argument("images", nargs="+", metavar="IMAGE|DIR",
                     help="a picture file, or a folder: all pictures in it, however deep")
    sub.add_argument("--top", type=at_least(1), default=5, metavar="K",
                     help="how many classes of each are printed (default: %(default)s)")
    sub.add_argument("--json", action="store_true",
                     help="print a JSON object for each picture, a line each: file and labels "
                          "with probabilities, or error")
    _asking(sub)


def _export(sub):
    sub.epilog = "example:\n  alexnet.py export runs/paper/best.npz net.onnx"
    sub.add_argument("checkpoint", metavar="CHECKPOINT", help="a net: best.npz or last.npz")
    sub.add_argument("file", metavar="FILE", help="what is written: .safetensors; .onnx, from "
                     "0 ... 255 to probabilities; .pth, a state dict (examples/in_pytorch.py)")


def _import(sub):
    sub.epilog = ("example:\n  alexnet.py import bvlc_alexnet.caffemodel caffe.npz --classes "
                  "synset_words.txt")
    sub.add_argument("file", metavar="FILE", help="weights of Caffe (.caffemodel), PyTorch (.pth, "
                     "a state dict), ONNX, TensorFlow (.npy, a dict of layers) or .safetensors")
    sub.add_argument("out", metavar="OUT.npz", help="the checkpoint that is written")
    sub.add_argument("--classes", metavar="FILE",
                     help="a line for each class, in their order: synset_words.txt, or names")
    sub.add_argument("--mean", dest="mean_image", metavar="FILE",
                     help="the mean image of the training pictures, 3 x 256 x 256, blue first: "
                          ".binaryproto or .npy (default: one colour, that of ImageNet)")
    sub.add_argument("--blue-first", action=argparse.BooleanOptionalAction,
                     help="in which order the file's net has the colours (default: blue first in "
                          "Caffe's and what was made of them)")
    sub.add_argument("--check", metavar="PICTURE",
                     help="say what the net makes of a picture as it is, without a mean, and "
                          "compare it with what was published")
    _recipe(sub, "the net", "crop", "conv1_zeros", "fit", "pixel_scale",
            default="caffe for a net of two towers, owt for one")


def _walk(sub):
    sub.epilog = ("examples:\n  alexnet.py walk runs/paper/best.npz walk.html\n"
                  "  alexnet.py walk runs/paper/best.npz walk.html cat.jpg dog.jpg")
    sub.add_argument("checkpoint", metavar="CHECKPOINT", help="a net: best.npz or last.npz")
    sub.add_argument("page", metavar="OUT.html", help="what is written: one file, to be opened "
                                                      "in a browser")
    sub.add_argument("images", nargs="*", metavar="PICTURE",
                     help="what the net is shown (default: a few of the validation set)")
    _data(sub)


def _report(sub):
    sub.epilog = ("examples:\n  alexnet.py report runs/paper\n"
                  "  alexnet.py report runs/paper runs/2012 --output both.html")
    sub.add_argument("runs", nargs="+", metavar="RUN",
                     help="the folder of a run, of which best.npz is looked at, or a checkpoint")
    sub.add_argument("-o", "--output", dest="page", default="report.html", metavar="OUT.html",
                     help="what is written, with OUT.*.csv beside it (default: %(default)s)")
    sub.add_argument("--pictures", type=at_least(2), default=5000, metavar="N",
                     help="of the validation set, evenly spaced, at most (default: %(default)s)")
    _data(sub)


def _data(sub):
    sub.add_argument("--data", metavar="DIR",
                     help="holds val/<class>/* (default: where the net was trained)")
    _workers(sub)


def _show(sub):
    sub.add_argument("--ranks", dest="of_ranks", type=int, choices=(1, 2, 4, 8), default=1,
                     help="what one of so many processes holds and sends (default: %(default)s)")
    sub.add_argument("--ungrouped", action="store_true",
                     help="another net: both rows merged into one, every kernel sees every map")
    sub.add_argument("--classes", type=at_least(1), default=1000, metavar="N",
                     help="default: %(default)s")
    _recipe(sub, "the net", "crop", "batch_size")


def _bench(sub):
    sub.add_argument("--input", dest="dir", nargs="?", const=str(PATTERNS), metavar="DIR",
                     help="the input pipeline alone, on DIR/train (default: drawn patterns)")
    sub.add_argument("--rounds", type=at_least(1), default=5, metavar="N",
                     help="measurements of each, after a warm-up (default: %(default)s)")
    sub.add_argument("--json", action="store_true", help="print one JSON object instead")
    sub.add_argument("--classes", type=at_least(1), default=1000, metavar="N",
                     help="default: %(default)s")
    _workers(sub)
    _recipe(sub, "the net", "the pictures", "batch_size")


ADD = {"train": _train, "test": _test, "predict": _predict, "import": _import, "export": _export,
       "walk": _walk, "report": _report, "show": _show, "bench": _bench,
       "doctor": lambda sub: None}


def _asking(sub):
    sub.add_argument("--views", type=int, choices=(1, 10), default=1,
                     help="1: the central crop; 10: corners, centre and their mirror images, "
                          "as the paper reports its errors (4.1) (default: %(default)s)")
    sub.add_argument("-b", "--batch-size", type=at_least(1), default=32, metavar="N",
                     help="pictures at a time (default: %(default)s)")
    _workers(sub)


def _workers(sub):
    sub.add_argument("-j", "--workers", type=at_least(1), default=2, metavar="N",
                     help="threads that read pictures, processes beside a GPU (default: "
                          "%(default)s)")


def _recipe(sub, *wanted, default="paper with DIR, quickstart without"):
    """An option for every field of these groups, or of these names."""
    sub.add_argument("--recipe", choices=recipes.RECIPES, help=f"default: {default}")
    groups = {}
    for field in recipes.options():
        group = field.metadata["group"]
        if not {group, field.name} & set(wanted):
            continue
        if group not in groups:
            groups[group] = sub.add_argument_group(
                f"recipe: {group}", "What is left out is as the recipe has it. Numbers in\n"
                                    "brackets are sections of the paper.")
        names = ["-b"] if field.name == "batch_size" else []
        names.append("--" + field.name.replace("_", "-"))
        by_layer, default = field.name == "layer_lr", field.default
        if isinstance(default, tuple):
            default = 1 if by_layer else ",".join(map(str, default))
        about = f"{field.metadata['help']} (paper: {default})"
        if field.type is bool:
            groups[group].add_argument(*names, action=argparse.BooleanOptionalAction, help=about)
            continue
        kind = "layers with numbers, as in conv1=0.1,fc8=10" if by_layer else {
            tuple: "words or numbers with commas between", int: "a whole number",
            float: "a number", str: "a word"}[field.type]
        choices = recipes.CHOICES.get(field.name)
        groups[group].add_argument(
            *names, type=typed(recipes.reader(field), kind), choices=choices, help=about,
            metavar=None if choices else "LAYER=X,..." if by_layer else {
                tuple: "X,X", int: "N", float: "X"}[field.type])


# --- what they mean ---------------------------------------------------------------------


def with_ranks(args):
    """The same arguments, and the ranks.Ranks that this process is one of."""
    args.ranks = ranks.ALONE
    if ranks.told()[0] == 1:
        return args
    from .. import mpi  # late: few are one of several
    several = args.command == "train" or args.command == "bench" and not args.dir
    args.ranks = mpi.start(alone=not several, quiet=getattr(args, "json", False))
    return args


def two_devices(names, recipe=recipes.RECIPES["paper"], ranks=ranks.ALONE, spare=False):
    """--device as two devices, one for each tower; for one tower the same one twice. Of several
    ranks each has one device. They multiply in the recipe's precision. spare: whether one tower
    may be given two devices, for nets beside it, and takes the first; else UserError."""
    if ranks.size > 1:
        own = ranks.device(names)
        own.multiply_in(recipe.precision)
        return own, own
    if names is None:
        names = device.default_devices(most=recipe.towers)
    found = device.devices(names)
    if len(found) > 2:
        raise UserError(f"--device {names}: AlexNet has two towers; give one or two devices")
    if recipe.towers == 1 and found[0] != found[-1] and not spare:
        raise UserError(f"--towers 1 is a net for one device: give --device {found[0]}")
    found = found[:recipe.towers]
    for place in found:
        place.multiply_in(device.precision_of(found, recipe.precision))
    return found[0], found[-1]


def chosen_recipe(args, saved=None):
    """The recipe of a checkpoint, or the named one, or the default; options win."""
    if saved:
        recipe = recipes.from_dict(saved.recipe, saved.path)
        if args.recipe not in (None, recipe.name):
            raise UserError(f"{saved.path} was made with --recipe {recipe.name}; to train "
                            f"by --recipe {args.recipe}, start without --resume")
    else:
        recipe = recipes.RECIPES[args.recipe or default_recipe(args)]
    fields = given(args)
    recipe = recipe.changed(fields)
    for name in fields.keys() & recipes.NEEDS.keys():
        other, values = recipes.NEEDS[name]
        if getattr(recipe, other) not in values:
            value = getattr(recipe, other)
            how = f"--no-{other}" if value is False else f"--{other} {value}"
            warn(f"--{name} counts for nothing with {how}".replace("_", "-"))
    return recipe


def given(args):
    """The fields of a recipe that were typed as options: a dict."""
    return {field.name: getattr(args, field.name) for field in recipes.options()
            if getattr(args, field.name, None) is not None}


def default_recipe(args):
    return "paper" if args.command != "train" or args.dir else "quickstart"


def place_of_run(args, ranks=ranks.ALONE):
    """Where the run goes and what it goes on from: a claim.Claim, which of several ranks only
    the first has (the others the folder), and a Saved or None."""
    claim, saved = _place_of_run(args) if ranks.first else (None, None)
    folder, saved = ranks.share(lambda: (claim.folder, saved))
    return claim or folder, saved


def _place_of_run(args):
    if args.resume and args.init_from:
        raise UserError("--resume goes on with a run, --init-from starts one: give one of them")
    claim, saved = checkpoints.place_of_run(args.output_dir, args.resume,
                                            args.recipe or default_recipe(args))
    if saved and not any(name.startswith("velocity/") for name in saved.file.names):
        raise UserError(f"{saved.path} was imported, and there is no run to go on with: start one "
                        f"with --init-from {saved.path}")
    if saved and args.seed not in (None, saved.seed):
        raise UserError(f"{saved.path} was made with --seed {saved.seed}; to train with --seed "
                        f"{args.seed}, start without --resume")
    return claim, saved


def rate_to_go_on_with(args, saved):
    """--lr, or None for the rate that the run has reached. A command that is repeated with
    --resume auto gives the first rate again, and so means nothing by it."""
    again = args.resume == "auto" and args.lr == saved.recipe["lr"]
    return None if again else args.lr


def weights_of_nets(wanted, count):
    """--weights as a list of one number for each of `count` nets, or "search"."""
    if wanted in (None, "search"):
        return wanted or [1.0] * count
    try:
        weights = [float(number) for number in wanted.split(",")]
    except ValueError:
        weights = []
    if len(weights) != count or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
        raise UserError(f"--weights {wanted}: give {count} numbers, one for each checkpoint "
                        "and not all 0, or search")
    return weights
