"""How are a million pictures stored so that they can be read fast?

As few large files. data/imagenet.py fills a folder with

    train-00000.pack   some thousand training pictures, JPEGs of 256 x 256, end to end; their
                       order was shuffled once
    train-00000.npz    the index of that file: length, label and source of each picture; and
                       sums over all of them, from which the statistics follow
    val-00000.pack ... the test pictures, stored likewise, in the order of their source
    statistics.npz     mean image and colours of the training pictures, as they are stored
    skipped.txt        the files that are no pictures
    converted.txt      the pictures that were no RGB JPEGs
    prepared.json      classes and what they are, counts, settings. It is written last: with it,
                       everything is there
"""
import functools
import json
import os
import threading
import weakref
from pathlib import Path

import numpy as np

from .. import schema, store
from ..errors import UserError
from ..progress import warn
from ..schema import COUNT
from . import images
from .dataset import DataSet, compare_classes, image_folder

FORMAT = "tinynet pictures 1"
# What is read of prepared.json.
ABOUT = {"classes": [str], "words": {str: str}, "splits": {str: {"files": COUNT[1:]}},
         "fit": (None, str)}
PREPARED, PREPARING, STATISTICS = "prepared.json", "preparing.json", "statistics.npz"
AGAIN = "prepare the pictures again, into a new folder, with data/imagenet.py"


def data_set(folder, split, classes=None):
    """The pictures of one split, "train" or "val", packed or in folders: Packed or Pictures.

    classes: those of the training set, when labels must agree with it. Raises UserError if
    there are no pictures, if they are half prepared, or of classes that are not among `classes`.
    """
    if (Path(folder) / PREPARED).is_file():
        return Packed(folder, split, classes)
    if (Path(folder) / PREPARING).is_file():
        raise UserError(f"{folder} is only half prepared: run data/imagenet.py again as "
                        "before, and it goes on where it was")
    return image_folder(folder, split, classes)


class Packed(DataSet):
    """The pictures of one split of a prepared folder. Threads may read at the same time.

    told: whether somebody was told already of classes that have no pictures here.
    """

    def __init__(self, folder, split, classes=None, told=False):
        self.root, self.shuffled = Path(folder), split == "train"
        self.made_of = folder, split, classes, True
        about = read_about(self.root / PREPARED, ABOUT)
        if split not in about["splits"]:
            raise UserError(f"{folder} was prepared without {split!r} pictures: its source had "
                            "none" + " (of a folder of classes, --val-share holds some back)"
                            * (split == "val"))
        self.words, stored = about["words"], about["classes"]
        self.fit = about.get("fit", "crop")
        self.classes = stored if classes is None else list(classes)
        if "train" in about["splits"]:
            self.statistics = read_statistics(self.root / STATISTICS)
        self.shards, self.files, indices = [], [], []
        for number in range(about["splits"][split]["files"]):
            shard = Shard(self.root, split, number)
            indices.append(shard.index(len(stored)))
            self.shards.append(shard)
            self.files.append(shard.file(indices[-1][0].sum()))
        self.starts = np.cumsum([0] + [len(lengths) for lengths, _ in indices])
        self.offsets = np.concatenate([lengths.cumsum() - lengths for lengths, _ in indices])
        self.lengths = np.concatenate([lengths for lengths, _ in indices])
        labels = np.concatenate([labels for _, labels in indices])
        if not told:
            compare_classes(self.root, {stored[label] for label in np.unique(labels)},
                            self.classes)
        place = {name: label for label, name in enumerate(self.classes)}
        self.labels = np.array([place.get(name, -1) for name in stored])[labels]

    def __reduce__(self):
        """How to send it to another process, which opens the files by itself."""
        return type(self), self.made_of

    def fitted(self, fit):
        """These pictures: how they were made 256 x 256 is past. Another way is warned of."""
        if fit != self.fit:
            warn(f"{self.root} was prepared with --fit {self.fit}, the net's recipe has --fit "
                 f"{fit}: it sees these pictures otherwise than is meant")
        return self

    def read(self, index):
        """(256, 256, 3) uint8. Raises BrokenPicture, which names file and source."""
        try:
            return images.read_stored(self.bytes(index))
        except images.BrokenPicture as error:
            raise images.BrokenPicture(f"{self.files[self._shard(index)].path} is damaged where "
                                       f"it holds {self.name(index)}") from error

    def bytes(self, index):
        file = self.files[self._shard(index)]
        return file.read(int(self.offsets[index]), int(self.lengths[index]))

    def name(self, index):
        """What the picture was called in its source."""
        shard = self._shard(index)
        return self.shards[shard].names[index - self.starts[shard]]

    def _shard(self, index):
        """Which of the files holds a picture."""
        return np.searchsorted(self.starts, index, side="right") - 1


class Shard:
    """One file of pictures and its index. The index is written last: with it the shard is
    whole."""

    def __init__(self, folder, split, number):
        stem = Path(folder) / f"{split}-{number:05d}"
        self.pack, self.path = stem.with_suffix(".pack"), stem.with_suffix(".npz")

    def write(self, entries, sums, notes):
        """Write the pictures, then their index.

        entries: yields (jpeg, label, name). sums, an images.Sums, and notes, what JSON can
        hold, may still grow while the entries are read.
        """
        lengths, labels, names = [], [], []
        with store.replacing(self.pack) as file:
            for jpeg, label, name in entries:
                file.write(jpeg)
                lengths.append(len(jpeg))
                labels.append(label)
                names.append(os.fsencode(name))
        store.save(self.path, {
            "index/lengths": np.array(lengths, np.int64),
            "index/labels": np.array(labels, np.int32),
            "source/names": np.frombuffer(b"\0".join(names), np.uint8),
            "sums/total": sums.total.astype(np.uint32),      # of 16 million pictures at most
            "sums/products": sums.products,
            "sums/count": np.array(sums.count)}, {"odd": notes})

    def is_whole(self):
        return self.path.exists()

    def file(self, size):
        """The open file of pictures, of `size` bytes. Raises UserError if it is not there."""
        try:
            file = FileOfParts(self.pack)
        except FileNotFoundError as error:
            raise UserError(f"{self.pack} is missing; {AGAIN}") from error
        if file.size != size:
            raise UserError(f"{self.pack} is damaged: it has {file.size:,} bytes and should have "
                            f"{size:,}; {AGAIN}")
        return file

    def index(self, classes):
        """Lengths in bytes and labels, 0 ... classes - 1: two arrays (pictures,)."""
        (lengths, labels), _ = self._read("index/", "iu", lengths=None, labels=None)
        if not (lengths.ndim == 1 and lengths.shape == labels.shape
                and (lengths > 0).all() and (labels >= 0).all() and (labels < classes).all()):
            raise UserError(f"{self.path}: its index is no list of pictures of {classes} classes; "
                            f"{AGAIN}")
        return lengths, labels

    @functools.cached_property
    def names(self):
        """What its pictures were called. Of a million that is much memory, so not at once."""
        (names,), _ = self._read("source/", "u", names=None)
        return [os.fsdecode(name) for name in names.tobytes().split(b"\0")]

    def sums_and_notes(self):
        """The arguments of images.Sums.add, and the notes that were written."""
        side = images.SIDE
        sums, meta = self._read("sums/", "fiu", total=(side, side, 3), products=(3, 3), count=())
        odd = meta.get("odd")
        check(odd, {"skipped": [[str]], "converted": [[str]]}, f"{self.path}: odd")
        if {len(note) for notes in odd.values() for note in notes} - {2}:
            raise UserError(f"{self.path}: odd: not every note is a name and a reason; {AGAIN}")
        return sums, odd

    def _read(self, prefix, kinds, **shapes):
        return read_arrays(self.path, "picture index", prefix, shapes, kinds)


class FileOfParts:
    """A file of which any thread may read any part. It is closed when nobody holds it."""

    def __init__(self, path):
        self.path, self.lock = path, threading.Lock()
        self.file = open(path, "rb", buffering=0)
        weakref.finalize(self, self.file.close)
        self.size = os.fstat(self.file.fileno()).st_size

    def read(self, offset, count):
        """`count` bytes from `offset` on; fewer only at the end of the file. Raises OSError."""
        try:
            if hasattr(os, "pread"):
                return os.pread(self.file.fileno(), count, offset)
            with self.lock:
                self.file.seek(offset)
                return self.file.read(count)
        except OSError as error:
            error.filename = str(self.path)
            raise


def write_about(path, about):
    """Write prepared.json or preparing.json."""
    with store.replacing(path) as file:
        file.write(json.dumps({"format": FORMAT, **about}, indent=1).encode())


def read_about(path, form):
    """prepared.json or preparing.json, a dict of this form (see schema.py)."""
    try:
        about = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); {AGAIN}") from error
    if not isinstance(about, dict) or about.pop("format", None) != FORMAT:
        raise UserError(f"{path} is of another version than {FORMAT!r}; {AGAIN}")
    check(about, form, path)
    return about


def check(value, form, where):
    """schema.check, and what to do next."""
    try:
        schema.check(value, form, where)
    except UserError as error:
        raise UserError(f"{error}; {AGAIN}") from error


def write_statistics(path, statistics):
    """Write images.Statistics, with the mean colour and the standard deviations as well."""
    store.save(path, dict(
        vars(statistics), rgb_mean=statistics.mean.mean(axis=(0, 1), dtype=np.float64),
        stdevs=np.sqrt(statistics.variances)), {})


def read_statistics(path):
    """images.Statistics as they were written. Raises UserError."""
    shapes = dict(images.Statistics.SHAPES, rgb_mean=(3,), stdevs=(3,))
    arrays, _ = read_arrays(path, "statistics of pictures", "", shapes)
    return images.Statistics(*arrays[:3])


def read_arrays(path, what, prefix, shapes, kinds="f"):
    """The arrays of an .npz file that are called prefix + name, for a dict name -> shape: a
    list, and the rest of the file, a dict.

    what: how errors call the file. kinds: as store.Checkpoint has them. Raises UserError if it
    is not as it was written.
    """
    try:
        saved = store.Checkpoint(path, what)
        arrays = saved.arrays(prefix, shapes, kinds)
    except UserError as error:
        raise UserError(f"{error}; {AGAIN}") from error
    return [arrays[name] for name in shapes], saved.meta
