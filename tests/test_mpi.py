"""Several processes train one net: through a real MPI, where there is one."""
import json
import os
import shutil
import signal
import sys

import pytest

import command_line
from command_line import LAST, PROGRAM, SMALL, log_of, progress, same_net, wait_for_step
from helpers import ROOT
from mpi import MISSING, Job, mpirun
from tinynet.tools import anatomy, memory

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "all is there")


def train(size, data, folder, *words, **how):
    return mpirun(size, "train", data, *SMALL, "--output-dir", folder, *words, **how)


def seen(folder):
    """What the log says of every report but its times, and who talked or waited."""
    times = "seconds", "images_per_s", "waited", "talked", "data"
    return [{name: value for name, value in row.items() if name not in times}
            for row in log_of(folder) if row["kind"] != "start"]


@pytest.mark.parametrize("size", [2, 4, 8])
def test_the_same_net_and_the_same_log(size, trained, data, tmp_path):
    done = train(size, data, tmp_path / "run")
    assert done.code == 0, done.err
    assert same_net(tmp_path / "run", trained.folder)
    assert same_net(tmp_path / "run" / "best.npz", trained.folder / "best.npz")
    assert seen(tmp_path / "run") == seen(trained.folder)
    # One speaks: what one process says, and a line about the others.
    said = [line for line in done.out.splitlines() if "images/s" not in line]
    assert said[0].startswith(f"{size} ranks on 1 host")
    assert len(said) == 1 + len([line for line in trained.out.splitlines()
                                 if "images/s" not in line])
    assert "  talked " in done.out and "  waited " in done.out


def test_stopped_with_four_it_goes_on_with_two_and_with_one(run, trained, data, tmp_path):
    folder = tmp_path / "run"
    assert train(4, data, folder, "--steps", 3).code == 0
    assert progress(folder)["step"] == 3
    assert train(2, data, folder, "--resume", folder, "--steps", 5).code == 0
    done = run("train", data, *SMALL, "--output-dir", folder, "--resume", folder)
    assert done.code == 0, done.err
    assert same_net(folder, trained.folder) and seen(folder)[-1] == seen(trained.folder)[-1]


def test_unreadable_pictures_are_left_out_by_all(run, data, tmp_path):
    some = tmp_path / "some"
    shutil.copytree(data, some)
    files = sorted((some / "train").rglob("*.jpg"))
    for path in files[0], files[11], files[12], files[29]:
        path.write_bytes(b"no picture")
    assert run("train", some, *SMALL, "--output-dir", tmp_path / "one").code == 0
    done = train(4, some, tmp_path / "four")
    assert done.code == 0 and done.err.count("skipped: ") == 4
    assert same_net(tmp_path / "one", tmp_path / "four")


SLOW = PROGRAM.replace("import alexnet, sys;", "import alexnet, sys, time; "
                       "step = alexnet.SGD.step; "
                       "alexnet.SGD.step = lambda self: (time.sleep(0.15), step(self));")


@pytest.mark.parametrize("victim", [0, 1, 3])
def test_killed_it_leaves_nobody_and_loses_nothing(run, trained, data, tmp_path, victim):
    folder = tmp_path / "run"
    job = Job(4, "train", data, *SMALL, "--save-freq", 1, "-p", 1, "--output-dir", folder,
              program=SLOW)
    try:
        wait_for_step(folder, 3, job.process)
        os.kill(job.ranks()[victim], signal.SIGKILL)
        done = job.ended(timeout=10)
    finally:
        job.stop()
    assert done.code != 0 and 2 <= progress(folder)["step"] < LAST
    assert run("train", data, *SMALL, "--output-dir", folder, "--resume", folder).code == 0
    assert same_net(folder, trained.folder)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
def test_asked_to_end_all_ranks_save_after_the_same_step(run, trained, data, tmp_path, number):
    folder = tmp_path / "run"
    job = Job(2, "train", data, *SMALL, "-p", 1, "--output-dir", folder, program=SLOW)
    try:
        wait_for_step(folder, 2, job.process)
        # Launchers pass SIGUSR1 on, and some wait at Ctrl-C. Whoever is asked alone tells the
        # others.
        os.kill(job.process.pid if number == signal.SIGUSR1 else job.ranks()[1], number)
        done = job.ended(timeout=10)
    finally:
        job.stop()
    assert done.code != 0 and "alexnet.py: interrupted; go on with" in done.err
    assert done.err.count("interrupted") == 1
    assert 2 <= progress(folder)["step"] < LAST
    assert run("train", data, *SMALL, "--output-dir", folder, "--resume", folder).code == 0
    assert same_net(folder, trained.folder)


# --- what goes wrong --------------------------------------------------------------------

IN_RANK = ("import alexnet, sys\nfrom tinynet import mpi, ranks, store\n"
           "from tinynet.pictures import packed\nimport errno, time\n"
           "def rank(): return ranks.told()[1]\n{}\nsys.exit(alexnet.main())")
LATER = "step = alexnet.SGD.step\ndef broken(self):\n    {}\n    step(self)\n" \
        "alexnet.SGD.step = broken"


@pytest.mark.parametrize("change, said", [
    (LATER.format("if rank() == 1: raise KeyError('a bug')"), "KeyError: 'a bug'"),
    (LATER.format("if rank() == 1: raise alexnet.UserError('do this')"),
     "rank 1 on {host}: alexnet.py: error: do this"),
    (LATER.format("raise alexnet.UserError('do that')"), "alexnet.py: error: do that"),
    (LATER.format("if rank() == 1: sys.exit(3)"), "SystemExit: 3"),
    ("def full(*args): raise OSError(errno.ENOSPC, 'No space left on device')\nstore.save = full",
     "alexnet.py: error: cannot write"),
    ("plain = packed.data_set\ndef other(*args):\n    found = plain(*args)\n"
     "    if rank() == 1: found.labels = found.labels[::-1].copy()\n    return found\n"
     "packed.data_set = other", "rank 1 on {host} sees 30 pictures"),
    ("plain = packed.data_set\ndef other(folder, *args):\n"
     "    return plain('nowhere' if rank() == 1 else folder, *args)\n"
     "packed.data_set = other", "rank 1 on {host}: alexnet.py: error: nowhere: no such folder"),
], ids=["bug", "error of one", "error of all", "exit", "full disk", "other pictures", "no DIR"])
def test_an_error_ends_all_ranks(data, tmp_path, change, said):
    done = train(2, data, tmp_path / "run", program=IN_RANK.format(change))
    assert done.code != 0                              # that all end at all, mpirun() asks
    assert said.format(host=os.uname().nodename) in done.err
    assert done.err.count("alexnet.py: error") == ("alexnet.py: error" in said or "sees" in said)


def test_who_is_late_is_named_and_waited_for(trained, data, tmp_path):
    late = "mpi.LATE, wait = 0.5, [1.5]\n" + LATER.format(
        "if rank() == 1 and wait: time.sleep(wait.pop())")
    done = train(2, data, tmp_path / "run", program=IN_RANK.format(late))
    assert done.code == 0 and same_net(tmp_path / "run", trained.folder)
    assert f"the others have been waiting for rank 1 on {os.uname().nodename}" in done.err


@pytest.mark.parametrize("size, words, said", [
    (3, ["train"], "3 ranks do not fit into the 8 lanes of a batch; those that fit: 1, 2, 4, 8"),
    (2, ["train", "--device", "cpu0,cpu1"], "of several ranks each has one device"),
    (2, ["train", "--lr", "x"], "argument --lr: must be a number, not 'x'"),
    (2, ["show"], "bench are for several; run this one without it"),
    (2, ["doctor"], "bench are for several; run this one without it"),
    (2, ["bench", "--input"], "bench are for several; run this one without it")])
def test_what_several_ranks_cannot_do(tmp_path, size, words, said):
    where = ["--output-dir", tmp_path / "run"] if "train" in words else []
    done = mpirun(size, *words, *where)
    assert done.code != 0 and done.err.count("error: ") == 1 and said in done.err
    assert not (tmp_path / "run").exists()


def test_a_net_that_learns_nothing_is_looked_at_by_all(data, tmp_path):
    """It runs the net once more, for which all ranks are needed."""
    done = train(4, data, tmp_path / "run", "--stall-steps", 2, "--lr", "0", "-b", "5",
                 "--steps", 4)
    assert done.code == 0, done.err
    assert done.out.count("the loss does not fall below") == 1


def test_out_of_memory_on_one_rank_is_said_without_the_others(data, tmp_path):
    done = train(2, data, tmp_path / "run",
                 program=IN_RANK.format(LATER.format("if rank() == 1: raise MemoryError")))
    assert done.code == 1 and "out of memory" in done.err


def test_an_example_is_for_one_process():
    done = mpirun(2, program="import cifar_smoke, common, sys; sys.path.append('examples'); "
                  "sys.exit(common.main(cifar_smoke.start, cifar_smoke.parser()))",
                  PYTHONPATH=f"{ROOT}:{ROOT / 'examples'}")
    assert done.code == 1 and done.err.count("error: ") == 1 and "without it" in done.err


def test_without_mpi4py_nobody_trains_a_net_of_its_own():
    done = mpirun(2, "train", program="import sys; sys.modules['mpi4py'] = None; " + PROGRAM)
    assert done.code == 1 and done.err.count("error: 2 processes were started, but mpi4py") == 1


def test_processes_that_another_mpi_started_are_not_taken_for_ranks(tmp_path):
    """Each believes that it is alone, while the launcher says that there are two."""
    import subprocess
    for variables in (dict(OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_RANK="0"),
                      dict(SLURM_STEP_NUM_TASKS="2", SLURM_PROCID="0")):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, "train", "--output-dir", str(tmp_path / "run")],
            env={**command_line.environment(), **variables}, text=True, capture_output=True,
            timeout=30)
        assert done.returncode == 1 and "started 2 processes, but mpi4py uses ano" in done.stderr
        assert not (tmp_path / "run").exists()


def test_it_sends_as_many_bytes_as_was_predicted():
    import alexnet
    from tinynet import Device
    from tinynet.ranks import Pretended
    from tinynet.training.recipes import RECIPES
    recipe = RECIPES["quickstart"].changed(dict(kernels=(8, 8, 8, 8, 8), crop=67, batch_size=32))
    words = ["--recipe", "quickstart", "--kernels", "8,8,8,8,8", "--crop", "67", "-b", "32"]
    program = IN_RANK.format("from tinynet.tools import bench\nbench.work_speed = lambda *of: {}")
    for size in 2, 4:
        done = mpirun(size, "bench", *words, "--json", program=program)
        part = memory.without_weights(
            alexnet.build(1000, [Device("cpu")] * 2, recipe, Pretended(size)))
        rows = anatomy.sent_by_rank(part, recipe.batch_size)
        predicted = sum(forward + backward for _, forward, backward in rows) / 1e6
        sent = json.loads(done.out)["sent_mb"]
        assert sent == pytest.approx(predicted, rel=0.01) and sent > 0.2
