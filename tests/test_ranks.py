"""Several ranks train the net that one trains, to the bit."""
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest

import ranks as predictions
from alexnet import build
from helpers import IMAGES, LABELS, SMALL
from tinynet import SGD, Device, Tensor, UserError, cores, ops, store
from tinynet.device import devices, gpu_count, to_host
from tinynet.mpi import Mpi, Nccl
from tinynet.pictures import upload
from tinynet.pictures.batches import Loader
from tinynet.ranks import ALONE, Pretended, Ranks
from tinynet.split import _every_class, _every_neuron, _every_row
from tinynet.tools import anatomy, memory
from tinynet.training.recipes import RECIPES
from tinynet.training.saved import Saved
from tinynet.training.weights import copy_weights
from together import Thread, together

SIZES = 2, 4, 8


def trained(ranks, recipe=SMALL, counts=(9, 5, 9), classes=5, missing=(), device="cpu"):
    """Three steps on so many pictures, of which some are missing: the loss of each step, and
    the weights and velocities with all their columns (of rank 0)."""
    model = build(classes, [Device(device)] * 2, recipe, ranks).initialize(1)
    optimizer, losses = SGD(model, 0.05), []
    for step, count in enumerate(counts):
        whole = np.array([i not in missing for i in range(count)])
        lanes = [int(whole[i:j].sum()) for i, j in zip(
            cores.edges(count)[:-1], cores.edges(count)[1:], strict=True)]
        own = ranks.own(count)
        with ranks.batch(lanes):
            model.train(step)
            logits = model(Tensor(IMAGES[:count][own][whole[own]], device))
            labels = logits.device.put(LABELS[:count][whole] % classes)
            loss = ops.softmax_cross_entropy(logits, labels=labels)
            optimizer.zero_grad()
            loss.backward()
            ranks.sum_gradients(model)
            optimizer.step()
        losses.append(loss.item())
    return losses, {name + kind: ranks.whole(w, to_host(array)) for name, w in model.parameters()
                    for kind, array in (("", w.data), (" v", optimizer.velocity[name]))}


def same(one, other):
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("how", [
    dict(), dict(counts=(1, 2, 9)), dict(counts=(9, 9), missing=(0, 4)), dict(classes=2),
    dict(counts=(9, 3), missing=(1, 2)),
    dict(recipe=SMALL.changed(dict(towers=1))), dict(recipe=SMALL.changed(dict(conv6=True))),
    dict(recipe=SMALL.changed(dict(neurons=(7, 5)))),
    dict(recipe=SMALL.changed(dict(dropout_kind="inverted", conv="im2col")))],
    ids=lambda how: ", ".join(map(str, how)) or "as it is")
def test_the_same_bits(how):
    losses, weights = trained(ALONE, **how)
    assert len(set(losses)) == len(losses)
    for size in SIZES:
        seen, *others = together(size, lambda ranks: trained(ranks, **how))
        assert seen[0] == losses and same(seen[1], weights), size
        assert all(other[0] == losses for other in others)


class WithNccl(Thread):
    """Each thread has a card of the stand-in for CuPy, and they talk by its NCCL."""

    def exchange(self, parts, shapes):
        if not hasattr(self, "nccl"):
            self.nccl = Nccl(self, Device("gpu0"))
        self.sent += sum(part.nbytes for i, part in enumerate(parts) if i != self.rank)
        return self.nccl.exchange(parts, shapes)


def test_cards_talk_by_nccl_and_learn_the_same(gpus):
    losses, weights = trained(ALONE, device="gpu0")
    for size in 2, 4:
        gpus.clear()
        seen, *others = together(size, lambda ranks: trained(ranks, device="gpu0"), kind=WithNccl)
        assert seen[0] == pytest.approx(losses, rel=1e-4)
        assert all(np.allclose(seen[1][name], weights[name], atol=1e-5) for name in weights)
        assert all(other[0] == seen[0] for other in others)
        # Between forward pass and update nothing goes by way of the host but images and labels,
        # masks, and the loss that is read.
        largest = max((copy.bytes for copy in gpus if copy.target == "host"), default=0)
        assert largest < 9 * 4 * 6 * 6 * 16


@pytest.mark.parametrize("size", [2, 4])
def test_the_gradients_of_what_ranks_hand_on(size):
    """gradcheck would ask one rank; the sum of all ranks' losses has the same gradient."""
    draw = np.random.default_rng(0).standard_normal
    x, up = draw((8, 6)), draw((8, 6))

    def job(ranks):
        rows, columns = ranks.shares(8), ranks.shares(6)
        own, mine = ranks.own(8), ranks.own(6)
        found = []
        for op, part, how in ((_every_row, x[own], dict(rows=rows)),
                              (_every_neuron, x[:, mine], dict(counts=columns))):
            part = Tensor(part, requires_grad=True)
            y = op(part, ranks=ranks, **how)
            assert np.array_equal(y, x)
            (y * Tensor(up) * (ranks.rank + 1)).sum().backward()
            found.append(part.grad)
        last = Tensor(x[:, mine], requires_grad=True)
        (_every_class(last, ranks=ranks, count=6) * Tensor(up)).sum().backward()
        return own, mine, *found, last.grad

    share = size * (size + 1) / 2              # of the losses, in all
    for own, mine, of_rows, of_columns, of_classes in together(size, job):
        assert np.allclose(of_rows, share * up[own])
        assert np.allclose(of_columns, share * up[:, mine])
        assert np.array_equal(of_classes, up[:, mine])


@pytest.mark.parametrize("towers", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_bytes_and_memory_are_as_predicted(size, towers):
    """The formula: activations of all pictures to all others and their gradients back, logits
    once, and twice the gradients of the convolutions."""
    recipe = SMALL.changed(dict(towers=towers))
    part = build(8, [Device("cpu")] * 2, recipe, Pretended(size)).initialize(1)
    rows = anatomy.sent_by_rank(part, 16)
    maps = 2 * recipe.kernels[-1] * 1
    floats = 16 / size * (size - 1) * (2 * maps + 2 * 32 + 2 * 32 + 8)
    shared = sum(w.data.size for _, w in part.parameters() if w.part is None)
    assert sum(forward + backward for _, forward, backward in rows) == pytest.approx(
        4 * (floats + 2 * (size - 1) / size * shared))

    def sent(ranks):
        model = build(8, [Device("cpu")] * 2, recipe, ranks).initialize(1)
        images = np.zeros((16, 67, 67, 3), np.float32)[ranks.own(16)]
        with ranks.batch([2] * 8):
            loss = ops.softmax_cross_entropy(model(Tensor(images)), labels=np.arange(16) % 8)
            loss.backward()
            ranks.sum_gradients(model)
        return ranks.sent

    for measured in together(size, sent):
        assert measured == pytest.approx(4 * (floats + 2 * (size - 1) / size * shared), rel=0.01)


def test_what_is_predicted_of_many_machines_is_what_the_net_sends():
    net = predictions.Net()
    for size in SIZES:
        part = memory.without_weights(build(1000, [Device("cpu")] * 2, RECIPES["paper"],
                                            Pretended(size)))
        sent = sum(forward + backward for _, forward, backward in anatomy.sent_by_rank(part, 128))
        assert net.ours(size, 128) == pytest.approx(sent, rel=1e-6)
    assert net.by_pictures(2, 128) == 4 * 60_965_224


@pytest.mark.parametrize("size", SIZES)
def test_a_rank_is_told_what_it_would_send_if_all_layers_were_split_by_pictures(size):
    """Gradients of all parameters, summed in a ring: size - 1 parts of them, and once more."""
    part = memory.without_weights(build(1000, [Device("cpu")] * 2, RECIPES["paper"],
                                        Pretended(size)))
    *_, last = anatomy.lines_of_ranks(part, 128)
    sent = 2 * (size - 1) / size * 4 * 60_965_224
    assert last.endswith(f"(all layers split by pictures: {sent / 1e6:,.1f})")


def test_dense_weights_fall_with_the_number_of_ranks():
    of = {}
    for size in 1, *SIZES:
        model = memory.without_weights(build(1000, [Device("cpu")] * 2, RECIPES["paper"],
                                             Pretended(size)))
        of[size], = memory.of_model(model).values()
    for size in SIZES:
        assert of[size].weights == of[size].velocities == of[size].gradients == 4 * (
            2_334_080 + 58_631_144 // size)
        assert of[size].kept < 1.5 * of[1].kept / size
        alike = of[size].work - of[1].work         # gradients of all ranks, and their sum
        assert alike == 3 * 4 * 2_334_080


class OfTwo(Mpi):
    """Rank 1 of two on one host, the other of which says the same as this one."""

    def __init__(self):
        Ranks.__init__(self)
        self.rank, self.size, self.host, self.local = 1, 2, "here", 1

    def everywhere(self, value):
        return [value, value]


@pytest.mark.parametrize("names, said", [
    ("gpu0", "two ranks on here cannot share a card"), ("cpu0,cpu1", "each has one device")])
def test_a_rank_has_a_device_of_its_own(gpus, names, said):
    with pytest.raises(UserError, match=said):
        OfTwo().device(names)


def test_arrays_of_cards_go_by_nccl(gpus):
    ranks, card = OfTwo(), Device("gpu0")
    ranks.by_nccl = SimpleNamespace(exchange=lambda parts, shapes: "by NCCL")
    parts = [card.put(np.ones(3, np.float32))] * 2
    assert ranks.exchange(parts, [(3,)] * 2) == "by NCCL" and ranks.sent == 12


class BesideAnother(OfTwo):
    """The other of the two is on another host, and says what it says."""

    def __init__(self, *says):
        super().__init__()
        self.local, self.says = 0, list(says)

    def everywhere(self, value):
        return [self.says.pop(0), value]


def test_ranks_of_which_some_have_no_card_are_refused(gpus):
    with pytest.raises(UserError, match=r"others none \(cpu on there, gpu0 on here\): give "
                                        "--device cpu"):
        BesideAnother(("there", "cpu", "")).device(None)


def test_a_rank_without_a_card_refuses_the_others(monkeypatch):
    monkeypatch.setattr("tinynet.mpi.gpu_count", lambda: 0)
    with pytest.raises(UserError, match=r"others none \(gpu0 on there, cpu on here\)"):
        BesideAnother(("there", "gpu0", "0000:01:00.0")).device(None)


def test_if_one_rank_lacks_nccl_none_uses_it(gpus, capsys):
    ranks = BesideAnother(("there", "gpu0", "0000:01:00.0"), ("there", "no libnccl.so"))
    assert ranks.device(None).is_gpu and not ranks.by_nccl
    assert "NCCL does not load (on there: no libnccl.so)" in capsys.readouterr().err


def test_a_card_that_was_asked_for_and_is_not_there_is_an_error():
    if gpu_count():
        pytest.skip("there are cards here")
    with pytest.raises(UserError, match="gpu0: GPUs need CuPy"):
        OfTwo().device("gpu")


@pytest.mark.parametrize("names", [None, "gpu", "gpu0"])
def test_a_rank_that_sees_only_its_own_card_takes_it(gpus, monkeypatch, names):
    """As Slurm's --gpus-per-task has it: each calls its card gpu0."""
    monkeypatch.setattr("tinynet.mpi.gpu_count", lambda: 1)
    ranks = BesideAnother(("here", "gpu0", "0000:09:00.0"), ("here", "no libnccl.so"))
    ranks.local = 1
    assert ranks.device(names) == Device("gpu0")


def test_two_names_of_one_card_are_one_card(gpus):
    with pytest.raises(UserError, match="two ranks on here cannot share a card"):
        BesideAnother(("here", "gpu0:a", Device("gpu0").cuda.pci_bus_id)).device("gpu0:b")
    assert BesideAnother(("there", "gpu0:a", Device("gpu0").cuda.pci_bus_id),
                         ("there", "no libnccl.so")).device("gpu0:b") == Device("gpu0:b")


def test_more_ranks_than_cards_is_an_error(gpus):
    ranks = BesideAnother(("here", "gpu0", Device("gpu0").cuda.pci_bus_id))
    ranks.local = 2                                    # of two cards it would be the third
    with pytest.raises(UserError, match="--device gpu0: two ranks on here cannot share a card.* "
                                        "no more of them than there are cards"):
        ranks.device(None)


def test_each_rank_starts_from_its_own_columns_of_another_net(tmp_path):
    other = build(5, [Device("cpu")] * 2, SMALL).initialize(7)
    saved = Saved(recipe=asdict(SMALL), classes=list("abcde"))
    store.save(tmp_path / "other.npz", {f"weights/{name}": w.numpy()
                                        for name, w in other.parameters()}, asdict(saved))

    def started(ranks):
        model = build(5, [Device("cpu")] * 2, SMALL, ranks).initialize(1)
        copy_weights(tmp_path / "other.npz", model, list("abcde"), SMALL)
        return {name: ranks.whole(w, w.data) for name, w in model.parameters()}

    seen, *_ = together(2, started)
    assert all(np.array_equal(seen[name], w.numpy()) for name, w in other.parameters())


@pytest.mark.parametrize("size, batch, room", [(1, 10, 10), (2, 10, 8), (8, 16, 2), (4, 3, 2)])
def test_a_card_has_room_for_the_pictures_of_its_rank(gpus, monkeypatch, size, batch, room):
    rooms = []
    monkeypatch.setattr(upload, "Gpu", lambda *how: rooms.append(how[4]))
    for rank in range(size):
        ranks = Pretended(size, rank)
        Loader([], None, batch, devices=devices("gpu0"), ranks=ranks)
        assert rooms.pop() == room >= len(range(batch)[ranks.own(batch)])


def test_all_ranks_see_the_same_pictures():
    class Pictures(list):
        classes = ["a", "b"]
        labels = property(np.array)

    ranks = OfTwo()
    ranks.hosts = ["there", "here"]
    ranks.compare("DIR", Pictures([0, 1]), Pictures([1]))
    answers = []
    ranks.everywhere = lambda value: [*answers, value]
    answers.append([(2, 2, "another order"), (1, 2, "the same")])
    with pytest.raises(UserError, match="DIR: rank 1 on here sees 2 pictures of 2 classes and 1 "
                                        "pictures of 2 classes, rank 0 on there 2 pictures"):
        ranks.compare("DIR", Pictures([0, 1]), Pictures([1]))


def test_who_has_seen_no_picture_does_not_count():
    """Not even as a zero: -0.0 + 0.0 is 0.0."""
    def job(ranks):
        w = SimpleNamespace(part=None, device=Device("cpu"),
                            grad=np.full(3, 0.0 if ranks.rank else -0.0, np.float32))
        ranks.rows = [1, 0]
        ranks.sum_gradients(SimpleNamespace(parameters=lambda: [("w", w)]))
        return np.signbit(w.grad).all()

    assert together(2, job) == [True, True]
