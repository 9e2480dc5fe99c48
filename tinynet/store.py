"""How is a net saved so that nothing is lost?

One .npz file: arrays by name, and everything else as JSON in the entry "meta". It is written
aside, synced to disk and renamed, so the file under the final name is always a whole one.
Reading needs no pickle.
"""
import json
import os
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .errors import UserError

FORMAT = "tinynet 1"


def save(path, arrays, meta):
    """Write arrays (name -> NumPy array) and meta (what JSON can hold) to an .npz file.

    Raises OSError (a full disk, a missing right); the previous file is then untouched.
    """
    entries = {"meta": np.array(json.dumps({"format": FORMAT, **meta})), **arrays}
    with replacing(path) as file:
        _write(file, entries)


def _write(file, entries):
    # A function of its own, so that the ZipFile ends before the file is renamed: Python drops a
    # Ctrl-C that comes while a finalizer runs, and whoever waits for the name sends it just then.
    with zipfile.ZipFile(file, "w") as npz:
        for name, array in entries.items():
            with npz.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)


@contextmanager
def replacing(path):
    """A file to write to that takes the place of `path` when it is complete."""
    aside = aside_of(path)
    try:
        with open(aside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def aside_of(path):
    """Where a file is written before it takes the place of `path`."""
    return Path(path).with_name(Path(path).name + ".part")


class Checkpoint:
    """A saved net: `meta`, the names of its arrays, and the arrays when asked for.

    path: an .npz file, or a folder with last.npz in it. what: how errors call the file. Raises
    UserError, here or later, if it is missing, truncated, damaged or not tinynet's.
    """

    def __init__(self, path, what="checkpoint"):
        self.path, self.what = Path(path), what
        self.content = "net" if what == "checkpoint" else what
        if self.path.is_dir():
            self.path = self.path / "last.npz"
        if not self.path.is_file():
            raise UserError(f"{self.path}: there is no such {what}")
        with self._opened() as npz:
            self.names = getattr(npz, "files", [])
            meta = json.loads(str(npz["meta"])) if "meta" in self.names else None
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            raise UserError(f"{self.path} is no {what} of tinynet, or of another version "
                            f"than {FORMAT!r}")
        self.meta = meta

    def arrays(self, prefix, shapes=None):
        """The arrays called prefix + name, for a dict name -> shape (default: all that there
        are): a dict of arrays.

        A shape of None fits any. Raises UserError if names or shapes are not the file's.
        """
        saved = dict.fromkeys(name.removeprefix(prefix) for name in self.names
                              if name.startswith(prefix))
        shapes = saved if shapes is None else shapes
        if saved.keys() != shapes.keys():
            different = ", ".join(sorted(saved.keys() ^ shapes.keys())[:4])
            raise UserError(f"{self.path} holds another {self.content}: {different} on one side "
                            "only")
        with self._opened() as npz:
            arrays = {name: npz[prefix + name] for name in shapes}
        for name, shape in shapes.items():
            if shape not in (None, arrays[name].shape):
                raise UserError(f"{self.path} holds another {self.content}: {name} is "
                                f"{arrays[name].shape} there and {shape} here")
        return arrays

    def load_weights(self, model):
        """Put the saved weights into a model's parameters, each on its device."""
        weights = dict(model.parameters())
        shapes = {name: w.shape for name, w in weights.items()}
        for name, array in self.arrays("weights/", shapes).items():
            weights[name].data = weights[name].device.put(array)

    @contextmanager
    def _opened(self):
        """The file as NumPy reads it. The many ways in which a damaged file can fail become
        one clear error."""
        if not zipfile.is_zipfile(self.path):          # NumPy would advise to trust its pickles
            raise UserError(f"{self.path} is truncated, damaged or no {self.what}: it is no .npz "
                            "file")
        try:
            with open(self.path, "rb") as file:
                yield np.load(file, allow_pickle=False)
        except UserError:
            raise
        except (OSError, EOFError, KeyError, ValueError, RuntimeError, NotImplementedError,
                zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{self.path} is truncated, damaged or no {self.what} "
                            f"({error})") from error
