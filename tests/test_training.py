"""A training run as its user meets it: what it prints and writes."""
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import (
    EPOCH,
    LAST,
    SMALL,
    TRAIN,
    VAL,
    contents,
    ended,
    is_clean_error,
    log_of,
    progress,
    same_net,
    started,
)
from helpers import ROOT, environment
from tinynet.pictures import patterns, upload
from tinynet.training import options

pytestmark = pytest.mark.usefixtures("alarm")


# --- train ----------------------------------------------------------------------------


def test_training_ends_well_and_says_what_to_do_next(trained):
    assert trained.code == 0 and trained.err == ""
    for words in ("recipe quickstart", "seed 0", "30 pictures to learn from",
                  "10 to test with", "of 10 classes", "top-1 error", "chance: 90.0%",
                  str(trained.folder / "kernels.png"), str(trained.folder / "curves.png"),
                  "alexnet.py predict"):
        assert words in trained.out


def test_training_prints_what_is_not_the_recipes_own(trained):
    changes = re.findall(r"^  (\w+) (.*), not (.*)$", trained.out, re.MULTILINE)
    assert [name for name, _, _ in changes] == ["kernels", "neurons", "crop", "batch_size",
                                                "epochs", "schedule"]
    assert ("crop", "67", "227") in changes


def test_verbose_prints_the_whole_recipe_and_the_log_has_it(run, data, tmp_path, trained):
    done = run("train", data, *SMALL, "--verbose", "--steps", 1, "--output-dir", tmp_path / "run")
    for name, value in (("crop", "67"), ("kernels", r"\(4, 8, 8, 8, 8\)"), ("wd", "0.0005")):
        assert re.search(rf"^  {name} +{value}( |$)", done.out, re.MULTILINE)
    first = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert first["kind"] == "start" and first["recipe"]["crop"] == 67 and first["seed"] == 0


def test_no_line_of_a_run_is_longer_than_80_characters(trained):
    own = trained.out[:trained.out.index("saved:")]
    long = [line for line in own.splitlines() if len(line) > 80 and "/" not in line]
    assert long == []


def test_the_next_command_works_as_it_is_printed(trained, run):
    command = shlex.split(trained.out.strip().splitlines()[-1])
    assert Path(command[0]).resolve() == Path(sys.executable).resolve()
    assert command[1].endswith("alexnet.py") and command[2] == "predict"
    done = run(*command[2:], "--device", "cpu")
    assert done.code == 0, done.err


def test_training_leaves_five_files_and_nothing_else(trained):
    assert sorted(contents(trained.folder)) == ["best.npz", "curves.png", "kernels.png",
                                                "last.npz", "log.jsonl"]


def test_the_log_has_a_line_of_json_for_every_report(trained):
    def no_constant(name):
        raise ValueError(f"{name} is no JSON")

    lines = [json.loads(line, parse_constant=no_constant)
             for line in (trained.folder / "log.jsonl").read_text().splitlines()]
    assert lines.pop(0)["kind"] == "start"
    for line in lines:
        assert {"step", "epoch", "loss", "top1_error", "top5_error",
                "images_per_s"} <= line.keys()
        assert 0 <= line["top5_error"] <= line["top1_error"] <= 1 and line["loss"] > 0
    training = [line for line in lines if line["kind"] == "train"]
    validation = [line for line in lines if line["kind"] == "validation"]
    assert [line["lr"] for line in training] == [0.01, 0.01]
    assert sum(line["pictures"] for line in training) == 2 * 10 * TRAIN
    assert [line["step"] for line in validation] == [EPOCH, LAST]
    assert all(line["pictures"] == 10 * VAL for line in validation)


def test_print_freq_sets_how_often_a_line_is_printed(run, data, tmp_path):
    done = run("train", data, *SMALL, "-p", 1, "--output-dir", tmp_path / "run")
    assert len(re.findall("images/s", done.out)) == LAST


def test_the_kernels_are_drawn(trained):
    with Image.open(trained.folder / "kernels.png") as sheet:
        assert sheet.mode == "RGB"
        assert 4 * 11 * 3 < sheet.width < 2000 and 2 * 11 * 3 < sheet.height < 2000
        assert np.asarray(sheet).std() > 20


def test_the_curves_of_training_and_of_validations_are_drawn(trained):
    with Image.open(trained.folder / "curves.png") as sheet:
        colours = {colour for _, colour in sheet.getcolors(1 << 20)}
    assert {(0x8a, 0x8f, 0x98), (0x3b, 0x82, 0xc4)} <= colours


def test_the_best_checkpoint_is_the_one_with_the_lowest_error(trained):
    last, best = (progress(trained.folder / name) for name in ("last.npz", "best.npz"))
    errors = [json.loads(line)["top1_error"]
              for line in (trained.folder / "log.jsonl").read_text().splitlines()
              if '"validation"' in line]
    assert best["step"] == [EPOCH, LAST][int(np.argmin(errors))]
    assert last["step"] == LAST and last["lowest_error"] == min(errors)


def test_the_seed_decides_on_the_pictures_as_well(run, data, trained, tmp_path):
    """The same weights, which do not learn, and nothing dropped: only crops and order are left."""
    losses = []
    for seed in 0, 1, 0:
        folder = tmp_path / f"{len(losses)}"
        assert run("train", data, *SMALL, "--init-from", trained.folder / "best.npz", "--dropout",
                   0, "--lr", 0, "--seed", seed, "--steps", 3, "-p", 1, "--output-dir",
                   folder).code == 0
        losses.append([row["loss"] for row in log_of(folder) if row["kind"] == "train"])
    assert losses[0] == losses[2] and all(map(float.__ne__, losses[0], losses[1]))


def test_save_freq_saves_within_an_epoch(data, tmp_path):
    process = started("train", data, *SMALL, "--save-freq", 2, "-p", 1,
                      "--output-dir", tmp_path / "run", program="""
import alexnet, os, signal
from tinynet import store
save = store.save
def die(*arguments):
    save(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
store.save = die
alexnet.main()""")
    ended(process)
    assert progress(tmp_path / "run")["step"] == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_killed_at_any_moment_training_goes_on_to_the_same_bits(data, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "killer.py", tmp_path / "run", "train", data, *SMALL,
         "--epochs", "1", "--save-freq", "1", "--dropout", "0.5"], env=environment(), text=True,
        capture_output=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 3                # else it was never killed half-way


@pytest.mark.parametrize("options", [
    ["--device", "cpu0,cpu1"], ["--device", "cpu1"], ["-j", "1"], ["-j", "4"]],
    ids=lambda options: " ".join(options))
def test_devices_and_workers_change_no_bit(run, data, trained, tmp_path, options):
    folder = tmp_path / "run"
    assert run("train", data, *SMALL, *options, "--output-dir", folder).code == 0
    assert same_net(folder, trained.folder)


def test_another_seed_gives_another_net(run, data, trained, tmp_path):
    folder = tmp_path / "run"
    assert run("train", data, *SMALL, "--seed", 1, "--output-dir", folder).code == 0
    assert not same_net(folder, trained.folder)


def test_colour_noise_dropout_and_every_other_option_can_be_set(run, data, tmp_path):
    done = run("train", data, *SMALL, "--colour", "stdev", "--dropout-kind", "inverted",
               "--std", "0.05", "--bias", 0.1, "--momentum", 0.8, "--wd", 0,
               "--lrn-k", 1, "--schedule", "plateau", "--steps", 2,
               "--output-dir", tmp_path / "run")
    assert done.code == 0, done.err


def test_a_run_goes_into_a_folder_named_after_its_recipe(
        run, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in "runs/quickstart", "runs/quickstart-2":
        done = run("train", data, *SMALL, "--steps", 1)
        assert done.code == 0 and f"output in {folder}\n" in done.out
        assert (tmp_path / folder / "last.npz").exists()


def test_without_a_folder_patterns_are_drawn(run, tmp_path, monkeypatch):
    monkeypatch.setattr(options, "PATTERNS", tmp_path / "patterns")
    monkeypatch.setattr(patterns.draw, "__defaults__", (1, 1, 0, 256, True))
    done = run("train", *SMALL, "--steps", 1, "--output-dir", tmp_path / "run")
    assert done.code == 0 and "10 pictures to learn from" in done.out


def test_a_folder_of_patterns_with_strange_files_is_a_clean_error(
        run, tmp_path, monkeypatch):
    strange = tmp_path / "patterns" / "train" / "cats" / "1.jpg"
    strange.parent.mkdir(parents=True)
    strange.touch()
    monkeypatch.setattr(options, "PATTERNS", tmp_path / "patterns")
    done = run("train", *SMALL, "--output-dir", tmp_path / "run")
    assert is_clean_error(done, strange)


def test_nothing_draws_a_bar_where_there_is_no_terminal(data, tmp_path):
    done = ended(started("train", data, *SMALL, "--output-dir", tmp_path / "run"))
    assert done.code == 0 and done.err == ""
    assert "\r" not in done.out and "\x1b" not in done.out
    assert "validation" in done.out


def test_unreadable_pictures_are_counted_and_named(run, data, tmp_path):
    copy = shutil.copytree(data, tmp_path / "data")
    broken = copy / "train" / "rings" / "0001.jpg"
    broken.write_bytes(broken.read_bytes()[:500])
    done = run("train", copy, *SMALL, "--output-dir", tmp_path / "run")
    assert done.code == 0 and f"unreadable pictures in {copy}/train, skipped: 1\n" in done.out
    assert done.err.count(str(broken)) == 1


def test_who_waits_for_pictures_is_told_once(data, tmp_path, run, monkeypatch):
    monkeypatch.setattr(upload.Host, "waited", lambda self: 100.0)
    told = "of the time the net waits for pictures: give more --workers"
    for steps, times in (10, 0), (11, 1), (13, 1):
        done = run("train", data, *SMALL, "--epochs", 4, "--print-freq", 1, "--steps", steps,
                   "--output-dir", tmp_path / str(steps))
        assert done.code == 0 and done.out.count(f"\n100% {told}") == times, steps
