"""What can a network learn to see without a million photographs?

Patterns. This draws ten classes of them in ImageFolder layout, DIR/train/CLASS/0000.jpg
and so on, and DIR/val/CLASS/0000.jpg. Edges, corners and textures tell them apart,
which is what a first layer is for; colours do not, they are drawn by lot. A class is
its own mirror image, so that training may flip the pictures. A picture is a function of
(seed, split, class, number): the order of drawing does not matter.
"""
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..cores import cores
from ..errors import UserError
from ..progress import NoBar, bar

SPLITS = "train", "val"
TURN = 2 * math.pi


# A drawing function gets the pixels' coordinates, x as a row and y as a column, and
# returns how much of the second colour each pixel has, 0 ... 1: (size, size), or (3, size,
# size) with channels first, as NumPy is slow along rows of three. Lengths are in pixels.
# Scalars are Python floats: a NumPy float64 would turn the float32 arrays into float64,
# which takes twice as long.

def turned(x, y, angle):
    """The coordinates (u, v) of the same pixels along axes turned by an angle."""
    cos, sin = math.cos(angle), math.sin(angle)
    return x * cos + y * sin, y * cos - x * sin


def spun(x, y, rng):
    """Coordinates turned by an angle drawn by lot."""
    return turned(x, y, rng.uniform(0, TURN))


def tilted(x, y, rng):
    """Coordinates turned by up to 14 degrees."""
    return turned(x, y, rng.uniform(-0.25, 0.25))


def length(rng, low, high):
    """Between low and high, each octave as likely as any other."""
    return low * (high / low) ** rng.random()


def ink(height, rng):
    """Heights of about -1 ... 1 as 0 ... 1, with a soft or crisp outline where 0 is."""
    t = np.clip(0.5 + rng.uniform(0.6, 1.8) * height, 0, 1)
    return t * t * (3 - 2 * t)


def stripes(x, y, rng, angle):
    """Stripes across a direction that is within 11 degrees of `angle`."""
    u, _ = turned(x, y, angle + rng.uniform(-0.2, 0.2))
    return ink(np.sin(u * (TURN / length(rng, 7, 28))), rng)


def horizontal(x, y, rng):
    return stripes(x, y, rng, TURN / 4)


def vertical(x, y, rng):
    return stripes(x, y, rng, 0)


def diagonal(x, y, rng):
    """Both diagonals are one class: a mirror swaps them."""
    return stripes(x, y, rng, rng.choice([-1, 1]) * TURN / 8)


def waves(x, y, rng):
    """Stripes that swing to and fro, half of them in zigzag."""
    u, v = spun(x, y, rng)
    wave = length(rng, 30, 80)
    swing = np.sin(v * (TURN / wave))
    if rng.random() < 0.5:
        swing = np.arcsin(swing) * (4 / TURN)
    u += swing * (rng.uniform(0.7, 1.3) * wave / 4)
    return ink(np.sin(u * (TURN / length(rng, 10, 30))), rng)


def checks(x, y, rng):
    u, v = tilted(x, y, rng)
    rate = TURN / length(rng, 16, 48)
    return ink(1.5 * np.sin(u * rate) * np.sin(v * rate), rng)


def triangles(x, y, rng):
    """Three gratings at 120 degrees; their product changes sign at every line."""
    u, v = tilted(x, y, rng)
    rate = TURN / length(rng, 28, 72)
    height = 2 * np.sin(v * rate)
    for angle in TURN / 12, -TURN / 12:
        height *= np.sin(turned(u, v, angle)[0] * rate)
    return ink(height, rng)


def dots(x, y, rng):
    """A disc in every cell of a grid, each a little off its centre."""
    side = length(rng, 12, 44)
    u, v = spun(x / side, y / side, rng)
    i, j = np.rint(u).astype(np.int16), np.rint(v).astype(np.int16)
    stray = rng.uniform(0, 0.18)
    right, down = rng.uniform(-stray, stray, (2, 32, 32)).astype(np.float32)
    cell = i % 32, j % 32
    r = np.hypot(u - i - right[cell], v - j - down[cell])
    return ink(1.2 - r * (1.2 / rng.uniform(0.2, 0.32)), rng)


def rings(x, y, rng):
    r = np.hypot(x * rng.uniform(0.8, 1.25), y)
    return ink(np.sin(r * (TURN / length(rng, 8, 30))), rng)


def rays(x, y, rng):
    """A star, faded at the centre, where the rays get too thin for pixels."""
    count = int(length(rng, 10, 40))
    fade = np.minimum(np.hypot(x, y) / count, 1)
    return ink(fade * np.sin(np.arctan2(y, x) * count), rng)


def blobs(x, y, rng):
    """Soft hills, others in red than in green and in blue: sums of four egg boxes."""
    right, down = TURN / rng.uniform(60, 200, (2, 3, 4, 1)).astype(np.float32)
    a, b = rng.uniform(0, TURN, (2, 3, 4, 1)).astype(np.float32)
    height = np.einsum("cky,ckx->cyx", np.sin(y.T * down + b), np.sin(x * right + a))
    return ink(0.4 * height, rng)


CLASSES = {f.__name__: f for f in (
    horizontal, vertical, diagonal, waves, checks, triangles, dots, rings, rays, blobs)}


def colours(rng):
    """A dark and a light colour of different hue, in random order: (2, 3), 0 ... 1."""
    hue = rng.random() + np.array([[0], [rng.uniform(0.2, 0.8)]])
    rainbow = 0.5 + 0.5 * np.cos(TURN * (hue + np.arange(3) / 3))
    pale = rng.uniform(0, 0.5, (2, 1))
    light = rng.uniform([[0.15], [0.85]], [[0.55], [1]])
    return rng.permutation(light * (pale + (1 - pale) * rainbow)).astype(np.float32)


def picture(name, number, split="train", seed=0, size=256):
    """One picture of a class: (size, size, 3) uint8.

    A smaller picture is a smaller window, not a smaller pattern.
    """
    key = seed, SPLITS.index(split), list(CLASSES).index(name), number
    rng = np.random.default_rng(key)
    x = np.arange(size, dtype=np.float32)[None] - rng.uniform(0.3, 0.7) * size
    y = np.arange(size, dtype=np.float32)[:, None] - rng.uniform(0.3, 0.7) * size
    amount = np.broadcast_to(CLASSES[name](x, y, rng), (3, size, size))
    first, second = colours(rng)
    slope, _ = spun(x, y, rng)
    light = 1 + slope * (rng.uniform(0, 0.3) / size)
    grain = rng.standard_normal((size, size), np.float32) * rng.uniform(0, 0.04)
    planes = [(first[c] + amount[c] * (second[c] - first[c])) * light + grain for c in range(3)]
    return np.stack([np.uint8(255 * np.clip(plane, 0, 1)) for plane in planes], axis=-1)


def draw(folder, train=200, val=50, seed=0, size=256, progress=True):
    """Lay the data set out in a folder: `train` and `val` pictures of every class.

    Returns at once if it is there. A folder that was left half drawn is drawn again.
    progress: show a bar, if stderr is a terminal. Raises UserError if the folder holds
    anything else, or if a number is out of range.
    """
    if min(train, val, size) < 1 or seed < 0:
        raise UserError("train, val and size must be at least 1, and seed at least 0")
    folder = Path(folder)
    marker = folder / "patterns.json"
    settings = dict(train=train, val=val, seed=seed, size=size, classes=list(CLASSES))
    wanted = json.dumps(settings)
    if marker.exists():
        if marker.read_bytes() == wanted.encode():
            return
        raise UserError(f"{folder} holds patterns with other settings, see {marker}: "
                        "delete this folder or choose another one")

    jobs = {folder / split / name / f"{number:04d}.jpg": (name, number, split)
            for split, count in zip(SPLITS, (train, val), strict=True)
            for name in CLASSES
            for number in range(count)}
    for path in folder.glob("*/*/*"):
        if path not in jobs and path.suffix != ".tmp":
            raise UserError(f"{path} is none of the patterns wanted here: "
                            "delete this folder or choose another one")
    for parent in {path.parent for path in jobs}:
        parent.mkdir(parents=True, exist_ok=True)

    def job(path):
        pixels = picture(*jobs[path], seed, size)
        write(path, lambda file: Image.fromarray(pixels).save(file, "JPEG", quality=90))

    shows = bar(len(jobs), "drawing patterns") if progress else NoBar()
    with ThreadPoolExecutor(cores()) as pool, shows:
        for _ in pool.map(job, jobs):
            shows.update()
    # Last of all: who finds it may rely on every picture.
    write(marker, lambda file: file.write(wanted.encode()))


def write(path, save):
    """Let `save` write a file aside, then rename it, so that no file is ever half.

    Unlike store.replacing this does not wait for the disk: what a power failure takes can be
    drawn again, and to wait 2,500 times makes the drawing 15 % longer. The name aside has the
    process in it: two of them may draw into one folder.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(aside, "wb") as file:
        save(file)
    os.replace(aside, path)


def sheet(seed=0):
    """A picture with four examples, at half their size, under the name of every class."""
    across, side = 5, 2
    tile, gap, title = 128, 4, 36
    step = tile + gap
    width, height = side * step + 4 * gap, side * step + title + 2 * gap
    paper = Image.new("RGB", (across * width, -(-len(CLASSES) // across) * height), "white")
    pen = ImageDraw.Draw(paper)
    for place, name in enumerate(CLASSES):
        left, top = place % across * width, place // across * height
        pen.text((left, top + title // 2), name, "black", anchor="lm", font_size=26)
        for number in range(side ** 2):
            example = Image.fromarray(picture(name, number, seed=seed)).reduce(2)
            row, column = divmod(number, side)
            paper.paste(example, (left + column * step, top + title + row * step))
    return paper
