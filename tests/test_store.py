"""Checkpoints: what is saved comes back, and nothing that was saved is ever lost."""
import io
import os
import shutil
import signal
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from helpers import ROOT
from tinynet import store
from tinynet.errors import UserError
from tinynet.store import Checkpoint, second_name

SHAPES = {"conv.W": (11, 11, 3, 8), "conv.b": (8,), "empty": (0, 3), "one": ()}
META = {"classes": ["cat", "Käfer"], "lr": 0.1 + 0.2, "step": 7, "best": float("inf"),
        "nested": {"kernels": [48, 128], "none": None}}


def some_arrays(seed=0):
    draw = np.random.default_rng(seed)
    return {f"weights/{name}": np.asarray(draw.standard_normal(shape), np.float32)
            for name, shape in SHAPES.items()}


@pytest.fixture
def path(tmp_path):
    """A saved checkpoint."""
    store.save(tmp_path / "last.npz", some_arrays(), META)
    return tmp_path / "last.npz"


def everything(path):
    saved = Checkpoint(path)
    return saved.meta, saved.arrays("weights/", SHAPES)


def is_whole(path, seed=0):
    _, arrays = everything(path)
    return all(np.array_equal(arrays[name], some_arrays(seed)["weights/" + name])
               for name in SHAPES)


def test_what_is_saved_comes_back(path):
    meta, arrays = everything(path)
    assert meta == {"format": store.FORMAT, **META}
    for name, array in some_arrays().items():
        back = arrays[name.removeprefix("weights/")]
        assert np.array_equal(back, array) and back.dtype == np.float32


def test_no_pickle_is_needed(path):
    with np.load(path, allow_pickle=False) as file:
        assert len(file.files) == len(SHAPES) + 1
        assert not any(file[name].dtype.hasobject for name in file.files)


def test_a_folder_stands_for_its_last_checkpoint(path):
    assert Checkpoint(path.parent).path == path
    assert is_whole(path.parent)


def test_saving_again_replaces_and_leaves_nothing_else(path):
    store.save(path, some_arrays(1), META)
    assert is_whole(path, seed=1)
    assert list(path.parent.iterdir()) == [path]


# --- files that are no checkpoint -----------------------------------------------------


def refused(path):
    """The message with which a file is refused, on opening or on reading."""
    with pytest.raises(UserError) as error:
        everything(path)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(path, share):
    content = path.read_bytes()
    path.write_bytes(content[:int(share * len(content))])
    assert "truncated" in refused(path)


def test_a_flipped_bit_in_the_middle_of_an_array_is_noticed(path):
    with zipfile.ZipFile(path) as file:
        entry = file.getinfo("weights/conv.W.npy")
    content = bytearray(path.read_bytes())
    content[entry.header_offset + entry.file_size // 2] ^= 1
    path.write_bytes(content)
    assert "damaged" in refused(path)


# Offsets within a zip entry's header: version, flags (bit 0: encrypted), method.
@pytest.mark.parametrize("offset, value", [(6, 255), (8, 1), (8, 32), (10, 99),
                                           (10, 12)])
def test_a_damaged_directory_is_noticed(path, offset, value):
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + offset] = value
    path.write_bytes(content)
    assert "damaged" in refused(path)


def test_every_damaged_byte_is_noticed_or_does_no_harm(path):
    content = path.read_bytes()
    everywhere = range(0, len(content), 97)
    directory = range(content.index(b"PK\x01\x02"), len(content), 2)
    for i in [*everywhere, *directory]:
        changed = bytearray(content)
        changed[i] ^= 1 << i % 8
        path.write_bytes(changed)
        try:
            assert is_whole(path), i
        except UserError:
            pass


@pytest.mark.parametrize("content", [b"", b"PK", b"These are words.\n", b"\x80\x04N.",
                                     b"\x93NUMPY"],
                         ids=["empty", "two bytes", "text", "pickle", "npy header"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "file.npz").write_bytes(content)
    assert "pickle" not in refused(tmp_path / "file.npz")      # NumPy would advise to trust it


def test_a_foreign_npz_is_refused(tmp_path):
    np.savez(tmp_path / "foreign.npz", W=np.zeros(3))
    assert "no checkpoint" in refused(tmp_path / "foreign.npz")


@pytest.mark.parametrize("meta", ['{"format": "tinynet 99"}', "[]", "words", "3"])
def test_a_foreign_meta_entry_is_refused(tmp_path, meta):
    np.savez(tmp_path / "foreign.npz", meta=np.array(meta))
    refused(tmp_path / "foreign.npz")


@pytest.mark.parametrize("meta", [np.zeros(3), np.array(3.0), np.array(b"{}"),
                                  np.array([None], dtype=object)],
                         ids=["numbers", "number", "bytes", "object"])
def test_a_meta_entry_that_is_no_text_is_refused(tmp_path, meta):
    np.savez(tmp_path / "foreign.npz", meta=meta)
    refused(tmp_path / "foreign.npz")


def test_a_plain_zip_file_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "meta.zip", "w") as file:
        file.writestr("meta", "{}")
    refused(tmp_path / "meta.zip")


def test_a_name_that_occurs_twice_is_refused(path):
    with zipfile.ZipFile(path, "a") as npz, pytest.warns(UserWarning, match="Duplicate name"):
        npz.writestr("meta.npy", npz.read("meta.npy"))
    with pytest.raises(UserError, match="has a name twice"):
        Checkpoint(path)


def test_a_shape_that_is_left_to_numpy_is_refused(path):
    content = path.read_bytes()
    with zipfile.ZipFile(path, "w") as npz:
        npz.writestr("meta.npy", zipfile.ZipFile(io.BytesIO(content)).read("meta.npy"))
        for name, array in some_arrays().items():
            entry = io.BytesIO()
            np.lib.format.write_array(entry, array)
            npz.writestr(f"{name}.npy", entry.getvalue().replace(b"(11, 11", b"(-1, 11"))
    assert "conv.W has other bytes than float32 in the shape (-1, 11, 3, 8)" in refused(path)


def test_an_npy_file_is_refused(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    assert "no checkpoint" in refused(tmp_path / "array.npy")


def test_a_missing_file_or_an_empty_folder_is_refused(tmp_path):
    assert "no such checkpoint" in refused(tmp_path / "nowhere.npz")
    with pytest.raises(UserError, match="last.npz.*no such checkpoint"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("change, word", [
    ({"conv.b": (9,)}, "conv.b is .*8.*9"), ({"conv.W": (11, 11, 8, 3)}, "conv.W"),
    ({"fc8.W": (2, 2)}, "fc8.W"), ({"one": None}, "one")],
    ids=["other shape", "other order", "one is missing", "one too many"])
def test_another_net_is_refused(path, change, word):
    shapes = {name: shape for name, shape in {**SHAPES, **change}.items()
              if shape is not None}
    with pytest.raises(UserError, match=f"last.npz holds another net: .*{word}"):
        Checkpoint(path).arrays("weights/", shapes)


def test_a_shape_of_none_fits_any_array(path):
    arrays = Checkpoint(path).arrays("weights/", dict.fromkeys(SHAPES))
    assert {name: array.shape for name, array in arrays.items()} == SHAPES


def test_what_is_saved_is_on_the_disk_before_it_has_its_name(path, monkeypatch):
    """And so is the name, before anybody hears of it."""
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append(
        "folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file") or fsync(file))
    monkeypatch.setattr(os, "replace", lambda *names: done.append("name") or replace(*names))
    store.save(path, some_arrays(), META)
    assert done == ["file", "name", "folder"]


# --- writing that fails ---------------------------------------------------------------


class Full:
    """An array that cannot be written any more."""

    def __array__(self, dtype=None, copy=None):
        raise OSError(28, "No space left on device")


def test_a_failing_write_leaves_the_previous_file_untouched(path):
    before = path.read_bytes()
    with pytest.raises(OSError, match="No space left"):
        store.save(path, {**some_arrays(1), "velocity/conv.W": Full()}, META)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def child(program, *arguments):
    """Another Python, in the project's folder, which prints what it has to say."""
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)],
                            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)


def test_a_file_that_grows_too_large_leaves_the_previous_one_untouched(path):
    before = path.read_bytes()
    process = child("""
import resource, sys
import numpy as np
from tinynet import store
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    store.save(sys.argv[1], {"weights/W": np.ones(1_000_000)}, {})
except OSError as error:
    print(type(error).__name__)
""", path)
    out, err = process.communicate()
    assert (out, err, process.returncode) == ("OSError\n", "", 0)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(OSError):
        store.save(tmp_path / "nowhere" / "last.npz", some_arrays(), META)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here")
def test_kill_9_in_the_middle_of_writing_leaves_the_previous_file_whole(path):
    before = path.read_bytes()
    process = child("""
import sys, time
import numpy as np
from tinynet import store

class Slow:
    def __array__(self, dtype=None, copy=None):
        print("half written", flush=True)
        time.sleep(60)

arrays = {"weights/W": np.ones(1_000_000), "weights/b": Slow()}
store.save(sys.argv[1], arrays, {})
""", path)
    assert process.stdout.readline() == "half written\n"
    process.kill()
    process.communicate()
    aside = [other for other in path.parent.iterdir() if other != path]
    assert len(aside) == 1 and aside[0].stat().st_size > 1_000_000
    assert path.read_bytes() == before and is_whole(path)


# --- second names ---------------------------------------------------------------------


def test_a_copy_survives_the_source_being_replaced(path):
    copy = path.with_name("best.npz")
    second_name(path, copy)
    assert is_whole(copy)
    store.save(path, some_arrays(1), META)
    assert is_whole(copy, seed=0) and is_whole(path, seed=1)
    path.unlink()
    assert is_whole(copy, seed=0)


def test_a_copy_replaces_an_older_one(path):
    copy = path.with_name("best.npz")
    for seed in 1, 2:
        store.save(path, some_arrays(seed), META)
        second_name(path, copy)
    assert is_whole(copy, seed=2)
    assert sorted(path.parent.iterdir()) == [copy, path]


def test_a_copy_may_lie_on_another_file_system(path):
    other = Path("/dev/shm")
    if not os.access(other, os.W_OK) or os.stat(other).st_dev == os.stat(path).st_dev:
        pytest.skip("/dev/shm is not a file system of its own here")
    folder = other / f"tinynet-{os.getpid()}"
    folder.mkdir()
    try:
        second_name(path, folder / "best.npz")
        store.save(path, some_arrays(1), META)
        assert is_whole(folder / "best.npz", seed=0)
    finally:
        shutil.rmtree(folder)


def test_a_copy_that_fails_leaves_the_older_one_untouched(path):
    copy = path.with_name("best.npz")
    second_name(path, copy)
    with pytest.raises(OSError):
        second_name(path.with_name("nothing.npz"), copy)
    assert is_whole(copy)
    assert sorted(path.parent.iterdir()) == [copy, path]
