"""Files among ImageNet's that are no pictures, or odd ones."""
import io
import os

import numpy as np
import pytest
from PIL import Image

from data import imagenet
from sources import (
    COLOURS,
    WNIDS,
    file_of,
    lay_out,
    names,
    prepare,
    shaped,
)
from tinynet.errors import UserError
from tinynet.pictures import images, packed

# --- odd files --------------------------------------------------------------------------------


def palette():
    file = io.BytesIO()
    picture = Image.new("P", (300, 280), 1)
    picture.putpalette([0, 0, 0, *COLOURS[WNIDS[0]]])
    picture.save(file, "PNG", transparency=bytes([0, 128]))
    return file.getvalue()


def sixteen_bits():
    file = io.BytesIO()
    Image.fromarray(np.full((280, 300), 200 * 256, np.uint16)).save(file, "PNG")
    return file.getvalue()


ODD = {"grey.JPEG": (lambda: shaped("L", "JPEG"), "grey JPEG"),
       "cmyk.JPEG": (lambda: shaped("CMYK", "JPEG"), "CMYK JPEG"),
       "disguised.JPEG": (lambda: shaped("RGB", "PNG"), "RGB PNG"),
       "transparent.JPEG": (lambda: shaped("RGBA", "PNG"), "RGBA PNG"),
       "palette.png": (palette, "palette PNG"),
       "sixteen.png": (sixteen_bits, "16-bit grey PNG"),
       "long.JPEG": (lambda: file_of(WNIDS[0], size=(3000, 5)), None),
       "thin.png": (lambda: file_of(WNIDS[0], "PNG", size=(1, 400)), "RGB PNG"),
       "good.JPEG": (lambda: file_of(WNIDS[0]), None)}
BROKEN = {"empty.JPEG": lambda: b"",
          "truncated.JPEG": lambda: file_of(WNIDS[0])[:-300],
          "html.JPEG": lambda: b"<html>404 not found</html>",
          "head.JPEG": lambda: file_of(WNIDS[0])[:30]}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_picture_is_converted_and_listed(tmp_path, name):
    make, kind = ODD[name]
    source = lay_out(tmp_path / "source", {f"a/{name}": make(), "a/plain.JPEG": file_of(WNIDS[1])})
    counts = prepare(source, tmp_path / "target")["splits"]["train"]
    assert counts["pictures"] == 2 and counts["skipped"] == 0
    assert counts["converted"] == ({kind: 1} if kind else {})
    listed = (tmp_path / "target" / "converted.txt").read_text()
    assert listed == (f"a/{name}\t{kind}\n" if kind else "")
    train = packed.data_set(tmp_path / "target", "train")
    picture = train.read(names(train).index(f"a/{name}"))
    true = images.read(source / "a" / name)
    assert np.abs(picture.astype(int) - true).mean() < 2


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_picture_is_skipped_and_listed(tmp_path, name):
    source = lay_out(tmp_path / "source", {f"a/{name}": BROKEN[name](),
                                           "a/good.JPEG": file_of(WNIDS[0])})
    counts = prepare(source, tmp_path / "target")["splits"]["train"]
    assert (counts["pictures"], counts["skipped"], counts["converted"]) == (1, 1, {})
    listed = (tmp_path / "target" / "skipped.txt").read_text()
    assert listed.startswith(f"a/{name}\tnot a readable picture (") and listed.count("\n") == 1
    assert "0x" not in listed                     # an address would differ from run to run
    assert names(packed.data_set(tmp_path / "target", "train")) == ["a/good.JPEG"]


def test_all_odd_files_together_are_counted(tmp_path):
    files = {f"a/{name}": make() for name, (make, _) in ODD.items()}
    files |= {f"b/{name}": make() for name, make in BROKEN.items()}
    target = tmp_path / "target"
    counts = prepare(lay_out(tmp_path / "source", files), target, per_file=4)["splits"]["train"]
    assert counts["pictures"] == len(ODD) and counts["skipped"] == len(BROKEN)
    assert sum(counts["converted"].values()) == 7 and counts["converted"]["RGB PNG"] == 2
    assert len((target / "skipped.txt").read_text().splitlines()) == len(BROKEN)
    assert len((target / "converted.txt").read_text().splitlines()) == 7
    assert packed.data_set(target, "train").statistics.mean.max() > 0


def test_a_listed_file_that_is_missing_is_skipped_and_listed(tmp_path):
    source = lay_out(tmp_path / "source", {"train.txt": b"1.jpg 0\n2.jpg 0\n",
                                           "1.jpg": file_of(WNIDS[0])})
    prepare(source, tmp_path / "target")
    assert (tmp_path / "target" / "skipped.txt").read_text() == (
        "2.jpg\tnot a readable picture (No such file or directory)\n")


def test_nothing_but_broken_files_is_an_error(tmp_path):
    source = lay_out(tmp_path / "source", {"a/1.jpg": b"", "a/2.jpg": b""})
    with pytest.raises(UserError, match="none of the train pictures can be read.*jpg: not a"):
        imagenet.prepare(source, tmp_path / "target")


def test_names_of_every_kind_survive(tmp_path):
    odd = os.fsdecode(b"a/\xff\xfe x\ny.jpg")
    source = lay_out(tmp_path / "source", {odd: file_of(WNIDS[0]), "a/ü.jpg": b""})
    prepare(source, tmp_path / "target")
    assert names(packed.data_set(tmp_path / "target", "train")) == [odd]
    assert (tmp_path / "target" / "skipped.txt").read_text().startswith("a/ü.jpg\t")
