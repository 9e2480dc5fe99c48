"""What the program refuses, and what it survives."""
import shlex
import signal
from pathlib import Path

import numpy as np
import pytest

from command_line import (
    EPOCH,
    LAST,
    NET,
    SMALL,
    contents,
    ended,
    is_clean_error,
    progress,
    same_net,
    started,
    weights,
)

pytestmark = pytest.mark.usefixtures("alarm")


# --- what is refused ------------------------------------------------------------------


@pytest.mark.parametrize("device", ["gpu9", "cuda:0", "cpu0,cpu1,cpu2", "cpu,"])
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
    "--dropout -0.1", "--patience x", "--after-conv1 relu", "--after-conv2 pool,relu,pool"])
def test_an_option_that_makes_no_sense_is_refused(run, data, tmp_path, options):
    done = run("train", data, *SMALL, *options.split(),
               "--output-dir", tmp_path / "run")
    assert done.code in (1, 2), done.out                  # 2: argparse has noticed
    assert done.err.count("error: ") == 1 and "Traceback" not in done.err
    option, value = options.split()
    assert option.strip("-") in done.err.replace("_", "-")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("word", ["", "--lr=", "--lr=--", "--steps=--"])
def test_a_word_or_a_value_that_is_empty_is_refused(run, data, tmp_path, word):
    done = run("train", data, *SMALL, word, "--output-dir", tmp_path / "run")
    assert done.code == 2 and "is a variable unset?" in done.err


def test_a_value_may_end_in_an_equals_sign(run, data, tmp_path):
    assert run("train", data, *SMALL, "--steps", 1, f"--output-dir={tmp_path}/a=").code == 0
    assert (tmp_path / "a=" / "last.npz").exists()


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
def and_interrupt(path, **how):
    os.kill(os.getpid(), signal.SIGINT)
    return read(path, **how)
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
