"""The habits that keep the engine small enough to be read in an afternoon."""
import ast
import importlib.util
import subprocess
import sys

import pytest

from helpers import PACKAGE, ROOT, code_lines

# In the order in which they are read; imports go up this list.
ENGINE = ["errors", "cards", "device", "products", "cores", "kernels", "rng", "engine",
          "gradcheck", "ops", "winograd", "columns", "conv", "pool", "norm", "schema", "store",
          "layers", "split", "optim", "progress", "ranks", "mpi", "replay"]
# Other forms of what stands plainly elsewhere, and what only several cards or processes need.
APART = "cards", "products", "winograd", "kernels", "columns", "replay", "ranks", "mpi"
WINGS = {"formats": ["protobuf", "plan", "pickles", "torch_file", "safetensors", "numpy_file",
                     "caffe", "onnx", "known", "reading"],
         "pictures": ["patterns", "images", "readers", "upload", "dataset", "packed", "batches"],
         "training": ["schedules", "cuda_convnet", "recipes", "claim", "saved", "program",
                      "options", "figures", "evaluation", "answers", "weights", "stall",
                      "signals", "log", "runs", "begin"],
         "tools": ["machine", "anatomy", "memory", "doctor", "bench", "svg"],
         "pages": ["page", "activations", "walk", "judged", "report"]}
# Lines of code. Raise them only for what is worth the reading.
BUDGETS = {"engine": 1700, "formats": 950, "pictures": 1115, "training": 2270, "tools": 955,
           "pages": 850}


def own_imports(path):
    """("", "engine") for an import of tinynet.engine, ("pictures", "images") and so on."""
    home = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*home[:len(home) + 1 - node.level], *(node.module or "").split(".")]
            base = [part for part in base if part]
            names = [[*base, alias.name] for alias in node.names]
            for name in names:
                if (PACKAGE.joinpath(*name)).with_suffix(".py").exists():
                    yield name[0] if len(name) > 1 else "", name[-1]
                else:
                    yield base[0] if len(base) > 1 else "", base[-1]


def test_the_order_names_every_file():
    assert sorted(ENGINE) == sorted(p.stem for p in PACKAGE.glob("[a-z]*.py"))
    for wing, files in WINGS.items():
        assert sorted(files) == sorted(p.stem for p in (PACKAGE / wing).glob("[a-z]*.py"))


@pytest.mark.parametrize("name", ENGINE)
def test_a_file_of_the_engine_imports_only_from_files_above_it(name):
    above = {("", other) for other in ENGINE[:ENGINE.index(name)]}
    assert set(own_imports(PACKAGE / f"{name}.py")) <= above


@pytest.mark.parametrize("wing, name", [(wing, name) for wing in WINGS for name in WINGS[wing]])
def test_a_file_of_a_wing_imports_from_the_engine_and_from_above_it(wing, name):
    files = WINGS[wing]
    above = {("", other) for other in ENGINE}
    above |= {(wing, other) for other in files[:files.index(name)]}
    if (wing, name) == ("tools", "bench"):             # which times the input as well
        above |= {("pictures", other) for other in WINGS["pictures"]}
    if (wing, name) == ("training", "weights"):        # which says whose weights they are
        above |= {("formats", other) for other in WINGS["formats"]}
    if wing == "pages":          # which show what all others do, and which nothing reads
        above |= {(other, each) for other in WINGS for each in WINGS[other] if other != wing}
    assert set(own_imports(PACKAGE / wing / f"{name}.py")) <= above


@pytest.mark.parametrize("part", BUDGETS)
def test_what_is_to_be_read_stays_short(part):
    paths = ([PACKAGE / f"{name}.py" for name in ENGINE if name not in APART]
             if part == "engine" else (PACKAGE / part).glob("*.py"))
    assert sum(code_lines(path.read_text(encoding="utf-8")) for path in paths) <= BUDGETS[part]


def test_no_file_is_longer_than_400_lines():
    paths = [*PACKAGE.rglob("*.py"), ROOT / "alexnet.py", *(ROOT / "data").glob("*.py"),
             *(ROOT / "examples").rglob("*.py"), *(ROOT / "tests").glob("*.py")]
    long = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert {name: count for name, count in long.items() if count > 400} == {}


def sources():
    return [*PACKAGE.rglob("*.py"), ROOT / "alexnet.py"]


def test_cupy_is_imported_in_one_place():
    found = [p.name for p in sources() if "import cupy" in p.read_text(encoding="utf-8")]
    assert found == ["device.py"]


def names_in(text):
    """Every name that a program reads, calls or imports: x, y.x and import x as z."""
    for node in ast.walk(ast.parse(text)):
        for kind, field in (ast.Name, "id"), (ast.Attribute, "attr"), (ast.alias, "name"):
            if isinstance(node, kind):
                yield getattr(node, field)


@pytest.mark.parametrize("text", ["y = copy_to(x, d)", "y = x.copy_to(d)",
                                  "from tinynet.engine import copy_to as move"])
def test_a_change_of_device_is_seen_in_whatever_way_it_is_written(text):
    assert "copy_to" in names_in(text)


def test_activations_change_device_in_one_file():
    everything = [*sources(), *(ROOT / "examples").glob("*.py"), *(ROOT / "data").glob("*.py")]
    found = {p.name for p in everything if "copy_to" in names_in(p.read_text(encoding="utf-8"))}
    # __init__.py: the face, which only hands it on.
    assert found - {"__init__.py"} == {"split.py"}


def test_no_test_imports_a_test():
    """What two files of tests need is in helpers.py; conftest.py is pytest's."""
    for path in (ROOT / "tests").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in getattr(node, "names", [])
                     if isinstance(node, ast.Import)] or [getattr(node, "module", "") or ""]
            for name in names:
                assert name != "conftest" and not name.startswith("test_"), path.name


@pytest.mark.skipif(importlib.util.find_spec("ruff") is None, reason="ruff is not installed")
def test_ruff_finds_nothing_to_say():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", ROOT], text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stdout
