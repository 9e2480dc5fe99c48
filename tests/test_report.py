"""A report of runs has the numbers that the other commands print, beside each other."""
import csv
import json
import re
import shutil
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest

from command_line import NET, VAL, log_of, numbers, weights
from tinynet.pages.report import Report, as_time, tables
from tinynet.store import Checkpoint
from tinynet.store import save as save_arrays
from tinynet.tools import svg
from tinynet.training.recipes import RECIPES

CPU = ["--device", "cpu"]


def rows(folder, what):
    with open(folder / f"the.{what}.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_report_has_the_errors_that_test_prints(run, report, trained):
    text = (report / "the.html").read_text("utf-8")
    errors = numbers(r"<td>top-\d error</td><td>(?:<b>)?(\d+\.\d)%", text)
    tested = run("test", trained.folder / "best.npz", *CPU).out
    assert errors == numbers(r"(?:error|top-5) (\d+\.\d)%", tested)
    classes = rows(report, "classes")
    assert sum(float(row["error"]) for row in classes) / 10 == pytest.approx(errors[0] / 100)


def test_a_report_leaves_the_numbers_behind_its_pictures(report, trained):
    logged = [row for row in log_of(trained.folder) if row["kind"] != "start"]
    assert [(row["kind"], float(row["loss"]), float(row["lr"])) for row in
            rows(report, "curves")] == [(row["kind"], row["loss"], row["lr"]) for row in logged]
    assert sum(int(row["pictures"]) for row in rows(report, "confusion")) == 10 * VAL
    pictures = rows(report, "pictures")
    assert len({row["picture"] for row in pictures}) == len(pictures) == 10 * VAL
    for row in pictures:
        assert (row["said"] == row["label"]) == (
            row["probability_of_label"] == row["probability_of_said"])
        assert row["nearest_1_by_fc7"] != row["picture"]
    kernel = weights(trained.folder / "best.npz")["weights/top.conv1.0.W"]
    first = rows(report, "kernels")[0]
    assert float(first["weight"]) == kernel[0, 0, 0, 0] and first["channel"] == "R"
    changed = {row["field"] for row in rows(report, "recipes")}
    assert {"kernels", "neurons", "crop", "batch_size", "epochs", "schedule"} == changed


def test_a_report_of_two_runs_says_what_differs(run, data, trained, tmp_path):
    other = tmp_path / "run train"
    assert run("train", data, *NET, "--epochs", 2, "--schedule", "constant", "--lr", 0.02,
               "--output-dir", other, *CPU).code == 0
    done = run("report", trained.folder, other, "-o", tmp_path / "the.html", *CPU)
    assert done.code == 0, done.err
    assert [tuple(row.values()) for row in rows(tmp_path, "recipes")] == [
        ("run", "lr", "0.01"), ("run train", "lr", "0.02")]
    text = (tmp_path / "the.html").read_text("utf-8")
    curve = re.search(r'aria-label="loss of [^"]*".*?</svg>', text, re.DOTALL)[0]
    points = [len(line.split()) for line in re.findall(r'<polyline points="([^"]*)"', curve)]
    assert points == [2] * 4                           # both log two reports, two validations
    for name, colour in ("run", svg.LINES[0]), ("run train", svg.LINES[1]):
        assert curve.count(f'stroke="{colour}"') == 2  # of training and validation
        assert re.search(rf'fill="{colour}"[^>]*>{name}</text>', curve)


def test_names_that_begin_alike_and_a_run_without_a_log_have_curves_of_their_own(run, trained,
                                                                                 tmp_path):
    folders = [tmp_path / f"2012-11-27-quickstart-{name}" for name in ("first", "none", "third")]
    for folder in folders:
        shutil.copytree(trained.folder, folder)
    saved = Checkpoint(trained.folder / "best.npz")
    meta = dict(saved.meta, history=[])
    meta.pop("format")
    save_arrays(folders[1] / "best.npz", saved.arrays(""), meta)
    (folders[1] / "log.jsonl").unlink()
    assert run("report", *folders, "-o", tmp_path / "the.html", *CPU).code == 0
    text = (tmp_path / "the.html").read_text("utf-8")
    for folder, colour, lines in zip(folders, svg.LINES, (2, 0, 2), strict=False):
        assert f'<h3 style="color:{colour}">{folder.name}</h3>' in text
        curve = re.search(r'aria-label="loss of [^"]*".*?</svg>', text, re.DOTALL)[0]
        assert curve.count('<polyline') == 4 and curve.count(f'stroke="{colour}"') == lines
        if lines:
            assert re.search(rf'fill="{colour}"[^>]*>2012-11-2…tart-{folder.name[-5:]}<', curve)


def test_a_net_without_a_mistake_is_reported_too(run, data, tmp_path):
    for split in "train", "val":
        shutil.copytree(data / split / "dots", tmp_path / "one" / split / "dots")
    shutil.copytree(data / "train" / "dots", tmp_path / "one" / "val" / "dots",
                    dirs_exist_ok=True)                # of one picture there is no report
    done = run("train", tmp_path / "one", *NET, "--epochs", 1, "--output-dir", tmp_path / "run",
               *CPU)
    assert done.code == 0 and "top-1 error 0.0%" in done.out and "has one class" in done.err
    for words in ["walk", tmp_path / "run", tmp_path / "walk.html"], [
            "report", tmp_path / "run", "-o", tmp_path / "the.html"]:
        done = run(*words, *CPU)
        assert done.code == 0, done.err
    assert "most frequent mistakes" not in (tmp_path / "the.html").read_text("utf-8")


def test_a_checkpoint_without_its_log_is_reported_by_its_history(run, trained, tmp_path):
    shutil.copy(trained.folder / "best.npz", tmp_path / "alone.npz")
    done = run("report", tmp_path / "alone.npz", "-o", tmp_path / "the.html", *CPU)
    assert done.code == 0, done.err
    assert {row["kind"] for row in rows(tmp_path, "curves")} == {"validation"}


def test_an_imported_net_has_no_curves_not_even_those_of_an_older_report(run, trained, tmp_path):
    """Nor those of the run into whose folder it was written."""
    folder = shutil.copytree(trained.folder, tmp_path / "run")
    words = "-o", tmp_path / "the.html", *CPU
    assert run("report", folder, *words).code == 0 and rows(tmp_path, "curves")
    data = Checkpoint(folder / "best.npz").meta["data"]
    run("export", folder / "best.npz", tmp_path / "net.safetensors")
    run("import", tmp_path / "net.safetensors", folder / "imported.npz")
    done = run("report", folder / "imported.npz", "--data", data, *words)
    assert done.code == 0 and rows(tmp_path, "curves") == []
    assert "<td>training took</td><td>0" in (tmp_path / "the.html").read_text("utf-8")


def test_every_column_of_any_run_is_in_the_table():
    recipe = json.loads(json.dumps(asdict(RECIPES["paper"])))

    def judged(name, count):
        return SimpleNamespace(
            name=name, errors=lambda: [0.0], confusion=lambda: np.array([[count]]), rows=[],
            saved=SimpleNamespace(classes=["a"], words={}, recipe=recipe,
                                  seed=0, data=name, path=name),
            pictures=SimpleNamespace(name=str), indices=range(count), labels=[0] * count,
            said=[0] * count, logs=np.zeros((count, 1)), kernels=[],
            by_code=np.zeros((count, count - 1), int), by_pixels=np.zeros((count, count - 1), int))
    columns, found = tables([judged("one", 2), judged("two", 4)])["pictures"]
    assert len(found) == 6 and columns[-1] == "nearest_3_by_pixels"


def test_a_damaged_line_of_a_log_is_left_out_and_named(run, trained, tmp_path):
    folder = shutil.copytree(trained.folder, tmp_path / "run")
    whole = (folder / "log.jsonl").read_text()
    bad = '{"kind": "train", "loss": NaN}\n[1]\nhalf a li'
    (folder / "log.jsonl").write_text(whole + bad)
    done = run("report", folder, "-o", tmp_path / "the.html", *CPU)
    first = whole.count("\n") + 1
    assert done.code == 0
    assert numbers(r"line (\d+) is left out", done.err) == [first, first + 1, first + 2]
    assert len(rows(tmp_path, "curves")) == whole.count("\n") - 1


def test_a_report_of_a_folder_is_of_its_best_net_and_of_the_whole_time(run, trained, tmp_path):
    """Whatever its last one is."""
    folder = shutil.copytree(trained.folder, tmp_path / "run")
    (folder / "last.npz").unlink()
    logged = log_of(folder)
    lines = [json.dumps(dict(row, seconds=3600.0 * number)) for number, row in enumerate(logged)]
    (folder / "log.jsonl").write_text("".join(line + "\n" for line in lines))
    assert run("report", folder, "-o", tmp_path / "the.html", *CPU).code == 0
    told, = re.findall(r"<td>training took</td><td>([^<]*)", (tmp_path / "the.html").read_text())
    assert told == as_time(3600.0 * (len(logged) - 1))


def test_of_many_classes_the_worst_and_the_best_are_shown():
    errors = np.linspace(0, 1, 30)
    judged = SimpleNamespace(errors=lambda: errors, saved=SimpleNamespace(
        classes=[f"c{number}" for number in range(30)], words={}))
    told = Report.classes(None, judged)
    shown = [int(number) for number in re.findall(r"<span>c(\d+)</span>", told)]
    assert shown == [*range(29, 19, -1), *range(9, -1, -1)]
    assert "The 10 worst and the 10 best of 30." in told
