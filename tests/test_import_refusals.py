"""What is not AlexNet, or no file of weights, is refused in a line that says what it is."""
import io
import zipfile

import numpy as np
import pytest

import alexnet
import other_files as files
from other_nets import TWO, layers

CAFFES = layers(TWO, 2)


@pytest.fixture
def refused(tmp_path, capsys):
    """Import these bytes, in vain: the line that says why."""
    def refused(content, *options):
        path, out = tmp_path / "net.file", tmp_path / "net.npz"
        path.write_bytes(content)
        assert alexnet.main(["import", str(path), str(out), *options]) == 1 and not out.exists()
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    return refused


@pytest.mark.parametrize("change, words", [
    (dict(groups=1), "groups"), (dict(order=("relu", "lrn")), "after_conv1 has one pool")],
    ids=["groups", "no pool"])
def test_a_net_that_is_not_alexnet_is_refused_with_its_first_difference(refused, change, words):
    assert words in refused(files.caffemodel(CAFFES, **change))


@pytest.mark.parametrize("form", ["today", "2014"])
@pytest.mark.parametrize("change, words", [
    (dict(leak=0.1), "its ReLUs leak"), (dict(dilation=2), "kernels have gaps"),
    (dict(pool_pad=1), "or with a pad")], ids=["leak", "dilation", "padded pools"])
def test_a_net_of_these_weights_that_computes_otherwise_is_refused(refused, form, change, words):
    assert words in refused(files.caffemodel(CAFFES, form, **change))


def test_a_net_of_another_nonlinearity_is_refused(refused):
    content = files.caffemodel(CAFFES, "today").replace(b"ReLU", b"TanH")
    assert "relu" in refused(content)


def test_weights_in_a_layer_of_an_unknown_kind_are_refused(refused):
    content = files.caffemodel(CAFFES, "today").replace(b"Convolution", b"Xonvolution")
    assert "its steps are not those of its weights" in refused(content)


@pytest.mark.parametrize("change", [
    dict(pool_pads=(1, 1, 1, 1)), dict(dilations=[2, 2]), dict(auto_pad="SAME_UPPER")],
    ids=["padded pools", "gaps", "padded as it comes"])
def test_a_graph_that_steps_otherwise_is_refused(refused, change):
    content = files.onnx_of_caffe(CAFFES, **change)
    assert "pads or steps otherwise than AlexNet" in refused(content)


@pytest.mark.parametrize("content, words", [
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras); write it as .safetensors there"),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file; write it"), (b"\x1f\x8b\x08", "unpack it first"),
    (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    (b"<!DOCTYPE html>", "a page of the Web"), (b"\x80\x02}q\x01.", "to read it would be to run"),
    (b"hello", "of no known kind; what is read: .caffemodel"), (b"", "of no known kind")],
    ids=["HDF5", "MATLAB", "gzip", "Git LFS", "HTML", "a pickle", "text", "nothing"])
def test_what_is_not_read_is_told_what_to_do(refused, content, words):
    assert words in refused(content)


def test_a_zip_that_holds_no_state_dict_is_told_what_to_do(refused):
    npz, script = io.BytesIO(), io.BytesIO()
    np.savez(npz, **{"conv1.0.W": np.zeros(3)})
    assert "a checkpoint of alexnet.py needs no import" in refused(npz.getvalue())
    with zipfile.ZipFile(script, "w", zipfile.ZIP_DEFLATED) as file:       # as TorchScript's code
        file.writestr("net/data.pkl", b"\x80\x02}.")
    assert "save model.state_dict()" in refused(script.getvalue())


def test_a_picture_to_check_with_is_read_before_anything_is_written(refused):
    assert "nowhere.png: not a readable picture" in refused(
        files.caffemodel(CAFFES), "--check", "nowhere.png")


def test_a_device_that_is_none_is_refused_before_anything_is_written(refused):
    assert "'nonsense' is no device" in refused(files.caffemodel(CAFFES), "--device", "nonsense")


def test_what_is_no_mean_image_is_not_called_a_net(refused, tmp_path):
    (tmp_path / "mean").write_bytes(b"\x89PNG\r\n")
    said = refused(files.caffemodel(CAFFES), "--mean", str(tmp_path / "mean"))
    assert "is damaged, or holds no mean image: " in said


def test_two_classes_of_one_name_are_refused(refused, tmp_path):
    """Numbers are put behind names that come twice, and may be there already."""
    (tmp_path / "names").write_text("crane\ncrane\ncrane (0)\nox\nfox\n")
    assert "two classes have one name" in refused(
        files.caffemodel(CAFFES), "--classes", str(tmp_path / "names"))
