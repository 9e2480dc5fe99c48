"""Feed damaged and odd inputs to the readers, each in a process of its own, and judge them.

    python tests/fuzzing.py FIRST END STEP     inputs number FIRST, FIRST + STEP ... below END
    python tests/fuzzing.py 17                 only number 17, with what it printed

One line of JSON is printed for each input. Which class it is of, and everything in it, follows
from its number. The inputs are made in a folder that `judge` compares before and after; only the
working folder of the judged process may change.
"""
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

if __name__ == "__main__":                     # no threads: a fork would lose them
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")

import numpy as np

SECONDS, MEMORY = 20, 1 << 30
REFUSED, ACCEPTED, EITHER = "refused", "accepted", "either"


# --- damage -----------------------------------------------------------------------------


def flipped(data, rng, start=0, end=None, most=4):
    """The same bytes with 1 ... `most` bits of them turned."""
    data = bytearray(data)
    span = (len(data) if end is None else end) - start
    for at in rng.choice(8 * span, min(int(rng.integers(1, most + 1)), 8 * span), replace=False):
        data[start + at // 8] ^= 1 << at % 8
    return bytes(data)


def truncated(data, rng):
    return data[:rng.integers(len(data))]


def shuffled(data, rng):
    """A part of it twice, missing, zero or noise."""
    first, last = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    part = one(rng, [b"", 2 * data[first:last], bytes(last - first), rng.bytes(last - first)])
    return data[:first] + part + data[last:]


def damaged(data, rng):
    return one(rng, [truncated, flipped, shuffled])(data, rng)


def one(rng, choices):
    choices = list(choices)
    return choices[int(rng.integers(len(choices)))]


JUNK = [None, True, False, 0, -1, 1, 2, 1.5, -0.5, 2 ** 31, 2 ** 53, 2 ** 64, 10 ** 30,
        float("nan"), float("inf"), "", "x", "\ud800", "\x1b[2J\0", "é" * 70000, [], {}, [[]], [0],
        [None], [[], {}], {"a": 1}, {"": None}, ["x", 1], [1] * 9]


def places(value, path=()):
    """The paths to everything in what JSON gave."""
    items = (value.items() if isinstance(value, dict)
             else enumerate(value) if isinstance(value, list) else ())
    for name, part in items:
        yield (*path, name)
        yield from places(part, (*path, name))


def mutated(value, rng):
    """The same JSON but for one place, chosen by its depth first: it, the path, what is there now
    and what was there. Missing: `...`."""
    value = json.loads(json.dumps(value))
    paths = list(places(value))
    depth = one(rng, sorted({len(path) for path in paths}))
    path = one(rng, [path for path in paths if len(path) == depth])
    holder = value
    for name in path[:-1]:
        holder = holder[name]
    before, new = holder[path[-1]], one(rng, [..., ..., ..., *JUNK])
    if new is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = new
    return value, path, new, before


def same_type(new, before):
    """Whether JSON has one kind of thing in both places (a number is a number)."""
    def kind(value):
        return "number" if type(value) in (int, float) else type(value)
    return kind(new) is kind(before)


# --- judging ----------------------------------------------------------------------------


def snapshot(root):
    """Whatever changes when something in a folder does, but for the folder `out`."""
    def stat(path):
        of = os.lstat(path)
        return path, of.st_mode, of.st_size, of.st_ino, of.st_mtime_ns
    return [stat(os.path.join(folder, name)) for folder, folders, files in os.walk(root)
            for name in [*folders, *files] if os.path.join(folder, name) != f"{root}/out"
            and not folder.startswith(f"{root}/out")]


def judge(root, expected, job, memory_may_end=False):
    """job() in a limited fork whose working folder is root/out: a dict with the verdict.

    Good verdicts are "accepted" and "clean error". expected: REFUSED, ACCEPTED or EITHER.
    memory_may_end: a clean sentence that says so is then an answer.
    """
    shutil.rmtree(root / "out", ignore_errors=True)
    (root / "out").mkdir()
    before, start = snapshot(root), time.perf_counter()
    with tempfile.TemporaryFile("w+", errors="replace") as out, \
            tempfile.TemporaryFile("w+", errors="replace") as err:
        pid = os.fork()
        if pid == 0:
            _limited(root, job, out, err)
        _, status, used = os.wait4(pid, 0)
        try:
            os.killpg(pid, signal.SIGKILL)         # whatever it has started
        except ProcessLookupError:
            pass
        seconds, code = time.perf_counter() - start, os.waitstatus_to_exitcode(status)
        err.seek(0)
        said = err.read()
    changed = "" if snapshot(root) == before else "changed files"
    verdict = changed or _verdict(code, said, expected, memory_may_end)
    if (root / "canary" / "run").exists():
        verdict = "code ran"
        (root / "canary" / "run").unlink()
    return dict(verdict=verdict, code=code, seconds=round(seconds, 2),
                mb=used.ru_maxrss >> 10, said=said[-3000:])


def _limited(root, job, out, err):
    """The child: never returns."""
    code = 99
    try:
        os.setpgid(0, 0)
        os.chdir(root / "out")
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        try:
            code = job() or 0
        except SystemExit as end:                  # argparse leaves in this way
            code = end.code
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        os.write(2, traceback.format_exc().encode(errors="replace"))
    os._exit(code)


def _verdict(code, said, expected, memory_may_end):
    if code == -signal.SIGALRM:
        return "hang"
    if code < 0:
        return "signal"
    if "Traceback" in said:
        return "too much memory" if "MemoryError" in said else "traceback"
    if code == 0:
        return "wrong accept" if expected == REFUSED else "accepted"
    if code not in (1, 2) or len(re.findall(r"^[\w. -]+: error: ", said, re.M)) != 1:
        return "unclear error"
    if "out of memory" in said and not memory_may_end:
        return "too much memory"
    return "wrong refusal" if expected == ACCEPTED else "clean error"


GOOD = "accepted", "clean error"


def table(found):
    """What was found, a line for each class: a text."""
    verdicts = [*GOOD, *sorted({one["verdict"] for one in found} - set(GOOD))]
    lines = [f"{'class':12}{'tried':>7}" + "".join(f"{verdict:>17}" for verdict in verdicts)
             + f"{'mean s':>8}{'most s':>8}{'most MB':>9}"]
    for name in [*sorted({one["class"] for one in found}), "all"]:
        of = [one for one in found if name in (one["class"], "all")]
        counts, seconds = Counter(one["verdict"] for one in of), [one["seconds"] for one in of]
        lines.append(f"{name:12}{len(of):7,}"
                     + "".join(f"{counts[verdict]:17,}" for verdict in verdicts)
                     + f"{sum(seconds) / len(of):8.2f}{max(seconds):8.1f}"
                       f"{max(one['mb'] for one in of):9,}")
    return "\n".join(lines)


# --- the whole of it --------------------------------------------------------------------


def try_out(root, base, kinds, order, number):
    """Make input number `number`, judge it: a dict."""
    name = order[number % len(order)]
    folder = root / "input"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    what, *case = kinds[name](base, np.random.default_rng(number), folder)
    return {"number": number, "class": name, "what": what, **judge(root, *case)}


def main(first, end=None, step=1):
    sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]
    import fuzz_base
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        for name in "base", "canary", "out":
            (root / name).mkdir()
        os.environ.update(HOME=str(root / "out"), TMPDIR=str(root / "out"))
        tempfile.tempdir = None
        base = fuzz_base.Base(root)
        for number in range(first, first + 1 if end is None else end, step):
            found = try_out(root, base, fuzz_base.KINDS, fuzz_base.ORDER, number)
            if end is None:
                print(found.pop("said"))
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
