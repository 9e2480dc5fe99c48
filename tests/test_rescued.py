"""Whoever moves, replaces or halves the files of a run meanwhile: no net and no line is lost."""
import os
import shutil
import signal
import subprocess

import numpy as np
import pytest

import alexnet
from command_line import (
    EPOCH,
    LAST,
    NET,
    SMALL,
    ended,
    is_clean_error,
    log_of,
    progress,
    same_net,
    started,
    wait_for_step,
)
from tinynet import SGD, store
from tinynet.store import Checkpoint
from tinynet.training import log
from tinynet.training.saved import Saved
from tinynet.training.schedules import Plateau

pytestmark = pytest.mark.usefixtures("alarm")


def changed(path, **fields):
    """Set fields of the progress of a checkpoint."""
    saved = Checkpoint(path)
    saved.meta["progress"].update(fields)
    store.save(path, saved.arrays(""), saved.meta)


def long_run(data, folder, **how):
    process = started("train", data, *NET, "--epochs", 10_000, "--device", "cpu", "-p", 1,
                      "--output-dir", folder, stdout=subprocess.DEVNULL, **how)
    wait_for_step(folder, 3, process)
    return process


def test_a_signal_that_is_ignored_at_the_start_stays_ignored(data, tmp_path):
    """As nohup has it."""
    process = long_run(data, tmp_path / "run", program="""
import alexnet, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
sys.exit(alexnet.main())""")
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.terminate()
    assert ended(process).code == 130


def test_a_folder_that_was_renamed_and_made_anew_belongs_to_the_other(run, data, tmp_path):
    process = long_run(data, tmp_path / "run")
    process.send_signal(signal.SIGSTOP)
    (tmp_path / "run").rename(tmp_path / "moved")
    assert run("train", data, *SMALL, "--output-dir", tmp_path / "run").code == 0
    seen = (tmp_path / "run" / "last.npz").read_bytes(), (tmp_path / "run/log.jsonl").read_bytes()
    process.send_signal(signal.SIGCONT)
    done = ended(process)
    assert is_clean_error(done, "its folder was removed or renamed", "move it to")
    rescued = done.err.split("is in ")[1].split(": move")[0]
    assert progress(Checkpoint(rescued).path)["step"] >= 3
    os.unlink(rescued)
    assert seen == ((tmp_path / "run" / "last.npz").read_bytes(),
                    (tmp_path / "run" / "log.jsonl").read_bytes())


def test_a_net_that_is_better_than_best_becomes_best(run, data, half, tmp_path):
    """As after a rescue: best.npz could not be written, what was saved elsewhere is moved in."""
    assert run("train", "--resume", half, "--device", "cpu", "--steps", EPOCH).code == 0
    reached = progress(half)["lowest_error"]
    for case, error in ("worse", 0.99), ("none", None):
        folder = shutil.copytree(half, tmp_path / case)
        (folder / "best.npz").unlink()
        saved = Checkpoint(folder / "last.npz")
        saved.meta["history"][-1]["top1_error"] = saved.meta["progress"]["lowest_error"] = reached
        store.save(folder / "last.npz", saved.arrays(""), saved.meta)
        if error:
            shutil.copy(folder / "last.npz", folder / "best.npz")
            changed(folder / "best.npz", lowest_error=error, step=1)
        assert run("train", "--resume", folder, "--device", "cpu", "--steps", EPOCH).code == 0
        assert progress(folder / "best.npz")["step"] == EPOCH
        assert same_net(folder / "best.npz", folder / "last.npz")


def test_a_validation_of_the_readable_pictures_alone_takes_no_best_net_away(run, half):
    """What could not be read counted as wrong then, and the row in the history does not say so."""
    assert run("train", "--resume", half, "--device", "cpu", "--steps", EPOCH).code == 0
    saved = Checkpoint(half / "last.npz")
    saved.meta["history"][-1]["top1_error"] = 0.4
    saved.meta["progress"]["lowest_error"] = 0.45      # of the step before
    store.save(half / "last.npz", saved.arrays(""), saved.meta)
    (half / "best.npz").unlink()
    shutil.copy(half / "last.npz", half / "best.npz")
    changed(half / "best.npz", step=1)
    run("train", "--resume", half, "--device", "cpu", "--steps", EPOCH)
    assert progress(half / "best.npz")["step"] == 1


def test_a_validation_that_was_broken_off_is_made_up_for(run, half):
    """Also where a run was to end after so many steps, within an epoch."""
    (half / "best.npz").unlink()
    saved = Checkpoint(half / "last.npz")
    saved.meta["history"] = [row for row in saved.meta["history"] if row["kind"] == "train"]
    saved.meta["progress"]["lowest_error"] = float("inf")
    store.save(half / "last.npz", saved.arrays(""), saved.meta)
    done = run("train", "--resume", half, "--steps", 3, "--device", "cpu")
    assert done.code == 0 and "validation:" in done.out
    assert (half / "best.npz").exists() and progress(half)["step"] == 3
    assert "nothing to do" in run("train", "--resume", half, "--steps", 3, "--device", "cpu").out


def test_the_best_net_of_another_run_is_put_aside(run, data, half, tmp_path):
    assert run("train", data, *SMALL, "--seed", 3, "--output-dir", tmp_path / "other").code == 0
    (half / "best.npz").unlink(missing_ok=True)
    shutil.copy(tmp_path / "other" / "best.npz", half / "best.npz")
    changed(half / "best.npz", lowest_error=0.01)
    done = run("train", data, *SMALL, "--output-dir", half, "--resume", "auto")
    assert done.code == 0 and "is of another run: it is called best.old.npz now" in done.err
    assert Saved.read(half / "best.npz").seed == 0 and Saved.read(half / "best.old.npz").seed == 3
    os.replace(half / "best.old.npz", half / "best.npz")
    (half / "best.old.npz").write_bytes(b"of an older one")
    done = run("train", data, *SMALL, "--output-dir", half, "--resume", "auto")
    assert "it is called best.old-2.npz now" in done.err
    assert (half / "best.old.npz").read_bytes() == b"of an older one"


def test_what_cannot_be_read_is_not_right(run, data, tmp_path, monkeypatch):
    """A disk that fails for a while makes no net the best; a file that is lost hardly matters."""
    seen, plain = [], Plateau.multiplier
    monkeypatch.setattr(Plateau, "multiplier",
                        lambda plateau, error: seen.append(error) or plain(plateau, error))
    results = iter([
        dict(loss=1.0, top5_error=0.0, top1_error=error, pictures=count)
        for error, count in [(0.5, 10), (0.0, 4), (0.4, 9), (0.45, 10)]])
    monkeypatch.setattr(alexnet, "evaluate", lambda *how, **more: next(results))
    done = run("train", data, *SMALL, "--schedule", "plateau", "--epochs", 4,
               "--output-dir", tmp_path / "run")
    told = [line.partition("(top-5 0.0%)")[2] for line in done.out.splitlines()
            if "  validation: " in line]
    assert told == [", best so far", " of 4 that can be read",
                    " of 9 that can be read, best so far", ", best so far"]
    assert seen == pytest.approx([0.5, 0.6, 0.46, 0.45])
    assert progress(tmp_path / "run")["lowest_error"] == 0.45


def test_a_checkpoint_stays_the_one_that_was_opened(half):
    saved = Checkpoint(half)
    before = saved.arrays("weights/")
    store.save(half / "last.npz", {}, {})
    assert all(np.array_equal(array, before[name])
               for name, array in saved.arrays("weights/").items())


def test_the_log_of_an_older_version_is_kept(run, half):
    saved = Checkpoint(half / "last.npz")
    del saved.meta["progress"]["logged"]
    store.save(half / "last.npz", saved.arrays(""), saved.meta)
    before = log_of(half)
    assert run("train", "--resume", half, "--device", "cpu").code == 0
    assert log_of(half)[:len(before)] == before


def test_no_half_line_is_left_in_the_log(tmp_path, monkeypatch):
    rows = log.Log(tmp_path / "log.jsonl")
    rows.add({"a": 1})

    class Full:
        def __init__(self, *args):
            self.file = open(*args)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, text):
            self.file.write(text[:3])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(log, "open", Full, raising=False)
    with pytest.raises(OSError, match="No space"):
        rows.add({"b": 2})
    assert rows.path.read_text() == '{"a": 1}\n'


@pytest.mark.parametrize("where, kept", [("forward", EPOCH + 1), ("update", EPOCH)])
def test_an_error_within_a_step_saves_unless_the_update_is_half_done(
        data, tmp_path, monkeypatch, where, kept):
    import alexnet
    step, forward = SGD.step, alexnet.AlexNet.forward
    count = {"update": 0, "forward": 0}

    def counted(name, function):
        def call(*args):
            count[name] += 1
            if name == where and count[name] == EPOCH + 2 + 2 * (name == "forward"):
                raise RuntimeError("the card fell off")
            return function(*args)
        return call

    if where == "forward":                 # one pass more is the validation's, of two batches
        monkeypatch.setattr(alexnet.AlexNet, "forward", counted("forward", forward))
    else:
        body = counted("update", lambda self: None)

        def broken(self):
            body(self)
            return step(self)

        monkeypatch.setattr(SGD, "step", broken)
    with pytest.raises(RuntimeError, match="fell off"):
        alexnet.main(["train", str(data), *SMALL, "--output-dir", str(tmp_path / "run")])
    assert progress(tmp_path / "run")["step"] == kept


def test_a_link_to_a_checkpoint_stands_for_its_folder(run, half, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "link.npz").symlink_to(half / "last.npz")
    assert run("train", "--resume", "link.npz", "--device", "cpu").code == 0
    assert progress(half)["step"] == LAST
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["link.npz"]


@pytest.mark.parametrize("field", ["name", "lr", "pixel_scale"])
def test_a_field_that_a_recipe_has_gained_since_has_its_default(run, data, half, tmp_path, field):
    saved = Checkpoint(half / "last.npz")
    del saved.meta["recipe"][field]
    store.save(half / "last.npz", saved.arrays(""), saved.meta)
    for words in (["test", half, data], ["export", half, tmp_path / "net.safetensors"],
                  ["train", data, "--resume", "auto", "--output-dir", half, "--lr", 0.01]):
        assert run(*words, *["--device", "cpu"] * (words[0] != "export")).code == 0


