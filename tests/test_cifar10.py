"""CIFAR-10 is read from any layout, and never executed."""
import functools
import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from data import cifar10
from tinynet.errors import UserError

ROWS = np.random.default_rng(0).integers(0, 256, (12, 3073)).astype(np.uint8)
ROWS[:, 0] %= 10
NAMES = [*cifar10.TRAIN, cifar10.TEST]


def batch(part, key=str.encode):
    """Two rows as the python layout has them."""
    rows = ROWS[2 * part:2 * part + 2]
    return {key("labels"): rows[:, 0].tolist(), key("data"): rows[:, 1:].copy()}


PICKLED = functools.partial(pickle.dumps, protocol=2)


def python_layout(folder, dumps=PICKLED, key=str.encode):
    folder.mkdir()
    for part, name in enumerate(NAMES):
        (folder / name).write_bytes(dumps(batch(part, key)))
    return folder


def binary_layout(folder):
    folder.mkdir()
    for part, name in enumerate(NAMES):
        (folder / (name + ".bin")).write_bytes(ROWS[2 * part:2 * part + 2].tobytes())
    return folder


def packed(folder, archive, mode="w:gz"):
    with tarfile.open(archive, mode) as tar:
        tar.add(folder, folder.name)
    return archive


def check(path):
    train, test = cifar10.load(path)
    assert train.labels.tolist() == ROWS[:10, 0].tolist()
    assert test.labels.tolist() == ROWS[10:, 0].tolist()
    for images, rows in (train.images, ROWS[:10]), (test.images, ROWS[10:]):
        assert images.dtype == np.uint8 and images.shape == (len(rows), 32, 32, 3)
        for y, x, colour in (0, 0, 0), (0, 1, 0), (1, 0, 1), (31, 31, 2):
            assert np.array_equal(images[:, y, x, colour],
                                  rows[:, 1 + 1024 * colour + 32 * y + x])


class Python2(pickle._Pickler):
    """Writes byte strings as Python 2 wrote its str."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_bytes(self, content):
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)

    dispatch[bytes] = save_bytes


def as_python_2(value):
    file = io.BytesIO()
    Python2(file, protocol=2).dump(value)
    return renamed(file.getvalue(), b"numpy.core")


def renamed(content, module):
    """A pickle as a NumPy writes it whose modules are called numpy.core or numpy._core."""
    names = b"numpy.core.multiarray", b"numpy._core.multiarray"
    assert any(name in content for name in names)
    for name in names:
        content = content.replace(b"c" + name + b"\n", b"c" + module + b".multiarray\n")
    return content


@pytest.mark.parametrize("key", [str, str.encode])
@pytest.mark.parametrize("protocol", range(2, 6))
def test_the_python_layout_is_read_in_every_protocol_of_pickle(tmp_path, protocol, key):
    check(python_layout(tmp_path / "a", lambda value: pickle.dumps(value, protocol), key))


@pytest.mark.parametrize("protocol", [0, 1])
def test_of_a_protocol_of_the_nineties_one_hears_what_to_do(tmp_path, protocol):
    folder = python_layout(tmp_path / "a", lambda value: pickle.dumps(value, protocol))
    with pytest.raises(ValueError, match="no pickle of protocol 2 to 5; write it again"):
        cifar10.load(folder)


@pytest.mark.parametrize("module", [b"numpy.core", b"numpy._core"])
def test_it_does_not_matter_what_numpy_calls_its_module(tmp_path, module):
    check(python_layout(tmp_path / "a", lambda value: renamed(pickle.dumps(value, 2), module)))


def test_files_of_python_2_are_read(tmp_path):
    assert b"_codecs" not in as_python_2(batch(0))
    check(python_layout(tmp_path / "a", as_python_2))


def test_an_array_stored_by_columns_is_read(tmp_path):
    def dumps(value):
        return pickle.dumps({name: np.asfortranarray(item) for name, item in value.items()}, 2)
    check(python_layout(tmp_path / "a", dumps))


def test_the_binary_layout_and_both_archives_are_read(tmp_path):
    python = python_layout(tmp_path / "cifar-10-batches-py")
    binary = binary_layout(tmp_path / "cifar-10-batches-bin")
    check(binary)
    check(packed(python, tmp_path / "python.tar.gz"))
    check(packed(binary, tmp_path / "binary.tar.gz"))
    check(packed(binary, tmp_path / "not compressed.tar", "w"))


def test_it_is_found_in_a_named_folder_in_tinynet_data_and_at_home(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "HOME", tmp_path / "home")
    monkeypatch.setenv("TINYNET_DATA", str(tmp_path / "data"))
    assert cifar10.find() is None
    with pytest.raises(ValueError, match="python data/cifar10.py"):
        cifar10.load()
    home = python_layout(tmp_path / "home")
    assert cifar10.find() == home
    (tmp_path / "data").mkdir()
    there = binary_layout(tmp_path / "data" / "cifar-10-batches-bin")
    assert cifar10.find() == there
    named = packed(there, tmp_path / "other.tar.gz")
    assert cifar10.find(named) == named
    with pytest.raises(ValueError, match="holds no CIFAR-10"):
        cifar10.find(tmp_path / "nowhere")


def test_another_copy_is_read_with_a_warning(tmp_path, capsys, monkeypatch):
    folder = python_layout(tmp_path / "a")
    check(folder)
    said = " ".join(capsys.readouterr().err.split())
    assert "the md5 of data_batch_1, data_batch_2" in said
    monkeypatch.setattr(cifar10, "PUBLISHED", {
        name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in NAMES})
    check(folder)
    assert capsys.readouterr().err == ""


class Evil:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        function, *arguments = self.call
        return function, tuple(arguments)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("call, named", [
    ((os.mkdir, "hit"), "mkdir"), ((eval, "__import__('os').mkdir('hit')"), "eval"),
    ((np.fromfile, "hit"), "fromfile")])
def test_a_pickle_that_wants_to_do_something_is_refused(tmp_path, monkeypatch, call, named,
                                                        protocol):
    monkeypatch.chdir(tmp_path)
    folder = python_layout(tmp_path / "a")
    evil = dict(batch(0), data=Evil(*call))
    (folder / "data_batch_2").write_bytes(pickle.dumps(evil, protocol))
    with pytest.raises(ValueError, match=f"data_batch_2 is .* not to be trusted.*{named}"):
        cifar10.load(folder)
    assert not (tmp_path / "hit").exists()


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("data, said", [
    (np.array([None, "text"]), "an array of many objects"),
    (np.array(None), "does not hold rows of 3,072 pixels"),
    (np.zeros((2, 3072), np.float32), "an array of f4, not of u1 or u2"),
    (np.zeros((2, 3072), [("a", "u1")]), "an array of V1, not of u1")])
def test_an_array_of_anything_but_integers_is_refused(tmp_path, protocol, data, said):
    folder = python_layout(tmp_path / "a")
    evil = dict(batch(0), data=data)
    (folder / "data_batch_2").write_bytes(pickle.dumps(evil, protocol))
    with pytest.raises(ValueError, match=said):
        cifar10.load(folder)


def test_damaged_files_are_named(tmp_path):
    folder = python_layout(tmp_path / "a")
    whole = (folder / "data_batch_3").read_bytes()
    ragged = pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [[1], [2, 3]]})
    for content in (whole[:-2000], b"", b"\x80\x02N.", pickle.dumps({"data": np.zeros((2, 9))}),
                    ragged):
        (folder / "data_batch_3").write_bytes(content)
        with pytest.raises(ValueError, match="data_batch_3"):
            cifar10.load(folder)
    (folder / "data_batch_3").unlink()
    with pytest.raises(ValueError, match="lacks data_batch_3"):
        cifar10.load(folder)
    archive = packed(folder, tmp_path / "a.tar.gz")
    archive.write_bytes(archive.read_bytes()[:5000])
    with pytest.raises(ValueError, match="a.tar.gz is damaged"):
        cifar10.load(archive)
    archive = tmp_path / "a.tar.xz"
    with tarfile.open(archive, "w:xz") as tar:
        tar.add(folder, "cifar-10-batches-py")
    content = bytearray(archive.read_bytes())
    content[-2000:-1900] = bytes(100)                  # far behind what is read to open it
    archive.write_bytes(content)
    with pytest.raises(ValueError, match="a.tar.xz is damaged"):
        cifar10.load(archive)
    binary = binary_layout(tmp_path / "b")
    (binary / "test_batch.bin").write_bytes(b"12")
    with pytest.raises(ValueError, match="test_batch.bin is damaged"):
        cifar10.load(binary)


@pytest.mark.parametrize("name, size, said", [
    ("cifar-10-batches-py/data_batch_1", 64 << 20, None),
    ("cifar-10-batches-py/data_batch_1", (64 << 20) + 1, "data_batch_1 is not CIFAR-10's"),
    ("zeros", 600 << 20, "zeros is not CIFAR-10's: it has 629,145,600 bytes"),
    ("zeros", 8 << 40, "zeros is not CIFAR-10's: it has 8,796,093,022,208 bytes"),
    ("zeros", -512, "zeros is not CIFAR-10's: it has -512 bytes")])
@pytest.mark.usefixtures("alarm")
def test_what_an_archive_claims_to_hold_is_not_read_beyond_a_bound(tmp_path, name, size, said):
    member = tarfile.TarInfo(name)
    member.size = size
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(4096)))
    with pytest.raises(UserError) as error:
        list(cifar10.files(path))
    assert (said or "a.tar.gz is damaged or no archive") in str(error.value)


@pytest.mark.usefixtures("alarm")
def test_an_archive_as_a_whole_is_not_read_beyond_a_bound(tmp_path, monkeypatch):
    archive = packed(binary_layout(tmp_path / "a"), tmp_path / "a.tar.gz")
    monkeypatch.setattr(cifar10, "MOST", 30_000)
    with pytest.raises(UserError, match=r"a.tar.gz is not CIFAR-10's: .* and 30,000 are the most"):
        list(cifar10.files(archive))
    long = tarfile.TarInfo("x")
    long.size, long.type = 3 << 30, tarfile.GNUTYPE_LONGNAME
    archive.write_bytes(gzip.compress(long.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 22)))
    with pytest.raises(UserError, match="^[^\n]*a header of 3,221,225,472 bytes[^\n]*$"):
        list(cifar10.files(archive))


def test_a_file_in_a_folder_is_not_read_beyond_a_bound(tmp_path):
    folder = binary_layout(tmp_path / "a")
    with open(folder / "data_batch_2.bin", "wb") as file:
        file.truncate(1 << 40)                     # a hole: it takes no room on the disk
    with pytest.raises(UserError, match="data_batch_2.bin is not CIFAR-10's: it has 1,099,511"):
        cifar10.load(folder)


def test_the_command_says_what_it_found(tmp_path, capsys):
    assert cifar10.main(["--from", str(binary_layout(tmp_path / "b"))]) == 0
    assert "10 pictures to learn from and 2 to test with" in capsys.readouterr().out
    assert cifar10.main(["--from", str(tmp_path / "nowhere")]) == 1
    assert "holds no CIFAR-10" in capsys.readouterr().err


def test_the_real_files_hold_the_same_pictures_in_both_layouts(real_pictures):
    parts = []
    for name in ("cifar-10-batches-py/test_batch", "cifar-10-batches-bin/test_batch.bin"):
        if not (real_pictures / name).is_file():
            pytest.skip(f"there is no {real_pictures / name}")
        parts.append(cifar10.decode((real_pictures / name).read_bytes(), name))
    python, binary = parts
    assert np.bincount(python.labels).tolist() == [1000] * 10
    assert np.array_equal(python.images, binary.images)
    assert np.array_equal(python.labels, binary.labels)
