"""What pages are made of: maps, the places that they see, best pictures, neighbours."""
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

import alexnet
from helpers import SMALL, net
from tinynet import Parameter, Tensor, no_grad, ops
from tinynet.device import devices
from tinynet.engine import graph
from tinynet.pages import activations, judged
from tinynet.pages.report import short
from tinynet.pages.walk import as_size
from tinynet.pictures import packed
from tinynet.tools import memory
from tinynet.training.recipes import RECIPES


def test_the_fields_of_the_paper_are_those_of_lesson_12():
    found = activations.fields(alexnet.build(10, devices("cpu") * 2, RECIPES["paper"]).towers[0])
    assert {name: (field.jump, field.size) for name, field in found.items()} == {
        "conv1": (8, 19), "conv2": (16, 67), "conv3": (16, 99), "conv4": (16, 131),
        "conv5": (32, 195)}


@pytest.mark.parametrize("after", [("relu", "lrn", "pool"), ("lrn", "pool", "relu"),
                                   ("same-map-lrn", "pool")], ids=str)
@pytest.mark.parametrize("name, place", [("conv1", 9), ("conv1", 0), ("conv2", 0), ("conv2", 8)])
def test_nothing_outside_of_its_field_reaches_a_place(name, place, after):
    model = net(devices("cpu") * 2, SMALL.changed({"after_conv1": after})).eval()
    image = np.random.default_rng(0).standard_normal((1, 67, 67, 3)).astype(np.float32)

    def at_place(image):
        x = Tensor(image)
        with no_grad():
            x = model.top.conv1(x)
            x = model.top.conv2(x) if name == "conv2" else x
        return x.numpy().reshape(-1, x.shape[-1])[place], x.shape[2]

    before, width = at_place(image)
    left, top, size = activations.fields(model.top)[name].square(place, width)
    inside = np.zeros((67, 67), bool)
    inside[max(top, 0):top + size, max(left, 0):left + size] = True
    assert 0 < inside.sum() < inside.size
    noise = np.random.default_rng(1).standard_normal(image.shape).astype(np.float32)
    assert np.allclose(at_place(np.where(inside[None, ..., None], image, noise))[0], before)
    edge = inside & ~np.roll(inside, 1, axis=0) if top > 0 else inside
    changed = np.where(edge[None, ..., None], image + 9 * noise, image)
    assert not np.allclose(at_place(changed)[0], before)


def test_the_best_pictures_of_a_map_are_those_in_which_it_is_largest(loaded):
    _, model, loader = loaded
    maps = np.concatenate([found["conv3"][0] for _, _, found in
                           activations.watching(model, loader, ["conv3"])])
    best = activations.best_pictures(model, loader)["conv3"][0]
    largest = maps.max(axis=(1, 2))
    assert np.array_equal(best.values, -np.sort(-largest, axis=0)[:3])
    for rank, number in np.ndindex(best.values.shape):
        index, width = best.indices[rank, number], maps.shape[2]
        row, column = divmod(best.places[rank, number], width)
        assert maps[index, row, column, number] == best.values[rank, number]


def test_a_patch_is_cut_where_the_field_is_and_grey_beyond_the_edge():
    picture = np.zeros((256, 256, 3), np.uint8)
    picture[100:110, 50:60] = 200
    assert (activations.patch(picture, (45, 95, 10), 5, 10) == 200).all()
    over = activations.patch(picture, (-9, 0, 10), 4, 10)
    assert (over[:, :5] == 128).all() and (over[:, 5:] == 0).all()


def test_what_layers_keep_is_what_the_net_keeps():
    model = memory.without_weights(net(devices("cpu") * 2, SMALL))
    def total(count):
        images = np.zeros((count, 67, 67, 3), np.float32)
        return sum(size for _, size in memory.kept(graph(
            memory.loss(model.train(), images, np.zeros(count, int)))))

    assert total(2) - total(1) == sum(need.kept for need in memory.of_model(model).values()) > 0


def test_weights_are_not_what_is_kept_for_the_backward_pass():
    x = np.ones((2, 3), np.float32)
    W, b = (Parameter(np.ones(shape, np.float32)) for shape in ((3, 4), (4,)))
    assert [size for _, size in memory.kept(graph(ops.dense(Tensor(x), W, b)))] == [x.nbytes]


def test_neighbours_are_the_nearest_of_the_others():
    codes = np.random.default_rng(0).standard_normal((300, 5)).astype(np.float32)
    codes[7] = codes[299]                              # twins, in different slices
    far = np.square(codes[:, None] - codes).sum(axis=2)
    np.fill_diagonal(far, np.inf)
    found = judged.nearest(codes)
    assert np.array_equal(found[:, 0], far.argmin(axis=1)) and found.shape == (300, 4)
    assert found[7, 0] == 299 and found[299, 0] == 7


def test_surest_hits_and_worst_mistakes_are_sorted_and_of_different_classes(loaded):
    saved, *_ = loaded
    draw = np.random.default_rng(0)
    logs = np.log(draw.dirichlet(np.ones(10), 60).astype(np.float32))
    labels = np.arange(60) % 10
    some = judged.Judged("a", saved, [], [], None, logs, labels, labels,
                         draw.random((60, 3)), draw.random((60, 3)))
    own = logs[np.arange(60), labels]
    right = logs.argmax(axis=1) == labels
    hits, mistakes = some.surest(4)
    assert right[hits].all() and not right[mistakes].any()
    assert own[hits[0]] == own[right].max() and own[mistakes[0]] == own[~right].min()
    assert len(set(labels[hits])) == len(hits) and len(set(labels[mistakes])) == 4
    assert some.confusion().sum() == 60 and some.errors()[3] == 1 - right[labels == 3].mean()
    assert some.chance() == pytest.approx(5 / 59)
    assert [share for _, share, _ in some.five_best(0)] == pytest.approx(
        -np.sort(-np.exp(logs[0]))[:5])


def test_a_net_that_says_the_same_of_every_class_is_always_wrong_here_as_well(loaded):
    """As in the top-1 error of the same page, and in test --per-class."""
    saved, *_ = loaded
    logs, labels = np.log(np.full((20, 10), 0.1, np.float32)), np.arange(20) % 10
    some = judged.Judged("a", saved, [], [], None, logs, labels, labels, np.eye(20), np.eye(20))
    assert some.result["top1_error"] == 1 and (some.errors() == 1).all()
    assert some.confusion().sum() == 20 and some.confusion().trace() == 0
    hits, mistakes = some.surest(4)
    assert len(hits) == 0 and len(mistakes) == 4


@pytest.mark.parametrize("whole", [
    lambda folder: activations.evenly(packed.data_set(folder, "val"), 5),
    lambda folder: activations.Chosen([np.ones((256, 256, 3), np.uint8)] * 5, [-1] * 5,
                                      list("abcde"), list("xyz"))], ids=["evenly", "chosen"])
def test_processes_that_read_pictures_beside_a_gpu_can_be_told_which(whole, data):
    pictures = whole(data)
    other = pickle.loads(pickle.dumps(pictures))
    assert len(other) == 5 and [other.name(i) for i in range(5)] == [
        pictures.name(i) for i in range(5)]
    assert np.array_equal(other.read(3), pictures.read(3))


def test_names_are_cut_so_that_they_still_differ():
    long = ["a" * 15 + "x" + "a" * 15, "a" * 15 + "y" + "a" * 15]
    assert list(short(["paper", "a" * 40]).values()) == ["paper", "a" * 9 + "…" + "a" * 10]
    assert list(short(long).values()) == ["1 " + "a" * 15 + "xaa", "2 " + "a" * 15 + "yaa"]
    assert {len(name) for name in short(long).values()} == {20}


def test_a_comma_parts_words_and_not_the_name_of_a_folder():
    saved = SimpleNamespace(classes=["cat,black", "n02"], words={"n02": "crane, a bird"})
    assert [activations.name_of(saved, label) for label in (0, 1)] == ["cat,black", "crane"]


@pytest.mark.parametrize("count, words", [
    (12, "12 bytes"), (999_400, "999 KB"), (999_600, "1 MB"), (1_234_000_000, "1.23 GB")])
def test_bytes_are_told_in_three_digits(count, words):
    assert as_size(count) == words
