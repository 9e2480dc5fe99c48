"""A long run needs no more memory, threads or open files at its end than at its beginning.

`--soak N` takes N steps, with reports, saves and, every third step, a validation between them;
the usual run is short.
"""
import json
from pathlib import Path

import numpy as np
import pytest

from command_line import NET, ended, started
from sources import image_folder

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(),
                                reason="no /proc here, so nothing can be counted")

WARM = 30                                  # steps, until everything was done once
MB = 4                                     # that may come at once, and in 1,000 steps

COUNTING = """
import alexnet, json, os, resource, sys
from tinynet.optim import SGD
step, file, counted = SGD.step, open(sys.argv.pop(), "w"), []
def count(folder): return len(os.listdir(f"/proc/self/{folder}"))
def and_count(self):
    step(self)
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[1])
    counted.append([pages * resource.getpagesize() / 1e6, count("task"), count("fd")])
SGD.step = and_count
code = alexnet.main()
json.dump(counted, file)
sys.exit(code)"""


def test_nothing_grows_while_it_trains(request, tmp_path):
    steps = request.config.getoption("--soak") or 100
    pictures, counts = image_folder(tmp_path / "pictures", count=2), tmp_path / "counts.json"
    process = started("train", pictures, *NET, "-b", 2, "--epochs", steps // 3 + 1, "--device",
                      "cpu", "--schedule", "constant", "--steps", steps, "--save-freq", 5,
                      "--output-dir", tmp_path / "run", counts, program=COUNTING)
    done = ended(process, timeout=50 + steps)
    assert done.code == 0, done.err
    counted = np.array(json.loads(counts.read_text()))
    assert len(counted) == steps
    # The least of a while, as threads of one epoch may still end while those of the next begin.
    part = max(6, (steps - WARM) // 4)
    before, after = counted[WARM:WARM + part].min(axis=0), counted[-part:].min(axis=0)
    print(f"{steps} steps: MB, threads, files: {before.tolist()} -> {after.tolist()}")
    assert after[0] <= before[0] + MB * (1 + steps / 1000) and (after[1:] <= before[1:]).all()
