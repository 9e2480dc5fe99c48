"""What bench says is what it measured. How fast that is, no test can know."""
import itertools
import json

import numpy as np
import pytest
from PIL import Image

import alexnet
from helpers import SMALL, net
from tinynet.device import devices
from tinynet.engine import Tensor, graph
from tinynet.layers import Conv2D
from tinynet.optim import SGD
from tinynet.pictures import dataset
from tinynet.tools import anatomy, bench, memory
from tinynet.training.recipes import RECIPES

BATCH, CLASSES = 4, 10
NET = ["--recipe", "quickstart", "--kernels", "4,8,8,8,8", "--neurons", "16,16", "--crop", "67",
       "-b", str(BATCH), "--classes", str(CLASSES), "--rounds", "3"]


@pytest.fixture(scope="module", autouse=True)
def small_ceilings():
    """A small product shows as well as a large one what is made of its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.Ceilings.__init__, "__defaults__", (128,))
        yield


@pytest.fixture(scope="module")
def work():
    recipe = RECIPES["quickstart"].changed(
        {"kernels": (4, 8, 8, 8, 8), "neurons": (16, 16), "crop": 67})
    model = alexnet.AlexNet(CLASSES, devices("cpu0,cpu1"), recipe).initialize()
    return bench.Work(model, SGD(model.parameters()), (BATCH, 67, 67, 3), CLASSES)


def test_a_gpu_replays_its_steps_after_an_inference_as_well(gpus):
    """bench takes them in turn."""
    recipe = SMALL.changed({"batch_size": BATCH})
    model = net(devices("gpu0,gpu0"), recipe)
    work = bench.Work(model, SGD(model.parameters()), (BATCH, 67, 67, 3), 5)
    for what in (work.step, work.infer) * 3:
        what()
        assert work.find_gradients.fails is False
    assert work.find_gradients.recording


@pytest.fixture(scope="module")
def result(work):
    return dict(bench.work_speed(work, rounds=3), precision="fp32")


def one_row(result, layer, op):
    row, = [row for row in result["ops"] if (row["layer"], row["op"]) == (layer, op)]
    return row


@pytest.mark.parametrize("layer, op, multiply_adds, gradients", [
    ("conv1", "conv2d", 15 * 15 * 11 * 11 * 3 * 4, 1),     # none for the image
    ("conv2", "conv2d", 7 * 7 * 5 * 5 * 4 * 8, 2),
    ("conv3", "conv2d", 3 * 3 * 3 * 3 * 16 * 8, 2),        # sees both towers
    ("conv5", "conv2d", 3 * 3 * 3 * 3 * 8 * 8, 2),
    ("fc6", "dense", 16 * 16, 2), ("fc8", "dense", 32 * CLASSES / 2, 2)])
def test_operations_are_two_a_multiply_add_of_both_towers(result, layer, op, multiply_adds,
                                                          gradients):
    row = one_row(result, layer, op)
    assert row["forward_gflop"] == pytest.approx(2 * 2 * BATCH * multiply_adds / 1e9)
    assert row["backward_gflop"] == pytest.approx(gradients * row["forward_gflop"])


def test_a_step_of_the_paper_has_the_operations_of_its_table():
    model = memory.without_weights(alexnet.AlexNet(1000, devices("cpu"), RECIPES["paper"]))
    output = model(Tensor(np.zeros((1, 227, 227, 3), np.float32)))
    forward = sum(bench.gflop(node)[0] for node in graph(output))
    assert forward == pytest.approx(2 * 724_406_816 / 1e9)


def test_every_op_has_a_row_with_its_times(result, work):
    names = {(layer, node.op) for node, layer in anatomy.layers_of(work.loss()).items()}
    assert {(row["layer"], row["op"]) for row in result["ops"]} == names | {
        ("", "update and the rest")}
    for name in ("conv1", "lrn"), ("conv2", "max_pool"), ("conv3", "conv2d"), ("fc7", "dense"):
        row = one_row(result, *name)
        assert row["forward_ms"] > 0 and row["backward_ms"] > 0
    assert sum(row["share"] for row in result["ops"]) == pytest.approx(1)


@pytest.fixture
def clock(monkeypatch):
    """A clock that ticks a second each time that somebody looks at it."""
    ticks = itertools.count()
    monkeypatch.setattr(bench.time, "perf_counter", ticks.__next__)
    return ticks


def test_the_times_of_a_step_add_up_to_the_whole_of_it(work, clock):
    rows = []
    whole = bench.timed(lambda: rows.extend(work.step_by_op()), work.devices)
    parts = sum(row["forward_ms"] + row["backward_ms"] for row in rows) / 1000
    assert parts == whole - 3            # before forward, before backward, and after it


def test_a_slow_layer_shows_in_its_row_and_nowhere_else(work, clock, monkeypatch):
    forward, layer = Conv2D.forward, work.model.top.conv4[0]

    def slow(self, x):
        if self is layer:
            list(itertools.islice(clock, 1000))
        return forward(self, x)

    monkeypatch.setattr(Conv2D, "forward", slow)
    rows = {(row["layer"], row["op"]): row["forward_ms"] for row in work.step_by_op()}
    assert rows.pop(("conv4", "conv2d")) == 1000 * (1 + 1000 + 1)     # of both towers
    assert max(rows.values()) < 1000 * 100


def test_a_measured_net_is_left_as_it_was(work):
    work.step_by_op()
    assert not any("forward" in vars(layer) for _, layer in work.model.named_layers())


def test_speeds_follow_from_the_times_and_shares_from_the_ceilings(result):
    for name in "inference_images_per_s", "step_images_per_s", "step_ms", "share_of_sgemm":
        assert 0 < result[name]["low"] <= result[name]["median"] <= result[name]["high"]
    assert result["step_images_per_s"]["median"] == pytest.approx(
        1000 * BATCH / result["step_ms"]["median"])
    assert result["step_gflop"] == pytest.approx(
        sum(row["forward_gflop"] + row["backward_gflop"] for row in result["ops"]))
    highest = result["step_gflop"] / result["step_ms"]["low"] * 1000
    highest /= result["ceilings"]["sgemm_gflops"]["low"]
    # Equal but for rounding where the quickest step and the slowest sgemm are of one round.
    assert result["share_of_sgemm"]["high"] <= highest * (1 + 1e-9)


def test_ceilings_count_what_is_computed_and_copied(work, monkeypatch):
    wide = bench.Ceilings(work.devices[0], 2 ** 15, 2 ** 15, 2 ** 14, size=64)
    assert sum(array.nbytes for array in wide.own) <= 2 ** 28
    ceilings = bench.Ceilings(work.devices[0], 100, 50, 20, size=64)
    monkeypatch.setattr(bench, "timed", lambda f, devices, repeat: (f(), 2.0)[1])
    found = ceilings.measure()
    assert found["sgemm_gflops"] == pytest.approx(2e-9 * 128 * 64 * 64 / 2)
    assert found["own_sgemm_gflops"] == pytest.approx(2e-9 * 100 * 50 * 20 / 2)
    assert found["copy_gb_per_s"] == pytest.approx(2e-9 * 4 * 2 ** 25 / 2)
    assert ceilings.target.all()                           # it was copied


def test_memory_is_measured_without_what_there_was_before_the_net(monkeypatch):
    monkeypatch.setattr(bench.machine, "in_use", lambda device: 30 * 10 ** 6)
    monkeypatch.setattr(bench.machine, "peak", lambda device: 75 * 10 ** 6)
    monkeypatch.setattr(bench, "work_speed", lambda work, rounds: {})
    recipe = SMALL.changed({"batch_size": BATCH})
    found = bench.net_speed(alexnet.AlexNet, CLASSES, devices("cpu"), recipe)
    assert found["memory"]["cpu"]["measured"] == 45 * 10 ** 6


def test_the_command_prints_a_table_and_predicted_beside_measured_memory(capsys):
    assert alexnet.main(["bench", *NET, "--device", "cpu0,cpu1"]) == 0
    out = capsys.readouterr().out
    for words in ("conv1  conv2d", "inference", "training step", "large sgemm", "large copy",
                  "on cpu; predicted:", "the step runs at"):
        assert words in out


def test_json_holds_the_same_and_where_it_was_measured(capsys):
    assert alexnet.main(["bench", *NET, "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["device"] == ["cpu", "cpu"] and found["batch_size"] == BATCH
    need = found["memory"]["cpu"]
    assert need["total"] == sum(need[name] for name in ("weights", "velocities", "gradients",
                                                        "activations", "scratch"))
    assert {"ops", "ceilings", "share_of_sgemm", "step_gflop"} <= found.keys()


def larger(value, factor=100):
    """A result of bench on a machine so many times as fast, with as many times the memory."""
    if isinstance(value, dict):
        return {key: larger(v, factor) if key != "share" else v for key, v in value.items()}
    if isinstance(value, list):
        return [larger(v, factor) for v in value]
    return value * factor if isinstance(value, float) else value


def test_what_it_prints_fits_into_80_columns(result):
    need = dict(total=12_345_678_901, measured=12_345_678_901)
    memory = dict(memory={"gpu0": need, "gpu1": dict(need, measured=None)})
    for numbers in result, larger(result):
        assert max(map(len, bench.report({**numbers, **memory}))) <= 80
    one = dict(median=23456.7, low=12345.6, high=34567.8)
    said = bench.report_input(dict(loader_pictures_per_s=one, decode_pictures_per_s=one,
                                   share=larger(one, 1e-5), workers=128))
    assert max(map(len, said)) <= 80


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for number in range(5):
        path = folder / "train" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (256, 256, 3), np.uint8)).save(path)
    (folder / "train" / "a" / "broken.jpg").write_bytes(b"no picture")
    return folder


def test_pictures_are_repeated_until_they_suffice(pictures):
    few = dataset.image_folder(pictures, "train")
    many = bench.repeated(few, 13)
    assert len(many) == len(many.labels) == 13
    assert (many.classes, many.root) == (few.classes, few.root)
    assert many.bytes(8) == few.paths[2].read_bytes() and many.labels[8] == few.labels[2]
    assert np.array_equal(many.read(6), few.read(0))


def test_input_compares_the_loader_with_a_bare_decode(pictures, capsys, monkeypatch):
    monkeypatch.setattr(bench, "repeated", lambda pictures, count, plain=bench.repeated: plain(
        pictures, min(count, 16 + 64)))                # behind the four batches that warm it up
    assert alexnet.main(["bench", "--input", str(pictures), "--json", "--rounds", "2", "-b", "4",
                         "--crop", "67", "--workers", "3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["workers"] == 3
    made, decoded, share = (found[name] for name in (
        "loader_pictures_per_s", "decode_pictures_per_s", "share"))
    assert made["low"] / decoded["high"] <= share["low"] <= share["high"]
    assert share["high"] <= made["high"] / decoded["low"]


def test_input_takes_no_device(pictures, capsys):
    assert alexnet.main(["bench", "--input", str(pictures), "--device", "cpu"]) == 1
    assert "no device does: leave out --device" in capsys.readouterr().err


def test_unreadable_pictures_are_not_counted(pictures, monkeypatch):
    broken = dataset.image_folder(pictures, "train")
    whole = dataset.Pictures(broken.root, [p for p in broken.paths if p.stem != "broken"],
                            broken.labels, broken.classes)
    monkeypatch.setattr(bench.time, "perf_counter", iter([0.0, 1.0] * 2).__next__)
    assert bench._decode_speed(broken, 2) == bench._decode_speed(whole, 1) == 5
