"""What is a data set, and how do folders of pictures become one?"""
import os
import shlex
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..progress import warn
from . import images

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".tif", ".tiff"}
DESCRIPTIONS = "synset_words.txt", "LOC_synset_mapping.txt", "words.txt"
WANTED = """\
    DIR/train/<class>/*.JPEG
    DIR/val/<class>/*.JPEG
or what data/imagenet.py makes of ImageNet's tars, of lists and of other trees"""


class DataSet:
    """Labelled pictures that any thread may read. Subclass it to bring your own.

    A subclass has labels, an array of N integers; classes, a list of their names; and read. The
    rest has defaults. root: where the pictures are, for messages. shuffled: whether they are
    stored in random order. statistics: their images.Statistics, if somebody has measured them.
    words: class -> what it is, where that is known ("n01440764": "tench, Tinca tinca").
    """
    root = "the data set"
    shuffled = False
    statistics = None
    words = {}

    def __len__(self):
        return len(self.labels)

    def fitted(self, fit):
        """The same pictures, made 256 x 256 as images.read has it, where that can be chosen."""
        return self

    def read(self, index):
        """The picture, (256, 256, 3) uint8. Raises images.BrokenPicture, which names it."""
        raise NotImplementedError(f"{type(self).__name__}.read(index) -> (256, 256, 3) uint8")

    def name(self, index):
        """What the picture is called."""
        return str(index)

    def bytes(self, index):
        """The picture as it is stored, not decoded: for `alexnet.py bench --input`."""
        raise NotImplementedError(f"{type(self).__name__}.bytes(index) -> what Pillow can open")


class Some(DataSet):
    """Pictures of a data set by their indices, in that order; one may come several times."""

    def __init__(self, whole, indices):
        self.whole, self.indices = whole, np.asarray(indices)
        self.root, self.classes, self.words = whole.root, whole.classes, whole.words
        self.labels, self.shuffled = np.asarray(whole.labels)[self.indices], whole.shuffled

    def fitted(self, fit):
        return Some(self.whole.fitted(fit), self.indices)

    def read(self, index):
        return self.whole.read(self.indices[index])

    def name(self, index):
        return self.whole.name(self.indices[index])

    def bytes(self, index):
        return self.whole.bytes(self.indices[index])


@dataclass
class Pictures(DataSet):
    """Files of pictures with their labels; classes[label] is a folder's name."""
    root: Path = field()                   # no default, unlike that of a DataSet
    paths: list
    labels: np.ndarray
    classes: list
    words: dict = field(default_factory=dict)
    fit: str = "crop"

    def __len__(self):
        return len(self.paths)

    def read(self, index):
        return images.read(self.paths[index], fit=self.fit)

    def fitted(self, fit):
        return replace(self, fit=fit)

    def name(self, index):
        """The path of the picture from the root on."""
        return self.paths[index].relative_to(self.root).as_posix()

    def bytes(self, index):
        return self.paths[index].read_bytes()


def image_folder(folder, split, classes=None):
    """The pictures under folder/split/<class>/, classes in sorted order: Pictures.

    classes: those of the training set, when labels must agree with it. What the classes are is
    read from folder/synset_words.txt (or LOC_synset_mapping.txt, or words.txt), if it is there,
    with lines like `n01440764 tench, Tinca tinca`. What is left out is said on stderr. Raises
    UserError, showing the tree that is there and the one that is wanted.
    """
    root = Path(folder) / split
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no such folder; it should hold\n{WANTED}")
    if not root.is_dir():
        raise UserError(f"{folder} has no folder {split!r}. {_found_and_wanted(folder)}")
    found = class_folders(root)
    if not found:
        raise UserError(f"{root} holds no pictures. {_found_and_wanted(folder)}")
    classes = list(found if classes is None else classes)
    compare_classes(root, found, classes)
    label = {name: number for number, name in enumerate(classes)}
    described = words_in(folder)
    return Pictures(root, [inside / file for name, files in found.items()
                           for inside in [root / name] for file in files],
                    np.array([label[name] for name, files in found.items() for _ in files]),
                    classes, {name: described[name] for name in classes if name in described})


def files(words):
    """The pictures that words of a command line mean, without labels: Pictures.

    A file is itself, whatever its name. A folder is all pictures in it and in the folders within,
    however deep, in sorted order; what else is there is left out and told on stderr. Links to
    folders are not followed: they may lead in a circle. Raises UserError if there is no picture,
    OSError for a folder that cannot be read.
    """
    def cannot(error):
        raise error

    paths = []
    for word in words:
        if not os.path.isdir(word):
            paths.append(word)
            continue
        left_out, others, before = Counter(), [], len(paths)
        for folder, inside, names in os.walk(word, onerror=cannot):
            inside[:] = sorted(name for name in inside if not name.startswith("."))
            links = [name for name in inside if os.path.islink(os.path.join(folder, name))]
            left_out.update("links to folders" for _ in links)
            for name in sorted(name for name in names if not name.startswith(".")):
                if is_picture(name):
                    paths.append(os.path.join(folder, name))
                else:
                    left_out[_kind(name)] += 1
                    others.append(name)
            others += links
        _tell(word, left_out, others)
        if len(paths) == before and len(words) > 1:
            warn(f"{word}: there is no picture in it")
    if not paths:
        raise UserError(f"{_first(words)}: there is no picture in it; what is read ends in "
                        + " ".join(sorted(ENDINGS)))
    return Pictures(words[0], paths, np.zeros(len(paths), int), [])


def class_folders(root):
    """The names of the pictures in root/<class>/: {class: [name, ...]}, all in sorted order.

    A folder without pictures is no class. It is named on stderr, and what else is left out is
    counted there. Only hidden files and folders are passed over in silence.
    """
    found, empty, left_out, no_files = {}, [], Counter(), []
    for entry in sorted(_visible(root), key=lambda entry: entry.name):
        if _is(entry.is_dir):
            names = _pictures_in(entry, left_out, no_files)
            if names:
                found[entry.name] = names
            else:
                empty.append(entry.name)
        elif not _is(entry.is_file):
            no_files.append(entry.name)
        elif is_picture(entry.name):
            left_out["beside the folders of classes"] += 1
    if no_files:
        left_out[f"that are no regular files ({_first(no_files)})"] = len(no_files)
    _tell(root, left_out)
    if empty:
        warn(f"{root}: folders without pictures are no classes: {', '.join(empty)}")
    return found


def _tell(root, left_out, names=()):
    """Say how many files of which kind (a Counter) are left out, and of some their names."""
    if left_out:
        kinds = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
        warn(f"{root}: {left_out.total():,} files are left out: "
             + ", ".join(f"{count:,} {kind}" for kind, count in kinds)
             + (f" ({_first(names)})" if names else ""))
    if left_out[".heic"]:
        warn("ImageMagick makes JPEGs of .heic: magick mogrify -format jpg *.heic")


def _pictures_in(folder, left_out, no_files):
    """The sorted names of the pictures in a folder. What else is there is counted by kind; what
    is called like a picture and is a pipe, a folder or a link to nowhere is added to no_files."""
    names = []
    for entry in _visible(folder):
        if is_picture(entry.name) and _is(entry.is_file):
            names.append(entry.name)
        elif is_picture(entry.name):
            no_files.append(f"{folder.name}/{entry.name}")
        elif _is(entry.is_dir):
            for _, _, files in os.walk(entry):
                left_out.update("in folders within a class" for _ in files)
        else:
            left_out[_kind(entry.name)] += 1
    return sorted(names)


def _kind(name):
    return os.path.splitext(name)[1].lower() or "without an ending"


def _visible(folder):
    return [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]


def _is(what):
    """What entry.is_file or entry.is_dir says; False for links in a circle, which raise. Only
    links cost a look at the disk: of the rest the folder itself says what they are."""
    try:
        return what()
    except OSError:
        return False


def _first(names):
    """The first five of names, for messages."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def is_picture(name):
    """Whether a file of this name is taken for a picture."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in ENDINGS


def compare_classes(root, found, classes):
    """Warn of the classes of a net of which no pictures were found. Raises UserError for those
    that were found and that the net does not know."""
    unknown, absent = set(found) - set(classes), [name for name in classes if name not in found]
    if unknown:
        raise UserError(f"{root} has classes that the net does not know: "
                        f"{_first(sorted(unknown))}; move their folders away, or take a net that "
                        "was trained on them")
    if absent:
        warn(f"{root} has no pictures of {len(absent):,} of the {len(classes):,} classes:\n  "
             + _first(absent))


def words_in(folder):
    """class -> what it is, in the order of the file, from whichever of DESCRIPTIONS there is."""
    for name in DESCRIPTIONS:
        if (Path(folder) / name).is_file():
            text = (Path(folder) / name).read_text(encoding="utf-8-sig", errors="replace")
            pairs = [line.split(None, 1) for line in text.splitlines() if line.strip()]
            return {pair[0]: pair[-1].strip() for pair in pairs}
    return {}


def _found_and_wanted(folder):
    return (f"Found there:\n{listing(folder)}\nIt should hold\n{WANTED}.\n"
            "Of pictures that are not divided yet it holds a tenth back to test with:\n"
            f"    python data/imagenet.py {shlex.quote(str(folder))} NEW --val-share 0.1")


def listing(folder):
    """The first names in a folder, a line each, for messages."""
    lines = [f"    {path.name}{'/' if path.is_dir() else ''}"
             for path in sorted(Path(folder).iterdir())[:8]]
    return "\n".join(lines) or "    (nothing)"
