"""The scripts in data/ as somebody meets them who has just cloned the project."""
import subprocess
import sys

import pytest

from data import cifar10, md5
from helpers import ROOT
from tinynet.errors import UserError
from tinynet.pictures import patterns


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


@pytest.mark.parametrize("arguments", [["--train", "0"], ["--sheet", "no/such/folder.png"]])
def test_mistakes_with_the_patterns_are_clean_errors(arguments, tmp_path):
    script = [sys.executable, ROOT / "data" / "patterns.py", tmp_path / "d", *arguments]
    done = subprocess.run(script, cwd=tmp_path, text=True, capture_output=True, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith("patterns.py: error: ")
    assert "Traceback" not in done.stderr


def test_md5_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert md5(tmp_path / "abc") == "900150983cd24fb0d6963f7d28e17f72"
