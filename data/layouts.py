"""In which trees, tars and lists do people have ImageNet?

`look` finds out which layout a folder has, and lists its pictures with their labels; nothing is
unpacked and nothing is written.
"""
import csv
import os
from array import array

import numpy as np

from data import digests
from data.tars import base, devkit, members, number_of
from tinynet import rng
from tinynet.errors import UserError
from tinynet.pictures import dataset, images, packed
from tinynet.progress import say, shown

TREES = """\
    ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar, ILSVRC2012_devkit_t12.tar.gz
    ILSVRC/Data/CLS-LOC/{train/<wnid>/*,val/*} and LOC_val_solution.csv       (Kaggle)
    train.txt, val.txt with lines `path label`; paths as seen from SRC, train/ or val/   (Caffe)
    train/<class>/*, val/<class>/*                                            (ImageFolder)
    <class>/*: all to train with, or some held back with --val-share"""

TARS = ({"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar",
         "devkit": "ILSVRC2012_devkit_t12.tar.gz"},
        {"train": "ILSVRC2010_images_train.tar", "val": "ILSVRC2010_images_val.tar",
         "devkit": "ILSVRC2010_devkit-1.0.tar.gz"})
MD5 = {"ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
       "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
       "ILSVRC2012_devkit_t12.tar.gz": "fa75699e90414af021442c21a62c3abf"}
# How long a line of a list may be, in bytes, and how many classes its labels may make.
LINE, CLASSES = 1 << 16, 1 << 20


class Found:
    """What a source holds.

    layout: its name. splits: "train", "val" or both, with their Originals. words: class
    -> what it is. missing: lines that say what else there might have been.
    """

    def __init__(self, layout, splits, classes, words, missing=()):
        self.layout, self.classes, self.missing = layout, classes, missing
        self.words = {name: words[name] for name in classes if name in words}
        self.splits = {split: pictures for split, pictures in splits.items()
                       if pictures is not None and pictures.names}


class Originals:
    """Pictures of a source: N names, and labels (N,).

    Either root is a folder and the names are those of files in it, or root is a tar and
    extents, (N, 2), are where in it the files begin and how many bytes they have.
    """

    def __init__(self, root, names, labels, extents=None):
        self.root, self.names, self.labels = root, names, np.asarray(labels, np.int32)
        self.extents = extents
        self.tar = None if extents is None else packed.FileOfParts(root)

    def read(self, index):
        """The bytes of one picture's file. Raises OSError, and BrokenPicture for what is no
        file or too large."""
        name = self.names[index]
        if self.tar:
            offset, size = self.extents[index].tolist()
            if size > images.MOST_BYTES:
                raise images.broken(name, f"{size:,} bytes; the most that are read are "
                                          f"{images.MOST_BYTES:,}")
            return self.tar.read(offset, size)
        with images.opened(self.root / name, name) as file:
            return file.read()

    def only(self, indices):
        """Those of these indices."""
        return Originals(self.root, [self.names[i] for i in indices], self.labels[indices],
                         None if self.extents is None else self.extents[indices])


def look(source, val_share=0.0):
    """Find out which layout a folder has, and print it: Found.

    val_share: the fraction of the training pictures to hold back to test with. Raises UserError
    for a folder of no layout that is known here.
    """
    if not source.is_dir():
        raise UserError(f"{source}: no such folder; it should be one of\n{TREES}")
    missing = []
    for layout in tars, kaggle, lists, image_folders, without_splits:
        found = layout(source)
        if found and found.splits:
            break
        missing += found.missing if found else []
    else:
        why = f" ({'; '.join(missing)})" if missing else ""
        raise UserError(f"{source} has no layout that is known here{why}. Found there:\n"
                        f"{dataset.listing(source)}\nIt should be one of\n{TREES}")
    if val_share:
        hold_back(found, val_share)
    counts = " and ".join(f"{len(pictures.names):,} {split} pictures"
                          for split, pictures in found.splits.items())
    say(f"{shown(source)}: {found.layout}; {counts} of {len(found.classes):,} classes")
    for line in found.missing:
        say(f"  {line}")
    for split, pictures in found.splits.items():
        without = len(found.classes) - len(set(pictures.labels.tolist()))
        if without:
            say(f"  {without:,} of the classes have no {split} pictures")
    for split in {"train", "val"} - set(found.splits):
        say(f"  there are no {split} pictures: what is there is prepared without them")
    if "val" not in found.splits:
        say("  (--val-share 0.1 would hold a tenth back to test with)")
    return found


def hold_back(found, fraction):
    """Move a fraction of the training pictures, drawn by lot, to val."""
    if "val" in found.splits:
        raise UserError("this source has val pictures of its own: leave --val-share out")
    everything = found.splits["train"]
    count = len(everything.names)
    order = rng.permutation(count, seed=1, purpose=rng.PACKING)
    held = round(fraction * count)
    if not 0 < held < count:
        raise UserError(f"--val-share {fraction} of {count} pictures leaves one side empty; 0.1 "
                        "holds a tenth back")
    found.splits = {"train": everything.only(np.sort(order[held:])),
                    "val": everything.only(np.sort(order[:held]))}


def tars(source):
    """ImageNet's own: a tar of a tar for each class, a flat tar, and the devkit."""
    for names in TARS:
        paths = {part: source / name for part, name in names.items()}
        if paths["train"].is_file() or paths["val"].is_file():
            break
    else:
        return None
    missing = [f"{path.name} is missing" for path in paths.values() if not path.is_file()]
    wnids, described, truth = {}, {}, []
    if paths["devkit"].is_file():
        wnids, described, truth = devkit(paths["devkit"])
    train, val, classes = None, None, sorted(described)
    if paths["train"].is_file():
        train, classes = train_tar(paths["train"])
    if paths["val"].is_file() and not truth:
        missing.append("so the val pictures have no labels and are left out")
    elif paths["val"].is_file():
        found = sorted((base(member), member.offset_data, member.size)
                       for member, _ in members(paths["val"]) if dataset.is_picture(base(member)))
        wanted = [wnids.get(number_of(name, truth)) for name, *_ in found]
        val = Originals(paths["val"], [name for name, *_ in found],
                        labels_of(wanted, classes, paths["val"]),
                        np.array([extent for _, *extent in found]))
    return Found("ILSVRC tars", {"train": train, "val": val}, classes, described, missing)


def train_tar(path):
    """The pictures in a tar of tars, Originals, and their classes. Only headers are read."""
    names, wnids, extents = [], [], array("q")       # of a million, so as few objects as can be
    for outer, tar in members(path):
        wnid, ending = os.path.splitext(base(outer))
        if ending != ".tar":
            continue
        for inner, _ in members(path, tar.extractfile(outer)):
            if dataset.is_picture(base(inner)):
                names.append(f"{wnid}.tar/{base(inner)}")
                wnids.append(wnid)
                extents.extend([outer.offset_data + inner.offset_data, inner.size])
    classes = sorted(set(wnids))
    return Originals(path, names, labels_of(wnids, classes, path),
                     np.array(extents).reshape(-1, 2)), classes


def kaggle(source):
    """Kaggle's tree: class folders to train with, val flat, labels in a table."""
    root = source / "ILSVRC" / "Data" / "CLS-LOC"
    if not root.is_dir():
        return None
    missing, train = [], folder_of_classes(root, "train")
    table = source / "LOC_val_solution.csv"
    rows, val = [], None
    if table.is_file():
        rows = sorted(read_table(table))
    elif (root / "val").is_dir():
        missing.append(f"{table.name} is missing, so the val pictures are left out")
    classes = train[1] if train else sorted({wnid for _, wnid in rows})
    if rows and (root / "val").is_dir():
        val = Originals(root, [f"val/{name}.JPEG" for name, _ in rows],
                        labels_of([wnid for _, wnid in rows], classes, table))
    return Found("Kaggle's tree", {"train": train and train[0], "val": val}, classes,
                 dataset.words_in(source), missing)


def read_table(path):
    """Yield the name of a picture and its wnid from the rows of LOC_val_solution.csv. Raises
    UserError, which names the line."""
    rows = csv.DictReader(line for _, line in lines_of(path))
    try:
        for row in rows:
            yield row["ImageId"], row["PredictionString"].split()[0]
    except (csv.Error, LookupError, AttributeError) as error:
        line = 1 if isinstance(error, KeyError) else rows.line_num     # which names the columns
        raise UserError(f"{path}, line {line}: is not `ImageId,PredictionString`, the second of "
                        "which begins with a class") from error


def lines_of(path):
    """Yield the number of each line of a text file, from 1 on, and the line. Raises UserError
    for one that is no text or has no end."""
    with open(path, "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LINE), b""), 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if "\0" in text or len(line) == LINE:
                    raise ValueError
            except ValueError as error:              # such as UnicodeDecodeError
                raise UserError(f"{path}, line {number}: is no line of text in UTF-8") from error
            yield number, text.rstrip("\r\n")


def lists(source):
    """Caffe's lists, whose own numbers are kept as the order of the classes."""
    found = {split: read_list(source, split) for split in ("train", "val")
             if (source / f"{split}.txt").is_file()}
    if not found:
        return None
    for split in {"train", "val"} - set(found):
        if (source / split).is_dir():
            raise UserError(f"{source} has a folder {split}, and a list of the others only: add "
                            f"{split}.txt, or rename the list that is there")
    count = 1 + max(int(pictures.labels.max()) for pictures in found.values())
    described = dataset.words_in(source)
    classes = classes_by_folder(found.get("train") or found["val"], count) or list(described)
    if len(classes) != count:
        classes = [f"{label:04d}" for label in range(count)]
    order = "sorted" if classes == sorted(classes) else "not sorted"
    return Found(f"Caffe's lists, classes in the order of their numbers ({order})", found,
                 classes, described)


def read_list(source, split):
    """The pictures that train.txt or val.txt names: Originals."""
    path, names, labels = source / f"{split}.txt", [], []
    for number, line in lines_of(path):
        parts = line.rsplit(None, 1)
        if parts and (len(parts) < 2 or not parts[1].isdecimal()):
            raise UserError(f"{path}, line {number}: {line[:99]!r} is not `path label`")
        if parts and (len(parts[1]) > 18 or int(parts[1]) >= CLASSES):
            raise UserError(f"{path}, line {number}: label {parts[1][:18]} is too large: labels "
                            f"are 0 ... {CLASSES - 1:,}")
        if parts:
            names.append(parts[0])
            labels.append(int(parts[1]))
    if not names:
        raise UserError(f"{path} is empty")
    inside = (not os.path.exists(source / names[0])
              and os.path.exists(source / split / names[0]))
    return Originals(source / split if inside else source, names, labels)


def classes_by_folder(pictures, count):
    """Names for the classes of a list: the folders of their pictures, if every class has one of
    its own; else None."""
    pairs = {(label, name.split("/")[-2]) for name, label
             in zip(pictures.names, pictures.labels.tolist(), strict=True) if "/" in name}
    folders = [folder for _, folder in sorted(pairs)]
    same = sorted({label for label, _ in pairs}) == list(range(count)) == list(range(len(pairs)))
    return folders if same and len(set(folders)) == count else None


def image_folders(source):
    """train/<class>/* and val/<class>/*."""
    found = {split: folder_of_classes(source, split) for split in ("train", "val")}
    found = {split: pictures for split, pictures in found.items() if pictures}
    if not found:
        return None
    classes = found["train" if "train" in found else "val"][1]
    if "val" in found:
        pictures, val_classes = found["val"]
        pictures.labels = labels_of(val_classes, classes, source / "val")[pictures.labels]
    return Found("folders of classes", {split: pictures for split, (pictures, _) in found.items()},
                 classes, dataset.words_in(source))


def without_splits(source):
    """<class>/* without train and val."""
    if (source / "train").is_dir() or (source / "val").is_dir():
        return None                                # these are no classes
    found = folder_of_classes(source, "")
    return found and Found("one folder of classes", {"train": found[0]}, found[1],
                           dataset.words_in(source))


def folder_of_classes(root, split):
    """The pictures in root/split/<class>/ and the classes; None if there are none."""
    if not (root / split).is_dir():
        return None
    found = dataset.class_folders(root / split)
    names = [f"{split}/{wnid}/{name}".lstrip("/") for wnid, files in found.items()
             for name in files]
    labels = np.repeat(np.arange(len(found)), [len(files) for files in found.values()])
    return (Originals(root, names, labels), list(found)) if names else None


def labels_of(wnids, classes, where):
    """The label of each wnid, (N,) int32: its index in classes. Raises UserError for one that
    is not there."""
    label = {wnid: number for number, wnid in enumerate(classes)}
    unknown = set(wnids) - set(label)
    if unknown:
        raise UserError(f"{where} has pictures of {', '.join(sorted(map(str, unknown))[:5])}: "
                        "no classes of the training pictures")
    return np.array([label[wnid] for wnid in wnids], np.int32)


def check(source):
    """Compare the md5 of ImageNet's tars. Raises UserError for one that differs."""
    present = [source / name for name in MD5 if (source / name).is_file()]
    if not present:
        raise UserError(f"--check: {source} has none of {', '.join(MD5)}")
    for path in present:
        found, = digests(path, "md5")
        if found != MD5[path.name]:
            raise UserError(f"{path}: its md5 is {found} and should be {MD5[path.name]}: it is "
                            "damaged or incomplete")
        say(f"{path.name}: md5 is right")
