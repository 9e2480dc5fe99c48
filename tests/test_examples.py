"""Figure 1, the ablations and the smoke test."""
import csv
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import ablations
import alexnet
import cifar10
import cifar_smoke
import common
import figure1
import photographs
import ranks as predictions
from small_examples import numbered, start
from tinynet import store
from tinynet.engine import Tensor
from tinynet.training import figures, options
from tinynet.training.recipes import RECIPES
from tinynet.training.saved import Saved

pytestmark = pytest.mark.usefixtures("small_batches")


# --- figure 1 ---------------------------------------------------------------------------


def curve(*errors):
    return [dict(kind="train", epochs=float(epoch), top1_error=error, loss=1.0, seconds=1.0)
            for epoch, error in enumerate(errors, 1)]


def test_the_epochs_to_a_training_error_are_read_between_two_points():
    assert figure1.needed(curve(0.5, 0.3, 0.2, 0.1)) == pytest.approx(2.5)
    assert figure1.needed(curve(0.25)) == 1
    assert figure1.needed(curve(0.5, 0.3)) is None
    assert figure1.needed([]) is None


def test_figure_1_stops_at_its_goal_and_prints_the_ratio(tmp_path, few, monkeypatch, capsys):
    monkeypatch.setattr(figure1, "GOAL", 0.88)
    monkeypatch.setattr(figure1, "SEARCH", 1)
    words = "--epochs", 30, "--from", few, "--output-dir", tmp_path, "--rates", "0.005,0.02"
    assert start(figure1, *words) == 0
    said = capsys.readouterr().out
    relu, tanh = map(float, re.findall(r"training error after ([\d.]+) epochs", said))
    assert f"tanh needs {tanh / relu:.1f} times the epochs of ReLU (the paper: 6)" in said
    assert len(list(tmp_path.glob("*/last.npz"))) == 4
    with open(tmp_path / "figure1.csv") as file:
        last = {row["run"].partition(",")[0]: float(row["top1_error"])
                for row in csv.DictReader(file)}
    assert set(last) == {"ReLU", "Tanh"} and max(last.values()) <= 0.88
    monkeypatch.setattr(common.Pictures, "batch", None)
    assert start(figure1, *words) == 0
    again = capsys.readouterr().out
    assert "step 1" not in again
    for line in said.splitlines():
        if " at its best rate" in line or "times the epochs" in line:
            assert line in again


def test_a_rate_is_judged_by_its_first_epochs_however_far_it_was_trained(
        tmp_path, monkeypatch, capsys):
    curves = {0.1: curve(0.5, 0.4, 0.3, 0.2), 0.2: curve(0.5, 0.35)}
    chosen = []

    def train(unit, rate, epochs, pictures, args):
        chosen.append((rate, epochs))
        return curves[rate] if epochs == 2 else curve(0.3, 0.2)

    monkeypatch.setattr(figure1, "train", train)
    monkeypatch.setattr(common, "load", lambda source: (numbered(), numbered()))
    assert start(figure1, "--rates", "0.1,0.2", "--output-dir", tmp_path, "--epochs", 9) == 0
    assert chosen == [(0.1, 2), (0.2, 2), (0.2, 9)] * 2
    assert "tanh needs 1.0 times" in capsys.readouterr().out   # both reach it within epoch 2


def test_fewer_epochs_than_the_search_takes_are_not_exceeded(tmp_path, few, capsys):
    assert start(figure1, "--epochs", 1, "--from", few, "--output-dir", tmp_path,
                 "--rates", "0.01") == 1
    said = capsys.readouterr().out
    assert "after 1 epochs, not 25%; --epochs gives it more" in said and "epoch 2/" not in said


def test_a_rate_that_diverges_is_not_chosen(tmp_path, few, monkeypatch, capsys):
    monkeypatch.setattr(figure1, "GOAL", 0.92)
    monkeypatch.setattr(figure1, "SEARCH", 1)
    words = "--epochs", 30, "--from", few, "--output-dir", tmp_path, "--rates", "1e30,0.005"
    assert start(figure1, *words) == 0
    said = capsys.readouterr().out
    assert re.search(r"relu-rate-1e\+30-seed-0: step \d+: the loss is nan", said)
    assert "ReLU at its best rate, 0.005" in said


def test_figure_1_can_begin_with_the_authors_first_weights(tmp_path, few, monkeypatch):
    monkeypatch.setattr(figure1, "SEARCH", 1)
    how = figure1.FIRST["authors"]
    drawn = figure1.four_layers(figure1.ReLU, how[0]).initialize(seed=0)
    spreads = [float(w.data.std()) for name, w in drawn.parameters() if name.endswith("W")]
    assert spreads == pytest.approx([0.0001, 0.01, 0.01, 0.01], rel=0.05)
    scales, pictures = [], common.Pictures
    monkeypatch.setattr(figure1, "Pictures", lambda *sets, scale, seed: scales.append(scale)
                        or pictures(*sets, scale=scale, seed=seed))
    words = "--epochs", 1, "--from", few, "--output-dir", tmp_path
    start(figure1, *words, "--first-weights", "authors", "--rates", "0.001")
    assert scales == [1.0] and (tmp_path / "figure1-authors.png").exists()
    assert start(figure1, *words, "--rates", "0.001") == 1   # the folder is of the other weights


# --- ablations --------------------------------------------------------------------------


@pytest.mark.parametrize("what", ablations.PAIRS)
def test_the_sides_of_a_pair_differ_in_their_nets_or_in_what_they_see(what):
    (one, seen), (other, others) = [(repr(build()), how)
                                    for _, build, how in ablations.PAIRS[what]]
    assert (one == other) == (what == "augment") != (seen == others)


def test_every_net_without_an_idea_lacks_that_idea():
    small = RECIPES["small"]
    lacks = {"one tower": "towers", "no LRN": "lrn", "no overlap": "pool",
             "no dropout": "dropout", "no crops": "augment"}
    assert [*lacks] == [*photographs.NETS][1:]
    for name, field in lacks.items():
        args = alexnet.parser().parse_args(["train", "x", "--recipe", "small",
                                            *photographs.NETS[name]])
        assert [*options.given(args)] == [field] and getattr(args, field) != getattr(small, field)


@pytest.mark.parametrize("what", ablations.PAIRS)
def test_the_nets_of_a_pair_run_on_what_they_are_shown(what):
    for _, build, how in ablations.PAIRS[what]:
        net = build().initialize(seed=0)
        assert net(Tensor(np.zeros((1, how["crop"], how["crop"], 3), np.float32))).shape == (1, 10)


def test_towers_of_half_the_kernels_meet_and_one_tower_does_not():
    two, one = (sum(w.data.size for _, w in build().parameters())
                for _, build, _ in ablations.PAIRS["towers"])
    common_part = 1024 * 256 + 256 + 256 * 10 + 10
    conv1, conv2 = 16 * (75 + 1), 16 * (400 + 1)
    assert two == 2 * (conv1 + conv2) + 64 * (9 * 32 + 1) + common_part
    assert one == conv1 + conv2 + 64 * (9 * 16 + 1) + common_part


def test_an_ablation_prints_spread_and_draws_both_sides(tmp_path, few, capsys):
    words = "augment", "--seeds", 2, "--epochs", 1, "--from", few, "--output-dir", tmp_path
    assert start(ablations, *words) == 0
    said = capsys.readouterr().out
    assert said.count("% ± ") == 2 and "test error after 1 epochs, 2 seeds" in said
    assert "\nrandom crops is " in said
    assert len(list(tmp_path.glob("*/last.npz"))) == 4
    Image.open(tmp_path / "augment-1-epochs.png").verify()
    with open(tmp_path / "augment-1-epochs.csv") as file:
        rows = [row["run"] for row in csv.DictReader(file) if row["kind"] == "validation"]
    assert rows == ["random crops, seed 0", "random crops, seed 1", "central crops, seed 0",
                    "central crops, seed 1"]


def test_each_net_of_an_ablation_has_the_pictures_of_its_seed_and_a_rate_that_falls(
        tmp_path, few, monkeypatch):
    seeds, rates, pictures, saw = [], [], ablations.Pictures, ablations.Run.saw
    monkeypatch.setattr(ablations, "Pictures", lambda *sets, **how: seeds.append(
        how["seed"]) or pictures(*sets, **how))
    monkeypatch.setattr(ablations.Run, "saw", lambda run, *seen: rates.append(
        run.optimizer.lr) or saw(run, *seen))
    assert start(ablations, "lrn", "--seeds", 2, "--epochs", 2, "--from", few,
                 "--output-dir", tmp_path) == 0
    assert seeds == [0, 1, 0, 1]
    of_nets = np.split(np.array(rates), 4)
    assert all(np.array_equal(one, of_nets[0]) and one[0] == ablations.RATE
               and (np.diff(one) < 0).all() for one in of_nets)


def test_the_masks_of_an_ablation_are_those_of_its_steps(tmp_path, few, monkeypatch):
    """So a run that was stopped drops what it would have dropped."""
    steps, train = [], ablations.Layer.train
    monkeypatch.setattr(ablations.Layer, "train", lambda net, step=None: steps.append(step)
                        or train(net, step))
    assert start(ablations, "dropout", "--seeds", 1, "--epochs", 2, "--from", few,
                 "--output-dir", tmp_path) == 0
    assert [step for step in steps if step is not False] == [*range(6)] * 2


def test_an_effect_inside_the_spread_is_called_that():
    def said(a, b):
        return ablations.verdict("A", "B", a, b)
    assert said([0.30, 0.31, 0.29], [0.40, 0.41, 0.39]) == \
        "A is better by 10.00 points (95 %: ± 2.27): more than chance"
    assert "A is WORSE by 1.00 points" in said([0.31, 0.35, 0.27], [0.30, 0.33, 0.27])
    assert "NO MORE THAN CHANCE" in said([0.31, 0.35, 0.27], [0.30, 0.33, 0.27])
    assert said([0.3, 0.2], [0.2, 0.3]) == "A is as good as B"
    # Three seeds give their own spread away so badly that twice of it is not enough.
    assert "NO MORE THAN CHANCE" in said([0.30, 0.31, 0.29], [0.32, 0.33, 0.31])
    assert "--seeds 3" in said([0.3], [0.4]) and "nan" not in said([0.3], [0.4])


# --- photographs ------------------------------------------------------------------------


def test_photographs_compare_the_net_with_one_without_an_idea(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(photographs, "NARROW", ["--kernels", "4,8,8,8,8", "--neurons", "16,16",
                                                "--crop", "67", "-b", "8"])
    words = (data, "--only", "no crops", "--seeds", 2, "--epochs", 1,
             "--output-dir", tmp_path / "runs")
    assert start(photographs, *words) == 0
    said = capsys.readouterr().out
    each = [re.findall(r"top-1 error ([\d.]+)%", part)[0] for part in said.split("\non ")[1:]]
    mean, spread = np.mean([float(error) for error in each[:2]]), np.std(
        [float(error) for error in each[:2]], ddof=1)
    assert re.search(rf"^as it is +{mean:.1f}% ± {spread:.1f}% \(\d+.\d%\) ", said, re.M), said
    assert re.search(r"^as it is is (better|WORSE|as good) .* \(10 views\)$", said, re.M)
    assert "one tower" not in said
    with np.load(tmp_path / "runs/no-crops-1-epochs-seed-1/10-views.npz") as found:
        assert found["probabilities"].shape == (10, 10)

    assert start(photographs, *words) == 0                   # all is done: nothing is trained
    again = capsys.readouterr().out
    assert "images/s" not in again
    assert again.partition("\nerror on ")[2] == said.partition("\nerror on ")[2]
    folder = tmp_path / "runs/no-crops-1-epochs-seed-1"
    os.utime(folder / "10-views.npz", (0, 0))                # of weights that were there before
    assert start(photographs, *words) == 0
    assert (folder / "10-views.npz").stat().st_mtime >= (folder / "last.npz").stat().st_mtime


def test_on_two_devices_the_net_of_one_tower_takes_the_first(data, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(alexnet, "main", lambda words: seen.append(words) or 1)
    args = photographs.parser().parse_args(
        [str(data), "--device", "gpu0,gpu1", "--output-dir", str(tmp_path)])
    for name in "as it is", "one tower":
        with pytest.raises(SystemExit):
            photographs.train(name, 0, args)
    assert [words[words.index("--device") + 1] for words in seen] == ["gpu0,gpu1", "gpu0"]


def test_the_verdict_on_photographs_counts_seeds_and_not_what_they_say_together(
        data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(photographs, "train", lambda name, seed, args: (name, seed))
    monkeypatch.setattr(photographs, "probabilities", lambda path, views, args: (
        path, np.zeros(1)))
    errors = {("as it is", 0): 0.10, ("as it is", 1): 0.12, ("no crops", 0): 0.20,
              ("no crops", 1): 0.22}
    monkeypatch.setattr(photographs, "error", lambda found, labels: errors.get(found, 0.0))
    monkeypatch.setattr(np, "mean", lambda x, axis=None: (
        "together" if axis == 0 else sum(x) / len(x)))
    assert start(photographs, data, "--only", "no crops", "--seeds", 2,
                 "--output-dir", tmp_path / "runs") == 0
    assert "as it is is better by 10.00 points" in capsys.readouterr().out


def test_photographs_of_another_folder_are_refused(data, tmp_path, monkeypatch, capsys):
    """What is kept of one would else be said of the other. A folder that was only moved is not
    another one."""
    monkeypatch.setattr(photographs, "NARROW", ["--kernels", "4,8,8,8,8", "--neurons", "16,16",
                                                "--crop", "67", "-b", "8", "--steps", "1"])
    shutil.copytree(data, tmp_path / "moved")
    words = ("--only", "no crops", "--seeds", 1, "--epochs", 1, "--output-dir", tmp_path / "runs")
    assert start(photographs, data, *words) == start(photographs, tmp_path / "moved", *words) == 0
    one = next((tmp_path / "moved/val").glob("*/[a-z0-9]*"))
    one.rename(one.with_name(f"other{one.suffix}"))
    capsys.readouterr()
    assert start(photographs, tmp_path / "moved", *words) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"are of the pictures in {data.resolve()}, not of those in" in said
    assert "choose another --output-dir" in said


def test_other_pictures_of_cifar_10_do_not_go_on_with_a_run(few, tmp_path, capsys):
    """As many as before: their number alone would not tell."""
    shutil.copytree(few, tmp_path / "cifar-10-batches-bin")
    words = "lrn", "--seeds", 1, "--epochs", 1, "--output-dir", tmp_path / "runs", "--from"
    assert start(ablations, *words, few) == start(ablations, *words, few) == 0
    batch = tmp_path / "cifar-10-batches-bin/test_batch.bin"
    batch.write_bytes(batch.read_bytes()[:-1] + b"\0")
    capsys.readouterr()
    assert start(ablations, *words, tmp_path / "cifar-10-batches-bin") == 1
    assert "was made with other settings" in capsys.readouterr().err
    last = next((tmp_path / "runs").glob("*/last.npz"))
    saved = store.Checkpoint(last)
    del saved.meta["settings"]["pictures"]             # an older run did not keep it
    store.save(last, saved.arrays(""), saved.meta)
    assert "pictures" not in Saved.read(last).settings
    assert start(ablations, *words, few) == 0


def test_a_run_that_diverges_names_no_option_that_there_is_not(tmp_path, few, monkeypatch, capsys):
    monkeypatch.setattr(ablations, "RATE", 1e30)
    assert start(ablations, "lrn", "--seeds", 1, "--epochs", 40, "--from", few,
                 "--output-dir", tmp_path) == 1
    said = capsys.readouterr().err
    assert "training has diverged" in said and "with a smaller rate" in said and "--lr" not in said


@pytest.mark.parametrize("example, words", [
    (cifar_smoke, ["--lr", "nan"]), (cifar_smoke, ["--lr", "-1"]), (figure1, ["--rates", "0"]),
    (figure1, ["--rates", "0.1,nan"]), (predictions, ["--images-per-s", "0"]),
    (predictions, ["--update", "inf"])])
def test_a_number_that_makes_no_sense_is_refused(example, words, capsys):
    with pytest.raises(SystemExit) as ended:
        start(example, *words)
    assert ended.value.code == 2 and "0" in capsys.readouterr().err.splitlines()[-1]


def test_photographs_know_which_nets_there_are(data, tmp_path, capsys):
    assert start(photographs, data, "--only", "no idea", "--output-dir", tmp_path) == 1
    assert "the nets are as it is, one tower" in capsys.readouterr().err


# --- the smoke test ---------------------------------------------------------------------


def test_a_net_that_has_not_learned_is_called_that(few, capsys):
    assert start(cifar_smoke, "--from", few, "--steps", 3, "--lr", 0) == 1
    assert "IT HAS NOT LEARNED: test error" in capsys.readouterr().out


def test_the_smoke_test_says_the_same_on_one_device_and_on_two(few, monkeypatch, capsys):
    monkeypatch.setattr(cifar_smoke, "LEARNED", 1.1)
    said = []
    for towers in "cpu", "cpu0,cpu1":
        assert start(cifar_smoke, "--from", few, "--steps", 4, "--device", towers) == 0
        said.append(capsys.readouterr().out.splitlines()[-1].partition(", after")[0])
    assert said[0] == said[1] and "it has learned: test error" in said[0]


def test_a_third_device_is_refused(capsys):
    assert start(cifar_smoke, "--device", "cpu0,cpu1,cpu2") == 1
    assert "there are two towers" in capsys.readouterr().err


def test_without_cifar10_it_says_so_and_draws_patterns(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TINYNET_DATA", str(tmp_path))
    monkeypatch.setattr("data.cifar10.HOME", tmp_path)
    plain = cifar_smoke.draw
    monkeypatch.setattr(cifar_smoke, "draw", lambda split, count: plain(split, 4))
    assert start(cifar_smoke, "--steps", 1) == 1
    said = capsys.readouterr()
    assert "DRAWN PATTERNS" in said.err and "python data/cifar10.py" in said.err
    assert "40 pictures to learn from" in said.out


def test_the_patterns_are_of_ten_classes():
    train = cifar_smoke.draw("train", 2)
    assert train.images.shape == (20, 32, 32, 3) and train.images.dtype == np.uint8
    assert train.labels.tolist() == [i // 2 for i in range(20)]
    assert not np.array_equal(train.images, cifar_smoke.draw("val", 2).images)


@pytest.mark.parametrize("largest, step", [(1.0, 0.1), (0.42, 0.05), (10, 1.0), (160, 20),
                                           (0.09, 0.01), (7.3, 1)])
def test_ticks_are_round_numbers(largest, step):
    assert figures.nice_step(largest) == pytest.approx(step)


def test_an_example_takes_as_many_of_the_gpus_as_it_has_towers(monkeypatch):
    monkeypatch.setattr(common, "default_devices", lambda most: "gpu0,gpu1"[:5 * most - 1])
    assert figure1.parser().parse_args([]).device == "gpu0"
    assert cifar_smoke.parser().parse_args([]).device == "gpu0,gpu1"


@pytest.mark.parametrize("program, words", [
    (ablations, ["towers", "--seeds", "1"]), (cifar10, ["11pct"])])
def test_they_run_on_a_gpu_as_well(gpus, few, small_batches, tmp_path, program, words):
    assert common.main(program.start, program.parser(), [
        *words, "--epochs", "1", "--from", few, "--device", "gpu0",
        "--output-dir", str(tmp_path / "run")]) == 0


def test_a_curve_of_a_single_point_is_seen(tmp_path):
    """After one epoch there is one validation. It may have been without an error."""
    red = "#ff0000"
    for name, points in ("one", [(1, 0.5)]), ("two", [(0, 0.9), (1, 0.5)]), ("none", [(1, 0)]):
        figures.draw_curves(tmp_path / name, [("", points, (red, "dashed"))], "title")
        with Image.open(tmp_path / name) as picture:
            assert (np.asarray(picture) == (255, 0, 0)).all(axis=-1).any()
