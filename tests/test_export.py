"""Nets go out, say elsewhere what they say here, and come back to the bit."""
import io
import json
import zipfile
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

import alexnet
from sources import image_folder
from tinynet import ops, store
from tinynet.device import Device
from tinynet.engine import Tensor, no_grad
from tinynet.formats import onnx as onnx_file
from tinynet.formats import plan, reading, safetensors
from tinynet.formats.protobuf import Message
from tinynet.pictures import images
from tinynet.training.recipes import LAYERS, RECIPES
from tinynet.training.saved import Saved
from tinynet.training.weights import whole_layers

CPU = Device("cpu")
SMALL = dict(kernels=(4, 6, 8, 8, 6), neurons=(10, 12), std=("he",))
NETS = {"paper": dict(), "caffe": dict(), "2012": dict(), "owt": dict(crop=128),
        "quickstart": dict(dropout=0.1), "six": dict(name="paper", conv6=True),
        "small pools": dict(name="paper", pool=2), "none": dict(name="caffe", lrn="none"),
        "kept": dict(name="paper", dropout=0.0)}


def checkpoint(path, name, crop=99):
    """A net of this recipe whose weights and mean image nobody has trained."""
    changes = {"crop": crop, **SMALL, **NETS[name]}
    crop = changes["crop"]
    recipe = RECIPES[changes.pop("name", name)].changed(changes)
    model, draw = alexnet.build(7, (CPU, CPU), recipe).initialize(3), np.random.default_rng(3)
    for name, w in model.parameters():
        w.data = draw.normal(0, 0.1, w.shape).astype("f4") if name.endswith("b") else w.data
    noise = Tensor(draw.normal(0, 70 * recipe.pixel_scale, (1, crop, crop, 3)).astype("f4"))
    last = dict(model.parameters())["fc8.W"]
    last.data = last.data * np.float32(2 / np.abs(model.eval()(noise).numpy()).max())
    weights = {name: w.data for name, w in model.parameters()}
    axes = np.linalg.qr(draw.normal(size=(3, 3)))[0]
    statistics = images.Statistics(draw.uniform(90, 130, (256, 256, 3)).astype("f4"),
                                   np.array([3e3, 2e2, 1e1]), axes)
    store.save(path, {f"{kind}/{name}": array for kind, arrays in (
        ("weights", weights), ("statistics", vars(statistics))) for name, array in arrays.items()},
        asdict(Saved(recipe=asdict(recipe), classes=list("abcdefg"), words={"b": "a letter"},
                     data="/nowhere")))
    return path


def probabilities(path, pictures):
    model, prepare = alexnet.load(Saved.of_alexnet(path), "cpu")
    x = np.empty((len(pictures), prepare.crop, prepare.crop, 3), np.float32)
    for picture, row in zip(pictures, x, strict=True):
        prepare.fill(picture, row, prepare.centre)
    with no_grad():
        return ops.softmax(model(Tensor(x))).numpy(), prepare


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (4, 256, 256, 3), np.uint8)


@pytest.fixture
def run(capsys):
    def run(*words, code=0):
        assert alexnet.main(list(map(str, words))) == code
        return capsys.readouterr().out

    return run


def test_the_graph_prepares_pictures_and_pools_as_the_net_does(run, tmp_path):
    path, file = checkpoint(tmp_path / "net.npz", "quickstart"), tmp_path / "net.onnx"
    run("export", path, file)
    graph = Message(memoryview(file.read_bytes())).message(7)
    nodes = graph.messages(1)
    numbers = {one.text(8): onnx_file.tensor(one).tolist() for one in graph.messages(5)
               if one.text(8).startswith("number ")}
    assert [(n.text(4), [numbers.get(x, x) for x in n.texts(1)]) for n in nodes[:5]] == [
        ("Cast", ["picture"]), ("Slice", ["mean", [78, 78], [177, 177], [0, 1]]),
        ("Sub", ["Cast 0", "Slice 1"]), ("Mul", ["Sub 2", 1 / 64]), ("Transpose", ["Mul 3"])]
    assert onnx_file.attributes(nodes[4])["perm"] == [0, 3, 1, 2]
    pools = [onnx_file.attributes(node) for node in nodes if node.text(4) == "MaxPool"]
    assert pools and all(pool["ceil_mode"] == 1 for pool in pools)


# --- there and back ---------------------------------------------------------------------------


def test_a_file_that_has_lost_its_recipe_is_refused(run, tmp_path, capsys):
    """The scale of its pixels would be guessed."""
    file = tmp_path / "net.safetensors"
    run("export", checkpoint(tmp_path / "net.npz", "quickstart"), file)
    arrays, _ = safetensors.read(memoryview(file.read_bytes()))
    safetensors.write(file, arrays, {})
    assert alexnet.main(["import", str(file), str(tmp_path / "back.npz")]) == 1
    assert "has a mean image and no recipe: another program" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--recipe", "owt"], ["--blue-first"]])
def test_what_a_file_says_of_itself_is_not_to_be_said_otherwise(run, tmp_path, option, capsys):
    file = tmp_path / "net.safetensors"
    run("export", checkpoint(tmp_path / "net.npz", "quickstart"), file)
    assert alexnet.main(["import", str(file), str(tmp_path / "back.npz"), *option]) == 1
    assert f"is of recipe quickstart, red first: leave {option[0]} out" in capsys.readouterr().err
    assert not (tmp_path / "back.npz").exists()


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("ending", ["safetensors", "onnx", "pth"])
def test_what_comes_back_is_the_same_to_the_bit(run, tmp_path, name, ending):
    path, file, back = (tmp_path / f"net.{one}" for one in ("npz", ending, "back.npz"))
    checkpoint(path, name)
    run("export", path, file)
    assert "alexnet.py wrote it" in run("import", file, back)
    one, other = Saved.of_alexnet(path), Saved.of_alexnet(back)
    assert (one.recipe, one.classes, one.words) == (other.recipe, other.classes, other.words)
    before, after = one.file.arrays(""), other.file.arrays("")
    assert before.keys() == after.keys()
    for key, array in before.items():
        assert array.dtype == after[key].dtype and np.array_equal(array, after[key]), key


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
@pytest.mark.parametrize("name, keep", [("paper", 0.5), ("caffe", 1), ("quickstart", 0.9)])
def test_what_dropout_keeps_at_test_time_is_in_the_weights(run, tmp_path, name, keep, ending):
    path, file = checkpoint(tmp_path / "net.npz", name), tmp_path / f"net.{ending}"
    run("export", path, file)
    layers = reading.read(file)[0].layers
    own = Saved.read(path).file.arrays("weights/")
    assert layers["fc8.weight"].T == pytest.approx(own["fc8.W"] * keep)
    halves = [own[f"{tower}.fc7.1.W"].T * keep for tower in ("top", "bottom")]
    assert layers["fc7.weight"] == pytest.approx(np.concatenate(halves))
    assert layers["fc7.bias"] == pytest.approx(np.concatenate(
        [own["top.fc7.1.b"], own["bottom.fc7.1.b"]]))


@pytest.mark.parametrize("words", [
    ["predict", "FILE", "a.png"], ["export", "FILE", "b.pth"],
    ["train", "DIR", "--init-from", "FILE", "--output-dir", "run"]], ids=lambda words: words[0])
def test_weights_of_another_program_in_a_checkpoints_place_are_to_be_imported(
        run, tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    run("export", checkpoint(tmp_path / "net.npz", "paper"), "net.onnx")
    Image.new("RGB", (9, 9)).save("a.png")
    folder = image_folder(tmp_path / "pictures", count=2)
    words = [{"FILE": "net.onnx", "DIR": str(folder)}.get(word, word) for word in words]
    assert alexnet.main(words) == 1
    assert "make one of it: alexnet.py import net.onnx NAME.npz" in capsys.readouterr().err


def test_options_win_over_what_a_file_says(run, tmp_path):
    path, file, back = (tmp_path / name for name in ("net.npz", "net.pth", "back.npz"))
    checkpoint(path, "caffe")
    run("export", path, file)
    run("import", file, back, "--lrn-window", "tower")
    assert Saved.of_alexnet(back).recipe["lrn_window"] == "tower"
    run("export", path, graph := tmp_path / "net.onnx")        # which has LRN over the layer
    back.unlink()
    run("import", graph, back, "--lrn-window", "tower", code=1)


@pytest.mark.parametrize("folded", [0.0, -0.5, 2.0])
def test_weights_are_only_folded_by_a_share_that_dropout_can_keep(run, tmp_path, capsys, folded):
    """A damaged factor would give other weights, or none, without a word."""
    path, file = checkpoint(tmp_path / "net.npz", "paper"), tmp_path / "net.safetensors"
    run("export", path, file)
    arrays, about = reading.arrays(file)
    from tinynet.formats import safetensors
    safetensors.write(file, arrays, about | {"folded": json.dumps({"fc7.weight": folded})})
    assert alexnet.main(["import", str(file), str(tmp_path / "back.npz")]) == 1
    assert f"folded.fc7.weight is {folded}, and dropout keeps" in capsys.readouterr().err


def test_an_export_of_version_0_2_comes_in(run, tmp_path):
    """It had no folded dropout, no colours and no words."""
    path, file, back = (tmp_path / name for name in ("net.npz", "net.safetensors", "back.npz"))
    checkpoint(path, "paper")
    run("export", path, file)
    arrays, about = reading.arrays(file)
    recipe = json.loads(about["recipe"])
    for name in "lrn_window", "conv1_zeros", "fit":
        del recipe[name]
    arrays = {name: 2 * array if name in ("fc7.weight", "fc8.weight") else array
              for name, array in arrays.items()}
    from tinynet.formats import safetensors
    safetensors.write(file, arrays, {"recipe": json.dumps(recipe), "classes": about["classes"]})
    run("import", file, back)
    one, other = (Saved.of_alexnet(where).file.arrays("weights/") for where in (path, back))
    assert all(np.array_equal(one[name], other[name]) for name in one)


# --- elsewhere --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_onnx_runtime_says_the_same_of_pictures_of_0_to_255(run, tmp_path, pictures, name):
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    path, file = checkpoint(tmp_path / "net.npz", name), tmp_path / "net.onnx"
    run("export", path, file)
    wanted, prepare = probabilities(path, pictures)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    edge = prepare.centre.top
    crops = np.ascontiguousarray(pictures[:, edge:edge + prepare.crop, edge:edge + prepare.crop])
    found, = runtime.InferenceSession(file, options).run(None, {"picture": crops})
    assert np.abs(found - wanted).max() < 1e-5 and 0.2 < wanted.max() < 0.999
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    onnx.checker.check_model(onnx.load(file), full_check=True)


@pytest.mark.parametrize("name", [name for name in NETS if name not in (
    "2012", "six", "small pools")])
def test_the_class_in_examples_says_the_same_in_pytorch(run, tmp_path, pictures, name, capsys):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    import in_pytorch
    path, file = checkpoint(tmp_path / "net.npz", name), tmp_path / "net.pth"
    run("export", path, file)
    wanted, _ = probabilities(path, pictures)
    for how in dict(), dict(mmap=True):
        weights = torch.load(file, weights_only=True, **how)
        net = in_pytorch.AlexNet(weights).eval()
        assert {name.partition("_")[0] for name, _ in net.named_parameters()} == set(LAYERS)
        with torch.no_grad():
            x = torch.tensor(pictures.transpose(0, 3, 1, 2), dtype=torch.float32)
            found = net(x).softmax(1).numpy()
        assert np.abs(found - wanted).max() < 1e-5
    Image.fromarray(pictures[0]).save(tmp_path / "a.png")
    in_pytorch.main(file, *[tmp_path / "a.png"] * 2)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 12
    assert all("a letter" in line for line in said if line.split()[1:2] == ["b"])


def test_what_is_written_can_be_read_as_the_formats_say(run, tmp_path):
    """Where neither PyTorch nor ONNX Runtime is there to say so."""
    path = checkpoint(tmp_path / "net.npz", "paper")
    run("export", path, tmp_path / "net.pth")
    with zipfile.ZipFile(tmp_path / "net.pth") as file:
        assert file.testzip() is None
        names = file.namelist()
        assert names[:3] == ["net/data.pkl", "net/byteorder", "net/version"]
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in file.infolist())
        bias = np.frombuffer(file.read("net/data/1"), "<f4")
    assert np.array_equal(bias[:4], Saved.read(path).file.arrays("weights/")["top.conv1.0.b"])
    run("export", path, tmp_path / "net.onnx")
    foreign, _ = reading.read(tmp_path / "net.onnx")
    kinds = [step["is"] for step in foreign.steps]
    assert kinds == ["conv", "relu", "lrn", "pool"] * 2 + ["conv", "relu"] * 3 + [
        "pool", "dense", "relu", "scale", "dense", "relu", "scale", "dense"]
    norm = foreign.steps[2]                # ONNX divides alpha by five, the paper does not
    assert (norm["size"], norm["alpha"], norm["k"], norm["beta"]) == (5, 5e-4, 2, 0.75)
    assert (norm["window"], norm["maps"]) == (4, 8)


@pytest.mark.parametrize("place, change, words", [
    (0, dict(stride=2), "step 1, conv1: stride is 2 there and 4 here"),
    (4, dict(groups=1), "step 5, conv2: groups is 1 there and 2 here"),
    (2, dict(k=1.0), "step 3, lrn: k is 1 there and 2 here"),
    (2, dict(window=8), "step 3, lrn: window is 8 there and 4 here"),
    (3, dict(size=2), "step 4, pool: size is 2 there and 3 here"),
    (1, {"is": "tanh"}, "step 2, relu: tanh there"), (slice(20, None), [], "20 steps there")])
def test_a_difference_between_plans_is_told_by_its_place(place, change, words):
    model = alexnet.build(7, (CPU, CPU), RECIPES["paper"].changed({**SMALL, "crop": 99}))
    ours, theirs = plan.of_net(model), plan.of_net(model)
    assert plan.difference(theirs, ours) is None
    if isinstance(place, int):
        theirs[place] |= change
    else:
        theirs[place] = change
    assert words in plan.difference(theirs, ours)


def test_a_plan_of_other_layers_than_its_weights_is_refused():
    """Eight of them, but a dense one between convolutions."""
    model = alexnet.build(7, (CPU, CPU), RECIPES["paper"].changed({**SMALL, "crop": 99}))
    layers = whole_layers(model)
    steps = [{**step, "layer": 0} for step in plan.of_net(model)]          # a file has no names
    plan.Foreign("Caffe", layers, steps)
    steps[4] = {"is": "dense"}
    with pytest.raises(ValueError, match="steps are not those of its weights"):
        plan.Foreign("Caffe", layers, steps)


def test_a_graph_with_another_node_is_refused_by_its_name(run, tmp_path, capsys):
    path, file = checkpoint(tmp_path / "net.npz", "caffe"), tmp_path / "net.onnx"
    run("export", path, file)
    for what, other, words in ((b"Relu", b"Selu", "AlexNet has no 'Selu'"),
                               (b"recipe", b"mecipe", "AlexNet has no 'Cast'")):
        content = file.read_bytes().replace(what, other)
        (tmp_path / "other.onnx").write_bytes(content)
        assert alexnet.main(["import", str(tmp_path / "other.onnx"),
                             str(tmp_path / "back.npz")]) == 1
        assert words in capsys.readouterr().err


def test_a_setting_that_is_no_number_is_refused(run, tmp_path, capsys):
    """The size of its LRN, which the file says is text."""
    path, file = checkpoint(tmp_path / "net.npz", "caffe"), tmp_path / "net.onnx"
    run("export", path, file)
    whole = file.read_bytes()
    assert whole.count(b"\x0a\4size\x18\5\xa0\1\2") == 2
    file.write_bytes(whole.replace(b"\x0a\4size\x18\5\xa0\1\2", b"\x0a\4size\x18\5\xa0\1\3"))
    assert alexnet.main(["import", str(file), str(tmp_path / "back.npz")]) == 1
    assert "its lrn has a setting that is no number" in capsys.readouterr().err


def test_numbers_in_another_file_are_not_fetched():
    """An .onnx file may name any file of the disk for that."""
    from other_files import field
    from tinynet.formats.protobuf import Message
    where = field(1, "location") + field(2, "/etc/passwd")
    external = field(1, 1) + field(2, 1) + field(13, where)
    with pytest.raises(ValueError, match="lie in another file"):
        onnx_file.tensor(Message(memoryview(external + field(14, 1))))


def test_a_whole_module_of_pytorch_is_refused():
    import pickle

    from tinynet.formats import torch_file
    with zipfile.ZipFile(file := io.BytesIO(), "w") as zipped:
        zipped.writestr("net/data.pkl", pickle.dumps(alexnet.Tower, 2))
    with pytest.raises(ValueError, match="wants to use alexnet.Tower.*save arrays alone"):
        torch_file.read(memoryview(file.getvalue()))
