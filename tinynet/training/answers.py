"""What is a trained net asked, and what does it answer?"""
import json
import sys
from textwrap import fill

import numpy as np

from .. import ops
from ..device import to_host
from ..errors import UserError
from ..progress import printable, shown, warn
from . import evaluation, options
from . import saved as checkpoints
from .evaluation import in_words
from .program import program_name
from .saved import Saved

VIEWS = {1: "the central crop", 10: "the mean probability of ten: corners, centre, mirrored"}


# --- on pictures whose class is known -------------------------------------------------------


def nets_to_test(args):
    """The nets that `test` was given, as Saved, and the folder of pictures. Raises UserError for
    what could not be answered in the end, before anything long."""
    paths, folder = [args.checkpoint, *args.more], None
    if args.more and not checkpoints.is_one(args.more[-1]):
        folder = paths.pop()
    nets = [Saved.of_alexnet(path) for path in paths]
    for net in nets:
        if net.classes != nets[0].classes:
            raise UserError(f"{shown(net.path)} and {shown(nets[0].path)} know different "
                            "classes: their probabilities have no mean")
    options.weights_of_nets(args.weights, len(nets))
    if args.save_probs:
        checkpoints.output_file(args.save_probs, ".npz", *[net.path for net in nets])
    return nets, folder or nets[0].pictures("DIR")


def test(args, nets, pictures, opened):
    """Print the errors of nets on a dataset.DataSet: of each, and of their mean.

    opened: a function that makes of one of the nets a model in test mode and a loader of the
    pictures; so one model at a time is in memory.
    """
    classes = nets[0].classes
    print(f"{len(pictures):,} pictures of {len(classes)} classes in {shown(pictures.root)};\n"
          f"a tie counts as an error; views: {VIEWS[args.views]}")
    logs, before = [], None
    for net in nets:
        model, loader = opened(net)
        own, labels, indices = evaluation.log_probabilities(model, loader, model.devices[0],
                                                            args.views)
        if before is not None and not np.array_equal(indices, before):
            raise UserError(f"{shown(net.path)} has been shown other pictures in "
                            f"{shown(pictures.root)} than the nets before it, for some cannot be "
                            "read any more, or again: run it once more")
        before = indices
        logs.append(own)
        print(f"{shown(net.path)}: recipe {net.recipe['name']}, fit {net.recipe['fit']}, crops of "
              f"{model.crop}, step {net.progress.step}:\n"
              f"  {in_words(evaluation.result(own, labels), len(classes))}")
        skipped = len(loader.skipped)
        del model, loader              # before the next ones are made
    if skipped:
        print(f"{skipped} unreadable pictures were skipped")
    shares = options.weights_of_nets(args.weights, len(nets))
    mean, lines = evaluation.together(np.stack(logs), labels, shares)
    print(*lines, sep="\n", end="\n" if lines else "")
    if args.save_probs:                    # before much is printed, which nobody may read
        names = [pictures.name(index) for index in indices]
        evaluation.save(args.save_probs, np.exp(mean), labels, classes, names)
        print(f"saved: {shown(args.save_probs)}")
    if args.per_class:
        lines = evaluation.by_class(mean, labels, classes, nets[0].words)
        print(printable("\n".join(lines)))
    return 0


# --- on pictures of anything ----------------------------------------------------------------


def predict(args, saved, model, loader):
    """Print the most probable classes of each picture of a loader: the exit status, 1 if there
    are files that cannot be read. loader: tells nothing of those itself.

    With --json each line is an object: {"file": path, "labels": [{"label": class, "words": what
    it is, "probability": p}, ...]}, or {"file": path, "error": why}.

    Whether a picture is like any that the net has seen is not said: the probabilities are of its
    classes and no others, and a limit below which they mean "none of these" would turn away half
    of its own pictures to find most others (measured: examples/PAPER.md).
    """
    paths, status, told = loader.pictures.paths, 0, 0
    if len(saved.classes) <= 10:
        warn(fill(f"this net knows {', '.join(saved.classes)} and nothing else", 79))

    def tell(end, said=()):
        nonlocal status, told
        for index in range(told, end):
            labels = list(best(said[index], saved, args.top)) if index in said else None
            why = loader.skipped.get(index, f"{paths[index]}: the net says nothing finite of it")
            status = status if labels else 1
            if args.json:
                answer = {"labels": labels} if labels else {"error": why}
                print(json.dumps({"file": paths[index], **answer}))
            elif labels:
                print(printable(paths[index]), *map(in_line, labels), sep="\n")
            else:
                warn(f"{program_name()}: error: {why}")
        told = end
        sys.stdout.flush()                 # for who reads what we print

    # Lines that scroll by show how it goes; a bar between them would not. Nor for one batch.
    what = "predicting" if len(loader) > 1 and not sys.stdout.isatty() else None
    for batch, logits in evaluation.answers(model, loader, model.devices[0], args.views, what):
        shares = np.exp(ops.log_softmax(to_host(logits.data)))
        tell(batch.end, dict(zip(batch.indices.tolist(), shares, strict=True)))
    tell(len(paths))                       # a last batch of which nothing can be read
    if loader.skipped and len(paths) > 1:
        warn(f"{len(loader.skipped):,} of {len(paths):,} pictures cannot be read")
    return status


def best(shares, saved, count):
    """The most probable classes of a picture, a dict each; none if a share is no number."""
    for label in np.argsort(-shares, kind="stable")[:count] if np.isfinite(shares).all() else ():
        name = saved.classes[label]
        yield dict(label=name, words=saved.words.get(name, ""),
                   probability=round(float(shares[label]), 6))


def in_line(label):
    return printable(f"  {label['probability']:6.1%}  {label['label']}  {label['words']}").rstrip()
