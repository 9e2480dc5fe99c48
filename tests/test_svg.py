"""Drawings say in words what they show, and put things where they belong."""
import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from tinynet.tools import svg


def shapes(drawing, kind):
    """The attributes of all shapes of a kind; a drawing that is no XML raises."""
    root = ElementTree.fromstring(drawing)
    return [dict(element.attrib, text=element.text) for element in root.iter()
            if element.tag.endswith("}" + kind)]


@pytest.mark.parametrize("drawing", [
    svg.matrix([[1, 2], [3, 4]], "<four> numbers & more"),
    svg.bars({"a": 1, "b": 2}, "<four> numbers & more"),
    svg.bars({"a": 1}, "<four> numbers & more", beside={"a": 2}, titles=("x", "y")),
    svg.curves({"a": [(0, 1), (1, 2)]}, "<four> numbers & more"),
    svg.graph({1: (0, 0, "one"), 2: (1, 0, "two\nlines")}, [(1, 2)], "<four> numbers & more"),
    svg.pixels(np.zeros((2, 3), np.uint8), "<four> numbers & more")])
def test_a_drawing_is_xml_with_words_and_no_fixed_ink(drawing):
    root = ElementTree.fromstring(drawing)
    assert root.get("aria-label") == "<four> numbers & more" and root.get("role") == "img"
    assert root.get("fill") == "currentColor" and drawing._repr_html_() == drawing


def test_a_matrix_shows_every_number_and_marks_some():
    drawing = svg.matrix([[1, 2, 3], [4, 5, 6]], "six numbers", mark=lambda value: value > 4)
    assert [text["text"] for text in shapes(drawing, "text")] == list("123456")
    framed = [box for box in shapes(drawing, "rect") if box["stroke"] == svg.GRADIENT]
    assert len(framed) == 2
    opacity = [float(box["fill-opacity"]) for box in shapes(drawing, "rect")]
    assert opacity == sorted(opacity) and opacity[0] < opacity[-1]     # darker: larger


def test_bars_are_as_long_as_their_numbers():
    widths = [float(box["width"]) for box in shapes(
        svg.bars({"a": 1, "b": 2, "c": 4}, "three bars"), "rect")]
    assert widths == pytest.approx([widths[2] / 4, widths[2] / 2, widths[2]], rel=1e-3)


def test_mirrored_bars_grow_away_from_the_names():
    left, right = shapes(svg.bars({"a": 5}, "two bars", beside={"a": 7}), "rect")
    name = next(text for text in shapes(svg.bars({"a": 5}, "two bars", beside={"a": 7}), "text")
                if text["text"] == "a")
    assert float(left["x"]) + float(left["width"]) < float(name["x"]) < float(right["x"])


@pytest.mark.parametrize("log, points", [("", [(0, 0), (5, 5), (10, 10)]),
                                         ("xy", [(1, 1), (10, 10), (100, 100)])])
def test_a_straight_line_is_drawn_straight(log, points):
    line, = shapes(svg.curves({"a": points}, "a line", log=log), "polyline")
    (x0, y0), (x1, y1), (x2, y2) = [map(float, pair.split(",")) for pair in line["points"].split()]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=1) and y1 - y0 == pytest.approx(y2 - y1, abs=1)
    assert x0 < x1 and y0 > y1                         # SVG counts downwards


@pytest.mark.parametrize("values, ticks", [([0, 10], "0 2 4 6 8 10"),
                                           ([0.5, 0.75], "0.5 0.6 0.7"),
                                           ([2.3081, 2.3099], "2.3085 2.309 2.3095")])
def test_ticks_are_round_numbers(values, ticks):
    drawing = svg.curves({"": [(0, value) for value in values]}, "two points")
    written = [text["text"] for text in shapes(drawing, "text")]
    assert written[2:2 + len(ticks.split())] == ticks.split()


def test_thin_lines_have_the_colour_of_their_name_and_no_label():
    drawing = svg.curves({"a": [(0, 1), (1, 2)], "b": [(0, 0), (1, 0)]}, "three lines",
                         thin={"b": [(0, 2), (1, 1)]})
    strokes = [(line["stroke"], line["stroke-width"]) for line in shapes(drawing, "polyline")]
    assert strokes == [(svg.LINES[1], "0.8"), (svg.LINES[0], "1.8"), (svg.LINES[1], "1.8")]
    assert [text["text"] for text in shapes(drawing, "text")].count("b") == 1


def test_the_name_of_a_line_that_ends_early_lies_on_no_other():
    drawing = svg.curves({"early": [(0, 0), (3, 2)], "late": [(0, 0), (10, 4)]}, "two lines")
    names = [text for text in shapes(drawing, "text") if text["text"] in ("early", "late")]
    ends = [float(line["points"].split()[-1].split(",")[0])
            for line in shapes(drawing, "polyline")]
    assert len(names) == 2 and all(float(name["x"]) > max(ends) for name in names)


def test_labels_of_lines_that_end_together_stand_below_each_other():
    drawing = svg.curves({name: [(0, 0), (1, 1 + 1e-3 * i)] for i, name in enumerate("xyz")},
                         "three lines")
    heights = [float(text["y"]) for text in shapes(drawing, "text")
               if text["text"] in ("x", "y", "z")]
    assert len(heights) == 3
    assert all(abs(a - b) >= 12 for i, a in enumerate(heights) for b in heights[:i])


def test_an_axis_of_less_than_two_decades_shows_its_ends():
    drawing = svg.curves({"": [(0, 2e-7), (1, 3e-6)]}, "two points", log="y")
    assert {"2e-07", "3e-06"} <= {text["text"] for text in shapes(drawing, "text")}


def test_an_arrow_ends_at_the_box_it_points_to():
    drawing = svg.graph({"a": (0, 0, "a"), "b": (1, 0, "b")}, [("a", "b")], "two boxes", 100, 40)
    line, = shapes(drawing, "line")
    a, b = shapes(drawing, "rect")
    head = float(shapes(drawing, "polygon")[0]["points"].split(",")[0])
    assert float(line["x1"]) == float(a["x"]) + 100 and head == float(b["x"])


def test_pixels_are_those_of_the_picture():
    picture = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    drawing = svg.pixels(picture, "fifteen pixels", scale=4)
    stored = base64.b64decode(re.search(r"base64,([^\"]*)", drawing)[1])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(stored))), picture)
    image, = shapes(drawing, "image")
    assert (image["width"], image["height"]) == ("20", "12")


def test_tiles_stand_in_rows():
    pictures = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((2, 3), np.uint8)
    sheet = svg.tiles(pictures, columns=3)
    assert sheet.shape == (5, 11) and sheet[0, 0] == 0 and sheet[0, 4] == 1 and sheet[3, 4] == 4
    assert (sheet[3:, 8:] == 255).all()                # the last place is empty
