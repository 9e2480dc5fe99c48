"""What others get: a wheel that trains where it is installed, an archive that tests itself.

Both are built here as `pip wheel .` builds them, but without an environment of their own.
"""
import email
import importlib.util
import os
import shlex
import subprocess
import sys
import tarfile
import zipfile
from pathlib import PurePosixPath
from types import SimpleNamespace

import pytest

import tinynet
from helpers import ROOT, environment

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None,
    reason="hatchling, which builds the wheel, is not installed (it is in the extra `test`)")


def built(kind, folder):
    """The one file that a build of this kind makes, in a folder."""
    done = subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", folder],
                          cwd=ROOT, text=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return next(folder.iterdir())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    with zipfile.ZipFile(built("wheel", tmp_path_factory.mktemp("wheel"))) as file:
        yield file


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """{path inside the one top folder: size}"""
    with tarfile.open(built("sdist", tmp_path_factory.mktemp("sdist"))) as file:
        return {PurePosixPath(*PurePosixPath(member.name).parts[1:]).as_posix(): member.size
                for member in file}


def own_files(*folders):
    """Paths of the project's files in these folders, without what Python leaves beside them."""
    return {path.relative_to(ROOT).as_posix() for folder in folders
            for path in (ROOT / folder).rglob("*.*") if path.suffix in (".py", ".css")}


def about(wheel, name):
    """One of the files that describe the distribution, read."""
    return wheel.read(f"tinynet_alexnet-{tinynet.__version__}.dist-info/{name}").decode()


def test_the_wheel_holds_the_engine_and_alexnet_and_nothing_else(wheel):
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == own_files("tinynet") | {"alexnet.py"}


def test_the_wheel_has_the_command(wheel):
    assert "alexnet = alexnet:main" in about(wheel, "entry_points.txt")


def test_the_wheel_says_what_it_is_and_what_it_needs(wheel):
    said = email.message_from_string(about(wheel, "METADATA"))
    assert said["Name"] == "tinynet-alexnet" and said["Version"] == tinynet.__version__
    for name in "Summary", "Author", "Keywords", "License-Expression", "Requires-Python":
        assert said[name], name
    assert "LICENSE" in about(wheel, "RECORD")
    assert said.get_payload().startswith("# tinynet")
    needed = {line.split(">=")[0] for line in said.get_all("Requires-Dist") if ";" not in line}
    assert needed == {"numpy", "pillow", "tqdm", "threadpoolctl"}
    assert {"gpu-cuda12", "gpu-cuda13", "test"} <= {*said.get_all("Provides-Extra")}


def test_the_source_archive_holds_all_that_its_tests_need(sdist):
    wanted = own_files("tinynet", "data", "examples", "tests") | {
        "alexnet.py", "README.md", "LICENSE", "pyproject.toml", "setup.cfg", ".ci/run",
        "tests/cupy_names.txt", "tests/gpu_check.sh", "examples/quickstart_kernels.png",
        "examples/results/README.md"}
    assert wanted <= sdist.keys()


def test_the_source_archive_holds_nothing_that_a_run_has_made(sdist):
    made = {path for path in sdist if PurePosixPath(path).parts[0] in ("runs", "build", "dist")
            or path.startswith("data/") and path.count("/") > 1 or path.endswith((".npz", ".pyc"))}
    assert not made
    assert sum(sdist.values()) < 5e6


def test_building_leaves_nothing_in_the_project(wheel, sdist):
    assert not {"build", "dist"} & {*os.listdir(ROOT)}


@pytest.fixture
def elsewhere(wheel, tmp_path):
    """Run Python in an empty folder, with the wheel instead of the project."""
    wheel.extractall(tmp_path / "site-packages")
    folder = tmp_path / "an empty folder"
    folder.mkdir()

    def run(*words):
        done = subprocess.run([sys.executable, *words], cwd=folder, text=True, timeout=60,
                              env=environment(PYTHONPATH=str(tmp_path / "site-packages")),
                              capture_output=True)
        return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr,
                               folder=folder)

    return run


FEW = """
import functools, runpy
from tinynet.pictures import patterns
patterns.draw = functools.partial(patterns.draw, train=8, val=1)      # of each class, in a second
runpy.run_module("tinynet", run_name="__main__", alter_sys=True)"""


def test_what_is_installed_trains_in_an_empty_folder(elsewhere):
    assert "site-packages" in elsewhere("-c", "import alexnet; print(alexnet.__file__)").out
    done = elsewhere("-c", FEW, "train", "--steps", "2")
    assert done.code == 0, done.err
    assert {path.name for path in done.folder.iterdir()} == {"data", "runs"}
    assert (done.folder / "runs" / "quickstart" / "best.npz").exists()
    python, *following = shlex.split(done.out.splitlines()[-1])
    assert following[:3] == ["-m", "tinynet", "predict"]
    assert elsewhere(*following).out.count("%") == 5


COMMAND = """
import sys
import alexnet
sys.argv[0] = "/somewhere/bin/alexnet"          # as the command that pip makes is called
sys.exit(alexnet.main())"""


@pytest.mark.parametrize("how, name", [
    (["-m", "tinynet"], "python -m tinynet"), (["-c", COMMAND], "alexnet"),
    ([ROOT / "alexnet.py"], "alexnet.py")])
def test_the_program_calls_itself_as_it_was_called(elsewhere, how, name):
    usage = elsewhere(*how, "nothing")
    assert usage.code == 2 and usage.err.startswith(f"{name}: error: ")
    error = elsewhere(*how, "predict", "nowhere.npz", "cat.jpg")
    assert error.code == 1 and error.err.startswith(f"{name}: error: ")
