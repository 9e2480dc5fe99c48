"""Do the tests run alike, however they are started?"""
import signal
import subprocess
import sys

import pytest

from helpers import ROOT, environment

IN_THE_BACKGROUND = """
import signal, subprocess, sys
numbers = [signal.SIGINT, signal.SIGHUP]
for number in numbers:
    signal.signal(number, signal.SIG_IGN)
def a_child_ignores_them():
    ask = "import signal; print([signal.getsignal(number) == signal.SIG_IGN for number in (2, 1)])"
    return subprocess.run([sys.executable, "-c", ask], text=True, capture_output=True).stdout
print(a_child_ignores_them(), end="")
import conftest
conftest.pytest_configure()
for number in numbers:
    signal.raise_signal(number)
print(a_child_ignores_them(), end="")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP here")
def test_in_the_background_they_ignore_signals_and_what_they_start_does_not():
    path = f"{ROOT}:{ROOT / 'tests'}:{ROOT / 'examples'}"
    done = subprocess.run([sys.executable, "-c", IN_THE_BACKGROUND], text=True, timeout=60,
                          capture_output=True, env=environment(PYTHONPATH=path))
    assert done.stdout == "[True, True]\n[False, False]\n", done.stderr
