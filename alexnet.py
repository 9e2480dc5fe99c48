"""AlexNet, as Krizhevsky, Sutskever and Hinton trained it in 2012.

    python alexnet.py train                         learn from drawn patterns
    python alexnet.py train DIR --device gpu0,gpu1  learn from DIR/train/*/*
    python alexnet.py test runs/paper/best.npz DIR  error on DIR/val/*/*
    python alexnet.py predict runs/paper/best.npz cat.jpg DIR
    python alexnet.py walk runs/paper/best.npz walk.html       what layers see
    python alexnet.py report runs/paper             what a run has learned
    python alexnet.py show --device cpu0,cpu1       layers, what crosses where
    python alexnet.py bench                         how fast it is, and could be
    python alexnet.py doctor                        what is broken here

Figure 2 of the paper: two rows, one GPU each, whose lines cross at layers 3, 6,
7 and 8. 227x227x3 pixels go in at the left, 1000 numbers come out at the right.

top     ─ 55x55x48 ─ 27x27x128 ╮╭ 13x13x192 ─ 192 ─ 128 ╮╭ 2048 ╮╭ 2048 ╮
           conv1       conv2   ├┤   conv3    conv4 conv5├┤ fc6  ├┤ fc7  ├ 1000
bottom  ─ 55x55x48 ─ 27x27x128 ╯╰ 13x13x192 ─ 192 ─ 128 ╯╰ 2048 ╯╰ 2048 ╯ fc8
"""
import sys

try:
    import tinynet
except ImportError as problem:
    sys.exit(f"alexnet.py: error: {problem}\nstart the environment with  . .venv/bin/activate   "
             "(README's first command makes it)")
except KeyboardInterrupt:
    sys.exit(130)

import json
from dataclasses import asdict
from pathlib import Path

from tinynet import SGD, Layer, Sequential, UserError, ops, split
from tinynet.pictures import dataset, images, packed, patterns
from tinynet.pictures.batches import Loader, measure
from tinynet.pictures.images import Preparation, Statistics
from tinynet.progress import say, shown, warn
from tinynet.ranks import ALONE, Pretended
from tinynet.replay import Replayed
from tinynet.split import every_class, every_neuron, every_row, exchange, gather, send_to_both
from tinynet.tools import anatomy, memory
from tinynet.training import answers, figures, options, recipes, weights
from tinynet.training import saved as checkpoints
from tinynet.training.begin import new_run
from tinynet.training.evaluation import evaluate
from tinynet.training.program import command, exit_status, program_name
from tinynet.training.recipes import Bricks
from tinynet.training.saved import Saved
from tinynet.training.schedules import set_rates
from tinynet.training.stall import diagnosis

FEW = 300                  # pictures


# --- the net ----------------------------------------------------------------------------


class Tower(Layer):
    """One row of Figure 2: half of every layer, all on one device.

    rows: how many rows the figure has. Where the rows meet (conv3, fc6, fc7) a layer's
    kernels see the maps of all of them; elsewhere only those of their own row. ranks: the
    processes that share the neurons of fc6 and fc7; row: which of the rows this one is.
    """

    def __init__(self, device, recipe, ranks=ALONE, row=0, rows=2):
        k1, k2, k3, k4, k5 = recipe.kernels                     # 48, 128, 192, 192, 128
        n6, n7 = recipe.neurons                                 # 2048, 2048
        brick = Bricks(recipe, ranks, row, rows)
        less, side = brick.less_pad, brick.last_side            # 0, 6 if pools overlap
        self.conv1 = brick.conv("conv1", 3, k1, 11, stride=4, pad=brick.beyond_edge,
                                then=recipe.after_conv1)
        self.conv2 = brick.conv("conv2", k1, k2, 5, pad=2 - less, then=recipe.after_conv2)
        self.conv3 = brick.conv("conv3", rows * k2, k3, 3, pad=1)
        self.conv4 = brick.conv("conv4", k3, k4, 3, pad=1 - less)
        self.conv5 = brick.conv("conv5", k4, k5, 3, pad=1, then=("relu", "pool"))
        if recipe.conv6:                                        # the nets with an asterisk
            self.conv6 = brick.conv("conv6", rows * k5, k5, 3, pad=1)
        self.fc6 = brick.dense("fc6", rows * k5 * side * side, n6)
        self.fc7 = brick.dense("fc7", rows * n6, n7)
        self.to(device)


class AlexNet(Layer):
    """The whole figure: (N, 227, 227, 3) images -> (N, classes), before the softmax.

    devices: one Device for each tower; the same one twice is not a special case. A Loader may
    have made the images on both: then their twin on the second is given as well.
    """

    def __init__(self, classes, devices, recipe, ranks=ALONE):
        self.top = Tower(devices[0], recipe, ranks, row=0)
        self.bottom = Tower(devices[-1], recipe, ranks, row=1)
        self.fc8 = Bricks(recipe, ranks).last(2 * recipe.neurons[-1], classes).to(devices[0])
        self.towers, self.devices = (self.top, self.bottom), (devices[0], devices[-1])
        self.crop, self.ranks = recipe.crop, ranks
        self.outputs = 2 * recipe.neurons[0], 2 * recipe.neurons[1], classes

    def forward(self, image, *twin):
        (t, b), ranks = self.towers, self.ranks
        top, bottom = send_to_both(image, *self.devices, *twin)  # both see every image
        top, bottom = split.side_by_side(t.conv1, b.conv1, top, bottom)
        top, bottom = split.side_by_side(t.conv2, b.conv2, top, bottom)
        top, bottom = exchange(top, bottom)                      # the towers meet: layer 3
        top, bottom = t.conv3(top), b.conv3(bottom)
        top, bottom = t.conv4(top), b.conv4(bottom)
        top, bottom = t.conv5(top), b.conv5(bottom)
        if hasattr(t, "conv6"):                                  # the nets with an asterisk
            top, bottom = exchange(top, bottom)
            top, bottom = t.conv6(top), b.conv6(bottom)
        n6, n7, classes = self.outputs
        top, bottom = exchange(top, bottom, every_row, ranks)    # layer 6: so do the ranks
        top, bottom = t.fc6(top), b.fc6(bottom)
        top, bottom = exchange(top, bottom, every_neuron, ranks, n6)           # layer 7
        top, bottom = t.fc7(top), b.fc7(bottom)
        both = every_neuron(gather(top, bottom), ranks, n7)      # layer 8, on the top device
        return every_class(self.fc8(both), ranks, classes)


class OneTower(Sequential):
    """A net of one row, in which every kernel sees every map and nothing is exchanged."""

    def __init__(self, classes, device, recipe, ranks=ALONE):
        fc8 = Bricks(recipe, ranks).last(recipe.neurons[-1], classes).to(device)
        super().__init__(**dict(Tower(device, recipe, ranks, rows=1).layers()), fc8=fc8)
        self.towers, self.devices = (self,), (device, device)
        self.crop, self.ranks = recipe.crop, ranks
        self.outputs = *recipe.neurons, classes

    def forward(self, x):
        n6, n7, classes = self.outputs
        for name, layer in self.layers():
            if name == "fc6":                                    # where the ranks meet
                x = every_row(x, self.ranks)
            x = layer(x)
            if name in ("fc6", "fc7"):
                x = every_neuron(x, self.ranks, n6 if name == "fc6" else n7)
        return every_class(x, self.ranks, classes)


def build(classes, devices, recipe, ranks=ALONE):
    """The net of a recipe. devices: one or two."""
    if recipe.towers == 2:
        return AlexNet(classes, devices, recipe, ranks)
    # The one-GPU net of section 3.2: conv1 ... conv4 as in one row of the figure, so that it
    # costs half as much; conv5 and the dense layers of both.
    *kernels, last = recipe.kernels
    return OneTower(classes, devices[0], recipe.changed(
        {"kernels": (*kernels, 2 * last), "neurons": tuple(2 * n for n in recipe.neurons)}), ranks)


def ungrouped(classes, devices, recipe, ranks=ALONE):
    """The figure with both rows merged into one.

    This is what a reader gets who counts 256 kernels of 5x5x96 in layer 2: twice as many
    weights in conv2, conv4 and conv5, and not the paper's net.
    """
    return OneTower(classes, devices[0], recipe.changed(
        {"kernels": tuple(2 * k for k in recipe.kernels),
         "neurons": tuple(2 * n for n in recipe.neurons)}), ranks)


# --- training ---------------------------------------------------------------------------


def train(args):
    """Train a net, from its first weights or from a checkpoint, and say how well it does."""
    ranks = args.ranks                                   # of how many processes this is one
    claim, saved = options.place_of_run(args, ranks)
    recipe = options.chosen_recipe(args, saved)
    seed = args.seed if args.seed is not None else saved.seed if saved else 0
    top, bottom = options.two_devices(args.device, recipe, ranks)
    folder = ranks.share(lambda: picture_folder(args, saved))
    pictures, held_out = (part.fitted(recipe.fit) for part in both_splits(folder, saved, ranks))
    model = build(len(pictures.classes), (top, bottom), recipe, ranks)         # may be refused
    args.out_of_memory = lambda: memory.advice(model, recipe.batch_size)
    statistics = ranks.share(lambda: known_statistics(saved, pictures)
                             or measure(pictures, args.workers))
    prepare = Preparation(recipe, statistics, seed)
    loader, validation = (Loader(part, prepare, recipe.batch_size, args.workers, model.devices,
                                 ranks) for part in (pictures, held_out))
    optimizer = SGD(model.initialize(seed).parameters(), recipe.lr, recipe.momentum, recipe.wd,
                    recipe.bias_lr, recipe.bias_wd)
    about = Saved(recipe=asdict(recipe), seed=seed, classes=pictures.classes,
                  words=pictures.words, data=str(folder.resolve()))
    run = new_run(args, claim, saved, recipe, about, model, optimizer, loader)
    if not run.goes_on():
        say(f"nothing to do: step {run.step} of {run.last_step} is taken")
        if ranks.first:                                            # a kill may have come before
            figures.draw_run(run)
        return 0

    def learn(labels, *images):
        logits = model(*images)
        loss = ops.softmax_cross_entropy(logits, labels=labels)
        optimizer.zero_grad()
        loss.backward()
        return loss, logits

    learn = Replayed(learn, model)                                 # all at once, on one GPU
    with run:                                                      # a bar; Ctrl-C is heard
        while run.goes_on():
            for batch in run.batches():                            # the rest of this epoch
                set_rates(optimizer, recipe, run.epochs_done)
                model.train(run.step)
                labels = top.put(batch.labels)
                loss, logits = learn(labels, *batch.tensors(top))
                ranks.sum_gradients(model)
                optimizer.step()
                run.saw(loss, logits, labels)
                if run.stalled:
                    say("\n".join(learn.beside(diagnosis, model, optimizer, batch, recipe)))
            run.validated(learn.beside(evaluate, model, validation, top,
                                       interrupted=run.interrupted), of=len(held_out))
    return finish(run, folder, validation) if ranks.first else 0


def picture_folder(args, saved=None):
    """DIR; or where the checkpoint's pictures were; or freshly drawn patterns."""
    folder = Path(args.dir or (saved.data if saved else options.PATTERNS))
    if folder.resolve() == options.PATTERNS.resolve():
        if args.command == "train" and not args.dir and not saved:
            say(f"no DIR was given: ten classes of patterns are drawn into {options.PATTERNS},\n"
                "and a net learns them; that takes a few minutes on two cores")
        patterns.draw(folder)
    return folder if args.dir or not saved else Path(saved.pictures("DIR"))


def both_splits(folder, saved, ranks):
    """The pictures to learn from and those to test with."""
    pictures = packed.data_set(folder, "train")
    held_out = packed.data_set(folder, "val", pictures.classes)
    ranks.compare(shown(folder), pictures, held_out)
    if len(pictures.classes) == 1:
        warn(f"{shown(folder)} has one class: there is nothing to tell apart. Is it too deep?")
    if saved and saved.classes != pictures.classes:
        raise UserError(f"{shown(saved.path)} knows other classes than those in {folder}; to learn "
                        f"these:  {command('train', folder, '--init-from', saved.path)}")
    say(f"{len(pictures):,} pictures to learn from and {len(held_out):,} to test with, of "
        f"{len(pictures.classes)} classes:\n  {shown(folder)}")
    return pictures, held_out


def known_statistics(saved, pictures):
    """Mean image and colours as they were when a net was trained, or as they are stored."""
    stored = saved and saved.file.arrays("statistics/", Statistics.SHAPES)
    return Statistics(**stored) if saved else pictures.statistics


def finish(run, folder, validation):
    """Say how well the net does, draw what its first layer has learned: the exit status."""
    for loader in run.loader, validation:
        if loader.skipped:
            say(f"unreadable pictures in {loader.pictures.root}, skipped: {len(loader.skipped)}")
    drawn = figures.draw_run(run)
    following = ("test", run.best, folder, "--views", "10")
    if isinstance(validation.pictures, dataset.Pictures):  # else they have no files of their own
        following = "predict", run.best, validation.pictures.paths[0]
    say(f"\non {run.result['pictures']:,} pictures it has not seen: top-1 error "
        f"{run.result['top1_error']:.1%}\n(chance: {1 - 1 / run.classes:.1%}), lowest so far "
        f"{run.at.lowest_error:.1%}\nsaved: {shown(run.last)}, {shown(run.best)},\n"
        f"  {shown(run.log_file.path)}, {', '.join(map(shown, drawn))}\ntry next:\n"
        f"  {command(*following)}")
    return 0


# --- what a trained net can be asked ------------------------------------------------------


def load(saved, names):
    """A net in test mode, on the devices of these names, and its Preparation, from a Saved."""
    recipe = recipes.from_dict(saved.recipe, saved.path)
    model = build(len(saved.classes), options.two_devices(names, recipe, spare=True), recipe)
    saved.load_weights(model)
    return model.eval(), Preparation(recipe, known_statistics(saved, None))


def test(args):
    """Print the error of a checkpoint on DIR/val, or of the mean of several."""
    nets, folder = answers.nets_to_test(args)
    pictures = packed.data_set(folder, "val", nets[0].classes)

    def opened(net):
        model, prepare = load(net, args.device)
        loader = Loader(pictures.fitted(prepare.fit), prepare, args.batch_size, args.workers,
                        model.devices)
        return model, loader

    return answers.test(args, nets, pictures, opened)


def predict(args):
    """Print the most probable classes of pictures, and of all pictures in folders."""
    saved, pictures = Saved.of_alexnet(args.checkpoint), dataset.files(args.images)
    model, prepare = load(saved, args.device)
    # Beside a GPU processes read, which take a second to begin: not for a few pictures.
    places = model.devices if len(pictures) > FEW else ()
    loader = Loader(pictures.fitted(prepare.fit), prepare, args.batch_size, args.workers, places,
                    tells=False)
    return answers.predict(args, saved, model, loader)


def import_(args):
    """Make a checkpoint of a net that another program has trained."""
    checkpoints.output_file(args.out, ".npz", args.file)
    options.two_devices(args.device)
    if args.check:
        images.read(args.check)              # what is no picture is told before OUT.npz is there
    published = weights.imported(args, build)
    if args.check:
        model, prepare = load(Saved.of_alexnet(args.out), args.device)
        picture = images.read(args.check, side=prepare.crop)
        print(weights.checked(model, picture, prepare.scale, published))
    return 0


def export(args):
    """Write the weights of a checkpoint for other programs: .safetensors, .onnx, .pth."""
    saved = Saved.of_alexnet(args.checkpoint)
    checkpoints.output_file(args.file, weights.ENDINGS, saved.path)
    model, prepare = load(saved, "cpu")
    layers = weights.export(args.file, model, saved, prepare.statistics)
    for name, array in layers.items():
        print(f"{name:14}{' x '.join(str(size) for size in array.shape)}")
    print(f"saved: {shown(args.file)}")
    return 0


def walk(args):
    """Write a page in which to walk through Figure 2, layer by layer, with some pictures."""
    from tinynet.pages import walk as pages  # here: other commands begin sooner without
    pages.write(args, load, build)
    return 0


def report(args):
    """Write a page that shows what a run learned, or several beside each other."""
    from tinynet.pages import report as pages
    pages.write(args, load)
    return 0


# --- what a net and this machine are like -------------------------------------------------


def show(args):
    """Print the layer table, the crossings and the memory, all read off a pass of one image."""
    recipe = options.chosen_recipe(args)
    ranks, plan = Pretended(args.of_ranks), ungrouped if args.ungrouped else build
    net = args.classes, options.two_devices(args.device, recipe, ranks), recipe
    model, part = (memory.without_weights(plan(*net, who)) for who in (ALONE, ranks))
    print(*anatomy.lines(model, recipe.batch_size), *anatomy.lines_of_ranks(part, recipe.batch_size),
          "", "memory of a training step:",
          *memory.table(memory.of_model(part), recipe.batch_size), sep="\n")
    return 0


def bench(args):
    """Measure images/s, the time of every op, memory, and the machine's own ceilings."""
    from tinynet.tools import bench as speed  # late, as the doctor: no other command waits
    recipe = options.chosen_recipe(args)
    if args.dir:
        if args.device:
            raise UserError("--input reads pictures, which no device does: leave out --device")
        pictures = packed.data_set(picture_folder(args), "train").fitted(recipe.fit)
        result = speed.input_speed(pictures, recipe, args.workers, args.rounds)
    else:
        devices = options.two_devices(args.device, recipe, args.ranks)
        args.out_of_memory = lambda: memory.advice(
            build(args.classes, devices, recipe, args.ranks), recipe.batch_size, 1,
            speed.CEILINGS)
        result = speed.net_speed(build, args.classes, devices, recipe, args.rounds, args.ranks)
    report = speed.report_input if args.dir else speed.report
    say(json.dumps(result) if args.json else "\n".join(report(result)))
    return 0


def doctor(args):
    """Print what this machine has, what is broken, and the command that mends it."""
    from tinynet.tools import doctor as checks
    return checks.main()


# --- the command line -------------------------------------------------------------------


def parser():
    commands = train, test, predict, import_, export, walk, report, show, bench, doctor
    return options.parser(__doc__, commands, tinynet.__version__)


def main(argv=None):
    args = parser().parse_args(argv)
    return exit_status(program_name(), lambda: args.run(options.with_ranks(args)),
                       lambda: args.out_of_memory())


if __name__ == "__main__":
    sys.exit(main())
