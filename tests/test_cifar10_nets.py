"""The authors' nets of 2011, their pictures, and runs that stop and go on."""
import csv
import os
import signal

import numpy as np
import pytest
from PIL import Image

import ablations
import cifar10
import cifar_smoke
import common
import figure1
from data.cifar10 import Labelled
from small_examples import numbered, start
from tinynet import store
from tinynet.device import Device
from tinynet.engine import Tensor
from tinynet.training.evaluation import evaluate
from tinynet.training.saved import Saved

pytestmark = pytest.mark.usefixtures("small_batches")


# --- the authors' nets ------------------------------------------------------------------


@pytest.mark.parametrize("name, count", [
    ("80sec", 145_578), ("19pct", 89_578), ("18pct", 89_578), ("13pct", 1_116_490),
    ("11pct", 2_112_970)])
def test_a_net_has_as_many_parameters_as_the_authors(name, count):
    build, config = cifar10.CONFIGS[name]
    net = build()
    assert sum(w.data.size for _, w in net.parameters()) == count
    image = np.zeros((2, config.crop, config.crop, 3), np.float32)
    assert net(Tensor(image)).shape == (2, 10)
    assert list(config.decay) == [layer for layer, _ in net.layers()]


def test_the_norm_of_18pct_is_the_authors():
    """Their scale 0.00005 is divided by the nine pixels of its window."""
    norms = [layer for _, layer in cifar10.net_18pct().named_layers()
             if type(layer).__name__ == "SameMapLRN"]
    assert len(norms) == 2
    assert all((norm.size, norm.k) == (3, 1.0) and norm.alpha == pytest.approx(5e-5 / 9)
               for norm in norms)


def test_a_shorter_schedule_has_its_phases_in_proportion():
    phases = cifar10.CONFIGS["13pct"][1].phases
    assert sum(phase.epochs for phase in phases) == 160
    short = cifar10.scaled(phases, 16)
    at = {epoch: cifar10.phase_at(short, epoch) for epoch in (0, 9.9, 10, 13.9, 14, 15.1, 99)}
    assert [phase.rate for phase in at.values()] == [1e-3] * 4 + [1e-4, 1e-5, 1e-5]
    assert [phase.pictures for phase in at.values()] == [40_000] * 2 + [50_000] * 5


def test_the_rate_of_80sec_drops_after_its_eighth_epoch():
    phases = cifar10.CONFIGS["80sec"][1].phases
    assert cifar10.phase_at(phases, 8 - 1 / 391).rate == 0.001
    assert cifar10.phase_at(cifar10.scaled(phases, 10), 8).rate == 0.0001


# --- pictures ---------------------------------------------------------------------------


def test_random_crops_are_pieces_of_the_pictures_mirrored_or_not():
    pictures = common.Pictures(numbered(), numbered(), crop=24, augment=True)
    pictures.mean = np.float32(0)
    images, labels = pictures.batch(np.arange(40), epoch=3)
    seen = set()
    for image in images:
        mirrored = bool(image[0, 1, 1] < image[0, 0, 1])
        upright = image[:, ::-1] if mirrored else image
        top, left = upright[0, 0, :2].astype(int)
        assert np.array_equal(upright, numbered(1).images[0, top:top + 24, left:left + 24])
        seen.add((top, left, mirrored))
    tops, lefts, mirrors = map(set, zip(*seen, strict=True))
    assert tops == lefts == set(range(9)) and mirrors == {False, True} and len(seen) > 30
    assert np.array_equal(labels, np.arange(40) % 10)
    again, _ = pictures.batch(np.arange(20, 40), epoch=3)
    assert np.array_equal(again, images[20:])                  # whoever else is in the batch
    assert not np.array_equal(pictures.batch(np.arange(40), epoch=4)[0], images)


def test_nine_views_are_a_grid_and_one_is_its_centre():
    pictures = common.Pictures(numbered(), numbered(), crop=24)
    pictures.mean = np.float32(0)
    views = pictures.views(slice(0, 2), 9)
    assert views.shape == (18, 24, 24, 3)
    corners = [[top, left] for top in (0, 4, 8) for left in (0, 4, 8)]
    assert views[:, 0, 0, :2].tolist() == corners * 2
    assert np.array_equal(pictures.views(slice(0, 2), 1), views[[4, 13]])
    assert np.array_equal(pictures.batch(np.array([0]), 0)[0], views[4:5])


def test_ten_views_are_the_corners_and_the_centre_and_their_mirror_images():
    pictures = common.Pictures(numbered(), numbered(), crop=24)
    pictures.mean = np.float32(0)
    nine, ten = pictures.views(slice(0, 2), 9), pictures.views(slice(0, 2), 10)
    assert np.array_equal(ten[:5], nine[[0, 2, 4, 6, 8]])
    assert np.array_equal(ten[5:10], ten[:5, :, ::-1]) and np.array_equal(ten[10], nine[9])


def test_the_mean_of_the_training_pictures_is_subtracted_before_they_are_scaled():
    dark, light = (Labelled(np.full((2, 32, 32, 3), value, np.uint8), np.zeros(2, np.int64))
                   for value in (100, 164))
    pictures = common.Pictures(dark, light, scale=1 / 64)
    assert np.all(pictures.batch(np.array([0, 1]), 0)[0] == 0)
    assert np.all(pictures.views(slice(0, 2), 1) == 1)


# --- runs -------------------------------------------------------------------------------


def arrays(folder):
    saved = Saved.read(folder)
    with np.load(saved.path) as npz:
        found = {name: npz[name] for name in saved.file.names if name != "meta"}
    for row in saved.history:
        for name in "seconds", "images_per_s", "waited":
            del row[name]
    return found, saved.history


@pytest.mark.parametrize("net, batch", [("80sec", 1), ("80sec", 3), ("13pct", 5)])
def test_a_run_that_was_stopped_goes_on_to_the_bit(tmp_path, few, monkeypatch, capsys, net,
                                                   batch):
    words = net, "--epochs", 2, "--from", few, "--output-dir"
    assert start(cifar10, *words, tmp_path / "whole") == 0
    made, plain = [], common.Pictures.batch

    def stop(*args):
        made.append(args)
        if len(made) == batch:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(*args)

    monkeypatch.setattr(common.Pictures, "batch", stop)
    assert start(cifar10, *words, tmp_path / "parts") == 130
    assert len(made) == batch
    assert "the same command goes on" in capsys.readouterr().err
    assert start(cifar10, *words, tmp_path / "parts") == 0
    assert len(made) == 6 and "resumed" in capsys.readouterr().out

    (whole, rows), (parts, other_rows) = (
        arrays(tmp_path / folder / f"{net}-2-epochs-seed-0") for folder in ("whole", "parts"))
    assert rows == other_rows
    assert [row["kind"] for row in rows] == ["train", "validation"] * 2
    assert whole.keys() == parts.keys()
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)


def test_a_seed_changes_the_crops_as_well_as_the_weights(tmp_path, few, monkeypatch):
    seeds, pictures = [], cifar10.Pictures
    monkeypatch.setattr(cifar10, "Pictures", lambda *sets, **how: seeds.append(
        how["seed"]) or pictures(*sets, **how))
    assert start(cifar10, "18pct", "--epochs", 1, "--seed", 3, "--from", few, "--output-dir",
                 tmp_path) == 0
    assert seeds == [3]


def test_a_finished_run_is_drawn_again_without_training(tmp_path, few, monkeypatch, capsys):
    words = "80sec", "--epochs", 1, "--from", few, "--output-dir", tmp_path
    assert start(cifar10, *words) == 0
    said = capsys.readouterr().out
    assert "1 epochs instead of 10: the schedule in proportion, 0.8 at 0.001" in said
    name = tmp_path / "80sec-1-epochs-seed-0"
    with open(name / "curve.csv") as file:
        training, test = csv.DictReader(file)
    assert float(training["epochs"]) == float(test["epochs"]) == 1
    assert (training["kind"], test["kind"]) == ("train", "validation")
    assert 0 < float(test["top1_error"]) <= 1
    Image.open(name / "curve.png").verify()
    os.remove(name / "curve.png")
    monkeypatch.setattr(common.Pictures, "batch", None)
    assert start(cifar10, *words) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == said.splitlines()[-2:]
    assert (name / "curve.png").exists()


def test_a_run_with_other_settings_is_not_gone_on_with(tmp_path, few, monkeypatch, capsys):
    words = "80sec", "--epochs", 1, "--from", few, "--output-dir", tmp_path
    assert start(cifar10, *words) == 0
    build, config = cifar10.CONFIGS["80sec"]
    other = cifar10.Config((cifar10.Phase(10, 0.5),), config.decay, "26 %")
    monkeypatch.setitem(cifar10.CONFIGS, "80sec", (build, other))
    assert start(cifar10, *words) == 1
    assert "was made with other settings" in capsys.readouterr().err


@pytest.mark.parametrize("example, words", [(cifar10, ["80sec"]), (figure1, []),
                                            (ablations, ["lrn"]), (cifar_smoke, [])])
def test_pictures_that_are_not_there_are_an_error_that_helps(example, words, tmp_path, capsys):
    assert start(example, *words, "--from", tmp_path / "nowhere") == 1
    assert "holds no CIFAR-10" in capsys.readouterr().err


@pytest.mark.parametrize("example, words", [(cifar10, ["80sec"]), (figure1, []),
                                            (ablations, ["lrn"])])
def test_a_folder_that_cannot_be_written_is_noticed_before_training(example, words, tmp_path, few,
                                                                    monkeypatch, capsys):
    monkeypatch.setattr(common.Pictures, "batch", None)        # training would raise
    (tmp_path / "a file").touch()
    assert start(example, *words, "--from", few, "--output-dir", tmp_path / "a file" / "x") == 1
    said = capsys.readouterr().err
    assert "cannot write" in said and "choose another place" in said


def test_a_checkpoint_of_another_program_is_not_gone_on_with(tmp_path, few, capsys):
    (tmp_path / "80sec-1-epochs-seed-0").mkdir()
    store.save(tmp_path / "80sec-1-epochs-seed-0" / "last.npz", {}, {"recipe": {}})
    assert start(cifar10, "80sec", "--epochs", 1, "--from", few, "--output-dir", tmp_path) == 1
    assert "no net that was trained" in capsys.readouterr().err


def test_a_run_of_version_0_1_is_gone_on_with(tmp_path, few, capsys):
    words = "80sec", "--epochs", 2, "--from", few, "--output-dir", tmp_path
    assert start(cifar10, *words) == 0
    folder = tmp_path / "80sec-2-epochs-seed-0"
    found, history = arrays(folder)
    settings = Saved.read(folder).settings
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    points = [dict(epoch=1.0, loss=2.5, error=0.9, test_loss=2.4, test_error=0.875, seconds=1.0),
              dict(epoch=2.0, loss=2.25, error=0.8, test_loss=2.2, test_error=0.75, seconds=2.0)]
    store.save(tmp_path / "80sec-2-epochs-seed-0.npz", found, dict(
        settings=settings, since_point=[], state=dict(
            epoch=2, position=0, length=40, step=2, seconds=2.0, curve=points, result=None)))
    capsys.readouterr()
    assert start(cifar10, *words) == 0
    said = capsys.readouterr().out
    assert "resumed" in said and "80sec: test error 75.00% after 2 of 10 epochs" in said
    with open(folder / "curve.csv") as file:
        errors = [float(row["top1_error"]) for row in csv.DictReader(file)]
    assert errors == [0.9, 0.875, 0.8, 0.75]


@pytest.mark.parametrize("example, words", [(cifar10, ["80sec"]), (figure1, [])])
@pytest.mark.parametrize("seed", ["-1", 2 ** 56])
def test_a_seed_that_cannot_be_is_refused(example, words, seed, capsys):
    with pytest.raises(SystemExit):
        start(example, *words, "--seed", seed)
    assert "must be a whole number, at least 0 and at most" in capsys.readouterr().err


@pytest.mark.parametrize("example, words", [(cifar10, ["80sec"]), (figure1, []),
                                            (ablations, ["lrn"]), (cifar_smoke, [])])
def test_a_wrong_device_is_noticed_before_pictures_are_read(example, words, monkeypatch, capsys):
    monkeypatch.setattr(common, "load", None)
    assert start(example, *words, "--device", "tpu0") == 1
    assert "'tpu0' is no device" in capsys.readouterr().err


def test_a_finished_run_is_tested_again_on_other_views(tmp_path, few, capsys):
    words = "13pct", "--epochs", 1, "--from", few, "--output-dir", tmp_path
    for more, seen in (((), "the mean of nine views"), (("--views", 10), "the mean of ten views"),
                       (("--views", 1), "the central view")):
        assert start(cifar10, *words, *more) == 0
        assert f"({seen}; the authors: 13 % after 160)" in capsys.readouterr().out
    assert start(cifar10, "80sec", "--views", 9) == 1
    assert "80sec sees whole pictures" in capsys.readouterr().err


def test_ctrl_c_in_a_test_is_heard(tmp_path, few, monkeypatch, capsys):
    plain, calls = common.Pictures.views, []

    def views(*args):
        calls.append(args)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(*args)

    monkeypatch.setattr(common.Pictures, "views", views)
    words = "80sec", "--epochs", 1, "--from", few, "--output-dir", tmp_path
    assert start(cifar10, *words) == 130
    made, batch = [], common.Pictures.batch
    monkeypatch.setattr(common.Pictures, "batch", lambda *args: made.append(1) or batch(*args))
    assert start(cifar10, *words) == 0 and made == []          # and nothing is lost
    assert "test error" in capsys.readouterr().out


def test_nine_views_of_a_picture_do_not_take_nine_times_the_memory(monkeypatch):
    sizes = []

    def model(x):
        sizes.append(len(x.data))
        return Tensor(np.zeros((len(x.data), 10), np.float32))

    model.eval = lambda: None
    monkeypatch.setattr(common, "TOGETHER", 90)
    pictures = common.Pictures(numbered(), numbered(), crop=24)
    assert evaluate(model, pictures, Device("cpu"), views=9)["pictures"] == 40
    assert sizes == [90] * 4
    assert evaluate(model, pictures, Device("cpu"), interrupted=True) is None
    assert len(sizes) == 5                             # of one batch it does not hear
