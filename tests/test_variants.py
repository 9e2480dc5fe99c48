"""The paper's other nets and tests, from the command line: six convolutions, one GPU, starting
from another net, ten views, ensembles. On drawn patterns, and on photographs where there are."""
import re
from types import SimpleNamespace

import numpy as np
import pytest

import alexnet
from tinynet.errors import UserError
from tinynet.formats import reading
from tinynet.pictures import patterns
from tinynet.training.options import two_devices
from tinynet.training.saved import Saved
from tinynet.training.weights import copy_weights

SMALL = ["--recipe", "quickstart", "--kernels", "8,16,16,16,16", "--neurons", "32,32",
         "--crop", "67", "-b", "12", "--lr", "0.01", "--epochs", "2", "--dropout", "0.1",
         "--device", "cpu"]
CLASSES, TRAIN, VAL = 6, 12, 5


@pytest.fixture(scope="module", params=["drawn", "photographs"])
def data(request, tmp_path_factory):
    """Two folders with train and val, of different classes; and a few pictures of the first."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "drawn":
        patterns.draw(folder / "all", TRAIN, VAL, progress=False)
        source = folder / "all"
    else:
        source = request.getfixturevalue("real_pictures") / "tiny-imagenet-50"
    names = sorted(path.name for path in (source / "train").iterdir())
    for where, classes, train, val in (("here", names[:CLASSES], TRAIN, VAL),
                                       ("there", names[-4:], TRAIN, VAL),
                                       ("few", names[:CLASSES], 2, 2)):
        for split, count in ("train", train), ("val", val):
            for name in classes:
                target = folder / where / split / name
                target.mkdir(parents=True)
                for path in sorted((source / split / name).iterdir())[:count]:
                    (target / path.name).symlink_to(path)
    return SimpleNamespace(here=folder / "here", there=folder / "there", few=folder / "few")


@pytest.fixture
def run(capsys):
    def run(*argv, code=0):
        capsys.readouterr()
        assert alexnet.main([str(word) for word in argv]) == code
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def nets(data, tmp_path_factory):
    """Two small nets that have learned something: their checkpoints."""
    folders = [tmp_path_factory.mktemp("nets") / str(seed) for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        assert alexnet.main(["train", str(data.here), *SMALL, "--epochs", "3", "--seed",
                             str(seed), "--output-dir", str(folder)]) == 0
    return [folder / "last.npz" for folder in folders]


def weights(path):
    return Saved.read(path).file.arrays("weights/")


def top1(line):
    return float(re.search(r"error ([\d.]+)%", line)[1])


def test_a_sixth_layer_starts_from_a_net_without_it(run, data, nets, tmp_path):
    """ "1 CNN*": trained on other classes before, then with a sixth convolution on these."""
    out = run("train", data.there, *SMALL, "--conv6", "--init-from", nets[0], "--lr", 0,
              "--steps", 1, "--output-dir", tmp_path / "run")
    said = dict(re.findall(r"^  (conv\d|fc\d) +(copied|drawn anew)$", out, re.MULTILINE))
    assert said == {**dict.fromkeys(("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"),
                                    "copied"), "conv6": "drawn anew", "fc8": "drawn anew"}
    before, after = weights(nets[0]), weights(tmp_path / "run/last.npz")
    for name in before.keys() - {"fc8.W", "fc8.b"}:
        assert np.array_equal(before[name], after[name]), name
    assert after["fc8.W"].shape == (64, 4)
    assert after["top.conv6.0.W"].shape == (3, 3, 32, 16)
    run("train", data.there, *SMALL, "--conv6", "--init-from", nets[0], "--output-dir",
        tmp_path / "on")
    trained = weights(tmp_path / "on/last.npz")
    assert all(np.any(trained[name] != after[name]) for name in trained)


def test_the_last_layer_is_copied_only_between_the_same_classes(run, data, nets, tmp_path):
    out = run("train", data.here, *SMALL, "--init-from", nets[0], "--steps", 1,
              "--output-dir", tmp_path / "run")
    assert re.search(r"fc8 +copied", out)
    some = ["n", *Saved.read(nets[0]).classes[1:]]
    model, _ = alexnet.load(Saved.read(nets[0]), "cpu")
    before = model.fc8.W.data
    model.fc8.W.data = np.zeros_like(before)
    copy_weights(nets[0], model, some, alexnet.recipes.RECIPES["paper"])
    assert not model.fc8.W.data.any()


def test_a_net_of_other_sizes_gives_nothing_to_start_from(nets):
    recipe = alexnet.recipes.RECIPES["quickstart"].changed({"towers": 1, "crop": 67})
    cpu = two_devices("cpu")
    with pytest.raises(UserError, match="no layer of the sizes of this net"):
        copy_weights(nets[0], alexnet.build(6, cpu, recipe), [], recipe)


def test_a_net_goes_out_as_safetensors_and_comes_back(run, data, nets, tmp_path):
    path = tmp_path / "net.safetensors"
    assert "conv2.weight  32 x 8 x 5 x 5" in run("export", nets[0], path)
    layers, about = reading.arrays(path)
    assert layers["fc8.weight"].shape == (CLASSES, 64) and "quickstart" in about["recipe"]
    out = run("train", data.here, *SMALL, "--init-from", path, "--lr", 0, "--steps", 1,
              "--output-dir", tmp_path / "run")
    assert out.count("copied") == 8
    before, after = weights(nets[0]), weights(tmp_path / "run/last.npz")
    assert all(np.array_equal(before[name], after[name]) for name in before)


def losses_by_heart(run, data, *words):
    """Of 30 steps with the same twelve pictures, one batch: no luck of the draw is in it."""
    out = run("train", data.few, *words, "-b", 12, "--no-augment", "--dropout", 0,
              "--schedule", "constant", "--epochs", 30, "-p", 1)
    losses = [float(loss) for loss in re.findall(r"\d  loss ([\d.]+)  error.*images/s", out)]
    assert len(losses) == 30
    return losses, top1(re.findall(r"validation: .*", out)[-1])


@pytest.mark.parametrize("variant", [
    ["--towers", "1"], ["--pool", "2", "--lr", "0.02"], ["--lrn", "none"],
    ["--recipe", "2012", "--std", "he", "--bias", "0", "--pixel-scale", "0.0156",
     "--lr", "0.005"]])
def test_the_other_nets_of_the_paper_learn_from_the_same_pictures(run, data, variant, tmp_path):
    """That they run, step down the loss, and come back from their checkpoints."""
    losses, error = losses_by_heart(run, data, *SMALL, *variant, "--output-dir", tmp_path / "run")
    assert losses[-1] < 0.8 * np.log(CLASSES)
    assert top1(run("test", tmp_path / "run/last.npz", data.few)) == error


def test_the_recipe_small_is_the_papers_net_and_leaves_guessing_at_once(run, data, tmp_path):
    recipe, paper = alexnet.recipes.RECIPES["small"], alexnet.recipes.RECIPES["paper"]
    of_the_net = [f.name for f in alexnet.recipes.options() if f.metadata["group"] == "the net"]
    others = {name for name in of_the_net if getattr(recipe, name) != getattr(paper, name)}
    assert others == {"std", "bias"}
    losses, _ = losses_by_heart(run, data, "--recipe", "small", "--kernels", "8,16,16,16,16",
                                "--neurons", "64,64", "--crop", 99, "--device", "cpu",
                                "--output-dir", tmp_path / "run")
    assert losses[0] < 1.1 * np.log(CLASSES) and losses[-1] < 0.8 * np.log(CLASSES)


def test_one_tower_needs_no_second_device(data, capsys):
    assert alexnet.main(["train", str(data.here), *SMALL, "--towers", "1", "--device",
                         "cpu0,cpu1"]) == 1
    assert "give --device cpu0" in capsys.readouterr().err


def test_ten_views_are_another_question_than_one(run, data, nets):
    one, ten = (run("test", nets[0], data.here, "--views", views) for views in (1, 10))
    assert "views: the central crop" in one and "the mean probability of ten" in ten
    assert re.search(r"loss [\d.]+", one)[0] != re.search(r"loss [\d.]+", ten)[0]


def test_several_nets_are_as_good_as_the_mean_of_their_probabilities(run, data, nets, tmp_path):
    saved = [tmp_path / name for name in ("one.npz", "two.npz", "both.npz")]
    for path, which in zip(saved, (nets[:1], nets[1:], nets), strict=True):
        out = run("test", *which, data.here, "--save-probs", path)
    one, two, both = (np.load(path) for path in saved)
    mean = (one["probabilities"] + two["probabilities"]) / 2
    assert both["probabilities"] == pytest.approx(mean, abs=1e-6)
    assert list(both["classes"]) == Saved.read(nets[0]).classes
    assert len(both["names"]) == len(mean) == CLASSES * VAL
    wrong = mean.argmax(axis=1) != both["labels"]
    assert top1(out.splitlines()[-2]) == pytest.approx(100 * wrong.mean(), abs=0.051)
    for name, label in zip(both["names"], both["labels"], strict=True):
        assert name.startswith(both["classes"][label] + "/")


def test_weights_of_nets_can_be_searched_and_given(run, data, nets):
    out = run("test", *nets, data.here, "--weights", "search")
    found = re.search(r"--weights ([\d.,]+)", out)[1]
    searched = out.splitlines()[-1]
    assert run("test", *nets, data.here, "--weights", found).splitlines()[-1] == searched
    alone = run("test", *nets, data.here, "--weights", "0,1").splitlines()
    assert alone[-1].partition("loss")[2] == alone[-3].partition("loss")[2]


@pytest.mark.parametrize("wrong", ["1", "1,2,3", "a,b", "0,0", "-1,2", "nan,1"])
def test_weights_that_do_not_fit_are_refused(nets, data, wrong, capsys):
    assert alexnet.main(["test", *map(str, nets), str(data.here), f"--weights={wrong}"]) == 1
    assert "give 2 numbers" in capsys.readouterr().err


def test_nets_of_different_classes_have_no_mean(run, data, nets, tmp_path, capsys):
    run("train", data.there, *SMALL, "--steps", 1, "--output-dir", tmp_path / "run")
    assert alexnet.main(["test", str(nets[0]), str(tmp_path / "run"), str(data.here)]) == 1
    assert "know different classes" in capsys.readouterr().err


def test_resume_auto_starts_and_goes_on_with_the_same_words(run, data, tmp_path):
    words = ["train", data.here, *SMALL, "--resume", "auto", "--output-dir", tmp_path / "run"]
    assert "resumed" not in run(*words, "--steps", 3)
    out = run(*words)
    assert "resumed" in out and "step 3" in out
    assert "nothing to do" in run(*words)
    run("train", data.here, *SMALL, "--output-dir", tmp_path / "whole")
    one, other = weights(tmp_path / "run"), weights(tmp_path / "whole")
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_the_history_of_validations_is_in_the_checkpoint(run, data, tmp_path):
    folder = tmp_path / "run"
    run("train", data.here, *SMALL, "--steps", 4, "--output-dir", folder)
    run("train", "--resume", folder)
    history = Saved.read(folder).history
    assert [line["step"] for line in history] == [4, 6, 12]
    assert all(0 <= line["top1_error"] <= 1 and line["lr"] > 0 for line in history)
