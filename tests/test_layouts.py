"""The layouts in which people keep ImageNet."""
import io
import subprocess
import tarfile

import numpy as np
import pytest
from PIL import Image

from data import imagenet, layouts
from helpers import smooth
from sources import (
    VAL,
    WNIDS,
    WORDS,
    are_of_their_classes,
    file_of,
    ilsvrc,
    image_folder,
    kaggle,
    lay_out,
    names,
    prepare,
    splits,
    tar_of,
    train_files,
    val_name,
)
from tinynet.errors import UserError
from tinynet.pictures import images, packed


@pytest.mark.parametrize("year", [2012, 2010])
def test_the_ilsvrc_tars_are_prepared_with_the_devkits_labels(tmp_path, year):
    prepare(ilsvrc(tmp_path / "source", year), tmp_path / "target")
    train, val = splits(tmp_path / "target")
    assert train.classes == val.classes == WNIDS and train.words == WORDS
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


def test_tars_of_which_nothing_can_be_made_say_what_is_missing(tmp_path):
    source = ilsvrc(tmp_path / "source")
    for part in "train", "devkit":
        (source / layouts.TARS[0][part]).unlink()
    with pytest.raises(UserError, match="no layout that is known here .*train.tar is missing.*"
                                        "have no labels"):
        prepare(source, tmp_path / "target")


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


def test_kaggles_tree_is_prepared(tmp_path):
    prepare(kaggle(tmp_path / "source"), tmp_path / "target")
    train, val = splits(tmp_path / "target")
    assert train.classes == WNIDS and train.words == WORDS
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
    assert train.classes == list(numbers) and train.words == WORDS
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


@pytest.mark.parametrize("file", ["words.txt", "synset_words.txt", "LOC_synset_mapping.txt"])
def test_folders_of_classes_are_prepared(tmp_path, file):
    source = image_folder(tmp_path / "source")
    space = "\t" if file == "words.txt" else " "
    lay_out(source, {file: "".join(f"{w}{space}{WORDS[w]}\n" for w in WORDS).encode()})
    prepare(source, tmp_path / "target")
    train, val = splits(tmp_path / "target")
    assert train.classes == val.classes == WNIDS and train.words == WORDS
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


@pytest.mark.parametrize("each, share, said", [
    (1, 0.34, "1 of the classes have no train pictures"),
    (2, 0.2, "2 of the classes have no val pictures"), (10, 0.2, "")])
def test_a_class_of_which_a_share_leaves_nothing_is_counted(tmp_path, capsys, each, share, said):
    source = lay_out(tmp_path / "source", train_files(each))
    prepare(source, tmp_path / "target", val_share=share)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()
             if "of the classes" in line]
    assert (said in lines) if said else lines == []


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_a_share_that_leaves_one_side_empty_is_refused(tmp_path, share):
    source = lay_out(tmp_path / "source", train_files(10))
    with pytest.raises(UserError, match="leaves one side empty"):
        imagenet.prepare(source, tmp_path / "target", val_share=share)


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


@pytest.mark.parametrize("there, lacks", [("val", "train"), ("train", "val")])
def test_a_list_of_one_half_beside_a_folder_of_the_other_is_refused(tmp_path, there, lacks):
    source = image_folder(tmp_path / "source")
    name = next(source.glob("train/*/*")).relative_to(source)
    (source / f"{there}.txt").write_text(f"{name} 0\n")
    with pytest.raises(UserError, match=f"has a folder {lacks}.*add {lacks}.txt"):
        imagenet.prepare(source, tmp_path / "target")
