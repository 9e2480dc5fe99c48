"""The lessons run, say what they print, and their exercises know right from wrong."""
import functools
import json
import re
import runpy
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import build
import catalogue
import cells
import check
from exercise import Exercise, Question
from helpers import ROOT, code_lines, environment
from once import once
from tinynet import Tensor

LESSONS = cells.lessons()
EXERCISES = catalogue.exercises()
FOLDER = ROOT / "examples" / "lessons"
# A fresh process a lesson; what its cells printed and drew comes back as JSON.
RUN = ("import json, sys, pathlib, cells; print(json.dumps([[c.is_prose, c.source, c.printed, "
       "c.drawing] for c in cells.run(pathlib.Path(sys.argv[1]))]))")


@pytest.fixture(scope="module")
def ran():
    """{lesson: a function that runs it, unless it has been run, and returns its cells}."""
    def run(path, to):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", RUN, str(path)], text=True, capture_output=True,
            env=environment(PYTHONPATH=f"{ROOT}:{FOLDER}"))
        assert done.returncode == 0, done.stderr
        to.write_text(done.stdout, encoding="utf-8")

    def found(path):
        made = once(f"{path.stem}.json", functools.partial(run, path))
        return [cells.Cell(is_prose, source, 0, printed, drawing) for
                is_prose, source, printed, drawing in json.loads(made.read_text(encoding="utf-8"))]

    return {path: functools.partial(found, path) for path in LESSONS}


each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
each_exercise = pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)


@each_lesson
def test_a_lesson_runs(path, ran):
    assert any(cell.printed for cell in ran[path]())


@each_lesson
def test_a_lesson_is_short_and_fits_a_phone(path):
    text = path.read_text(encoding="utf-8")
    code = [cell.source for cell in cells.split(text) if not cell.is_prose]
    assert code_lines("\n".join(code)) <= 80
    assert [line for source in code for line in source.splitlines() if len(line) > 79] == []


@each_lesson
def test_no_line_of_prose_begins_a_list_by_chance(path):
    """Markdown begins one at a line with "1. " or "- ", even within a sentence."""
    cell_sources = [cell.source for cell in cells.split(path.read_text("utf-8")) if cell.is_prose]
    prose = re.sub(r"\$\$.*?\$\$", "", "\n\n".join(cell_sources), flags=re.DOTALL)
    assert re.findall(r".+\n(?:1[.)]|[-+*]) .*", prose) == []


@each_lesson
def test_what_a_lesson_prints_fits_an_80_column_screen(path, ran):
    printed = "".join(cell.printed or "" for cell in ran[path]())
    assert [line for line in printed.splitlines() if len(line) > 80] == []


@each_lesson
def test_a_lesson_opens_files_and_functions_that_exist(path):
    about = cells.header(path.read_text(encoding="utf-8"))
    names = re.findall(r"`([^`]+)`", about["opens"])
    files = [name for name in names if name.endswith(".py")]
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in files)
    assert files
    for name in set(names) - set(files):
        assert re.search(rf"\b(def|class) {name.rpartition('.')[2]}\b", text), name


@each_lesson
def test_every_number_in_the_prose_is_computed_beside_it(path, ran):
    """Those of three digits or more; a year is none."""
    found = ran[path]()
    known = "\n".join((cell.printed or "") + cell.source for cell in found if not cell.is_prose)
    known = set(numbers(known))
    prose = "\n".join(cell.source for cell in found if cell.is_prose)
    prose = re.sub(r"`[^`]*`|\$\$?[^$]*\$\$?", "", prose)
    said = [number for number in numbers(prose)
            if len(re.sub(r"\D", "", number)) >= 3 and not re.fullmatch(r"(19|20)\d\d", number)]
    assert [number for number in said if number not in known] == []


def numbers(text):
    return [number.replace(",", "").replace("_", "")
            for number in re.findall(r"\d(?:[\d,_]*\d)?(?:\.\d+)?", text)]


@each_lesson
def test_a_drawing_has_words_for_whoever_cannot_see_it(path, ran):
    drawings = "".join(cell.drawing or "" for cell in ran[path]())
    labels = re.findall(r'<svg [^>]*role="img" aria-label="([^"]*)"', drawings)
    assert len(labels) == drawings.count("<svg ") and all(len(label) > 20 for label in labels)


@each_lesson
def test_a_lesson_has_a_trap_a_guess_and_exercises(path):
    text = path.read_text(encoding="utf-8")
    assert "Before you run" in text and "trap" in text
    assert len(build.exercises_of(path)) >= 2
    numbers = [exercise.number for exercise in build.exercises_of(path)]
    assert re.findall(r"check\.py (\S+) --show|, `([\w.]+)`", text.splitlines()[-1]) == [
        (numbers[0], ""), *[("", number) for number in numbers[1:]]]


@each_exercise
def test_the_right_answer_is_right(exercise):
    right = exercise.reference if isinstance(exercise, Exercise) else exercise.right
    assert exercise.verdict(right) is None


@each_exercise
def test_the_worked_answer_is_right(exercise):
    lesson, number = exercise.number.split(".")
    lesson = lesson.zfill(2) if lesson.isdigit() else lesson
    names = runpy.run_path(str(FOLDER / "answers" / f"{lesson}_{number}.py"))
    mine = names[exercise.name] if isinstance(exercise, Exercise) else names["answer"]
    assert exercise.verdict(mine) is None
    assert len(names["__doc__"]) > 60                  # why the wrong ones tempt


@each_exercise
def test_every_mistake_is_told_by_its_own_sentence(exercise, monkeypatch):
    """So no two mistakes agree on all cases, and none of them is right."""
    if isinstance(exercise, Exercise):     # what a mistake is compared with is computed once
        results = functools.cache(exercise.results)
        monkeypatch.setattr(type(exercise), "results", lambda self, function: results(function))
    assert len(exercise.mistakes) >= 2
    for sentence, wrong in exercise.mistakes.items():
        assert exercise.verdict(wrong) == sentence


@each_exercise
def test_it_shows_what_is_asked(exercise):
    shown = exercise.show()
    assert len(shown.splitlines()) < 60 and exercise.ask.split()[0] in shown


# --- the checker ------------------------------------------------------------------------


def double(x, by):
    return x * by


DOUBLE = Exercise("0.1", "double", "Multiply x by a number.", double,
                  [(np.arange(3.0), 3), (np.arange(4.0), -1)],
                  {"it adds instead of multiplying": lambda x, by: x + by})


@pytest.mark.parametrize("mine, said", [
    (double, None),
    (lambda x, by: x + by, "it adds instead of multiplying"),
    (lambda x, by: None, "double returns None: is there a return?"),
    (lambda x, by: (x * by)[:2], "case 1, double(float64 (3,), 3): the shape is (2,), not (3,)"),
    (lambda x, by: abs(x * by),
     "case 2, double(float64 (4,), -1): 3 of 4 numbers differ, the first at (1,): 1, not -1"),
    (lambda x, by: (x * by, x), "case 1, double(float64 (3,), 3): 2 values instead of one value"),
    (lambda x, by: lambda: x * by,
     "case 1, double(float64 (3,), 3): it is a function, not what the function gives"),
])
def test_a_verdict_names_the_mistake_or_the_first_difference(mine, said):
    assert DOUBLE.verdict(mine) == said


def test_a_verdict_says_which_of_several_results_differs():
    both = Exercise("0.3", "both", "Twice x, and x.", lambda x: (x * 2, x),
                    [(np.arange(3.0),)], {})
    assert both.verdict(lambda x: (x * 2, x + 1)) == (
        "case 1, both(float64 (3,)), result 2 of 2: 3 of 3 numbers differ, the first at (0,): "
        "1, not 0")


def test_a_verdict_names_the_line_of_an_error_in_the_readers_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("import numpy as np\n\ndef double(x, by):\n    return np.dot(x, np.ones(7))\n")
    said = check.check(DOUBLE, str(file))
    assert said.startswith("line 4: ValueError") and "return np.dot(x, np.ones(7))" in said


def test_a_verdict_of_a_function_that_cannot_be_called_names_no_line():
    assert DOUBLE.verdict(lambda x: x).startswith("TypeError: ")


def test_a_verdict_tells_that_an_argument_was_written_into():
    def mine(x, by):
        x *= by
        return x
    assert "writes into one of its arguments" in DOUBLE.verdict(mine)


def right_but(number, change):
    """What is said of the reference of an exercise when its result has been changed."""
    exercise = EXERCISES[number]
    return exercise.verdict(lambda *case: change(exercise.reference(*case)))


def test_right_numbers_of_another_kind_are_told():
    assert right_but("4.1", lambda pair: pair) is None
    def wider(dx): return lambda dy: np.float64(dx(dy))
    assert right_but("4.1", lambda pair: (pair[0], wider(pair[1]))).startswith(
        "the numbers are right, but dx(dy) is float64, where x and dy are float32")
    assert "but y is float64" in right_but("4.1", lambda pair: (np.float64(pair[0]), pair[1]))
    assert right_but("10.1", lambda losses: [Tensor(loss) for loss in losses]).startswith(
        "the losses are right, but they are Tensors")
    assert right_but("16.3", np.float64) == (
        "the numbers are right, but their dtype is float64; a picture is uint8")


@pytest.mark.parametrize("change, said", [
    (lambda pair: pair[0], "two values are wanted, y and the function dx: relu returns one value"),
    (lambda pair: None, "two values are wanted, y and the function dx: relu returns None"),
    (lambda pair: pair * 2, "two values are wanted, y and the function dx: relu returns 4 values"),
    (lambda pair: (pair[0], pair[0]),
     "the second of the two values is to be the function dx, and not what it gives"),
    (lambda pair: (pair[0], lambda dy: None), "dx returns None: is there a return?")])
def test_an_op_returns_two_values(change, said):
    assert right_but("4.1", change) == said


@pytest.mark.parametrize("answer, said", [
    ("1,000", None), ("1000", None), ("1005", None), ("999.9", None),
    ("10", "that is the number of rows"), ("12", "12 is not it"), ("1_000.0", None),
    ("1,000,000", "1,000,000 is not it"), ("many", "a number is wanted, not 'many'"),
    ("1,10", "a number is wanted, not '1,10'"), ("0,999", "a number is wanted, not '0,999'")])
def test_a_question_takes_a_number(answer, said):
    question = Question("0.2", "How many?", 1000, {"that is the number of rows": 10}, 0.01)
    assert question.verdict(answer) == said


def test_a_choice_is_a_letter():
    question = Question("0.4", "Which? a: one b: two", "b", {"no": "a"})
    assert question.verdict("B ") is None and question.verdict("a") == "no"
    assert question.verdict("b: two") == "one letter is wanted, not 'b: two'"
    assert question.verdict("e") == "one of a, b is wanted, not 'e'"


def test_between_letters_may_be_commas_or_spaces():
    question = Question("0.5", "In which order?", "bac", {"the old order": "abc"})
    for answer in "bac", "b,a,c", "B, A, C", "b a c":
        assert question.verdict(answer) is None
    assert question.verdict("a b c") == "the old order"
    assert question.verdict("ba") == "one of abc, bac is wanted, not 'ba'"
    layer = Question("0.6", "Which layer?", "conv2", {"that one works": "conv1"})
    assert layer.verdict("2") == "one of conv1, conv2 is wanted, not '2'"
    assert layer.verdict("conv 2") is not None         # that is no answer of letters alone


def in_a_process(*words):
    return subprocess.run([sys.executable, FOLDER / "check.py", *words], text=True,
                          capture_output=True, env=environment())


@pytest.fixture
def run_check(capsys):
    """The same in this process, which is there already."""
    def run_check(*words):
        code, error = 0, ""
        try:
            check.main([str(word) for word in words])
        except SystemExit as exit:                     # Python prints this, and ends with 1
            code, error = 1, exit.code
        return SimpleNamespace(returncode=code, stdout=capsys.readouterr().out, stderr=error)

    return run_check


def test_check_lists_shows_and_judges(run_check, tmp_path):
    listed = in_a_process()
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(EXERCISES)
    assert "im2col(x, KH, KW, stride, pad)" in run_check("5.1", "--show").stdout
    right = run_check("5.1", FOLDER / "answers" / "05_1.py")
    assert right.returncode == 0 and right.stdout == "right: im2col agrees on 4 cases\n"
    wrong = in_a_process("5.1", FOLDER / "answers" / "05_2.py")
    assert wrong.returncode == 1
    assert "has no function im2col; those it has: out_size" in wrong.stderr
    assert run_check("10.2", "b", "a", "c").stdout == "right: b a c\n"
    assert run_check("5.9").stderr.startswith("there is no exercise 5.9")
    assert "no such file" in run_check("5.1", tmp_path / "none.py").stderr
    broken = tmp_path / "broken.py"
    for code, said in (("x = 1\nx +\n", "line 2: SyntaxError: invalid syntax"),
                       ("x = 1\nint('a')\n", "line 2: ValueError: invalid literal"),
                       ("import sys\nsys.exit()\n", "ends itself, as by sys.exit()")):
        broken.write_text(code)
        done = run_check("5.1", broken)
        assert done.returncode == 1 and said in done.stderr, done.stderr


@pytest.mark.parametrize("number", ["1.1", "2.2", "5.2", "7.2", "9.2", "16.1"])
@pytest.mark.parametrize("answer", [True, "x", {1}, {}, 1j, ()])
def test_an_answer_of_another_kind_is_told_what_is_wanted(number, answer):
    told = EXERCISES[number].verdict(lambda *given: answer)
    assert told and "\n" not in told


@pytest.mark.parametrize("script", ["check.py", "build.py"])
def test_without_the_environment_it_says_how_to_start_it(script):
    done = subprocess.run([sys.executable, "-S", "-E", FOLDER / script], text=True,
                          capture_output=True)
    assert done.returncode == 1 and "\nstart the environment with" in done.stderr
    assert "Traceback" not in done.stderr


# --- pages and notebooks ----------------------------------------------------------------


@each_lesson
def test_a_page_holds_everything_and_asks_for_nothing(path, ran):
    pytest.importorskip("latex2mathml", reason='needs pip install -e ".[lessons]"')
    html = build.page(path, ran[path](), None, None)
    assert len(html.encode()) < 150_000
    assert "<script" not in html and "http" not in html.replace("http://www.w3.org/", "")
    assert re.findall(r' (?:src|href)="(?!data:image/png;base64,|index\.html|http)', html) == []
    text = re.sub(r"<style>.*?</style>|<(pre|code|svg).*?</\1>", "", html, flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", "", text)
    assert "$" not in text and "\\" not in text and "**" not in text
    assert html == build.page(path, ran[path](), None, None)


def test_the_index_is_a_map_of_all_lessons():
    pytest.importorskip("latex2mathml", reason='needs pip install -e ".[lessons]"')
    html = build.index(LESSONS)
    for path in LESSONS:
        assert f'<a href="{path.stem}.html">' in html
    assert all(number in html for number in EXERCISES)


def test_the_questions_of_a_class_have_the_mistakes_as_choices():
    pytest.importorskip("latex2mathml", reason='needs pip install -e ".[lessons]"')
    html = build.questions()
    asked = [exercise for exercise in EXERCISES.values() if isinstance(exercise, Question)]
    for question in asked:
        assert f"<strong>{question.number}</strong>" in html
    assert html.count("<details>") == len(asked)
    assert re.findall(r"<strong>(\w+)</strong>: \1\b", html) == []
    assert {question.number.split(".")[0] for question in asked} == {
        number.split(".")[0] for number in EXERCISES}       # each lesson has one


@each_lesson
def test_a_notebook_has_the_cells_of_the_lesson_and_what_they_printed(path, ran):
    notebook = json.loads(build.notebook(path, ran[path]()))
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code[1:] == [cell.source for cell in ran[path]() if not cell.is_prose]
    printed = ["".join(output["text"]) for cell in notebook["cells"]
               for output in cell.get("outputs", ()) if output["output_type"] == "stream"]
    assert printed == [cell.printed for cell in ran[path]() if cell.printed]
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
