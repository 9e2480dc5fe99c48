"""What a file says is believed only if it has the form that was agreed: every failure is one
sentence that names the file and the field."""
import io
import json
import math
import zipfile

import numpy as np
import pytest

from command_line import SMALL, is_clean_error
from sources import image_folder, prepare
from tinynet import schema, store
from tinynet.errors import UserError
from tinynet.formats import reading, safetensors
from tinynet.pictures import packed
from tinynet.store import Checkpoint
from tinynet.training.saved import Saved

pytestmark = pytest.mark.usefixtures("alarm")


# --- forms ----------------------------------------------------------------------------------

FORM = {"n": range(3), "x": float, "s": (None, str), "l": [{"a": bool}], "d": {str: int}}
GOOD = {"n": 2, "x": 1, "l": [{"a": True}, {"a": False}], "d": {"b": 3}, "more": None}


@pytest.mark.parametrize("change, words", [
    ({}, None), ({"s": "text"}, None), ({"n": 3}, "n is 3"), ({"n": True}, "n is true"),
    ({"n": 1.0}, "n is 1.0"), ({"x": math.nan}, "x is NaN"), ({"x": "1"}, 'x is "1"'),
    ({"x": 10 ** 400}, "x is 1000"), ({"s": 3}, "s is 3"), ({"l": {}}, "l is {}"),
    ({"l": [{"a": True}, {"a": 1}]}, "l[1].a is 1"), ({"l": [{}]}, "l[0].a is null"),
    ({"d": {"b": "c"}}, 'd.b is "c"'), ({"d": []}, "d is []")], ids=str)
def test_a_value_of_another_form_is_named(change, words):
    if words is None:
        schema.check({**GOOD, **change}, FORM, "file")
    else:
        with pytest.raises(UserError) as error:
            schema.check({**GOOD, **change}, FORM, "file")
        assert str(error.value).startswith(f"file: {words}")


# --- checkpoints ------------------------------------------------------------------------------


def changed(folder, tmp_path, meta=(), arrays=()):
    """A copy of a checkpoint with some fields set, by path, and some arrays replaced."""
    saved = Checkpoint(folder)
    for path, value in dict(meta).items():
        *before, last = path.split(".")
        inside = saved.meta
        for name in before:
            inside = inside[name]
        inside[last] = value
    found = {**saved.arrays(""), **dict(arrays)}
    store.save(tmp_path / "odd.npz", found, saved.meta)
    return tmp_path / "odd.npz"


@pytest.mark.parametrize("field, value", [
    ("progress", []), ("progress.step", -1), ("progress.step", 1.5), ("progress.epoch", "1"),
    ("progress.lr", math.nan), ("progress.lowest_error", "low"), ("progress.plateau", [1]),
    ("progress.plateau", {"drops": "three"}), ("recipe", "paper"), ("recipe.towers", 3),
    ("progress.plateau", {"best": None, "bad": 1, "drops": 0}),
    ("recipe.kernels", [1, 2]), ("recipe.kernels", ["a"] * 5), ("recipe.kernels", 5),
    ("recipe.name", "mine"), ("recipe.lr", "fast"), ("recipe.bias", [math.inf] * 8),
    ("recipe.conv6", 1), ("recipe.crop", 10 ** 30), ("classes", None), ("classes", {}),
    ("classes", ["a", "a"]), ("classes", [1, 2]), ("classes", []), ("words", [1]),
    ("words", {"a": 1}), ("seed", "x"), ("seed", -1), ("data", None), ("data", 5),
    ("history", {}), ("history", [{"kind": "train"}]), ("unreported", [1, [2, "x"]])], ids=str)
def test_a_field_of_a_checkpoint_that_is_not_as_it_was_written_is_named(
        trained, tmp_path, field, value):
    odd = changed(trained.folder, tmp_path, {field: value})
    with pytest.raises(UserError) as error:
        Saved.of_alexnet(odd)
    name = field.partition(".")[0] if field.startswith("progress") else field.split(".")[-1]
    assert odd.name in str(error.value) and name in str(error.value)


def test_every_command_asks_the_same_of_a_checkpoint(run, trained, data, tmp_path):
    odd = changed(trained.folder, tmp_path, {"recipe.towers": 3})
    for words in (["predict", odd, data / "val" / "rays" / "0000.jpg"], ["test", odd, data],
                  ["train", data, "--resume", odd, "--output-dir", tmp_path / "run"],
                  ["export", odd, tmp_path / "net.safetensors"]):
        assert is_clean_error(run(*words), f"{odd.name}: towers is one of 1, 2, not 3")


@pytest.mark.parametrize("array, value, word", [
    ("weights/fc8.b", np.full(10, np.nan, np.float32), "not finite"),
    ("weights/fc8.b", np.full(10, np.inf, np.float32), "not finite"),
    ("weights/fc8.b", np.zeros(10, int), "int64"), ("weights/fc8.b", np.zeros(10, bool), "bool"),
    ("weights/fc8.b", np.zeros(10, complex), "complex"),
    ("weights/fc8.b", np.array(["a"] * 10), "<U1"), ("weights/fc8.b", np.zeros(9, "f4"), "(9,)"),
    ("weights/fc8.b", np.zeros(10, np.float16), "float16"),
    ("statistics/mean", np.zeros((256, 256), "f4"), "mean is (256, 256)"),
    ("statistics/variances", -np.ones(3), "negative")], ids=str)
def test_arrays_of_a_checkpoint_are_finite_floats_of_the_shapes_of_its_net(
        run, trained, data, tmp_path, array, value, word):
    odd = changed(trained.folder, tmp_path, arrays={array: value})
    assert is_clean_error(run("test", odd, data, "--device", "cpu"), word)


def bombs(path, kind):
    """A checkpoint that unpacks to more than it has bytes, or says that it has more."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, dict(descr="<f4", fortran_order=False,
                                                      shape=(1 << 40,)))
    store.save(path, {}, {})
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("weights/W.npy", header.getvalue() + bytes(1 << 24), compress_type=(
            zipfile.ZIP_DEFLATED if kind == "deflated" else zipfile.ZIP_STORED))


@pytest.mark.parametrize("kind, word", [("deflated", "it is compressed"), ("lying", "damaged")])
def test_a_file_takes_no_more_memory_than_it_has_bytes(tmp_path, kind, word):
    bombs(tmp_path / "bomb.npz", kind)
    with pytest.raises(UserError, match=word):
        Checkpoint(tmp_path / "bomb.npz").arrays("weights/")


def test_a_net_of_an_example_is_no_alexnet(run, data, tmp_path):
    store.save(tmp_path / "net.npz", {}, {"progress": {"epoch": 0, "position": 0, "step": 0},
                                          "settings": {"net": "80sec"}})
    assert is_clean_error(run("test", tmp_path / "net.npz", data), "a net of an example")


# --- .safetensors -----------------------------------------------------------------------------


def entry(start=0, shape=(4,), dtype="F32", **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, start + 16], **more}


DEEP = "[" * 100_000
@pytest.mark.parametrize("header, word", [
    ([], "its header: it is []"), ({"__metadata__": []}, "__metadata__ is []"),
    ({"__metadata__": {"a": 1}}, "__metadata__.a is 1"), (DEEP, "recursion"), ("{", "damaged"),
    ({"a": entry(), "b": entry(8)}, "b does not lie"), ({"a": entry(shape=[-1])}, "a.shape[0]"),
    ({"a": entry(shape=[5])}, "a does not lie"), ({"a": entry(dtype="I64")}, 'a.dtype is "I64"'),
    ({"a": entry(data_offsets=[0])}, "damaged"), ({"a": 3}, "a is 3"), ({}, "too early or too"),
    ('{"a": 1, "a": 2}', "occurs twice"), ({"a": entry(shape=["x"])}, 'a.shape[0] is "x"'),
    ({"a": entry(shape=[2, 1 << 62])}, "a.shape[1]")], ids=lambda value: str(value)[:40])
def test_a_safetensors_file_is_as_its_header_says(tmp_path, header, word):
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    (tmp_path / "net.safetensors").write_bytes(
        len(text).to_bytes(8, "little") + text + np.ones(4, "<f4").tobytes())
    with pytest.raises(UserError) as error:
        reading.arrays(tmp_path / "net.safetensors")
    assert word in str(error.value) and "net.safetensors" in str(error.value)


@pytest.mark.parametrize("name, text", [
    *(("classes", text) for text in ("cat", "[1]", "{}", DEEP)), ("recipe", "[]"),
    ("recipe", DEEP)], ids=lambda text: text[:7])
def test_what_a_safetensors_file_tells_of_its_net_is_looked_at(run, data, tmp_path, name, text):
    safetensors.write(tmp_path / "net.safetensors", {"fc8.bias": np.zeros(10)}, {name: text})
    assert is_clean_error(run("train", data, *SMALL, "--output-dir", tmp_path / "run",
                              "--init-from", tmp_path / "net.safetensors"), name)


def test_numbers_of_a_safetensors_file_are_finite(tmp_path):
    safetensors.write(tmp_path / "net.safetensors", {"a": np.array([np.nan])}, {})
    with pytest.raises(UserError, match="a holds numbers that are not finite"):
        reading.arrays(tmp_path / "net.safetensors")


# --- packed pictures ----------------------------------------------------------------------------


@pytest.fixture
def prepared(tmp_path):
    """A prepared folder."""
    prepare(image_folder(tmp_path / "source"), tmp_path / "target")
    return tmp_path / "target"


@pytest.mark.parametrize("field, value", [
    ("classes", None), ("classes", [1]), ("words", None), ("words", {"a": 1}), ("splits", None),
    ("splits", {"train": 3}), ("splits", {"train": {"files": -1}}),
    ("splits", {"train": {"files": 0}})], ids=str)
def test_a_field_of_prepared_json_is_named(prepared, field, value):
    path = prepared / packed.PREPARED
    path.write_text(json.dumps(dict(json.loads(path.read_text()), **{field: value})))
    with pytest.raises(UserError, match=f"{packed.PREPARED}: {field}.*prepare the pictures again"):
        packed.data_set(prepared, "train")


@pytest.mark.parametrize("odd", [None, [], {"skipped": []}, {"skipped": [], "converted": [3]},
                                 {"skipped": [["a"]], "converted": []}], ids=str)
def test_the_notes_of_a_file_are_names_with_reasons(prepared, odd):
    saved = Checkpoint(prepared / "train-00000.npz")
    store.save(saved.path, saved.arrays("", kinds="fiu"), {"odd": odd})
    with pytest.raises(UserError, match="train-00000.npz: odd.*prepare the pictures again"):
        packed.Shard(prepared, "train", 0).sums_and_notes()


def test_files_that_are_not_there_take_no_time(prepared):
    path = prepared / packed.PREPARED
    about = json.loads(path.read_text())
    about["splits"]["train"]["files"] = 10 ** 12
    path.write_text(json.dumps(about))
    with pytest.raises(UserError, match="no such picture index"):
        packed.data_set(prepared, "train")


@pytest.mark.parametrize("name, change", [
    ("labels", lambda labels: labels - 1), ("labels", lambda labels: labels + 1),
    ("labels", lambda labels: labels[:-1]), ("labels", lambda labels: labels[:, None]),
    ("labels", lambda labels: labels.astype(float)), ("lengths", lambda lengths: -lengths)])
def test_labels_and_lengths_of_an_index_are_those_of_its_pictures(prepared, name, change):
    path = prepared / "train-00000.npz"
    saved = Checkpoint(path)
    arrays = saved.arrays("", kinds="fiu")
    arrays[f"index/{name}"] = change(arrays[f"index/{name}"])
    store.save(path, arrays, saved.meta)
    with pytest.raises(UserError, match=r"train-00000.npz.*prepare the pictures again"):
        packed.data_set(prepared, "train")
