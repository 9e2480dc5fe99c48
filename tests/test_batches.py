"""Batches: which pictures, in which order, by how many workers."""
import errno
import io
import os
import threading
import time

import numpy as np
import pytest
from PIL import Image

from tinynet.errors import UserError
from tinynet.pictures import batches, dataset, images, upload
from tinynet.training.recipes import Recipe

COUNT = 13


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Thirteen pictures of noise, in two classes."""
    folder = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for number in range(COUNT):
        path = folder / "train" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (256, 256, 3), np.uint8)).save(path)
    return folder


def loader(folder, batch_size=4, workers=2, seed=0, crop=67):
    pictures = dataset.image_folder(folder, "train")
    recipe = Recipe().changed({"crop": crop, "colour": "stdev"})
    stats = images.Statistics(np.zeros((256, 256, 3), np.float32),
                              np.array([40.0, 300.0, 5000.0]), np.eye(3))
    return batches.Loader(pictures, images.Preparation(recipe, stats, seed), batch_size,
                          workers)


def test_each_batch_tells_of_its_own_waiting():
    host = upload.Host([], None, 1)
    for seconds in 3.0, 0.5:
        host.seconds += seconds
        assert host.waited() == seconds


def an_epoch(load, epoch=0, start=0):
    """All pictures and labels that an epoch gives, in order."""
    made = list(load.training(epoch, start))
    return (np.concatenate([batch.images for batch in made]),
            np.concatenate([batch.labels for batch in made]))


def which(load, pictures):
    """The numbers of whole, unprepared pictures in a loader's data set."""
    known = [images.read(path) for path in load.pictures.paths]
    return [next(i for i, one in enumerate(known) if np.array_equal(one, picture))
            for picture in pictures]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def pictures_threads():
    return [thread for thread in threading.enumerate()
            if thread.name.startswith("pictures")]


def soon(condition, seconds=10):
    """Whether it becomes true within some seconds."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def with_broken(folder, tmp_path, *numbers):
    """A copy of the data set in which the pictures of these numbers are broken."""
    paths = dataset.image_folder(folder, "train").paths
    for number, path in enumerate(paths):
        copy = tmp_path / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(b"no picture" if number in numbers else path.read_bytes())
    return tmp_path


def test_testing_gives_every_picture_once_in_its_own_order(folder):
    load = loader(folder, crop=256)
    made = list(load.testing())
    pictures = np.concatenate([batch.images for batch in made])
    assert which(load, pictures) == list(range(COUNT))
    labels = np.concatenate([batch.labels for batch in made])
    assert np.array_equal(labels, load.pictures.labels)


def test_testing_gives_ten_views_of_every_picture(folder):
    load = loader(folder, crop=224)
    ten = np.concatenate([batch.images for batch in load.testing(views=10)])
    one = np.concatenate([batch.images for batch in load.testing()])
    assert ten.shape == (COUNT, 10, 224, 224, 3)
    assert np.array_equal(ten[:, 2], one)             # the third view is the centre


def test_the_last_batch_is_smaller(folder):
    load = loader(folder)
    for made in load.training(0), load.testing():
        assert [len(batch.images) for batch in made] == [4, 4, 4, 1]
    assert len(load) == 4


def test_the_last_batch_is_whole_if_the_pictures_suffice(folder):
    load = loader(folder, batch_size=COUNT)
    assert [len(batch.images) for batch in load.training(0)] == [COUNT]
    assert len(load) == 1


def unshifted(load, epoch):
    """Numbers of an epoch's pictures, whose crops are whole, perhaps mirrored."""
    load.prepare.shifts = None
    pictures, labels = an_epoch(load, epoch)
    known = {images.read(path)[:, side].tobytes(): (i, load.pictures.labels[i])
             for i, path in enumerate(load.pictures.paths)
             for side in (slice(None), slice(None, None, -1))}
    found = [known[np.uint8(picture).tobytes()] for picture in pictures]
    assert [label for _, label in found] == labels.tolist()
    return [number for number, _ in found]


def test_an_epoch_gives_every_picture_once_with_its_label(folder):
    load = loader(folder, crop=256)
    for epoch in range(3):
        assert sorted(unshifted(load, epoch)) == list(range(COUNT))


def test_every_epoch_and_every_seed_has_an_order_of_its_own(folder):
    orders = [unshifted(loader(folder, seed=seed, crop=256), epoch)
              for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert orders[0] != orders[1] and orders[0] != orders[2] and orders[1] != orders[2]
    assert list(range(COUNT)) not in orders


def test_an_epoch_is_the_same_to_the_bit_when_asked_for_again(folder):
    load = loader(folder)
    first = an_epoch(load, 2)
    an_epoch(load, 0)
    assert same(first, an_epoch(load, 2))
    assert not same(first, an_epoch(load, 3))


@pytest.mark.parametrize("workers", [2, 4])
def test_the_number_of_workers_changes_no_bit(folder, workers):
    alone = an_epoch(loader(folder, workers=1))
    assert same(alone, an_epoch(loader(folder, workers=workers)))


@pytest.mark.parametrize("seen", [4, 8, 12])
def test_what_is_left_of_an_epoch_is_the_same_to_the_bit(folder, seen):
    whole = an_epoch(loader(folder), 1)
    rest = an_epoch(loader(folder), 1, start=seen)
    assert same([array[seen:] for array in whole], rest)


def test_nothing_is_left_of_an_epoch_at_its_end(folder):
    assert list(loader(folder).training(0, start=COUNT)) == []


def test_unreadable_pictures_are_left_out_and_named_once(folder, tmp_path, capsys):
    load = loader(with_broken(folder, tmp_path, 2, 9), workers=4)
    pictures, labels = an_epoch(load, 0)
    assert len(pictures) == len(labels) == COUNT - 2
    an_epoch(load, 1)
    list(load.testing())
    assert set(load.skipped) == {2, 9}
    errors = capsys.readouterr().err
    for number in 2, 9:
        assert errors.count(f"{load.pictures.paths[number].name}: not a readable") == 1
    assert errors.count("skipped") == 2


def test_the_others_are_as_if_the_unreadable_were_not_there(folder, tmp_path):
    whole, labels = an_epoch(loader(folder), 5)
    load = loader(with_broken(folder, tmp_path, 4), workers=1)
    some, some_labels = an_epoch(load, 5)
    kept = [any(np.array_equal(picture, one) for one in some) for picture in whole]
    assert kept.count(False) == 1
    assert same((whole[kept], labels[kept]), (some, some_labels))


def test_a_batch_of_broken_pictures_only_is_left_out(folder, tmp_path):
    load = loader(with_broken(folder, tmp_path, 4, 5, 6, 7))
    assert [len(batch.images) for batch in load.testing()] == [4, 4, 1]
    assert set(load.skipped) == {4, 5, 6, 7}


def test_broken_pictures_only_are_an_error(folder, tmp_path, capsys):
    load = loader(with_broken(folder, tmp_path, *range(COUNT)))
    for made in load.testing(), load.training(0):
        with pytest.raises(UserError, match="none of the pictures"):
            list(made)
    assert capsys.readouterr().err.count("skipped") == COUNT


def test_a_batch_knows_how_much_of_the_epoch_is_behind_it(folder, tmp_path):
    load = loader(with_broken(folder, tmp_path, 1, 5))
    for start in 0, 4:
        ends = [batch.end for batch in load.training(0, start)]
        assert ends == [4, 8, 12, 13][start // 4:]


@pytest.mark.parametrize("leave", ["break", "close", "error"])
def test_leaving_half_way_leaves_no_thread_behind(folder, leave):
    assert soon(lambda: not pictures_threads())
    load = loader(folder, batch_size=2, workers=4)
    made = load.training(0)
    next(made)
    assert pictures_threads()
    if leave == "close":
        made.close()
    elif leave == "error":
        with pytest.raises(ZeroDivisionError):
            made.throw(ZeroDivisionError)
    else:
        for _ in made:
            break
        del made
    assert soon(lambda: not pictures_threads())


def test_a_whole_epoch_leaves_no_thread_behind(folder):
    an_epoch(loader(folder, workers=4))
    assert soon(lambda: not pictures_threads())


@pytest.mark.parametrize("wrong", [dict(batch_size=0), dict(batch_size=-1),
                                   dict(workers=0)])
def test_batch_size_and_workers_must_be_at_least_one(folder, wrong):
    with pytest.raises(UserError, match="at least 1"):
        loader(folder, **wrong)


class Squares(dataset.DataSet):
    """A data set of one's own, as its docstring says: grey squares, in memory."""

    def __init__(self, greys):
        self.greys, self.labels = greys, np.arange(len(greys)) % 2
        self.classes = ["even", "odd"]

    def read(self, index):
        return np.full((256, 256, 3), self.greys[index], np.uint8)


def test_a_data_set_of_ones_own_needs_labels_classes_and_read():
    squares = Squares([10, 20, 60])
    assert len(squares) == 3 and squares.name(2) == "2"
    prepare = images.Preparation(Recipe().changed({"colour": "none"}),
                                 batches.measure(squares, workers=2))
    load = batches.Loader(squares, prepare, batch_size=2)
    made = list(load.testing())
    assert [batch.labels.tolist() for batch in made] == [[0, 1], [0]]
    assert np.array_equal(np.concatenate([batch.images for batch in made])[:, 3, 7],
                          np.repeat([[-20], [-10], [30]], 3, axis=1))
    seen = np.concatenate([batch.indices for batch in load.training(0)])
    assert sorted(seen) == [0, 1, 2]


@pytest.mark.parametrize("picture, said", [
    (np.full((256, 256, 3), 0.6, np.float32), r"float32 \(256, 256, 3\), not uint8"),
    (np.full((256, 256, 1), 60, np.uint8), r"uint8 \(256, 256, 1\), not uint8")])
def test_a_data_set_that_reads_anything_but_bytes_in_three_colours_is_refused(picture, said):
    squares = Squares([10, 20])
    prepare = images.Preparation(Recipe(), batches.measure(squares, workers=1))
    squares.read = lambda index: picture
    for tries in (lambda: list(batches.Loader(squares, prepare, batch_size=2).testing()),
                  lambda: batches.measure(squares, workers=1)):
        with pytest.raises(TypeError, match=r"^Squares.read\(0\) gave " + said):
            tries()


def test_labels_come_as_integers_that_do_not_overflow():
    squares = Squares([10, 20, 60])
    prepare = images.Preparation(Recipe(), batches.measure(squares, workers=1))
    for labels in np.array([200, 255, 0], np.uint8), [200, 255, 0]:
        squares.labels = labels
        [batch] = batches.Loader(squares, prepare, batch_size=3).testing()
        assert batch.labels.dtype == np.int64 and batch.labels.tolist() == [200, 255, 0]


def test_some_pictures_are_fitted_as_all_are(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    noise = Image.effect_noise((600, 300), 90).convert("RGB")
    noise.save(tmp_path / "train" / "a" / "0.png")
    whole = dataset.image_folder(tmp_path, "train")
    some = dataset.Some(whole, [0, 0])
    squeezed = whole.fitted("squeeze").read(0)
    assert not np.array_equal(squeezed, whole.read(0))
    assert np.array_equal(some.fitted("squeeze").read(1), squeezed)
    for whole.shuffled in True, False:
        assert dataset.Some(whole, [0]).shuffled == whole.shuffled


def test_a_data_set_that_cannot_read_says_so():
    squares = dataset.DataSet()
    squares.labels, squares.classes = np.zeros(2, int), ["grey"]
    with pytest.raises(NotImplementedError, match="DataSet.read"):
        batches.measure(squares, workers=1)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_data_set_is_measured_without_what_cannot_be_read(folder, tmp_path, workers):
    pictures = dataset.image_folder(with_broken(folder, tmp_path, 0, 7), "train")
    found = batches.measure(pictures, workers)
    expected = images.statistics(pictures.read(i) for i in range(COUNT) if i not in (0, 7))
    for name, array in vars(expected).items():
        assert np.array_equal(getattr(found, name), array)
    broken = dataset.image_folder(with_broken(folder, tmp_path / "all", *range(COUNT)), "train")
    with pytest.raises(UserError, match="none of the training pictures"):
        batches.measure(broken, workers)


def test_real_pictures_make_batches(real_pictures):
    pictures = dataset.image_folder(real_pictures / "tiny-imagenet-50", "val")
    pictures.paths, pictures.labels = pictures.paths[:20], pictures.labels[:20]
    stats = batches.measure(pictures, 2)
    prepare = images.Preparation(Recipe(), stats)
    made = list(batches.Loader(pictures, prepare, 8).training(0))
    assert [batch.images.shape for batch in made] == [(8, 227, 227, 3)] * 2 + [
        (4, 227, 227, 3)]
    everything = np.concatenate([batch.images.ravel() for batch in made])
    assert np.isfinite(everything).all()
    assert abs(everything.mean()) < 10 and 30 < everything.std() < 100


class Failing(io.BytesIO):
    """An open file of which nothing can be read: as the system says it, without a name."""

    def __init__(self, number):
        self.error = OSError(number, os.strerror(number))

    def read(self, *count):
        raise self.error


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ESTALE])
def test_what_is_no_fault_of_a_picture_is_not_called_one(number):
    with pytest.raises(OSError) as error:
        images.read(Failing(number), "a.jpg")
    assert error.value.errno == number and error.value.filename == "a.jpg"


@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL, errno.ENOENT])
def test_what_may_be_one_pictures_fault_is_called_that(number):
    with pytest.raises(images.BrokenPicture, match="a.jpg: not a readable picture"):
        images.read(Failing(number), "a.jpg")
