"""AlexNet, as Krizhevsky, Sutskever and Hinton trained it in 2012.

    python alexnet.py train                            learn from drawn patterns, in minutes
    python alexnet.py train DIR --device gpu0,gpu1     learn from DIR/train/<class>/*.JPEG
    python alexnet.py test runs/paper/best.npz DIR     error on DIR/val/<class>/*.JPEG
    python alexnet.py predict runs/paper/best.npz cat.jpg
    python alexnet.py show --device cpu0,cpu1          the layers, and what crosses where

Figure 2 of the paper: two rows, one GPU each, whose lines cross at layers 3, 6, 7 and 8.

    top     227x227x3 ─ 55x55x48 ─ 27x27x128 ─╮╭─ 13x13x192 ─ 192 ─ 128 ─╮╭─ 2048 ─╮╭─ 2048 ─╮
                conv1       conv2             ├┤   conv3    conv4  conv5 ├┤  fc6   ├┤  fc7   ├─ 1000
    bottom  227x227x3 ─ 55x55x48 ─ 27x27x128 ─╯╰─ 13x13x192 ─ 192 ─ 128 ─╯╰─ 2048 ─╯╰─ 2048 ─╯  fc8
"""
import argparse
import math
import os
import shlex
import sys
import warnings
from dataclasses import fields
from pathlib import Path

import numpy as np

from data import patterns
from tinynet import batches, checkpoint, device, images, ops, recipes, split
from tinynet.conv import out_size
from tinynet.device import UserError
from tinynet.engine import Tensor, graph, no_grad
from tinynet.layers import (LRN, Conv2D, Dense, Dropout, Flatten, Layer, MaxPool, ReLU,
                            Sequential)
from tinynet.optim import SGD, Plateau
from tinynet.progress import Interruptible, Meter, bar, in_words, shown
from tinynet.runs import Run, output_folder
from tinynet.split import exchange, gather, send_to_both

HERE = Path(__file__).resolve().parent
PATTERNS = HERE / "data" / "patterns"
LAYERS = "conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"


# --- the net ----------------------------------------------------------------------------


class Tower(Layer):
    """One row of Figure 2: half of every layer, all on one device.

    rows: how many rows the figure has. Where the rows meet (conv3, fc6, fc7) a layer's
    kernels see the maps of all of them; elsewhere only those of their own row.
    """

    def __init__(self, device, recipe, rows=2):
        k1, k2, k3, k4, k5 = recipe.kernels                     # 48, 128, 192, 192, 128
        n6, n7 = recipe.neurons                                 # 2048, 2048
        side = last_map_side(recipe.crop)                       # 6

        def conv(name, *sizes, **how):
            return Conv2D(*sizes, **how, form=recipe.conv, **first_values(recipe, name))

        def norm():
            return LRN(n=5, k=recipe.lrn_k, alpha=recipe.lrn_alpha, beta=0.75)

        def pool():
            return MaxPool(3, stride=2)

        def dense(name, *sizes):
            return Sequential(Flatten(), Dense(*sizes, **first_values(recipe, name)), ReLU(),
                              Dropout(recipe.dropout, recipe.dropout_kind == "classic"))

        self.conv1 = Sequential(conv("conv1", 3, k1, 11, stride=4), ReLU(), norm(), pool())
        self.conv2 = Sequential(conv("conv2", k1, k2, 5, pad=2), ReLU(), norm(), pool())
        self.conv3 = Sequential(conv("conv3", rows * k2, k3, 3, pad=1), ReLU())
        self.conv4 = Sequential(conv("conv4", k3, k4, 3, pad=1), ReLU())
        self.conv5 = Sequential(conv("conv5", k4, k5, 3, pad=1), ReLU(), pool())
        self.fc6 = dense("fc6", rows * k5 * side * side, n6)
        self.fc7 = dense("fc7", rows * n6, n7)
        self.to(device)


class AlexNet(Layer):
    """The whole figure: (N, 227, 227, 3) images -> (N, classes), before the softmax.

    devices: one Device for each tower; the same one twice is not a special case.
    """

    def __init__(self, classes, devices, recipe):
        self.top = Tower(devices[0], recipe)
        self.bottom = Tower(devices[-1], recipe)
        self.fc8 = Dense(2 * recipe.neurons[-1], classes, **first_values(recipe, "fc8"))
        self.fc8.to(devices[0])
        self.devices = devices[0], devices[-1]

    def forward(self, image):
        t, b = self.top, self.bottom
        top, bottom = send_to_both(image, *self.devices)         # both see every image
        top, bottom = t.conv1(top), b.conv1(bottom)
        top, bottom = t.conv2(top), b.conv2(bottom)
        top, bottom = exchange(top, bottom)                      # the towers meet: layer 3
        top, bottom = t.conv3(top), b.conv3(bottom)
        top, bottom = t.conv4(top), b.conv4(bottom)
        top, bottom = t.conv5(top), b.conv5(bottom)
        top, bottom = exchange(top, bottom)                      # layer 6
        top, bottom = t.fc6(top), b.fc6(bottom)
        top, bottom = exchange(top, bottom)                      # layer 7
        top, bottom = t.fc7(top), b.fc7(bottom)
        return self.fc8(gather(top, bottom))                     # layer 8, on the top device


class OneTower(Tower):
    """The figure with both rows merged into one, in which every kernel sees every map.

    This is what a reader gets who counts 256 kernels of 5x5x96 in layer 2: twice as many
    weights in conv2, conv4 and conv5, nothing to exchange, and not the paper's net.
    """

    def __init__(self, classes, device, recipe):
        merged = recipe.changed({"kernels": tuple(2 * k for k in recipe.kernels),
                                 "neurons": tuple(2 * n for n in recipe.neurons)})
        super().__init__(device, merged, rows=1)
        self.fc8 = Dense(merged.neurons[-1], classes, **first_values(recipe, "fc8"))
        self.fc8.to(device)

    def forward(self, image):
        for _, layer in self.layers():
            image = layer(image)
        return image


def first_values(recipe, layer):
    """The spread and the bias that a layer starts with."""
    i = LAYERS.index(layer)
    return dict(std=recipe.std[i], bias=recipe.bias[i])


def last_map_side(crop):
    """Pixels on a side of the maps that fc6 sees: 6 for crops of 227. Raises UserError."""
    try:
        side = out_size(crop, 11, 4)                             # 55, conv1
        for _ in range(3):
            side = out_size(side, 3, 2)                          # 27, 13, 6: the pools
    except ValueError as error:
        raise UserError(f"--crop {crop} is too small for five layers: {error}") from None
    return side


# --- show -------------------------------------------------------------------------------


def show(args):
    """Print the layer table and the crossings, both read off a pass of one image."""
    recipe = chosen_recipe(args)
    towers = two_devices(args.device)
    if args.one_tower:
        model = OneTower(args.classes, towers[0], recipe)
    else:
        model = AlexNet(args.classes, towers, recipe)
    model.name_parameters().eval()                # shapes and names; no weights are drawn
    image = np.zeros((1, recipe.crop, recipe.crop, 3), np.float32)
    output = model(Tensor(image, towers[0]))
    batch = recipe.batch_size

    print(f"{'layer':7}{'output':>16}{'kernels':>22}{'parameters':>13}"
          f"{'multiply-adds':>16}{f'MB at {batch}':>12}")
    rows = layer_table(output)
    for name, row in rows.items():
        print(f"{name:7}{row['output']:>16}{row['kernels']:>22}{row['parameters']:>13,}"
              f"{row['macs']:>16,}{row['bytes'] * batch / 1e6:>12,.1f}")
    print(f"{'total':7}{'':16}{'':22}{sum(r['parameters'] for r in rows.values()):>13,}"
          f"{sum(r['macs'] for r in rows.values()):>16,}"
          f"{sum(r['bytes'] for r in rows.values()) * batch / 1e6:>12,.1f}")
    print("multiply-adds: of one image. MB: all that the ops of a layer put out, float32.\n")

    crossings = split.crossings(output)
    print(f"crossings, {batch} images a batch, float32; as much comes back in the backward pass:")
    for crossing in crossings:
        print(f"  {crossing.layer:7}{crossing.source} -> {crossing.target}"
              f"{crossing.bytes * batch:>14,} bytes")
    if not crossings:
        print("  none: everything is on one device")
    return 0


def layer_table(output):
    """Per layer: output maps, kernels, parameters, multiply-adds of one image, bytes.

    Computed from the graph behind a pass of one image: every op belongs to the last layer
    with weights on its way.
    """
    rows, layer_of = {}, {}
    for node in graph(output):
        if not node.inputs:
            continue                                  # a parameter, or the image
        name = layer_of[node] = split.layer_name(node) or layer_of[node.inputs[0]]
        row = rows.setdefault(name, dict(parts=0, parameters=0, macs=0, bytes=0))
        row["bytes"] += node.nbytes
        if split.layer_name(node):
            _, W, b = node.inputs
            row["parts"] += 1
            row["parameters"] += W.data.size + b.data.size
            row["macs"] += math.prod(node.shape[:-1]) * W.data.size
            row["shape"], row["weights"] = node.shape[1:], W.shape
    for row in rows.values():
        parts = f"{row['parts']} x " if row["parts"] > 1 else ""
        *place, maps = row["shape"]
        row["output"] = parts + "x".join(str(size) for size in (*place, maps))
        *seen, kernels = row["weights"]
        row["kernels"] = f"{parts}{kernels} of {'x'.join(str(size) for size in seen)}"
    return rows


# --- train ------------------------------------------------------------------------------


def train(args):
    """Train a net, from its first weights or from a checkpoint, and say how well it does."""
    saved = checkpoint.Checkpoint(args.resume) if args.resume else None
    recipe = chosen_recipe(args, saved)
    towers = two_devices(args.device)
    folder = training_folder(args, saved)
    output = output_folder(args.output_dir, saved, recipe.name)
    seed = args.seed if args.seed is not None else saved.meta["seed"] if saved else 0
    print(f"recipe {recipe.name}:", *recipe.lines(), sep="\n")
    print(f"seed {seed}; towers on {towers[0]} and {towers[1]}; output in {shown(output)}")

    pictures = images.image_folder(folder, "train")
    held_out = images.image_folder(folder, "val", pictures.classes)
    if saved and saved.meta["classes"] != pictures.classes:
        raise UserError(f"{shown(saved.path)} knows other classes than those in {folder}")
    print(f"{len(pictures):,} pictures to learn from and {len(held_out):,} to test with, of "
          f"{len(pictures.classes)} classes, in {shown(folder)}")
    statistics = saved_statistics(saved) if saved else measure(pictures, args.workers)
    prepare = images.Preparation(recipe, statistics, seed)
    loader = batches.Loader(pictures, prepare, recipe.batch_size, args.workers)
    validation = batches.Loader(held_out, prepare, recipe.batch_size, args.workers)

    model = AlexNet(len(pictures.classes), towers, recipe).initialize(seed)
    optimizer = SGD(model.parameters(), recipe.lr, recipe.momentum, recipe.wd)
    plateau = Plateau(recipe.patience)
    run = Run(output, model, optimizer, plateau, recipe=recipe, statistics=statistics,
              classes=pictures.classes, seed=seed, data=folder)
    if saved:
        run.restore(saved, lr=args.lr)
    epoch_left = -(-(len(pictures) - run.position) // recipe.batch_size)
    all_steps = run.step + epoch_left + (recipe.epochs - run.epoch - 1) * len(loader)
    last_step = min(args.steps or all_steps, all_steps)

    def unfinished():                              # an epoch ends with its validation
        steps_left = run.step < last_step or run.position == len(pictures)
        return run.epoch < recipe.epochs and steps_left

    if not unfinished():
        print(f"nothing to do: step {run.step} of {last_step} is taken")
        return 0
    meter = Meter()
    with Interruptible() as interrupted, bar(last_step, "training", run.step) as progress:
        while unfinished() and not interrupted:
            for batch in loader.training(run.epoch, run.position):
                if recipe.schedule == "linear":
                    optimizer.lr = recipe.lr * (1 - run.step / all_steps)
                model.train(run.step)
                labels = towers[0].put(batch.labels)
                logits = model(Tensor(batch.images, towers[0]))
                loss = ops.softmax_cross_entropy(logits, labels=labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

                run.step += 1
                run.position = batch.end
                meter.add(loss, logits, labels, batch.waited)
                progress.update()
                if run.step == last_step or interrupted:
                    break
                if run.step % args.print_freq == 0:
                    run.report(meter)
                if run.step % args.save_freq == 0:
                    run.save()
            else:
                run.position = len(pictures)          # even if the last ones are unreadable
            run.report(meter)
            try:
                result = evaluate(model, validation, interrupted)
            except UserError:                         # unreadable pictures: keep the epoch
                run.save()
                raise
            if result:
                run.validated(result)
                if run.position == len(pictures):     # the end of an epoch
                    run.epoch, run.position = run.epoch + 1, 0
                    if recipe.schedule == "plateau":
                        optimizer.lr *= plateau.multiplier(result["top1_error"])
            run.save()
            meter.reset()

    for part, skipped in ("train", loader.skipped), ("val", validation.skipped):
        if skipped:
            print(f"{len(skipped)} unreadable pictures in {part} were skipped")
    if interrupted:
        print("interrupted; go on with\n  " + command("train", "--resume", run.last))
        return 130
    run.draw_kernels()
    chance = 1 - 1 / len(pictures.classes)
    print(f"""
on {run.result['pictures']:,} pictures it has not seen: top-1 error \
{run.result['top1_error']:.1%} (chance: {chance:.1%}), lowest so far {run.lowest_error:.1%}
saved: {shown(run.last)}, {shown(run.best)}, {shown(run.log_file)}
first-layer kernels: {shown(run.kernels)}
try next:
  {command('predict', run.best, held_out.paths[0])}""")
    return 0


def evaluate(model, loader, interrupted=False, views=1):
    """Loss and errors over all pictures of a loader, of central crops or of the mean over
    ten views: a dict as Meter.read gives it, or None if `interrupted` became true."""
    model.eval()
    meter = Meter()
    with bar(len(loader), "testing") as progress, no_grad():
        for batch in loader.testing(views):
            if interrupted:
                return None
            labels = model.devices[0].put(batch.labels)
            crops = batch.images.reshape(-1, *batch.images.shape[-3:])
            logits = model(Tensor(crops, model.devices[0]))
            if views > 1:
                with logits.device:
                    logits = Tensor(ops.mean_over_views(logits.data, views), logits.device)
            loss = ops.softmax_cross_entropy(logits, labels=labels)
            meter.add(loss, logits, labels, batch.waited)
            progress.update()
    return meter.read()


def measure(pictures, workers):
    """The statistics of the training pictures: one pass over all of them."""
    with bar(len(pictures), "mean image and colours") as progress:
        def readable():
            for picture in batches.read_all(pictures, workers):
                progress.update()
                if picture is not None:               # else the loader names it later
                    yield picture
        return images.statistics(readable())


# --- test and predict -------------------------------------------------------------------


def test(args):
    """Print the error of a checkpoint on DIR/val."""
    saved = checkpoint.Checkpoint(args.checkpoint)
    model, prepare = load(saved, args.device)
    folder = args.dir or saved.meta["data"]
    pictures = images.image_folder(folder, "val", saved.meta["classes"])
    loader = batches.Loader(pictures, prepare, args.batch_size, args.workers)
    result = evaluate(model, loader, views=args.views)
    what = "central crop" if args.views == 1 else "mean probability of ten views"
    print(f"{shown(saved.path)} on {shown(Path(folder) / 'val')}: {result['pictures']:,} "
          f"pictures of {len(pictures.classes)} classes, {what}\n{in_words(result)}")
    if loader.skipped:
        print(f"{len(loader.skipped)} unreadable pictures were skipped")
    return 0


def predict(args):
    """Print the five most probable classes of each picture."""
    saved = checkpoint.Checkpoint(args.checkpoint)
    model, prepare = load(saved, args.device)
    broken = 0
    for path in args.images:
        try:
            picture = images.read(path)
        except images.BrokenPicture as error:
            broken += 1
            print(f"alexnet.py: error: {error}", file=sys.stderr)
            continue
        image = np.empty((1, prepare.crop, prepare.crop, 3), np.float32)
        prepare.for_testing(picture, image[0])
        with no_grad():
            probabilities = ops.softmax(model(Tensor(image, model.devices[0]))).numpy()[0]
        print(path)
        for label in np.argsort(-probabilities, kind="stable")[:5]:
            print(f"  {probabilities[label]:6.1%}  {saved.meta['classes'][label]}")
    return 1 if broken else 0


def load(saved, device_names):
    """A net in test mode and its picture preparation, from a checkpoint."""
    recipe = recipes.from_dict(saved.meta["recipe"])
    model = AlexNet(len(saved.meta["classes"]), two_devices(device_names), recipe)
    saved.load_weights(model)
    return model.eval(), images.Preparation(recipe, saved_statistics(saved))


def saved_statistics(saved):
    names = [field.name for field in fields(images.Statistics)]
    return images.Statistics(**saved.arrays("statistics/", dict.fromkeys(names)))


# --- the command line -------------------------------------------------------------------


def two_devices(names):
    """--device as two devices, one for each tower."""
    found = device.devices(device.default_devices() if names is None else names)
    if len(found) > 2:
        raise UserError(f"--device {names}: AlexNet has two towers; give one or two devices")
    return found[0], found[-1]


def chosen_recipe(args, saved=None):
    """The recipe of a checkpoint, or the named one, or the default; options win."""
    if saved:
        recipe = recipes.from_dict(saved.meta["recipe"])
        if args.recipe not in (None, recipe.name):
            raise UserError(f"{saved.path} was made with --recipe {recipe.name}; to train "
                            f"by --recipe {args.recipe}, start without --resume")
    else:
        default = "paper" if args.command == "show" or args.dir else "quickstart"
        recipe = recipes.RECIPES[args.recipe or default]
    options = {field.name: getattr(args, field.name) for field in recipes.options()
               if getattr(args, field.name) is not None}
    return recipe.changed(options)


def training_folder(args, saved):
    """DIR; or where the checkpoint's pictures were; or freshly drawn patterns."""
    folder = Path(args.dir or (saved.meta["data"] if saved else PATTERNS))
    if folder == PATTERNS:
        if not saved:
            print(f"no DIR was given: ten classes of patterns are drawn into "
                  f"{shown(PATTERNS)}, and a net learns them;\n"
                  "that takes a few minutes on two cores")
        try:
            patterns.draw(PATTERNS)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot draw the patterns: {error}; draw them elsewhere with\n"
                            "  python data/patterns.py DIR\nand give DIR") from error
    return folder


def command(*words):
    """A command of this program as it can be typed from here."""
    return shlex.join([shown(sys.executable), shown(__file__), *map(shown_if_path, words)])


def shown_if_path(word):
    return shown(word) if isinstance(word, Path) else word


def parser():
    main = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def subcommand(function):
        sub = commands.add_parser(function.__name__, help=function.__doc__.splitlines()[0],
                                  description=function.__doc__)
        sub.set_defaults(run=function)
        sub.add_argument("--device", metavar="D[,D]",
                         help="cpu, cpu0,cpu1, gpu0, gpu0,gpu1 or gpu0:a,gpu0:b: one device "
                              "for both towers or one for each (default: all GPUs, else cpu)")
        return sub

    def workers(sub):
        sub.add_argument("-j", "--workers", type=at_least(1), default=2, metavar="N",
                         help="threads that read pictures (default: %(default)s)")

    def recipe_options(sub):
        group = sub.add_argument_group("recipe", "every field of a recipe; what is left out "
                                                 "is as the recipe has it")
        group.add_argument("--recipe", choices=recipes.RECIPES,
                           help="default: paper with DIR, quickstart without")
        for field in recipes.options():
            short = ["-b"] if field.name == "batch_size" else []
            group.add_argument(*short, "--" + field.name.replace("_", "-"),
                               metavar=field.name[0].upper(), type=recipes.reader(field),
                               choices=recipes.CHOICES.get(field.name),
                               help=f"{field.metadata['help']}; paper: {field.default}")

    sub = subcommand(train)
    sub.add_argument("dir", nargs="?", metavar="DIR",
                     help="holds train/<class>/* and val/<class>/* (default: drawn patterns)")
    sub.add_argument("--steps", type=at_least(1), metavar="N",
                     help="stop after step N, counted from the very start")
    sub.add_argument("--seed", type=at_least(0, 2 ** 56 - 1), metavar="N", help="default: 0")
    sub.add_argument("--resume", metavar="PATH",
                     help="go on from a checkpoint, or from last.npz in a folder")
    sub.add_argument("--output-dir", metavar="DIR", help="default: runs/<recipe>")
    sub.add_argument("-p", "--print-freq", type=at_least(1), default=10, metavar="N",
                     help="steps between two log lines (default: %(default)s)")
    sub.add_argument("--save-freq", type=at_least(1), default=500, metavar="N",
                     help="steps between two checkpoints within an epoch "
                          "(default: %(default)s)")
    workers(sub)
    recipe_options(sub)

    sub = subcommand(test)
    sub.add_argument("checkpoint", metavar="CHECKPOINT")
    sub.add_argument("dir", nargs="?", metavar="DIR",
                     help="holds val/<class>/* (default: where the net was trained)")
    sub.add_argument("--views", type=int, choices=(1, 10), default=1,
                     help="1: the central crop; 10: corners, centre and their mirror images, "
                          "as the paper reports its errors (4.1) (default: %(default)s)")
    sub.add_argument("-b", "--batch-size", type=at_least(1), default=32, metavar="N",
                     help="pictures at a time (default: %(default)s)")
    workers(sub)

    sub = subcommand(predict)
    sub.add_argument("checkpoint", metavar="CHECKPOINT")
    sub.add_argument("images", nargs="+", metavar="IMAGE")

    sub = subcommand(show)
    sub.add_argument("--one-tower", action="store_true",
                     help="the ungrouped reading: every kernel sees every map")
    sub.add_argument("--classes", type=at_least(1), default=1000, metavar="N",
                     help="default: %(default)s")
    recipe_options(sub)
    return main


def at_least(least, most=sys.maxsize):
    """An argparse type: an integer from `least` to `most`."""
    def number(text):
        if not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be in {least} ... {most}, not {text}")
        return int(text)
    return number


def main(argv=None):
    args = parser().parse_args(argv)
    if sys.stdout is None:                 # closed by the caller
        sys.stdout = open(os.devnull, "w")
    try:
        with warnings.catch_warnings():
            # Overflow is no news: a net that diverges is reported as such, and not saved.
            warnings.simplefilter("ignore", RuntimeWarning)
            return args.run(args)
    except BrokenPipeError:                # the reader of our output has left
        sys.stdout = open(os.devnull, "w")
        return 1
    except (UserError, OSError) as error:
        print(f"alexnet.py: error: {error}", file=sys.stderr)
        return 1
    except MemoryError as error:
        print(f"alexnet.py: error: out of memory ({error}); try a smaller --batch-size",
              file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nalexnet.py: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
