"""How much does each idea of the paper help, on a folder of photographs?

    python examples/photographs.py DIR                         every net, three seeds each
    python examples/photographs.py DIR --only "no LRN" --epochs 40

A net like the paper's, a quarter as wide, is trained by `alexnet.py train --recipe small`, but
with the paper's own crops: as it is, and without one of its ideas at a time. The program prints
the error on DIR/val of the last weights, for one view and for ten, as mean and standard deviation
over the seeds; whether the difference is larger than chance would make it; and the error of all
seeds together ("5 CNNs").
Ctrl-C stops; the same command goes on, and skips what is done.
"""
import contextlib
import hashlib
import io
import sys
from pathlib import Path

import numpy as np

import alexnet
import common
from ablations import std_of_seeds, verdict
from tinynet import store
from tinynet.errors import UserError
from tinynet.pictures.packed import data_set
from tinynet.progress import say, shown, warn
from tinynet.training import evaluation

NARROW = ["--kernels", "12,32,48,48,32", "--neurons", "512,512"]
WHOLE = "as it is"
NETS = {WHOLE: [], "one tower": ["--towers", "1"], "no LRN": ["--lrn", "none"],
        "no overlap": ["--pool", "2"], "no dropout": ["--dropout", "0"],
        "no crops": ["--no-augment"]}


def refuse_other_pictures(args):
    """Raise UserError if the runs in args.output_dir are of another folder; else keep of which."""
    seen = hashlib.sha256()
    for split in "train", "val":
        found = data_set(args.dir, split)
        names = [found.name(index) for index in range(len(found))]
        seen.update(repr((found.classes, names, found.labels.tolist())).encode())
    file, own = args.output_dir / "pictures.txt", seen.hexdigest()
    if file.exists():
        kept, folder = file.read_text("utf-8", "surrogateescape").splitlines()[:2]
        if kept != own:
            raise UserError(f"the runs in {shown(args.output_dir)} are of the pictures in "
                            f"{folder}, not of those in {args.dir}: choose another --output-dir")
        return
    args.output_dir.mkdir(parents=True, exist_ok=True)
    with store.replacing(file) as part:
        part.write(f"{own}\n{Path(args.dir).resolve()}\n".encode(errors="surrogateescape"))


def train(name, seed, args):
    """One net on one seed, for args.epochs: its last weights. It goes on where it was stopped."""
    folder = args.output_dir / f"{name.replace(' ', '-')}-{args.epochs}-epochs-seed-{seed}"
    device = args.device.partition(",")[0] if "--towers" in NETS[name] else args.device
    words = ["train", args.dir, "--recipe", "small", "--area", 1, *NARROW, *NETS[name],
             "--epochs", args.epochs, "--seed", seed, "--device", device,
             "--output-dir", folder, "--resume", "auto"]
    say(f"\n{name}, seed {seed}: alexnet.py {' '.join(map(str, words))}")
    status = alexnet.main([str(word) for word in words])
    if status:                                         # it has said why
        if status == 130:
            warn("photographs.py: the same command goes on with all of them")
        sys.exit(status)
    return folder / "last.npz"


def probabilities(checkpoint, views, args):
    """What a net makes of DIR/val: (N, classes), and the labels (N,). Computed once."""
    file = checkpoint.with_name(f"{views}-views.npz")
    if not file.exists() or file.stat().st_mtime < checkpoint.stat().st_mtime:
        words = ["test", checkpoint, args.dir, "--views", views, "--device", args.device,
                 "--save-probs", file]
        with contextlib.redirect_stdout(io.StringIO()):
            status = alexnet.main([str(word) for word in words])
        if status:
            sys.exit(status)
    with np.load(file) as found:
        return found["probabilities"], found["labels"]


def error(found, labels):
    """The share of pictures whose label is not the most probable; ties count as errors."""
    with np.errstate(divide="ignore"):
        return evaluation.result(np.log(found), labels)["top1_error"]


def start(args):
    args.output_dir = args.output_dir or common.RUNS / "photographs"
    unknown = [name for name in args.only if name not in NETS]
    if unknown:
        raise UserError(f"--only {unknown[0]}: the nets are {', '.join(NETS)}")
    names = [name for name in NETS if name == WHOLE or name in (args.only or NETS)]
    refuse_other_pictures(args)
    errors = {}
    for name in names:
        last = [train(name, seed, args) for seed in range(args.seeds)]
        for views in 1, 10:
            found, labels = zip(*[probabilities(path, views, args) for path in last], strict=True)
            errors[name, views] = [error(one, labels[0]) for one in found]
            errors[name, views].append(error(np.mean(found, axis=0), labels[0]))
    say(f"\nerror on {len(labels[0]):,} pictures after {args.epochs} epochs, {args.seeds} seeds;\n"
        f"in brackets that of all seeds together\n{'1 view':>38}{'10 views':>24}")
    for name in names:
        say(f"{name:14}" + "".join(in_words(errors[name, views]).rjust(24) for views in (1, 10)))
    for name in names[1:]:
        say(verdict(WHOLE, name, errors[WHOLE, 10][:-1], errors[name, 10][:-1]) + " (10 views)")
    say(f"runs: {shown(args.output_dir)}")
    return 0


def in_words(found):
    *each, together = found
    spread = f" ± {std_of_seeds(each):.1%}" if len(each) > 1 else ""
    return f"{np.mean(each):.1%}{spread} ({together:.1%})"


def parser():
    parser = common.parser("photographs.py", __doc__)
    parser.add_argument("dir", metavar="DIR", help="DIR/train/<class>/*, DIR/val/<class>/*, or "
                                                   "what data/imagenet.py has packed")
    parser.add_argument("--only", action="append", metavar="NET", default=[],
                        help=f"beside the net as it is: {', '.join(list(NETS)[1:])} "
                             "(default: all)")
    parser.add_argument("--seeds", type=common.positive, default=3, metavar="N",
                        help="default: %(default)s")
    parser.add_argument("--epochs", type=common.positive, default=20, metavar="N",
                        help="default: %(default)s")
    parser.add_argument("--device", default="cpu", metavar="D[,D]", help="default: %(default)s")
    parser.add_argument("--output-dir", metavar="DIR", type=Path,
                        help=f"default: {shown(common.RUNS)}/photographs")
    return parser


if __name__ == "__main__":
    sys.exit(common.main(start, parser()))
