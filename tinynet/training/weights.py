"""How do the weights get into other programs, and back?

In the layout of PyTorch: one array a layer, conv1.weight and so on, the top tower's kernels before
the bottom tower's. A grouped net of PyTorch or Caffe has the same arrays (conv2, conv4 and conv5
in two groups). How files hold them stands in formats/, which is imported where it is needed: no
other command waits for it.

What else a net needs is written beside them, as text by name: its recipe, its classes, and what
happens to a picture before it. Where dropout is classic, what reads fc6 and fc7 is multiplied by
what dropout keeps, so that it need not be done elsewhere; on the way back it is divided again.
"""
import json
import math
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np

from .. import ops, schema, store
from ..device import to_host
from ..engine import Tensor, no_grad
from ..errors import UserError
from ..progress import say, shown
from ..split import layer_of
from . import options, recipes
from .options import two_devices
from .program import command
from .saved import Saved, opened

FIT = {"crop": "shorter side to 256, the central 256 x 256", "squeeze": "both sides to 256"}
ENDINGS = ".safetensors", ".onnx", ".pth", ".pt"
# Statistics of pictures: without variances there is no colour noise.
NO_COLOURS = {"variances": [0.0] * 3, "components": np.eye(3).tolist()}
ABOUT = {"recipe": {str: object}, "classes": (None, [str]), "words": (None, {str: str}),
         "colours": (None, {"variances": [float], "components": [[float]]}),
         "folded": (None, {str: float})}
# Fields of a recipe that have no weights and change what all layers after them see.
COMPUTED = ("fit", "pixel_scale", "lrn", "lrn_window", "lrn_alpha", "lrn_k", "after_conv1",
            "after_conv2", "pool", "towers", "dropout_kind")


# --- out --------------------------------------------------------------------------------


def export(path, model, saved, statistics):
    """Write a net's weights, its classes, its recipe, and what it wants done to pictures.

    saved: the saved.Saved of the net; statistics: the images.Statistics of its pictures. Returns
    the weights: name -> array. path: with one of the ENDINGS.
    """
    from ..formats import onnx, plan, safetensors, torch_file
    kind, layers, recipe = Path(path).suffix, whole_layers(model), saved.recipe
    factors = {} if kind == ".onnx" else folded(recipe)
    for name, factor in factors.items():
        # Only with a power of two a float32 is the same afterwards.
        wide = layers[name] if math.frexp(factor)[0] == 0.5 else layers[name].astype(np.float64)
        layers[name] = wide * wide.dtype.type(factor)
    mean = statistics.mean
    about = {name: json.dumps(value) for name, value in {
        "recipe": recipe, "classes": saved.classes, "words": saved.words, "folded": factors,
        "colours": {name: getattr(statistics, name).tolist() for name in NO_COLOURS},
        "preprocessing": {
            "size": FIT[recipe["fit"]], "channels": "R, G, B, 0 ... 255", "crop": recipe["crop"],
            "subtract": "the mean image, cropped as the picture is",
            "multiply_by": recipe["pixel_scale"]}}.items()}
    if kind == ".onnx":
        onnx.write(path, plan.of_net(model), layers, about, crop=recipe["crop"],
                   scale=recipe["pixel_scale"], mean=mean)
    elif kind == ".safetensors":
        safetensors.write(path, layers | {"mean_image": mean.transpose(2, 0, 1)}, about)
    else:
        torch_file.write(path, layers | {"mean": mean.transpose(2, 0, 1)}, about)
    return layers


def folded(recipe):
    """By what the weights are multiplied that read what dropout has thinned out."""
    if recipe["dropout_kind"] != "classic" or not recipe["dropout"]:
        return {}
    return dict.fromkeys(("fc7.weight", "fc8.weight"), 1 - recipe["dropout"])


def whole_layers(model, read=lambda parameter: parameter.data):
    """The weights of a net as PyTorch has them: name -> NumPy array.

    Convolutions (kernels, maps, KH, KW), dense layers (outputs, inputs), where the inputs of
    fc6 are ordered by map, row, column. read: what of each parameter is wanted, if it is not
    the weights (its gradient has the same shape).
    """
    parts = _parts(model)
    maps = _last_maps(parts)
    return {name: np.concatenate([_theirs(name, to_host(read(parameter)), maps)
                                  for _, parameter in towers])
            for name, towers in parts.items()}


# --- in ---------------------------------------------------------------------------------


def imported(args, build):
    """Make a checkpoint of the net in another program's file, and say what it is.

    args: of alexnet.py import. build: alexnet.build. Returns what is known of the file, a
    known.Known or None. Raises UserError for a file that holds another net.
    """
    from ..formats import known, reading
    foreign, data = reading.read(args.file)
    published, digest = known.look_up(data)
    about, layers = _about(args.file, foreign.about), foreign.layers
    recipe = _recipe_of(foreign, about, args)
    lines = [f"{shown(args.file)}: " + (published.name if published else
                                        f"no published file, its SHA-256 is {digest[:16]}...")]
    if about:
        mean = foreign.mean
        lines.append("alexnet.py wrote it, with recipe, classes and mean image"
                     + f" (instead of which {args.mean_image} is taken)" * bool(args.mean_image))
    elif np.shape(foreign.mean) == (3, 256, 256):
        raise UserError(f"{shown(args.file)} has a mean image and no recipe: another program has "
                        "written anew what alexnet.py exported; import what alexnet.py wrote")
    else:
        mean, line = _colours_into_conv1(foreign, recipe, args)
        lines.append(line)
    if args.mean_image:
        mean = reading.read_mean(args.mean_image)[::-1]            # there blue comes first
    classes, words = _class_names(args, len(layers["fc8.bias"]), about)
    if len(set(classes)) < len(classes):
        raise UserError(f"{args.classes or shown(args.file)}: two classes have one name")
    model = build(len(classes), two_devices("cpu", recipe), recipe)
    found = unfolded(split_layers(layers, model), about)
    differs = next((f"{name} is to be {'x'.join(map(str, w.whole_shape))} here"
                    for name, w in model.parameters() if name not in found),
                   foreign.difference(model))
    if differs:
        raise UserError(f"{shown(args.file)} holds another net than recipe {recipe.name} makes: "
                        f"{differs}; alexnet.py import --help lists what can be chosen")
    arrays = {f"weights/{name}": _float32(args.file, name, array)
              for name, array in found.items()}
    for name, array in (about.get("colours") or NO_COLOURS).items():
        arrays[f"statistics/{name}"] = np.array(array, np.float64)
    if np.shape(mean) != (3, 256, 256):
        raise UserError(f"{shown(args.file)}: its mean image has another shape than 3 x 256 x 256")
    arrays["statistics/mean"] = _float32(args.file, "the mean image", mean).transpose(1, 2, 0)
    store.save(args.out, arrays, asdict(Saved(
        recipe=asdict(recipe), classes=classes, words=words, data="")))
    count = sum(array.size for array in found.values())
    say("\n".join([*lines, *foreign.notes, f"{foreign.program}, {count:,} weights, "
                   f"{len(classes):,} classes; recipe {recipe.name}", *recipe.lines(False),
                   *([f"published errors, top-1 and top-5: {published.errors}"] if published
                     else []),
                   f"saved: {shown(args.out)}"]))
    if published and published.check and not args.check:
        picture, _, where = published.check[0].partition(" ")
        again = Path(args.out).with_suffix(".checked.npz")             # what is there is kept
        say(f"check it with {picture} {where}:\n  "
            + command("import", Path(args.file), again, "--check", picture))
    return published


def checked(model, picture, scale, published):
    """What a net makes of a picture (crop, crop, 3) as it is, without a mean: a line, with what
    was published of it, if that is known. scale: multiplies the pixels."""
    pixels = picture[None] * np.float32(scale)
    with no_grad():
        said = ops.softmax(model(Tensor(pixels, model.devices[0]))).numpy()[0]
    best = int(said.argmax())
    line = f"as it is, without a mean: class {best}, probability {said[best]:.6f}"
    if published and published.check:
        _, label, wanted = published.check
        agrees = best == label and abs(said[best] - wanted) < 1e-4
        line += f"; published: {label}, {wanted}: {'it agrees' if agrees else 'IT DIFFERS'}"
    return line


def _colours_into_conv1(foreign, recipe, args):
    """Let conv1 do what another program did to the colours: their order, and by what each was
    divided. Zeros beyond the edge are the mean here as there. Returns the mean image (3, 256,
    256), of one colour, and a line of text."""
    from ..formats import known
    colour, scale = known.TORCHVISION if recipe.towers == 1 else known.CAFFE
    blue = foreign.blue_first if args.blue_first is None else args.blue_first
    first = foreign.layers["conv1.weight"][:, ::-1 if blue else 1].astype(np.float64)
    foreign.layers["conv1.weight"] = first / (scale * recipe.pixel_scale)[:, None, None]
    less, by = (", ".join(f"{number:.1f}" for number in three) for three in (colour, scale))
    return np.broadcast_to(colour[:, None, None], (3, 256, 256)), (
        f"colours: {'blue first there, red first here' if blue else 'red first there and here'}; "
        f"of 0 ... 255 less {args.mean_image or f'{less} (--mean FILE: an image)'}"
        + (f", divided by {by}" if any(scale != 1) else ""))


def _about(path, texts):
    """What alexnet.py wrote beside the weights, as values by name; {} if it did not."""
    if "recipe" not in texts:
        return {}
    about = {}
    for name in ABOUT:
        try:
            about[name] = json.loads(texts.get(name, "null"))
        except (ValueError, RecursionError, TypeError) as error:
            raise UserError(f"{shown(path)}: its {name} is no JSON ({error})") from error
    schema.check(about, ABOUT, shown(path))
    for name, share in (about["folded"] or {}).items():
        if not 0 < share <= 1:
            raise UserError(f"{shown(path)}: folded.{name} is {share}, and dropout keeps a share "
                            "above 0 and of at most 1")
    for name, like in NO_COLOURS.items():
        if np.shape((about["colours"] or NO_COLOURS)[name]) != np.shape(like):
            raise UserError(f"{shown(path)}: colours.{name} has another shape")
    return about


def _recipe_of(foreign, about, args):
    """The recipe of a foreign net: what alexnet.py wrote, or what its sizes and its plan say."""
    given = options.given(args)
    if about:
        recipe = recipes.from_dict(about["recipe"], shown(args.file))
        if args.recipe not in (None, recipe.name) or args.blue_first:
            option = "--blue-first" if args.blue_first else "--recipe"
            raise UserError(f"{shown(args.file)} says itself that it is of recipe {recipe.name}, "
                            f"red first: leave {option} out")
        return recipe.changed(given)
    layers = foreign.layers
    towers = 2 if 2 * layers["conv2.weight"].shape[1] == len(layers["conv1.bias"]) else 1
    kernels = [len(layers[f"conv{n}.bias"]) // (towers if n < 5 else 2) for n in range(1, 6)]
    # Whoever else trained a net left nothing to be halved at test time.
    fields = dict(towers=towers, conv6="conv6.bias" in layers, kernels=tuple(kernels),
                  neurons=tuple(len(layers[f"{name}.bias"]) // 2 for name in ("fc6", "fc7")),
                  dropout_kind="inverted")
    try:
        return recipes.RECIPES[args.recipe or ("owt" if towers == 1 else "caffe")].changed(
            fields | foreign.recipe_fields() | given)
    except UserError as error:
        raise UserError(f"{shown(args.file)} holds another net than AlexNet: {error}") from error


def _class_names(args, count, about):
    """The classes and what they are: of --classes, of the file, or numbers."""
    if not args.classes:
        return about.get("classes") or list(map(str, range(count))), about.get("words") or {}
    text = Path(args.classes).read_text(encoding="utf-8-sig", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) != count:
        raise UserError(f"{args.classes} has {len(lines):,} lines, the net {count:,} classes: one "
                        "line is wanted for each, in the order of the net")
    words = {}
    if all(re.match(r"n\d{8}\s", line) for line in lines):         # synset_words.txt
        words = dict(line.split(None, 1) for line in lines)
        lines = [line.split()[0] for line in lines]
    twice = {name for name, times in Counter(lines).items() if times > 1}      # crane, crane
    return [f"{name} ({label})" if name in twice else name
            for label, name in enumerate(lines)], words


def unfolded(found, about):
    """Weights by our names, with what `folded` did to some of them undone."""
    factors = about.get("folded") or {}
    return {name: array / factors[_their_name(name)] if _their_name(name) in factors else array
            for name, array in found.items()}


def _float32(path, name, array):
    """The array as float32. Raises UserError if it has numbers that are not finite there."""
    array = array.astype(np.float32, copy=False)
    with np.errstate(all="ignore"):        # a sum is quick, but may overflow
        if not np.isfinite(array.sum()) and not np.isfinite(array).all():
            raise UserError(f"{shown(path)}: {name} has numbers that are not finite, or too large "
                            "for float32")
    return array


def copy_weights(path, model, classes, recipe):
    """Start from another net where it has layers of the same sizes: lines that say which.

    path: a checkpoint or a .safetensors file. classes: the names that the model answers with;
    fc8 is copied only from a net with the same. (Paper, section 6: nets with an asterisk were
    trained on more classes before.) recipe: of the model; where the other net computed otherwise
    what its weights were learned for, the lines say so. Raises UserError if nothing fits.
    """
    if Path(path).suffix == ".safetensors":
        from ..formats import reading
        layers, texts = reading.arrays(path)
        about = _about(path, {"recipe": "{}", **texts})
        found = unfolded(split_layers(layers, model), about)
    else:
        file = opened(path)                            # of a run, or of a net's save()
        found, about = file.arrays("weights/"), file.meta
    schema.check(about, {"classes": (None, [str]), "recipe": (None, {str: object})}, shown(path))
    theirs, before = about.get("classes"), about.get("recipe") or {}
    if theirs not in (None, classes):                  # then fc8 answers another question
        found = {name: array for name, array in found.items() if not name.startswith("fc8.")}
    parameters = dict(model.parameters())
    fits = {name for name, w in parameters.items()
            if name in found and found[name].shape == w.whole_shape}
    layers = {}
    for name in parameters:
        layers.setdefault(layer_of(name), []).append(name)
    copied = [layer for layer, names in layers.items() if fits.issuperset(names)]
    if not copied:
        raise UserError(f"{shown(path)} has no layer of the sizes of this net: nothing to start "
                        "from")
    for name in (name for layer in copied for name in layers[layer]):
        first = _float32(path, name, found[name])
        w = parameters[name]
        w.data = w.device.put(first if w.part is None else first[..., w.part])
    own = json.loads(json.dumps(asdict(recipe)))       # tuples become lists
    still = [layer for layer, rate in recipe.rates_of_layers().items() if rate == 0]
    return [f"first weights from {shown(path)}:"] + [
        f"  {layer:6} " + ("copied" if layer in copied else "drawn anew" + (
            ", and it is to stand still: is that meant?" * (layer in still)))
        for layer in layers] + [
        f"  but they were learned with {name} {before[name]}, not {own[name]}: is that meant?"
        for name in COMPUTED if before.get(name, own[name]) != own[name]]


def split_layers(layers, model):
    """The other way round: what of `layers` fits into the net, as our name -> array."""
    parts = _parts(model)
    maps = _last_maps(parts)
    found = {}
    for name, towers in parts.items():
        *seen, outputs = towers[0][1].whole_shape
        whole = (len(towers) * outputs, *(seen[-1:] + seen[:-1]))
        if name in layers and whole in (shape := layers[name].shape, _flat(shape)):
            for (own, _), half in zip(towers, np.split(layers[name], len(towers)), strict=True):
                found[own] = np.ascontiguousarray(_ours(name, half, maps))
    return found


def _parts(model):
    """PyTorch's name -> [(our name, parameter), ...], one for each tower, top first."""
    parts = {}
    for own, parameter in model.parameters():
        parts.setdefault(_their_name(own), []).append((own, parameter))
    return parts


def _their_name(own):
    return layer_of(own) + (".weight" if own.endswith("W") else ".bias")


def _last_maps(parts):
    """How many maps fc6 sees: the kernels of the last convolution in all towers."""
    last = "conv6.bias" if "conv6.bias" in parts else "conv5.bias"
    return sum(math.prod(parameter.whole_shape) for _, parameter in parts[last])


def _flat(shape):
    """fc6's weights may have four axes, where that saves a copy: (outputs, maps, side, side)."""
    return shape[0], math.prod(shape[1:])


def _theirs(name, array, maps):
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if name == "fc6.weight":                 # inputs by row, column, map -> map, row, column
        side = math.isqrt(len(array) // maps)
        places = array.reshape(side, side, maps, -1)
        return places.transpose(3, 2, 0, 1).reshape(-1, len(array))
    return array.T


def _ours(name, array, maps):
    if name == "fc6.weight":
        side = math.isqrt(math.prod(array.shape[1:]) // maps)
        places = array.reshape(-1, maps, side, side)
        return places.transpose(2, 3, 1, 0).reshape(maps * side * side, -1)
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T
