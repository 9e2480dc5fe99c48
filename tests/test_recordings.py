"""What makes a recorded step another one, or takes its memory."""
import numpy as np
import pytest

import alexnet
from command_line import SMALL
from helpers import IMAGES, LABELS
from tinynet import Dense, Sequential, Tensor, ops
from tinynet.device import Device
from tinynet.replay import Recording, Replayed


def recorded():
    """A net on gpu0; its step, after it has been recorded; and what takes one: its loss."""
    model = Sequential(a=Dense(3, 6), b=Dense(6, 5)).initialize(0).to("gpu0")

    def learn(labels, x):
        loss = ops.softmax_cross_entropy(model(x), labels=labels)
        for _, w in model.parameters():
            w.grad = None
        loss.backward()
        return [loss]

    step, place = Replayed(learn, model), Device("gpu0")

    def take(numbers=IMAGES[:, 0, 0]):
        [loss] = step(place.put(LABELS), Tensor(numbers, place))
        return loss.item()

    for _ in range(3):
        take()
    assert step.recording
    return model, step, take


def test_a_layer_in_the_place_of_another_learns(gpus):
    model, step, take = recorded()
    model.b = Sequential(b=Dense(6, 5)).initialize(1).to("gpu0").b
    before = take()
    assert model.b.W.grad is not None
    assert take() == take() == before and step.recording


def test_what_stands_still_since_gets_no_gradient_and_what_does_no_more_gets_one(gpus):
    model, _, take = recorded()
    model.a.W.requires_grad = False
    take()
    assert model.a.W.grad is None and model.b.W.grad is not None
    model.a.W.requires_grad = True
    take()
    assert model.a.W.grad is not None


def test_numbers_of_another_width_are_not_cast(gpus):
    _, _, take = recorded()
    with pytest.raises(TypeError):
        take(IMAGES[:, 0, 0].astype(np.float64))


def test_what_is_done_beside_a_recording_takes_its_memory_if_there_is_no_other(gpus):
    _, step, take = recorded()
    calls = []

    def evaluate(what, how):
        calls.append(what)
        if step.recording:
            raise MemoryError
        return how

    assert step.beside(evaluate, 1, how=2) == 2 and calls == [1, 1]
    take()
    assert take() == take() and step.recording


def test_a_validation_that_has_no_memory_beside_the_step_is_no_end(
        gpus, data, tmp_path, run, monkeypatch):
    plain, record, made = alexnet.evaluate, Recording.record, []

    def noted(recording, *how):
        made.append(recording)
        record(recording, *how)

    def evaluate(*args, **how):
        if any(recording.inputs for recording in made):            # it has not ended
            raise MemoryError
        return plain(*args, **how)

    monkeypatch.setattr(Recording, "record", noted)
    monkeypatch.setattr(alexnet, "evaluate", evaluate)
    done = run("train", data, *SMALL[:-2], "--device", "gpu0", "--output-dir", tmp_path / "run")
    assert done.code == 0 and made, done.err


def test_a_stall_is_looked_into_on_a_gpu(gpus, data, tmp_path, run):
    done = run("train", data, *SMALL[:-2], "--device", "gpu0", "--lr", 0, "--stall-steps", 3,
               "--output-dir", tmp_path / "run")
    assert done.code == 0, done.err
    assert "conv1" in done.out and "--lr" in done.out
