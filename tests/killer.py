"""Kill a training run at twelve random moments or more: does it always go on to the same bits?

    python killer.py FOLDER train ...        prints how often it was killed half-way

What was killed goes on, and is killed again: each run that ends has been killed up to three times.
"""
import itertools
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np

import alexnet

folder, words = Path(sys.argv[1]), sys.argv[2:]
devnull = os.open(os.devnull, os.O_WRONLY)


def child(seconds=None):
    """Train in a whole process each time, which is killed after `seconds`.

    It is a fork, so the time does not go into imports.
    """
    start, pid = time.perf_counter(), os.fork()
    if pid == 0:
        os.dup2(devnull, 1)
        os._exit(alexnet.main([*words, "--output-dir", str(folder), "--resume", "auto"]))
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] in (0, signal.SIGKILL)
    return time.perf_counter() - start


def net():
    with np.load(folder / "last.npz") as file:
        return {name: file[name].tobytes() for name in file.files if name != "meta"}


def step():
    with np.load(folder / "last.npz") as file:
        return json.loads(str(file["meta"]))["progress"]["step"]


child()
shutil.rmtree(folder)
whole = child()                                # the first one has compiled and cached
expected, last, half = net(), step(), 0
shutil.rmtree(folder)
shares, times = iter(np.random.default_rng(0).random(60)), []
while len(times) < 12 or half <= 3:            # on a busy machine more kills come too early
    began, at = len(times), 0
    for share in itertools.islice(shares, 3):
        child(share * whole)
        times.append(share)
        before, at = at, step() if (folder / "last.npz").exists() else 0
        if at == last:
            break
        half += at > before                    # else this one came before a step was saved
    if began == len(times):                    # there are no more
        break
    child()
    assert step() == last and net() == expected, times[began:]
    shutil.rmtree(folder)
print(half)
