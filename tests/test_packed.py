"""Pictures in a few large files are the pictures that were put in."""
import errno
import io
import os
import pickle
import threading

import numpy as np
import pytest
from PIL import Image

from helpers import smooth
from tinynet import store
from tinynet.errors import UserError
from tinynet.pictures import dataset, images, packed


def jpeg(picture):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=90)
    return file.getvalue()


def picture(index):
    """A picture of one colour, which a JPEG keeps to a grey level or two."""
    return np.full((256, 256, 3), (index, 2 * index, 255 - index), np.uint8)


CLASSES = ["ant", "bee", "cow"]
COUNTS = 3, 0, 4, 1                     # of which one file has nothing in it


def name_of(index):
    return f"ünter/{index}.jpg"


@pytest.fixture
def folder(tmp_path):
    """Eight pictures in four files, as data/imagenet.py writes them."""
    start, sums = 0, images.Sums()
    for number, count in enumerate(COUNTS):
        indices = range(start, start + count)
        for index in indices:
            sums.add(picture(index), images.colour_products(picture(index)))
        entries = [(jpeg(picture(index)), index % 3, name_of(index)) for index in indices]
        packed.Shard(tmp_path, "train", number).write(entries, images.Sums(), {})
        start += count
    packed.write_statistics(tmp_path / packed.STATISTICS, sums.statistics())
    packed.write_about(tmp_path / packed.PREPARED, dict(
        classes=CLASSES, words={"bee": "bee, buzzer"}, splits={"train": {"files": len(COUNTS)}}))
    return tmp_path


def test_every_picture_comes_back_with_its_label_and_name(folder):
    pictures = packed.data_set(folder, "train")
    assert len(pictures) == 8 and pictures.classes == CLASSES
    assert pictures.labels.tolist() == [index % 3 for index in range(8)]
    assert pictures.words == {"bee": "bee, buzzer"}
    for index in range(8):
        read = pictures.read(index)
        assert read.shape == (256, 256, 3) and read.dtype == np.uint8
        assert np.array_equal(read, images.read(io.BytesIO(jpeg(picture(index)))))
        assert pictures.name(index) == name_of(index)


def test_statistics_come_with_the_pictures(folder):
    statistics = packed.data_set(folder, "train").statistics
    expected = images.statistics(picture(index) for index in range(8))
    for name, array in vars(expected).items():
        assert np.array_equal(getattr(statistics, name), array)
    with np.load(folder / packed.STATISTICS) as saved:
        assert np.allclose(saved["rgb_mean"], [3.5, 7, 251.5])
        assert np.allclose(saved["stdevs"] ** 2, expected.variances)


def test_labels_follow_the_classes_that_are_given(folder):
    pictures = packed.data_set(folder, "train", ["cow", "dog", "bee", "ant"])
    assert pictures.classes == ["cow", "dog", "bee", "ant"]
    assert pictures.labels.tolist() == [(3, 2, 0)[index % 3] for index in range(8)]


def test_classes_without_pictures_are_named(folder, capsys):
    packed.data_set(folder, "train", ["cow", "dog", "bee", "ant"])
    assert "has no pictures of 1 of the 4 classes:\n  dog" in capsys.readouterr().err
    packed.data_set(folder, "train", CLASSES)
    assert capsys.readouterr().err == ""


def test_a_class_that_the_net_does_not_know_is_named(folder):
    with pytest.raises(UserError, match="classes that the net does not know: bee; move "):
        packed.data_set(folder, "train", ["ant", "cow"])


@pytest.mark.parametrize("system", ["with pread", "without"])
def test_threads_may_read_at_the_same_time(folder, monkeypatch, system):
    if system == "without":
        monkeypatch.delattr("os.pread", raising=False)
    pictures = packed.data_set(folder, "train")
    expected = [pictures.read(index) for index in range(8)]
    wrong = []

    def look(seed):
        for index in np.random.default_rng(seed).integers(0, 8, 40):
            if not np.array_equal(pictures.read(index), expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_folders_of_pictures_are_a_data_set_as_before(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "1.jpg").write_bytes(jpeg(picture(1)))
    pictures = packed.data_set(tmp_path, "train")
    assert isinstance(pictures, dataset.Pictures) and len(pictures) == 1
    assert pictures.statistics is None


def test_a_half_prepared_folder_says_what_to_do(folder):
    (folder / packed.PREPARED).rename(folder / packed.PREPARING)
    with pytest.raises(UserError, match="half prepared: run data/imagenet.py again"):
        packed.data_set(folder, "train")


def coloured(draw):
    return (smooth(256, 256) + draw.normal(0, 10, (256, 256, 3))).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_the_faster_reader_of_jpegs_agrees_with_pillow_whatever_the_bytes(subsampling):
    if not images.simplejpeg:
        pytest.skip("simplejpeg is not installed (an extra for GPUs)")
    draw = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(coloured(draw)).save(file, "JPEG", quality=90, subsampling=subsampling)
    whole = file.getvalue()
    assert np.array_equal(images.simplejpeg.decode_jpeg(whole), images.read(io.BytesIO(whole)))
    broken = 0
    for _ in range(200):
        data = bytearray(whole[:draw.integers(len(whole))] if draw.random() < 0.1 else whole)
        for place in draw.integers(len(data), size=draw.integers(1, 4)):
            data[place] = draw.integers(256)
        outcomes = []
        for reader in images.read_stored, lambda data: images.read(io.BytesIO(data)):
            try:
                outcomes.append(reader(bytes(data)))
            except images.BrokenPicture as error:
                outcomes.append(str(error).partition(":")[2])
        broken += isinstance(outcomes[0], str)
        assert np.array_equal(*outcomes)
    assert 10 < broken < 190


def test_a_jpeg_is_stored_as_it_is_read_without_the_faster_reader(monkeypatch):
    file = io.BytesIO()
    Image.fromarray(coloured(np.random.default_rng(0))).save(file, "JPEG", quality=90)
    with_it = images.read_stored(file.getvalue())
    monkeypatch.setattr(images, "simplejpeg", None)
    assert np.array_equal(images.read_stored(file.getvalue()), with_it)


def test_a_split_that_is_not_there_is_an_error(folder):
    with pytest.raises(UserError, match="without 'val' pictures"):
        packed.data_set(folder, "val")


def test_a_damaged_picture_is_named(folder):
    path = folder / "train-00002.pack"
    data = bytearray(path.read_bytes())
    data[:200] = bytes(200)
    path.write_bytes(data)
    pictures = packed.data_set(folder, "train")
    with pytest.raises(images.BrokenPicture, match=f"train-00002.pack.*{name_of(3)}"):
        pictures.read(3)
    pictures.read(2), pictures.read(4)


@pytest.mark.parametrize("name", ["train-00000.pack", "train-00000.npz", "statistics.npz",
                                  "prepared.json"])
def test_a_truncated_file_is_a_clear_error(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"{name}.*damaged"):
        packed.data_set(folder, "train")


@pytest.mark.parametrize("name, what", [("train-00002.npz", "picture index"),
                                        ("statistics.npz", "statistics of pictures")])
@pytest.mark.parametrize("how", ["missing", "damaged", "another", "foreign"])
def test_a_bad_index_is_called_by_its_name_and_what_to_do_is_said(folder, name, what, how):
    path = folder / name
    if how == "missing":
        path.unlink()
    elif how == "damaged":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "another":
        store.save(path, {"index/lengths": np.zeros(1)}, {})
    else:
        np.savez(path, a=np.zeros(1))
    with pytest.raises(UserError) as error:
        packed.data_set(folder, "train")
    said = str(error.value)
    assert str(path) in said and what in said
    assert "prepare the pictures again, into a new folder" in said
    assert "checkpoint" not in said and "net:" not in said


def test_a_file_of_pictures_that_is_missing_is_named(folder):
    (folder / "train-00002.pack").unlink()
    with pytest.raises(UserError, match="train-00002.pack.*prepare the pictures again"):
        packed.data_set(folder, "train")


def test_another_version_is_a_clear_error(folder):
    path = folder / packed.PREPARED
    path.write_text(path.read_text().replace(packed.FORMAT, "tinynet pictures 0"))
    with pytest.raises(UserError, match="of another version"):
        packed.data_set(folder, "train")


def test_a_disk_that_fails_is_told_of_the_file_it_fails_for(folder, monkeypatch):
    def pread(*where):
        raise OSError(errno.EIO, "Input/output error")
    pictures = packed.data_set(folder, "train")
    monkeypatch.setattr(os, "pread", pread, raising=False)
    with pytest.raises(OSError) as error:
        pictures.read(0)
    assert error.value.filename == str(folder / "train-00000.pack")


def test_classes_without_pictures_are_told_by_one_process(folder, capsys):
    pictures = packed.data_set(folder, "train", [*CLASSES, "dog"])
    again = pickle.loads(pickle.dumps(pictures))
    assert capsys.readouterr().err.count("dog") == 1
    assert again.labels.tolist() == pictures.labels.tolist() and again.classes[3] == "dog"
