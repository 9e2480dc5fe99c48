"""Does gpu_check.sh run every part, whatever happens to the others?"""
import math
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import gpu_losses
from gpu_losses import Side, together
from helpers import GPUS, ROOT, SMALL
from tinynet.device import to_host
from tinynet.pictures import packed
from tinynet.pictures.batches import measure


def gpu_check(python, report):
    if not shutil.which("bash"):
        pytest.skip("no bash here")
    return subprocess.run(["bash", ROOT / "tests" / "gpu_check.sh", report], text=True,
                          capture_output=True, env={**os.environ, "PYTHON": str(python)})


def test_the_check_fails_clearly_where_there_is_no_gpu(tmp_path):
    if GPUS:
        pytest.skip("there is a GPU")
    done = gpu_check(sys.executable, tmp_path / "report.txt")
    assert done.returncode == 1 and done.stdout == ""
    assert "gpu_check.sh: error: no GPU answers here" in done.stderr
    assert not (tmp_path / "report.txt").exists()


@pytest.mark.parametrize("broken, failed", [
    ("bench", ["bench, one device"]), ("pytest", ["tests"]), ("nothing", []),
    ("log.jsonl", ["same losses, fp32", "same losses, tf32", "waiting for pictures"])])
def test_the_check_runs_every_part_and_names_those_that_fail(tmp_path, broken, failed):
    python = tmp_path / "python"
    python.write_text(f"""#!/bin/sh
case "$*" in *gpu_count*) echo 1;; *{broken}*) exit 3;; esac""")
    python.chmod(0o755)
    done = gpu_check(python, tmp_path / "report.txt")
    report = (tmp_path / "report.txt").read_text()
    assert done.returncode == bool(failed) and report in done.stdout
    assert re.findall("^FAILED: (.*)$", report, re.M) == failed
    assert len(re.findall("^---.*: passed", report, re.M)) == 18 - len(failed)
    assert "tinynet on 1 GPU(s)" in report


@pytest.fixture
def about(gpus, data):
    """What two sides are made of: a recipe, pictures, and their statistics."""
    pictures = packed.data_set(data, "train")
    recipe = SMALL.changed(dict(batch_size=8, precision="fp32", lr=0.05))
    return recipe, pictures, measure(pictures, 2)


def test_every_step_of_a_gpu_is_compared_with_the_cpus(about):
    """Over an epoch's last, smaller batch as well."""
    recipe, pictures, statistics = about
    length = -(-len(pictures) // 8) + 2
    rows = list(together(recipe, "gpu0", pictures, statistics, length))
    assert [number for number, *_ in rows] == [*range(1, length + 1)]
    for number, loss, there, apart in rows:
        assert there == pytest.approx(loss, rel=1e-6), number
        assert 0 < apart < 1e-3, number


def test_it_begins_where_the_cpu_stands(about):
    """Else both would part, as they do in training."""
    cpu, gpu = (Side(device, *about) for device in ("cpu", "gpu0"))
    batch = next(cpu.loader.training(0))
    cpu.step(0, batch, 0)
    lies = [w.data for _, w in gpu.model.parameters()]
    gpu.begin_as(cpu)
    for array, (name, w), (_, there) in zip(lies, cpu.model.parameters(), gpu.model.parameters(),
                                            strict=True):
        assert there.data is array and np.array_equal(to_host(array), w.data), name
        velocity = cpu.optimizer.velocity[name]
        assert velocity.any()
        assert np.array_equal(to_host(gpu.optimizer.velocity[name]), velocity), name


@pytest.mark.parametrize("fault, status", [("none", 0), ("nan", 1), ("loss", 1), ("step", 1)])
def test_it_fails_if_a_loss_or_a_step_is_wrong(gpus, data, monkeypatch, fault, status):
    plain = Side.step

    def step(side, number, *how):
        wrong = fault if side.top.is_gpu and number == 2 else None
        if wrong == "step":
            monkeypatch.setattr(side.optimizer, "step", lambda: None)
        loss = plain(side, number, *how)
        return dict(nan=math.nan, loss=1.001 * loss).get(wrong, loss)

    monkeypatch.setattr(Side, "step", step)
    monkeypatch.setattr(gpu_losses, "RECIPE", SMALL.changed({"batch_size": 8}))
    assert gpu_losses.main([str(data), "--precision", "fp32", "--steps", "4"]) == status
