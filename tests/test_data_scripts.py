"""The scripts in data/ as somebody meets them who has just cloned the project."""
import os
import subprocess
import sys

import pytest

from data import cifar10, digests, imagenet
from data import patterns as drawing
from helpers import ROOT
from tinynet.errors import UserError
from tinynet.pictures import dataset, patterns


@pytest.mark.parametrize("name", ["patterns.py", "cifar10.py", "imagenet.py"])
def test_without_its_environment_a_script_says_how_to_start_it(name, tmp_path):
    bare = [sys.executable, "-S", "-E", ROOT / "data" / name]      # -S: no installed packages
    done = subprocess.run(bare, cwd=tmp_path, text=True, capture_output=True, timeout=60)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"{name}: error: No module named ")
    assert ". .venv/bin/activate" in done.stderr and done.stderr.count("\n") == 1


def test_what_a_reader_can_put_right_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="at least 1"):
        patterns.draw(tmp_path / "a", train=0)
    patterns.draw(tmp_path / "b", train=1, val=1, size=8, progress=False)
    with pytest.raises(UserError, match="other settings"):
        patterns.draw(tmp_path / "b", train=2, val=1, size=8, progress=False)
    (tmp_path / "c" / "train" / "cats").mkdir(parents=True)
    (tmp_path / "c" / "train" / "cats" / "1.jpg").touch()
    with pytest.raises(UserError, match="none of the patterns"):
        patterns.draw(tmp_path / "c", train=1, val=1, size=8, progress=False)
    with pytest.raises(UserError, match="holds no CIFAR-10"):
        cifar10.find(tmp_path)


WHOLE, NUMBER = "must be a whole number, at least ", "must be a number from 0 to 1"


@pytest.mark.parametrize("script, arguments, words", [
    (drawing, ["--train", "0"], f"argument --train: {WHOLE}1 and at most 1000000"),
    (drawing, ["--val", "nan"], f"argument --val: {WHOLE}1 and at most 1000000, not 'nan'"),
    (drawing, ["--train", "9" * 5000], f"argument --train: {WHOLE}1"),
    (drawing, ["--seed", "-1"], f"argument --seed: {WHOLE}0"),
    (drawing, ["--seed", "9" * 20], f"argument --seed: {WHOLE}0"),
    (drawing, ["--size", "1e3"], f"argument --size: {WHOLE}1 and at most 8192"),
    (drawing, ["--colour"], "unrecognized arguments: --colour"),
    (cifar10, ["--colour"], "unrecognized arguments: --colour"),
    (cifar10, ["a", "b"], "unrecognized arguments: b"),
    (imagenet, ["a"], "the following arguments are required: DST"),
    (imagenet, ["a", "b", "--val-share", "nan"], f"argument --val-share: {NUMBER}, not 'nan'"),
    (imagenet, ["a", "b", "--val-share", "inf"], f"argument --val-share: {NUMBER}, not 'inf'"),
    (imagenet, ["a", "b", "--val-share", "-0.1"], f"argument --val-share: {NUMBER}, not '-0.1'"),
    (imagenet, ["a", "b", "--quality", "101"], f"argument --quality: {WHOLE}1 and at most 100"),
    (imagenet, ["a", "b", "--per-file", "x"], f"argument --per-file: {WHOLE}1"),
    (imagenet, ["a", "b", "-j", "0"], f"argument -j/--workers: {WHOLE}1 and at most 1024")])
def test_a_mistyped_option_is_named_in_one_line(script, arguments, words, capsys):
    with pytest.raises(SystemExit) as left:
        script.main(arguments)
    said = capsys.readouterr().err
    assert left.value.code == 2 and said.count("\n") == 1
    assert said.startswith(f"{script.__name__.removeprefix('data.')}.py: error: {words}"), said


def test_patterns_are_drawn_as_many_as_were_asked_for(tmp_path):
    assert drawing.main([str(tmp_path / "all"), "--train", "3", "--val", "2", "--size", "32"]) == 0
    assert {split: len(list((tmp_path / "all" / split / "rings").iterdir()))
            for split in ("train", "val")} == {"train": 3, "val": 2}
    sheets = []
    for seed in "0", "1", "0":
        drawing.main(["--sheet", str(tmp_path / "sheet.png"), "--seed", seed])
        sheets.append((tmp_path / "sheet.png").read_bytes())
    assert sheets[0] == sheets[2] != sheets[1]


def test_a_sheet_that_cannot_be_written_is_a_clean_error(tmp_path):
    script = [sys.executable, ROOT / "data" / "patterns.py", "--sheet", "no/such/folder.png"]
    done = subprocess.run(script, cwd=tmp_path, text=True, capture_output=True, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith("patterns.py: error: ")
    assert "Traceback" not in done.stderr


def test_digests_of_a_file_are_those_of_its_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert digests(tmp_path / "abc", "md5", "sha256") == [
        "900150983cd24fb0d6963f7d28e17f72",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]


def test_what_a_killed_drawing_left_aside_is_no_file_of_the_data_set(
        tmp_path, monkeypatch, capsys):
    def killed(*paths):
        raise OSError("as good as a kill")
    how = dict(train=1, val=1, size=16, progress=False)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="kill"):
        patch.setattr(os, "replace", killed)
        patch.setattr(os, "getpid", lambda: 1)         # another process than the next one
        patterns.draw(tmp_path, **how)
    patterns.draw(tmp_path, **how)
    assert list(tmp_path.rglob(".*.tmp")) and len(dataset.image_folder(tmp_path, "train")) == 10
    assert capsys.readouterr().err == ""
