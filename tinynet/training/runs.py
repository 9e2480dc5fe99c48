"""Where does a training run stand, and what does it leave in its folder?

last.npz     everything that is needed to go on
best.npz     the same, after the validation with the lowest top-1 error
log.jsonl    every report and validation, one JSON object a line
kernels.png  the kernels of the first layer, drawn at the end
"""
import itertools
import json
import math
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from .. import store
from ..errors import UserError
from ..progress import in_words, say, shown
from .figures import kernel_sheet
from .schedules import Plateau


class Run:
    """The moving parts of a training run: what is saved, restored, reported and logged.

    recipe, statistics, classes with their words (class -> what it is), seed and data (the
    folder of pictures) go into every checkpoint as they are.
    """

    def __init__(self, folder, model, optimizer, plateau, *, recipe, statistics, classes,
                 words, seed, data):
        folder.mkdir(parents=True, exist_ok=True)
        self.last, self.best = folder / "last.npz", folder / "best.npz"
        self.log_file, self.kernels = folder / "log.jsonl", folder / "kernels.png"
        self.model, self.optimizer, self.plateau = model, optimizer, plateau
        self.statistics = statistics
        self.settings = dict(recipe=asdict(recipe), classes=classes, words=words, seed=seed,
                             data=str(Path(data).resolve()))
        self.history = []                  # of every validation, what was logged of it
        self.epoch = self.step = 0
        self.position = 0                  # how many pictures of this epoch are behind us
        self.lowest_error = math.inf       # top-1, of all validations
        self.improved = False              # the last validation is the best so far
        self.result = None                 # of the last validation

    def restore(self, saved, lr=None):
        """Go on from a Checkpoint; `lr`, if given, replaces its learning rate."""
        saved.load_training(self.model, self.optimizer)
        at = saved.meta["progress"]
        self.epoch, self.step, self.position = at["epoch"], at["step"], at["position"]
        if self.best.exists():             # else this is a new folder, with a best of its own
            self.lowest_error = at["lowest_error"]
        vars(self.plateau).update(at["plateau"])
        self.history = saved.meta.get("history", [])
        self.optimizer.lr = at["lr"] if lr is None else lr
        say(f"resumed {shown(saved.path)}: epoch {self.epoch + 1}, step {self.step}, "
            + (f"rate {at['lr']:g}" if lr is None else f"--lr {lr:g} wins over {at['lr']:g}"))

    def save(self):
        """Write last.npz, and best.npz if the last validation was the best.

        Weights that are not finite are not saved: the last good checkpoint stays.
        """
        arrays = {f"statistics/{name}": array for name, array in vars(self.statistics).items()}
        arrays |= store.training_arrays(self.model, self.optimizer)
        if not all(np.isfinite(array.sum()) for array in arrays.values()):
            raise self._diverged("some weights are no finite numbers")
        progress = dict(epoch=self.epoch, step=self.step, position=self.position,
                        lowest_error=self.lowest_error, lr=self.optimizer.lr,
                        plateau={name: getattr(self.plateau, name) for name in Plateau.STATE})
        with self._writing(self.last):
            about = dict(self.settings, progress=progress, history=self.history)
            store.save(self.last, arrays, about)
            if self.improved:
                store.copy(self.last, self.best)
        self.improved = False

    def draw_kernels(self):
        """Write kernels.png: what the first layer has learned."""
        sheet = kernel_sheet(*[tower.conv1[0].W.numpy() for tower in self.model.towers])
        with self._writing(self.kernels):
            sheet.save(self.kernels)

    def report(self, meter):
        """Say and log what the meter saw since the last report, and reset it.

        Returns the mean loss since then, None if there were no pictures.
        """
        if not meter.pictures:
            return None
        seen = meter.read()
        meter.reset()
        if not math.isfinite(seen["loss"]):
            raise self._diverged(f"the loss is {seen['loss']}")
        say(f"epoch {self.epoch + 1}  step {self.step}  {in_words(seen)}  "
            f"{seen['images_per_s']:.1f} images/s  rate {self.optimizer.lr:.2g}  "
            f"waited {seen['waited']:.0%}")
        self._log("train", lr=self.optimizer.lr, **seen)
        return seen["loss"]

    def validated(self, result):
        """Say and log a validation; remember whether it was the best."""
        if not math.isfinite(result["loss"]):
            raise self._diverged(f"the loss of the validation is {result['loss']}")
        self.result = result
        self.improved = result["top1_error"] < self.lowest_error
        self.lowest_error = min(self.lowest_error, result["top1_error"])
        say(f"epoch {self.epoch + 1}  step {self.step}  validation: {in_words(result)}"
            f"{'  (best so far)' if self.improved else ''}")
        self.history.append(self._log("validation", lr=self.optimizer.lr, **result))

    def _log(self, kind, **values):
        line = dict(kind=kind, epoch=self.epoch + 1, step=self.step, **values)
        with self._writing(self.log_file), open(self.log_file, "a") as file:
            file.write(json.dumps(line) + "\n")
        return line

    @contextmanager
    def _writing(self, path):
        """A full disk or a missing right, said in the reader's terms."""
        try:
            yield
        except OSError as error:
            raise UserError(f"cannot write {shown(path)}: {error.strerror or error}; when that "
                            f"is mended: {self._kept()}") from error

    def _diverged(self, why):
        return UserError(f"step {self.step}: {why}: training has diverged; {self._kept()} "
                         "with a smaller --lr")

    def _kept(self):
        return (f"the last good checkpoint is {shown(self.last)}; go on from it"
                if self.last.exists() else "nothing was saved yet; start again")


def output_folder(wanted, saved, name):
    """Where a run goes: `wanted`, or where its checkpoint is, or runs/<name>, runs/<name>-2
    and so on, whichever is free.

    Raises UserError for a folder whose last.npz is not the one that is resumed: training
    would overwrite it.
    """
    if not wanted and not saved:
        for number in itertools.count(1):
            folder = Path("runs", f"{name}-{number}" if number > 1 else name)
            try:
                folder.mkdir(parents=True)         # taken at once, from other runs as well
                return folder
            except FileExistsError:
                pass
    folder = Path(wanted) if wanted else saved.path.parent
    last = folder / "last.npz"
    if last.exists() and not (saved and last.samefile(saved.path)):
        raise UserError(f"{shown(last)} is there already and would be overwritten: go on "
                        f"with --resume {shown(last)}, or choose another --output-dir")
    return folder
