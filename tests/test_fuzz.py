"""Whatever a file holds or somebody types, the program does its work or ends with one sentence.

Inputs that are damaged or odd in every way that fuzz_*.py knows are read, each in a process of
its own with 20 seconds and 1 GB. Each way says what is expected of it: to be refused (it could
have been noticed), to be accepted (it is only unusual), or either. What fails is a traceback, more
or less than one line with "error:", a hang, too much memory, a crash, a changed file, code that
ran, and a wrong accept or refusal: the end that was not expected.

The usual 48 inputs are always the same. `--fuzz N` tries N, in two processes.
"""
import json
import subprocess
import sys
from pathlib import Path

import pytest

import fuzzing
from helpers import ROOT, environment

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(),
                                reason="no /proc here, so the memory cannot be limited")


def test_every_input_is_read_or_refused_with_one_sentence(request, tmp_path):
    wanted = request.config.getoption("--fuzz")
    jobs, count = (2, wanted) if wanted else (1, 48)
    paths, processes = [tmp_path / str(first) for first in range(jobs)], []
    for first, path in enumerate(paths):
        with open(path, "w") as file:
            processes.append(subprocess.Popen(
                [sys.executable, fuzzing.__file__, *map(str, (first, count, jobs))], cwd=ROOT,
                stdout=file, env=environment()))
    assert [process.wait() for process in processes] == [0] * jobs
    found = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    assert len(found) == count
    print(fuzzing.table(found))
    bad = [one for one in found if one["verdict"] not in fuzzing.GOOD]
    for one in bad[:50]:
        last = one["said"].strip().splitlines()[-1:]
        print(f"{one['class']} {one['number']}: {one['verdict']}: {one['what']}: {last}\n"
              f"    again: python tests/fuzzing.py {one['number']}")
    assert not bad, f"{len(bad)} of {count} inputs"
