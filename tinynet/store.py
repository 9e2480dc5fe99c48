"""How is a net saved so that nothing is lost, and read so that nothing is taken on trust?

One .npz file: arrays by name, and everything else as JSON in the entry "meta". It is written
aside, synced to disk and renamed, so the file under the final name is always a whole one.
Reading needs no pickle, and no more memory than the file has bytes.
"""
import io
import json
import math
import os
import shutil
import weakref
import zipfile
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from .errors import UserError

FORMAT = "tinynet 1"
PARTS = "*." + 8 * "[0-9a-f]" + ".part"    # what replacing() and second_name() leave if killed


# --- writing ----------------------------------------------------------------------------


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
    """A file to write to that takes the place of `path` when it is complete.

    What is no file, such as /dev/null or a pipe, is written as it is.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        yield (content := io.BytesIO())    # a zip file is written with seeks, which a pipe lacks
        with _naming(path, None):
            path.write_bytes(content.getvalue())
        return
    with _aside(path) as aside, open(aside, "xb") as file:     # x: never through a planted link
        yield file
        file.flush()
        os.fsync(file.fileno())


def second_name(source, target):
    """Give a file a second name. The two never change each other."""
    try:
        with _aside(Path(target)) as aside:
            os.link(source, aside)         # free, and safe: files are replaced, not changed
    except OSError:                        # there are no links here
        with open(source, "rb") as whole, replacing(target) as file:
            shutil.copyfileobj(whole, file)


@contextmanager
def _aside(path):
    """A name beside `path` that nobody has. The file there takes the place of `path`."""
    aside = path.with_name(f"{path.name}.{os.urandom(4).hex()}.part")
    try:
        with _naming(path, aside):
            yield aside
            os.replace(aside, path)
        with suppress(OSError):            # else a power failure may undo the new name
            folder = os.open(path.parent, os.O_RDONLY)         # not on Windows
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        with suppress(OSError):
            aside.unlink()


@contextmanager
def _naming(path, aside):
    """An error names the file that was meant, where a write names none, and others `aside`."""
    try:
        yield
    except OSError as error:
        if error.filename in (None, str(aside), aside):
            error.filename = str(path)
        raise


# --- reading ----------------------------------------------------------------------------


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
        # Kept open: whoever replaces the file meanwhile does not change what is read.
        self.file = open(self.path, "rb")
        weakref.finalize(self, self.file.close)
        with self._opened() as npz:
            names = [name.removesuffix(".npy") for name in npz.namelist()]
            meta = json.loads(str(_array(npz, "meta", "U"))) if "meta" in names else None
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            raise UserError(f"{self.path} is no {what} of tinynet, or of another version "
                            f"than {FORMAT!r}")
        self.meta, self.names = meta, [name for name in names if name != "meta"]

    def arrays(self, prefix, shapes=None, kinds="f"):
        """The arrays called prefix + name, for a dict name -> shape (default: all that there
        are): a dict of arrays.

        A shape of None fits any. kinds: of numbers, f (floats, all of them finite), i, u. Raises
        UserError if names, shapes or numbers are not of this kind.
        """
        saved = dict.fromkeys(name.removeprefix(prefix) for name in self.names
                              if name.startswith(prefix))
        shapes = saved if shapes is None else shapes
        if saved.keys() != shapes.keys():
            different = ", ".join(sorted(saved.keys() ^ shapes.keys())[:4])
            raise UserError(f"{self.path} holds another {self.content}: {different} on one side "
                            "only")
        with self._opened() as npz:
            arrays = {name: _array(npz, prefix + name, kinds) for name in shapes}
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
        """The file as a zip archive of entries that take no more memory than the file has
        bytes. The many ways in which a damaged file can fail become one clear error."""
        try:
            with zipfile.ZipFile(self.file) as npz:
                entries, size = npz.infolist(), os.fstat(self.file.fileno()).st_size
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or (
                        sum(entry.file_size for entry in entries) > size
                        or len(set(npz.namelist())) < len(entries)):
                    raise ValueError("it is compressed, or has a name twice: none of tinynet's is")
                yield npz
        except (UserError, MemoryError):
            raise
        except Exception as error:         # zipfile and NumPy name a dozen kinds
            raise UserError(f"{self.path} is truncated, damaged or no {self.what} "
                            f"({error})") from error


def _array(npz, name, kinds):
    """An array of an .npz file, of which nothing is believed before it was compared."""
    entry = npz.getinfo(f"{name}.npy")
    with npz.open(entry) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{name} is of another version of NumPy's format")
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.kind not in kinds or dtype.str[1:] in ("f2", "f16"):
            raise ValueError(f"{name} holds {dtype}")
        if math.prod(shape) * dtype.itemsize != entry.file_size - file.tell():
            raise ValueError(f"{name} has other bytes than {dtype} in the shape {shape}")
        array = np.empty(math.prod(shape), dtype)
        left = memoryview(array.view(np.uint8))
        while count := file.readinto(left[:1 << 18]):          # in pieces, which stay in cache
            left = left[count:]
    array = array.reshape(shape, order="F" if by_columns else "C")
    with np.errstate(all="ignore"):        # a sum is quick, but may overflow
        if dtype.kind == "f" and not np.isfinite(array.sum()) and not np.isfinite(array).all():
            raise ValueError(f"{name} holds numbers that are not finite")
    return array.astype(dtype.newbyteorder("="), copy=False)
