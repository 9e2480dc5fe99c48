"""What does every layer make of a picture, and which pictures does each map like best?"""
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..conv import both_sides
from ..errors import UserError
from ..layers import Conv2D, MaxPool, watched
from ..pictures import packed
from ..pictures.dataset import DataSet, Some
from ..progress import shown
from ..training import recipes
from ..training.cuda_convnet import SameMapLRN
from ..training.evaluation import answers

BEST = 3                                   # pictures of each map


def evenly(whole, most):
    """At most so many pictures of a data set, as far from each other as they can be: Some."""
    count = min(most, len(whole))
    return Some(whole, ((np.arange(count) + 0.5) * len(whole) / count).astype(int))


def held_out(saved, folder=None):
    """The pictures to test a net with, made 256 x 256 as its recipe has it, in another folder if
    it is given. Raises UserError."""
    if folder and not Path(folder).is_dir():
        raise UserError(f"{shown(folder)} is no folder: --data is one that holds val/<class>/*")
    pictures = packed.data_set(folder or saved.pictures("--data DIR"), "val", saved.classes)
    return pictures.fitted(recipe_of(saved).fit)


def recipe_of(saved):
    """The recipe a net was trained with: recipes.Recipe. Raises UserError."""
    return recipes.from_dict(saved.recipe, saved.path)


def name_of(saved, label):
    """What a class is, in few words."""
    name = saved.classes[label]
    return saved.words[name].partition(",")[0] if name in saved.words else name


class Chosen(DataSet):
    """Pictures (256, 256, 3) that were read already, with labels (-1: nobody knows) and names."""

    def __init__(self, pictures, labels, names, classes):
        self.pictures, self.labels, self.names = pictures, np.asarray(labels), names
        self.classes = classes

    def read(self, index):
        return self.pictures[index]

    def name(self, index):
        return self.names[index]


def rows_of(model):
    """{layer: [that layer of each tower]} from conv1 to fc8, which both towers end in."""
    found = {}
    for tower in model.towers:
        for name, layer in tower.layers():
            found.setdefault(name, []).append(layer)
    found.setdefault("fc8", [model.layers()[-1][1]])
    return found


def watching(model, loader, names):
    """Show a net the pictures of a loader: yields (batch, logits, {layer: [an array for each
    tower]}), arrays (N, ...) as the layers of these names put them out.

    Raises UserError if the net says what is no number.
    """
    rows, found = rows_of(model), {}
    layers = {(name, row): layer for name in names for row, layer in enumerate(rows[name])}
    # Of how many maps a tower's layer is; beyond the seam it may put out some of the other's.
    maps = {where: list(layer.parameters())[0][1].shape[-1] for where, layer in layers.items()}

    def keep(where, forward, x):
        y, own = forward(x), maps[where]
        found[where] = y.numpy()[..., -own:] if where[1] else y.numpy()[..., :own]
        return y

    # The last step, not the layer: split.side_by_side takes the steps of both towers in turn.
    last = {where: [layer, *(step for _, step in layer.layers())][-1]
            for where, layer in layers.items()}
    with watched(last, keep):
        for batch, logits in answers(model, loader, model.devices[0]):
            logits = logits.numpy()
            odd = ~np.isfinite(logits).all(axis=1)
            if odd.any():
                raise UserError("the net says NaN or infinity of "
                                f"{loader.pictures.name(batch.indices[odd][0])}: take another "
                                "checkpoint of this run, from before it diverged")
            yield batch, logits, {name: [found[name, row] for row in range(len(rows[name]))]
                                  for name in names}


# --- maps -------------------------------------------------------------------------------


class Field(NamedTuple):
    """Which pixels a place of a map depends on. start: the first one of place 0; jump: how much
    further the next place begins; size: how many they are on a side."""
    start: int
    jump: int
    size: int

    def square(self, place, width):
        """(left, top, size) of the place-th of a map that is `width` places wide."""
        row, column = divmod(int(place), width)
        return self.start + self.jump * column, self.start + self.jump * row, self.size


def fields(tower):
    """{convolution: Field of what leaves it}, after its pool if it has one."""
    start, jump, size, found = 0, 1, 1, {}
    for name, layer in tower.layers():
        for _, step in layer.layers() if name.startswith("conv") else ():
            if isinstance(step, Conv2D):
                start -= jump * both_sides(step.pad)[0]
            if isinstance(step, SameMapLRN):           # it sees as many on either side
                start -= jump * (step.size // 2)
            if isinstance(step, (Conv2D, MaxPool, SameMapLRN)):
                size, jump = size + (step.size - 1) * jump, jump * getattr(step, "stride", 1)
                found[name] = Field(start, jump, size)
    return found


def peaks(maps):
    """The largest number of every map and its place: maps (N, H, W, C) -> (N, C) twice."""
    flat = maps.reshape(len(maps), -1, maps.shape[-1])
    return flat.max(axis=1), flat.argmax(axis=1)


class Best(NamedTuple):
    """Of every map of a layer the pictures in which it is largest: (BEST, C) each."""
    values: np.ndarray
    indices: np.ndarray
    places: np.ndarray


def best_pictures(model, loader):
    """{convolution: [Best of each tower]} over the pictures of a loader."""
    names, best = list(fields(model.towers[0])), {}
    for batch, _, found in watching(model, loader, names):
        for name in names:
            for row, maps in enumerate(found[name]):
                values, places = peaks(maps)
                new = Best(values, np.broadcast_to(batch.indices[:, None], values.shape), places)
                if (name, row) in best:
                    new = Best(*map(np.concatenate, zip(best[name, row], new, strict=True)))
                order = np.argsort(-new.values, axis=0, kind="stable")[:BEST]
                best[name, row] = Best(*[np.take_along_axis(part, order, axis=0) for part in new])
    return {name: [best[name, row] for row in range(len(model.towers))] for name in names}


def patch(picture, square, offset, side):
    """What is under a square of the crop of a picture (256, 256, 3), as (side, side, 3) uint8.

    offset: where in the picture the crop begins. Beyond the edge of the picture it is grey.
    """
    left, top, size = square
    left, top = left + offset, top + offset
    whole = np.full((size, size, 3), 128, np.uint8)
    y, x = max(0, top), max(0, left)
    inside = picture[y:top + size, x:left + size]
    whole[y - top:y - top + inside.shape[0], x - left:x - left + inside.shape[1]] = inside
    return np.asarray(Image.fromarray(whole).resize((side, side), Image.Resampling.BOX))
