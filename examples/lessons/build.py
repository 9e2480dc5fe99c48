"""The lessons as pages, or as notebooks.

    python examples/lessons/build.py [OUT]                 OUT/index.html and a page a lesson
    python examples/lessons/build.py [OUT] --notebooks     OUT/05_convolution.ipynb, ...

A page is one file without script and without network: formulas become MathML, drawings are SVG.
Every lesson is run first, in a process of its own, so that a page shows what the code does say.
Pages need the packages of `pip install -e ".[lessons]"`; notebooks need nothing more.
"""
import argparse
import functools
import html
import json
import multiprocessing
import signal
import sys
from pathlib import Path

import catalogue
import cells
from exercise import Exercise
from tinynet.pages.page import document as plain_page
from tinynet.training.program import exit_status


def exercises_of(path):
    """The exercises of a lesson: those of 05_convolution.py have the numbers 5.1, 5.2, ..."""
    lesson = path.stem.partition("_")[0].lstrip("0")
    return [exercise for number, exercise in catalogue.exercises().items()
            if number.partition(".")[0] == lesson]


def exercise_text(exercise):
    """An exercise as Markdown: what is asked, a hint, and the command that checks it."""
    answer = "mine.py" if isinstance(exercise, Exercise) else "ANSWER"
    name = f"`{exercise.name}`: " if isinstance(exercise, Exercise) else ""
    hint = (f"\n\n<details><summary>A hint</summary>\n\n{exercise.hint}\n\n</details>"
            if exercise.hint else "")
    return (f"**{exercise.number}** {name}{exercise.ask}{hint}\n\n"
            f"    python examples/lessons/check.py {exercise.number} {answer}\n")


def exercises_text(path):
    return "\n".join(["## Exercises\n", *map(exercise_text, exercises_of(path))])


# --- pages ------------------------------------------------------------------------------


@functools.cache
def renderer():
    """A function from Markdown to HTML whose formulas are MathML."""
    import latex2mathml.converter
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    def formula(latex, options):
        display = "block" if options["display_mode"] else "inline"
        text = latex2mathml.converter.convert(latex.strip(), display=display)
        return f'<div class="formula">{text}</div>' if display == "block" else text

    markdown = MarkdownIt("commonmark", {"html": True}).enable("table")
    return markdown.use(dollarmath_plugin, renderer=formula, allow_space=False).render


def page(path, ran, before, after):
    """A lesson as HTML. ran: its cells. before, after: its neighbours' paths, or None."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    render, about, body = renderer(), cells.header(path.read_text("utf-8")), []
    for cell in ran:
        if cell.is_prose:
            source = cells.HEADER.sub("", cell.source)         # that is set apart, above
            body.append(f'</section><section><div class="prose">{render(source)}</div>')
            continue
        body.append('<div class="code">'
                    + highlight(cell.source, PythonLexer(), HtmlFormatter(wrapcode=True)))
        if cell.printed:
            body.append(f'<pre class="out">{html.escape(cell.printed)}</pre>')
        if cell.drawing:
            body.append(f"<figure>{cell.drawing}</figure>")
        body.append("</div>")
    body.append(f'</section><section><div class="prose wide">{render(exercises_text(path))}</div>')
    links = "".join(f'<a href="{to.stem}.html" rel="{rel}">{words}</a>' for to, rel, words in (
        (before, "prev", "← the lesson before"), (after, "next", "the next lesson →")) if to)
    head = (f'<h1>{html.escape(about["title"])}</h1><p class="promise">'
            f'{inline(about["promise"])}</p><p class="facts">{inline(facts(about))}</p>')
    return document(about["title"], f'<nav><a href="index.html">all lessons</a>{links}</nav>'
                    f"<header>{head}</header><section>" + "".join(body) + "</section>")


def inline(text):
    """One line of Markdown as HTML, without its paragraph."""
    return renderer()(text).removeprefix("<p>").removesuffix("</p>\n")


def facts(about):
    return (f"{about['question']} Opens {about['opens']}; the paper's section "
            f"{about['paper']}; {about['minutes']} minutes.")


def index(paths):
    """The map: lesson, question, file and function, section of the paper, exercises, minutes."""
    rows, minutes = [], 0
    for path in paths:
        about = cells.header(path.read_text("utf-8"))
        minutes += int(about["minutes"])
        numbers = ", ".join(exercise.number for exercise in exercises_of(path))
        entries = [f'<a href="{path.stem}.html">{html.escape(about["title"])}</a>',
                   *(inline(about[name]) for name in ("question", "opens", "paper")),
                   numbers, about["minutes"]]
        rows.append("<tr>" + "".join(f"<td>{entry}</td>" for entry in entries) + "</tr>")
    titles = "lesson", "its question", "opens", "paper", "exercises", "minutes"
    return document("AlexNet in lessons", f"""<header><h1>AlexNet in lessons</h1>
<p class="promise">You know Python and NumPy. At the end you have built every part of the network
of 2012, and can read every file of tinynet.</p>
<p class="facts">{len(paths)} lessons, {minutes} minutes of reading, and as much again for the
exercises. <a href="questions.html">Questions for a class</a>.</p></header>
<div class="map"><table><tr>{"".join(f"<th>{t}</th>" for t in titles)}</tr>
{"".join(rows)}</table></div>""")


def questions():
    """A page for teachers: every question with its wrong answers as choices."""
    render, parts = renderer(), []
    for exercise in catalogue.exercises().values():
        if isinstance(exercise, Exercise):
            continue
        told = {exercise.right: "right"}
        told.update((wrong, sentence) for sentence, wrong in exercise.mistakes.items())
        choices = sorted(told)                         # words or numbers, never both
        shown = [value if isinstance(value, str) else
                 f"{value:,.0f}" if value == int(value) else f"{value:,.4g}" for value in choices]
        listed = "".join(f"\n- {value}" for value in shown)
        why = "".join(f"\n- **{value}**: {told[choice]}"
                      for value, choice in zip(shown, choices, strict=True))
        parts.append(render(f"**{exercise.number}** {exercise.ask}\n{listed}\n\n<details><summary>"
                            f"Which, and why not the others?</summary>\n\n{why}\n\n</details>"))
    return document("Questions for a class", '<nav><a href="index.html">all lessons</a></nav>'
                    "<header><h1>Questions for a class</h1><p>The wrong choices are the mistakes "
                    "that people make.</p></header>" + "".join(parts))


def document(title, body):
    from pygments.formatters import HtmlFormatter

    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight")
                   for style in ("friendly", "github-dark"))
    return plain_page(
        title, body, f"{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n",
        (cells.FOLDER / "page.css").read_text("utf-8"))


# --- notebooks --------------------------------------------------------------------------


def notebook(path, ran, project="tinynet-alexnet"):
    """A lesson as the JSON of a notebook, with what its cells said and drew.

    project: what pip is to install where tinynet is not: a name, a path or an address.
    """
    entries = [_entry("code", "try:\n    import tinynet\nexcept ImportError:\n"
                      f"    %pip install -q {project}", outputs=[], execution_count=None)]
    count = 0
    for cell in ran:
        if cell.is_prose:
            entries.append(_entry("markdown", cell.source))
            continue
        count, outputs = count + 1, []
        if cell.printed:
            outputs.append(dict(output_type="stream", name="stdout", text=_lines(cell.printed)))
        if cell.drawing:
            outputs.append(dict(output_type="execute_result", execution_count=count, metadata={},
                                data={"text/html": _lines(cell.drawing),
                                      "text/plain": ["a drawing"]}))
        entries.append(_entry("code", cell.source, outputs=outputs, execution_count=count))
    entries.append(_entry("markdown", exercises_text(path)))
    for number, entry in enumerate(entries):
        entry["id"] = f"cell-{number}"
    kernel = dict(display_name="Python 3", language="python", name="python3")
    return json.dumps(dict(cells=entries, metadata=dict(
        kernelspec=kernel, language_info=dict(name="python")), nbformat=4, nbformat_minor=5),
        indent=1, ensure_ascii=False) + "\n"


def _entry(kind, source, **more):
    return dict(cell_type=kind, metadata={}, source=_lines(source), **more)


def _lines(text):
    return text.splitlines(keepends=True)


# --- all of them ------------------------------------------------------------------------


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=Path("lessons"), metavar="OUT",
                        help="the folder to write to (default: lessons)")
    parser.add_argument("--notebooks", action="store_true", help="notebooks instead of pages")
    parser.add_argument("--project", default="tinynet-alexnet", metavar="P", help=(
        "what a notebook installs where tinynet is missing, as on Colab: a name, a path or an "
        "address such as git+https://... (default: tinynet-alexnet)"))
    parser.add_argument("--only", metavar="NAME", help="of the lessons those that begin with NAME")
    args = parser.parse_args(argv)
    if not args.notebooks:
        try:
            renderer()
        except ImportError as problem:
            sys.exit(f'{problem}; pages need more packages: pip install -e ".[lessons]"')
    paths = cells.lessons()
    chosen = [path for path in paths if path.stem.startswith(args.only or "")]
    args.out.mkdir(parents=True, exist_ok=True)
    # Ctrl-C is for this process, which ends the two.
    ignore = signal.signal, (signal.SIGINT, signal.SIG_IGN)
    with multiprocessing.get_context("spawn").Pool(2, *ignore, maxtasksperchild=1) as pool:
        for path, ran in zip(chosen, pool.imap(cells.run, chosen), strict=True):
            place = paths.index(path)
            if args.notebooks:
                target = args.out / f"{path.stem}.ipynb"
                text = notebook(path, ran, args.project)
            else:
                neighbours = [None, *paths, None][place:place + 3:2]
                target = args.out / f"{path.stem}.html"
                text = page(path, ran, *neighbours)
            target.write_text(text, encoding="utf-8")
            print(f"{target}: {len(text.encode()) / 1024:.0f} KB")
    if not args.notebooks:
        for name, text in ("index", index(paths)), ("questions", questions()):
            (args.out / f"{name}.html").write_text(text, encoding="utf-8")
            print(args.out / f"{name}.html")


if __name__ == "__main__":
    sys.exit(exit_status("build.py", main))
