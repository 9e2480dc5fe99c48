"""Scripts that fetch or prepare a data set. What they make is kept out of git.

patterns.py draws one, cifar10.py fetches one (with fetch.py, and reads its files with
pickles.py), imagenet.py packs photographs into one; how people keep those is told in layouts.py,
ImageNet's tars in tars.py, and MATLAB's files are read by matlab.py.
"""
import hashlib
from pathlib import Path

from tinynet.progress import bar


def md5(path):
    """The md5 of a file, in hexadecimal, with a bar: a large one takes minutes."""
    path, digest = Path(path), hashlib.md5()
    with (open(path, "rb") as file,
          bar(path.stat().st_size >> 20, f"md5 of {path.name} (MB)") as progress):
        while block := file.read(1 << 20):
            digest.update(block)
            progress.update()
    return digest.hexdigest()
