"""The whole net against PyTorch, by the program that compares their speed."""
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from helpers import ROOT, environment
from tinynet.device import to_host
from tinynet.training.recipes import RECIPES

SCRIPT = ROOT / "examples" / "compare_with_torch.py"
ARGS = SimpleNamespace(device="cpu", classes=10)
SMALL = ["--recipe", "quickstart", "--classes", "10", "-b", "2", "--rounds", "1"]


@pytest.fixture(scope="module")
def example():
    pytest.importorskip("torch", reason="PyTorch is not installed")
    import compare_with_torch
    return compare_with_torch


def both(example, recipe, dtype=np.float32, norm="one call", args=ARGS):
    """Our net and PyTorch's with the same weights, with two images of noise."""
    side = recipe.crop
    images = 60 * recipe.pixel_scale * np.random.default_rng(0).standard_normal((2, side, side, 3))
    ours = example.Ours(args, recipe if norm != "none" else recipe.changed({"lrn": "none"}),
                        images.astype(dtype), np.array([3, 7]))
    for _, w in ours.model.parameters():
        w.data = w.data.astype(dtype)
    theirs = None if norm == "none" else example.Norm(recipe, norm == "one call")
    weights = example.whole_layers(ours.model)
    return ours, example.Theirs(weights, ours.images, ours.labels, args, recipe, theirs)


def differences(example, ours, theirs):
    return example.differences(ours.results(), theirs.results())


def worst(*how):
    return max(differences(*how).values())


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-4), (np.float64, 1e-9)])
def test_the_whole_net_agrees_with_pytorch(example, dtype, tolerance):
    """Full width, the paper's first weights, logits and all gradients.

    With weights that put more units near a kink, one relu or pool that rounds to the other
    side in float32 alone makes a difference of 1e-3 in conv1's gradient, in either library.
    """
    recipe = RECIPES["paper"].changed({"dropout_kind": "inverted"})
    ours, theirs = both(example, recipe, dtype, args=SimpleNamespace(device="cpu", classes=1000))
    found = differences(example, ours, theirs)
    assert len(found) == 1 + 16 and max(found.values()) < tolerance
    assert all(to_host(w.grad).dtype == dtype for _, w in ours.model.parameters())


@pytest.fixture(scope="module")
def recipe():
    return RECIPES["quickstart"].changed({"dropout_kind": "inverted", "lrn_alpha": 0.1})


@pytest.mark.parametrize("norm", ["a call a tower", "one call", "none"])
def test_every_form_of_lrn_agrees_with_a_large_alpha(example, recipe, norm):
    assert worst(example, *both(example, recipe, np.float64, norm)) < 1e-9


def test_lrn_over_both_towers_at_once_would_be_noticed(example, recipe):
    ours, theirs = both(example, recipe, np.float64)
    theirs.model.norm = theirs.model.norm.norm
    assert differences(example, ours, theirs)["logits"] > 1e-6


@pytest.mark.parametrize("name", ["conv1.weight", "conv4.bias", "fc6.weight", "fc8.weight"])
def test_a_few_wrong_weights_are_noticed(example, recipe, name):
    ours, theirs = both(example, recipe, np.float64)
    theirs.model.get_parameter(name).data[:4] += 1e-2
    assert worst(example, ours, theirs) > 1e-7


def test_nets_that_disagree_are_not_timed(example, monkeypatch):
    monkeypatch.setattr(example, "differences", lambda *nets: {"logits": 0.0, "fc6.bias": 0.5})
    with pytest.raises(SystemExit, match="disagree: fc6.bias by 5.0e-01"):
        example.main(SMALL)


def test_it_times_with_lrn_and_without(example, capsys):
    assert example.main([*SMALL, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["job"], row["lrn"]) for row in rows] == [
        (job, norm) for norms in (["a call a tower", "one call"], ["none"])
        for job in ("step", "infer") for norm in norms]
    for row in rows:
        assert row["largest_difference"] < 1e-4
        assert row["lowest"] <= row["ratio"] <= row["highest"]
        assert row["ratio"] == pytest.approx(
            row["tinynet_images_per_s"] / row["torch_images_per_s"])      # of one round


def test_without_pytorch_it_says_what_to_install(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run([sys.executable, SCRIPT], env=environment(PYTHONPATH=path), text=True,
                          capture_output=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "this comparison needs PyTorch: pip install torch\n"
