"""What a trained net is asked, what help says, what is refused, what is survived."""
import json
import os
import re
import subprocess
import sys
import threading

import numpy as np
import pytest

import alexnet
import tinynet
from command_line import SMALL, is_clean_error, numbers, progress
from helpers import environment
from tinynet.formats import reading
from tinynet.pictures import patterns
from tinynet.training import options as typed_options
from tinynet.training import runs
from tinynet.training.recipes import RECIPES
from tinynet.training.saved import Saved

pytestmark = pytest.mark.usefixtures("alarm")


# --- test and predict -----------------------------------------------------------------


def test_test_prints_the_error_of_the_last_validation(run, trained):
    last = trained.out[trained.out.rindex("validation:"):]
    expected = numbers(r"(?:error|top-5) (\d+\.\d)%", last[:last.index("\n")])
    done = run("test", trained.folder, "--device", "cpu")
    assert done.code == 0 and len(expected) == 2
    assert numbers(r"(?:error|top-5) (\d+\.\d)%", done.out) == expected
    loss = numbers(r"loss (\d+\.\d+)", done.out)
    assert loss == pytest.approx(numbers(r"loss (\d+\.\d+)", last)[:1], abs=2e-4)


def test_test_takes_a_checkpoint_a_folder_and_a_batch_size(run, trained, data):
    for options in [data], [data, "-b", 3], ["-j", 1]:
        done = run("test", trained.folder / "best.npz", *options, "--device", "cpu")
        assert done.code == 0
        assert "best.npz: recipe quickstart" in done.out and "10 pictures of 10" in done.out
        assert "" not in done.out.splitlines()


def test_predict_prints_the_five_most_probable_classes(run, trained, data):
    paths = sorted((data / "val").glob("*/0000.jpg"))[:3]
    done = run("predict", trained.folder / "last.npz", *paths, "--device", "cpu")
    assert done.code == 0
    blocks = re.findall(r"^(/.*)\n((?:  .*\n){5})", done.out, re.MULTILINE)
    assert [path for path, _ in blocks] == [str(path) for path in paths]
    assert done.out.count("\n") == 18
    for _, block in blocks:
        lines = re.findall(r"^ +(\d+\.\d)%  (\w+)$", block, re.MULTILINE)
        shares = [float(share) for share, _ in lines]
        assert len({name for _, name in lines} & patterns.CLASSES.keys()) == 5
        assert shares == sorted(shares, reverse=True)
        assert 50 <= sum(shares) <= 100.25                         # five were rounded


def test_predict_does_the_other_pictures_if_one_is_broken(run, trained, data, tmp_path):
    good = data / "val" / "rays" / "0000.jpg"
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(good.read_bytes()[:700])
    done = run("predict", trained.folder, broken, good, tmp_path / "none.jpg",
               "--device", "cpu")
    assert done.code == 1 and "Traceback" not in done.err
    assert done.err.count("alexnet.py: error:") == 2
    assert str(broken) in done.err and "none.jpg" in done.err
    assert done.out.startswith(f"{good}\n") and done.out.count("\n") == 6


def test_show_prints_the_layers_of_the_paper(run):
    done = run("show", "--device", "cpu0,cpu1")
    assert done.code == 0 and "fc8" in done.out and "crossings" in done.out


def test_help_explains_every_option_of_a_recipe(run):
    done = run("train", "--help")
    assert done.code == 0
    for option in "--batch-size", "--pixel-scale", "--dropout-kind", "--wd", "--steps":
        assert option in done.out


def test_version_is_that_of_the_package(run):
    done = run("--version")
    assert done.code == 0 and done.out.strip() == f"tinynet {tinynet.__version__}"


@pytest.mark.parametrize("command, unused", [
    ("show", ["--lr", "--schedule", "--epochs", "--colour", "--workers"]),
    ("bench", ["--lr", "--schedule", "--epochs", "--patience"]), ("doctor", ["--device"])])
def test_a_command_lists_only_the_options_that_it_uses(run, command, unused):
    listed = re.findall(r"^  (?:-\w[^,]*, )?(--[\w-]+)", run(command, "--help").out, re.MULTILINE)
    assert "--help" in listed and not set(unused) & set(listed)


def test_help_shows_choices_groups_and_examples(run):
    done = run("train", "--help")
    for words in ("{first,all}", "{plateau,2012,dexp,step,linear,constant}", "recipe: the net:",
                  "recipe: the pictures:", "recipe: learning:", "examples:", "sections of"):
        assert words in done.out, words


@pytest.mark.parametrize("command", ["", "train", "test", "predict", "export", "walk",
                                     "report", "show", "bench"])
def test_help_fits_into_80_columns(run, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = run(*command.split(), "--help").out
    assert [line for line in text.splitlines() if len(line) > 80] == []


def test_a_wrong_option_is_told_without_the_usage(run):
    done = run("train", "--bath-size", 3)
    assert done.code == 2 and done.err.count("\n") == 1
    assert "unrecognized arguments: --bath-size" in done.err
    assert "(alexnet.py train --help lists all options)" in done.err
    assert run("export", "net.npz", "net.onnx", "--device", "cpu").code == 2


@pytest.mark.parametrize("options, words", [
    (["--seed", "x"], "whole number"), (["--lr", "fast"], "a number, not 'fast'"),
    (["--kernels", "1,two"], "commas"), (["--recipe", "Paper"], "'paper'"),
    (["-b", "1.5"], "whole")])
def test_a_value_of_the_wrong_kind_is_told_in_words(run, options, words):
    done = run("train", *options)
    assert done.code == 2 and words in done.err and "invalid number value" not in done.err


def test_the_command_works_in_a_thread(data, tmp_path):
    status = []
    thread = threading.Thread(target=lambda: status.append(alexnet.main(
        ["train", str(data), *map(str, SMALL), "--steps", "2",
         "--output-dir", str(tmp_path / "run")])))
    thread.start()
    thread.join(timeout=50)
    assert status == [0] and progress(tmp_path / "run")["step"] == 2


def test_a_reader_that_has_left_is_no_error_to_print():
    """`alexnet.py show --json | head -1`: what is printed waits for the end, and then nobody is
    there."""
    program = ("from tinynet.training.program import exit_status; import sys; "
               "sys.exit(exit_status('x', lambda: print('a')))")
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", program], stdout=write, text=True,
                          stderr=subprocess.PIPE, env=environment(PYTHONUNBUFFERED=""), timeout=50)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


# --- before anything long --------------------------------------------------------------


@pytest.mark.parametrize("options", [["--crop", "20"], ["--crop", "300"], ["--towers", "1"]])
def test_what_cannot_be_built_is_said_before_the_pictures_are_read(
        run, data, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(alexnet, "measure", lambda *args: pytest.fail("pictures were read"))
    done = run("train", data, "--recipe", "quickstart", "--device", "cpu0,cpu1", *options)
    assert is_clean_error(done, options[0])
    assert not (tmp_path / "runs").exists()


def test_a_run_that_does_not_begin_leaves_no_folder(run, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_clean_error(run("train", tmp_path / "typo", "--recipe", "quickstart"), "typo")
    assert not (tmp_path / "runs").exists()


def test_an_error_is_not_behind_a_list_of_settings(run, tmp_path):
    done = run("train", tmp_path / "typo")
    assert done.code == 1 and done.out == ""


def test_resume_auto_goes_on_with_the_newest_run(run, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)         # of a run that never began
    words = ["train", data, *SMALL, "--resume", "auto"]
    assert run(*words[:-2], "--steps", 1, "--output-dir", "runs/quickstart2").code == 0
    first = run(*words, "--steps", 2).out
    assert "no run called quickstart is in runs, so this is the first" in first
    assert "resumed" not in first
    done = run(*words, "--steps", 3)
    assert "resumed runs/quickstart/last.npz" in done.out
    assert progress(tmp_path / "runs" / "quickstart")["step"] == 3
    assert run(*words[:-2], "--steps", 1, "--output-dir", "runs/quickstart-2").code == 0
    os.utime("runs/quickstart-2/last.npz", (0, 0))             # the newest, not the last by name
    assert "resumed runs/quickstart/last.npz" in run(*words, "--steps", 4).out


def test_one_tower_takes_one_of_two_gpus_by_default(monkeypatch):
    monkeypatch.setattr(typed_options.device, "default_devices",
                        lambda most=2: "cpu0,cpu1"[:5 * most - 1])
    for towers, two in (1, ["cpu0", "cpu0"]), (2, ["cpu0", "cpu1"]):
        recipe = RECIPES["paper"].changed({"towers": towers})
        assert [*map(str, typed_options.two_devices(None, recipe))] == two


def test_a_long_run_says_at_the_start_how_long(run, data, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "SLOW", 0)
    done = run("train", data, *SMALL, "--recipe", "caffe", "--pixel-scale", 0.01,
               "--output-dir", tmp_path / "run")
    assert re.search(r"on this machine all 8 steps will take about \d+ (minutes|hours); "
                     "--recipe quickstart is for trying", done.out), done.out


def test_a_small_folder_is_told_of_the_recipe_for_it(run, data, tmp_path):
    letter = [*SMALL[2:], "--steps", 1]                       # the paper's but for its size
    assert "--recipe small" in run("train", data, *letter, "--output-dir", tmp_path / "a").out
    named = run("train", data, *letter, "--recipe", "paper", "--output-dir", tmp_path / "b")
    assert "--recipe small" not in named.out


# --- export -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["net.h5", "net.mat", "net"])
def test_other_kinds_of_files_are_not_written(run, trained, tmp_path, name):
    done = run("export", trained.folder, tmp_path / name)
    assert is_clean_error(done, name, ".safetensors or .onnx or .pth or .pt file")
    assert not (tmp_path / name).exists()


def test_what_is_written_says_how_pictures_are_prepared(run, trained, tmp_path):
    assert run("export", trained.folder, tmp_path / "net.safetensors").code == 0
    arrays, about = reading.arrays(tmp_path / "net.safetensors")
    prepared = json.loads(about["preprocessing"])
    assert prepared["crop"] == 67 and prepared["multiply_by"] == pytest.approx(1 / 64)
    mean = Saved.read(trained.folder).file.arrays("statistics/")["mean"]
    assert np.array_equal(arrays["mean_image"], mean.transpose(2, 0, 1))
