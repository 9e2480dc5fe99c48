"""A run whose disk, folder or twin fails keeps what was learned, and says where it is."""
import fcntl
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import alexnet
from command_line import (
    EPOCH,
    LAST,
    NET,
    SMALL,
    ended,
    is_clean_error,
    progress,
    same_net,
    started,
    steps_logged,
)
from helpers import ROOT, environment
from tinynet import store
from tinynet.errors import UserError
from tinynet.training.claim import Claim
from tinynet.training.runs import Run

pytestmark = pytest.mark.usefixtures("alarm")


def remove(folder):
    shutil.rmtree(folder)


def replace_log_by_a_folder(folder):
    (folder / "log.jsonl").unlink()
    (folder / "log.jsonl").mkdir()


def replace_log_by_a_pipe(folder):
    (folder / "log.jsonl").unlink()
    os.mkfifo(folder / "log.jsonl")


# --- errors in the loop -----------------------------------------------------------------


@pytest.mark.parametrize("fault", [remove, replace_log_by_a_folder, replace_log_by_a_pipe])
def test_an_error_in_the_middle_of_a_run_costs_no_step(run, data, tmp_path, at_step, fault):
    at_step(EPOCH + 1, fault)
    done = run("train", data, *SMALL, "-p", 1, "--output-dir", tmp_path / "run")
    assert is_clean_error(done, "cannot write", "log.jsonl", "saved", "--resume")
    assert fault is remove or "log.jsonl: it is no file: remove or rename it" in done.err
    assert progress(tmp_path / "run")["step"] == EPOCH + 1


def test_an_error_behind_an_update_does_not_take_it_twice(run, data, tmp_path, at_step):
    """The net is saved with the step that it has taken."""
    def fail(folder):
        raise MemoryError("of a look at every layer")

    at_step(3, fail)
    done = run("train", data, *SMALL, "--output-dir", tmp_path / "run")
    assert is_clean_error(done, "memory")
    assert progress(tmp_path / "run")["step"] == 3
    assert run("train", "--resume", tmp_path / "run", "--device", "cpu").code == 0
    run("train", data, *SMALL, "--output-dir", tmp_path / "whole")
    assert same_net(tmp_path / "run", tmp_path / "whole")


def test_what_cannot_be_saved_in_its_folder_is_saved_elsewhere(
        run, data, tmp_path, at_step, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))

    def put_a_file_there(folder):
        shutil.rmtree(folder)
        folder.touch()

    at_step(3, put_a_file_there)
    done = run("train", data, *SMALL, "-p", 1, "--output-dir", tmp_path / "run")
    (there,) = (tmp_path / "elsewhere").iterdir()
    assert is_clean_error(done, "cannot write", f"until step 3 is in {there}: move it to ",
                          tmp_path / "run" / "last.npz", "and go on with")
    (tmp_path / "run").unlink()
    (tmp_path / "run").mkdir()
    there.rename(tmp_path / "run" / "last.npz")
    assert run("train", "--resume", tmp_path / "run", "--steps", 4, "--device", "cpu").code == 0
    run("train", data, *SMALL, "--steps", 4, "--output-dir", tmp_path / "whole")
    assert same_net(tmp_path / "run", tmp_path / "whole")


def test_a_card_that_fails_for_good_costs_what_was_not_saved_and_no_more(
        data, tmp_path, at_step, monkeypatch, capsys):
    """What it holds cannot be read again. The folder is given up, and the reader hears of what
    was saved before."""
    folder = tmp_path / "run"

    def fail(*args):
        raise RuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

    def break_it(folder):
        monkeypatch.setattr(Run, "_content", fail)
        fail()

    at_step(EPOCH + 2, break_it)
    with pytest.raises(RuntimeError, match="cudaErrorIllegalAddress"):
        alexnet.main(["train", str(data), *SMALL, "--output-dir", str(folder)])
    said = " ".join(capsys.readouterr().err.split())
    assert "it could be saved nowhere" in said
    assert f"the last good checkpoint is {folder / 'last.npz'}; go on from it" in said
    assert progress(folder)["step"] == EPOCH
    Claim(folder).close()                              # nobody has it any more


def test_a_full_disk_keeps_the_last_checkpoint(run, data, tmp_path, at_step):
    """A limit on the size of files fails as a full disk does, in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    at_step(EPOCH + 1, lambda folder: resource.setrlimit(resource.RLIMIT_FSIZE,
                                                         (100_000, before[1])))
    folder = tmp_path / "run"
    try:
        done = run("train", data, *SMALL, "--save-freq", 1, "--output-dir", folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert is_clean_error(done, "cannot write", "last.npz", "File too large",
                          "the last good checkpoint is")
    assert progress(folder)["step"] == EPOCH
    assert not list(folder.glob("*.part"))
    assert run("train", "--resume", folder, "--device", "cpu").code == 0
    assert progress(folder)["step"] == LAST


def test_a_program_error_keeps_what_was_learned_and_its_traceback(data, tmp_path, monkeypatch):
    monkeypatch.setattr(alexnet, "evaluate", lambda *args, **how: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        alexnet.main(["train", str(data), *SMALL, "--output-dir", str(tmp_path / "run")])
    assert progress(tmp_path / "run")["step"] == EPOCH


def test_a_full_disk_behind_stdout_is_said_on_stderr(data, tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    with open("/dev/full", "w") as full:
        done = ended(started("train", data, *SMALL, "--output-dir", tmp_path / "run",
                             stdout=full))
    assert done.code == 0
    assert done.err == "stdout: No space left on device; nothing more is printed there\n"


def test_commands_that_only_print_say_what_they_could_not_print(trained):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    with open("/dev/full", "w") as full:
        done = ended(started("show", "--recipe", "quickstart", "--device", "cpu", stdout=full))
    assert is_clean_error(done, "what is printed: No space left on device; make room")


# --- best and last ----------------------------------------------------------------------


def test_killed_between_best_and_last_a_run_keeps_its_best(run, data, trained, tmp_path):
    process = started("train", data, *SMALL, "--save-freq", 2, "--output-dir", tmp_path / "run",
                      program="""
import alexnet, os, signal
from tinynet import store
store.second_name = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
alexnet.main()""")
    ended(process)
    folder = tmp_path / "run"
    assert progress(folder / "best.npz")["step"] == EPOCH and progress(folder)["step"] == 2 * 2
    assert progress(folder)["epoch"] == 0              # the validation is still to come
    assert run("train", data, *SMALL, "--output-dir", folder, "--resume", "auto").code == 0
    for name in "last.npz", "best.npz":
        assert same_net(folder / name, trained.folder / name)
        assert progress(folder / name)["lowest_error"] == progress(
            trained.folder / name)["lowest_error"]


def test_best_alone_is_gone_on_with(run, data, half, trained):
    assert run("train", "--resume", half, "--device", "cpu", "--steps", EPOCH).code == 0
    (half / "last.npz").unlink()
    done = run("train", data, *SMALL, "--output-dir", half)
    assert is_clean_error(done, "best.npz is there already")
    done = run("train", data, *SMALL, "--output-dir", half, "--resume", "auto")
    assert done.code == 0 and "best.npz: epoch 2, step 4" in done.out
    assert same_net(half, trained.folder)
    assert [step for kind, step in steps_logged(half) if kind == "validation"] == [3, EPOCH, LAST]


def test_a_damaged_best_is_told_and_replaced(run, data, half):
    (half / "best.npz").unlink()                       # it may be last.npz as well
    (half / "best.npz").write_bytes(b"PK")
    done = run("train", data, *SMALL, "--output-dir", half, "--resume", "auto")
    assert done.code == 0 and "best.npz is truncated, damaged" in done.err
    assert progress(half / "best.npz")["lowest_error"] <= progress(half)["lowest_error"]


@pytest.mark.parametrize("name", ["kernels.png", "curves.png"])
def test_killed_before_its_pictures_are_drawn_a_run_draws_them_when_asked_again(
        run, data, trained, tmp_path, name):
    folder = shutil.copytree(trained.folder, tmp_path / "run")
    drawn = (folder / name).read_bytes()
    (folder / name).unlink()
    done = run("train", data, *SMALL, "--output-dir", folder, "--resume", "auto")
    assert done.code == 0 and "nothing to do" in done.out
    assert (folder / name).read_bytes() == drawn


# --- the log ------------------------------------------------------------------------------


def test_a_resumed_log_has_no_step_twice(run, data, trained, tmp_path):
    folder, words = tmp_path / "run", ["train", data, *SMALL, "-p", 1, "--save-freq", 3]
    ended(started(*words, "--output-dir", folder, program="""
import alexnet, os, signal
from tinynet.training.runs import Run
saw = Run.saw
def watched(run, *seen):
    saw(run, *seen)
    if run.step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
Run.saw = watched
alexnet.main()"""))
    with open(folder / "log.jsonl", "a") as log:
        log.write('{"kind": "tra')                     # torn
    assert ("train", 6) in [tuple(row) for row in [
        (line["kind"], line["step"]) for line in map(json.loads, (
            folder / "log.jsonl").read_text().splitlines()[:-1])]]
    assert run(*words, "--output-dir", folder, "--resume", "auto").code == 0
    assert run(*words, "--output-dir", tmp_path / "whole").code == 0
    assert steps_logged(folder) == steps_logged(tmp_path / "whole")


def test_a_new_run_does_not_write_behind_the_log_of_another(run, data, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "log.jsonl").write_text("an older log\n")
    assert run("train", data, *SMALL, "--steps", 1, "--output-dir", folder).code == 0
    assert (folder / "log.old.jsonl").read_text() == "an older log\n"
    assert '"start"' in (folder / "log.jsonl").read_text().splitlines()[0]


# --- two at once ----------------------------------------------------------------------------


def test_two_runs_on_one_folder_are_one_run_and_an_answer(data, trained, tmp_path):
    words = ["train", data, *SMALL, "--output-dir", tmp_path / "run", "--resume", "auto"]
    both = [started(*words) for _ in range(2)]
    done = sorted((ended(process) for process in both), key=lambda one: one.code)
    if done[1].code == 0:                              # one came when the other had ended
        assert "nothing to do" in done[0].out + done[1].out
    else:
        pids = [str(process.pid) for process in both]
        assert is_clean_error(done[1], "run is in use by process ")
        assert re.search(r"process (\d+) on", done[1].err)[1] in pids
    assert same_net(tmp_path / "run", trained.folder)


def test_a_folder_in_use_is_refused_before_anything_is_read(run, data, tmp_path):
    claim = Claim(tmp_path / "run")
    done = run("train", data, *SMALL, "--output-dir", tmp_path / "run")
    assert is_clean_error(done, f"run is in use by process {os.getpid()} on ")
    claim.close()
    assert run("train", data, *SMALL, "--steps", 1, "--output-dir", tmp_path / "run").code == 0


def test_who_has_just_locked_a_folder_is_given_time_to_say_its_name(tmp_path):
    with open(tmp_path / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        late = threading.Timer(0.02, lambda: print("process 7 on n01", file=file, flush=True))
        late.start()
        with pytest.raises(UserError, match="is in use by process 7 on n01: wait"):
            Claim(tmp_path)
        late.join()
        file.truncate(0)
        with pytest.raises(UserError, match="is in use by another process: wait"):
            Claim(tmp_path)


def test_the_lock_of_whoever_came_later_is_left_to_it(tmp_path):
    """Somebody has removed the folder, and a second run made another of this name."""
    first = Claim(tmp_path)
    (tmp_path / ".lock").unlink()
    second = Claim(tmp_path)
    assert not first.is_ours()
    first.close()
    assert second.is_ours()
    second.close()
    assert not (tmp_path / ".lock").exists()


def test_the_lock_dies_with_its_process(run, data, tmp_path):
    process = started("train", data, *NET, "--epochs", 10_000, "--device", "cpu", "-p", 1,
                      "--output-dir", tmp_path / "run")
    process.stdout.readline()
    while not (tmp_path / "run" / ".lock").exists():
        assert process.poll() is None
    half_written = tmp_path / "run" / "last.npz.0123abcd.part"
    half_written.touch()
    process.kill()
    ended(process)
    assert (tmp_path / "run" / ".lock").exists()
    assert run("train", data, *SMALL, "--steps", 1, "--output-dir", tmp_path / "run",
               "--resume", "auto").code == 0
    assert not half_written.exists() and not (tmp_path / "run" / ".lock").exists()


def test_a_planted_link_is_not_written_through(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        Claim(tmp_path / "run")
    (tmp_path / "run" / "last.npz").symlink_to(tmp_path / "victim")
    store.save(tmp_path / "run" / "last.npz", {}, {})
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "run" / "last.npz").is_symlink()


# --- options that are given again -------------------------------------------------------------


# With a patience of 2 it is stopped between two validations that count.
@pytest.mark.parametrize("patience, above", [(1, 1e-4), (2, 1e-3)])
def test_a_repeated_rate_does_not_undo_what_the_plateau_has_decided(run, data, tmp_path, patience,
                                                                    above):
    words = ["train", data, *SMALL, "--epochs", 5, "--schedule", "plateau", "--patience", patience,
             "--threshold", 1, "--resume", "auto"]
    assert run(*words, "--output-dir", tmp_path / "whole").code == 0
    parts = tmp_path / "parts"
    for steps in 9, 14, 5 * EPOCH:
        assert run(*words, "--output-dir", parts, "--steps", steps).code == 0
    assert progress(parts)["lr"] == progress(tmp_path / "whole")["lr"] < above
    assert same_net(parts, tmp_path / "whole")


def test_another_rate_still_wins(run, data, half):
    done = run("train", data, *SMALL, "--lr", 0.005, "--output-dir", half, "--resume", "auto")
    assert done.code == 0 and "--lr 0.005 wins over 0.01" in done.out
    assert progress(half)["lr"] == 0.005


def test_another_seed_is_refused(run, half):
    assert is_clean_error(run("train", "--resume", half, "--seed", 1), "made with --seed 0")
    assert run("train", "--resume", half, "--seed", 0, "--device", "cpu").code == 0


def test_going_on_and_starting_from_contradict_each_other(run, half):
    assert is_clean_error(run("train", "--resume", half, "--init-from", half / "last.npz"),
                          "--resume goes on with a run, --init-from starts one")


def test_an_option_that_counts_for_nothing_is_told(run, data, tmp_path):
    done = run("train", data, *SMALL, "--steps", 1, "--patience", 3, "--lrn", "none", "--lrn-k", 1,
               "--no-augment", "--share", 4, "--output-dir", tmp_path / "run")
    assert done.code == 0
    assert "--patience counts for nothing with --schedule constant" in done.err
    assert "--lrn-k counts for nothing with --lrn none" in done.err
    assert "--share counts for nothing with --no-augment" in done.err


# --- nobody there -----------------------------------------------------------------------------


def test_without_docstrings_every_command_works(trained):
    for words in (["--help"], ["test", trained.folder, "--device", "cpu"]):
        done = subprocess.run([sys.executable, "-OO", "-c",
                               "import alexnet, sys; sys.exit(alexnet.main())", *map(str, words)],
                              env=environment(), capture_output=True, text=True, timeout=50)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", ["alexnet.py doctor", "data/patterns.py", "examples/figure1.py"])
def test_a_working_folder_that_is_gone_is_a_clean_error(tmp_path, words):
    gone = tmp_path / "gone"
    gone.mkdir()
    # Scripts: with -c, Python would look for modules in that folder, and NumPy fails at it.
    command = f"cd '{gone}' && rmdir '{gone}' && exec '{sys.executable}' '{ROOT}'/"
    done = subprocess.run(["sh", "-c", command + words], env=environment(),
                          capture_output=True, text=True, timeout=50)
    name = Path(words.split()[0]).name
    assert done.returncode == 1 and done.stderr.startswith(f"{name}: error: the working folder is")
    assert done.stderr.count("\n") == 1
