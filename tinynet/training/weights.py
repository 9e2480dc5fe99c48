"""How do the weights get into other programs, and back?

As a .safetensors file in the layout of PyTorch: one array a layer, conv1.weight and so on, the
top tower's kernels before the bottom tower's. A grouped net of PyTorch or Caffe has the same
arrays (conv2, conv4 and conv5 in two groups). The format is a length, a JSON header and bytes.

What happens to a picture before such a net sees it stands in the file as well: the array
mean_image (3, 256, 256), which is no weight, and the entry "preprocessing" of the metadata.
"""
import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np

from .. import schema
from ..device import to_host
from ..errors import UserError
from ..progress import shown
from ..schema import COUNT
from ..split import layer_of
from ..store import Checkpoint, replacing
from .program import os_error

# Fields of a recipe that have no weights and change what all layers after them see.
COMPUTED = ("pixel_scale", "lrn", "lrn_alpha", "lrn_k", "after_conv1", "after_conv2", "pool",
            "dropout_kind")
DTYPES = {"F32": np.float32, "F64": np.float64, "F16": np.float16}


# --- out --------------------------------------------------------------------------------


def export(path, model, saved, mean):
    """Write a net's weights, its classes, its recipe, and what it wants done to pictures.

    saved: the saved.Saved of the net; mean: the mean image (256, 256, 3). Returns what was
    written: name -> array. Raises UserError for a file of another kind.
    """
    if Path(path).suffix != ".safetensors":
        raise UserError(f"{path}: only .safetensors files are written; PyTorch reads them with "
                        "safetensors.torch.load_file")
    layers = whole_layers(model)
    recipe = saved.recipe
    preprocessing = {
        "size": "shorter side to 256, the central 256 x 256", "channels": "R, G, B, 0 ... 255",
        "subtract": "mean_image, cropped as the picture is", "multiply_by": recipe["pixel_scale"],
        "crop": recipe["crop"]}
    save_safetensors(path, layers | {"mean_image": mean.transpose(2, 0, 1)}, {
        name: json.dumps(value) for name, value in (
            ("recipe", recipe), ("classes", saved.classes), ("preprocessing", preprocessing))})
    return layers


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


def copy_weights(path, model, classes, recipe):
    """Start from another net where it has layers of the same sizes: lines that say which.

    path: a checkpoint or a .safetensors file. classes: the names that the model answers with;
    fc8 is copied only from a net with the same. (Paper, section 6: nets with an asterisk were
    trained on more classes before.) recipe: of the model; where the other net computed otherwise
    what its weights were learned for, the lines say so. Raises UserError if nothing fits.
    """
    if Path(path).suffix == ".safetensors":
        layers, about = load_safetensors(path)
        found = split_layers(layers, model)
        about = {name: _from_json(path, name, about.get(name, "null"))
                 for name in ("classes", "recipe")}
    else:
        file = Checkpoint(path)                        # of a run, or of a net's save()
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
        first = found[name].astype(np.float32, copy=False)
        if not np.isfinite(first).all():
            raise UserError(f"{shown(path)}: {name} has numbers that are too large for float32")
        w = parameters[name]
        w.data = w.device.put(first if w.part is None else first[..., w.part])
    own = json.loads(json.dumps(asdict(recipe)))       # tuples become lists
    return [f"first weights from {shown(path)}:"] + [
        f"  {layer:6} {'copied' if layer in copied else 'drawn anew'}" for layer in layers] + [
        f"  but they were learned with {name} {before[name]}, not {own[name]}: is that meant?"
        for name in COMPUTED if before.get(name, own[name]) != own[name]]


def _from_json(path, name, text):
    """What a .safetensors file tells by this name, or None."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{shown(path)}: its {name} is no JSON ({error})") from error


def split_layers(layers, model):
    """The other way round: what of `layers` fits into the net, as our name -> array."""
    parts = _parts(model)
    maps = _last_maps(parts)
    found = {}
    for name, towers in parts.items():
        halves = [_theirs(name, np.zeros(w.whole_shape), maps).shape for _, w in towers]
        whole = (sum(outputs for outputs, *_ in halves), *halves[0][1:])
        if name in layers and layers[name].shape == whole:
            for (own, _), half in zip(towers, np.split(layers[name], len(towers)), strict=True):
                found[own] = np.ascontiguousarray(_ours(name, half, maps))
    return found


def _parts(model):
    """PyTorch's name -> [(our name, parameter), ...], one for each tower, top first."""
    parts = {}
    for own, parameter in model.parameters():
        name = layer_of(own) + (".weight" if own.endswith("W") else ".bias")
        parts.setdefault(name, []).append((own, parameter))
    return parts


def _last_maps(parts):
    """How many maps fc6 sees: the kernels of the last convolution in all towers."""
    last = "conv6.bias" if "conv6.bias" in parts else "conv5.bias"
    return sum(parameter.data.size for _, parameter in parts[last])


def _theirs(name, array, maps):
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if name == "fc6.weight":                 # inputs by row, column, map -> map, row, column
        side = math.isqrt(len(array) // maps)
        places = array.reshape(side, side, maps, -1)
        return places.transpose(3, 2, 0, 1).reshape(-1, len(array))
    return array.T


def _ours(name, array, maps):
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if name == "fc6.weight":
        side = math.isqrt(array.shape[1] // maps)
        places = array.reshape(-1, maps, side, side)
        return places.transpose(2, 3, 1, 0).reshape(array.shape[1], -1)
    return array.T


# --- the format -------------------------------------------------------------------------


def save_safetensors(path, arrays, metadata):
    """Write arrays (name -> NumPy array), as float32, and metadata (str -> str)."""
    header, at = {"__metadata__": metadata}, 0
    for name, array in arrays.items():
        header[name] = dict(dtype="F32", shape=array.shape,
                            data_offsets=[at, at + 4 * array.size])
        at += 4 * array.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array, "<f4"))


def load_safetensors(path):
    """Arrays (name -> NumPy array, each in the memory of the file) and metadata, as written.
    Raises UserError for a missing or damaged file, and for numbers that are no finite floats."""
    try:
        raw = Path(path).read_bytes()
        size = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8:8 + min(size, MOST_HEADER)], object_pairs_hook=_each_once)
        schema.check(header, {"__metadata__": (None, {str: str})}, "its header")
        about = header.pop("__metadata__", {})
        schema.check(header, {str: ENTRY}, "its header")
        return dict(_arrays(header, memoryview(raw)[8 + size:])), about
    except OSError as error:
        raise UserError(f"cannot read {os_error(error)}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no .safetensors file, or it is damaged ({error})") from error


MOST_HEADER = 1 << 24                  # bytes
ENTRY = {"dtype": tuple(DTYPES), "shape": [COUNT], "data_offsets": [COUNT]}


def _each_once(pairs):
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError("a name occurs twice")
    return names


def _arrays(header, raw):
    """Name and array of every entry. They fill the file, one behind the other."""
    at = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = entry["data_offsets"]
        dtype = np.dtype(DTYPES[entry["dtype"]])
        if start != at or end - start != math.prod(entry["shape"]) * dtype.itemsize:
            raise ValueError(f"{name} does not lie where its shape says")
        array = np.frombuffer(raw[start:end], dtype.newbyteorder("<")).reshape(entry["shape"])
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds numbers that are not finite")
        yield name, array
        at = end
    if at != len(raw):
        raise ValueError("it ends too early or too late")
