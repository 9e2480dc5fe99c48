"""Batches that a GPU makes of bytes: are they, to the bit, those of the host? And who waits for
whom?

On the stand-in a copy in a stream of its own is made as late as it may be (strict_streams.py). So
a wait that is left out shows in the numbers, or is refused.
"""
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import alexnet
import strict_cupy
import strict_streams
from helpers import GPUS, NO_GPU, ROOT, SMALL, net
from tinynet import ops
from tinynet.device import devices, to_host
from tinynet.errors import UserError
from tinynet.pictures import images, readers, upload
from tinynet.pictures.batches import Loader
from tinynet.pictures.dataset import DataSet
from tinynet.tools.anatomy import crossings
from tinynet.training.recipes import RECIPES

COUNT = 25
BESIDE_A_GPU = readers.beside_a_gpu    # before a fixture puts another in its place


class Noise(DataSet):
    """Pictures of noise in memory. Those of `broken` cannot be read."""

    root, shuffled, classes, statistics = "noise", False, ["one"], None

    def __init__(self, broken=()):
        self.broken, self.labels = broken, np.arange(COUNT) % 3
        self.pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 256, 256, 3), np.uint8)

    def read(self, index):
        if index in self.broken:
            raise images.broken(f"picture {index}", "it is not there")
        return self.pixels[index]


def about():
    draw = np.random.default_rng(1)
    axes, _ = np.linalg.qr(draw.standard_normal((3, 3)))
    return images.Statistics(draw.uniform(80, 150, (256, 256, 3)).astype(np.float32),
                             np.array([3.0, 90.0, 2000.0]), axes)


def loader(device, recipe="paper", broken=(), crop=67, **changes):
    prepare = images.Preparation(RECIPES[recipe].changed({"crop": crop, **changes}), about(), 5)
    return Loader(Noise(broken), prepare, 4, 2, devices(device))


def equal(ours, theirs):
    """Whether two loaders give the same batches, to the bit. How many there were."""
    count = 0
    for one, other in zip(ours, theirs, strict=True):
        for images_there in one.images, *one.twins.values():
            np.testing.assert_array_equal(to_host(images_there), other.images, strict=True)
        np.testing.assert_array_equal(one.labels, other.labels)
        assert one.end == other.end
        count += 1
    return count


@pytest.mark.parametrize("recipe, changes", [
    ("paper", dict(crop=227)), ("2012", {}), ("quickstart", {}), ("paper", dict(crop=256)),
    ("caffe", dict(mean="centre")), ("2012", dict(pixel_scale=1 / 64, epochs=4)),
    ("paper", dict(area=0.2))])
def test_the_batches_of_a_gpu_are_those_of_the_host(gpus, recipe, changes):
    same_batches(recipe, changes)


@pytest.mark.gpu
@NO_GPU
@pytest.mark.parametrize("places", ["gpu0", pytest.param("gpu0,gpu1", marks=[
    pytest.mark.two_gpus, pytest.mark.skipif(GPUS < 2, reason="needs two GPUs")])])
@pytest.mark.parametrize("recipe", ["paper", "2012"])
def test_they_are_on_a_gpu_as_well(recipe, places):
    same_batches(recipe, {}, places)


def same_batches(recipe, changes, places="gpu0"):
    ours, theirs = (loader(place, recipe, **changes) for place in (places, "cpu"))
    for epoch in 0, 3:                                 # the last has no colour noise in some
        assert equal(ours.training(epoch), theirs.training(epoch)) == 7
    assert equal(ours.training(1, start=9), theirs.training(1, start=9)) == 4
    assert equal(ours.testing(), theirs.testing()) == 7
    assert equal(ours.testing(views=10), theirs.testing(views=10)) == 7


@pytest.mark.parametrize("places, twins", [
    ("gpu0,gpu1", ["gpu1"]), ("gpu1,gpu0", ["gpu0"]), ("gpu0:a,gpu1:b", ["gpu1:b"]),
    ("gpu0:a,gpu0:b", []), ("gpu0,gpu0", []), ("gpu0,cpu", []), ("cpu,gpu0", [])])
def test_two_cards_cut_the_same_crops_each_of_the_bytes_that_it_fetches(gpus, places, twins):
    ours, theirs = (loader(place, "2012", broken={3, 7}) for place in (places, "cpu"))
    first = places.partition(",")[0].partition(":")[0]
    for job in (lambda it: it.training(0)), (lambda it: it.testing(views=10)):
        gpus.clear()
        for one, other in zip(job(ours), job(theirs), strict=True):
            assert [str(device) for device in one.twins] == twins
            for device, twin in one.twins.items():
                assert twin.device == device.cuda
                np.testing.assert_array_equal(to_host(twin), other.images, strict=True)
            np.testing.assert_array_equal(to_host(one.images), other.images, strict=True)
            tensors = one.tensors(devices(places)[0])
            assert [str(t.device) for t in tensors] == [places.partition(",")[0], *twins]
        fetched = [copy.target for copy in gpus if copy.source == "host"]
        cards = [] if first == "cpu" else [first, *(name.partition(":")[0] for name in twins)]
        assert set(fetched) - {first} == set(cards) - {first}
        assert all(copy.source in ("host", copy.target) or copy.target == "host" for copy in gpus)


def test_a_net_on_two_cards_gets_its_twin_and_copies_no_image(gpus):
    recipe = SMALL.changed({"crop": 67})
    two, one = net(devices("gpu0,gpu1"), recipe), net(devices("cpu,cpu"), recipe)
    batches = [next(iter(loader(place, "paper", crop=67).training(0)))
               for place in ("gpu0,gpu1", "cpu")]
    gpus.clear()
    loss = ops.softmax_cross_entropy(two(*batches[0].tensors(two.devices[0])),
                                     labels=batches[0].labels)
    assert len(crossings(loss)) == 7
    loss.backward()
    assert loss.item() == pytest.approx(ops.softmax_cross_entropy(
        one(*batches[1].tensors("cpu")), labels=batches[1].labels).item(), rel=1e-5)
    between = [copy for copy in gpus if {copy.source, copy.target} == {"gpu0", "gpu1"}]
    assert len(between) == 2 * 7                       # the crossings and their mirrors
    assert max(copy.bytes for copy in between) < batches[0].images.nbytes / 10


def test_the_host_waits_for_both_cards_before_it_writes_to_a_slot(gpus, monkeypatch):
    """The second card may be late with a batch that the first has long since fetched."""
    ours = loader("gpu0,gpu1")
    _, late = ours.maker.cards
    batches, waited = ours.training(0), []
    [next(batches) for _ in range(2)]                  # and two more in the making: all slots
    monkeypatch.setattr(late.rooms[0].copied, "synchronize", lambda: waited.append(1))
    next(batches)
    assert len(waited) == 1


@pytest.mark.parametrize("between, seconds", [(250.0, 0.25), (-3.0, 0)])
def test_a_card_says_how_long_it_had_no_pictures(gpus, monkeypatch, between, seconds):
    """What came before it was needed was not waited for."""
    began = []
    def elapsed(start, end):
        strict_streams.elapsed(start, end), began.append(start)
        return between

    monkeypatch.setattr(sys.modules["cupy"].cuda, "get_elapsed_time", elapsed)
    ours = loader("gpu0,gpu1")
    first, second = (list(ours.training(epoch)) for epoch in (0, 1))
    assert sum(batch.waited for batch in first + second) == pytest.approx(seconds * len(began))
    assert len(first) <= len(set(began)) == len(began) <= len(first + second)


def test_what_a_card_waited_is_what_reading_took(gpus, monkeypatch):
    """But for the first batch, at which readers begin. None is read before it is asked for."""
    plain = Noise.read
    monkeypatch.setattr(Noise, "read", lambda self, index: time.sleep(0.02) or plain(self, index))
    ours = loader("gpu0")
    ours.ahead = 0
    first, *waits = [batch.waited for epoch in range(2) for batch in ours.training(epoch)]
    assert first == 0 and 0.04 < np.median(waits) < 1  # four pictures take 0.08 seconds


def test_pictures_that_cannot_be_read_are_left_out_there_as_well(gpus, capsys):
    broken = {0, 5, 6, 7, 8, 9, 10, 11, 24}            # two batches of a test have none at all
    ours, theirs = (loader(device, broken=broken) for device in ("gpu0", "cpu"))
    assert equal(ours.training(0), theirs.training(0)) >= 5
    assert equal(ours.testing(), theirs.testing()) == 5
    assert equal(ours.testing(views=10), theirs.testing(views=10)) == 5
    assert ours.skipped == theirs.skipped and set(ours.skipped) == broken


@pytest.fixture
def processes(gpus, monkeypatch):
    """Let processes read, as they do beside a GPU that is there."""
    monkeypatch.setattr(readers, "beside_a_gpu", BESIDE_A_GPU)


def children():
    """The processes that this one has started and that live."""
    return {pid for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
            if state(pid)[1:2] == [str(os.getpid())]}


def state(pid):
    """Its state and its parent, as words; [] of a process that has ended. One that nobody has
    asked how it ended, as of an orphan in a container, has ended."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [] if words[0] == "Z" else words[:2]


def test_processes_read_the_same_and_go_when_their_loader_goes(processes, capsys):
    before = children()
    ours, theirs = (loader(device, broken={3, 7}) for device in ("gpu0", "cpu"))
    for first in range(3):
        next(iter(ours.training(first)))               # epochs that are left half-way
    assert equal(ours.training(3), theirs.training(3)) == 7
    assert equal(ours.testing(views=10), theirs.testing(views=10)) == 7
    assert capsys.readouterr().err.count("skipped: picture 7: not a readable picture") == 2
    assert len(children() - before) >= 2
    del ours
    gc.collect()
    end = time.monotonic() + 20
    while len(children() - before) > 1 and time.monotonic() < end:
        time.sleep(0.05)
    assert len(children() - before) <= 1               # the one that keeps track of semaphores


def test_a_reader_that_is_killed_is_a_clean_error(processes):
    before, ours = children(), loader("gpu0")
    batches = iter(ours.training(0))
    next(batches)
    for child in children() - before:
        if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
            os.kill(child, signal.SIGKILL)
    with pytest.raises(UserError, match="a process that reads pictures has ended.*--workers"):
        list(batches)


def test_readers_end_with_their_parent(tmp_path):
    """Also with one that was killed."""
    script = tmp_path / "parent.py"
    script.write_text(f"""
import os, pickle, sys
sys.path[:0] = {[str(ROOT), str(ROOT / "tests")]}
if __name__ == "__main__":
    import test_upload
    from tinynet.pictures import readers
    memory = readers.shared(4 * 256 * 256 * 3)
    reading = readers.beside_a_gpu(test_upload.Noise(), [memory], 2)
    assert readers.results(reading.read(0, [1, 2])) == [None, None]
    print(*reading.pool._processes, flush=True)
    os.kill(os.getpid(), 9)
""")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    readers_then, end = done.stdout.split(), time.monotonic() + 20
    assert len(readers_then) >= 1
    while any(map(state, readers_then)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(state, readers_then))


PROGRAM = f"""
import sys
sys.path[:0] = {[str(ROOT), str(ROOT / "tests")]}
import test_upload
from tinynet.pictures import readers
class Own(test_upload.Noise):
    pass
reading = readers.beside_a_gpu(Own(), [readers.shared(4 * 256 * 256 * 3)], 2)
print(readers.results(reading.read(0, [1, 2])))
"""


def test_a_program_that_other_processes_cannot_import_ends_and_says_why(tmp_path):
    """Its data set is larger than a pipe: who sent it to a process that had ended waited for ever,
    and heard no Ctrl-C."""
    script = tmp_path / "unguarded.py"
    script.write_text(PROGRAM)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "if __name__ == '__main__':" in done.stderr
    assert "what it said stands above" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("how", [["-c", PROGRAM], ["-"]])
def test_what_a_program_without_a_file_defines_is_read_by_threads(how):
    done = subprocess.run([sys.executable, *how], input=PROGRAM, capture_output=True, text=True,
                          timeout=60)
    assert done.stdout == "[None, None]\n", done.stderr
    assert "a Own cannot be sent to other processes" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_what_a_terminal_says_to_all_its_processes_ends_no_reader(processes, number):
    before, ours, theirs = children(), loader("gpu0"), loader("cpu")
    batches = iter(ours.training(0))
    first = next(batches)
    for child in children() - before:
        os.kill(child, number)
    assert equal([first, *batches], theirs.training(0)) == 7


def test_a_picture_of_another_kind_is_refused(gpus):
    ours = loader("gpu0")
    ours.pictures.pixels = ours.pictures.pixels / np.float32(255)
    with pytest.raises(TypeError, match=r"Noise.read.*float32 \(256, 256, 3\), not uint8"):
        next(ours.training(0))


def test_memory_that_cannot_be_locked_is_copied_all_the_same(gpus, monkeypatch, capsys):
    def refuse(*args):
        raise RuntimeError("cudaErrorNotSupported")

    monkeypatch.setattr(sys.modules["cupy"].cuda.runtime, "hostRegister", refuse)
    ours, theirs = loader("gpu0"), loader("cpu")
    assert equal(ours.training(0), theirs.training(0)) == 7
    assert capsys.readouterr().err.count("the system locks no more memory") == 1


def test_what_cannot_be_sent_to_a_process_is_read_by_threads(processes, capsys):
    class Local(Noise):                                # no other process can import it
        pass

    ours, theirs = loader("gpu0"), loader("cpu")
    ours.pictures = ours.maker.pictures = Local()
    assert equal(ours.training(0), theirs.training(0)) == 7
    assert "a Local cannot be sent to other processes" in capsys.readouterr().err


def test_an_epoch_that_was_left_does_not_spoil_the_next(gpus):
    ours, theirs = loader("gpu0"), loader("cpu")
    for first in range(3):
        next(iter(ours.training(first)))
    assert equal(ours.training(3), theirs.training(3)) == 7


def test_who_leaves_an_epoch_waits_until_nobody_writes(gpus, monkeypatch):
    read, done, go = Noise.read, [], threading.Event()
    ours = loader("gpu0")
    first = ours.prepare.order(ours.pictures, 0)[:4]

    def slow(self, index):                             # all but the first batch
        if index not in first:
            go.wait()
        done.append(index)
        return read(self, index)

    monkeypatch.setattr(Noise, "read", slow)
    batches = ours.training(0)
    next(batches)
    threading.Timer(0.1, go.set).start()
    batches.close()
    before = len(done)
    time.sleep(0.3)
    assert len(done) == before


def test_memory_is_page_locked_as_long_as_its_loader_lives(gpus, monkeypatch):
    locked, runtime = [], strict_cupy.Cupy.cuda.runtime
    monkeypatch.setattr(runtime, "hostRegister", lambda address, *_: locked.append(address))
    monkeypatch.setattr(runtime, "hostUnregister", locked.remove)
    ours = loader("gpu0")
    next(ours.training(0))
    assert len(locked) == 4
    del ours
    gc.collect()
    assert locked == []


def test_two_epochs_at_a_time_are_refused(gpus):
    ours, theirs = loader("gpu0"), loader("cpu")
    half = ours.training(0)
    next(half)
    with pytest.raises(UserError, match="one epoch at a time.*close()"):
        next(ours.testing())
    half.close()
    assert equal(ours.training(3), theirs.training(3)) == 7


@pytest.mark.parametrize("places", ["gpu0", "gpu0,gpu1"])
@pytest.mark.parametrize("class_, wait", [
    (strict_streams.Null, "wait_event"), (strict_streams.Stream, "wait_event"),
    (strict_streams.Event, "record"), (strict_streams.Event, "synchronize")])
def test_who_leaves_out_a_wait_is_found(gpus, monkeypatch, class_, wait, places):
    ours, theirs = loader(places), loader("cpu")
    monkeypatch.setattr(class_, wait, lambda *args: None)
    with pytest.raises((AssertionError, strict_streams.Unordered)):
        equal(ours.training(0), theirs.training(0))


def test_predict_sends_many_pictures_to_a_gpu_and_crops_few_on_the_host(
        gpus, run, trained, data, tmp_path, monkeypatch):
    """Processes that read beside a GPU take a second to begin."""
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    finish, made, said = upload.Gpu.finish, [], []
    monkeypatch.setattr(upload.Gpu, "finish", lambda *given: made.append(1) or finish(*given))
    for few, place, batches in (300, "cpu", 0), (300, "gpu0", 0), (0, "gpu0", 4):
        monkeypatch.setattr(alexnet, "FEW", few)
        said.append(run("predict", trained.folder, data / "val", tmp_path / "broken.jpg", "-b", 3,
                        "--device", place))
        assert len(made) == batches
    assert said[0] == said[1] == said[2]
    assert said[0].code == 1 and said[0].out.count("%") == 50
