"""Pictures and folders that tests of pictures/ read."""
import numpy as np
from PIL import Image

COLOURED = (200, 100, 50)


def plain(mode="RGB", size=(320, 280), colour=COLOURED):
    return Image.new(mode, size, colour)


def saved(picture, path, **how):
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(np.round(picture).astype(np.uint8))
    picture.save(path, **how)
    return path


def touch(folder, *names):
    """Empty files; image_folder does not look inside."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder
