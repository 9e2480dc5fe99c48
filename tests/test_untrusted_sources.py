"""What harm can a source of pictures do that somebody else made? It is told in a line, or the
one picture is skipped and listed."""
import errno
import gzip
import os
import socket
import tarfile

import pytest

from data import imagenet, layouts, tars
from sources import (
    WNIDS,
    file_of,
    ilsvrc,
    kaggle,
    lay_out,
    mat_file,
    prepare,
    splits,
    structures,
    tar_of,
    val_name,
)
from tinynet.pictures import images

pytestmark = pytest.mark.usefixtures("alarm")


@pytest.fixture
def refused(tmp_path, capsys):
    """Whether preparing a source ends with 1 and one line on stderr, which holds these words."""
    def refused(source, *words):
        assert imagenet.main([str(source), str(tmp_path / "target")]) == 1
        said = capsys.readouterr().err
        assert said.startswith("imagenet.py: error: ") and said.count("\n") == 1
        assert all(word in said for word in words), said
        return True

    return refused


# --- single pictures --------------------------------------------------------------------------


def test_what_is_wrong_with_one_path_is_skipped_and_listed(tmp_path, monkeypatch):
    long = "long/" * 900 + "x.jpg"
    names = ["good.jpg", "pipe.jpg", "socket.jpg", "folder.jpg", "loop.jpg", "missing.jpg",
             "good.jpg/x.jpg", long]
    source = lay_out(tmp_path / "source", {
        "good.jpg": file_of(WNIDS[0]), "train.txt": "".join(f"{n} 0\n" for n in names).encode()})
    monkeypatch.chdir(source)                      # the name of a socket must be short
    os.mkfifo("pipe.jpg")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket.jpg")
    os.mkdir("folder.jpg")
    os.symlink("loop.jpg", "loop.jpg")
    about = imagenet.prepare(source, tmp_path / "target", workers=2)
    assert about["splits"]["train"]["pictures"] == 1
    listed = (tmp_path / "target" / "skipped.txt").read_text().splitlines()
    assert dict(line.split("\t") for line in listed) == {
        name: f"not a readable picture ({why})" for name, why in {
            "pipe.jpg": "no regular file of at most 268,435,456 bytes",
            "socket.jpg": "No such device or address", "folder.jpg": "Is a directory",
            "loop.jpg": "Too many levels of symbolic links",
            "missing.jpg": "No such file or directory", "good.jpg/x.jpg": "Not a directory",
            long: "File name too long"}.items()}


def fails_with(number, monkeypatch):
    """Let every picture called b.jpg fail to open with this error."""
    whole = images.opened

    def opened(path, name=None):
        if str(path).endswith("b.jpg"):
            raise OSError(number, os.strerror(number))
        return whole(path, name)

    monkeypatch.setattr(images, "opened", opened)


TWO = {"a/a.jpg": file_of(WNIDS[0]), "a/b.jpg": file_of(WNIDS[0])}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_picture_that_may_not_be_read_is_skipped_and_listed(tmp_path, monkeypatch, number):
    fails_with(number, monkeypatch)
    about = prepare(lay_out(tmp_path / "source", TWO), tmp_path / "target")
    assert (about["splits"]["train"]["pictures"], about["splits"]["train"]["skipped"]) == (1, 1)
    assert (tmp_path / "target" / "skipped.txt").read_text() == (
        f"a/b.jpg\tnot a readable picture ({os.strerror(number)})\n")


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE])
def test_a_disk_that_fails_ends_the_preparing(tmp_path, monkeypatch, refused, number):
    fails_with(number, monkeypatch)
    assert refused(lay_out(tmp_path / "source", TWO), "cannot read a/b.jpg", os.strerror(number),
                   "what is finished stays: run the same command again")
    assert not (tmp_path / "target" / "prepared.json").exists()


def test_a_picture_of_too_many_bytes_is_skipped_in_a_tar_as_in_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MOST_BYTES", 10_000)
    large = file_of(WNIDS[0], "BMP")
    source = ilsvrc(tmp_path / "tars")
    lay_out(source, {layouts.TARS[0]["val"]: tar_of({val_name(1): large,
                                                     val_name(2): file_of(WNIDS[0])})})
    lay_out(tmp_path / "folders", {"a/1.jpg": large, "a/2.jpg": file_of(WNIDS[0])})
    for name, split, first in ("tars", "val", val_name(1)), ("folders", "train", "a/1.jpg"):
        about = prepare(tmp_path / name, tmp_path / f"to {name}")
        assert about["splits"][split]["pictures"] == about["splits"][split]["skipped"] == 1
        listed = (tmp_path / f"to {name}" / "skipped.txt").read_text()
        assert listed.startswith(f"{first}\tnot a readable picture (") and "10,000" in listed


# --- lists and tables -------------------------------------------------------------------------


@pytest.mark.parametrize("content, line, words", [
    ("a.jpg 0\nstra\u00dfe.jpg 0\n".encode("latin-1"), 2, "is no line of text in UTF-8"),
    ("a.jpg 0\n".encode("utf-16"), 1, "is no line of text in UTF-8"),
    ("a.jpg 0\n".encode("utf-16-le"), 1, "is no line of text in UTF-8"),
    (b"a.jpg 0\nb\0.jpg 0\n", 2, "is no line of text in UTF-8"),
    (b"a.jpg 0\n" + b"x" * 70_000 + b" 0\n", 2, "is no line of text in UTF-8"),
    (b"a.jpg\n", 1, "'a.jpg' is not `path label`"),
    (b"a.jpg 0\n\nb.jpg -1\n", 3, "'b.jpg -1' is not `path label`"),
    (b"a.jpg 50000000\n", 1, "label 50000000 is too large: labels are 0 ... 1,048,575"),
    (b"a.jpg 99999999999\n", 1, "label 99999999999 is too large"),
    (b"a.jpg " + b"9" * 5000 + b"\n", 1, "label 999999999999999999 is too large")],
    ids=["latin-1", "UTF-16", "UTF-16 without a mark", "NUL", "a long line", "no label",
         "a label below zero", "a large label", "a larger one", "the largest"])
def test_a_list_that_is_none_is_told_with_its_line(tmp_path, refused, content, line, words):
    source = lay_out(tmp_path / "source", {"train.txt": content, "a.jpg": file_of(WNIDS[0])})
    assert refused(source, f"{source / 'train.txt'}, line {line}: ", words)


HEADER = b"ImageId,PredictionString\n"


@pytest.mark.parametrize("content, line, words", [
    (b"a,b\nc,n01440764 1 2 3 4\n", 1, "is not `ImageId,PredictionString`"),
    (HEADER + b"a,n01440764 1 2 3 4\nb\n", 3, "is not `ImageId,PredictionString`"),
    (HEADER + b"a, \n", 2, "is not `ImageId,PredictionString`"),
    (HEADER + b"a\0,n01440764\n", 2, "is no line of text in UTF-8"),
    (HEADER + b"\xff,n01440764\n", 2, "is no line of text in UTF-8"),
    (HEADER.decode().encode("utf-16"), 1, "is no line of text in UTF-8")],
    ids=["other columns", "a short row", "no prediction", "NUL", "latin-1", "UTF-16"])
def test_a_table_that_is_none_is_told_with_its_line(tmp_path, refused, content, line, words):
    source = lay_out(kaggle(tmp_path / "source"), {"LOC_val_solution.csv": content})
    assert refused(source, f"{source / 'LOC_val_solution.csv'}, line {line}: ", words)


def test_a_byte_order_mark_is_no_part_of_a_list_or_a_table(tmp_path):
    """As Excel and Windows save them."""
    table = kaggle(tmp_path / "kaggle") / "LOC_val_solution.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n"))
    prepare(tmp_path / "kaggle", tmp_path / "to kaggle")
    assert len(splits(tmp_path / "to kaggle")[1]) == 5
    lay_out(tmp_path / "lists", {"train.txt": b"\xef\xbb\xbf1.jpg 0\r\n",
                                 "1.jpg": file_of(WNIDS[0])})
    assert prepare(tmp_path / "lists", tmp_path / "to lists")["splits"]["train"]["skipped"] == 0


# --- tars -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["00000000", "-0000001", "x", "9" * 30])
def test_a_val_picture_whose_number_no_label_has_is_an_error(tmp_path, refused, number):
    source, name = ilsvrc(tmp_path / "source"), f"ILSVRC2012_val_{number}.JPEG"
    lay_out(source, {layouts.TARS[0]["val"]: tar_of({name: file_of(WNIDS[0])})})
    assert refused(source, f"{name} in the val tar: the devkit has labels for 5 pictures and not "
                           "for this one")


def header(size, kind=tarfile.REGTYPE):
    """The header of a file in a tar that claims to have so many bytes."""
    member = tarfile.TarInfo("n01440764_1.JPEG")
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


LONG_NAME = header(4, tarfile.GNUTYPE_LONGNAME) + b"name".ljust(512, b"\0")
LYING = {"as long as eight disks": header(8 << 40), "below nothing": header(-512),
         "a little below nothing": header(-1),
         "a long name of 8 TB": header(8 << 40, tarfile.GNUTYPE_LONGNAME),
         "a long name below nothing": header(-5000, tarfile.GNUTYPE_LONGNAME),
         "settings of 8 TB": header(8 << 40, tarfile.XHDTYPE),
         "names of names of names": LONG_NAME * 3000,
         "settings that are none": header(512, tarfile.XHDTYPE) + b"30 size=x\n".ljust(512, b"\0")}


@pytest.mark.parametrize("nested", [False, True], ids=["val", "in train"])
@pytest.mark.parametrize("name", LYING)
def test_a_tar_that_lies_is_told_at_once(tmp_path, refused, name, nested):
    content, part = LYING[name] + bytes(4096), "train" if nested else "val"
    source = ilsvrc(tmp_path / "source")
    path = source / layouts.TARS[0][part]
    path.write_bytes(tar_of({"n01440764.tar": content}) if nested else content)
    assert refused(source, f"{path} is no whole tar (", "is the download complete?")


def write_devkit(path, files):
    path.write_bytes(gzip.compress(tar_of({f"kit/data/{name}": content
                                           for name, content in files.items()})))


def test_no_more_of_a_devkit_is_unpacked_than_fits(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(tars, "DEVKIT", 1 << 16)
    source = ilsvrc(tmp_path / "source")
    write_devkit(source / layouts.TARS[0]["devkit"], {"zeros": bytes(1 << 20)})
    assert refused(source, "cannot read meta.mat", "it holds more than 65,536 bytes")


def test_a_file_of_a_devkit_that_is_too_large_is_not_read(tmp_path, refused, monkeypatch):
    source = ilsvrc(tmp_path / "source")
    write_devkit(source / layouts.TARS[0]["devkit"], {
        "meta.mat": bytes(9 << 20), "x_validation_ground_truth.txt": b"1\n"})
    assert refused(source, "cannot read meta.mat", "KeyError('meta.mat')")


@pytest.mark.parametrize("rows", [
    [{"ILSVRC2012_ID": 1, "WNID": 5, "words": "dog", "num_children": 0}],
    [{"ILSVRC2012_ID": 1, "WNID": "n1", "words": [1.0, 2.0], "num_children": 0}],
    [{"ILSVRC2012_ID": "one", "WNID": "n1", "words": "dog", "num_children": 0}],
    [{"WNID": "n1", "words": "dog", "num_children": 0}],
    [{"ILSVRC2012_ID": 1, "WNID": "n1", "words": "dog"}],
    [{"ILSVRC2012_ID": [], "WNID": "n1", "words": "dog", "num_children": 0}]])
def test_a_devkit_whose_classes_are_none_is_told(tmp_path, refused, rows):
    source = ilsvrc(tmp_path / "source")
    write_devkit(source / layouts.TARS[0]["devkit"], {
        "meta.mat": mat_file(structures("synsets", rows)), "x_validation_ground_truth.txt": b"1"})
    assert refused(source, "cannot read meta.mat and the validation labels")
