"""What README says is run here."""
import doctest
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import alexnet
from helpers import PACKAGE, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands():
    return [line.partition("#")[0].strip() for block in blocks("sh")
            for line in block.splitlines() if line]


def test_the_session_prints_what_it_says():
    example = doctest.DocTestParser().get_doctest(blocks("pycon")[0], {}, "README", None, 0)
    assert doctest.DocTestRunner().run(example).failed == 0


def test_the_op_it_shows_is_the_op_there_is():
    shown = blocks("python")[0]
    assert shown in (PACKAGE / "ops.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", [c for c in commands() if "alexnet.py" in c])
def test_every_command_has_options_that_exist(command):
    words = shlex.split(command)
    words = words[words.index([w for w in words if w.endswith("alexnet.py")][0]) + 1:]
    if "--help" not in words:
        alexnet.parser().parse_args(words)


def test_the_first_command_trains_on_patterns_it_draws_itself(tmp_path):
    """All of it but making the environment, in a copy without data, for two steps."""
    copy = tmp_path / "a copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "runs", "patterns",
                                                              "*.egg-info"))
    steps, python = commands()[0].split("&&")[-1].split(), sys.executable
    assert steps == [".venv/bin/python", "alexnet.py", "train"]
    run = subprocess.run([python, *steps[1:], "--steps", "2"], cwd=copy, text=True,
                         capture_output=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert "recipe quickstart" in run.stdout and "top-1 error" in run.stdout
    assert (copy / "runs" / "quickstart" / "kernels.png").exists()
    following = shlex.split(run.stdout.splitlines()[-1])
    run = subprocess.run(following, cwd=copy, text=True, capture_output=True, timeout=60)
    assert run.returncode == 0 and run.stdout.count("%") == 5


def test_ci_runs_the_test_command():
    script = (ROOT / ".ci" / "run").read_text()
    extract = re.search(r"\$\((sed .*)\)\n", script)[1]
    found = subprocess.run(["bash", "-c", extract], cwd=ROOT, text=True, capture_output=True)
    assert found.stdout.strip() == commands()[1]
    assert found.stdout.strip().endswith("-m pytest")


def test_it_lists_every_file_to_read():
    for path in [*PACKAGE.rglob("[a-z]*.py"), ROOT / "alexnet.py"]:
        name = path.relative_to(ROOT).as_posix()
        assert f"[`{name}`]({name})" in README


def test_files_it_links_to_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / Path(target)).exists(), target
