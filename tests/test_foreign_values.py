"""A checkpoint that somebody has changed in a place is refused by a sentence that names it."""
import numpy as np
import pytest

from command_line import SMALL, is_clean_error
from tinynet import store
from tinynet.store import Checkpoint

pytestmark = pytest.mark.usefixtures("alarm")


@pytest.fixture
def changed(trained, tmp_path):
    """changed(recipe=..., arrays=...): the path of a checkpoint with these values in place of
    its own."""
    def changed(recipe=(), arrays=()):
        saved = Checkpoint(trained.folder)
        meta = dict(saved.meta, recipe=saved.meta["recipe"] | dict(recipe))
        store.save(tmp_path / "net.npz", saved.arrays("") | dict(arrays), meta)
        return tmp_path / "net.npz"

    return changed


@pytest.mark.parametrize("name, value", [
    ("pool", 5), ("towers", 3), ("lrn", "most"), ("after_conv1", ["relu", "lrn"]),
    ("after_conv2", ["pool", "pool"])])
def test_a_recipe_of_no_net_is_refused(run, changed, name, value):
    assert is_clean_error(run("predict", changed({name: value}), "x.jpg"), "net.npz", name)


def test_weights_of_another_width_are_refused(run, data, changed):
    path = changed(arrays={"weights/top.conv1.0.b": np.zeros(4)})
    for command in ["test", path], ["predict", path, "x.jpg"], ["train", "--resume", path]:
        assert is_clean_error(run(*command, "--device", "cpu"), "top.conv1.0.b is of float64")


def test_weights_that_float32_cannot_hold_are_no_start(run, data, changed, tmp_path):
    path = changed(arrays={"weights/top.conv1.0.b": np.full(4, 1e300)})
    done = run("train", data, *SMALL, "--init-from", path, "--output-dir", tmp_path / "run")
    assert is_clean_error(done, "top.conv1.0.b", "too large")
