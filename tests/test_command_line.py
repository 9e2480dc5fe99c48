"""The program as its user meets it: what it prints, writes, refuses and survives."""
import contextlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import alexnet
import tinynet
from helpers import ROOT, environment
from tinynet import store
from tinynet.pictures import dataset, images, patterns
from tinynet.store import Checkpoint
from tinynet.training import options as typed_options
from tinynet.training import runs
from tinynet.training.saved import Saved
from tinynet.training.weights import load_safetensors

NET = ["--recipe", "quickstart", "--kernels", "4,8,8,8,8", "--neurons", "16,16",
       "--crop", "67", "-b", "8", "--lr", "0.01"]
SMALL = [*NET, "--epochs", "2", "--schedule", "constant", "--device", "cpu"]
TRAIN, VAL = 3, 1                    # pictures of each of ten classes
EPOCH, LAST = 4, 8                   # steps: 8 + 8 + 8 + 6 pictures, twice


@pytest.fixture(autouse=True)
def no_test_runs_for_ever():
    def too_long(number, frame):
        raise TimeoutError("a command did not end")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A small data set with a space in its name and hidden files."""
    folder = tmp_path_factory.mktemp("data") / "small patterns"
    patterns.draw(folder, train=TRAIN, val=VAL, progress=False)
    for parent in (folder / "val").iterdir():
        (parent / ".hidden").touch()
    return folder


@pytest.fixture(scope="session")
def trained(data, tmp_path_factory):
    """A finished run: its folder, output and exit code. Not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with contextlib.redirect_stdout(io.StringIO()) as out, \
            contextlib.redirect_stderr(io.StringIO()) as err:
        code = alexnet.main(["train", str(data), *SMALL, "--output-dir", str(folder)])
    return SimpleNamespace(folder=folder, code=code, out=out.getvalue(),
                           err=err.getvalue())


@pytest.fixture
def run(capsys):
    """Run a command in this process: its exit code, and what it printed."""
    def run(*argv):
        capsys.readouterr()
        try:
            code = alexnet.main([str(word) for word in argv])
        except SystemExit as exit:                  # argparse leaves in this way
            code = exit.code
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return run


@pytest.fixture
def half(run, data, tmp_path):
    """A run that stopped after three steps, in the middle of the first epoch."""
    folder = tmp_path / "half"
    assert run("train", data, *SMALL, "--steps", 3, "--output-dir", folder).code == 0
    return folder


def weights(path):
    """Weights and velocities of a checkpoint, by name."""
    if path.is_dir():
        path = path / "last.npz"
    with np.load(path) as file:
        return {name: file[name] for name in file.files
                if name.startswith(("weights/", "velocity/"))}


def same_net(one, other):
    one, other = weights(one), weights(other)
    return one.keys() == other.keys() and len(one) > 30 and all(
        np.array_equal(one[name], other[name]) for name in one)


def progress(path):
    """Where a checkpoint stands: epoch, step, position, rate, ..."""
    return Checkpoint(path).meta["progress"]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def is_clean_error(done, *words):
    """Exit code 1 and one message, with these words, on stderr."""
    assert done.code == 1, done.err
    assert done.err.count("alexnet.py: error:") == 1 and "Traceback" not in done.err
    for word in words:
        assert str(word) in done.err
    return True


def started(*argv, program="import alexnet, sys; sys.exit(alexnet.main())"):
    """The same in another process."""
    return subprocess.Popen([sys.executable, "-c", program, *map(str, argv)], text=True,
                            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(process):
    out, err = process.communicate(timeout=50)
    return SimpleNamespace(code=process.returncode, out=out, err=err)


def numbers(pattern, text):
    return [float(number) for number in re.findall(pattern, text)]


# --- train ----------------------------------------------------------------------------


def test_training_ends_well_and_says_what_to_do_next(trained):
    assert trained.code == 0 and trained.err == ""
    for words in ("recipe quickstart", "seed 0", "30 pictures to learn from",
                  "10 to test with", "of 10 classes", "top-1 error", "chance: 90.0%",
                  str(trained.folder / "kernels.png"), "alexnet.py predict"):
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


def test_training_leaves_four_files_and_nothing_else(trained):
    assert sorted(contents(trained.folder)) == ["best.npz", "kernels.png", "last.npz",
                                                "log.jsonl"]


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


def test_the_best_checkpoint_is_the_one_with_the_lowest_error(trained):
    last, best = (progress(trained.folder / name) for name in ("last.npz", "best.npz"))
    errors = [json.loads(line)["top1_error"]
              for line in (trained.folder / "log.jsonl").read_text().splitlines()
              if '"validation"' in line]
    assert best["step"] == [EPOCH, LAST][int(np.argmin(errors))]
    assert last["step"] == LAST and last["lowest_error"] == min(errors)


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
    signal.alarm(120)
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
    monkeypatch.setattr(alexnet, "PATTERNS", tmp_path / "patterns")
    monkeypatch.setattr(patterns.draw, "__defaults__", (1, 1, 0, 256, True))
    done = run("train", *SMALL, "--steps", 1, "--output-dir", tmp_path / "run")
    assert done.code == 0 and "10 pictures to learn from" in done.out


def test_a_folder_of_patterns_with_strange_files_is_a_clean_error(
        run, tmp_path, monkeypatch):
    strange = tmp_path / "patterns" / "train" / "cats" / "1.jpg"
    strange.parent.mkdir(parents=True)
    strange.touch()
    monkeypatch.setattr(alexnet, "PATTERNS", tmp_path / "patterns")
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
    assert done.code == 0 and f"1 unreadable pictures in {copy}/train were skipped" in done.out
    assert done.err.count(str(broken)) == 1


# --- resume ---------------------------------------------------------------------------


@pytest.mark.parametrize("stop, target", [(3, 7), (EPOCH, LAST), (3, EPOCH), (5, LAST)],
                         ids=["within an epoch", "at its end", "up to its end",
                              "to the end"])
@pytest.mark.parametrize("schedule", ["plateau", "linear"])
def test_a_resumed_run_is_an_uninterrupted_one_to_the_bit(
        run, data, tmp_path, stop, target, schedule):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = [*SMALL, "--colour", "stdev", "--schedule", schedule, "--patience", 1]
    for steps, folder in (target, whole), (stop, parts):
        done = run("train", data, *options, "--steps", steps, "--output-dir", folder)
        assert done.code == 0, done.err
    done = run("train", "--resume", parts, "--steps", target, "--device", "cpu")
    assert done.code == 0 and f"step {stop}" in done.out, done.err
    assert same_net(whole, parts)
    one, other = progress(whole), progress(parts)
    for key in "epoch", "step", "position", "lr":
        assert one[key] == other[key], key


def test_a_resumed_run_ends_after_its_last_epoch(run, half, trained):
    assert run("train", "--resume", half, "--device", "cpu").code == 0
    assert progress(half)["step"] == LAST and same_net(half, trained.folder)


@pytest.mark.parametrize("size, steps", [(4, 2 + 8), (12, 1 + 3), (16, 1 + 2)])
def test_a_run_resumed_with_other_batches_sees_every_picture_once_an_epoch(
        run, half, size, steps):
    # 24 of 30 pictures were seen; 6 are left of the first epoch.
    assert run("train", "--resume", half, "-b", size, "--device", "cpu").code == 0
    at = progress(half)
    assert (at["step"], at["epoch"], at["position"]) == (3 + steps, 2, 0)


def test_more_epochs_can_be_added(run, trained, tmp_path):
    folder = shutil.copytree(trained.folder, tmp_path / "run")
    assert run("train", "--resume", folder, "--epochs", 3, "--device", "cpu").code == 0
    assert progress(folder)["step"] == 3 * EPOCH


@pytest.fixture
def rates(run, data, tmp_path):
    """A function: the rate of every step of a run with some options, and its folder."""
    def of(*options):
        folder = tmp_path / "rates"
        run("train", data, *SMALL, "-p", 1, "--output-dir", folder, *options)
        lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
        return [line["lr"] for line in lines if line["kind"] == "train"], folder
    return of


def test_a_linear_rate_starts_at_lr_and_would_reach_zero_after_the_last_step(rates):
    seen, _ = rates("--schedule", "linear", "--lr", 0.008)
    assert seen == pytest.approx([0.008 * (1 - step / LAST) for step in range(LAST)])


def test_a_plateau_divides_the_rate_by_ten(rates):
    # With a rate of 0 no validation can improve on the first; 0 stays 0, so count the drops.
    _, folder = rates("--schedule", "plateau", "--patience", 1, "--lr", 0, "--epochs", 3)
    assert progress(folder)["plateau"]["drops"] == 2
    _, folder = rates("--schedule", "plateau", "--patience", 1, "--lr", 1e-12,
                      "--epochs", 5, "--resume", folder)
    assert progress(folder)["plateau"]["drops"] == 3
    assert progress(folder)["lr"] == pytest.approx(1e-13, abs=0)


def test_momentum_and_decay_reach_the_optimizer(run, data, trained, tmp_path):
    for options in (["--momentum", 0.5], ["--wd", 0.1]):
        folder = tmp_path / options[0]
        run("train", data, *SMALL, *options, "--output-dir", folder)
        assert not same_net(folder, trained.folder)


def test_ten_views_are_the_mean_over_the_views_of_each_picture(run, trained, data):
    done = run("test", trained.folder / "best.npz", data, "--views", 10, "-b", 3)
    assert done.code == 0 and "mean probability of ten" in done.out
    saved = alexnet.Saved.read(trained.folder / "best.npz")
    model, prepare = alexnet.load(saved, "cpu")
    pictures = dataset.image_folder(data, "val")
    views = np.empty((10, 67, 67, 3), np.float32)
    losses = []
    for path, label in zip(pictures.paths, pictures.labels, strict=True):
        for view, place in zip(views, prepare.views(10), strict=True):
            prepare.fill(images.read(path), view, place)
        logits = model(alexnet.Tensor(views)).numpy().astype(float)
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        losses.append(-np.log(p.mean(axis=0)[label]))
    printed = float(re.search(r"loss ([\d.]+)", done.out)[1])
    assert printed == pytest.approx(np.mean(losses), abs=6e-5)


def test_evaluation_records_no_graph(trained, data, monkeypatch):
    logits, forward = [], alexnet.AlexNet.forward

    def watched(net, image):
        logits.append(forward(net, image))
        return logits[-1]

    monkeypatch.setattr(alexnet.AlexNet, "forward", watched)
    assert alexnet.main(["test", str(trained.folder / "best.npz"), str(data)]) == 0
    assert logits and not any(x.requires_grad for x in logits)


def test_an_unreadable_validation_set_costs_no_epoch(run, data, tmp_path):
    copy = shutil.copytree(data, tmp_path / "broken")
    for path in (copy / "val").glob("*/*"):
        path.write_bytes(b"")
    done = run("train", copy, *SMALL, "--output-dir", tmp_path / "run")
    assert is_clean_error(done, "none of the pictures", copy / "val")
    assert progress(tmp_path / "run")["step"] == EPOCH


def test_two_runs_at_once_take_two_folders(data, tmp_path):
    runs = [subprocess.Popen([sys.executable, ROOT / "alexnet.py", "train", data, *SMALL],
                             cwd=tmp_path, env=environment(), stdout=subprocess.PIPE)
            for _ in range(2)]
    for process in runs:
        process.communicate()
    assert [process.returncode for process in runs] == [0, 0]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "quickstart", "quickstart-2"]


def test_resume_with_a_rate_says_that_it_wins(run, half):
    done = run("train", "--resume", half, "--lr", 0.002, "--steps", 4,
               "--device", "cpu")
    assert "--lr 0.002 wins over 0.01" in done.out
    assert progress(half)["lr"] == 0.002


def test_resume_without_a_rate_keeps_the_one_that_was_reached(run, data, tmp_path):
    folder = tmp_path / "run"
    run("train", data, *SMALL, "--lr", 0.004, "--steps", 2, "--output-dir", folder)
    done = run("train", "--resume", folder, "--device", "cpu", "--steps", 4)
    assert "lr 0.004\n" in done.out and progress(folder)["lr"] == 0.004


def test_resume_with_another_recipe_is_refused(run, half):
    before = contents(half)
    done = run("train", "--resume", half, "--recipe", "paper", "--device", "cpu")
    assert is_clean_error(done, "quickstart", "paper", "--resume")
    assert contents(half) == before


def test_resume_with_another_shape_is_refused(run, half):
    before = contents(half)
    done = run("train", "--resume", half, "--crop", "99", "--device", "cpu")
    assert is_clean_error(done, "last.npz holds another net")
    assert contents(half) == before


def test_resume_with_other_classes_is_refused(run, half, data, tmp_path):
    other = shutil.copytree(data, tmp_path / "data")
    for split in "train", "val":
        (other / split / "rays").rename(other / split / "beams")
    done = run("train", other, "--resume", half, "--device", "cpu")
    assert is_clean_error(done, "other classes")


def test_resume_with_fewer_pictures_comes_to_an_end(run, half, data, tmp_path):
    fewer = shutil.copytree(data, tmp_path / "data")
    for number in 1, 2:
        for path in (fewer / "train").glob(f"*/000{number}.jpg"):
            path.unlink()
    done = run("train", fewer, "--resume", half, "--device", "cpu")
    assert done.code in (0, 1) and "Traceback" not in done.err


def test_a_finished_run_has_nothing_to_do(run, trained):
    before = contents(trained.folder)
    done = run("train", "--resume", trained.folder, "--device", "cpu")
    assert done.code == 0 and "nothing to do" in done.out
    assert contents(trained.folder) == before


def test_an_output_folder_that_holds_a_run_is_refused_and_untouched(run, data, half):
    before = contents(half)
    done = run("train", data, *SMALL, "--output-dir", half)
    assert is_clean_error(done, half / "last.npz", "--resume", "--output-dir")
    assert contents(half) == before


def test_a_resumed_run_does_not_overwrite_another_one(run, trained, half):
    before = contents(half)
    done = run("train", "--resume", trained.folder, "--epochs", 3, "--output-dir", half,
               "--device", "cpu")
    assert is_clean_error(done, half)
    assert contents(half) == before


def never_to_be_improved(path):
    """Make a checkpoint believe that no picture was ever taken for another."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name != "meta"}
    meta = Checkpoint(path).meta
    meta["progress"]["lowest_error"] = 0.0
    store.save(path, arrays, meta)


def test_the_best_checkpoint_stays_when_nothing_improves(run, half):
    best = (half / "best.npz").read_bytes()
    never_to_be_improved(half / "last.npz")
    assert run("train", "--resume", half, "--device", "cpu").code == 0
    assert (half / "best.npz").read_bytes() == best


def test_a_run_resumed_into_a_new_folder_names_only_files_that_are_there(
        run, half, tmp_path):
    never_to_be_improved(half / "last.npz")
    new = tmp_path / "new"
    done = run("train", "--resume", half, "--output-dir", new, "--steps", 4,
               "--device", "cpu")
    assert done.code == 0
    last_lines = done.out.partition("saved:")[2]
    named = re.findall(r"[^\s,']*/\w+\.(?:npz|png|jsonl)", last_lines)
    assert named and all(Path(path).exists() for path in named)


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


@pytest.mark.parametrize("command", ["", "train", "test", "predict", "export", "show", "bench"])
def test_help_fits_into_80_columns(run, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = run(*command.split(), "--help").out
    assert [line for line in text.splitlines() if len(line) > 80] == []


def test_a_wrong_option_is_told_without_the_usage(run):
    done = run("train", "--bath-size", 3)
    assert done.code == 2 and done.err.count("\n") == 1
    assert "unrecognized arguments: --bath-size" in done.err


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
    assert "resumed" not in run(*words, "--steps", 2).out
    done = run(*words, "--steps", 3)
    assert "resumed runs/quickstart-2/last.npz" in done.out
    assert progress(tmp_path / "runs" / "quickstart-2")["step"] == 3


def test_one_tower_takes_one_of_two_gpus_by_default(monkeypatch):
    monkeypatch.setattr(typed_options.device, "default_devices",
                        lambda most=2: "cpu0,cpu1"[:5 * most - 1])
    assert [str(device) for device in typed_options.two_devices(None, 1)] == ["cpu0", "cpu0"]
    assert [str(device) for device in typed_options.two_devices(None, 2)] == ["cpu0", "cpu1"]


def test_a_long_run_says_at_the_start_how_long(run, data, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "SLOW", 0)
    done = run("train", data, *SMALL, "--recipe", "caffe", "--pixel-scale", 0.01,
               "--output-dir", tmp_path / "run")
    assert re.search(r"on this machine all 8 steps will take about \d+ (minutes|hours); "
                     "--recipe quickstart is for trying", done.out), done.out


# --- export -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["net.onnx", "net.pt", "net"])
def test_only_safetensors_are_written(run, trained, tmp_path, name):
    done = run("export", trained.folder, tmp_path / name)
    assert is_clean_error(done, name, ".safetensors") and not (tmp_path / name).exists()


def test_what_is_written_says_how_pictures_are_prepared(run, trained, tmp_path):
    assert run("export", trained.folder, tmp_path / "net.safetensors").code == 0
    arrays, about = load_safetensors(tmp_path / "net.safetensors")
    prepared = json.loads(about["preprocessing"])
    assert prepared["crop"] == 67 and prepared["multiply_by"] == pytest.approx(1 / 64)
    mean = Saved.read(trained.folder).arrays("statistics/")["mean"]
    assert np.array_equal(arrays["mean_image"], mean.transpose(2, 0, 1))


# --- checkpoints of other versions -------------------------------------------------------


def test_a_checkpoint_of_version_0_1_goes_on_to_the_same_bits(run, data, trained, half, tmp_path):
    """It had no seconds, no settings and no unreported sums."""
    saved = Checkpoint(half)
    meta = {name: value for name, value in saved.meta.items()
            if name in ("format", "recipe", "classes", "words", "seed", "data", "history")}
    meta["progress"] = saved.meta["progress"] | {
        "plateau": dict(best=float("inf"), bad=0, drops=0)}
    del meta["progress"]["seconds"]
    with np.load(saved.path) as npz:
        arrays = {name: npz[name] for name in npz.files if name != "meta"}
    (tmp_path / "old").mkdir()
    store.save(tmp_path / "old" / "last.npz", arrays, meta)
    assert run("train", "--resume", tmp_path / "old", "--device", "cpu").code == 0
    assert same_net(tmp_path / "old", trained.folder)


# --- what is refused ------------------------------------------------------------------


@pytest.mark.parametrize("device", ["gpu9", "cuda:0", "cpu0,cpu1,cpu2", "", "cpu,"])
def test_an_unknown_device_is_a_clean_error(run, trained, data, tmp_path, device):
    picture = data / "val" / "rays" / "0000.jpg"
    for command in (["train", data, *NET, "--output-dir", tmp_path / "run"],
                    ["test", trained.folder], ["predict", trained.folder, picture],
                    ["show"]):
        assert is_clean_error(run(*command, "--device", device))


def test_a_folder_that_is_not_there_is_a_clean_error(run, trained, tmp_path):
    missing = tmp_path / "nowhere"
    done = run("train", missing, *SMALL, "--output-dir", tmp_path / "run")
    assert is_clean_error(done, missing, "DIR/train/<class>")
    assert is_clean_error(run("test", trained.folder, missing), missing)


def test_a_folder_that_is_no_data_set_is_a_clean_error(run, trained, tmp_path):
    (tmp_path / "cats.txt").touch()
    done = run("train", tmp_path, *SMALL, "--output-dir", tmp_path / "run")
    assert is_clean_error(done, "cats.txt", "DIR/train/<class>")
    assert is_clean_error(run("test", trained.folder, tmp_path), "cats.txt")


@pytest.mark.parametrize("kind", ["missing", "truncated", "foreign", "text", "empty"])
def test_a_file_that_is_no_checkpoint_is_a_clean_error(run, trained, tmp_path, kind):
    path = tmp_path / "some.npz"
    if kind == "foreign":
        np.savez(path, W=np.zeros(3))
    elif kind != "missing":
        whole = (trained.folder / "last.npz").read_bytes()
        other = {"truncated": whole[:-500], "text": b"words", "empty": b""}
        path.write_bytes(other[kind])
    for command in (["test", path], ["predict", path, "some.jpg"],
                    ["train", "--resume", path]):
        assert is_clean_error(run(*command, "--device", "cpu"), path)


def test_a_checkpoint_of_another_shape_is_a_clean_error(run, trained, tmp_path):
    with np.load(trained.folder / "last.npz") as file:
        arrays = dict(file)
    arrays["weights/fc8.W"] = arrays["weights/fc8.W"][:, :-1]
    np.savez(tmp_path / "other.npz", **arrays)
    for command in (["test", tmp_path / "other.npz"],
                    ["train", "--resume", tmp_path / "other.npz"]):
        assert is_clean_error(run(*command, "--device", "cpu"), "other.npz", "fc8.W")


@pytest.mark.parametrize("options", [
    "--crop 35", "--crop 257", "--crop 0", "--colour pink", "--schedule never",
    "--std much", "-b 0", "-b -8", "--workers 0", "--workers -1", "--steps 0",
    "--steps -1", "--print-freq 0", "--print-freq -1", "--save-freq 0",
    "--save-freq -1", "--seed -1", "--epochs -1", "--epochs 0", "--kernels 4,8",
    "--kernels 4,8,8,8,8,8", "--kernels 0,8,8,8,8", "--kernels 4,8,8,8,-8",
    "--kernels 4,8,x,8,8", "--neurons 16", "--neurons 0,16", "--dropout 1",
    "--dropout -0.1", "--patience x"])
def test_an_option_that_makes_no_sense_is_refused(run, data, tmp_path, options):
    done = run("train", data, *SMALL, *options.split(),
               "--output-dir", tmp_path / "run")
    assert done.code in (1, 2), done.out                  # 2: argparse has noticed
    assert done.err.count("error: ") == 1 and "Traceback" not in done.err
    option, value = options.split()
    assert option.strip("-") in done.err or "batch_size" in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size", [0, -1])
def test_test_refuses_batches_of_nothing(run, trained, size):
    done = run("test", trained.folder, "-b", size, "--device", "cpu")
    assert done.code in (1, 2) and done.err.count("error: ") == 1


def test_an_output_folder_that_cannot_be_made_is_a_clean_error(run, data, tmp_path):
    (tmp_path / "file").touch()
    done = run("train", data, *SMALL, "--output-dir", tmp_path / "file" / "run")
    assert is_clean_error(done, tmp_path / "file")


def test_an_output_folder_that_is_a_file_is_a_clean_error(run, data, tmp_path):
    (tmp_path / "file").touch()
    done = run("train", data, *SMALL, "--output-dir", tmp_path / "file")
    assert is_clean_error(done, tmp_path / "file")


# --- what is survived -----------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("steps", [4, 5, 6])
def test_a_net_that_diverges_leaves_the_last_good_one(run, half, steps):
    before = contents(half)
    done = run("train", "--resume", half, "--lr", 1e30, "--steps", steps, "-p", 1,
               "--device", "cpu")
    assert is_clean_error(done, half / "last.npz", "diverged", "--lr")
    assert all(np.isfinite(array).all() for array in weights(half).values())
    after = contents(half)
    for name in "last.npz", "best.npz":
        assert after[name] == before[name]
    assert "NaN" not in after["log.jsonl"].decode()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_net_that_diverges_from_the_start_says_so(run, data, tmp_path):
    done = run("train", data, *SMALL, "--lr", 1e30, "--output-dir", tmp_path / "run")
    assert is_clean_error(done, "diverged", "nothing was saved")


def test_nothing_but_the_error_is_said_when_a_net_diverges(data, tmp_path):
    done = ended(started("train", data, *SMALL, "--lr", 1e30, "--output-dir",
                         tmp_path / "run"))
    assert done.code == 1 and len(done.err.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM],
                         ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_saves_and_nothing_is_lost(run, data, tmp_path, number):
    options = [*NET, "--epochs", 10_000, "--device", "cpu", "-p", 1]
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    process = started("train", data, *options, "--output-dir", parts)
    for line in process.stdout:
        if "step 6 " in line:
            process.send_signal(number)
            break
    done = ended(process)
    step = progress(parts)["step"]
    assert done.code == 130 and "finishing this step" in done.err
    assert step >= 6 and "interrupted; go on with" in done.err
    command = shlex.split(done.err.strip().splitlines()[-1])
    assert command[2:4] == ["train", "--resume"] and Path(command[4]).exists()

    assert run(*command[2:], "--steps", step + 3, "--device", "cpu").code == 0
    assert run("train", data, *options, "--steps", step + 3,
               "--output-dir", whole).code == 0
    assert same_net(parts, whole)


STOP_AT_STEP = """
import alexnet, os, signal, sys
from tinynet.optim import SGD
step, at = SGD.step, int(sys.argv.pop())
def and_interrupt(self):
    step(self)
    self.count = getattr(self, "count", 0) + 1
    if self.count == at:
        os.kill(os.getpid(), signal.SIGINT)
SGD.step = and_interrupt
sys.exit(alexnet.main())"""


@pytest.mark.parametrize("at", [1, 3, EPOCH, EPOCH + 1, LAST])
def test_ctrl_c_at_any_step_and_resume_is_an_uninterrupted_run(
        run, data, trained, tmp_path, at):
    folder = tmp_path / "run"
    done = ended(started("train", data, *SMALL, "--output-dir", folder, at,
                         program=STOP_AT_STEP))
    assert done.code == 130 and progress(folder)["step"] == at
    assert run("train", "--resume", folder, "--device", "cpu").code == 0
    assert same_net(folder, trained.folder)
    one, other = progress(folder), progress(trained.folder)
    for key in "epoch", "step", "position", "lowest_error":
        assert one[key] == other[key], key
    for name in "best.npz", "kernels.png":
        assert (folder / name).exists()


def test_ctrl_c_before_the_first_step_is_no_traceback(data, tmp_path):
    program = """
import alexnet, os, signal, sys
from tinynet.pictures import images
read = images.read
def and_interrupt(path):
    os.kill(os.getpid(), signal.SIGINT)
    return read(path)
images.read = and_interrupt
sys.exit(alexnet.main())"""
    done = ended(started("train", data, *SMALL, "--output-dir", tmp_path / "run",
                         program=program))
    assert done.code == 130 and "Traceback" not in done.err


LIMITED = """
import resource, sys
size = int(sys.argv.pop())
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
import alexnet
sys.exit(alexnet.main())"""


@pytest.mark.parametrize("size", [100_000, 1000], ids=["the net", "even the log"])
def test_a_full_disk_leaves_the_previous_checkpoint(half, size):
    # What cannot grow past `size` bytes is a disk on which so much is left.
    with open(half / "log.jsonl", "a") as log:
        log.write("\n" * 1000)
    before = contents(half)
    done = ended(started("train", "--resume", half, "--device", "cpu", "--steps", 5,
                         size, program=LIMITED))
    assert is_clean_error(done, half)
    after = contents(half)
    assert sorted(after) == sorted(before)
    for name in "last.npz", "best.npz":
        assert after[name] == before[name]


def test_output_may_be_cut_off_by_a_pipe():
    process = started("show", "--device", "cpu")
    process.stdout.readline()
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=50)
    assert "Traceback" not in error and "Exception ignored" not in error
