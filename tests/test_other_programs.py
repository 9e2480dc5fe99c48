"""In what Caffe's net and torchvision's are not the paper's: each difference is a field."""
import io
import json

import numpy as np
import pytest
from PIL import Image

import alexnet
from data import imagenet
from helpers import IMAGES, LABELS, SMALL, net, smooth
from sources import lay_out
from tinynet import ops
from tinynet.conv import conv2d
from tinynet.device import Device, devices, to_host
from tinynet.engine import Tensor
from tinynet.layers import ReLU, Sequential
from tinynet.norm import plain_lrn
from tinynet.pictures import images, packed
from tinynet.split import AcrossLRN, gather, side_by_side
from tinynet.tools.anatomy import crossings
from tinynet.training.recipes import RECIPES

CPU = Device("cpu")


# --- an LRN over both towers ------------------------------------------------------------------


def halves(places, maps):
    """The maps of both towers, and a number that depends on all of them after the LRN."""
    draw = np.random.default_rng(0)
    parts = [Tensor(draw.standard_normal((2, 3, 3, maps)), place, requires_grad=True)
             for place in places]
    layers = [Sequential(ReLU(), AcrossLRN(k=1.0, alpha=0.3)) for _ in places]
    both = gather(*side_by_side(*layers, *parts))
    return parts, both


@pytest.mark.parametrize("maps", [1, 2, 6])
@pytest.mark.parametrize("names", ["cpu,cpu", "cpu0,cpu1"])
def test_its_window_reaches_from_one_towers_maps_into_the_others(names, maps):
    parts, both = halves(devices(names), maps)
    whole = np.maximum(np.concatenate([to_host(part.data) for part in parts], axis=-1), 0)
    assert both.numpy() == pytest.approx(plain_lrn(whole, k=1.0, alpha=0.3))


@pytest.mark.parametrize("names", ["cpu,cpu", "cpu0,cpu1"])
def test_its_gradient_comes_back_from_the_other_tower(names):
    parts, both = halves(devices(names), 4)
    upstream = np.random.default_rng(1).standard_normal(both.shape)
    (both * Tensor(upstream, both.device)).sum().backward()
    whole = Tensor(np.concatenate([to_host(part.data) for part in parts], axis=-1),
                   requires_grad=True)
    layer = AcrossLRN(k=1.0, alpha=0.3)
    (layer(ops.relu(whole)) * Tensor(upstream)).sum().backward()
    for part, expected in zip(parts, np.split(whole.grad, 2, axis=-1), strict=True):
        assert to_host(part.grad) == pytest.approx(expected)


def test_every_pair_of_devices_computes_the_same(pair):
    recipe = SMALL.changed({"lrn_window": "layer", "lrn_alpha": 0.1})

    def learned(places):
        model = net(places, recipe).eval()
        loss = ops.softmax_cross_entropy(model(Tensor(IMAGES, places[0])), labels=LABELS)
        loss.backward()
        return loss.item(), {name: to_host(w.grad) for name, w in model.parameters()}

    (loss, gradients), (expected, on_cpu) = learned(pair), learned((CPU, CPU))
    assert loss == pytest.approx(expected, rel=1e-4)
    for name, gradient in on_cpu.items():
        error = np.abs(gradients[name] - gradient).max()
        assert error < 1e-3 * np.abs(gradient).max(), name


def test_two_maps_cross_at_each_of_two_seams():
    recipe = SMALL.changed({"lrn_window": "layer"})
    pair = devices("cpu0,cpu1")
    found = crossings(net(pair, recipe)(Tensor(IMAGES, pair[0])))
    assert [c.layer for c in found] == ["conv2"] * 2 + ["conv3"] * 4 + ["fc6"] * 2 + [
        "fc7"] * 2 + ["fc8"]
    assert [c.bytes for c in found[:4]] == [9 * 15 * 15 * 2 * 4] * 2 + [9 * 7 * 7 * 2 * 4] * 2
    one, two = (net(places, recipe)(Tensor(IMAGES, places[0])).numpy()
                for places in (devices("cpu,cpu"), pair))
    assert np.array_equal(one, two)
    assert not np.allclose(one, net((CPU, CPU))(Tensor(IMAGES)).numpy(), rtol=1e-6, atol=0)


# --- where conv1's zeros lie ------------------------------------------------------------------


@pytest.mark.parametrize("zeros, pad", [("end", (0, 3)), ("around", (2, 1))])
def test_the_zeros_beyond_the_edge_of_224_lie_where_the_recipe_says(zeros, pad):
    recipe = RECIPES["owt"].changed({"conv1_zeros": zeros, "kernels": (4, 4, 4, 4, 4),
                                     "neurons": (4, 4)})
    conv = alexnet.build(3, (CPU, CPU), recipe).conv1[0]
    x = Tensor(np.random.default_rng(0).standard_normal((1, 224, 224, 3)).astype(np.float32))
    padded = np.pad(x.numpy(), ((0, 0), pad, pad, (0, 0)))
    expected = conv2d(Tensor(padded), conv.W, conv.b, stride=4)
    assert expected.shape == (1, 55, 55, 4)
    assert conv(x).numpy() == pytest.approx(expected.numpy(), abs=1e-5)


def test_torchvisions_net_has_its_61_100_840_parameters():
    model = alexnet.build(1000, (CPU, CPU), RECIPES["owt"])
    assert sum(np.prod(w.shape) for _, w in model.parameters()) == 61_100_840


# --- pictures that are squeezed ---------------------------------------------------------------


def jpeg(width, height):
    file = io.BytesIO()
    Image.fromarray(np.uint8(smooth(width, height))).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("size", [(500, 300), (300, 500), (256, 300), (100, 300), (256, 256),
                                  (1500, 300)])
def test_a_squeezed_picture_is_whole(size):
    """A grid of brightnesses is the same grid, however wide the picture was."""
    place = np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1])
    grid = np.stack(np.broadcast_arrays(place[0][None], place[1][:, None], 7.0), axis=-1)
    Image.fromarray(np.uint8(np.round(grid))).save(file := io.BytesIO(), "PNG")
    picture = images.read(file, fit="squeeze").astype(float)
    assert picture.shape == (256, 256, 3)
    expected = np.arange(256.0)
    assert np.abs(picture[..., 0] - expected).max() < 3
    assert np.abs(picture[..., 1] - expected[:, None]).max() < 3


def test_a_folder_and_a_packed_set_give_a_net_its_pictures_as_its_recipe_wants_them(
        tmp_path, capsys):
    files = {f"{split}/{name}/1.png": jpeg(400, 300) for split in ("train", "val")
             for name in "ab"}
    source = lay_out(tmp_path / "source", files)
    whole, square = (images.read(io.BytesIO(jpeg(400, 300)), fit=fit)
                     for fit in ("squeeze", "crop"))
    pictures = packed.data_set(source, "train")
    assert np.array_equal(pictures.fitted("squeeze").read(0), whole)
    assert np.array_equal(pictures.read(0), square)
    assert np.abs(whole.astype(int) - square).mean() > 9
    for fit, expected in ("squeeze", whole), ("crop", square):
        target = tmp_path / fit
        assert imagenet.main([str(source), str(target), "--fit", fit, "-j", "1"]) == 0
        found = packed.data_set(target, "val").fitted(fit)
        assert np.abs(found.read(0).astype(int) - expected).mean() < 2
        assert "sees these pictures otherwise" not in capsys.readouterr().err
    found.fitted("squeeze")
    said = capsys.readouterr().err
    assert "was prepared with --fit crop" in said and said.count("\n") == 1
    assert imagenet.main([str(source), str(target), "--fit", "squeeze", "-j", "1"]) == 1
    assert 'fit: "crop" then, "squeeze" now' in capsys.readouterr().err
    about = json.loads((target / "prepared.json").read_text())
    del about["fit"]                       # as before it could be chosen
    (target / "prepared.json").write_text(json.dumps(about))
    assert imagenet.main([str(source), str(target), "-j", "1"]) == 0
