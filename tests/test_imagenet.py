"""ImageNet, in whichever form people have it, becomes the same packed data set."""
import io
import json
import os
import signal
import struct
import subprocess
import sys
import tarfile
import zlib

import numpy as np
import pytest
from PIL import Image

from data import imagenet, layouts, matlab
from helpers import ROOT, environment, reference, smooth
from tinynet.errors import UserError
from tinynet.pictures import images, packed

WNIDS = ["n01440764", "n02084071", "n07747607"]
COLOURS = {"n01440764": (220, 40, 60), "n02084071": (30, 200, 90), "n07747607": (70, 60, 210)}
WORDS = {"n01440764": "tench, Tinca tinca", "n02084071": "dog, Canis", "n07747607": "orange"}


def file_of(wnid, kind="JPEG", size=(300, 280), mode="RGB", **how):
    """The bytes of a picture in the colour of its class."""
    file = io.BytesIO()
    Image.new("RGB", size, COLOURS[wnid]).convert(mode).save(file, kind, **how)
    return file.getvalue()


def lay_out(folder, files):
    """name -> bytes, as files in a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def train_files(count=3):
    return {f"{wnid}/{wnid}_{n}.JPEG": file_of(wnid) for wnid in WNIDS for n in range(count)}


def are_of_their_classes(pictures):
    """Whether every picture has the colour of its class: labels and pictures belong together."""
    return len(pictures) > 0 and all(
        np.abs(pictures.read(index)[128, 128] - np.array(COLOURS[pictures.classes[label]])).max()
        < 6 for index, label in enumerate(pictures.labels))


def names(pictures):
    return [pictures.name(index) for index in range(len(pictures))]


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}


def prepare(source, target, **options):
    """Prepare, and see to it that nothing in the source has changed."""
    before = contents(source)
    about = imagenet.prepare(source, target, workers=2, **options)
    assert contents(source) == before
    return about


def splits(target):
    return packed.data_set(target, "train"), packed.data_set(target, "val")


# --- MATLAB files ---------------------------------------------------------------------------


def element(kind, content, order="<"):
    if 0 < len(content) <= 4 and kind < 14:           # as MATLAB does
        return struct.pack(order + "I", len(content) << 16 | kind) + content.ljust(4, b"\0")
    return struct.pack(order + "II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(kind, shape, *parts, name="", order="<"):
    return element(14, b"".join([
        element(6, struct.pack(order + "II", kind, 0), order),
        element(5, struct.pack(f"{order}{len(shape)}i", *shape), order),
        element(1, name.encode(), order), *parts]), order)


def as_matrix(value, order="<"):
    if isinstance(value, str):
        encoding = "utf-16-le" if order == "<" else "utf-16-be"
        return matrix(4, (1, len(value)), element(4, value.encode(encoding), order), order=order)
    if isinstance(value, int):                        # a double that is stored in one byte
        code = "BB" if value < 256 else "HH"
        stored = struct.pack(order + code[0], value)
        return matrix(6, (1, 1), element(2 if value < 256 else 4, stored, order), order=order)
    numbers = np.array(value, order + "f8")
    return matrix(6, (1, len(value)), element(9, numbers.tobytes(), order), order=order)


def structures(name, rows, order="<"):
    """An array of structures, a dict each, (rows, 1)."""
    fields = b"".join(field.encode().ljust(32, b"\0") for field in rows[0])
    return matrix(2, (len(rows), 1), element(5, struct.pack(order + "i", 32), order),
                  element(1, fields, order),
                  *[as_matrix(value, order) for row in rows for value in row.values()],
                  name=name, order=order)


def mat_file(*variables, order="<", compressed=True):
    header = b"MATLAB 5.0 MAT-file, made up".ljust(124)
    if compressed:                                    # these are not filled up to eight bytes
        variables = [struct.pack(order + "II", 15, len(z)) + z
                     for z in (zlib.compress(variable) for variable in variables)]
    return header + struct.pack(order + "HH", 0x0100, 0x4D49) + b"".join(variables)


@pytest.mark.parametrize("compressed", [True, False], ids=["compressed", "plain"])
@pytest.mark.parametrize("order", "<>", ids=["little-endian", "big-endian"])
def test_a_matlab_file_is_read(order, compressed):
    rows = [{"ID": 1, "words": "dog, Canis", "children": [2.5, -3.0], "none": []},
            {"ID": 1860, "words": "", "children": [7.0], "none": []}]
    data = mat_file(structures("synsets", rows, order), structures("more", rows[:1], order),
                    order=order, compressed=compressed)
    found = matlab.load(data)
    assert list(found) == ["synsets", "more"] and len(found["synsets"]) == 2
    for row, expected in zip(found["synsets"], rows, strict=True):
        assert list(row) == list(expected)
        assert row["ID"].tolist() == [expected["ID"]] and row["words"] == expected["words"]
        assert row["children"].tolist() == expected["children"] and row["none"].size == 0


def test_matlab_files_that_are_none_are_told():
    whole = mat_file(structures("synsets", [{"ID": 1}]))
    for damaged in b"", b"PK" * 100, whole[:-9], whole[:150], whole[:140] + b"xx" + whole[142:]:
        with pytest.raises(ValueError, match="MAT-file"):
            matlab.load(damaged)


# --- layouts ----------------------------------------------------------------------------------

# The devkit's numbers are in no order; what has children is no class.
NUMBERS = {"n02084071": 1, "n07747607": 2, "n01440764": 3, "n00001740": 4}
VAL = ["n07747607", "n01440764", "n02084071", "n01440764", "n07747607"]


def tar_of(files):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def val_name(number, year=2012):
    return f"ILSVRC{year}_val_{number:08d}.JPEG"


def ilsvrc(folder, year=2012):
    """The three tars as ImageNet hands them out, small: names, nesting and devkit."""
    train = {f"{wnid}.tar": tar_of({f"{wnid}_{n}.JPEG": file_of(wnid) for n in range(3)})
             for wnid in reversed(WNIDS)}
    val = {val_name(number, year): file_of(wnid) for number, wnid in enumerate(VAL, 1)}
    rows = [{f"ILSVRC{year}_ID": number, "WNID": wnid, "words": WORDS.get(wnid, "entity"),
             "gloss": "", "num_children": 3 if wnid not in WNIDS else 0,
             "children": [1.0, 2.0, 3.0] if wnid not in WNIDS else [],
             "wordnet_height": 0, "num_train_images": 1300} for wnid, number in NUMBERS.items()]
    truth = "".join(f"{NUMBERS[wnid]}\n" for wnid in VAL)
    paths = dict(zip(("train", "val", "devkit"), layouts.TARS[year == 2010].values(),
                     strict=True))
    root = paths["devkit"].removesuffix(".tar.gz")
    lay_out(folder, {paths["train"]: tar_of(train), paths["val"]: tar_of(val)})
    with tarfile.open(folder / paths["devkit"], "w:gz") as tar:
        for name, content in {"readme.txt": b"", "data/meta.mat": mat_file(
                structures("synsets", rows)), f"data/ILSVRC{year}_validation_ground_truth.txt":
                truth.encode()}.items():
            member = tarfile.TarInfo(f"{root}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return folder


@pytest.mark.parametrize("year", [2012, 2010])
def test_the_ilsvrc_tars_are_prepared_with_the_devkits_labels(tmp_path, year):
    prepare(ilsvrc(tmp_path / "source", year), tmp_path / "target")
    train, val = splits(tmp_path / "target")
    assert train.classes == val.classes == WNIDS and train.descriptions == WORDS
    assert sorted(names(train)) == sorted(f"{wnid}.tar/{wnid}_{n}.JPEG"
                                          for wnid in WNIDS for n in range(3))
    assert names(val) == [val_name(number, year) for number in range(1, 6)]
    assert [val.classes[label] for label in val.labels] == VAL
    assert are_of_their_classes(train) and are_of_their_classes(val)


@pytest.mark.parametrize("part, left", [("train", ["val"]), ("val", ["train"]),
                                        ("devkit", ["train"])])
def test_a_tar_that_is_missing_is_named_and_the_rest_prepared(tmp_path, capsys, part, left):
    source = ilsvrc(tmp_path / "source")
    (source / layouts.TARS[0][part]).unlink()
    about = prepare(source, tmp_path / "target")
    assert list(about["splits"]) == left and about["classes"] == WNIDS
    assert f"{layouts.TARS[0][part]} is missing" in capsys.readouterr().out
    assert are_of_their_classes(packed.data_set(tmp_path / "target", left[0]))


@pytest.mark.parametrize("part", ["train", "val", "devkit"])
@pytest.mark.parametrize("keep", [0.1, 0.5])
def test_a_truncated_tar_is_a_clear_error(tmp_path, part, keep):
    path = ilsvrc(tmp_path / "source") / layouts.TARS[0][part]
    data = path.read_bytes()
    path.write_bytes(data[:int(keep * len(data))])
    with pytest.raises(UserError, match=f"{path.name}.*is the download complete"):
        imagenet.prepare(tmp_path / "source", tmp_path / "target")


def test_a_tar_cut_between_two_pictures_is_a_clear_error(tmp_path):
    path = ilsvrc(tmp_path / "source") / layouts.TARS[0]["val"]
    with tarfile.open(path) as tar:
        third = tar.getmembers()[2].offset
    path.write_bytes(path.read_bytes()[:third])
    with pytest.raises(UserError, match="it has no end mark"):
        imagenet.prepare(tmp_path / "source", tmp_path / "target")


def test_more_val_pictures_than_labels_are_an_error(tmp_path):
    source = ilsvrc(tmp_path / "source")
    (source / layouts.TARS[0]["val"]).write_bytes(tar_of({val_name(6): file_of(WNIDS[0])}))
    with pytest.raises(UserError, match="has labels for 5 pictures and not for this one"):
        imagenet.prepare(source, tmp_path / "target")


def test_check_compares_md5(tmp_path, monkeypatch, capsys):
    source = ilsvrc(tmp_path / "source")
    with pytest.raises(UserError, match="img_train.tar: its md5 is [0-9a-f]{32} and should be 1d"):
        layouts.check(source)
    for path in source.iterdir():
        done = subprocess.run(["md5sum", path], capture_output=True, text=True, check=True)
        monkeypatch.setitem(layouts.MD5, path.name, done.stdout.split()[0])
    capsys.readouterr()
    layouts.check(source)
    assert capsys.readouterr().out.count("md5 is right") == 3
    with pytest.raises(UserError, match="has none of"):
        layouts.check(tmp_path)


def kaggle(folder):
    files = {f"ILSVRC/Data/CLS-LOC/train/{name}": data for name, data in train_files().items()}
    files |= {f"ILSVRC/Data/CLS-LOC/val/{val_name(n)}": file_of(w) for n, w in enumerate(VAL, 1)}
    table = "ImageId,PredictionString\n" + "".join(
        f"{val_name(number)[:-5]},{VAL[number - 1]} 1 2 300 400 {VAL[number - 1]} 5 6 7 8 \n"
        for number in (3, 1, 5, 2, 4))
    mapping = "".join(f"{wnid} {words}\n" for wnid, words in WORDS.items())
    return lay_out(folder, files | {"LOC_val_solution.csv": table.encode(),
                                    "LOC_synset_mapping.txt": mapping.encode()})


def test_kaggles_tree_is_prepared(tmp_path):
    prepare(kaggle(tmp_path / "source"), tmp_path / "target")
    train, val = splits(tmp_path / "target")
    assert train.classes == WNIDS and train.descriptions == WORDS
    assert [val.classes[label] for label in val.labels] == VAL
    assert len(train) == 9 and are_of_their_classes(train) and are_of_their_classes(val)


def test_kaggles_tree_without_its_table_has_no_val(tmp_path, capsys):
    source = kaggle(tmp_path / "source")
    (source / "LOC_val_solution.csv").unlink()
    assert list(prepare(source, tmp_path / "target")["splits"]) == ["train"]
    assert "LOC_val_solution.csv is missing" in capsys.readouterr().out


@pytest.mark.parametrize("inside", [True, False], ids=["from train and val", "from SRC"])
def test_caffes_lists_keep_their_numbers(tmp_path, capsys, inside):
    numbers = {"n02084071": 0, "n07747607": 1, "n01440764": 2}
    at = {split: f"{split}/" if inside else f"pictures {split}/" for split in ("train", "val")}
    files = {at["train"] + name: data for name, data in train_files().items()}
    files |= {at["val"] + val_name(n): file_of(w) for n, w in enumerate(VAL, 1)}
    prefix = {split: "" if inside else at[split] for split in at}
    files["train.txt"] = "".join(f"{prefix['train']}{name} {numbers[name[:9]]}\n"
                                 for name in train_files()).encode()
    files["val.txt"] = "".join(f"{prefix['val']}{val_name(number)} {numbers[wnid]}\n"
                               for number, wnid in enumerate(VAL, 1)).encode()
    files["synset_words.txt"] = "".join(f"{w} {WORDS[w]}\n" for w in WNIDS).encode()
    prepare(lay_out(tmp_path / "source", files), tmp_path / "target")
    train, val = splits(tmp_path / "target")
    assert train.classes == list(numbers) and train.descriptions == WORDS
    assert are_of_their_classes(train) and are_of_their_classes(val)
    assert [val.classes[label] for label in val.labels] == VAL
    assert "in the order of their numbers (not sorted)" in capsys.readouterr().out


def test_caffes_flat_lists_take_their_classes_from_the_words(tmp_path):
    files = {f"val/{val_name(n)}": file_of(wnid) for n, wnid in enumerate(VAL, 1)}
    files["val.txt"] = "".join(f"{val_name(number)} {WNIDS.index(wnid)}\n"
                               for number, wnid in enumerate(VAL, 1)).encode()
    source = lay_out(tmp_path / "source", files)
    assert prepare(source, tmp_path / "bare")["classes"] == ["0000", "0001", "0002"]
    lay_out(source, {"synset_words.txt": "".join(f"{w} {WORDS[w]}\n" for w in WNIDS).encode()})
    assert prepare(source, tmp_path / "target")["classes"] == WNIDS
    assert are_of_their_classes(packed.data_set(tmp_path / "target", "val"))


def test_a_line_that_is_no_path_and_label_is_named(tmp_path):
    lay_out(tmp_path / "source", {"train.txt": b"a.jpg 0\nb.jpg one\n"})
    with pytest.raises(UserError, match="train.txt, line 2: 'b.jpg one' is not `path label`"):
        imagenet.prepare(tmp_path / "source", tmp_path / "target")


def image_folder(folder, count=3):
    files = {f"train/{name}": data for name, data in train_files(count).items()}
    files |= {f"val/{wnid}/{val_name(n)}": file_of(wnid) for n, wnid in enumerate(VAL, 1)}
    return lay_out(folder, files | {"train/notes.txt": b"", "train/n01440764/.x.jpg": b""})


@pytest.mark.parametrize("file", ["words.txt", "synset_words.txt", "LOC_synset_mapping.txt"])
def test_folders_of_classes_are_prepared(tmp_path, file):
    source = image_folder(tmp_path / "source")
    space = "\t" if file == "words.txt" else " "
    lay_out(source, {file: "".join(f"{w}{space}{WORDS[w]}\n" for w in WORDS).encode()})
    prepare(source, tmp_path / "target")
    train, val = splits(tmp_path / "target")
    assert train.classes == val.classes == WNIDS and train.descriptions == WORDS
    assert (len(train), len(val)) == (9, 5)
    expected = images.statistics(train.read(index) for index in range(9))
    assert np.array_equal(train.statistics.mean, expected.mean)
    assert are_of_their_classes(train) and are_of_their_classes(val)


def test_folders_that_are_no_classes_and_files_that_are_left_out_are_named(tmp_path, capsys):
    source = image_folder(tmp_path / "source")
    lay_out(source, {"train/n01440764/1.heic": b"", "train/n01440764/more/2.jpg": b""})
    (source / "train" / "__MACOSX").mkdir()
    about = prepare(source, tmp_path / "target")
    assert about["classes"] == WNIDS
    said = capsys.readouterr().err
    assert "__MACOSX" in said and "1 .heic, 1 in folders within a class" in said


def test_a_photograph_is_packed_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6                                  # turn it to the right to see it upright
    picture = np.uint8(smooth(300, 280))
    Image.fromarray(picture).save(file := io.BytesIO(), "PNG", exif=exif)
    Image.fromarray(np.rot90(picture, -1)).save(upright := io.BytesIO(), "PNG")
    for name, content in ("stored", file), ("upright", upright):
        prepare(lay_out(tmp_path / name, {"a/1.png": content.getvalue()}), tmp_path / f"to {name}")
    packs = [(tmp_path / f"to {name}" / "train-00000.pack").read_bytes()
             for name in ("stored", "upright")]
    assert packs[0] == packs[1]


def test_a_val_class_that_train_does_not_have_is_an_error(tmp_path):
    source = image_folder(tmp_path / "source")
    lay_out(source, {"val/n09999999/1.jpg": file_of(WNIDS[0])})
    with pytest.raises(UserError, match="val has pictures of n09999999"):
        imagenet.prepare(source, tmp_path / "target")


def test_one_folder_of_classes_is_a_training_set(tmp_path):
    source = lay_out(tmp_path / "source", train_files(10))
    assert prepare(source, tmp_path / "all")["splits"].keys() == {"train"}
    prepare(source, tmp_path / "target", val_share=0.2)
    train, val = splits(tmp_path / "target")
    assert (len(train), len(val)) == (24, 6)
    assert sorted(names(train) + names(val)) == sorted(train_files(10))
    assert are_of_their_classes(train) and are_of_their_classes(val)


def test_a_share_is_held_back_of_a_tar_as_well_but_not_where_there_is_val(tmp_path):
    source = ilsvrc(tmp_path / "source")
    with pytest.raises(UserError, match="leave --val-share out"):
        imagenet.prepare(source, tmp_path / "target", val_share=0.2)
    (source / layouts.TARS[0]["val"]).unlink()
    prepare(source, tmp_path / "target", val_share=0.2)
    train, val = splits(tmp_path / "target")
    assert (len(train), len(val)) == (7, 2)
    assert are_of_their_classes(train) and are_of_their_classes(val)


def test_an_unknown_layout_shows_what_is_there_and_what_is_wanted(tmp_path):
    source = lay_out(tmp_path / "source", {"train/1.jpg": b"", "val/2.jpg": b"", "x.txt": b""})
    with pytest.raises(UserError) as error:
        imagenet.prepare(source, tmp_path / "target")
    assert "train/\n    val/\n    x.txt" in str(error.value)
    assert layouts.TREES in str(error.value)
    assert not (tmp_path / "target").exists()


# --- pixels -----------------------------------------------------------------------------------


def pixels_of(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), np.float64)


def is_true_to(source, target, sample, stored_as):
    """Compare prepared pixels with their float64 reference and all statistics with NumPy."""
    about = imagenet.prepare(source, target)
    train = packed.data_set(target, "train")
    found = layouts.look(source).splits["train"]
    before, after = [], []
    for index in range(0, len(train), sample):
        true = reference(pixels_of(source / train.name(index)))
        made = images.read(source / train.name(index))
        before.append(np.abs(made - true).mean())
        after.append(np.abs(train.read(index).astype(float) - made).mean())
    assert np.mean(before) < 1 and np.mean(after) < stored_as
    assert sorted(names(train)) == sorted(found.names)
    place = dict(zip(found.names, found.labels, strict=True))
    assert all(place[name] == label for name, label in zip(names(train), train.labels,
                                                                     strict=True))

    every = np.stack([train.read(index) for index in range(len(train))])
    pixels = every.reshape(-1, 3).astype(np.float64)
    covariance = np.cov(pixels.T, bias=True)
    with np.load(target / packed.STATISTICS) as saved:
        mean, rgb, variances = saved["mean"], saved["rgb_mean"], saved["variances"]
        components, stdevs = saved["components"], saved["stdevs"]
    assert mean.shape == (256, 256, 3) and mean.dtype == np.float32
    assert np.array_equal(mean, every.mean(axis=0, dtype=np.float64).astype(np.float32))
    assert np.allclose(rgb, pixels.mean(axis=0), rtol=1e-6, atol=0)
    assert np.allclose(variances, np.linalg.eigvalsh(covariance), rtol=1e-9, atol=0)
    assert np.allclose(stdevs, np.sqrt(variances), rtol=1e-12, atol=0)
    assert np.allclose(components @ np.diag(variances) @ components.T, covariance, rtol=1e-9)
    assert np.allclose(components.T @ components, np.eye(3), atol=1e-12)
    return about


def test_imagenet_photographs_are_prepared_as_a_reference_says(real_pictures, tmp_path):
    about = is_true_to(real_pictures / "imagenet-sample", tmp_path, 4, stored_as=2.2)
    assert about["splits"]["train"]["converted"] == {"grey JPEG": 1}
    assert about["splits"]["train"]["pictures"] == 100


def test_tiny_imagenet_is_prepared_as_a_reference_says(real_pictures, tmp_path):
    """A class and a half of it: the pictures are linked, the words are there."""
    tiny, source = real_pictures / "tiny-imagenet-50", tmp_path / "source"
    for wnid in ("n01443537", "n01698640"):
        for path in sorted((tiny / "train" / wnid).iterdir())[:75]:
            lay_out(source, {f"train/{wnid}/{path.name}": path.read_bytes()})
    lay_out(source, {"synset_words.txt": (tiny / "synset_words.txt").read_bytes()})
    about = is_true_to(source, tmp_path / "target", 30, stored_as=2)
    assert about["words"]["n01443537"] == "goldfish, Carassius auratus"


def test_quality_is_that_of_the_stored_jpegs(tmp_path):
    file = io.BytesIO()
    noise = np.random.default_rng(0).normal(scale=20, size=(280, 300, 3))
    Image.fromarray(np.uint8(np.clip(smooth(300, 280) + noise, 0, 255))).save(file, "PNG")
    source = lay_out(tmp_path / "source", {"a/1.png": file.getvalue()})
    sizes = [prepare(source, tmp_path / str(quality), quality=quality)["splits"]["train"]["bytes"]
             for quality in (60, 95)]
    assert 2 * sizes[0] < sizes[1]
    data = (tmp_path / "60" / "train-00000.pack").read_bytes()
    with Image.open(io.BytesIO(data)) as stored:
        found = stored.quantization
    Image.new("RGB", (8, 8)).save(again := io.BytesIO(), "JPEG", quality=60)
    with Image.open(again) as expected:
        assert found == expected.quantization and stored.size == (256, 256)


def test_training_pictures_are_shuffled_once_and_test_pictures_are_not(tmp_path):
    files = {f"{split}/{wnid}/{n:03}.jpg": file_of(wnid) for split in ("train", "val")
             for wnid in WNIDS for n in range(20)}
    prepare(lay_out(tmp_path / "source", files), tmp_path / "target", per_file=25)
    train, val = splits(tmp_path / "target")
    assert names(val) == sorted(name for name in files if name.startswith("val"))
    assert sorted(names(train)) == sorted(name for name in files if name.startswith("train"))
    assert all(np.bincount(train.labels[i:i + 20], minlength=3).min() > 1 for i in (0, 20, 40))
    assert np.count_nonzero(np.diff(train.labels)) > 25        # sorted: 2; of chance: 40


# --- odd files --------------------------------------------------------------------------------


def shaped(mode, kind, **how):
    return file_of(WNIDS[0], kind, mode=mode, **how)


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
        "2.jpg\tis in the list, but there is no such file\n")


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


# --- stopped and started again ----------------------------------------------------------------

KILLER = """
import itertools, os, shutil, signal, sys, threading
from pathlib import Path
import numpy as np
import tqdm
from data import imagenet

source, target = map(Path, sys.argv[1:])
tqdm.tqdm.set_lock(threading.RLock())    # its own is shared with forks, and dies with a child

def prepare(last=None):
    # Python tells when a function is called or returns; a kill falls between two of these.
    count = itertools.count()
    def at(frame, event, argument):
        if next(count) == last:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.setprofile(at)
    imagenet.prepare(source, target, per_file=3, workers=2, quality=80)
    sys.setprofile(None)
    return next(count)

def contents():
    return {path.name: path.read_bytes() for path in target.iterdir()}

os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
prepare()                             # the first time there is more to do
shutil.rmtree(target)
moments = prepare()
expected, half = contents(), []
for moment in np.random.default_rng(0).integers(0, moments, 20).tolist():
    shutil.rmtree(target)
    child = os.fork()                 # a whole process, without the time of its imports
    if child == 0:
        prepare(moment)
        os._exit(0)
    os.waitpid(child, 0)
    if target.exists() and not (target / "prepared.json").exists():
        half.append(len(contents()))
    prepare()
    assert contents() == expected, moment
print(*half, file=sys.stderr)
"""


def run(program, *arguments, **how):
    return subprocess.run([sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)],
                          cwd=ROOT, text=True, capture_output=True, timeout=60, **how)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_killed_at_any_moment_it_goes_on_to_the_same_bits(tmp_path):
    files = {f"{split}/{wnid}/{n}.jpg": file_of(wnid, size=(90 + n, 80))
             for split, count in (("train", 2), ("val", 1)) for wnid in WNIDS
             for n in range(count)}
    files |= {"train/n01440764/bad.jpg": b"", "train/n01440764/grey.jpg": shaped("L", "JPEG")}
    source = lay_out(tmp_path / "source", files)
    before = contents(source)
    done = run(KILLER, source, tmp_path / "target")
    assert done.returncode == 0, done.stderr
    left = {int(count) for count in done.stderr.split()}
    assert len(left) > 4, left                     # how many files there were: many moments
    assert contents(source) == before


def fails_after(count, monkeypatch, error):
    """Let the preparer fail when it has made `count` pictures."""
    made, whole = [], imagenet.repacked

    def repacked(*arguments):
        made.append(1)
        if len(made) > count:
            raise error
        return whole(*arguments)

    monkeypatch.setattr(imagenet, "repacked", repacked)
    return made


def test_finished_files_are_kept_and_not_made_again(tmp_path, monkeypatch):
    source, target = image_folder(tmp_path / "source"), tmp_path / "target"
    prepare(source, tmp_path / "expected", per_file=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        fails_after(5, patch, KeyboardInterrupt)
        imagenet.prepare(source, target, per_file=2, workers=1)
    kept = contents(target)
    assert {"train-00000.pack", "train-00001.npz", "preparing.json"} <= set(kept)
    assert not any(name.endswith(".part") for name in kept)
    made = fails_after(100, monkeypatch, None)
    prepare(source, target, per_file=2)
    assert len(made) == 14 - 4
    assert contents(target) == contents(tmp_path / "expected")


def test_a_finished_folder_is_left_alone(tmp_path, monkeypatch, capsys):
    source, target = image_folder(tmp_path / "source"), tmp_path / "target"
    about = prepare(source, target)
    before = contents(target)
    fails_after(0, monkeypatch, AssertionError)
    assert prepare(source, target) == about and contents(target) == before
    assert "is prepared already" in capsys.readouterr().out


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("change", ["quality", "per_file", "source"])
def test_other_settings_than_before_are_refused(tmp_path, monkeypatch, change, finished):
    source, target = image_folder(tmp_path / "source"), tmp_path / "target"
    if finished:
        prepare(source, target)
    else:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            fails_after(2, patch, KeyboardInterrupt)
            imagenet.prepare(source, target)
    before = contents(target)
    if change == "source":
        lay_out(source, {"train/n01440764/one more.jpg": file_of(WNIDS[0])})
    with pytest.raises(UserError, match=f"begun otherwise \\({change}: "):
        imagenet.prepare(source, target, **({change: 42} if change != "source" else {}))
    assert contents(target) == before


def test_a_folder_with_other_files_is_refused_and_untouched(tmp_path):
    source = image_folder(tmp_path / "source")
    target = lay_out(tmp_path / "target", {"thesis.tex": b"precious", "notes.part": b"too"})
    with pytest.raises(UserError, match="holds other files"):
        imagenet.prepare(source, target)
    assert contents(target) == {"thesis.tex": b"precious", "notes.part": b"too"}


@pytest.mark.parametrize("place", ["", "packed", "train/n01440764"])
def test_nothing_is_written_into_the_source(tmp_path, place):
    source = image_folder(tmp_path / "source")
    before = contents(source)
    with pytest.raises(UserError, match="where nothing is to be written"):
        imagenet.prepare(source, source / place)
    assert contents(source) == before


def test_two_at_once_do_not_fill_one_folder(tmp_path):
    pytest.importorskip("fcntl")
    source = image_folder(tmp_path / "source")
    with (imagenet.claimed(tmp_path / "target"),
          pytest.raises(UserError, match="is being filled by another process")):
        imagenet.prepare(source, tmp_path / "target")


# --- the command line -------------------------------------------------------------------------


def command(*arguments, **how):
    return subprocess.run([sys.executable, ROOT / "data" / "imagenet.py", *map(str, arguments)],
                          cwd=sys.prefix, env=environment(), text=True, capture_output=True,
                          timeout=60, **how)


def test_the_command_prepares_what_a_net_learns_from(tmp_path):
    source, target = image_folder(tmp_path / "source"), tmp_path / "target"
    lay_out(source, {"train/n01440764/bad.jpg": b""})
    done = command(source, target, "--quality", 90, "-j", 1, "--per-file", 4)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "folders of classes; 10 train pictures and 5 val pictures of 3 classes" in done.stdout
    assert "train: 9 pictures" in done.stdout and "1 skipped" in done.stdout
    assert f"alexnet.py train {target}" in done.stdout
    assert json.loads((target / "prepared.json").read_text())["quality"] == 90

    statistics = packed.data_set(target, "train").statistics
    statistics.mean += 1                           # to be told from one that is measured again
    packed.write_statistics(target / packed.STATISTICS, statistics)
    learn = [sys.executable, ROOT / "alexnet.py", "train", target, "--recipe", "quickstart",
             "--steps", "2", "-b", "4", "--output-dir", tmp_path / "run", "--device", "cpu"]
    trained = subprocess.run(learn, cwd=ROOT, text=True, capture_output=True, timeout=100)
    assert trained.returncode == 0, trained.stderr
    assert "9 pictures to learn from and 5 to test with, of 3 classes" in trained.stdout
    following = trained.stdout.splitlines()[-1].split()
    assert following[2] == "test" and str(target) in following
    with np.load(target / packed.STATISTICS) as saved, \
            np.load(tmp_path / "run" / "last.npz") as net:
        assert np.array_equal(saved["mean"], net["statistics/mean"])
    tested = subprocess.run(following, cwd=ROOT, text=True, capture_output=True, timeout=100)
    assert tested.returncode == 0 and "5 pictures of 3 classes" in tested.stdout


@pytest.mark.parametrize("arguments, code", [
    (["nowhere", "target"], 1), ([], 2), (["a"], 2), (["a", "b", "--quality", "0"], 2),
    (["a", "b", "--val-share", "x"], 2), (["a", "b", "-j", "0"], 2)])
def test_mistakes_are_clean_errors(arguments, code, tmp_path):
    done = command(*arguments)
    assert done.returncode == code and "Traceback" not in done.stderr and done.stdout == ""
    assert "imagenet.py: error: " in done.stderr


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
from data import imagenet
sys.exit(imagenet.main())"""


def test_a_full_disk_is_a_clean_error_and_what_is_finished_stays(tmp_path):
    source, target = image_folder(tmp_path / "source"), tmp_path / "target"
    done = run(LIMITED, source, target, "--per-file", 2)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"what is finished stays in {target}" in done.stderr
    left = set(contents(target))
    assert "preparing.json" in left and not any(name.endswith(".part") for name in left)
    prepare(source, target, per_file=2)
    assert are_of_their_classes(packed.data_set(target, "train"))


def test_ctrl_c_leaves_with_130_and_keeps_finished_files(tmp_path):
    source, target = lay_out(tmp_path / "source", train_files(60)), tmp_path / "target"
    process = subprocess.Popen([sys.executable, ROOT / "data" / "imagenet.py", source, target,
                                "--per-file", "2"], env=environment(), text=True,
                               stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    while not (target / "train-00001.npz").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=50)
    assert process.returncode == 130 and "Traceback" not in error
    assert "run the same command again" in error
    left = set(contents(target))
    assert "train-00001.pack" in left and "prepared.json" not in left
    assert not any(name.endswith(".part") for name in left)
    assert prepare(source, target, per_file=2)["splits"]["train"]["pictures"] == 180
