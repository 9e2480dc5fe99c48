"""Scripts that fetch or prepare a data set. What they make is kept out of git.

patterns.py draws one, cifar10.py fetches one (with fetch.py, and reads its files with
pickles.py), imagenet.py packs photographs into one; how people keep those is told in layouts.py,
ImageNet's tars in tars.py, and MATLAB's files are read by matlab.py.
"""
import hashlib
from pathlib import Path

from tinynet.progress import bar


def digests(path, *kinds):
    """The digests of a file, in hexadecimal, with a bar: a large one takes minutes. kinds: names
    that hashlib knows."""
    path, made = Path(path), [hashlib.new(kind) for kind in kinds]
    with (open(path, "rb") as file,
          bar(path.stat().st_size >> 20, f"{kinds[0]} of {path.name} (MB)") as progress):
        while block := file.read(1 << 20):
            for digest in made:
                digest.update(block)
            progress.update()
    return [digest.hexdigest() for digest in made]
