"""What is written takes the place of nothing that somebody still needs; what is typed means
something."""
import os
import stat
import subprocess
import sys

import numpy as np
import pytest

from command_line import NET, contents, ended, is_clean_error, started
from helpers import environment
from tinynet.progress import shown

pytestmark = pytest.mark.usefixtures("alarm")


# --- outputs ------------------------------------------------------------------------------


def outputs(checkpoint, data, file):
    return (["export", checkpoint, file],
            ["test", checkpoint, data, "--save-probs", file])


@pytest.mark.parametrize("which", [0, 1], ids=["export", "test"])
def test_an_output_never_replaces_an_input_or_a_checkpoint(run, data, half, tmp_path, which):
    net = half / "last.npz"
    own = net if which else net.rename(half / "net.safetensors")       # a checkpoint all the same
    other = tmp_path / ("other" + own.suffix)
    other.write_bytes(own.read_bytes())
    link = tmp_path / ("link" + own.suffix)
    link.symlink_to(other)
    picture = next((data / "val").glob("*/*.jpg"))
    before, looked_like = contents(half), picture.read_bytes()
    kinds = ".npz" if which else ".safetensors or .onnx or .pth or .pt"
    for file, word in (own, "is read here"), (other, "is a checkpoint"), (link, "is a link"), (
            tmp_path, "is a folder"), (picture, f"is a {kinds} file"), (
            half / "log.jsonl", f"is a {kinds} file"):
        assert is_clean_error(run(*outputs(own, data, file)[which]), file.name, word)
    assert contents(half) == before and other.read_bytes() == own.read_bytes()
    assert picture.read_bytes() == looked_like


@pytest.mark.parametrize("which", [0, 1], ids=["export", "test"])
def test_an_output_is_tried_before_anything_long(run, data, half, tmp_path, monkeypatch, which):
    monkeypatch.setattr("alexnet.load", lambda *args: pytest.fail("the net was loaded"))
    nowhere = tmp_path / "nowhere" / ("net.npz" if which else "net.safetensors")
    assert is_clean_error(run(*outputs(half / "last.npz", data, nowhere)[which]), "nowhere",
                          "No such file or directory", "is the name right")


@pytest.mark.skipif(not hasattr(os, "mknod") or os.geteuid(), reason="only root makes devices")
def test_a_device_stays_a_device(run, data, half, tmp_path):
    null = tmp_path / "null"
    os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    assert run("test", half, data, "--save-probs", null).code == 0
    assert stat.S_ISCHR(os.stat(null).st_mode)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_a_pipe_is_written_as_it_is(data, half, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    process = started("test", half, data, "--save-probs", tmp_path / "pipe")
    content = (tmp_path / "pipe").read_bytes()
    assert ended(process).code == 0
    (tmp_path / "file.npz").write_bytes(content)
    assert np.load(tmp_path / "file.npz")["probabilities"].shape == (10, 10)


# --- what is typed --------------------------------------------------------------------------


@pytest.mark.parametrize("words, named", [
    (["train", ""], "the word behind train is empty"),
    (["train", "DIR", "--resume", ""], "the word behind --resume is empty"),
    (["train", "DIR", "--init-from="], "--init-from= without a value"),
    (["test", "c.npz", ""], "the word behind c.npz is empty"),
    (["test", "c.npz", "--save-probs", ""], "the word behind --save-probs is empty"),
    (["export", "c.npz", ""], "the word behind c.npz is empty")],
    ids=str)
def test_an_empty_word_is_an_unset_variable(run, words, named):
    done = run(*words)
    assert done.code == 2 and done.out == ""
    assert named in done.err and done.err.count("\n") == 1


NUMBERS = ["nan", "inf", "-inf", "1e400", "-1", "99999999999999999999", "x", "0x10", "1,2,3"]
OPTIONS = ["--kernels", "--neurons", "--std", "--bias", "--lrn-alpha", "--lrn-k", "--dropout",
           "--crop", "--share", "--pixel-scale", "--colour-sigma", "-b", "--epochs", "--lr",
           "--patience", "--threshold", "--drops", "--step-epochs", "--momentum", "--wd",
           "--bias-lr", "--layer-lr", "--steps", "--seed", "-p", "--save-freq", "--stall-steps",
           "-j"]
FINE = {("--std", "99999999999999999999"), ("--bias", "99999999999999999999"), ("--bias", "-1"),
        ("--steps", "99999999999999999999"), ("--drops", "99999999999999999999"),
        *((option, "99999999999999999999") for option in (
            "--lrn-alpha", "--lrn-k", "--pixel-scale", "--colour-sigma", "--lr", "--threshold",
            "--wd", "--bias-lr"))}
NAMES = {"-b": "batch", "-p": "print-freq", "-j": "workers"}


@pytest.mark.parametrize("option", OPTIONS)
def test_a_number_that_is_none_is_refused_by_the_name_of_its_option(
        run, data, tmp_path, monkeypatch, option):
    monkeypatch.setattr("alexnet.build", lambda *args: pytest.fail("a net was built"))
    for number in NUMBERS:
        if (option, number) in FINE:
            continue
        done = run("train", data, *NET, "--output-dir", tmp_path / "run", f"{option}={number}")
        assert done.code in (1, 2), (option, number)
        line = done.err.splitlines()[-1]
        assert "error: " in line and "Traceback" not in done.err, (option, number)
        name = NAMES.get(option, option.lstrip("-"))
        assert name in line.replace("_", "-"), (option, number, line)


# --- names ------------------------------------------------------------------------------------


def test_names_that_a_terminal_would_obey_or_cannot_show_are_escaped(data, half, tmp_path):
    picture = next((data / "val").glob("*/*.jpg")).read_bytes()
    for name in os.fsdecode(b"\xff.jpg"), "\x1b[31mred.jpg":
        (tmp_path / name).write_bytes(picture)
        done = ended(started("predict", half, tmp_path / name, tmp_path / (name + ".none")))
        assert done.code == 1 and "Traceback" not in done.err
        shown = {"\udcff.jpg": r"\udcff.jpg"}.get(name, r"\x1b[31mred.jpg")
        assert shown in done.out and shown + ".none" in done.err
        assert "\x1b" not in done.out + done.err


def test_a_terminal_that_knows_no_other_letters_shows_them_escaped(trained):
    for words in (["--help"], ["show", "--device", "cpu", "--recipe", "quickstart"]):
        done = subprocess.run(
            [sys.executable, "-c", "import alexnet, sys; sys.exit(alexnet.main())", *words],
            env=environment(PYTHONIOENCODING="ascii"), capture_output=True, timeout=50)
        assert done.returncode == 0 and done.stdout.isascii(), done.stderr


def test_a_path_on_another_drive_is_shown_whole(monkeypatch):
    def on_windows(path):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr("os.path.relpath", on_windows)
    assert shown("D:/pictures") == "D:/pictures"


def test_a_path_that_begins_with_a_dash_is_no_option(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "-x" / "one.jpg") == os.path.join(".", "-x", "one.jpg")
