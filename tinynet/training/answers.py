"""What is a trained net asked, and what does it answer?"""
from textwrap import fill

import numpy as np

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
    return nets, folder or nets[0].data


def test(args, nets, pictures, opened):
    """Print the errors of nets on a dataset.DataSet: of each, and of their mean.

    opened: a function that makes of one of the nets a model in test mode and a loader of the
    pictures; so one model at a time is in memory.
    """
    classes = nets[0].classes
    print(f"{len(pictures):,} pictures of {len(classes)} classes in {shown(pictures.root)},\n"
          f"shorter side to 256, central square; a tie counts as an error;\n"
          f"views: {VIEWS[args.views]}")
    logs = []
    for net in nets:
        model, loader = opened(net)
        own, labels, indices = evaluation.log_probabilities(model, loader, model.devices[0],
                                                            args.views)
        logs.append(own)
        print(f"{shown(net.path)}: recipe {net.recipe['name']}, crops of {model.crop}, step "
              f"{net.progress.step}:\n  {in_words(evaluation.result(own, labels), len(classes))}")
    if loader.skipped:
        print(f"{len(loader.skipped)} unreadable pictures were skipped")
    shares = options.weights_of_nets(args.weights, len(nets))
    mean, lines = evaluation.together(np.stack(logs), labels, shares)
    print(*lines, sep="\n")
    if args.save_probs:
        names = [pictures.name(index) for index in indices]
        evaluation.save(args.save_probs, np.exp(mean), labels, classes, names)
        print(f"saved: {shown(args.save_probs)}")
    return 0


# --- on pictures of anything ----------------------------------------------------------------


def predict(args, saved, probabilities):
    """Print the five most probable classes of each picture: the exit status.

    probabilities: a function of a path. It raises UserError for a file that is no picture.
    """
    status = 0
    if len(saved.classes) <= 10:
        warn(fill(f"this net knows {', '.join(saved.classes)} and nothing else", 79))
    for path in args.images:
        try:
            seen = probabilities(path)
        except UserError as error:
            warn(f"{program_name()}: error: {error}")
            status = 1
            continue
        lines = evaluation.five_best(seen, saved.classes, saved.words)
        print(printable("\n".join([path, *lines])))
    return status
