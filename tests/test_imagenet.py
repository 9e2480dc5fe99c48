"""How ImageNet becomes what can be trained on: pixels, odd files, stops."""
import io
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from data import imagenet, layouts
from helpers import ROOT, environment, reference, smooth
from sources import (
    WNIDS,
    are_of_their_classes,
    contents,
    file_of,
    image_folder,
    lay_out,
    names,
    prepare,
    shaped,
    splits,
    train_files,
)
from tinynet.errors import UserError
from tinynet.pictures import images, packed
from tinynet.training.claim import Claim

# --- pixels -----------------------------------------------------------------------------------


def pixels_of(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), np.float64)


def is_true_to(source, target, sample, stored_as):
    """Compare prepared pixels with their float64 reference and all statistics with NumPy."""
    about = imagenet.prepare(source, target)
    train = packed.data_set(target, "train")
    found = layouts.look(source).splits["train"]
    before, after = [], []
    for index in range(0, len(train), sample):
        true = reference(pixels_of(source / train.name(index)))
        made = images.read(source / train.name(index))
        before.append(np.abs(made - true).mean())
        after.append(np.abs(train.read(index).astype(float) - made).mean())
    assert np.mean(before) < 1 and np.mean(after) < stored_as
    assert sorted(names(train)) == sorted(found.names)
    place = dict(zip(found.names, found.labels, strict=True))
    assert all(place[name] == label for name, label in zip(names(train), train.labels,
                                                                     strict=True))

    every = np.stack([train.read(index) for index in range(len(train))])
    pixels = every.reshape(-1, 3).astype(np.float64)
    covariance = np.cov(pixels.T, bias=True)
    with np.load(target / packed.STATISTICS) as saved:
        mean, rgb, variances = saved["mean"], saved["rgb_mean"], saved["variances"]
        components, stdevs = saved["components"], saved["stdevs"]
    assert mean.shape == (256, 256, 3) and mean.dtype == np.float32
    assert np.array_equal(mean, every.mean(axis=0, dtype=np.float64).astype(np.float32))
    assert np.allclose(rgb, pixels.mean(axis=0), rtol=1e-6, atol=0)
    assert np.allclose(variances, np.linalg.eigvalsh(covariance), rtol=1e-9, atol=0)
    assert np.allclose(stdevs, np.sqrt(variances), rtol=1e-12, atol=0)
    assert np.allclose(components @ np.diag(variances) @ components.T, covariance, rtol=1e-9)
    assert np.allclose(components.T @ components, np.eye(3), atol=1e-12)
    return about


def test_imagenet_photographs_are_prepared_as_a_reference_says(real_pictures, tmp_path):
    about = is_true_to(real_pictures / "imagenet-sample", tmp_path, 4, stored_as=2.2)
    assert about["splits"]["train"]["converted"] == {"grey JPEG": 1}
    assert about["splits"]["train"]["pictures"] == 100


def test_tiny_imagenet_is_prepared_as_a_reference_says(real_pictures, tmp_path):
    """A class and a half of it: the pictures are linked, the words are there."""
    tiny, source = real_pictures / "tiny-imagenet-50", tmp_path / "source"
    for wnid in ("n01443537", "n01698640"):
        for path in sorted((tiny / "train" / wnid).iterdir())[:75]:
            lay_out(source, {f"train/{wnid}/{path.name}": path.read_bytes()})
    lay_out(source, {"synset_words.txt": (tiny / "synset_words.txt").read_bytes()})
    about = is_true_to(source, tmp_path / "target", 30, stored_as=2)
    assert about["words"]["n01443537"] == "goldfish, Carassius auratus"


def test_quality_is_that_of_the_stored_jpegs(tmp_path):
    file = io.BytesIO()
    noise = np.random.default_rng(0).normal(scale=20, size=(280, 300, 3))
    Image.fromarray(np.uint8(np.clip(smooth(300, 280) + noise, 0, 255))).save(file, "PNG")
    source = lay_out(tmp_path / "source", {"a/1.png": file.getvalue()})
    sizes = [prepare(source, tmp_path / str(quality), quality=quality)["splits"]["train"]["bytes"]
             for quality in (60, 95)]
    assert 2 * sizes[0] < sizes[1]
    data = (tmp_path / "60" / "train-00000.pack").read_bytes()
    with Image.open(io.BytesIO(data)) as stored:
        found = stored.quantization
    Image.new("RGB", (8, 8)).save(again := io.BytesIO(), "JPEG", quality=60)
    with Image.open(again) as expected:
        assert found == expected.quantization and stored.size == (256, 256)


def test_training_pictures_are_shuffled_once_and_test_pictures_are_not(tmp_path):
    files = {f"{split}/{wnid}/{n:03}.jpg": file_of(wnid) for split in ("train", "val")
             for wnid in WNIDS for n in range(20)}
    prepare(lay_out(tmp_path / "source", files), tmp_path / "target", per_file=25)
    train, val = splits(tmp_path / "target")
    assert names(val) == sorted(name for name in files if name.startswith("val"))
    assert sorted(names(train)) == sorted(name for name in files if name.startswith("train"))
    assert all(np.bincount(train.labels[i:i + 20], minlength=3).min() > 1 for i in (0, 20, 40))
    assert np.count_nonzero(np.diff(train.labels)) > 25        # sorted: 2; of chance: 40


# --- stopped and started again ----------------------------------------------------------------

KILLER = """
import itertools, os, shutil, signal, sys, threading
from pathlib import Path
import numpy as np
import tqdm
from data import imagenet

source, target = map(Path, sys.argv[1:])
tqdm.tqdm.set_lock(threading.RLock())    # its own is shared with forks, and dies with a child

def prepare():
    imagenet.prepare(source, target, per_file=3, workers=2, quality=80)

def counted(last=None):
    # Python tells when a function is called or returns; a kill falls between two of these.
    count = itertools.count()
    def at(frame, event, argument):
        if next(count) == last:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.setprofile(at)
    prepare()
    sys.setprofile(None)
    return next(count)

def contents():
    return {path.name: path.read_bytes() for path in target.iterdir()}

os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
prepare()                             # the first time there is more to do
shutil.rmtree(target)
moments = counted()
expected, half = contents(), []
for moment in np.random.default_rng(0).integers(0, moments, 20).tolist():
    shutil.rmtree(target)
    child = os.fork()                 # a whole process, without the time of its imports
    if child == 0:
        counted(moment)
        os._exit(0)
    os.waitpid(child, 0)
    if target.exists() and not (target / "prepared.json").exists():
        half.append(len(contents()))
    prepare()
    assert contents() == expected, moment
print(*half, file=sys.stderr)
"""


def run(program, *arguments, **how):
    return subprocess.run([sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)],
                          cwd=ROOT, text=True, capture_output=True, timeout=60, **how)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_killed_at_any_moment_it_goes_on_to_the_same_bits(tmp_path):
    files = {f"{split}/{wnid}/{n}.jpg": file_of(wnid, size=(90 + n, 80))
             for split, count in (("train", 2), ("val", 1)) for wnid in WNIDS
             for n in range(count)}
    files |= {"train/n01440764/bad.jpg": b"", "train/n01440764/grey.jpg": shaped("L", "JPEG")}
    source = lay_out(tmp_path / "source", files)
    before = contents(source)
    done = run(KILLER, source, tmp_path / "target")
    assert done.returncode == 0, done.stderr
    left = {int(count) for count in done.stderr.split()}
    assert len(left) > 3, left                     # how many files there were: many moments
    assert contents(source) == before


def fails_after(count, monkeypatch, error):
    """Let the preparer fail when it has made `count` pictures."""
    made, whole = [], imagenet.repacked

    def repacked(*arguments):
        made.append(1)
        if len(made) > count:
            raise error
        return whole(*arguments)

    monkeypatch.setattr(imagenet, "repacked", repacked)
    return made


def test_finished_files_are_kept_and_not_made_again(tmp_path, monkeypatch):
    source, target = image_folder(tmp_path / "source"), tmp_path / "target"
    prepare(source, tmp_path / "expected", per_file=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        fails_after(5, patch, KeyboardInterrupt)
        imagenet.prepare(source, target, per_file=2, workers=1)
    kept = contents(target)
    assert {"train-00000.pack", "train-00001.npz", "preparing.json"} <= set(kept)
    assert not any(name.endswith(".part") for name in kept)
    made = fails_after(100, monkeypatch, None)
    prepare(source, target, per_file=2)
    assert len(made) == 14 - 4
    assert contents(target) == contents(tmp_path / "expected")


def test_a_finished_folder_is_left_alone(tmp_path, monkeypatch, capsys):
    source, target = image_folder(tmp_path / "source"), tmp_path / "target"
    about = prepare(source, target)
    before = contents(target)
    fails_after(0, monkeypatch, AssertionError)
    assert prepare(source, target) == about and contents(target) == before
    assert "is prepared already" in capsys.readouterr().out
    (target / packed.STATISTICS).write_bytes(before[packed.STATISTICS][:1000])
    with pytest.raises(UserError, match="statistics.npz.*prepare the pictures again"):
        imagenet.report(target, about)


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("change", ["quality", "per_file", "source"])
def test_other_settings_than_before_are_refused(tmp_path, monkeypatch, change, finished):
    source, target = image_folder(tmp_path / "source"), tmp_path / "target"
    if finished:
        prepare(source, target)
    else:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            fails_after(2, patch, KeyboardInterrupt)
            imagenet.prepare(source, target)
    before = contents(target)
    if change == "source":
        lay_out(source, {"train/n01440764/one more.jpg": file_of(WNIDS[0])})
    with pytest.raises(UserError, match=f"begun otherwise \\({change}: "):
        imagenet.prepare(source, target, **({change: 42} if change != "source" else {}))
    assert contents(target) == before


def test_a_folder_with_other_files_is_refused_and_untouched(tmp_path):
    source = image_folder(tmp_path / "source")
    target = lay_out(tmp_path / "target", {"thesis.tex": b"precious", "notes.part": b"too"})
    with pytest.raises(UserError, match="holds other files"):
        imagenet.prepare(source, target)
    assert contents(target) == {"thesis.tex": b"precious", "notes.part": b"too"}


@pytest.mark.parametrize("place", ["", "packed", "train/n01440764"])
def test_nothing_is_written_into_the_source(tmp_path, place):
    source = image_folder(tmp_path / "source")
    before = contents(source)
    with pytest.raises(UserError, match="where nothing is to be written"):
        imagenet.prepare(source, source / place)
    assert contents(source) == before


def test_two_at_once_do_not_fill_one_folder(tmp_path):
    pytest.importorskip("fcntl")
    source = image_folder(tmp_path / "source")
    claim = Claim(tmp_path / "target")
    with pytest.raises(UserError, match=f"target is in use by process {os.getpid()} on "):
        imagenet.prepare(source, tmp_path / "target")
    claim.close()
    assert imagenet.prepare(source, tmp_path / "target")["classes"]


# --- the command line -------------------------------------------------------------------------


def command(*arguments, **how):
    return subprocess.run([sys.executable, ROOT / "data" / "imagenet.py", *map(str, arguments)],
                          cwd=sys.prefix, env=environment(), text=True, capture_output=True,
                          timeout=60, **how)


def test_the_command_prepares_what_a_net_learns_from(tmp_path):
    source, target = image_folder(tmp_path / "source"), tmp_path / "target"
    lay_out(source, {"train/n01440764/bad.jpg": b""})
    done = command(source, target, "--quality", 90, "-j", 1, "--per-file", 4)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "folders of classes; 10 train pictures and 5 val pictures of 3 classes" in done.stdout
    assert "train: 9 pictures" in done.stdout and "1 skipped" in done.stdout
    assert f"alexnet.py train {target}" in done.stdout
    assert json.loads((target / "prepared.json").read_text())["quality"] == 90

    statistics = packed.data_set(target, "train").statistics
    statistics.mean += 1                           # to be told from one that is measured again
    packed.write_statistics(target / packed.STATISTICS, statistics)
    learn = [sys.executable, ROOT / "alexnet.py", "train", target, "--recipe", "quickstart",
             "--steps", "2", "-b", "4", "--output-dir", tmp_path / "run", "--device", "cpu"]
    trained = subprocess.run(learn, cwd=ROOT, text=True, capture_output=True, timeout=100)
    assert trained.returncode == 0, trained.stderr
    assert "9 pictures to learn from and 5 to test with, of 3 classes" in trained.stdout
    following = trained.stdout.splitlines()[-1].split()
    assert following[2] == "test" and str(target) in following
    with np.load(target / packed.STATISTICS) as saved, \
            np.load(tmp_path / "run" / "last.npz") as net:
        assert np.array_equal(saved["mean"], net["statistics/mean"])
    tested = subprocess.run(following, cwd=ROOT, text=True, capture_output=True, timeout=100)
    assert tested.returncode == 0 and "5 pictures of 3 classes" in tested.stdout


@pytest.mark.parametrize("arguments, code", [
    (["nowhere", "target"], 1), ([], 2), (["a"], 2), (["a", "b", "--quality", "0"], 2),
    (["a", "b", "--val-share", "x"], 2), (["a", "b", "-j", "0"], 2)])
def test_mistakes_are_clean_errors(arguments, code, tmp_path):
    done = command(*arguments)
    assert done.returncode == code and "Traceback" not in done.stderr and done.stdout == ""
    assert "imagenet.py: error: " in done.stderr


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
from data import imagenet
sys.exit(imagenet.main())"""


def test_a_full_disk_is_a_clean_error_and_what_is_finished_stays(tmp_path):
    source, target = image_folder(tmp_path / "source"), tmp_path / "target"
    done = run(LIMITED, source, target, "--per-file", 2)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"what is finished stays in {target}" in done.stderr
    left = set(contents(target))
    assert "preparing.json" in left and not any(name.endswith(".part") for name in left)
    prepare(source, target, per_file=2)
    assert are_of_their_classes(packed.data_set(target, "train"))


def test_ctrl_c_leaves_with_130_and_keeps_finished_files(tmp_path):
    source, target = lay_out(tmp_path / "source", train_files(75)), tmp_path / "target"
    process = subprocess.Popen([sys.executable, ROOT / "data" / "imagenet.py", source, target,
                                "--per-file", "2"], env=environment(), text=True,
                               stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    while not (target / "train-00001.npz").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=50)
    assert process.returncode == 130 and "Traceback" not in error
    assert "run the same command again" in error
    left = set(contents(target))
    assert "train-00001.pack" in left and "prepared.json" not in left
    assert not any(name.endswith(".part") for name in left)
    assert prepare(source, target, per_file=2)["splits"]["train"]["pictures"] == 225
