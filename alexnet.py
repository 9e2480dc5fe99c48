"""AlexNet, as Krizhevsky, Sutskever and Hinton trained it in 2012.

    python alexnet.py train                            learn from drawn patterns, in minutes
    python alexnet.py train DIR --device gpu0,gpu1     learn from DIR/train/<class>/*.JPEG
    python alexnet.py test runs/paper/best.npz DIR     error on DIR/val/<class>/*.JPEG
    python alexnet.py predict runs/paper/best.npz cat.jpg
    python alexnet.py show --device cpu0,cpu1          the layers, and what crosses where
    python alexnet.py doctor                           what this machine has, what is broken
    python alexnet.py bench                            how fast it is, and could be

Figure 2 of the paper: two rows, one GPU each, whose lines cross at layers 3, 6, 7 and 8.

    top     227x227x3 ─ 55x55x48 ─ 27x27x128 ─╮╭─ 13x13x192 ─ 192 ─ 128 ─╮╭─ 2048 ─╮╭─ 2048 ─╮
                conv1       conv2             ├┤   conv3    conv4  conv5 ├┤  fc6   ├┤  fc7   ├─ 1000
    bottom  227x227x3 ─ 55x55x48 ─ 27x27x128 ─╯╰─ 13x13x192 ─ 192 ─ 128 ─╯╰─ 2048 ─╯╰─ 2048 ─╯  fc8
"""
import argparse
import json
import math
import os
import shlex
import shutil
import sys
import warnings
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from tinynet import device, ops, split, store
from tinynet.conv import out_size
from tinynet.engine import Tensor, no_grad
from tinynet.errors import UserError
from tinynet.layers import (
    LRN,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool,
    ReLU,
    SameMapLRN,
    Sequential,
)
from tinynet.optim import SGD
from tinynet.pictures import batches, images, packed, patterns
from tinynet.progress import Interruptible, Meter, bar, in_words, say, shown
from tinynet.split import exchange, gather, send_to_both
from tinynet.tools import bench as speed
from tinynet.tools import memory
from tinynet.tools.doctor import machine
from tinynet.training import evaluation, recipes
from tinynet.training.runs import Run, output_folder
from tinynet.training.schedules import Plateau, set_rates
from tinynet.training.stall import StallWatch, diagnosis
from tinynet.training.weights import load_safetensors, save_safetensors, split_layers, whole_layers

PATTERNS = Path("data", "patterns")
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
        first, last = map_sides(recipe)                         # 55, 6
        # Without overlap a pool reads less beyond the edge; the program gave up as much
        # padding in conv2 and conv4, so that the maps stay nearly as large (run 147).
        less = 3 - recipe.pool

        def conv(name, *sizes, **how):
            return Conv2D(*sizes, **how, form=recipe.conv, **first_values(recipe, name))

        def pool():
            return MaxPool(recipe.pool, stride=2, ties=recipe.pool_ties, ceil=True)

        def after(steps):
            """What follows a convolution, in the order that the recipe gives."""
            alpha = recipe.lrn_alpha / (5 if recipe.lrn == "mean" else 1)
            make = {"relu": ReLU, "pool": pool, "same-map-lrn": SameMapLRN,
                    "lrn": lambda: LRN(n=5, k=recipe.lrn_k, alpha=alpha, beta=0.75)}
            return [make[step]() for step in steps
                    if recipe.lrn != "none" or "lrn" not in step]

        def dense(name, *sizes):
            return Sequential(Flatten(), Dense(*sizes, **first_values(recipe, name)), ReLU(),
                              Dropout(recipe.dropout, recipe.dropout_kind == "classic"))

        beyond = 4 * (first - 1) + 11 - recipe.crop             # 0; of a crop of 224: 3
        self.conv1 = Sequential(conv("conv1", 3, k1, 11, stride=4, pad=(0, beyond)),
                                *after(recipe.after_conv1))
        self.conv2 = Sequential(conv("conv2", k1, k2, 5, pad=2 - less),
                                *after(recipe.after_conv2))
        self.conv3 = Sequential(conv("conv3", rows * k2, k3, 3, pad=1), ReLU())
        self.conv4 = Sequential(conv("conv4", k3, k4, 3, pad=1 - less), ReLU())
        self.conv5 = Sequential(conv("conv5", k4, k5, 3, pad=1), ReLU(), pool())
        if recipe.conv6:
            self.conv6 = Sequential(conv("conv6", rows * k5, k5, 3, pad=1), ReLU())
        self.fc6 = dense("fc6", rows * k5 * last * last, n6)
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
        self.towers, self.devices = (self.top, self.bottom), (devices[0], devices[-1])
        self.crop = recipe.crop

    def forward(self, image):
        t, b = self.towers
        top, bottom = send_to_both(image, *self.devices)         # both see every image
        top, bottom = t.conv1(top), b.conv1(bottom)
        top, bottom = t.conv2(top), b.conv2(bottom)
        top, bottom = exchange(top, bottom)                      # the towers meet: layer 3
        top, bottom = t.conv3(top), b.conv3(bottom)
        top, bottom = t.conv4(top), b.conv4(bottom)
        top, bottom = t.conv5(top), b.conv5(bottom)
        if hasattr(t, "conv6"):                                  # the nets with an asterisk
            top, bottom = exchange(top, bottom)
            top, bottom = t.conv6(top), b.conv6(bottom)
        top, bottom = exchange(top, bottom)                      # layer 6
        top, bottom = t.fc6(top), b.fc6(bottom)
        top, bottom = exchange(top, bottom)                      # layer 7
        top, bottom = t.fc7(top), b.fc7(bottom)
        return self.fc8(gather(top, bottom))                     # layer 8, on the top device


class OneTower(Tower):
    """A net of one row, in which every kernel sees every map and nothing is exchanged."""

    def __init__(self, classes, device, recipe):
        super().__init__(device, recipe, rows=1)
        self.fc8 = Dense(recipe.neurons[-1], classes, **first_values(recipe, "fc8"))
        self.fc8.to(device)
        self.towers, self.devices = (self,), (device, device)
        self.crop = recipe.crop

    def forward(self, image):
        for _, layer in self.layers():
            image = layer(image)
        return image


def build(classes, devices, recipe):
    """The net of a recipe, without first weights. devices: one or two."""
    if recipe.towers == 2:
        return AlexNet(classes, devices, recipe)
    if devices[0] != devices[-1]:
        raise UserError(f"--towers 1 is a net for one device: give --device {devices[0]}")
    # The one-GPU net of section 3.2: conv1 ... conv4 as in one row of the figure, so that it
    # costs half as much; conv5 and the dense layers of both.
    *kernels, last = recipe.kernels
    return OneTower(classes, devices[0], recipe.changed(
        {"kernels": (*kernels, 2 * last), "neurons": tuple(2 * n for n in recipe.neurons)}))


def ungrouped(classes, devices, recipe):
    """The figure with both rows merged into one.

    This is what a reader gets who counts 256 kernels of 5x5x96 in layer 2: twice as many
    weights in conv2, conv4 and conv5, and not the paper's net.
    """
    return OneTower(classes, devices[0], recipe.changed(
        {"kernels": tuple(2 * k for k in recipe.kernels),
         "neurons": tuple(2 * n for n in recipe.neurons)}))


def first_values(recipe, layer):
    """The spread and the bias that a layer starts with; conv6 starts like conv5."""
    i = LAYERS.index(layer.replace("conv6", "conv5"))
    return dict(std=recipe.std[i], bias=recipe.bias[i])


def map_sides(recipe):
    """Pixels on a side of the maps that conv1 makes and that fc6 sees: 55 and 6 for crops of
    227, and of 224. Every pixel is seen, if need be by windows that reach beyond the edge, as
    in the 2012 program. Raises UserError."""
    try:
        first = out_size(recipe.crop, 11, 4, ceil=True)
        side = out_size(first, recipe.pool, 2, ceil=True)
        for _ in "conv2", "conv4":
            side -= 2 * (3 - recipe.pool)
            side = out_size(side, recipe.pool, 2, ceil=True)
    except ValueError as error:
        raise UserError(f"--crop {recipe.crop} is too small for five layers: {error}") from None
    return first, side


# --- show -------------------------------------------------------------------------------


def show(args):
    """Print the layer table and the crossings, both read off a pass of one image."""
    recipe = chosen_recipe(args)
    towers = two_devices(args.device)
    model = (ungrouped if args.one_tower else build)(args.classes, towers, recipe)
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
    print("\nmemory of a training step:", *memory.table(needs(model), batch), sep="\n")
    return 0


def needs(model):
    """{device: memory.Need} of a training step of a net."""
    model.train()
    side, place = model.crop, model.devices[0]

    def loss_of(count):
        image = Tensor(np.zeros((count, side, side, 3), np.float32), place)
        return ops.softmax_cross_entropy(model(image), labels=place.put(np.zeros(count, int)))

    return memory.needs(loss_of)


def layer_table(output):
    """Per layer: output maps, kernels, parameters, multiply-adds of one image, bytes.

    Computed from the graph behind a pass of one image.
    """
    rows = {}
    for node, name in split.layers_of(output).items():
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
    saved = resumed(args)
    recipe = chosen_recipe(args, saved)
    towers = two_devices(args.device)
    folder = training_folder(args, saved)
    output = output_folder(args.output_dir, saved, recipe.name)
    seed = args.seed if args.seed is not None else saved.meta["seed"] if saved else 0
    print(f"recipe {recipe.name}:", *recipe.lines(), sep="\n")
    print(f"seed {seed}; towers on {towers[0]} and {towers[1]}; output in {shown(output)}")

    pictures = packed.data_set(folder, "train")
    held_out = packed.data_set(folder, "val", pictures.classes)
    if saved and saved.meta["classes"] != pictures.classes:
        raise UserError(f"{shown(saved.path)} knows other classes than those in {folder}")
    print(f"{len(pictures):,} pictures to learn from and {len(held_out):,} to test with, of "
          f"{len(pictures.classes)} classes, in {shown(folder)}")
    statistics = (saved_statistics(saved) if saved else
                  pictures.statistics or measure(pictures, args.workers))
    prepare = images.Preparation(recipe, statistics, seed)
    loader = batches.Loader(pictures, prepare, recipe.batch_size, args.workers)
    validation = batches.Loader(held_out, prepare, recipe.batch_size, args.workers)

    model = build(len(pictures.classes), towers, recipe).initialize(seed)
    optimizer = SGD(model.parameters(), recipe.lr, recipe.momentum, recipe.wd,
                    recipe.bias_lr, recipe.bias_wd)
    plateau = Plateau(recipe.patience, recipe.threshold, most=recipe.drops)
    run = Run(output, model, optimizer, plateau, recipe=recipe, statistics=statistics,
              classes=pictures.classes, words=pictures.words, seed=seed, data=folder)
    if saved:
        run.restore(saved, lr=args.lr)
    elif args.init_from:
        copy_weights(args.init_from, model, pictures.classes)
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
    watch = StallWatch(len(pictures.classes), args.stall_steps, start=run.step)
    with Interruptible() as interrupted, bar(last_step, "training", run.step) as progress:
        while unfinished() and not interrupted:
            for batch in loader.training(run.epoch, run.position):
                set_rates(optimizer, recipe, run.epoch, run.step / all_steps)
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
                    if watch.stalled(run.step, run.report(meter)):
                        say("\n".join(diagnosis(model, optimizer, batch, recipe)))
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
    following = ("test", run.best, folder, "--views", "10")
    if isinstance(held_out, images.Pictures):          # else they are in no files of their own
        following = "predict", run.best, held_out.paths[0]
    print(f"""
on {run.result['pictures']:,} pictures it has not seen: top-1 error \
{run.result['top1_error']:.1%} (chance: {chance:.1%}), lowest so far {run.lowest_error:.1%}
saved: {shown(run.last)}, {shown(run.best)}, {shown(run.log_file)}
first-layer kernels: {shown(run.kernels)}
try next:
  {command(*following)}""")
    return 0


def resumed(args):
    """The checkpoint that --resume names, or None. "auto" is last.npz in the output folder,
    if it is there: the same command starts a run and goes on with it."""
    if args.resume != "auto":
        return store.Checkpoint(args.resume) if args.resume else None
    args.output_dir = args.output_dir or str(Path("runs", chosen_recipe(args).name))
    last = Path(args.output_dir, "last.npz")
    return store.Checkpoint(last) if last.exists() else None


def copy_weights(path, model, classes):
    """Start from another net where it has layers of the same sizes, and say which (paper,
    section 6: nets with an asterisk were trained on more classes before)."""
    if Path(path).suffix == ".safetensors":
        layers, about = load_safetensors(path)
        found = split_layers(layers, model)
        theirs = json.loads(about.get("classes", "null"))
    else:
        saved = store.Checkpoint(path)
        found, theirs = saved.weights(), saved.meta["classes"]
    if theirs not in (None, classes):                 # then fc8 answers another question
        found = {name: array for name, array in found.items() if not name.startswith("fc8.")}
    parameters = dict(model.parameters())
    fits = {name for name, w in parameters.items()
            if name in found and found[name].shape == w.shape}
    layers = {}
    for name in parameters:
        layers.setdefault(split.layer_of(name), []).append(name)
    copied = [layer for layer, names in layers.items() if fits.issuperset(names)]
    if not copied:
        raise UserError(f"{shown(path)} has no layer of the sizes of this net: nothing to start "
                        "from")
    print(f"first weights from {shown(path)}:")
    for layer, names in layers.items():
        print(f"  {layer:6} {'copied' if layer in copied else 'drawn anew'}")
        for name in names if layer in copied else ():
            parameters[name].data = parameters[name].device.put(
                found[name].astype(np.float32, copy=False))


def evaluate(model, loader, interrupted):
    """Loss and errors over the central crops of all pictures of a loader: a dict as
    Meter.read gives it, or None if `interrupted` became true."""
    model.eval()
    meter = Meter()
    with bar(len(loader), "testing") as progress, no_grad():
        for batch in loader.testing():
            if interrupted:
                return None
            labels = model.devices[0].put(batch.labels)
            logits = model(Tensor(batch.images, model.devices[0]))
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


# --- test, predict, export --------------------------------------------------------------


def test(args):
    """Print the error of a checkpoint on DIR/val, or of the mean of several."""
    paths, folder = [args.checkpoint, *args.more], None
    if args.more and not store.is_one(args.more[-1]):
        folder = paths.pop()
    nets = [store.Checkpoint(path) for path in paths]
    classes = nets[0].meta["classes"]
    for net in nets:
        if net.meta["classes"] != classes:
            raise UserError(f"{shown(net.path)} and {shown(nets[0].path)} know different "
                            "classes: their probabilities have no mean")
    weights = test_weights(args.weights, nets)
    pictures = packed.data_set(folder or nets[0].meta["data"], "val", classes)
    print(f"{len(pictures):,} pictures of {len(classes)} classes in {shown(pictures.root)}: "
          f"shorter side to {images.SIDE}, central square;\n"
          f"views: {VIEWS[args.views]}; a tie counts as an error")

    logs = []
    for net in nets:
        model, prepare = load(net, args.device)
        loader = batches.Loader(pictures, prepare, args.batch_size, args.workers)
        own, labels, indices = evaluation.log_probabilities(model, loader, args.views)
        logs.append(own)
        print(f"{shown(net.path)}: recipe {net.meta['recipe']['name']}, crops of "
              f"{prepare.crop}, step {net.meta['progress']['step']}: "
              + in_words(evaluation.result(own, labels)))
    if loader.skipped:
        print(f"{len(loader.skipped)} unreadable pictures were skipped")

    logs = np.stack(logs)
    if weights == "search":
        weights = evaluation.search(logs, labels)
        print("weights with the lowest top-5 error found on these very pictures, which "
              "flatters them; for others:\n  --weights " + ",".join(f"{w:g}" for w in weights))
    mean = evaluation.average(logs, weights)
    if len(nets) > 1:
        print(f"mean of the {len(nets)} nets, weighted {', '.join(f'{w:g}' for w in weights)}: "
              + in_words(evaluation.result(mean, labels)))
    if args.save_probs:
        names = [pictures.name(index) for index in indices]
        with store.replacing(args.save_probs) as file:
            np.savez(file, probabilities=np.exp(mean), labels=labels, classes=classes,
                     names=names)
        print(f"saved: {shown(args.save_probs)}")
    return 0


VIEWS = {1: "the central crop", 10: "the mean probability of ten: corners, centre, mirrored"}


def test_weights(wanted, nets):
    """--weights as a list of one number for each net, or "search"."""
    if wanted in (None, "search"):
        return wanted or [1.0] * len(nets)
    try:
        weights = [float(number) for number in wanted.split(",")]
    except ValueError:
        weights = []
    if len(weights) != len(nets) or min(weights) < 0 or not 0 < sum(weights) < math.inf:
        raise UserError(f"--weights {wanted}: give {len(nets)} numbers, one for each checkpoint "
                        "and not all 0, or search")
    return weights


def predict(args):
    """Print the five most probable classes of each picture."""
    saved = store.Checkpoint(args.checkpoint)
    model, prepare = load(saved, args.device)
    classes, words = saved.meta["classes"], saved.meta.get("words", {})
    broken = 0
    for path in args.images:
        try:
            picture = images.read(path)
        except images.BrokenPicture as error:
            broken += 1
            print(f"{program_name()}: error: {error}", file=sys.stderr)
            continue
        image = np.empty((1, prepare.crop, prepare.crop, 3), np.float32)
        prepare.for_testing(picture, image[0])
        with no_grad():
            probabilities = ops.softmax(model(Tensor(image, model.devices[0]))).numpy()[0]
        print(path)
        for label in np.argsort(-probabilities, kind="stable")[:5]:
            about = f"  {words[classes[label]]}" if classes[label] in words else ""
            print(f"  {probabilities[label]:6.1%}  {classes[label]}{about}")
    return 1 if broken else 0


def export(args):
    """Write the weights of a checkpoint for other programs, as PyTorch has them."""
    saved = store.Checkpoint(args.checkpoint)
    model, _ = load(saved, "cpu")
    layers = whole_layers(model)
    save_safetensors(args.file, layers, {
        "recipe": json.dumps(saved.meta["recipe"]), "classes": json.dumps(saved.meta["classes"])})
    for name, array in layers.items():
        print(f"{name:14}{' x '.join(str(size) for size in array.shape)}")
    print(f"saved: {shown(args.file)}")
    return 0


def doctor(args):
    """Print what this machine has, what is broken, and the command that mends it."""
    facts, broken, hints = machine()
    for name, fact in facts:
        print(f"{name:10}{fact}")
    for kind, lines in ("broken", broken), ("hint", hints):
        for line in lines:
            print(f"{kind}: {line}")
    return 1 if broken else 0


def load(saved, device_names):
    """A net in test mode and its picture preparation, from a checkpoint."""
    recipe = recipes.from_dict(saved.meta["recipe"])
    model = build(len(saved.meta["classes"]), two_devices(device_names), recipe)
    saved.load_weights(model)
    return model.eval(), images.Preparation(recipe, saved_statistics(saved))


def saved_statistics(saved):
    names = [field.name for field in fields(images.Statistics)]
    return images.Statistics(**saved.arrays("statistics/", dict.fromkeys(names)))


# --- bench ------------------------------------------------------------------------------


def bench(args):
    """Measure images/s, the time of every op, memory, and the machine's own ceilings."""
    recipe = chosen_recipe(args)
    if args.dir:
        result = input_speed(args, recipe)
        lines = speed.report_input(result)
    else:
        result = net_speed(args, recipe)
        lines = speed.report(result)
    if args.json:
        print(json.dumps(result))
    else:
        print(*lines, sep="\n")
    return 0


def input_speed(args, recipe):
    device.Device("cpu")                               # as in training: keeps freed memory
    pictures = packed.data_set(training_folder(args, None), "train")
    statistics = pictures.statistics
    if statistics is None:                             # those of some will do for their speed
        statistics = measure(replace(pictures, paths=pictures.paths[:100]), args.workers)
    prepare = images.Preparation(recipe, statistics)
    return speed.input_speed(pictures, prepare, recipe.batch_size, args.workers, args.rounds)


def net_speed(args, recipe):
    towers = two_devices(args.device)
    before = {device.place: device.in_use() for device in towers}
    model = build(args.classes, towers, recipe).initialize()
    need = memory.by_place(needs(model))
    optimizer = SGD(model.parameters(), recipe.lr, recipe.momentum, recipe.wd)
    shape = recipe.batch_size, recipe.crop, recipe.crop, 3
    work = speed.Work(model, optimizer, shape, args.classes)
    peak = work.peak()
    held = {place: peak[place] and peak[place] - before[place] for place in peak}
    return dict(
        device=[str(tower) for tower in towers], recipe=recipe.name,
        memory={place: dict(one.parts(recipe.batch_size), total=one.total(recipe.batch_size),
                            measured=held[place]) for place, one in need.items()},
        **speed.net_speed(work, args.rounds))


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
        default = "paper" if args.command != "train" or args.dir else "quickstart"
        recipe = recipes.RECIPES[args.recipe or default]
    options = {field.name: getattr(args, field.name) for field in recipes.options()
               if getattr(args, field.name) is not None}
    return recipe.changed(options)


def training_folder(args, saved):
    """DIR; or where the checkpoint's pictures were; or freshly drawn patterns."""
    folder = Path(args.dir or (saved.meta["data"] if saved else PATTERNS))
    if folder.resolve() == PATTERNS.resolve():
        if args.command == "train" and not saved:
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
    return shlex.join([*program(), *map(shown_if_path, words)])


def program():
    """How this program was started: as `python alexnet.py`, `python -m tinynet` or `alexnet`."""
    python, file = shown(sys.executable), Path(sys.argv[0])
    if file.parts[-2:] == ("tinynet", "__main__.py"):
        return [python, "-m", "tinynet"]
    if file.stem == "alexnet" and file.suffix != ".py":        # what pip has installed
        return ["alexnet" if shutil.which("alexnet") else shown(file)]
    return [python, shown(__file__)]


def program_name():
    """The same for messages: alexnet.py, python -m tinynet or alexnet."""
    *before, last = program()
    return "python -m tinynet" if "-m" in before else Path(last).name


def shown_if_path(word):
    return shown(word) if isinstance(word, Path) else word


def parser():
    main = argparse.ArgumentParser(prog=program_name(), description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def subcommand(function, computes=True):
        sub = commands.add_parser(function.__name__, help=function.__doc__.splitlines()[0],
                                  description=function.__doc__)
        sub.set_defaults(run=function)
        if computes:
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
            names = ["-b"] if field.name == "batch_size" else []
            names.append("--" + field.name.replace("_", "-"))
            about = f"{field.metadata['help']}; paper: {field.default}"
            if field.type is bool:
                group.add_argument(*names, action=argparse.BooleanOptionalAction, help=about)
                continue
            group.add_argument(*names, metavar=field.name[0].upper(), help=about,
                               type=recipes.reader(field),
                               choices=recipes.CHOICES.get(field.name))

    sub = subcommand(train)
    sub.add_argument("dir", nargs="?", metavar="DIR",
                     help="holds train/<class>/* and val/<class>/* (default: drawn patterns)")
    sub.add_argument("--steps", type=at_least(1), metavar="N",
                     help="stop after step N, counted from the very start")
    sub.add_argument("--seed", type=at_least(0, 2 ** 56 - 1), metavar="N", help="default: 0")
    sub.add_argument("--resume", metavar="PATH",
                     help="go on from a checkpoint, or from last.npz in a folder; auto: from "
                          "that in the output folder, if it is there")
    sub.add_argument("--init-from", metavar="FILE",
                     help="start from the layers of another net, a checkpoint or .safetensors, "
                          "where they fit")
    sub.add_argument("--output-dir", metavar="DIR", help="default: runs/<recipe>")
    sub.add_argument("-p", "--print-freq", type=at_least(1), default=10, metavar="N",
                     help="steps between two log lines (default: %(default)s)")
    sub.add_argument("--save-freq", type=at_least(1), default=500, metavar="N",
                     help="steps between two checkpoints within an epoch "
                          "(default: %(default)s)")
    sub.add_argument("--stall-steps", type=at_least(0), default=200, metavar="N",
                     help="look for the reason, once, when for N steps the loss is that of "
                          "guessing; 0: never (default: %(default)s)")
    workers(sub)
    recipe_options(sub)

    sub = subcommand(test)
    sub.add_argument("checkpoint", metavar="CHECKPOINT")
    sub.add_argument("more", nargs="*", metavar="CHECKPOINT|DIR",
                     help="of several nets, the mean of their probabilities counts; DIR, the "
                          "last, holds val/<class>/* (default: where the first was trained)")
    sub.add_argument("--weights", metavar="W,W...",
                     help="how much each of several counts, or search: find it on these "
                          "pictures (default: all the same)")
    sub.add_argument("--save-probs", metavar="FILE",
                     help="write probabilities, labels, classes and names of the pictures to "
                          "an .npz file")
    sub.add_argument("--views", type=int, choices=(1, 10), default=1,
                     help="1: the central crop; 10: corners, centre and their mirror images, "
                          "as the paper reports its errors (4.1) (default: %(default)s)")
    sub.add_argument("-b", "--batch-size", type=at_least(1), default=32, metavar="N",
                     help="pictures at a time (default: %(default)s)")
    workers(sub)

    sub = subcommand(predict)
    sub.add_argument("checkpoint", metavar="CHECKPOINT")
    sub.add_argument("images", nargs="+", metavar="IMAGE")

    sub = subcommand(export)
    sub.add_argument("checkpoint", metavar="CHECKPOINT")
    sub.add_argument("file", metavar="FILE.safetensors")

    sub = subcommand(show)
    sub.add_argument("--one-tower", action="store_true",
                     help="the ungrouped reading: every kernel sees every map")
    sub.add_argument("--classes", type=at_least(1), default=1000, metavar="N",
                     help="default: %(default)s")
    recipe_options(sub)

    sub = subcommand(bench)
    sub.add_argument("--input", dest="dir", nargs="?", const=str(PATTERNS), metavar="DIR",
                     help="the input pipeline alone, on DIR/train (default: drawn patterns)")
    sub.add_argument("--rounds", type=at_least(1), default=5, metavar="N",
                     help="measurements of each, after a warm-up (default: %(default)s)")
    sub.add_argument("--json", action="store_true", help="print one JSON object instead")
    sub.add_argument("--classes", type=at_least(1), default=1000, metavar="N",
                     help="default: %(default)s")
    workers(sub)
    recipe_options(sub)

    subcommand(doctor, computes=False)
    return main


def out_of_memory(args):
    """What to say when memory did not suffice: what a step needs, and what would fit."""
    if args.command not in ("train", "bench"):
        return "out of memory; try a smaller --batch-size"
    recipe = chosen_recipe(args, resumed(args) if args.command == "train" else None)
    towers = two_devices(args.device)
    model = build(getattr(args, "classes", 1000), towers, recipe)
    room = {tower.place: tower.room() for tower in towers}
    return memory.advice(needs(model.name_parameters()), recipe.batch_size, room)


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
        print(f"{program_name()}: error: {error}", file=sys.stderr)
        return 1
    except MemoryError as error:
        error.with_traceback(None)         # which holds the arrays of the step
        print(f"{program_name()}: error: {out_of_memory(args)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{program_name()}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
