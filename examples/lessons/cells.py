"""What is in a lesson, and what does it print? A lesson is a script whose cells begin with # %%.

A cell of prose is Markdown behind `# `. Of a cell of code we keep what it printed, and what its
last line is worth, if that is a drawing: as in a notebook, and so the script itself needs no
word for it.
"""
import ast
import contextlib
import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
MARK = re.compile(r"^# %%(.*)$", re.MULTILINE)
HEADER = re.compile(r"# (?P<title>.*?)\n\n\*(?P<promise>.*?)\*\n\n\*Question: (?P<question>.*?) · "
                    r"Opens:\s(?P<opens>.*?) · Paper: (?P<paper>.*?) · (?P<minutes>\d+) minutes\*",
                    re.DOTALL)


@dataclass
class Cell:
    """source: Markdown, or code. line: of its first one in the script. printed, drawing: what
    code has said and drawn; None before it was run, and of prose."""

    is_prose: bool
    source: str
    line: int
    printed: str | None = None
    drawing: str | None = None


def lessons():
    """The scripts, numbered ones first."""
    return sorted(path for path in FOLDER.glob("*.py") if MARK.match(path.read_text("utf-8")))


def split(text):
    """The cells of a script."""
    marks = list(MARK.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    for mark, end in zip(marks, ends, strict=True):
        source, line = text[mark.end() + 1:end].rstrip(), text.count("\n", 0, mark.end()) + 2
        is_prose = "[markdown]" in mark[1]
        if is_prose:
            source = re.sub(r"^# ?", "", source, flags=re.MULTILINE)
        yield Cell(is_prose, source, line)


def header(text):
    """What a lesson says of itself: a dict of title, promise, question, opens, paper, minutes."""
    found = HEADER.match(next(split(text)).source)
    if not found:
        raise ValueError("a lesson begins with its title, its promise, and a line "
                         "*Question: ... · Opens: ... · Paper: ... · N minutes*")
    return {name: " ".join(value.split()) for name, value in found.groupdict().items()}


def run(path):
    """The cells of a lesson, run in a process that has run nothing else. A warning is an error."""
    cells = list(split(path.read_text("utf-8")))
    names = {"__name__": "__main__", "__file__": str(path)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for cell in cells:
            if not cell.is_prose:
                cell.printed, cell.drawing = run_cell(cell, str(path), names)
    return cells


def run_cell(cell, name, names):
    """(what it printed, the HTML of its last line or None)"""
    code = ast.parse("\n" * (cell.line - 1) + cell.source, name)    # an error names its line
    last = code.body.pop() if code.body and isinstance(code.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(code, name, "exec"), names)
        if last:
            value = eval(compile(ast.Expression(last.value), name, "eval"), names)
    return printed.getvalue(), value._repr_html_() if hasattr(value, "_repr_html_") else None
