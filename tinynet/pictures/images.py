"""What happens to a picture before the net sees it? (paper, sections 2 and 4.1)

Shorter side to 256 pixels, the central 256 x 256 kept; for training a random crop, perhaps
mirrored, its colours shifted along the principal components of all pixels; for testing the
central crop. The mean image is subtracted.
"""
import errno
import io
import os
import stat
import threading
import warnings
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .. import rng
from ..errors import UserError

try:
    import simplejpeg
except (ImportError, ValueError):  # comes with the extras for GPUs; made for another NumPy
    simplejpeg = None

SIDE = 256
FITS = "crop", "squeeze"
# Of Pillow's forty kinds: for some of the others it starts another program.
KINDS = "JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM", "TIFF"
MOST_PIXELS = 1 << 26              # the largest picture of ILSVRC has 61 million
MOST_BYTES = 1 << 28               # of a file: as many pixels have that are not compressed
# What may be wrong with one path while the disk is well.
OF_ONE_PATH = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP,
               errno.ENAMETOOLONG, errno.ENXIO}
# Or with what is in it: a bad sector, or a damaged header that points before its beginning.
OF_ONE_FILE = {errno.EIO, errno.EINVAL, errno.EBADMSG, errno.EOVERFLOW}
one_large = threading.Lock()       # more than half of that is decoded one at a time
# In which entries of Image.info Pillow keeps how the camera was held.
ORIENTATIONS = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}

# Pillow warns of what is irregular, in the words of its own sources, and reads on.
warnings.filterwarnings("ignore", module=r"PIL\.")


class BrokenPicture(UserError):
    """A file that should be a picture and cannot be read."""


def broken(name, why):
    """The BrokenPicture of this name: what is wrong, in one line."""
    return BrokenPicture(f"{name}: not a readable picture ({' '.join(str(why).split())})")


def opened(path, name=None):
    """The file of a picture, open for reading. Raises OSError, and BrokenPicture for a pipe,
    a device and a file of more than MOST_BYTES."""
    def at_once(path, flags):                      # who opens a pipe waits for a writer else
        return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))

    file = open(path, "rb", opener=at_once)
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
        file.close()
        raise broken(name or path, f"no regular file of at most {MOST_BYTES:,} bytes")
    return file


def read(path, name=None, fit="crop", side=SIDE):
    """A picture file as (256, 256, 3) uint8: shorter side to 256, the central square.

    path: where it is, or the open file; `name` then tells in messages which one it is. fit:
    "squeeze" makes both sides 256, whatever the picture's shape. side: another number than 256.
    Grey, palette, CMYK, transparent and 16-bit pictures become RGB. A photograph is turned as
    its EXIF orientation says, so that it is seen as its viewer sees it; the pipelines that were
    published for ImageNet (Caffe's, torchvision's) take it as it is stored.

    Shrinking averages over what a pixel covers, with Pillow's bilinear filter: of 91 photographs
    of ImageNet the pixels were 0.98 grey levels away from exact averages over areas, 0.87 where
    the shorter side was 256 to 385 pixels and above 2.3 from 776 on, and on average neither
    darker nor lighter. Enlarging is cubic. Raises BrokenPicture, also for more than MOST_PIXELS;
    and OSError for what is not about this picture, such as too many open files.
    """
    large = False
    try:
        with (opened(path) if isinstance(path, str | os.PathLike) else nullcontext(path) as file,
              Image.open(file, formats=KINDS) as picture):
            most = MOST_PIXELS >> (picture.format == "WEBP")   # its decoder keeps three copies
            large = (pixels := picture.width * picture.height) > most // 2
            if pixels > most:
                raise ValueError(f"{pixels:,} pixels; the most that are read are {most:,}")
            with one_large if large else nullcontext():
                return _square(_upright(_rgb(picture)), fit, side)
    except UnidentifiedImageError as error:
        raise broken(name or path, "its beginning is that of no known kind") from error
    except Exception as error:                     # a damaged file can fail in any way
        if isinstance(error, OSError) and error.errno not in {None, *OF_ONE_FILE, *OF_ONE_PATH}:
            error.filename = str(name or path)     # none, if it was opened before
            raise
        if isinstance(error, BrokenPicture) or isinstance(error, MemoryError) and not large:
            raise                                  # is told already; or no fault of the picture
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise broken(name or path, why) from error


def read_stored(jpeg):
    """A JPEG that data/imagenet.py has stored, as bytes: the picture as `read` has it, to the bit
    if Pillow has a libjpeg-turbo as well (doctor says so).

    simplejpeg takes 60 % of Pillow's time, which decides how long a GPU waits.
    """
    picture = decoded(jpeg)
    return read(io.BytesIO(jpeg)) if picture is None else picture


def decoded(jpeg):
    """The same by simplejpeg. None if it is not there, or if anything is not as data/imagenet.py
    stores it: `read` then says what. It knows nothing of EXIF, of which nothing is stored."""
    if simplejpeg:
        with suppress(ValueError):
            if simplejpeg.decode_jpeg_header(jpeg)[:3] == (SIDE, SIDE, "YCbCr"):
                return simplejpeg.decode_jpeg(jpeg)
    return None


def _square(picture, fit, side):
    """The central square of a picture, or all of it, as a (side, side, 3) array."""
    shorter = min(picture.size)
    if fit == "crop":
        picture = _central(picture, *[min(length, 4 * shorter) for length in picture.size])
    wanted = [round(length * side / shorter) if fit == "crop" else side for length in picture.size]
    if picture.size != tuple(wanted):
        how = Image.Resampling.BILINEAR if shorter > side else Image.Resampling.BICUBIC
        picture = picture.resize(wanted, how)
    return np.asarray(_central(picture, side, side))


def _central(picture, width, height):
    if picture.size == (width, height):            # as all prepared pictures are: no copy
        return picture
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def _rgb(picture):
    """The picture loaded, as RGB. What it was loaded as is given up, for its memory."""
    if picture.mode.startswith("F"):
        raise ValueError("its pixels are floating-point numbers, and nothing says which is white")
    picture.load()
    picture.info.pop("transparency", None)         # which colour it is does not matter
    if picture.mode == "RGB":                      # to convert it would copy
        return picture
    if picture.mode.startswith("I"):               # 16 bits of grey: keep the upper 8
        picture = picture.convert("I").point([grey >> 8 for grey in range(1 << 16)], "L")
    rgb = picture.convert("RGB")
    picture.close()
    return rgb


def _upright(picture):
    """The loaded picture, turned as its camera was held."""
    if ORIENTATIONS.isdisjoint(picture.info):      # as of all prepared pictures: no copy
        return picture
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:                              # damaged EXIF can fail in any way
        return picture


@dataclass
class Statistics:
    """Of the training pictures: the mean image, and the principal components of RGB.

    mean: (256, 256, 3) float32. variances: (3,) eigenvalues of the pixels' covariance, in
    grey levels squared; components: (3, 3), a column each.
    """
    mean: np.ndarray
    variances: np.ndarray
    components: np.ndarray

    SHAPES = {"mean": (SIDE, SIDE, 3), "variances": (3,), "components": (3, 3)}

    def __post_init__(self):
        if self.variances.min() < 0:
            raise UserError(f"the variances of colours are negative: {self.variances}")


class Sums:
    """What Statistics follow from, summed over pictures one by one or in parts.

    All sums are of integers and, of five million pictures, below 2**53: their order does not
    matter.
    """

    def __init__(self):
        self.count = 0
        self.total = np.zeros((SIDE, SIDE, 3))
        self.products = np.zeros((3, 3))

    def add(self, total, products, count=1):
        """Add a picture and its colour_products, or the sums over `count` pictures."""
        self.count += count
        self.total += total
        self.products += products

    def statistics(self):
        """Raises UserError if nothing was added."""
        if self.count == 0:
            raise UserError("none of the training pictures can be read")
        pixels = self.count * SIDE * SIDE
        rgb = self.total.sum(axis=(0, 1)) / pixels
        covariance = self.products / pixels - np.outer(rgb, rgb)
        variances, components = np.linalg.eigh(covariance)
        return Statistics((self.total / self.count).astype(np.float32),
                          np.maximum(variances, 0), components)


def colour_products(picture):
    """Red times red, red times green and so on, summed over the pixels: (3, 3) float64."""
    pixels = picture.reshape(-1, 3).astype(np.float64)
    return pixels.T @ pixels


def statistics(pictures):
    """Statistics of an iterable of (256, 256, 3) uint8 pictures, in one pass."""
    sums = Sums()
    for picture in pictures:
        sums.add(picture, colour_products(picture))
    return sums.statistics()


class Place(NamedTuple):
    """Where a crop is cut out of a picture, and what else is done to it.

    top, left: its first row and column, in pixels. mirrored: left and right are swapped.
    shift: (3,) what is added to R, G, B, in grey levels; None: the colours are left alone.
    square: the part of the picture that is enlarged before; None: it is left as it is.
    """
    top: int
    left: int
    mirrored: bool = False
    shift: np.ndarray | None = None
    square: tuple | None = None


def enlarged(picture, square):
    """A (256, 256, 3) picture; or of it a square, (top, left, side), that is as large again."""
    if square is None:
        return picture
    top, left, side = square
    return np.asarray(Image.fromarray(picture).resize(
        (SIDE, SIDE), Image.Resampling.BILINEAR, (left, top, left + side, top + side)))


class Preparation:
    """From 256 x 256 pictures to what the net takes, as a recipe and a seed have it.

    What chance decides is decided here: the order of an epoch, and the places of its crops.
    """

    def __init__(self, recipe, statistics, seed=0):
        self.crop, self.scale, self.fit = recipe.crop, recipe.pixel_scale, recipe.fit
        self.augment, self.shuffle = recipe.augment, recipe.shuffle
        self.area = recipe.area if recipe.augment else 1.0
        self.pictures_per_place = recipe.share
        self.statistics, self.seed = statistics, seed
        self.means = statistics.mean, np.ascontiguousarray(statistics.mean[:, ::-1])
        if not 0 < self.crop <= SIDE:
            raise UserError(f"crops come from {SIDE} x {SIDE} pictures; "
                            f"--crop {self.crop} does not fit")
        self.centre = Place((SIDE - self.crop) // 2, (SIDE - self.crop) // 2)
        self.aligned = recipe.mean == "aligned"
        self.colour_epochs = recipe.colour_epochs
        self.shifts = self._shift_sizes(recipe)
        # The program divides what it has shifted, so that its size stays what it was.
        self.shrink = 1 + recipe.colour_sigma if recipe.colour == "stdev" else 1.0

    def _shift_sizes(self, recipe):
        """How far one unit of Gaussian noise shifts R, G, B along each component."""
        variances, components = self.statistics.variances, self.statistics.components
        if recipe.colour == "none":
            return None
        if recipe.colour == "stdev":   # the authors' program
            return recipe.colour_sigma * components * np.sqrt(variances)
        # The paper writes eigenvalues. Of pixels in 0 ... 255 that would be noise of 800
        # grey levels; of pixels in 0 ... 1, as everyone since has read it, 3.
        return recipe.colour_sigma * components * variances / 255

    def order(self, pictures, epoch):
        """In which order an epoch shows the pictures of a data set: their indices, (N,).

        It is another one in every epoch. If the recipe shuffles once, it is always that of
        the first; or that in which the pictures are stored, if they were shuffled then,
        which reads a disk from front to back.
        """
        if self.shuffle == "once":
            if pictures.shuffled:
                return np.arange(len(pictures))
            epoch = 0
        return rng.permutation(len(pictures), seed=self.seed, purpose=rng.ORDER, step=epoch)

    def places(self, indices, positions, epoch):
        """What chance decides for these pictures in this epoch: one Place each, a list.

        indices: which pictures they are; positions: where in the order of the epoch. A Place
        is a function of (seed, epoch, index), whoever asks, and when; where pictures in a row
        share their crops, of the position. It has no shift in epochs without colour noise.
        """
        of = dict(seed=self.seed, step=epoch)
        who = indices if self.pictures_per_place == 1 else positions // self.pictures_per_place
        words = rng.words(np, who, purpose=rng.CROP, **of)
        offsets = SIDE - self.crop + 1
        top, left = words[:, 0] % offsets, words[:, 1] % offsets
        mirrored = words[:, 2] % 2 == 1
        if not self.augment:
            top[:], left[:], mirrored[:] = self.centre[:3]
        shift = [None] * len(indices)
        if self.shifts is not None and epoch < self.colour_epochs:
            noise = rng.normal(rng.words(np, indices, purpose=rng.COLOUR, **of))
            shift = noise[:, :3] @ self.shifts.T
        square = [None] * len(indices)
        if self.area < 1:
            words = rng.words(np, indices, purpose=rng.SQUARE, **of)
            area = self.area + (1 - self.area) * rng.uniform(words[:, 0])
            side = np.rint(SIDE * np.sqrt(area)).astype(np.uint64)
            room = SIDE - side + 1
            square = list(zip(*(numbers.tolist() for numbers in (
                words[:, 1] % room, words[:, 2] % room, side)), strict=True))
        return list(map(Place, top.tolist(), left.tolist(), mirrored.tolist(), shift, square))

    def views(self, count):
        """The Places to test at. 1: the centre. 10: four corners, the centre, and the mirror
        images of the five (section 4.1), in the order of the 2012 program."""
        far = SIDE - self.crop
        five = (0, 0), (0, far), (far // 2, far // 2), (far, 0), (far, far)
        ten = [Place(top, left, mirrored) for mirrored in (False, True) for top, left in five]
        return {1: [self.centre], 10: ten}[count]

    def fill(self, picture, out, place):
        """Fill out (crop, crop, 3) float32, contiguous, with what is at a Place of a
        (256, 256, 3) picture, less the mean.

        Walking through pixels of three takes NumPy ten times as long as walking through
        rows of numbers, or through one colour after the other.
        """
        top, left, mirrored, shift, _ = place
        crop = picture[top:top + self.crop, left:left + self.crop]
        if mirrored:
            left = SIDE - self.crop - left             # where the crop is in the mirror image
            straight, crop = crop, np.empty(crop.shape, np.uint8)
            for colour in range(3):
                crop[..., colour] = straight[:, ::-1, colour]
        out[...] = crop
        rows = out.reshape(self.crop, -1)
        if not self.aligned:                           # nor is the mean mirrored then
            top, left, mirrored, *_ = self.centre
        mean = self.means[mirrored][top:top + self.crop].reshape(self.crop, -1)
        rows -= mean[:, 3 * left:3 * (left + self.crop)]
        if shift is not None:
            rows += np.tile(shift.astype(np.float32), self.crop)
        factor = self.factor(shift is not None)
        if factor != 1.0:
            rows *= np.float32(factor)

    def factor(self, is_shifted):
        """What multiplies the pixels in the end, of pictures with or without colour noise."""
        return self.scale / self.shrink if is_shifted else self.scale
