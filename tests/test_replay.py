"""A step that a GPU replays is the step that was recorded.

All of this runs on strict_cupy and strict_blas, and what is marked on a GPU.
"""
import gc

import numpy as np
import pytest

import strict_blas
import strict_cupy
import strict_streams
from helpers import IMAGES, LABELS, NO_GPU, net
from strict_streams import Recorded
from tinynet import Dense, Dropout, Sequential, ops, replay
from tinynet.device import Device, to_host
from tinynet.engine import Tensor
from tinynet.optim import SGD
from tinynet.replay import Recording, Replayed
from tinynet.training.options import two_devices

SAME_CARD = ["gpu0", "gpu0:a,gpu0:b"]


def teach(model, wrong=lambda loss: None):
    """The part of a step that is recorded, and a list of how often Python went through it."""
    calls = []

    def learn(labels, images):
        calls.append(len(labels))
        logits = model(images)
        loss = ops.softmax_cross_entropy(logits, labels=labels)
        for _, w in model.parameters():
            w.grad = None
        loss.backward()
        wrong(loss)
        return loss, logits

    return learn, calls


def trained(places, sizes, replayed=True, between=lambda step, model: None):
    """Train on the first so many images at each step: the numbers of every step, what was called,
    and the net."""
    towers = two_devices(places)
    model = net(towers)
    learn, calls = teach(model)
    step = Replayed(learn, model) if replayed else learn
    optimizer, seen = SGD(model.parameters(), lr=0.02), []
    for number, size in enumerate(sizes):
        between(number, model)
        model.train(number)
        rows = np.roll(np.arange(len(LABELS)), number)[:size]
        loss, logits = step(towers[0].put(LABELS[rows]), Tensor(IMAGES[rows], towers[0]))
        gradients = [to_host(w.grad) for _, w in model.parameters()]
        optimizer.step()
        seen.append([loss, logits, *gradients])
    return [[x.numpy() if isinstance(x, Tensor) else x for x in row] for row in seen], calls, model


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# --- replaying --------------------------------------------------------------------------------


@pytest.mark.parametrize("places", SAME_CARD)
def test_what_is_replayed_is_what_would_be_computed(gpus, places):
    """To the bit. Each result stays when the next one comes; dropout drops others each time."""
    sizes = [4] * 5
    expected, calls, model = trained(places, sizes, replayed=False)
    assert calls == sizes
    seen, calls, other = trained(places, sizes)
    assert calls == [4, 4, 4]              # as it is; then to compile, and to record
    for step, (row, expected_row) in enumerate(zip(seen, expected, strict=True)):
        assert same(row, expected_row), step
    for (name, w), (_, v) in zip(model.parameters(), other.parameters(), strict=True):
        assert np.array_equal(w.numpy(), v.numpy()), name
    assert [layer.step for _, layer in other.named_layers() if hasattr(layer, "place")] == [5] * 4


@pytest.mark.gpu
@NO_GPU
@pytest.mark.parametrize("places", SAME_CARD)
def test_a_gpu_replays_what_it_would_compute(places):
    for place in two_devices(places):
        place.multiply_in("fp32")
    expected, _, _ = trained(places, [4] * 6, replayed=False)
    seen, calls, _ = trained(places, [4] * 6)
    assert calls == [4, 4, 4]
    for row, expected_row in zip(seen, expected, strict=True):
        for one, other in zip(row, expected_row, strict=True):
            assert np.linalg.norm(one - other) <= 1e-3 * np.linalg.norm(other)


def test_batches_of_another_size_are_computed_as_they_are(gpus):
    sizes = [4, 4, 3, 4, 3, 3, 4]
    expected, _, _ = trained("gpu0", sizes, replayed=False)
    seen, calls, _ = trained("gpu0", sizes)
    assert calls == [4, 4, 4, 3, 3, 3]
    assert all(map(same, seen, expected))


def test_weights_that_lie_elsewhere_are_found_there(gpus):
    def between(step, model):
        if step == 3:
            model.to("gpu0")               # which copies them

    expected, _, _ = trained("gpu0", [4] * 5, replayed=False, between=between)
    seen, calls, _ = trained("gpu0", [4] * 5, between=between)
    assert calls == [4, 4, 4, 4, 4]
    assert all(map(same, seen, expected))


@pytest.mark.parametrize("places", ["cpu", "gpu0,gpu1"])
def test_on_other_devices_nothing_is_recorded(gpus, places):
    towers = two_devices(places)
    model = net(towers).train(0)
    learn, calls = teach(model)
    step = Replayed(learn, model)
    for _ in range(3):
        step(towers[0].put(LABELS), Tensor(IMAGES, towers[0]))
    assert len(calls) == 3 and not step.recording


def asks_the_host(loss):
    loss.item()


def asks_cupy_for_a_product(loss):
    with loss.device as device:
        device.xp.matmul(device.xp.zeros((2, 2), np.float32), device.xp.zeros((2, 2), np.float32))


@pytest.mark.parametrize("wrong, words", [
    (asks_the_host, "Recorded: the host waits"), (asks_cupy_for_a_product, "NotImplementedError")])
def test_what_cannot_be_recorded_is_said_once_and_computed_as_it_is(gpus, capsys, wrong, words):
    place = Device("gpu0")
    model = net((place, place)).train(0)
    learn, calls = teach(model, wrong)
    step = Replayed(learn, model)
    losses = [step(place.put(LABELS), Tensor(IMAGES, place))[0].item() for _ in range(4)]
    assert len(set(losses)) == 4           # dropout goes on counting
    said = capsys.readouterr().err
    assert said.count("a step cannot be recorded") == 1 and words in said
    assert all(layer.place is None for _, layer in model.named_layers() if hasattr(layer, "place"))


def test_a_replay_that_gives_other_numbers_is_not_used(gpus, capsys, monkeypatch):
    """Whatever is left out of it: if it makes a difference, it is noticed. Views make none."""
    expected, _, _ = trained("gpu0", [4] * 4, replayed=False)
    launch, noticed = strict_streams.Graph.launch, 0
    for left_out in range(0, 200, 15):
        def without(graph, stream, left_out=left_out):
            del graph.jobs[left_out % len(graph.jobs)]
            monkeypatch.setattr(strict_streams.Graph, "launch", launch)
            launch(graph, stream)

        monkeypatch.setattr(strict_streams.Graph, "launch", without)
        with np.errstate(all="ignore"):                # what was left out may be anything
            seen, calls, _ = trained("gpu0", [4] * 4)
        said = capsys.readouterr().err
        assert all(map(same, seen, expected)), left_out
        assert not said or "RuntimeError: its replay gives other numbers" in said
        assert len(calls) == (6 if said else 3), left_out
        noticed += bool(said)
    assert noticed > 5


def test_a_dropout_layer_that_is_used_twice_is_not_recorded(gpus, capsys):
    place = Device("gpu0")
    model = Sequential(a=Dense(6, 6), drop=Dropout(), b=Dense(6, 3)).to(place).initialize(0)

    def learn(labels, x):
        logits = model.b(model.drop(model.a(model.drop(x))))
        loss = ops.softmax_cross_entropy(logits, labels=labels)
        for _, w in model.parameters():
            w.grad = None
        loss.backward()
        return [loss]

    inputs = place.put(np.arange(5) % 3), Tensor(np.ones((5, 6), np.float32), place)
    step = Replayed(learn, model.train(0))
    seen = [step(*inputs)[0].item() for _ in range(4)]
    model.train(0)
    assert seen == [learn(*inputs)[0].item() for _ in range(4)] and model.drop.step == 8
    assert "a dropout layer is used twice" in capsys.readouterr().err


@pytest.mark.parametrize("change", [
    lambda model: model.eval(), lambda model: Device("gpu0").multiply_in("fp32"),
    lambda model: [layer.eval() for _, layer in model.named_layers() if hasattr(layer, "place")]])
def test_another_mode_or_precision_is_recorded_anew(gpus, change):
    place = Device("gpu0")
    place.multiply_in("tf32")
    model = net((place, place)).train(0)
    learn, calls = teach(model)
    step = Replayed(learn, model)
    inputs = place.put(LABELS), Tensor(IMAGES, place)
    for _ in range(4):
        step(*inputs)
    assert len(calls) == 3
    change(model)
    for _ in range(3):
        loss, _ = step(*inputs)
    assert len(calls) == 5
    steps = [layer.step for _, layer in model.named_layers() if hasattr(layer, "place")]
    model.train(steps[0] - 1)
    change(model)
    assert loss.item() == learn(*inputs)[0].item()


def test_an_input_that_wants_a_gradient_gets_it(gpus, capsys):
    place = Device("gpu0")
    model = net((place, place)).train(0)
    step = Replayed(teach(model)[0], model)
    for _ in range(3):
        image = Tensor(IMAGES, place, requires_grad=True)
        step(place.put(LABELS), image)
        assert image.grad is not None
    assert "an input wants a gradient" in capsys.readouterr().err


def test_weights_that_the_function_moves_are_said_once(gpus, capsys):
    place = Device("gpu0")
    model = net((place, place)).train(0)

    def moves(loss):
        with loss.device:
            model.fc8.b.data = model.fc8.b.data * 1

    step = Replayed(teach(model, moves)[0], model)
    for _ in range(4):
        step(place.put(LABELS), Tensor(IMAGES, place))
    assert capsys.readouterr().err.count("it gives the net other weights") == 1


def test_an_input_that_wants_a_gradient_gets_it_beside_a_recording_as_well(gpus):
    place = Device("gpu0")
    model = net((place, place)).train(0)
    learn, calls = teach(model)
    step = Replayed(learn, model)
    for _ in range(4):
        step(place.put(LABELS), Tensor(IMAGES, place))
    image = Tensor(IMAGES, place, requires_grad=True)
    step(place.put(LABELS), image)
    assert len(calls) == 4 and image.grad is not None


def test_a_net_may_go_to_the_cpu_and_back(gpus):
    model = Sequential(fc=Dense(3, 5)).initialize(0)
    learn, calls = teach(model)
    step, losses = Replayed(learn, model), []
    for where in ["gpu0"] * 4 + ["cpu"] * 3 + ["gpu0"] * 4:
        if model.fc.W.device != Device(where):
            model.to(where)
        loss, _ = step(Device(where).put(LABELS), Tensor(IMAGES[:, 0, 0], where))
        losses.append(loss.item())
    assert losses == pytest.approx([losses[0]] * 11, rel=1e-6)
    assert len(calls) == 3 + 3 + 2 and step.recording


def test_a_smaller_batch_takes_the_memory_of_the_recording_if_there_is_no_other(gpus):
    place = Device("gpu0")
    model = net((place, place)).train(0)
    learn, calls = teach(model)
    full = []

    def short(labels, image):
        if step.recording and len(labels) == 3:
            for _, layer in model.named_layers():
                if isinstance(layer, Dropout):
                    layer.step += 1
            full.append(step.recording)
            raise MemoryError
        return learn(labels, image)

    step = Replayed(short, model)
    for size in 4, 4, 4, 3, 4, 4, 4:
        step(place.put(LABELS[:size]), Tensor(IMAGES[:size], place))
    assert len(full) == 1 and full[0].inputs is None           # it has ended
    assert calls == [4, 4, 4, 3, 4, 4, 4] and step.recording
    assert {layer.step for _, layer in model.named_layers() if isinstance(layer, Dropout)} == {7}


def test_parameters_that_stand_still_have_no_gradient_in_a_replay_either(gpus):
    place = Device("gpu0")
    model = net((place, place)).train(0)
    model.top.conv1[0].W.requires_grad = False
    learn, calls = teach(model)
    step = Replayed(learn, model)
    for _ in range(4):
        step(place.put(LABELS), Tensor(IMAGES, place))
    assert len(calls) == 3 and model.top.conv1[0].W.grad is None
    assert model.bottom.conv1[0].W.grad is not None


@pytest.mark.gpu
@NO_GPU
def test_a_recording_gives_its_memory_back_when_it_ends():
    place = Device("gpu0")
    with place:
        pool = place.xp.get_default_memory_pool()

        def used():
            gc.collect()
            pool.free_all_blocks()
            return place.xp.cuda.runtime.memGetInfo()[0]

        trained("gpu0", [4] * 3)           # what CUDA keeps for itself
        before = used()
        for _ in range(3):
            trained("gpu0", [4] * 3)
        assert abs(used() - before) < 4 << 20


def test_without_memory_for_it_nothing_is_recorded(gpus, capsys, monkeypatch):
    def pool(allocate):
        allocate(5), allocate(7)
        return strict_cupy.SimpleNamespace(malloc=allocate, total_bytes=lambda: 7,
                                           free_all_blocks=lambda: freed.append(1))

    freed = []

    monkeypatch.setattr(strict_cupy.Cupy.cuda, "MemoryPool", pool)
    trained("gpu0", [4, 4, 4])
    assert "MemoryError: the card has too little left" in capsys.readouterr().err
    assert freed


def test_without_memory_for_another_batch_nothing_is_recorded(gpus, capsys, monkeypatch):
    def copy(x):
        raise MemoryError("no room")

    monkeypatch.setattr(replay, "_copy", copy)
    expected, _, _ = trained("gpu0", [4] * 3, replayed=False)
    seen, calls, _ = trained("gpu0", [4] * 3)
    assert calls == [4, 4, 4] and all(map(same, seen, expected))
    assert capsys.readouterr().err.count("(MemoryError: no room)") == 1


def test_what_the_first_time_took_is_free_before_the_second(gpus, monkeypatch):
    """Else a card would need room for two steps, of which `memory` knows nothing."""
    seen, begin = [], strict_cupy.Stream.begin_capture

    def free_all_blocks():
        seen.append("free")

    def begin_capture(stream):
        seen.append("record")
        begin(stream)

    monkeypatch.setattr(strict_cupy.Cupy, "get_default_memory_pool", lambda self:
                        strict_cupy.SimpleNamespace(free_all_blocks=free_all_blocks))
    monkeypatch.setattr(strict_cupy.Stream, "begin_capture", begin_capture)
    trained("gpu0", [4] * 3)
    assert seen == ["free", "record", "free"]


def test_an_error_of_the_function_is_raised_and_the_card_records_no_more(gpus):
    place = Device("gpu0")
    model = net((place, place)).train(0)

    def broken(loss):
        raise KeyboardInterrupt

    inputs = place.put(LABELS), Tensor(IMAGES, place)
    with pytest.raises(KeyboardInterrupt):
        Recording(model, inputs).record(teach(model, broken)[0], inputs)
    with place:
        assert place.xp.zeros(3, np.float32).get().tolist() == [0, 0, 0]


def test_a_card_that_records_does_not_compute(gpus):
    """Of the stand-in: whoever reads what is recorded, and was not replayed, finds no numbers."""
    with Device("gpu0") as device:
        xp = device.xp
        x, stream = xp.zeros(3, np.float32), xp.cuda.Stream(non_blocking=True)
        with stream, xp.cuda.using_allocator(None):
            stream.begin_capture()
            y = x + 1
            with pytest.raises(Recorded):
                y.get()
            graph = stream.end_capture()
        assert np.isnan(y.get()).all()
        x.fill(2)
        graph.launch(xp.cuda.get_current_stream())
        assert y.get().tolist() == [3, 3, 3]


def test_while_nothing_is_recorded_cupy_multiplies(gpus):
    strict_blas.asked.clear()
    trained("gpu0", [4])
    assert strict_blas.asked == []
