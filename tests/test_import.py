"""Nets of other programs come in, and say here what they said there.

Every file is written by a writer that shares nothing with the reader, and what the net computes is
reckoned without tinynet: in NumPy everywhere, and by the programs' own libraries where they are.
"""
import io
import shlex

import numpy as np
import pytest

import alexnet
import other_files as files
from helpers import ROOT
from other_nets import (
    CAFFE_MEAN,
    LAYERS,
    ONE,
    TWO,
    as_torchvision,
    layers,
    logits,
    torch_logits,
)
from sources import image_folder
from tinynet.engine import Tensor, no_grad
from tinynet.training.saved import Saved

PICTURES = np.random.default_rng(3).integers(0, 256, (2, 256, 256, 3), np.uint8)
CAFFES, TORCHVISIONS = layers(TWO, 2), layers(ONE, 1)


@pytest.fixture
def run(tmp_path, capsys):
    """Import these bytes: the path of the checkpoint, and what was said."""
    def run(content, *options, code=0):
        path, out = tmp_path / "net.file", tmp_path / "net.npz"
        path.write_bytes(content)
        capsys.readouterr()
        assert alexnet.main(["import", str(path), str(out), *map(str, options)]) == code
        said = capsys.readouterr()
        assert bool(said.err) == bool(code) and said.err.count("\n") == bool(code)
        return out, said.err or said.out

    return run


def ours(path):
    """What the imported net says of PICTURES, prepared by its own recipe."""
    model, prepare = alexnet.load(Saved.of_alexnet(path), "cpu")
    x = np.empty((len(PICTURES), prepare.crop, prepare.crop, 3), np.float32)
    for picture, row in zip(PICTURES, x, strict=True):
        prepare.fill(picture, row, prepare.centre)
    with no_grad():
        return model(Tensor(x)).numpy()


def as_caffe_sees(mean=CAFFE_MEAN):
    """Blue, green, red, less the mean, the central 227 pixels, colours first."""
    return (PICTURES[:, 14:241, 14:241, ::-1] - mean).transpose(0, 3, 1, 2)


def as_torchvision_sees():
    pixels = PICTURES[:, 16:240, 16:240] / 255
    return ((pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(0, 3, 1, 2)


def same(found, wanted, tolerance=1e-4):
    assert np.abs(wanted).max() > 0.3
    assert np.abs(found - wanted).max() < tolerance * np.abs(wanted).max()
    return True


WANTED = logits(CAFFES, as_caffe_sees())
WANTED_ONE = logits(TORCHVISIONS, as_torchvision_sees(), ("relu", "pool"), 1, (2, 2))


# --- Caffe ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["today", "2014", "2013"])
def test_a_caffemodel_of_every_form(run, form):
    path, said = run(files.caffemodel(CAFFES, form))
    assert same(ours(path), WANTED) and "recipe caffe" in said
    assert ("blue first there, red first here; of 0 ... 255 less 122.7, 116.7, 104.0 (--mean "
            "FILE: an image)\n") in said


def test_caffenet_pools_before_it_normalises(run):
    order = "relu", "pool", "lrn"
    path, said = run(files.caffemodel(CAFFES, order=order))
    wanted = logits(CAFFES, as_caffe_sees(), order)
    assert same(ours(path), wanted) and np.abs(wanted - WANTED).max() > 1e-3
    assert "after_conv1 ('relu', 'pool', 'lrn')" in said


def test_what_follows_conv1_may_be_any_row_of_steps(run):
    path, _ = run(files.caffemodel(CAFFES, order=("relu", "relu", "pool")))
    assert Saved.of_alexnet(path).recipe["after_conv1"] == ["relu", "relu", "pool"]


def test_lrn_sees_over_the_seam_between_the_towers(run):
    """A large alpha, so that whoever forgets the neighbours is found."""
    net = {name: 40 * array if "conv1" in name else array for name, array in CAFFES.items()}
    path, _ = run(files.caffemodel(net))
    assert same(ours(path), logits(net, as_caffe_sees()))
    out = path.with_name("other.npz")
    assert alexnet.main(["import", str(path.with_name("net.file")), str(out), "--lrn", "none",
                         "--after-conv1", "relu,pool"]) == 1
    files_plan_less = files.caffemodel(net, "2013")            # says nothing of its LRN
    path.with_name("net.file").write_bytes(files_plan_less)
    assert alexnet.main(["import", str(path.with_name("net.file")), str(out), "--lrn-window",
                         "tower"]) == 0
    apart = np.abs(ours(out) - ours(path)).max()
    assert apart > 1e-2 * np.abs(ours(path)).max()


def test_colours_are_told(run):
    turned = {**CAFFES, "conv1.weight": CAFFES["conv1.weight"][:, ::-1]}
    path, said = run(files.caffemodel(turned), "--no-blue-first")
    assert same(ours(path), WANTED) and "red first there" in said


@pytest.mark.parametrize("kind", ["binaryproto", "npy"])
def test_a_mean_image_is_cropped_as_the_picture_is(run, tmp_path, kind):
    mean = np.random.default_rng(5).uniform(80, 150, (3, 256, 256)).astype("f4")
    path = tmp_path / f"mean.{kind}"
    if kind == "npy":
        np.save(path, mean.astype("f8"))
    else:
        path.write_bytes(files.blob(mean[None], "four"))
    out, said = run(files.caffemodel(CAFFES), "--mean", path)
    wanted = logits(CAFFES, as_caffe_sees(mean[:, 14:241, 14:241].transpose(1, 2, 0)))
    assert same(ours(out), wanted) and str(path) in said
    assert np.abs(wanted - WANTED).max() > 1e-3


@pytest.mark.parametrize("shape", [(3, 227, 227), (256, 256, 3), (3,)])
def test_a_mean_image_of_another_size_is_refused(run, tmp_path, shape):
    np.save(tmp_path / "mean.npy", np.ones(shape, "f4"))
    _, said = run(files.caffemodel(CAFFES), "--mean", tmp_path / "mean.npy", code=1)
    assert "a mean image is (3, 256, 256)" in said


def test_a_mean_image_with_a_hole_in_it_is_refused(run, tmp_path):
    mean = np.ones((3, 256, 256), "f4")
    mean[1, 2, 3] = np.nan
    np.save(tmp_path / "mean.npy", mean)
    _, said = run(files.caffemodel(CAFFES), "--mean", tmp_path / "mean.npy", code=1)
    assert "of finite numbers" in said


def test_settings_of_caffes_lrn_are_taken_over(run):
    path, said = run(files.caffemodel(CAFFES, alpha=3e-4))
    assert Saved.of_alexnet(path).recipe["lrn_alpha"] == 3e-4 and "lrn_alpha 0.0003" in said


def test_caffes_own_schema_encoded_by_the_protobuf_library(run):
    pytest.importorskip("google.protobuf", reason="protobuf is not installed")
    import caffe_schema
    for form in "today", "2014":
        path, _ = run(caffe_schema.caffemodel(CAFFES, form))
        assert same(ours(path), WANTED)
        path.unlink()


# --- TensorFlow's .npy ------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [0, 2, 3, 4], ids=lambda p: f"protocol {p}" if p else "2.7")
@pytest.mark.parametrize("names", [("W", "b"), ("weights", "biases")])
def test_a_dict_of_layers_that_numpy_pickled(run, protocol, names):
    path, said = run(files.npy(CAFFES, protocol, names))
    assert same(ours(path), WANTED) and "TensorFlow" in said


@pytest.mark.filterwarnings("ignore:dtype")            # NumPy's, of a pickle of Python 2
@pytest.mark.parametrize("protocol", [0, 2, 3, 4])
def test_numpy_reads_what_is_written_here_in_its_place(protocol):
    found = np.load(io.BytesIO(files.npy(CAFFES, protocol)), allow_pickle=True,
                    encoding="latin1").item()
    assert np.array_equal(found["fc7"][0], CAFFES["fc7.weight"].T)
    assert np.array_equal(found["conv2"][0].transpose(3, 2, 0, 1), CAFFES["conv2.weight"])


# --- PyTorch ----------------------------------------------------------------------------------


@pytest.mark.parametrize("container", ["zip", "row", "tar"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_state_dict_in_every_container(run, container, prefix):
    path, said = run(files.pth(as_torchvision(TORCHVISIONS), container, prefix))
    assert same(ours(path), WANTED_ONE) and "recipe owt" in said
    assert ("red first there and here; of 0 ... 255 less 123.7, 116.3, 103.5 (--mean FILE: an "
            "image), divided by 58.4, 57.1, 57.4\n") in said


def test_a_state_dict_in_a_checkpoint_of_training_and_of_other_widths(run):
    narrow = {name: array.astype("f2") for name, array in as_torchvision(TORCHVISIONS).items()}
    for wrap in "state_dict", "model":
        path, _ = run(files.pth(narrow, wrap=wrap))
        assert same(ours(path), WANTED_ONE, 0.02)
        path.unlink()
    wide = {name: array.astype("f8") for name, array in as_torchvision(TORCHVISIONS).items()}
    path, _ = run(files.pth(wide, "row"))
    assert same(ours(path), WANTED_ONE)


def test_a_net_of_two_groups_in_pytorch(run):
    path, said = run(files.pth(as_torchvision(CAFFES)), "--blue-first")
    assert same(ours(path), WANTED) and "recipe caffe" in said


def test_of_another_programs_net_nothing_is_halved(run):
    path, _ = run(files.pth(as_torchvision(CAFFES)), "--blue-first", "--recipe", "paper", "--lrn",
                  "mean", "--lrn-k", 1, "--lrn-window", "layer")
    assert same(ours(path), WANTED)


def test_what_torch_itself_saves(run):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    state = {name: torch.tensor(array) for name, array in as_torchvision(TORCHVISIONS).items()}
    state["features.0.weight"] = state["features.0.weight"].to(memory_format=torch.channels_last)
    state["classifier.6.bias"] = torch.nn.Parameter(state["classifier.6.bias"])
    for how in dict(), dict(_use_new_zipfile_serialization=False):
        torch.save(state, file := io.BytesIO(), **how)
        path, _ = run(file.getvalue())
        assert same(ours(path), WANTED_ONE)
        path.unlink()
    brief = {name: tensor.to(torch.bfloat16) for name, tensor in state.items()}
    config = torch.utils.serialization.config.save
    config.compute_crc32 = False           # then Python's zipfile says that it is damaged
    torch.save(brief, file := io.BytesIO())
    config.compute_crc32 = True
    assert same(ours(run(file.getvalue())[0]), WANTED_ONE, 0.1)


def test_torch_computes_the_same_as_the_reference_here():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    assert same(torch_logits(torch, CAFFES, as_caffe_sees()), WANTED)
    assert same(torch_logits(torch, TORCHVISIONS, as_torchvision_sees(), ("relu", "pool"), 1, 2),
                WANTED_ONE)


@pytest.mark.parametrize("container", ["zip", "row", "tar"])
def test_torch_reads_what_is_written_here_in_its_place(container, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    (tmp_path / "net.pth").write_bytes(files.pth(CAFFES, container))
    found = torch.load(tmp_path / "net.pth", weights_only=container != "tar", map_location="cpu")
    assert list(found) == list(CAFFES)
    assert all(np.array_equal(found[name].numpy(), array) for name, array in CAFFES.items())


# --- .safetensors, ONNX -----------------------------------------------------------------------


@pytest.mark.parametrize("kind, tolerance", [("F32", 1e-4), ("F16", 0.02), ("BF16", 0.1)])
def test_safetensors_of_torchvisions_net(run, kind, tolerance):
    path, _ = run(files.safetensors(as_torchvision(TORCHVISIONS), kind))
    assert same(ours(path), WANTED_ONE, tolerance)


def test_the_onnx_file_of_the_model_zoo(run):
    path, said = run(files.onnx_of_caffe(CAFFES))
    assert same(ours(path), WANTED) and "reads 224 pixels without padding" in said


def test_what_an_lrn_of_onnx_leaves_out_is_onnxs_default(run):
    """alpha 0.0001, beta 0.75, bias 1."""
    assert same(ours(run(files.onnx_of_caffe(CAFFES, lrn=dict(size=5)))[0]), WANTED)


def test_pools_that_read_beyond_the_end_are_what_they_are_here(run):
    assert same(ours(run(files.onnx_of_caffe(CAFFES, pool_pads=(0, 0, 1, 1)))[0]), WANTED)


def test_what_onnx_itself_makes(run):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    h = onnx.helper
    nodes, tensors = [], []

    def add(kind, *inputs, **of):
        nodes.append(h.make_node(kind, ["x", *inputs], ["x"], **of))

    for name in LAYERS:
        W, b = (TORCHVISIONS[f"{name}.{what}"] for what in ("weight", "bias"))
        own = f"{name}.W", f"{name}.b"
        if name == "fc6":
            add("AveragePool", kernel_shape=[1, 1], strides=[1, 1])
            add("Flatten", axis=1)
        transB = int(name != "fc7")                            # some writers transpose
        tensors += [onnx.numpy_helper.from_array(np.ascontiguousarray(
            W if transB or W.ndim == 4 else W.T), own[0]), onnx.numpy_helper.from_array(b, own[1])]
        if "conv" in name:
            pad = {"conv1": 2, "conv2": 2}.get(name, 1)
            add("Conv", *own, pads=[pad] * 4, strides=[4 if name == "conv1" else 1] * 2)
        else:
            add("Gemm", *own, transB=transB)
        if name != "fc8":
            add("Relu")
        if name in ("conv1", "conv2", "conv5"):
            add("MaxPool", kernel_shape=[3, 3], strides=[2, 2])
    value = h.make_tensor_value_info("x", 1, ["N", 3, 224, 224])
    graph = h.make_graph(nodes, "alexnet", [value], [value], tensors)
    path, said = run(h.make_model(graph).SerializeToString())
    assert same(ours(path), WANTED_ONE) and "recipe owt" in said
    assert "without padding" not in said


# --- what is said -----------------------------------------------------------------------------


def test_classes_are_named_by_a_file(run, tmp_path):
    names = tmp_path / "synset_words.txt"
    names.write_text("n01440764 tench, Tinca tinca\nn01443537 goldfish\nn1 x\nn2 y\nn3 z\n")
    lines = [f"n0000000{n} thing {n}, of some kind" for n in range(5)]
    names.write_text("\n".join(lines))
    saved = Saved.of_alexnet(run(files.caffemodel(CAFFES), "--classes", names)[0])
    assert saved.classes == [line.split()[0] for line in lines]
    assert saved.words["n00000003"] == "thing 3, of some kind"
    saved.path.unlink()
    names.write_text("crane\ntench\ncrane\nox\ngrey fox\n")    # the bird, and the machine
    saved = Saved.of_alexnet(run(files.caffemodel(CAFFES), "--classes", names)[0])
    assert saved.classes == ["crane (0)", "tench", "crane (2)", "ox", "grey fox"]
    saved.path.unlink()
    names.write_text("a\nb\n")
    _, said = run(files.caffemodel(CAFFES), "--classes", names, code=1)
    assert "has 2 lines, the net 5 classes" in said


def test_a_known_file_is_called_by_its_name_and_can_be_checked(run, tmp_path, monkeypatch,
                                                               capsys):
    import hashlib

    from PIL import Image

    from tinynet.formats import known
    content = files.caffemodel(CAFFES)
    pixels = PICTURES[0, :227, :227]
    x = pixels[None, ..., ::-1].transpose(0, 3, 1, 2).astype("f8")
    said = logits(CAFFES, x)[0]
    probabilities = np.exp(said - said.max()) / np.exp(said - said.max()).sum()
    best = int(probabilities.argmax())
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    for digest, label, wanted, words in (
            ("sha1", best, probabilities[best], "it agrees"), ("sha256", best, 0.5, "IT DIFFERS"),
            ("sha1", best ^ 1, probabilities[best], "IT DIFFERS")):
        made = known.Known("famous.caffemodel", "1 and 2", ("picture.png", label, wanted))
        key = getattr(hashlib, digest)(content).hexdigest()
        monkeypatch.setattr(known, "FILES", {key: made})
        path, said = run(content)
        assert "famous.caffemodel" in said and "top-1 and top-5: 1 and 2" in said
        following = shlex.split(said.splitlines()[-1])
        assert following[-2:] == ["--check", "picture.png"]
        monkeypatch.chdir(tmp_path)
        assert alexnet.main(following[following.index("import"):]) == 0
        said = capsys.readouterr().out
        assert f"class {best}, probability {probabilities[best]:.5f}" in said and words in said
        path.unlink()
        path.with_name("net.checked.npz").unlink()


def test_the_published_files_are_known_by_what_was_published():
    from tinynet.formats import known
    assert known.FILES["7be5be79"].name == "alexnet-owt-7be5be79.pth of torchvision"
    label, probability = known.BVLC.check[1:]
    assert (label, probability) == (652, 0.641789)


def test_a_missing_file_and_a_file_in_the_way_are_told(run, tmp_path, capsys):
    assert alexnet.main(["import", str(tmp_path / "no"), str(tmp_path / "a.npz")]) == 1
    assert "there is no such file" in capsys.readouterr().err
    assert alexnet.main(["import", str(tmp_path), str(tmp_path / "a.npz")]) == 1
    assert "is a folder or a device" in capsys.readouterr().err
    path, _ = run(files.caffemodel(CAFFES))
    _, said = run(files.caffemodel(CAFFES), code=1)
    assert "is a checkpoint and would be overwritten" in said


def test_an_imported_net_can_be_asked_trained_on_and_tested(run, tmp_path, capsys):
    path, _ = run(files.caffemodel(CAFFES))
    picture = ROOT / "examples" / "patterns.png"
    assert alexnet.main(["predict", str(path), str(picture)]) == 0
    assert capsys.readouterr().out.count("%") == 5
    for words, option in (["test"], "DIR"), (["walk", str(tmp_path / "w.html")], "--data DIR"):
        assert alexnet.main([words[0], str(path), *words[1:]]) == 1
        assert f"has no pictures of its own: give {option}\n" in capsys.readouterr().err
    assert alexnet.main(["train", "--resume", str(path)]) == 1
    assert "start one with --init-from" in capsys.readouterr().err
    data = image_folder(tmp_path / "pictures", count=2)
    assert alexnet.main(["train", str(data), "--recipe", "caffe", "--init-from", str(path),
                         "--kernels", "4,6,6,4,4", "--neurons", "8,8", "--steps", "1", "-b", "2",
                         "--output-dir", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.count("copied") == 7        # fc8 answers another question
