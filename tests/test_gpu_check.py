"""Does gpu_check.sh run every part, whatever happens to the others?"""
import os
import re
import shutil
import subprocess
import sys

import pytest

from helpers import GPUS, ROOT


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
    assert len(re.findall("^---.*: passed", report, re.M)) == 16 - len(failed)
    assert "tinynet on 1 GPU(s)" in report
