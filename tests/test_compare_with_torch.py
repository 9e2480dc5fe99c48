"""The whole net against PyTorch, by the program that compares their speed."""
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from helpers import ROOT, environment
from tinynet.device import to_host
from tinynet.training.recipes import RECIPES

SCRIPT = Path(__file__).resolve().parent.parent / "examples" / "compare_with_torch.py"
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
    draw = np.random.default_rng(0).standard_normal((example.CHECKED, side, side, 3))
    images = 60 * recipe.pixel_scale * draw
    ours = example.Ours(args, recipe if norm != "none" else recipe.changed({"lrn": "none"}),
                        images.astype(dtype), np.arange(example.CHECKED))
    for _, w in ours.model.parameters():
        w.data = w.data.astype(dtype)
    theirs = None if norm == "none" else example.Norm(recipe, norm == "one call")
    weights = example.whole_layers(ours.model)
    return ours, example.Theirs(weights, ours.images, ours.labels, args, recipe, theirs)


def differences(example, ours, theirs):
    return example.differences(ours.results(0), theirs.results(0))


def worst(*how):
    return max(differences(*how).values())


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-4), (np.float64, 1e-9)])
def test_the_whole_net_agrees_with_pytorch(example, dtype, tolerance):
    """Full width, the paper's first weights, logits and all gradients."""
    recipe = RECIPES["paper"].changed({"dropout_kind": "inverted"})
    ours, theirs = both(example, recipe, dtype, args=SimpleNamespace(device="cpu", classes=1000))
    found = example.check(ours.results, theirs.results, tolerance)
    assert len(found) == 1 + 16 and max(found.values()) <= tolerance
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


def found(*values):
    """The differences that check finds where these are those of one image after another."""
    values = iter(values)
    return dict(ours=lambda index: {"fc6.bias": np.ones(1)},
                theirs=lambda index: {"fc6.bias": np.ones(1) / (1 + next(values))})


def test_a_unit_that_rounds_to_the_other_side_on_one_image_is_no_disagreement(example):
    """As one does on some machines in float32."""
    of_three = example.check(**found(1e-3, 0.5, 1e-6, 1e-2), tolerance=1e-4)
    assert of_three["fc6.bias"] == pytest.approx(1e-6, rel=1e-3)


@pytest.mark.parametrize("value, smallest", [(1e-3, 1e-3), (np.nan, np.inf)])
def test_a_disagreement_on_every_image_is_one(example, value, smallest):
    all_images = example.check(**found(*[value] * example.CHECKED), tolerance=1e-4)
    assert all_images["fc6.bias"] == pytest.approx(smallest)


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


@pytest.mark.parametrize("options, status", [
    (["-b", "0"], 2), (["--rounds", "0"], 2), (["--classes", "-1"], 2), (["--rounds", "x"], 2),
    (["--device", "gpu9"], 1), (["--device", "cpu0,cpu1"], 1), (["--conv", "fft"], 1)])
def test_wrong_options_are_answered_with_a_line(example, capsys, options, status):
    try:
        assert example.main([*SMALL, *options]) == status
    except SystemExit as end:                          # argparse's
        assert end.code == status
    assert capsys.readouterr().err.count("compare_with_torch.py: error: ") == 1


@pytest.mark.usefixtures("gpus")
def test_a_pytorch_without_gpus_is_said_to_have_none(example, capsys, monkeypatch):
    monkeypatch.setattr(example.torch.cuda, "is_available", lambda: False)
    assert example.main([*SMALL, "--device", "gpu0:a"]) == 1
    assert "gpu0:a: this PyTorch" in capsys.readouterr().err


@pytest.mark.usefixtures("gpus")
def test_left_out_the_device_is_the_first_gpu(example):
    assert example.parser().parse_args([]).device == "gpu0"


def test_what_it_prints_fits_into_80_columns(example):
    row = dict(job="infer", lrn="a call a tower", largest_difference=1.2345e-10,
               tinynet_images_per_s=12345.678, torch_images_per_s=12345.678, ratio=12.3456,
               lowest=12.3456, highest=12.3456)
    assert max(map(len, example.report([row]))) <= 80


def test_without_pytorch_it_says_what_to_install(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run([sys.executable, SCRIPT], env=environment(PYTHONPATH=path), text=True,
                          capture_output=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "this comparison needs PyTorch: pip install torch\n"
