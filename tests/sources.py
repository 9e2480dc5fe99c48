"""Sources of pictures as people have them, for tests of data/imagenet.py."""
import io

import numpy as np
from PIL import Image

from data import imagenet
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
