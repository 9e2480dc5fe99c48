"""How tests of the program call it, and what they ask of what it left."""
import json
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np

from helpers import environment
from tinynet.store import Checkpoint

NET = ["--recipe", "quickstart", "--kernels", "4,8,8,8,8", "--neurons", "16,16",
       "--crop", "67", "-b", "8", "--lr", "0.01"]
SMALL = [*NET, "--epochs", "2", "--schedule", "constant", "--device", "cpu"]
TRAIN, VAL = 3, 1                    # pictures of each of ten classes
EPOCH, LAST = 4, 8                   # steps: 8 + 8 + 8 + 6 pictures, twice


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


PROGRAM = "import alexnet, sys; sys.exit(alexnet.main())"


def started(*argv, program=PROGRAM, stdout=subprocess.PIPE, stderr=subprocess.PIPE):
    """The same in another process."""
    return subprocess.Popen([sys.executable, "-c", program, *map(str, argv)], text=True,
                            env=environment(), stdout=stdout, stderr=stderr)


def ended(process, timeout=50):
    out, err = process.communicate(timeout=timeout)
    return SimpleNamespace(code=process.returncode, out=out, err=err)


def wait_for_step(folder, least, process):
    """Until the log of the run has this step: it is written whoever reads stdout."""
    log = folder / "log.jsonl"
    while not log.exists() or f'"step": {least},' not in log.read_text():
        assert process.poll() is None, "it ended too early"
        time.sleep(0.02)


def log_of(folder):
    """The rows of a run's log, a dict each."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def steps_logged(folder):
    """(kind, step) of every row of a run's log, but for those that tell of a start."""
    return [(row["kind"], row["step"]) for row in log_of(folder) if row["kind"] != "start"]


def numbers(pattern, text):
    return [float(number) for number in re.findall(pattern, text)]
