"""Killed in front of any system call that changes a file, a run has lost nothing."""
import os

import numpy as np
import pytest

from command_line import steps_logged
from crashes import KILLED, Calls, in_a_fork
from tinynet import SGD, Dense, Sequential, Tensor, ops
from tinynet.pictures.batches import Batch
from tinynet.store import Checkpoint
from tinynet.training.runs import Run
from tinynet.training.saved import Saved

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

ERRORS = 0.5, 0.6, 0.4                   # of the validations: two of three are the best so far
IMAGES = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
LABELS = np.arange(4) % 2


class Rows:
    """Batches of one of three rows."""
    batch_size = 1

    def length(self, epoch):
        return 3

    def training(self, epoch, start=0):
        for row in range(start, 3):
            yield Batch(IMAGES[[row]], LABELS[[row]], np.array([row]), row + 1, 0.0)


def train(folder):
    """Three epochs of three steps, with a save after every second step: always the same bits."""
    model = Sequential(fc=Dense(3, 2)).initialize(0)
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    run = Run(folder, model, optimizer, Rows(), epochs=len(ERRORS), print_freq=1, save_freq=2,
              saved=Saved(settings={"a": 1}))
    with run.resume():
        while run.goes_on():
            for batch in run.batches():
                logits = model.train()(Tensor(batch.images))
                loss = ops.softmax_cross_entropy(logits, labels=batch.labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.saw(loss, logits, batch.labels)
            run.validated(dict(loss=1.0, top1_error=ERRORS[run.epoch], top5_error=0.0,
                               pictures=4))


def net(path):
    """What a checkpoint holds, without the seconds that it took."""
    saved = Checkpoint(path)
    arrays = {name: array.tobytes() for name, array in saved.arrays("").items()}
    at = saved.meta["progress"]
    return arrays, at["step"], at["epoch"], at["position"], at["lowest_error"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody killed, and how many calls it made."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    counted = folder.with_name("calls")

    def job():
        calls = Calls(last=None)
        train(folder)
        counted.write_text(str(calls.count))

    assert in_a_fork(job) == 0
    return folder, int(counted.read_text())


def test_the_run_as_such_is_as_it_is_meant(whole):
    folder, calls = whole
    assert net(folder / "last.npz")[1:] == (9, 3, 0, 0.4)
    assert net(folder / "best.npz") == net(folder / "last.npz")
    assert len(set(steps_logged(folder))) == len(steps_logged(folder)) == 9 + 3 and calls > 80


def test_wherever_it_is_killed_it_goes_on_to_the_same_bits(whole, tmp_path, request):
    """Every fifth place is tried, and with --fuzz N all of them."""
    expected, calls = whole
    lowest = {3: 0.5, 6: 0.5, 9: 0.4}
    for last in range(1, calls + 1, 1 if request.config.getoption("--fuzz") else 5):
        folder = tmp_path / str(last)

        def killed(folder=folder, last=last):
            Calls(last)
            train(folder)

        def on(folder=folder):
            Calls(None)
            train(folder)

        assert in_a_fork(killed) == KILLED, last
        for name in "last.npz", "best.npz":                    # there and whole, or not there
            if (folder / name).exists():
                _, step, epoch, position, error = net(folder / name)
                assert name == "last.npz" or position == 0 and error == lowest[step], last
        assert in_a_fork(on) == 0, last
        for name in "last.npz", "best.npz":
            assert net(folder / name) == net(expected / name), (last, name)
        assert steps_logged(folder) == steps_logged(expected), last
        left = {path.name for path in folder.iterdir()} - {"log.old.jsonl"}
        assert left == {"last.npz", "best.npz", "log.jsonl"}, last
