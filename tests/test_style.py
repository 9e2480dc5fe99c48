"""The habits that keep the engine small enough to be read in an afternoon."""
import ast
import io
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tinynet"
ORDER = ["device", "rng", "engine", "gradcheck", "ops", "winograd", "conv", "layers", "split",
         "memory", "optim", "recipes", "schedules", "images", "progress", "doctor", "stall",
         "batches", "ensemble", "checkpoint", "interop", "packed", "figures", "runs", "bench"]
ENGINE = ORDER[:ORDER.index("optim") + 1]      # what README promises to fit an afternoon
FREE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
        tokenize.ENDMARKER}


def source(name):
    return (PACKAGE / f"{name}.py").read_text(encoding="utf-8")


def code_lines(text):
    """Lines that hold code: blank lines, comments and docstrings are free."""
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in FREE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        is_statement = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_statement and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def own_imports(name):
    for node in ast.walk(ast.parse(source(name))):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            yield from [node.module] if node.module else [alias.name for alias in node.names]


def test_the_order_names_every_file():
    assert sorted(ORDER) == sorted(p.stem for p in PACKAGE.glob("[a-z]*.py"))


@pytest.mark.parametrize("name", ORDER)
def test_a_file_imports_only_from_files_above_it(name):
    above = ORDER[:ORDER.index(name)]
    assert set(own_imports(name)) <= set(above)


@pytest.mark.parametrize("files, most", [(ENGINE, 1320), (ORDER, 2850)])
def test_what_is_to_be_read_stays_short(files, most):
    """Lines of code of the engine, and of the whole package. Raise them only for what is
    worth the reading."""
    assert sum(code_lines(source(name)) for name in files) <= most


def test_cupy_is_imported_in_one_place():
    found = [p.name for p in [*PACKAGE.glob("*.py"), ROOT / "alexnet.py"]
             if "import cupy" in p.read_text(encoding="utf-8")]
    assert found == ["device.py"]


def test_activations_change_device_in_one_file():
    calls = {p.name for p in [*PACKAGE.glob("*.py"), ROOT / "alexnet.py"]
             for node in ast.walk(ast.parse(p.read_text(encoding="utf-8")))
             if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "copy_to"}
    assert calls == {"split.py", "engine.py"}      # engine.py: Tensor.copy_to itself
