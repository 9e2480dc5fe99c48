"""What README says is run here."""
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

import alexnet
from helpers import PACKAGE, ROOT, distinct
from tinynet import Tensor, ops
from tinynet.store import Checkpoint

README = (ROOT / "README.md").read_text(encoding="utf-8")


FINE_TUNING = (ROOT / "examples" / "FINE_TUNING.md").read_text(encoding="utf-8")


def blocks(language, page=README):
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def commands(page=README):
    return [line.partition("#")[0].strip() for block in blocks("sh", page)
            for line in block.replace("\\\n", "").splitlines() if line]


def test_it_has_at_most_200_lines():
    assert len(README.splitlines()) <= 200


def test_what_a_terminal_shows_fits_into_80_columns():
    fenced = README.split("```")[1::2]                  # what stands between two fences
    shown = [block for block in fenced if block.startswith("\n")]
    assert len(shown) == 2
    assert [line for block in shown for line in block.splitlines() if len(line) > 80] == []


def test_its_figure_is_that_of_the_program():
    figure = README.split("```")[1].strip()
    assert figure.startswith("top") and figure in alexnet.__doc__


def test_the_program_it_shows_runs(capsys, tmp_path, monkeypatch):
    """Its three blocks, one after the other: a net that learns, an op, a layer."""
    monkeypatch.chdir(tmp_path)
    names = {}
    loop, own_op, own_layer = blocks("python")
    exec(loop, names)
    *steps, last = capsys.readouterr().out.splitlines()
    losses = [float(re.fullmatch(r"step \d00  loss ([\d.]+)", line)[1]) for line in steps]
    assert losses == sorted(losses, reverse=True) and len(losses) == 3 and losses[-1] < 0.3
    assert int(re.fullmatch(r"(\d+)% of the points are right", last)[1]) > 90
    exec(own_op, names)
    assert capsys.readouterr().out == "True\n"
    inputs = [Tensor(distinct(*shape)) for shape in ((4, 3), (3, 2), (2,))]
    assert names["dense"](*inputs).numpy() == pytest.approx(ops.dense(*inputs).numpy())
    exec(own_layer, names)
    assert "conv1" in capsys.readouterr().out and names["logits"].shape == (1, 10)
    assert np.array_equal(names["net"].fc2[1].W.numpy(), Checkpoint("net.npz").arrays(
        "weights/")["fc2.1.W"])


@pytest.mark.parametrize("command", [
    c for page in (README, FINE_TUNING) for c in commands(page) if "alexnet.py" in c])
def test_every_command_has_options_that_exist(command):
    words = shlex.split(command)
    words = words[words.index([w for w in words if w.endswith("alexnet.py")][0]) + 1:]
    alexnet.parser().parse_args(words)


@pytest.mark.parametrize("command", [c for c in commands() if re.search("(data|examples)/", c)])
def test_every_script_it_names_takes_what_it_is_given(command):
    """Asked for help, a script that does not know an option says so first."""
    words = [sys.executable, *shlex.split(command)[1:]]
    done = subprocess.run([*words, "--help"], cwd=ROOT, text=True, capture_output=True)
    needs_torch = "needs PyTorch" in done.stderr
    assert needs_torch or done.returncode == 0 and done.stdout.startswith("usage:"), done.stderr


def test_the_first_command_trains_on_patterns_it_draws_itself(tmp_path):
    """All of it but making the environment, in a copy without data, for two steps; and there a
    tenth of the pictures is drawn, which would take nearly all of the time."""
    copy = tmp_path / "a copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(
        ".*", "__pycache__", "runs", "patterns", "*.egg-info"))
    drawn = copy / "tinynet" / "pictures" / "patterns.py"
    many, few = "draw(folder, train=200, val=50,", "draw(folder, train=20, val=5,"
    text = drawn.read_text(encoding="utf-8")
    assert many in text
    drawn.write_text(text.replace(many, few), encoding="utf-8")
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
    script = ROOT / ".ci" / "run"
    if not script.exists():
        pytest.skip("no .ci/run here: this is not a checkout")
    extract = re.search(r"\$\((sed .*)\)\n", script.read_text())[1]
    found = subprocess.run(["bash", "-c", extract], cwd=ROOT, text=True, capture_output=True)
    assert found.stdout.strip() == commands()[1]
    assert found.stdout.strip().endswith("-m pytest")


def test_its_reading_order_is_that_of_the_package():
    """The same files in the same order as in tinynet/__init__.py (and test_style's imports)."""
    linked = re.findall(r"\]\(tinynet/(\w+)\.py\)", README)
    listed = re.search(r"only those before it:\n(.*?)\.", alexnet.tinynet.__doc__, re.DOTALL)[1]
    assert linked == re.findall(r"\w+", listed)


def test_it_links_to_every_file_of_the_wings_in_the_order_of_their_imports():
    for wing in "formats", "pictures", "training", "tools", "pages":
        linked = re.findall(rf"\]\(tinynet/{wing}/(\w+)\.py\)", README)
        assert sorted(linked) == sorted(path.stem for path in (PACKAGE / wing).glob("[a-z]*.py"))
        for number, name in enumerate(linked):
            text = (PACKAGE / wing / f"{name}.py").read_text(encoding="utf-8")
            imported = " ".join(re.findall(r"^from \.(\w* import .*)", text, re.MULTILINE))
            assert set(re.findall(r"\w+", imported)) & set(linked[number + 1:]) == set(), name


@pytest.mark.parametrize("page", ["README.md", "examples/PAPER.md", "examples/FINE_TUNING.md",
                                  "examples/results/README.md"])
def test_files_a_page_links_to_exist(page):
    page = ROOT / page
    for target in re.findall(r"\]\((?!https:)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
