"""Pages ask for nothing that is not in them, and a walk shows what a net does, as it is."""
import base64
import io
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import alexnet
from command_line import NET, is_clean_error, numbers
from helpers import environment
from tinynet.device import devices
from tinynet.engine import Tensor
from tinynet.pages import activations, page
from tinynet.pages.walk import Walk
from tinynet.pictures.batches import Loader
from tinynet.split import side_by_side
from tinynet.store import Checkpoint
from tinynet.store import save as save_arrays
from tinynet.tools import memory
from tinynet.training.recipes import RECIPES

CPU = ["--device", "cpu"]


class Page(HTMLParser):
    """The elements of a page, in their order: (name, attributes)."""

    def __init__(self, text):
        super().__init__()
        self.text, self.elements = text, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def all(self, tag, **wanted):
        return [found for name, found in self.elements if name == tag
                and all(found.get(key) == value for key, value in wanted.items())]


@pytest.fixture(scope="module")
def walk(trained, tmp_path_factory):
    """The page of a walk through a small net, with pictures of its validation set."""
    path = tmp_path_factory.mktemp("walk") / "walk.html"
    assert alexnet.main(["walk", str(trained.folder), str(path), *CPU]) == 0
    return Page(path.read_text("utf-8"))


# --- both pages -------------------------------------------------------------------------


def pages(walk, report):
    return walk, Page((report / "the.html").read_text("utf-8"))


def test_a_page_asks_for_nothing_and_runs_nothing(walk, report):
    for found in pages(walk, report):
        assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in found.elements}
        for _, attributes in found.elements:
            for name in "src", "href", "xlink:href", "srcset", "data":
                assert re.match(r"#\w|data:image/(png|jpeg);base64,", attributes.get(name, "#x"))
        assert "http" not in found.text and not re.search(r"url\(|@import", found.text)


def test_every_picture_has_words_for_whoever_cannot_see_it(walk, report):
    for found in pages(walk, report):
        shown = [one for one in found.all("svg") if one.get("aria-hidden") != "true"]
        assert len(shown) > 20 and found.all("img") == []
        for one in shown:
            assert one["role"] == "img" and len(one["aria-label"]) > 3


def test_every_link_leads_somewhere(walk, report):
    for found in pages(walk, report):
        places = [one["id"] for _, one in found.elements if "id" in one]
        assert len(places) == len(set(places))
        targets = {one["href"][1:] for _, one in found.elements
                   if one.get("href", "").startswith("#")}
        assert targets and targets <= set(places)


def test_two_builds_are_the_same_to_the_byte(run, trained, walk, report, tmp_path):
    assert run("walk", trained.folder, tmp_path / "walk.html", *CPU).code == 0
    assert (tmp_path / "walk.html").read_text("utf-8") == walk.text
    assert run("report", trained.folder, "-o", tmp_path / "the.html", *CPU).code == 0
    for path in report.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_a_command_that_makes_no_page_reads_nothing_of_them():
    asked = ("import alexnet, sys; alexnet.parser(); "
             "print([name for name in sys.modules if name.startswith('tinynet.pages')])")
    done = subprocess.run([sys.executable, "-c", asked], env=environment(), text=True,
                          capture_output=True, check=True)
    assert done.stdout == "[]\n"


def test_pictures_are_made_square_as_the_net_has_learned_them(run, trained, data, tmp_path):
    """Of what is twice as wide as high a central square has other columns than the whole."""
    wide = Image.new("RGB", (512, 256), (0, 255, 0))
    wide.paste((255, 0, 0), (0, 0, 230, 256))      # column 115 of 256; 102 of the square
    for name in os.listdir(data / "val"):
        (tmp_path / "val" / name).mkdir(parents=True)
        wide.save(tmp_path / "val" / name / "wide.png")
    saved = Checkpoint(trained.folder / "best.npz")
    meta = dict(saved.meta, recipe=dict(saved.meta["recipe"], fit="squeeze"))
    meta.pop("format")
    save_arrays(tmp_path / "net.npz", saved.arrays(""), meta)
    for pictures in [tmp_path / "val" / "dots" / "wide.png"], []:
        done = run("walk", tmp_path / "net.npz", tmp_path / "a.html", *pictures, "--data",
                   tmp_path, *CPU)
        assert done.code == 0, done.err
        photograph = Page((tmp_path / "a.html").read_text("utf-8")).all("image", id="p0")[0]
        shown = Image.open(io.BytesIO(base64.b64decode(photograph["href"].partition(",")[2])))
        assert shown.getpixel((14, 30))[0] > 200 > 50 > shown.getpixel((40, 30))[0]
    done = run("report", tmp_path / "net.npz", "-o", tmp_path / "the.html", "--data", tmp_path,
               *CPU)
    assert done.code == 0, done.err
    told, = numbers(r"<td>loss</td><td>(\d+\.\d+)", (tmp_path / "the.html").read_text("utf-8"))
    tested = run("test", tmp_path / "net.npz", tmp_path, *CPU).out
    assert numbers(r"loss (\d+\.\d+)", tested) == [pytest.approx(told, abs=6e-4)]


# --- a walk -----------------------------------------------------------------------------


def test_a_walk_has_a_place_for_every_layer_and_every_crossing(walk):
    sections = [one["id"] for one in walk.all("section")]
    assert sections == ["conv1", "conv2", "x-conv3", "conv3", "conv4", "conv5", "x-fc6", "fc6",
                        "x-fc7", "fc7", "x-fc8", "fc8"]
    assert len(walk.all("input", type="radio")) == 4
    assert sum("checked" in one for one in walk.all("input")) == 1


def test_a_walk_tells_the_bytes_that_cross_and_what_is_paid_for_a_layer(walk, trained):
    crossing = re.search(r'href="#x-fc7">. ([^<]*) a picture', walk.text)[1]
    assert crossing == f"{2 * 16 * 4} bytes"           # both ways, 16 neurons of four bytes
    last = walk.text[walk.text.index('<section id="fc8"'):]
    assert f"<dd>{33 * 10:,} <small>" in last and f"<dd>{32 * 10:,} <small>" in last


def test_a_walk_tells_which_way_the_towers_send_what(walk):
    for name, ways in ("fc7", ["top → bottom", "bottom → top"]), ("fc8", ["bottom → top"]):
        section = walk.text[walk.text.index(f'<section id="x-{name}"'):].partition("</section>")[0]
        assert re.findall(r"<h4>16 neurons, ([^<]*)</h4>", section) == 4 * ways    # pictures
        assert f"{len(ways) * 64} bytes a picture, {len(ways) * 8.192:.3g} KB a batch" in section
        sheets = re.findall(r'<use href="#(p\d+)"', section)
        layer = walk.text[walk.text.index(f'<section id="fc{int(name[2]) - 1}"'):]
        shown = re.findall(r'<use href="#(p\d+)"', layer.partition("</section>")[0])
        assert sheets == shown if len(ways) == 2 else sheets == shown[1::2]


def test_what_a_walk_says_is_kept_is_what_memory_says_of_an_image(walk, loaded):
    kept = []
    for number, unit in re.findall(r"backward pass</dt><dd>([\d.]+) (MB|KB|bytes)", walk.text):
        kept.append(float(number) * {"MB": 1e6, "KB": 1e3, "bytes": 1}[unit])
    net = alexnet.AlexNet(10, devices("cpu0,cpu1"), activations.recipe_of(loaded[0]))
    needed = sum(need.kept for need in memory.of_model(memory.without_weights(net)).values())
    assert len(kept) == 8 and sum(kept) == pytest.approx(needed, rel=0.01)


def test_an_answer_shows_the_right_class_even_if_it_is_the_last():
    """Of many classes the ten most probable ones, and that one."""
    names = [f"c{number}" for number in range(12)]
    for label, last in (11, "c11 ✓"), (3, "c9"):
        walk = SimpleNamespace(made=[{"fc8": [np.arange(12.0)[::-1]]}], labels=[label],
                               names=["a"], saved=SimpleNamespace(classes=names, words={}))
        told = re.findall(r"<span>([^<]*)</span>", Walk.answer(walk, 0))
        assert len(told) == 11 - (label == 3) and told[-1] == last


def test_the_maps_of_a_walk_are_those_of_the_net(walk, loaded):
    _, model, loader = loaded
    batches = list(activations.watching(model, Loader(activations.evenly(loader.pictures, 4),
                                                      loader.prepare, 4), ["conv2"]))
    maps = batches[0][2]["conv2"][1][0]                # of the bottom tower, of the first picture
    section = walk.text[walk.text.index('<section id="conv2"'):]
    number = re.search(r'aria-label="the maps of conv2, bottom tower [^"]*"><use href="#(p\d+)"',
                       section)[1]
    data = walk.all("image", id=number)[0]["href"].partition(",")[2]
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L"), int)
    height, width, count = maps.shape
    for i in range(count):
        left, top, *_ = page.place_of_tile(i, page.columns_for(count), height, width)
        grey = 255 * np.maximum(maps[..., i], 0) / max(maps[..., i].max(), 1e-12)
        assert np.abs(sheet[top:top + height, left:left + width] - grey).max() <= 9


def test_every_column_of_the_strongest_maps_has_a_name(walk):
    section = walk.text[walk.text.index('<section id="conv3"'):walk.text.index('id="conv4"')]
    lists = re.findall(r"<ol>(.*?)</ol>", section)
    assert len(lists) == 4 * 2                         # pictures, towers
    for rows in lists:
        head, *rows = rows.split("</li>")[:-1]
        assert len(rows) == 3 and {row.count("<svg") + 1 for row in rows} == {head.count("<span>")}


def test_no_number_of_a_frame_hides_another(walk):
    """conv5 of this net has maps of one place, which all see the same."""
    for name in "conv1", "conv5":
        section = walk.text[walk.text.index(f'<section id="{name}"'):].partition("</section>")[0]
        drawn = re.findall(r'class="strong">(.*?)<ol>', section)
        assert len(drawn) == 4 * 2
        for one in drawn:
            numbers = re.findall(r'<text (x="\d+" y="\d+").*?>([\d ]+)</text>', one)
            assert len({place for place, _ in numbers}) == len(numbers)
            assert sorted(" ".join(ranks for _, ranks in numbers).split()) == ["1", "2", "3"]


def test_the_bars_of_a_walk_are_the_nets_answer_with_the_truth_marked(run, walk, trained, data):
    last = walk.text[walk.text.index('<section id="fc8"'):]
    first = last[:last.index('<div class="of p1"')]
    shares = numbers(r"<b>(\d+\.\d)%</b>", first)
    assert len(shares) == 10 and shares == sorted(shares, reverse=True)
    truth, = re.findall(r"<span>(\w+) ✓</span>", first)
    predicted = run("predict", trained.folder, data / "val" / truth / "0000.jpg", *CPU).out
    assert numbers(r"(\d+\.\d)%", predicted) == shares[:5]


def test_a_walk_on_two_gpus_shows_the_same(run, gpus, trained, walk, tmp_path):
    done = run("walk", trained.folder, tmp_path / "walk.html", "--device", "gpu0,gpu1")
    assert done.code == 0, done.err
    found = (tmp_path / "walk.html").read_text("utf-8")
    for pattern in r"<dd>([\d.,]+)", r"<b>(\d+)\.\d%</b>", r"<span>\d: map (\d+)":
        assert numbers(pattern, found.replace(",", "")) == pytest.approx(
            numbers(pattern, walk.text.replace(",", "")), abs=1)


def test_a_walk_takes_pictures_of_ones_own(run, trained, data, tmp_path):
    shutil.copy(data / "val" / "rays" / "0000.jpg", tmp_path / "<mine> & yours.jpg")
    known = data / "val" / "dots" / "0000.jpg"
    done = run("walk", trained.folder, tmp_path / "own.html", tmp_path / "<mine> & yours.jpg",
               known, *CPU)
    assert done.code == 0, done.err
    text = (tmp_path / "own.html").read_text("utf-8")
    assert "&lt;mine&gt; &amp; yours.jpg" in text and "<mine>" not in text
    assert "Nobody said what it is." in text and text.count("✓") == 1


@pytest.mark.parametrize("options, count", [
    (["--towers", 1], 0), (["--conv6"], 5), (["--lrn-window", "layer"], 4),
    (["--lrn-window", "layer", "--after-conv1", "relu,pool,lrn"], 4)], ids=str)
def test_other_nets_are_walked_through_as_well(run, data, tmp_path, options, count):
    assert run("train", data, *NET, *options, "--steps", 1, "--output-dir", tmp_path / "run",
               *CPU).code == 0
    done = run("walk", tmp_path / "run", tmp_path / "walk.html", *CPU)
    assert done.code == 0, done.err
    sections = [one["id"] for one in Page((tmp_path / "walk.html").read_text()).all("section")]
    assert sum(name.startswith("x-") for name in sections) == count
    assert ("conv6" in sections) == ("--conv6" in options)
    largest = "all" if "--towers" in options else "a tower"
    assert f"white the largest number of {largest}." in (tmp_path / "walk.html").read_text()
    seams = numbers(r"of these (\d+) bytes a picture cross", (tmp_path / "walk.html").read_text())
    # Both ways two maps of 7 x 7, or 3 x 3 where the pool is before; 15 x 15 are 3.6 KB.
    assert seams == ([] if "layer" not in options else [784] * 2 if "relu,pool,lrn" in options
                     else [784])
    assert run("report", tmp_path / "run" / "last.npz", "-o", tmp_path / "r.html",
               *CPU).code == 0


def test_maps_that_an_lrn_over_the_seam_puts_out_are_the_towers_own(loaded):
    recipe = RECIPES["quickstart"].changed(dict(
        kernels=(4, 8, 8, 8, 8), neurons=(16, 16), crop=67, lrn_window="layer",
        after_conv1=("relu", "pool", "lrn")))
    model = alexnet.AlexNet(10, devices("cpu"), recipe).initialize(1).eval()
    loader = Loader(activations.evenly(loaded[2].pictures, 3), loaded[2].prepare, 3)
    (batch, _, found), = activations.watching(model, loader, ["conv1"])
    images = Tensor(batch.images)
    for maps, wanted in zip(found["conv1"], side_by_side(
            model.top.conv1, model.bottom.conv1, images, images), strict=True):
        assert maps.shape == (3, 7, 7, 4) and np.array_equal(maps, wanted.numpy())


def test_classes_whose_names_are_no_text_are_shown_as_far_as_they_can_be(run, data, tmp_path):
    odd = os.fsdecode(b"caf\xe9 <b>")
    for split in "train", "val":
        shutil.copytree(data / split / "dots", tmp_path / "data" / split / odd)
        shutil.copytree(data / split / "rays", tmp_path / "data" / split / "rays")
    assert run("train", tmp_path / "data", *NET, "--steps", 1, "--output-dir", tmp_path / "run",
               *CPU).code == 0
    for words in ["walk", tmp_path / "run", tmp_path / "the.html"], [
            "report", tmp_path / "run", "-o", tmp_path / "the.html"]:
        done = run(*words, *CPU)
        assert done.code == 0, done.err
        assert "caf\\udce9 &lt;b&gt;" in (tmp_path / "the.html").read_text("utf-8")
    assert (tmp_path / "the.classes.csv").read_bytes().count(b"caf\xe9 <b>") == 2


# --- what is refused --------------------------------------------------------------------


def test_what_cannot_be_shown_is_a_clean_error(run, trained, data, tmp_path):
    out, folder = tmp_path / "out.html", trained.folder
    (tmp_path / "text.jpg").write_text("words")
    (tmp_path / "empty").mkdir()
    for words, told in (
            (["walk", folder, out, tmp_path / "text.jpg"], "text.jpg: not a readable picture"),
            (["walk", folder, out, tmp_path / "none.jpg"], "none.jpg: not a readable picture"),
            (["walk", tmp_path / "none.npz", out], "there is no such checkpoint"),
            (["walk", folder, tmp_path / "out.txt"], "is a .html file"),
            (["walk", folder, tmp_path / "none" / "out.html"], "No such file or directory"),
            (["walk", folder, out, "--data", tmp_path / "none"], "none is no folder"),
            (["report", tmp_path / "none"], "there is no such checkpoint"),
            (["report", tmp_path / "empty", "-o", out], "best.npz is not there"),
            (["report", folder, folder, "-o", out], "a run is given twice"),
            (["report", folder, "-o", out, "--data", tmp_path / "none"], "none is no folder")):
        done = run(*words, *CPU)
        assert is_clean_error(done, told) and done.err.count("\n") == 1, words
    assert not out.exists() and not (tmp_path / "report.html").exists()


def test_a_data_set_that_has_moved_is_told_and_can_be_given(run, trained, data, tmp_path):
    saved = Checkpoint(trained.folder / "best.npz")
    meta = dict(saved.meta, data=str(tmp_path / "gone"))
    meta.pop("format")
    save_arrays(tmp_path / "net.npz", saved.arrays(""), meta)
    for words in ["walk", tmp_path / "net.npz", tmp_path / "a.html"], [
            "report", tmp_path / "net.npz", "-o", tmp_path / "b.html"]:
        assert is_clean_error(run(*words, *CPU), "gone", "give --data DIR")
        assert run(*words, "--data", data, *CPU).code == 0
    assert is_clean_error(run("test", tmp_path / "net.npz", *CPU), "gone", "give DIR")


def test_a_net_that_says_nan_is_a_clean_error(run, trained, tmp_path):
    saved = Checkpoint(trained.folder / "best.npz")
    arrays, meta = saved.arrays(""), dict(saved.meta)
    meta.pop("format")
    arrays["weights/fc8.W"] = np.float32([-3e38, 3e38] * 5) * np.ones((32, 1), np.float32)
    arrays["weights/top.fc7.1.b"] = np.full(16, 1e3, np.float32)
    save_arrays(tmp_path / "net.npz", arrays, meta)
    for words in ["walk", tmp_path / "net.npz", tmp_path / "a.html"], [
            "report", tmp_path / "net.npz", "-o", tmp_path / "b.html"]:
        assert is_clean_error(run(*words, *CPU), "NaN or infinity of", "take another checkpoint")
    assert not (tmp_path / "a.html").exists() and not (tmp_path / "b.html").exists()
