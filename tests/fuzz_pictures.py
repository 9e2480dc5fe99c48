"""Pictures, damaged and odd, and what lies among pictures that is none.

Whole pictures of the formats that dataset.ENDINGS names must be read, whatever their mode; files
of other formats, special files and text must be refused when they are named. A run, and
data/imagenet.py, must go on whatever lies in a folder of a class beside whole pictures.
"""
import io
import os
import shutil
import struct
import zlib

import numpy as np
from PIL import Image

from fuzzing import ACCEPTED, EITHER, REFUSED, damaged, flipped, one, truncated
from tinynet.pictures import images


def saved(mode, kind, size=(70, 60), **how):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(file, kind, **how)
    return file.getvalue()


def of_array(array, kind, **how):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **how)
    return file.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[0x112] = orientation
    return tags.tobytes()


def frames(kind):
    more = [Image.new("P", (70, 60), number) for number in range(3)]
    return saved("P", kind, save_all=True, append_images=more)


GREY_16 = np.arange(70 * 60, dtype=np.uint16).reshape(60, 70) * 15
WHOLE = {
    **{f"{mode} jpeg": lambda mode=mode: saved(mode, "JPEG") for mode in ("L", "RGB", "CMYK")},
    "progressive": lambda: saved("RGB", "JPEG", progressive=True),
    "mpo": lambda: saved("RGB", "MPO", save_all=True, append_images=[Image.new("RGB", (9, 9))]),
    **{f"exif {way}": lambda way=way: saved("RGB", "JPEG", exif=exif(way)) for way in (0, 6, 99)},
    **{f"{mode} png": lambda mode=mode: saved(mode, "PNG")
       for mode in ("1", "L", "LA", "P", "RGB", "RGBA")},
    "16 bit png": lambda: of_array(GREY_16, "PNG"),
    "trns": lambda: saved("P", "PNG", transparency=bytes(range(256))),
    "trns rgb": lambda: saved("RGB", "PNG", transparency=(1, 2, 3)),
    "apng": lambda: frames("PNG"), "gif": lambda: frames("GIF"), "webp": lambda: frames("WEBP"),
    "1x1": lambda: saved("RGB", "PNG", (1, 1)), "thin": lambda: saved("RGB", "PNG", (900, 1)),
    **{f"{mode} bmp": lambda mode=mode: saved(mode, "BMP") for mode in ("1", "L", "P", "RGB")},
    "lossless webp": lambda: saved("RGBA", "WEBP", lossless=True),
    **{f"{mode} ppm": lambda mode=mode: saved(mode, "PPM") for mode in ("1", "L", "RGB")},
    **{f"{way} tiff": lambda way=way: saved("RGB", "TIFF", compression=way)
       for way in ("raw", "tiff_lzw", "jpeg", "tiff_adobe_deflate", "packbits")},
    "16 bit tiff": lambda: of_array(GREY_16, "TIFF"), "cmyk tiff": lambda: saved("CMYK", "TIFF")}
Image.init()
FOREIGN = [kind for kind in ("AVIF", "JPEG2000", "ICO", "TGA", "EPS", "BLP", "PCX", "SGI", "ICNS",
                             "DDS", "PDF", "XBM", "IM", "SPIDER")
           if kind in Image.SAVE]              # Pillow writes AVIF since 11.3, and not everywhere


def foreign(kind):
    mode = {"BLP": "P", "XBM": "1", "SPIDER": "F"}.get(kind, "RGB")
    return saved(mode, kind, (64, 64))


def chunk(name, content):
    return (struct.pack(">I", len(content)) + name + content
            + struct.pack(">I", zlib.crc32(name + content)))


def png(width, height, bits, colour, rows):
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(
        ">IIBBBBB", width, height, bits, colour, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def bomb(rng):
    """Much said or meant by few bytes."""
    side = one(rng, [9_000, 12_000, 30_000, 65_535, 1 << 30])
    short = struct.pack("<HH", min(side, 65_535), min(side, 65_535))
    return one(rng, [
        lambda: png(side, side, 8, 2, b"\0" * 1000),
        lambda: png(side, side, 1, 0, b"\0" * 1000),
        lambda: png(12_000, 12_000, 1, 0, bytes(12_000 * 1501)),
        lambda: png(9, 9, 8, 2, bytes(100_000_000)),
        lambda: b"P6 %d %d 255\n" % (side, side) + bytes(100),
        lambda: b"P3 %d %d 255\n" % (side, side) + b"1 " * 100,
        lambda: b"P6 " + b"9" * 5000 + b" 1 255\n",
        lambda: b"GIF89a" + short + b"\x80\0\0" + bytes(6) + b",\0\0\0\0" + short + b"\0\2\1\0\0;",
        lambda: saved("RGB", "BMP").replace(struct.pack("<II", 70, 60),
                                            struct.pack("<II", side, side)),
        lambda: flipped(saved("RGB", "JPEG"), rng, 150, 180),
        lambda: saved("RGB", "PNG")[:33] + chunk(b"zTXt", b"x\0\0" + zlib.compress(
            bytes(100_000_000))) + saved("RGB", "PNG")[33:],
        lambda: saved("RGB", "PNG")[:33] + chunk(b"iCCP", b"x\0\0" + zlib.compress(
            bytes(100_000_000))) + saved("RGB", "PNG")[33:]])()


NONE = [b"", b"\0" * 1000, b"GIF89a", b"\xff\xd8\xff", b"words\n" * 99, b"<svg/>", b"P6 x", b"BM",
        b"II*\0\x08\0\0\0\xff\xff", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]


def content(rng):
    """The name of what it is, the bytes, and whether they are to be read."""
    kind, name = rng.random(), one(rng, WHOLE)
    if kind < 0.3:
        return name, WHOLE[name](), ACCEPTED
    if kind < 0.45:
        return f"{name} truncated", truncated(WHOLE[name](), rng), EITHER
    if kind < 0.65:
        return f"{name} damaged", damaged(WHOLE[name](), rng), EITHER
    if kind < 0.7:
        return "float tiff", of_array(GREY_16 / np.float32(99), "TIFF"), EITHER
    if kind < 0.85:
        name = one(rng, FOREIGN)
        whole = foreign(name)
        return (name, whole, REFUSED) if kind < 0.78 else (
            f"{name} damaged", damaged(whole, rng), EITHER)
    if kind < 0.93:
        return "bomb", bomb(rng), EITHER
    return "none", one(rng, [*NONE, rng.bytes(999)]), REFUSED


def pictures(base, rng, folder):
    what, data, expected = content(rng)
    how = one(rng, ["read", "read", "predict", "train", "prepare"])
    ending = one(rng, [".jpg", ".JPEG", ".png", ".tif"])
    path = place(base, folder, how) / f"x{ending}"
    path.write_bytes(data)
    return f"{how}: {what} as {path.name}", *reading(base, folder, how, path, expected)


def special(base, rng, folder):
    """What the name of a picture can stand for beside a file."""
    how = one(rng, ["read", "predict", "train", "prepare"])
    path = place(base, folder, how) / "x.jpg"
    kind = one(rng, ["fifo", "loop", "dangling", "folder", "zero", "link", "tty", "memory"])
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(base.picture)
    else:
        path.symlink_to({"loop": path.name, "dangling": "nowhere", "zero": "/dev/zero",
                         "tty": "/dev/tty", "memory": "/proc/self/mem"}[kind])
    expected, job = reading(base, folder, how, path, ACCEPTED if kind == "link" else REFUSED)
    if kind == "memory" and how == "prepare":          # a file, of a disk that fails, it seems
        expected = EITHER
    return f"{how}: {kind}", expected, job


def place(base, folder, how):
    """The folder in which the input lies: for a run, that of a class of a whole set."""
    if how not in ("train", "prepare"):
        return folder
    shutil.copytree(base.pictures, folder / "set")
    return next((folder / "set" / "train").iterdir())


def reading(base, folder, how, path, expected):
    if how == "read":
        return expected, base.calling(images.read, path)
    if how == "predict":
        return expected, base.alexnet("predict", base.run, path, *base.CPU)
    return ACCEPTED, (base.train if how == "train" else base.prepare)(folder / "set")
