"""What does a checkpoint hold, and where do checkpoints lie?"""
import itertools
import json
import math
import os
import re
import tempfile
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from shlex import quote

import numpy as np

from .. import schema, store
from ..errors import UserError
from ..progress import say, shown, warn
from ..ranks import ALONE
from ..schema import COUNT
from . import recipes
from .claim import Claim

FOREIGN = ".pth", ".pt", ".onnx", ".safetensors", ".caffemodel", ".npy"     # what import reads


@dataclass
class Progress:
    """Where a run stands."""
    epoch: int = 0                         # how many epochs are behind us
    position: int = 0                      # how many pictures of this epoch are behind us
    step: int = 0                          # how many batches in all
    seconds: float = 0.0                   # of training, without validations
    lowest_error: float = math.inf         # top-1, of all validations
    lr: float = 0.0                        # the rate that was reached
    plateau: dict = field(default_factory=dict)    # schedules.Plateau.STATE by name
    logged: int = None                     # bytes of log.jsonl that tell of it


@dataclass
class Saved:
    """The schema of a checkpoint: what stands in its entry "meta", as JSON, beside "format".

    Its arrays are weights/<name> and velocity/<name> for every parameter, and those that a
    program adds (alexnet.py: statistics/mean, variances, components of the pictures).
    """
    progress: Progress = field(default_factory=Progress)
    history: list = field(default_factory=list)    # what was logged, a dict for every row
    settings: dict = None                  # what the run of an example is a function of
    recipe: dict = None                    # the fields of a recipes.Recipe
    seed: int = 0
    classes: list = None                   # names of the classes, in the order of their labels
    words: dict = field(default_factory=dict)      # class -> what it is, where that is known
    data: str = None                       # the folder of pictures, as an absolute path
    unreported: list = None                # pictures, and their summed loss and errors

    @classmethod
    def read(cls, path):
        """The checkpoint at a path, a file or a folder with last.npz in it.

        `file` of what is returned is the store.Checkpoint that holds the arrays. Raises
        UserError if there is none, or if it is no checkpoint of a net.
        """
        file = opened(path)
        meta, where = file.meta, shown(file.path)
        if "state" in meta:
            schema.check(meta, FORM_BEFORE_0_2, where)
            meta = _example_before_0_2(meta)
        if "progress" not in meta:
            raise UserError(f"{where} holds arrays, but no net that was trained")
        schema.check(meta, FORM, where)
        saved = _only_fields(cls, meta)
        saved.progress = _only_fields(Progress, meta["progress"])
        saved.file, saved.path = file, file.path
        return saved

    def pictures(self, option):
        """The folder of its pictures. Raises UserError, which says what to give, if it is gone."""
        if not self.data:
            raise UserError(f"{shown(self.path)} was imported, and has no pictures of its own: "
                            f"give {option}")
        if not Path(self.data).is_dir():
            raise UserError(f"{shown(self.path)}: its pictures are not in {self.data}, which is "
                            f"gone: give {option}")
        return self.data

    @classmethod
    def of_alexnet(cls, path):
        """The same of a net that alexnet.py trained. Raises UserError if it is another net."""
        saved = cls.read(path)
        if saved.recipe is None:
            raise UserError(f"{shown(saved.path)} holds a net of an example, not AlexNet")
        recipe = recipes.from_dict(saved.recipe, shown(saved.path))
        saved.recipe = json.loads(json.dumps(asdict(recipe)))          # with fields that are new
        schema.check(vars(saved), {"classes": [str], "data": str}, shown(saved.path))
        if not saved.classes or len(set(saved.classes)) < len(saved.classes):
            raise UserError(f"{shown(saved.path)}: classes has no names, or one twice")
        return saved

    def __getstate__(self):                # what other processes get: no open file
        return {name: value for name, value in vars(self).items() if name != "file"}

    def load_weights(self, model, ranks=ALONE):
        """Put the saved weights into a model. Raises UserError for what it cannot reckon with."""
        for w, array in self.arrays_of("weights/", model.parameters(), ranks):
            w.data = w.device.put(array)
        for name, w in model.parameters():
            if w.data.dtype != np.float32:             # not every op takes several widths
                raise UserError(f"{shown(self.path)}: {name} is of {w.data.dtype}, not float32")

    def arrays_of(self, prefix, parameters, ranks=ALONE):
        """(Parameter, its own part of what is saved) for (name, Parameter) pairs. Rank 0 reads."""
        shapes = {name: w.whole_shape for name, w in parameters}
        arrays = ranks.share(lambda: self.file.arrays(prefix, shapes))
        return [(w, arrays[name] if w.part is None else arrays[name][..., w.part])
                for name, w in parameters]

    def settings_of_run(self):
        """What stays the same from the first step to the last, for the log."""
        return {name: value for name, value in asdict(self).items()
                if name not in ("progress", "history", "unreported")}


PLATEAU = dict(best=(math.inf, float), bad=COUNT, drops=COUNT)
STATE = dict(epoch=COUNT, position=COUNT, step=COUNT)
FORM = {
    "progress": dict(STATE, seconds=(None, float), lowest_error=(None, math.inf, float),
                     lr=(None, float), plateau=(None, dict.fromkeys(PLATEAU), PLATEAU),
                     logged=(None, COUNT)),
    "history": (None, [{"kind": str, "epochs": float, "top1_error": float}]),
    "settings": (None, {str: object}),
    "recipe": (None, {str: object}),           # recipes.from_dict looks closer
    "seed": (None, range(2 ** 56)),
    "classes": (None, [str]),
    "words": (None, {str: str}),
    "data": (None, str),
    "unreported": (None, [(COUNT, [float])]),
}
FORM_BEFORE_0_2 = {
    "settings": {str: object},
    "state": dict(STATE, seconds=float, curve=[{
        "epoch": float, "seconds": float, "loss": float, "error": float,
        "test_loss": (None, float), "test_error": (None, float)}]),
    "since_point": (None, [(COUNT, [float])]),
}


def _only_fields(cls, values):
    """An object of a dataclass; its defaults stand for what is missing."""
    return cls(**{one.name: values[one.name] for one in fields(cls)
                  if values.get(one.name) is not None})


def _example_before_0_2(meta):
    """Version 0.1 had another schema for its examples: the same in today's."""
    state = meta["state"]
    rows = []
    for point in state["curve"]:
        of = dict(epochs=point["epoch"], seconds=point["seconds"])
        rows.append(dict(of, kind="train", loss=point["loss"], top1_error=point["error"]))
        if "test_error" in point:
            rows.append(dict(of, kind="validation", loss=point["test_loss"],
                             top1_error=point["test_error"]))
    return dict(settings=meta["settings"], history=rows, unreported=meta["since_point"] or None,
                progress={name: state[name] for name in ("epoch", "position", "step", "seconds")})


# --- where they lie -----------------------------------------------------------------------


def checkpoint_in(folder):
    """last.npz in a folder; best.npz where a kill has left that alone; or None."""
    paths = [Path(folder, name) for name in ("last.npz", "best.npz")]
    return next((path for path in paths if path.exists()), None)


def lowest_error(saved, best):
    """The lowest top-1 error that a run has reached which goes on from a Saved: that of the net
    in best.npz (`best`, a path); or of the Saved itself, which becomes best.npz if it is better.
    In a new folder without either the next validation will be the lowest."""
    other, lowest = None, math.inf
    try:
        other = best.exists() and Saved.read(best)
    except UserError as error:
        warn(f"{error}; the best validation from here on replaces it")
    if other and (other.seed, other.classes) != (saved.seed, saved.classes):
        paths = (best.with_name(f"{name}.npz") for name in _numbered("best.old"))
        aside = next(path for path in paths if not path.exists())
        os.replace(best, aside)
        warn(f"{shown(best)} is of another run: it is called {aside.name} now")
    elif other:
        lowest = other.progress.lowest_error
    row = saved.history[-1] if saved.history else {}
    here = row.get("step") == saved.progress.step and row["kind"] == "validation"
    error = max(row["top1_error"], saved.progress.lowest_error) if here else lowest
    if error < lowest:                     # what the row says may be of the readable ones alone
        store.second_name(saved.path, best)
    return min(error, lowest)


def is_one(path):
    """Whether there is a checkpoint at `path`, or what looks like one that is missing."""
    path = Path(path)
    return bool(checkpoint_in(path)) if path.is_dir() else path.suffix == ".npz"


def place_of_run(wanted, resume, name):
    """Where a run goes and what it goes on from: a claim.Claim, and a Saved or None.

    wanted: --output-dir, or None for a folder in runs/ that is called by `name`. resume: a
    checkpoint, its folder, None, or "auto": whatever is in the folder, or in the newest of this
    name, if there is something. Raises UserError for a folder that another process has, or whose
    checkpoint is not the one that is resumed: training would overwrite it.
    """
    if resume == "auto":
        folder = wanted or _latest(name)
        if not folder:
            say(f"--resume auto: no run called {name} is in runs, so this is the first")
            return _new(name), None
        claim = Claim(folder)
        path = checkpoint_in(folder)
        return claim, Saved.of_alexnet(path) if path else None
    path = resume and Path(os.path.realpath(resume))
    if path and path.is_dir():
        path = checkpoint_in(path) or path
    if path:
        Saved.of_alexnet(path)         # what cannot be resumed claims nothing; read again below,
                                       # when nobody else can write
    claim = Claim(wanted or path.parent) if wanted or path else _new(name)
    saved = Saved.of_alexnet(path) if path else None
    there = checkpoint_in(claim.folder)
    if there and not (saved and there.samefile(saved.path)):
        raise UserError(f"{shown(there)} is there already and would be overwritten: go on "
                        f"with --resume {quote(shown(there))}, choose another --output-dir, or "
                        f"rename {there.name}")
    return claim, saved


def output_file(path, endings, *inputs):
    """Raise UserError or OSError for a file that cannot be written or must not be: one of the
    inputs, any file of tinynet, or one with none of the endings (one, or a list) would be lost.
    What is no file, such as /dev/null, may be written."""
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        return
    if path.is_dir() or path.is_symlink():
        raise UserError(f"{shown(path)} is a {'folder' if path.is_dir() else 'link'}: give the "
                        "name of a file")
    endings = [endings] if isinstance(endings, str) else endings
    if path.suffix not in endings:
        raise UserError(f"{shown(path)}: what is written is a {' or '.join(endings)} file: give "
                        "it that ending")
    if path.exists() and any(path.samefile(other) for other in inputs):
        raise UserError(f"{shown(path)} is read here and would be overwritten: give another name")
    if _is_ours(path):
        raise UserError(f"{shown(path)} is a checkpoint and would be overwritten: give another "
                        "name")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        error.filename = path              # not a name that nobody has typed
        raise


def opened(path):
    """The store.Checkpoint in a file or a folder. Raises UserError, which tells of import if
    another program's weights are given in its place."""
    path = checkpoint_in(path) or path
    try:
        return store.Checkpoint(path)
    except UserError as error:
        if Path(path).suffix in FOREIGN and Path(path).is_file():
            raise UserError(f"{shown(path)} is no checkpoint but weights for other programs; make "
                            f"one of it: alexnet.py import {quote(str(path))} NAME.npz") from error
        raise


def _is_ours(path):
    try:
        return bool(store.Checkpoint(path))
    except UserError:
        return False


def _numbered(name):
    """name, name-2, name-3 and so on."""
    return (f"{name}-{number}" if number > 1 else name for number in itertools.count(1))


def _new(name):
    """Whichever of runs/<name>, runs/<name>-2 and so on nobody has and nothing is in: a Claim."""
    for folder in (Path("runs", one) for one in _numbered(name)):
        try:
            claim = Claim(folder)
        except UserError:
            continue
        if {path.name for path in folder.iterdir()} <= {claim.path.name}:
            return claim
        claim.close()


def _latest(name):
    """Of runs/<name>, runs/<name>-2 and so on, the one with the newest checkpoint; or None."""
    found = [path for folder in Path("runs").glob(f"{name}*")
             if re.fullmatch(rf"{name}(-\d+)?", folder.name)
             for path in [checkpoint_in(folder)] if path]
    return max(found, key=lambda path: path.stat().st_mtime).parent if found else None
