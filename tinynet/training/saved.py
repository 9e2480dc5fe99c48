"""What does a checkpoint hold, and where do checkpoints lie?"""
import itertools
import math
import os
import shutil
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from .. import store
from ..errors import UserError
from ..progress import shown


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


@dataclass
class Saved:
    """The schema of a checkpoint: what stands in its entry "meta", as JSON, beside "format".

    Its arrays are weights/<name> and velocity/<name> for every parameter, and those that a
    program adds (alexnet.py: statistics/mean, variances, components of the pictures).
    """
    progress: Progress = field(default_factory=Progress)
    history: list = field(default_factory=list)    # of every validation, what was logged of it
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
        file = store.Checkpoint(path)
        meta = _example_before_0_2(file.meta) if "state" in file.meta else file.meta
        if not isinstance(meta.get("progress"), dict):
            raise UserError(f"{shown(file.path)} holds arrays, but no net that was trained")
        known = {one.name for one in fields(cls)} & meta.keys()
        saved = cls(**{name: meta[name] for name in known})
        saved.progress = Progress(**saved.progress)
        saved.file, saved.path = file, file.path
        return saved

    def settings_of_run(self):
        """What stays the same from the first step to the last, for the log."""
        return {name: value for name, value in asdict(self).items()
                if name not in ("progress", "history", "unreported")}


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


def new_folder(name):
    """runs/<name>, runs/<name>-2 and so on, whichever is free; it is made."""
    for number in itertools.count(1):
        folder = Path("runs", f"{name}-{number}" if number > 1 else name)
        try:
            folder.mkdir(parents=True)             # taken at once, from other runs as well
            return folder
        except FileExistsError:
            pass


def latest_folder(name):
    """Of runs/<name>, runs/<name>-2 and so on, the one whose last.npz is the newest; or None."""
    runs = [path for path in Path("runs").glob(f"{name}*/last.npz")
            if path.parent.name.removeprefix(name).removeprefix("-").isdigit()
            or path.parent.name == name]
    return max(runs, key=lambda path: path.stat().st_mtime).parent if runs else None


def folder_of_run(wanted, saved, name):
    """Where a run goes: `wanted`, or where the Saved is that it goes on from, or a new folder.

    Raises UserError for a folder whose last.npz is not the one that is resumed: training would
    overwrite it.
    """
    if not wanted and not saved:
        return new_folder(name)
    folder = Path(wanted or saved.path.parent)
    last = folder / "last.npz"
    if last.exists() and not (saved and last.samefile(saved.path)):
        raise UserError(f"{shown(last)} is there already and would be overwritten: go on "
                        f"with --resume {shown(last)}, or choose another --output-dir")
    return folder


def is_one(path):
    """Whether there is a checkpoint at `path`, or what looks like one that is missing."""
    path = Path(path)
    return (path / "last.npz").is_file() if path.is_dir() else path.suffix == ".npz"


def second_name(source, target):
    """Give a checkpoint a second name. The two never change each other."""
    aside = store.aside_of(target)
    try:
        try:
            os.link(source, aside)         # free, and safe: files are replaced, not changed
        except OSError:
            shutil.copyfile(source, aside)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
