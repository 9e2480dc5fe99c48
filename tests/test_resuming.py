"""A run that was stopped goes on, with the same bits."""
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import alexnet
from command_line import (
    EPOCH,
    LAST,
    SMALL,
    contents,
    is_clean_error,
    log_of,
    progress,
    same_net,
)
from helpers import ROOT, environment
from tinynet import Tensor, store
from tinynet.pictures import dataset, images
from tinynet.store import Checkpoint

pytestmark = pytest.mark.usefixtures("alarm")


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
    done = run("train", "--resume", half, "--device", "cpu")
    assert done.code == 0 and "last.npz: epoch 1, step 3, lr 0.01\n" in done.out
    assert progress(half)["step"] == LAST and same_net(half, trained.folder)


@pytest.mark.parametrize("size, steps", [(4, 2 + 8), (12, 1 + 3), (16, 1 + 2)])
def test_a_run_resumed_with_other_batches_sees_every_picture_once_an_epoch(
        run, half, size, steps):
    # 24 of 30 pictures were seen; 6 are left of the first epoch.
    assert run("train", "--resume", half, "-b", size, "--device", "cpu").code == 0
    at = progress(half)
    assert (at["step"], at["epoch"], at["position"]) == (3 + steps, 2, 0)


def test_pictures_that_are_gone_are_told_by_whose_they_are(run, data, tmp_path):
    folder = shutil.copytree(data, tmp_path / "pictures")
    assert run("train", folder, *SMALL, "--steps", 1, "--output-dir", tmp_path / "run").code == 0
    folder.rename(tmp_path / "elsewhere")
    done = run("train", "--resume", tmp_path / "run", "--device", "cpu")
    assert is_clean_error(done, tmp_path / "run", "its pictures are not in", folder)
    done = run("train", tmp_path / "elsewhere", "--resume", tmp_path / "run", "--device", "cpu")
    assert done.code == 0 and f"are of the pictures in {folder}: do they compare?" in done.out


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
        return [row["lr"] for row in log_of(folder) if row["kind"] == "train"], folder
    return of


def test_a_linear_rate_falls_by_the_pictures_seen_to_zero(rates):
    seen, _ = rates("--schedule", "linear", "--lr", 0.008)
    assert seen == pytest.approx([0.008 * (1 - before / 60)
                                  for before in (0, 8, 16, 24, 30, 38, 46, 54)])


def test_a_linear_rate_goes_on_from_where_it_was_with_smaller_batches(rates):
    linear = "--schedule", "linear", "--lr", 0.008
    _, folder = rates(*linear, "--steps", 4)
    seen, _ = rates(*linear, "-b", 2, "--resume", folder)
    assert seen[4:] == pytest.approx([0.008 * (1 - (30 + before) / 60)
                                      for before in range(0, 30, 2)])


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


def test_the_settings_of_learning_reach_the_optimizer(run, data, tmp_path, monkeypatch):
    seen = []

    class Watched(alexnet.SGD):
        def step(self):
            seen.append((self.momentum, self.weight_decay, self.bias_lr, self.decay_biases))
            super().step()

    monkeypatch.setattr(alexnet, "SGD", Watched)
    for schedule in "plateau", "constant":
        run("train", data, *SMALL, "--schedule", schedule, "--momentum", 0.5, "--wd", 0.1,
            "--bias-lr", 2, "--no-bias-wd", "--steps", 1, "--output-dir", tmp_path / schedule)
    assert seen == [(0.5, 0.1, 2.0, False)] * 2


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
        logits = model(Tensor(views)).numpy().astype(float)
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
    words = [ROOT / "alexnet.py", "train", data, *SMALL, "--steps", "1"]
    runs = [subprocess.Popen([sys.executable, *words], cwd=tmp_path, env=environment(),
                             stdout=subprocess.PIPE) for _ in range(2)]
    for process in runs:
        process.communicate()
    assert [process.returncode for process in runs] == [0, 0]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "quickstart", "quickstart-2"]


def test_a_resumed_run_keeps_its_seed_and_the_mean_of_its_pictures(run, data, tmp_path):
    """Also if pictures have changed since: the weights know the old mean."""
    seen = shutil.copytree(data, tmp_path / "data")
    words = ["train", seen, *SMALL, "--seed", 7, "--output-dir", tmp_path / "run"]
    assert run(*words, "--steps", 1).code == 0
    mean = Checkpoint(tmp_path / "run" / "last.npz").arrays("statistics/")["mean"]
    for path in (seen / "train").glob("*/*.jpg"):
        Image.new("RGB", (256, 256)).save(path)
    assert run("train", "--resume", tmp_path / "run", "--steps", 2, "--device", "cpu").code == 0
    saved = Checkpoint(tmp_path / "run" / "last.npz")
    assert saved.meta["seed"] == 7 and saved.meta["progress"]["step"] == 2
    assert np.array_equal(saved.arrays("statistics/")["mean"], mean)


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
    assert is_clean_error(done, "other classes",
                          "to learn these:  ", f" train {other} --init-from {half / 'last.npz'}")


def test_resume_with_fewer_pictures_comes_to_an_end(run, half, data, tmp_path):
    fewer = shutil.copytree(data, tmp_path / "data")
    for number in 1, 2:
        for path in (fewer / "train").glob(f"*/000{number}.jpg"):
            path.unlink()
    done = run("train", fewer, "--resume", half, "--device", "cpu")
    at = progress(half)
    assert done.code == 0 and (at["step"], at["epoch"], at["position"]) == (5, 2, 0)


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


def test_a_typo_in_resume_leaves_the_folder_alone(run, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    unfinished = tmp_path / "net.onnx.0123abcd.part"               # of somebody else
    unfinished.write_bytes(b"half")
    (tmp_path / "empty").mkdir()
    for word in "typo", "typo.npz", "empty":
        assert is_clean_error(run("train", data, *SMALL, "--resume", word), word)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "empty", unfinished]
    assert list((tmp_path / "empty").iterdir()) == []


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
    never_to_be_improved(half / "best.npz")
    best = (half / "best.npz").read_bytes()
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
