"""What harm can a picture's file do that somebody else made? It is refused, at once, in a line."""
import io
import os
import socket
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, PpmImagePlugin

from helpers import environment, smooth
from pictures import COLOURED, plain, saved
from tinynet.pictures import dataset, images

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"


def refused(path, *words):
    with pytest.raises(images.BrokenPicture) as error:
        images.read(path)
    said = str(error.value)
    assert said.startswith(f"{path}: not a readable picture (") and "\n" not in said
    assert all(word in said for word in words), said
    return True


# --- kinds ------------------------------------------------------------------------------------


def test_the_kinds_that_are_read_are_those_that_a_folder_is_searched_for():
    Image.init()
    assert {Image.EXTENSION[ending] for ending in dataset.ENDINGS} == set(images.KINDS)


def test_no_other_program_is_started_for_a_picture(tmp_path, monkeypatch):
    """Pillow starts Ghostscript for an EPS, whatever its name."""
    started = tmp_path / "started"
    (tmp_path / "gs").write_text(f"#!/bin/sh\necho > '{started}'\nexit 1\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    (tmp_path / "holiday.jpg").write_bytes(EPS)
    assert refused(tmp_path / "holiday.jpg", "no known kind")
    assert not started.exists()


def test_a_photograph_that_holds_a_second_one_is_read(tmp_path):
    """As some telephones write them: a JPEG, and behind it one for its depth or its colours."""
    path = tmp_path / "telephone.jpg"
    plain().save(path, "MPO", save_all=True, append_images=[plain(colour=(0, 0, 0))])
    with Image.open(path) as picture:
        assert picture.format == "MPO"
    assert np.abs(images.read(path) - np.array(COLOURED)).max() < 3


@pytest.mark.parametrize("ending", ["tif", "ppm"])
def test_a_picture_of_floating_point_numbers_is_refused_and_not_read_as_black(tmp_path, ending):
    depth, path = np.float32(smooth(300, 280)[..., 0] / 255), tmp_path / f"depth.{ending}"
    words = "floating-point numbers, and nothing says which is white"
    if ending == "tif":
        saved(Image.fromarray(depth), path)
    else:
        path.write_bytes(b"Pf %d %d -1 " % depth.shape[::-1] + depth.tobytes())
        if b"Pf" not in PpmImagePlugin.MODES:          # Pillow before 10.3
            words = "no known kind"
    assert refused(path, words)


@pytest.mark.parametrize("error, words", [
    (RuntimeError("Decode error:\ncolr"), "Decode error: colr"), (AssertionError(), "Assertion"),
    (EOFError("end"), "end"), (struct.error("short"), "short"), (zlib.error("-3"), "-3")])
def test_a_decoder_may_fail_in_any_way(tmp_path, monkeypatch, error, words):
    def load(picture):
        raise error

    path = saved(plain(), tmp_path / "damaged.png")
    monkeypatch.setattr(Image.Image, "load", load)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    assert refused(path, words)


def test_a_memory_that_is_full_is_no_fault_of_a_small_picture(tmp_path, monkeypatch):
    def load(picture):
        raise MemoryError

    path = saved(plain(), tmp_path / "plain.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(MemoryError):
        images.read(path)
    monkeypatch.setattr(images, "MOST_PIXELS", 90_000)         # and it has 89,600
    assert refused(path, "MemoryError")


def test_what_pillow_warns_of_is_not_printed(tmp_path):
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\x63"        # it ends too early
    path = saved(smooth(300, 280), tmp_path / "telephone.jpg", exif=exif)
    program = f"from tinynet.pictures import images; images.read({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", program], env=environment(), text=True,
                          capture_output=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")


# --- size -------------------------------------------------------------------------------------


def png(width, height, content=b""):
    """The header of a PNG, and what it may claim without holding it."""
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(
            ">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content)
            + chunk(b"IEND", b""))


def test_too_many_pixels_are_told_from_the_header(tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)          # nobody decodes it
    path = tmp_path / "poster.png"
    path.write_bytes(png(8192, 8193))
    assert refused(path, "67,117,056 pixels; the most that are read are 67,108,864")
    path.write_bytes(png(60_000, 60_000))
    assert refused(path, "3600000000 pixels")


def test_of_a_webp_half_as_many_are_read(tmp_path, monkeypatch):
    """Its decoder keeps three copies."""
    monkeypatch.setattr(images, "MOST_PIXELS", 100_000)                # and it has 89,600
    assert images.read(saved(plain(), tmp_path / "a.png")).shape == (256, 256, 3)
    assert refused(saved(plain(), tmp_path / "a.webp"), "the most that are read are 50,000")


def test_the_largest_picture_of_ilsvrc_is_within_the_bound(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    path.write_bytes(png(7_800, 7_800))
    assert refused(path, "truncated")


def test_large_pictures_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MOST_PIXELS", 100_000)
    path, inside, most = saved(plain(), tmp_path / "a.png"), [], []
    whole = images._rgb

    def rgb(picture):
        inside.append(1)
        most.append(len(inside))
        try:
            threading.Event().wait(0.02)
            return whole(picture)
        finally:
            inside.pop()

    monkeypatch.setattr(images, "_rgb", rgb)
    threads = [threading.Thread(target=images.read, args=(path,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]


def test_a_file_of_too_many_bytes_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "film.jpg"
    with open(path, "wb") as file:
        file.truncate(1 << 40)                     # a hole: it takes no room on the disk
    assert refused(path, "no regular file of at most 268,435,456 bytes")


# --- what is no file --------------------------------------------------------------------------


def make(kind, path):
    """What is no regular file, under the name of a picture."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    else:
        path.mkdir()
    return path


WRONG = {"pipe": "no regular file", "socket": "No such device or address",
         "device": "no regular file", "loop": "Too many levels of symbolic links",
         "folder": "Is a directory"}


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)                    # the name of a socket must be short
    path = make(kind, Path("x.jpg"))
    assert refused(path, WRONG[kind])


@pytest.mark.usefixtures("alarm")
def test_predict_does_not_wait_at_a_pipe(run, trained, tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    done = run("predict", trained.folder / "last.npz", tmp_path / "x.jpg")
    assert done.code == 1
    assert "x.jpg: not a readable picture (no regular file" in done.err.splitlines()[-1]


def test_the_bytes_of_a_picture_that_is_open_already_are_read():
    file = io.BytesIO()
    plain().save(file, "PNG")
    assert (images.read(file) == COLOURED).all()
