"""Folders of pictures: what counts, what is left out and named."""
import os

import pytest

from pictures import touch
from tinynet.errors import UserError
from tinynet.pictures import dataset

# --- folders --------------------------------------------------------------------------


def test_classes_are_folders_in_sorted_order(tmp_path):
    touch(tmp_path, "train/b/2.jpg", "train/b/1.jpg", "train/a/9.jpg", "train/c/0.jpg")
    pictures = dataset.image_folder(tmp_path, "train")
    assert pictures.classes == ["a", "b", "c"]
    names = [path.name for path in pictures.paths]
    assert names == ["9.jpg", "1.jpg", "2.jpg", "0.jpg"]
    assert pictures.labels.tolist() == [0, 1, 1, 2]
    assert len(pictures) == 4


def test_the_case_of_endings_does_not_matter(tmp_path):
    names = "1.JPEG", "2.jpeg", "3.Jpg", "4.PNG", "5.png", "6.WebP"
    touch(tmp_path, *[f"train/a/{name}" for name in names])
    pictures = dataset.image_folder(tmp_path, "train")
    assert [path.name for path in pictures.paths] == list(names)


def test_hidden_files_and_other_files_are_no_pictures(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "train/a/.2.jpg", "train/a/notes.txt",
          "train/a/jpg", "train/b/Thumbs.db", "train/b/1.png", "train/list.jpg")
    pictures = dataset.image_folder(tmp_path, "train")
    assert [path.name for path in pictures.paths] == ["1.jpg", "1.png"]
    assert pictures.classes == ["a", "b"]


def test_what_is_left_out_is_counted_and_named(tmp_path, capsys):
    touch(tmp_path, "train/a/1.jpg", "train/a/2.HEIC", "train/a/3.heic", "train/a/4.svg",
          "train/a/more/5.jpg", "train/a/more/deep/6.jpg", "train/b/1.jpg", "train/b/README",
          "train/7.jpg", "train/labels.csv", "train/a/.hidden", "train/b/.trash/8.jpg")
    pictures = dataset.image_folder(tmp_path, "train")
    assert [path.name for path in pictures.paths] == ["1.jpg", "1.jpg"]
    said = capsys.readouterr().err
    assert said.startswith(
        f"{tmp_path / 'train'}: 7 files are left out: 2 .heic, 2 in folders within a class, "
        "1 .svg, 1 beside the folders of classes, 1 without an ending\n")
    assert "magick mogrify -format jpg *.heic" in said


def test_nothing_is_said_of_a_folder_in_which_every_file_counts(tmp_path, capsys):
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "train/labels.csv", "train/.DS_Store")
    dataset.image_folder(tmp_path, "train")
    assert capsys.readouterr().err == ""


def test_a_folder_without_pictures_is_no_class_and_is_named(tmp_path, capsys):
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "train/empty/2.heic")
    (tmp_path / "train" / "__MACOSX").mkdir()
    (tmp_path / "val" / "__MACOSX").mkdir(parents=True)
    touch(tmp_path, "val/a/1.jpg", "val/b/1.jpg")
    classes = dataset.image_folder(tmp_path, "train").classes
    assert classes == ["a", "b"]
    said = capsys.readouterr().err
    assert "folders without pictures are no classes: __MACOSX, empty\n" in said
    dataset.image_folder(tmp_path, "val", classes)             # it is not an unknown class either
    assert "__MACOSX" in capsys.readouterr().err


def test_classes_without_pictures_to_test_with_are_named(tmp_path, capsys):
    touch(tmp_path, "val/b/1.jpg")
    dataset.image_folder(tmp_path, "val", ["a", "b", "c"])
    assert "has no pictures of 2 of the 3 classes:\n  a, c" in capsys.readouterr().err
    dataset.image_folder(tmp_path, "val", ["b"])
    assert capsys.readouterr().err == ""


def test_without_val_the_way_to_hold_pictures_back_is_said(tmp_path):
    touch(tmp_path / "my pets", "train/a/1.jpg")
    with pytest.raises(UserError) as error:
        dataset.image_folder(tmp_path / "my pets", "val", ["a"])
    assert f"data/imagenet.py '{tmp_path}/my pets' NEW --val-share 0.1" in str(error.value)


@pytest.mark.parametrize("name, space", [("synset_words.txt", " "), ("words.txt", "\t"),
                                         ("LOC_synset_mapping.txt", " ")])
def test_what_classes_are_is_read_beside_them(tmp_path, name, space):
    touch(tmp_path, "train/n1/1.jpg", "train/n2/1.jpg")
    assert dataset.image_folder(tmp_path, "train").words == {}
    (tmp_path / name).write_text(f"n1{space}tench, Tinca tinca\n\nn9{space}none of ours\n")
    pictures = dataset.image_folder(tmp_path, "train")
    assert pictures.words == {"n1": "tench, Tinca tinca"}


def test_a_hidden_folder_is_no_class(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "train/.thumbnails/1.jpg")
    assert dataset.image_folder(tmp_path, "train").classes == ["a"]


def test_labels_of_a_second_folder_are_those_of_the_first(tmp_path):
    touch(tmp_path, "val/b/1.jpg", "val/c/1.jpg")
    pictures = dataset.image_folder(tmp_path, "val", ["a", "b", "c"])
    assert pictures.classes == ["a", "b", "c"]
    assert pictures.labels.tolist() == [1, 2]


def test_a_class_that_the_net_does_not_know_is_named(tmp_path):
    touch(tmp_path, "val/cat/1.jpg", "val/okapi/1.jpg")
    with pytest.raises(UserError, match="not know: okapi"):
        dataset.image_folder(tmp_path, "val", ["cat", "dog"])


def test_a_missing_folder_is_named_with_the_tree_that_is_wanted(tmp_path):
    with pytest.raises(UserError) as error:
        dataset.image_folder(tmp_path / "nowhere", "train")
    assert "nowhere" in str(error.value) and "DIR/train/<class>" in str(error.value)


@pytest.mark.parametrize("found", [
    ["holiday/1.jpg", "pets.zip"],
    ["holiday/1.jpg", "pets.zip", "train/a/readme.txt"],
    ["holiday/1.jpg", "pets.zip", "train/1.jpg"]],
    ids=["no train folder", "no pictures", "no classes"])
def test_a_folder_that_is_no_data_set_shows_what_is_there_and_what_is_wanted(
        tmp_path, found):
    with pytest.raises(UserError) as error:
        dataset.image_folder(touch(tmp_path, *found), "train")
    for shown in "holiday/", "pets.zip", "DIR/train/<class>", "DIR/val/<class>":
        assert shown in str(error.value)


def test_an_empty_folder_is_no_data_set(tmp_path):
    with pytest.raises(UserError, match="nothing"):
        dataset.image_folder(tmp_path, "train")


def test_what_is_no_regular_file_is_left_out_and_named(tmp_path, capsys):
    root = touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg") / "train"
    os.mkfifo(root / "a" / "pipe.jpg")
    (root / "a" / "folder.jpg").mkdir()
    (root / "b" / "loop.jpg").symlink_to("loop.jpg")
    (root / "b" / "gone.jpg").symlink_to("gone with the disk.jpg")
    (root / "b" / "2.jpg").symlink_to("1.jpg")
    (root / "c").symlink_to("c")
    assert dataset.class_folders(root) == {"a": ["1.jpg"], "b": ["1.jpg", "2.jpg"]}
    said = capsys.readouterr().err
    start = f"{root}: 5 files are left out: 5 that are no regular files ("
    assert said.startswith(start) and said.endswith(")\n") and said.count("\n") == 1
    assert sorted(said.removeprefix(start).removesuffix(")\n").split(", ")) == [
        "a/folder.jpg", "a/pipe.jpg", "b/gone.jpg", "b/loop.jpg", "c"]
    for number in range(7):
        os.mkfifo(root / "a" / f"{number}.gif")
    dataset.class_folders(root)
    said = capsys.readouterr().err
    assert "12 that are no regular files" in said and said.endswith(", ...)\n")
    assert said.count(",") == 5


def test_no_ordinary_file_is_looked_at(tmp_path, monkeypatch):
    """Of a million, that would take minutes on a slow disk; the folder says what they are."""
    touch(tmp_path, *[f"train/{name}/{number}.jpg" for name in "ab" for number in range(50)])
    looked, stat = [], os.stat
    monkeypatch.setattr(os, "stat", lambda *path, **how: looked.append(path) or stat(*path, **how))
    assert len(dataset.image_folder(tmp_path, "train")) == 100
    assert len(looked) < 10


def test_a_byte_order_mark_is_no_part_of_the_first_class(tmp_path):
    """As Windows puts it before the text of a file."""
    touch(tmp_path, "train/n1/1.jpg")
    (tmp_path / "words.txt").write_bytes("\ufeffn1\ttench\n".encode())
    assert dataset.image_folder(tmp_path, "train").words == {"n1": "tench"}
