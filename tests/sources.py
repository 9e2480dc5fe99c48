"""Sources of pictures as people have them, for tests of data/imagenet.py."""
import io
import struct
import tarfile
import zlib

import numpy as np
from PIL import Image

from data import imagenet, layouts
from tinynet.pictures import packed

WNIDS = ["n01440764", "n02084071", "n07747607"]
COLOURS = {"n01440764": (220, 40, 60), "n02084071": (30, 200, 90), "n07747607": (70, 60, 210)}
VAL = ["n07747607", "n01440764", "n02084071", "n01440764", "n07747607"]
WORDS = {"n01440764": "tench, Tinca tinca", "n02084071": "dog, Canis", "n07747607": "orange"}


def file_of(wnid, kind="JPEG", size=(300, 280), mode="RGB", **how):
    """The bytes of a picture in the colour of its class."""
    file = io.BytesIO()
    Image.new("RGB", size, COLOURS[wnid]).convert(mode).save(file, kind, **how)
    return file.getvalue()


def lay_out(folder, files):
    """name -> bytes, as files in a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def train_files(count=3):
    return {f"{wnid}/{wnid}_{n}.JPEG": file_of(wnid) for wnid in WNIDS for n in range(count)}


def are_of_their_classes(pictures):
    """Whether every picture has the colour of its class: labels and pictures belong together."""
    return len(pictures) > 0 and all(
        np.abs(pictures.read(index)[128, 128] - np.array(COLOURS[pictures.classes[label]])).max()
        < 6 for index, label in enumerate(pictures.labels))


def names(pictures):
    return [pictures.name(index) for index in range(len(pictures))]


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}


def prepare(source, target, **options):
    """Prepare, and see to it that nothing in the source has changed."""
    before = contents(source)
    about = imagenet.prepare(source, target, workers=2, **options)
    assert contents(source) == before
    return about


def splits(target):
    return packed.data_set(target, "train"), packed.data_set(target, "val")


def image_folder(folder, count=3):
    files = {f"train/{name}": data for name, data in train_files(count).items()}
    files |= {f"val/{wnid}/{val_name(n)}": file_of(wnid) for n, wnid in enumerate(VAL, 1)}
    return lay_out(folder, files | {"train/notes.txt": b"", "train/n01440764/.x.jpg": b""})


def val_name(number, year=2012):
    return f"ILSVRC{year}_val_{number:08d}.JPEG"


def shaped(mode, kind, **how):
    return file_of(WNIDS[0], kind, mode=mode, **how)


# --- MATLAB files ---------------------------------------------------------------------------


def element(kind, content, order="<"):
    if 0 < len(content) <= 4 and kind < 14:           # as MATLAB does
        return struct.pack(order + "I", len(content) << 16 | kind) + content.ljust(4, b"\0")
    return struct.pack(order + "II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(kind, shape, *parts, name="", order="<"):
    return element(14, b"".join([
        element(6, struct.pack(order + "II", kind, 0), order),
        element(5, struct.pack(f"{order}{len(shape)}i", *shape), order),
        element(1, name.encode(), order), *parts]), order)


def as_matrix(value, order="<"):
    if isinstance(value, str):
        encoding = "utf-16-le" if order == "<" else "utf-16-be"
        return matrix(4, (1, len(value)), element(4, value.encode(encoding), order), order=order)
    if isinstance(value, int):                        # a double that is stored in one byte
        code = "BB" if value < 256 else "HH"
        stored = struct.pack(order + code[0], value)
        return matrix(6, (1, 1), element(2 if value < 256 else 4, stored, order), order=order)
    numbers = np.array(value, order + "f8")
    return matrix(6, (1, len(value)), element(9, numbers.tobytes(), order), order=order)


def structures(name, rows, order="<"):
    """An array of structures, a dict each, (rows, 1)."""
    fields = b"".join(field.encode().ljust(32, b"\0") for field in rows[0])
    return matrix(2, (len(rows), 1), element(5, struct.pack(order + "i", 32), order),
                  element(1, fields, order),
                  *[as_matrix(value, order) for row in rows for value in row.values()],
                  name=name, order=order)


def mat_file(*variables, order="<", compressed=True):
    header = b"MATLAB 5.0 MAT-file, made up".ljust(124)
    if compressed:                                    # these are not filled up to eight bytes
        variables = [struct.pack(order + "II", 15, len(z)) + z
                     for z in (zlib.compress(variable) for variable in variables)]
    return header + struct.pack(order + "HH", 0x0100, 0x4D49) + b"".join(variables)


# --- ImageNet's tars, and Kaggle's tree -----------------------------------------------------

# The devkit's numbers are in no order; what has children is no class.
NUMBERS = {"n02084071": 1, "n07747607": 2, "n01440764": 3, "n00001740": 4}


def tar_of(files):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def ilsvrc(folder, year=2012):
    """The three tars as ImageNet hands them out, small: names, nesting and devkit."""
    train = {f"{wnid}.tar": tar_of({f"{wnid}_{n}.JPEG": file_of(wnid) for n in range(3)})
             for wnid in reversed(WNIDS)}
    val = {val_name(number, year): file_of(wnid) for number, wnid in enumerate(VAL, 1)}
    rows = [{f"ILSVRC{year}_ID": number, "WNID": wnid, "words": WORDS.get(wnid, "entity"),
             "gloss": "", "num_children": 3 if wnid not in WNIDS else 0,
             "children": [1.0, 2.0, 3.0] if wnid not in WNIDS else [],
             "wordnet_height": 0, "num_train_images": 1300} for wnid, number in NUMBERS.items()]
    truth = "".join(f"{NUMBERS[wnid]}\n" for wnid in VAL)
    paths = dict(zip(("train", "val", "devkit"), layouts.TARS[year == 2010].values(),
                     strict=True))
    root = paths["devkit"].removesuffix(".tar.gz")
    lay_out(folder, {paths["train"]: tar_of(train), paths["val"]: tar_of(val)})
    with tarfile.open(folder / paths["devkit"], "w:gz") as tar:
        for name, content in {"readme.txt": b"", "data/meta.mat": mat_file(
                structures("synsets", rows)), f"data/ILSVRC{year}_validation_ground_truth.txt":
                truth.encode()}.items():
            member = tarfile.TarInfo(f"{root}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return folder


def kaggle(folder):
    files = {f"ILSVRC/Data/CLS-LOC/train/{name}": data for name, data in train_files().items()}
    files |= {f"ILSVRC/Data/CLS-LOC/val/{val_name(n)}": file_of(w) for n, w in enumerate(VAL, 1)}
    table = "ImageId,PredictionString\n" + "".join(
        f"{val_name(number)[:-5]},{VAL[number - 1]} 1 2 300 400 {VAL[number - 1]} 5 6 7 8 \n"
        for number in (3, 1, 5, 2, 4))
    mapping = "".join(f"{wnid} {words}\n" for wnid, words in WORDS.items())
    return lay_out(folder, files | {"LOC_val_solution.csv": table.encode(),
                                    "LOC_synset_mapping.txt": mapping.encode()})
