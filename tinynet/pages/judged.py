"""How did a run go, and what does its best net say of pictures it has not seen?"""
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..device import to_host
from ..errors import UserError
from ..ops import log_softmax
from ..pictures.batches import Loader
from ..progress import shown
from ..schema import misfit
from ..training import evaluation
from ..training.log import ROW, Log
from ..training.saved import Saved
from .activations import evenly, held_out, name_of, watching

NEAREST = 4                                # neighbours of a picture
SHRUNK = 8                                 # pixels in a row that are one when pixels are compared


@dataclass
class Judged:
    """A run and its net, and what this says of N pictures of the validation set.

    kernels: those of conv1 of each tower. logs: (N, classes) logarithms of probabilities;
    labels, indices: (N,); codes: (N, neurons) what fc7 puts out; pixels: (N, numbers) the crops,
    shrunk. rows: what log.jsonl tells.
    """
    name: str
    saved: Saved
    rows: list
    kernels: list
    pictures: object
    logs: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    codes: np.ndarray
    pixels: np.ndarray
    by_code: np.ndarray = None             # (N, NEAREST) places in the arrays above
    by_pixels: np.ndarray = None

    def __post_init__(self):
        self.by_code, self.by_pixels = nearest(self.codes), nearest(self.pixels)
        self.said = evaluation.answered(self.logs, self.labels)
        self.result = evaluation.result(self.logs, self.labels)

    def confusion(self):
        """(classes, classes): how many pictures of each class were called what."""
        return evaluation.confusion(self.labels, self.said, len(self.saved.classes))

    def errors(self):
        """The share of the pictures of each class that was wrong; NaN if there are none."""
        table = self.confusion()
        with np.errstate(invalid="ignore"):
            return 1 - table.diagonal() / table.sum(axis=1)

    def same_class(self, near):
        """For how many pictures, as a share, the first neighbour is of their class."""
        return float((self.labels[near[:, 0]] == self.labels).mean())

    def chance(self):
        """The same for a neighbour that somebody drew by lot."""
        counts, others = np.bincount(self.labels), len(self.labels) - 1
        return float((counts * (counts - 1)).sum() / (len(self.labels) * others))

    def five_best(self, place):
        """[(name, probability, whether it is right), ...] of what the net says of a picture."""
        order = np.argsort(-self.logs[place], kind="stable")[:5]
        return [(name_of(self.saved, label), float(np.exp(self.logs[place, label])),
                 label == self.labels[place]) for label in order]

    def first_of_each_class(self, order, most):
        """The first places of an order, but one of each class only."""
        _, first = np.unique(self.labels[order], return_index=True)
        return order[np.sort(first)][:most]

    def surest(self, most):
        """Places of the surest hits and of the worst mistakes, where the true class is least
        probable."""
        own = self.logs[np.arange(len(self.labels)), self.labels]
        order = np.argsort(-own, kind="stable")
        right = self.said[order] == self.labels[order]
        return (self.first_of_each_class(order[right], most),
                self.first_of_each_class(order[~right][::-1], most))


def judge(path, name, args, load):
    """Look at a run: its folder, or a checkpoint in it. args: of `alexnet.py report`. load:
    alexnet.py's."""
    path = Path(path)
    if path.is_dir():
        path = path / "best.npz"
        if not path.is_file():
            raise UserError(f"{shown(path)} is not there: the run has had no validation yet; give "
                            "one of its checkpoints, such as last.npz")
    saved = Saved.of_alexnet(path)
    pictures = evenly(held_out(saved, args.data), args.pictures)
    model, prepare = load(saved, args.device)
    logs, labels, indices, codes, pixels = [], [], [], [], []
    loader = Loader(pictures, prepare, 32, args.workers, model.devices)
    for batch, logits, found in watching(model, loader, ["fc7"]):
        logs.append(log_softmax(logits))
        labels.append(batch.labels)
        indices.append(batch.indices)
        codes.append(np.concatenate(found["fc7"], axis=1))
        pixels.append(shrunk(to_host(batch.images)))
    # A net that was imported into a run's folder has not learned what the log tells of.
    rows = saved.progress.step and Log(path.with_name("log.jsonl")).rows() or [
        row for row in saved.history if misfit(row, ROW, "row") is None]
    kernels = [tower.conv1[0].W.numpy() for tower in model.towers]
    return Judged(name, saved, rows, kernels, pictures,
                  *map(np.concatenate, (logs, labels, indices, codes, pixels)))


def shrunk(crops):
    """(N, H, W, 3) -> (N, numbers): means of SHRUNK x SHRUNK pixels."""
    N, H, W, _ = crops.shape
    rows, columns = H // SHRUNK, W // SHRUNK
    crops = crops[:, :rows * SHRUNK, :columns * SHRUNK]
    return crops.reshape(N, rows, SHRUNK, columns, SHRUNK, 3).mean(axis=(2, 4)).reshape(N, -1)


def nearest(codes):
    """The nearest others by the sum of squared differences: (N, numbers) -> (N, NEAREST)

    Raises UserError if there are no others.
    """
    if len(codes) < 2:
        raise UserError("a report compares pictures, and there is one: a set of more is needed")
    squares, count = np.square(codes).sum(axis=1), min(NEAREST, len(codes) - 1)
    found = []
    for first in range(0, len(codes), 256):
        some = slice(first, first + 256)
        far = squares[some, None] + squares - 2 * (codes[some] @ codes.T)
        far[np.arange(len(far)), np.arange(first, first + len(far))] = np.inf
        found.append(np.argsort(far, axis=1, kind="stable")[:, :count])
    return np.concatenate(found)
