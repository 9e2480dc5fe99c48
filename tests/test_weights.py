"""Weights as other programs have them."""
import json

import numpy as np
import pytest

import alexnet
from tinynet.device import Device
from tinynet.engine import Tensor, no_grad
from tinynet.errors import UserError
from tinynet.formats import reading, safetensors
from tinynet.training.recipes import LAYERS, RECIPES
from tinynet.training.weights import split_layers, whole_layers

CPU = Device("cpu")
SMALL = RECIPES["paper"].changed(dict(kernels=(4, 6, 8, 8, 6), neurons=(10, 12), crop=99,
                                      std=("he",)))


def net(**options):
    return alexnet.build(7, (CPU, CPU), SMALL.changed(options)).initialize(seed=1).eval()


def test_the_papers_net_has_the_arrays_of_a_grouped_one():
    model = alexnet.build(1000, (CPU, CPU), RECIPES["paper"])
    shapes = {name: array.shape for name, array in whole_layers(model).items()}
    assert [shapes[f"{layer}.weight"] for layer in LAYERS] == [
        (96, 3, 11, 11), (256, 48, 5, 5), (384, 256, 3, 3), (384, 192, 3, 3),
        (256, 192, 3, 3), (4096, 9216), (4096, 4096), (1000, 4096)]
    assert shapes["conv1.bias"] == (96,) and shapes["fc8.bias"] == (1000,)


@pytest.mark.parametrize("options", [{}, dict(conv6=True), dict(towers=1),
                                     dict(towers=1, conv6=True)])
def test_there_and_back_is_the_same_net(options):
    model = net(**options)
    back = split_layers(whole_layers(model), model)
    assert set(back) == {name for name, _ in model.parameters()}
    for name, w in model.parameters():
        assert np.array_equal(back[name], w.data), name


def test_what_does_not_fit_is_left_out():
    found = split_layers(whole_layers(net()), net(neurons=(10, 16)))
    assert "top.fc6.1.W" in found and "top.fc7.1.W" not in found and "fc8.W" not in found


@pytest.mark.parametrize("conv6", [False, True])
def test_a_grouped_net_of_pytorch_computes_the_same_with_them(conv6):
    """In PyTorch's usual order of dimensions, and with its own flatten before fc6."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    F = torch.nn.functional
    model = net(conv6=conv6, lrn="none")
    w = {name: torch.tensor(array) for name, array in whole_layers(model).items()}
    image = np.random.default_rng(0).standard_normal((2, 99, 99, 3)).astype(np.float32)

    def conv(x, layer, **how):
        return F.relu(F.conv2d(x, w[f"{layer}.weight"], w[f"{layer}.bias"], **how))

    def pool(x):
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    x = pool(conv(torch.tensor(image).permute(0, 3, 1, 2), "conv1", stride=4))
    x = pool(conv(x, "conv2", padding=2, groups=2))
    x = conv(conv(x, "conv3", padding=1), "conv4", padding=1, groups=2)
    x = pool(conv(x, "conv5", padding=1, groups=2))
    assert x.shape[2] > 1, "with maps of one pixel their order would not matter"
    x = (conv(x, "conv6", padding=1) if conv6 else x).flatten(1)
    for layer in "fc6", "fc7":
        x = 0.5 * F.relu(F.linear(x, w[f"{layer}.weight"], w[f"{layer}.bias"]))
    theirs = F.linear(x, w["fc8.weight"], w["fc8.bias"]).numpy()
    with no_grad():
        ours = model(Tensor(image)).numpy()
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_a_file_is_as_the_format_says_and_reads_back(tmp_path):
    path = tmp_path / "a.safetensors"
    arrays = {"one": np.arange(6, dtype=np.float32).reshape(2, 3).T, "two": np.ones(3)}
    safetensors.write(path, arrays, {"classes": '["a"]'})
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + size])
    assert size % 8 == 0 and header["one"] == dict(dtype="F32", shape=[3, 2],
                                                   data_offsets=[0, 24])
    assert len(raw) == 8 + size + 4 * 6 + 8 * 3
    found, about = reading.arrays(path)
    assert about == {"classes": '["a"]'} and found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)


def test_the_library_of_the_format_reads_it_and_we_read_its_files(tmp_path):
    library = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    arrays = whole_layers(net())
    safetensors.write(tmp_path / "ours", arrays, {"recipe": "{}"})
    theirs = library.load_file(tmp_path / "ours")
    library.save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()},
                      tmp_path / "theirs")
    ours, _ = reading.arrays(tmp_path / "theirs")
    for name, array in arrays.items():
        assert np.array_equal(theirs[name], array) and np.array_equal(ours[name], array)


@pytest.mark.parametrize("content", [b"", b"\x05", b"no tensors here, but some bytes",
                                     b"\x02\0\0\0\0\0\0\0[]"])
def test_a_damaged_file_is_a_clear_error(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="a.safetensors is damaged"):
        reading.arrays(path)


def test_a_truncated_file_is_a_clear_error(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.write(path, {"one": np.ones(9)}, {})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="damaged"):
        reading.arrays(path)
