"""What the fuzzer's inputs are made of, and in which proportion their classes come."""
import contextlib
import io
import json
import shutil
import sys

import numpy as np

import alexnet
import fuzz_options
import fuzz_pictures
import fuzz_saved
import fuzz_sources
import fuzz_weights
from command_line import NET
from data import imagenet
from sources import image_folder
from tinynet.training.program import exit_status

# name -> a function of (base, rng, folder) that makes an input in `folder` and returns what it
# is, what is expected of it, a job that reads it, and perhaps whether memory may end; and how
# many inputs of 34 are of this class.
CLASSES = {"pictures": (fuzz_pictures.pictures, 7), "special": (fuzz_pictures.special, 1),
           "checkpoints": (fuzz_saved.checkpoints, 6), "safetensors": (fuzz_saved.safetensors, 2),
           "packed": (fuzz_saved.packed_sets, 3), "cifar-10": (fuzz_sources.cifar, 3),
           "devkit": (fuzz_sources.devkit, 2), "tars": (fuzz_sources.tars, 1),
           "lists": (fuzz_sources.lists, 2), "options": (fuzz_options.options, 3),
           "weights": (fuzz_weights.weights, 4)}
KINDS = {name: kind for name, (kind, _) in CLASSES.items()}
ORDER = [name for name, (_, count) in CLASSES.items() for _ in range(count)]
ORDER = [ORDER[7 * place % len(ORDER)] for place in range(len(ORDER))]     # 7 and 34: a mixture


class Base:
    """Whole files of every kind in root/base. Nobody may change them."""

    TRAIN = [*NET, "--epochs", "3", "--schedule", "plateau", "--patience", "1", "-j", "1",
             "--device", "cpu"]
    CPU = ["--device", "cpu"]

    def __init__(self, root):
        self.root, self.out = root, root / "out"
        self.folder = root / "base"
        self.pictures = image_folder(self.folder / "pictures", count=3)
        self.picture = next((self.folder / "pictures" / "val").rglob("*.JPEG"))
        self.run = self.folder / "run"
        self.packed, self.half = self.folder / "packed", self.folder / "half"
        self.net = self.folder / "net.safetensors"
        sys.argv[0] = "alexnet.py"
        with contextlib.redirect_stdout(io.StringIO()):
            self.quiet("train", self.pictures, *self.TRAIN, "--steps", 3, "--output-dir", self.run)
            self.quiet("export", self.run, self.net)
            imagenet.prepare(self.pictures, self.packed, per_file=4, workers=1)
        shutil.copytree(self.packed, self.half)        # as a kill leaves it
        about = json.loads((self.half / "prepared.json").read_text())
        del about["splits"]
        (self.half / "preparing.json").write_text(json.dumps(about))
        for name in "prepared.json", "statistics.npz", "val-00001.npz", "val-00001.pack":
            (self.half / name).unlink()
        with np.load(self.run / "last.npz") as npz:
            self.arrays = {name: npz[name] for name in npz.files}
        self.meta = json.loads(str(self.arrays.pop("meta")))

    @staticmethod
    def quiet(*words):
        assert alexnet.main([str(word) for word in words]) == 0

    # jobs

    def alexnet(self, *words):
        return lambda: alexnet.main([str(word) for word in words])

    def prepare(self, source, target="target"):
        return lambda: imagenet.main([str(source), str(target), "--per-file", "4", "-j", "1"])

    def train(self, pictures, *words):
        return self.alexnet("train", pictures, *self.TRAIN, "--steps", 1, "--output-dir", "run",
                            *words)

    def calling(self, function, *arguments):
        return lambda: exit_status("fuzzing.py", lambda: (function(*arguments), 0)[1])
