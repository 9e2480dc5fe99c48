"""What a net says of pictures: few or many, good and broken, for people and for programs."""
import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import alexnet
from command_line import NET, ended, is_clean_error, numbers, started
from tinynet.pictures import dataset, patterns
from tinynet.training import evaluation
from tinynet.training.saved import Saved

pytestmark = pytest.mark.usefixtures("alarm")
CPU = "--device", "cpu"


def objects(done):
    return [json.loads(line) for line in done.out.splitlines()]


@pytest.fixture
def album(data, tmp_path):
    """Seven pictures in three folders, two of them broken, and some files that are none."""
    good = sorted((data / "val").glob("*/0000.jpg"))[:5]
    for name, picture in zip(("b.jpg", "a.JPEG", "in/c.jpg", "in/deep/d.jpg", "in/deep/e.jpg"),
                             good, strict=True):
        (tmp_path / "album" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, tmp_path / "album" / name)
    for name in "bad.jpg", "in/bad.png":
        (tmp_path / "album" / name).write_bytes(good[0].read_bytes()[:700])
    (tmp_path / "album" / ".trash").mkdir()
    shutil.copy(good[0], tmp_path / "album" / ".trash" / "old.jpg")
    for name in "notes.txt", "in/film.mov", "in/.hidden.jpg":
        (tmp_path / "album" / name).write_text("no picture")
    os.symlink(tmp_path / "album", tmp_path / "album" / "circle")
    return tmp_path / "album"


NAMES = ["a.JPEG", "b.jpg", "bad.jpg", "in/bad.png", "in/c.jpg", "in/deep/d.jpg", "in/deep/e.jpg"]


# --- folders ----------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 32])
def test_a_folder_is_all_pictures_in_it_however_deep(run, trained, album, batch):
    done = run("predict", trained.folder, album, "--json", "-b", batch, *CPU)
    assert [one["file"] for one in objects(done)] == [f"{album}/{name}" for name in NAMES]
    assert f"{album}: 3 files are left out: 1 .mov, 1 .txt, 1 links to folders" in done.err
    for name in "notes.txt", "film.mov", "circle":
        assert name in done.err
    assert "hidden" not in done.err


def test_a_broken_picture_stops_no_other_and_the_exit_status_says_so(run, trained, album):
    done = run("predict", trained.folder, album, *CPU)
    assert done.code == 1 and "Traceback" not in done.err
    assert done.err.count("alexnet.py: error: ") == 2
    assert "bad.jpg: not a readable picture" in done.err
    assert "2 of 7 pictures cannot be read" in done.err
    said = [line for line in done.out.splitlines() if not line.startswith("  ")]
    assert said == [f"{album}/{name}" for name in NAMES if "bad" not in name]
    for name in "bad.jpg", "in/bad.png":
        (album / name).unlink()
    done = run("predict", trained.folder, album, *CPU)
    assert done.code == 0 and "cannot be read" not in done.err


def test_a_file_that_is_named_is_tried_whatever_it_is_called(run, trained, album):
    os.rename(album / "b.jpg", album / "b.picture")
    done = run("predict", trained.folder, album / "b.picture", album / "notes.txt", *CPU)
    assert done.code == 1 and done.out.startswith(f"{album}/b.picture\n")
    assert "notes.txt: not a readable picture" in done.err


def test_a_folder_without_pictures_is_an_error_that_says_what_is_read(run, trained, tmp_path):
    (tmp_path / "empty").mkdir()
    done = run("predict", trained.folder, tmp_path / "empty", *CPU)
    assert is_clean_error(done, "empty: there is no picture in it", ".jpg", ".webp")


def test_a_folder_without_pictures_beside_others_is_named(run, trained, album, tmp_path):
    (tmp_path / "empty").mkdir()
    done = run("predict", trained.folder, album / "b.jpg", tmp_path / "empty", *CPU)
    assert done.code == 0 and f"{tmp_path / 'empty'}: there is no picture in it\n" in done.err


def test_a_folder_that_cannot_be_read_is_an_error(run, trained, album, monkeypatch):
    def walk(folder, onerror):
        onerror(PermissionError(13, "Permission denied", str(album / "in")))

    monkeypatch.setattr(dataset.os, "walk", walk)
    assert is_clean_error(run("predict", trained.folder, album, *CPU), "in: Permission denied")


# --- what is said -----------------------------------------------------------------------


def test_json_is_an_object_a_line_for_good_and_broken_pictures_in_order(run, trained, album):
    done = run("predict", trained.folder, album, "--json", "-b", 2, *CPU)
    assert done.code == 1 and "not a readable" not in done.err
    for one in objects(done):
        if "bad" in one["file"]:
            assert one.keys() == {"file", "error"} and "not a readable picture" in one["error"]
            continue
        assert one.keys() == {"file", "labels"} and len(one["labels"]) == 5
        shares = [label["probability"] for label in one["labels"]]
        assert shares == sorted(shares, reverse=True) and 0.5 < sum(shares) <= 1.00001
        assert {label["label"] for label in one["labels"]} <= set(patterns.CLASSES)


def test_broken_pictures_only_are_told_one_by_one(run, trained, album):
    done = run("predict", trained.folder, album / "bad.jpg", album / "in/bad.png", "--json", *CPU)
    assert done.code == 1 and ["error" in one for one in objects(done)] == [True, True]
    done = run("predict", trained.folder, album / "bad.jpg", *CPU)
    assert is_clean_error(done, "bad.jpg: not a readable picture") and done.out == ""
    assert "cannot be read" not in done.err            # of one it is said already


@pytest.mark.parametrize("top", [1, 3, 99])
def test_so_many_classes_are_told_as_are_asked_for(run, trained, album, top):
    words = "predict", trained.folder, album / "a.JPEG", "--top", top, *CPU
    assert len(objects(run(*words, "--json"))[0]["labels"]) == min(top, 10)
    assert run(*words).out.count("%") == min(top, 10)


def test_a_picture_is_answered_alike_alone_and_among_others(run, trained, album):
    together = {one["file"]: one for one in objects(run(
        "predict", trained.folder, album, "--json", "-j", 3, *CPU))}
    for name in "a.JPEG", "in/deep/e.jpg":
        alone, = objects(run("predict", trained.folder, album / name, "--json", *CPU))
        both = alone["labels"], together[alone["file"]]["labels"]
        assert [one["label"] for one in both[0]] == [one["label"] for one in both[1]]
        assert [one["probability"] for one in both[0]] == pytest.approx(
            [one["probability"] for one in both[1]], abs=2e-6)


@pytest.mark.parametrize("views", [1, 10])
def test_the_probabilities_are_those_that_test_saves(run, trained, data, tmp_path, views):
    run("test", trained.folder, data, "--views", views, "--save-probs", tmp_path / "p.npz", *CPU)
    done = run("predict", trained.folder, data / "val", "--views", views, "--top", 10, "--json",
               *CPU)
    with np.load(tmp_path / "p.npz") as saved:
        rows = dict(zip(saved["names"], saved["probabilities"], strict=True))
        classes = saved["classes"].tolist()
    assert len(objects(done)) == len(rows) == 10
    for one in objects(done):
        row = rows[os.path.relpath(one["file"], data / "val")]
        for label in one["labels"]:
            assert label["probability"] == pytest.approx(row[classes.index(label["label"])],
                                                         abs=2e-6)


def test_an_answer_that_is_no_number_is_an_error(run, trained, album, monkeypatch):
    def nothing(model, loader, *how):
        for batch in loader.testing():
            yield batch, evaluation.Tensor(np.full((len(batch.labels), 10), np.nan, np.float32))

    monkeypatch.setattr(evaluation, "answers", nothing)
    done = run("predict", trained.folder, album / "a.JPEG", "--json", *CPU)
    assert done.code == 1 and "nothing finite" in objects(done)[0]["error"]


def test_names_that_are_no_text_are_json_all_the_same(trained, album):
    name = os.fsdecode(b"\xff\n.jpg")
    shutil.copy(album / "a.JPEG", album / name)
    done = ended(started("predict", trained.folder, album / name, "--json", *CPU))
    assert done.code == 0 and json.loads(done.out)["file"] == str(album / name)


# --- how a photograph was held ----------------------------------------------------------


def test_a_turned_photograph_is_answered_as_its_upright_self(run, trained, data, tmp_path):
    """As it is packed, and as it is trained on: both read by the same function."""
    upright = Image.open(next((data / "val").glob("rays/*.jpg")))
    upright = upright.resize((300, 280))
    exif = Image.Exif()
    exif[0x112] = 6                                    # turn it to the right to see it upright
    upright.save(tmp_path / "upright.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "held.png", exif=exif)
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "lost.png")
    held, lost, plain = (one["labels"] for one in objects(run(
        "predict", trained.folder, tmp_path, "--json", "-b", 1, *CPU)))
    assert held == plain != lost


# --- test --per-class -------------------------------------------------------------------


def test_the_error_of_each_class_is_told_worst_first_with_what_is_said_instead():
    logs = np.log([[0.6, 0.3, 0.1], [0.5, 0.3, 0.2], [0.4, 0.4, 0.2],          # of a: a tie
                   [0.7, 0.2, 0.1], [0.4, 0.3, 0.3], [0.4, 0.4, 0.2],          # of b: a tie
                   [0.1, 0.1, 0.8]])                                           # of c
    lines = list(evaluation.by_class(logs, np.array([0, 0, 0, 1, 1, 1, 2]), list("abcd"),
                                     {"b": "bee, insect"}))[1:]
    assert lines == ["  100.0%     3 of 3     b bee  a (3)",
                     "   33.3%     1 of 3     a      b bee (1)", "    0.0%     0 of 1     c"]


def test_per_class_adds_up_to_the_error_that_is_told(run, trained, data):
    done = run("test", trained.folder, data, "--per-class", *CPU)
    total, = numbers(r"error (\d+\.\d)%", done.out)
    rows = re.findall(r"^ +(\d+\.\d)% +(\d+) of (\d+) +(\w+)(?: +(\w+) \((\d+)\))?$", done.out,
                      re.MULTILINE)
    assert {row[3] for row in rows} == set(Saved.read(trained.folder).classes)
    wrong, count = (sum(int(row[i]) for row in rows) for i in (1, 2))
    assert count == 10 and 100 * wrong / count == pytest.approx(total)
    errors = [float(row[0]) for row in rows]
    assert errors == sorted(errors, reverse=True)
    assert all((int(row[1]) > 0) == bool(row[4]) and row[4] != row[3] for row in rows)
    assert "error of each class" not in run("test", trained.folder, data, *CPU).out


def test_the_size_of_a_batch_that_was_asked_for_is_that_of_the_loader(
        run, trained, data, monkeypatch):
    seen, plain = [], alexnet.Loader
    monkeypatch.setattr(alexnet, "Loader", lambda *how, **more: seen.append(how[2])
                        or plain(*how, **more))
    assert run("test", trained.folder, data, "-b", 3, *CPU).code == 0
    assert run("predict", trained.folder, data / "val", "-b", 4, *CPU).code == 0
    assert seen == [3, 4]


def test_a_net_of_one_tower_is_tested_beside_one_of_two_on_two_devices(run, trained, data,
                                                                      tmp_path):
    assert run("train", data, *NET, "--towers", 1, "--steps", 1, "--output-dir", tmp_path / "one",
               *CPU).code == 0
    words = "test", trained.folder / "last.npz", tmp_path / "one" / "last.npz", data, "--device"
    done = run(*words, "cpu0,cpu1")
    assert done.code == 0, done.err
    assert done.out == run(*words, "cpu").out and done.out.count("error") > 2
    refused = run("train", data, *NET, "--towers", 1, "--device", "cpu0,cpu1")
    assert is_clean_error(refused, "--towers 1 is a net for one device: give --device cpu0")


def test_per_class_of_several_nets_is_that_of_their_mean(run, trained, data, tmp_path):
    best, last = trained.folder / "best.npz", trained.folder / "last.npz"
    first = run("test", best, data, "--per-class", *CPU).out
    table = first[first.index("error of each class"):]
    both = run("test", best, last, data, "--weights", "1,0", "--per-class", *CPU).out
    assert both.endswith(table)
