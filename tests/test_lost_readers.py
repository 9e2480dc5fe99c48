"""A run saves and goes on, or saves and ends, whoever has stopped reading what it says."""
import os
import signal
import subprocess
import sys

import pytest

from command_line import LAST, NET, PROGRAM, SMALL, ended, progress, started, wait_for_step
from helpers import environment

pytestmark = pytest.mark.usefixtures("alarm")


def train(data, folder, options, **streams):
    return started("train", data, *options, "--output-dir", folder, **streams)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
                         ids=["Ctrl-C", "SIGTERM", "SIGHUP"])
def test_a_signal_saves_when_the_reader_of_both_streams_has_left(data, tmp_path, number):
    """As in `train 2>&1 | tee log`: the terminal sends its Ctrl-C to tee as well."""
    reading, writing = os.pipe()
    process = train(data, tmp_path / "run", [*NET, "--epochs", 10_000, "--device", "cpu", "-p", 1,
                                             "--save-freq", 100_000],
                    stdout=writing, stderr=writing)
    os.close(writing)
    wait_for_step(tmp_path / "run", 3, process)
    os.close(reading)
    process.send_signal(number)
    assert process.wait(50) == 130
    assert progress(tmp_path / "run")["step"] >= 3


def test_closing_the_terminal_saves(data, tmp_path):
    """SIGHUP is what a terminal sends when it is closed."""
    process = train(data, tmp_path / "run", [*NET, "--epochs", 10_000, "--device", "cpu", "-p", 1,
                                             "--save-freq", 100_000],
                    stdout=subprocess.DEVNULL)
    wait_for_step(tmp_path / "run", 3, process)
    process.send_signal(signal.SIGHUP)
    done = ended(process)
    assert done.code == 130 and "interrupted; go on with" in done.err
    assert progress(tmp_path / "run")["step"] >= 3


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("full", ["stdout", "stderr"])
def test_a_full_disk_behind_a_stream_does_not_end_the_run(data, tmp_path, full):
    with open("/dev/full", "w") as device:
        process = train(data, tmp_path / "run", SMALL, **{full: device})
        assert ended(process).code == 0
    assert progress(tmp_path / "run")["step"] == LAST


@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_stream_does_not_end_the_run(data, tmp_path, closed):
    words = [sys.executable, "-c", PROGRAM, "train", data, *SMALL, "--output-dir",
             tmp_path / "run"]
    command = " ".join(f"'{word}'" for word in words)
    done = subprocess.run(["sh", "-c", f"exec {command} {closed}>&-"], env=environment(),
                          capture_output=True, timeout=50)
    assert done.returncode == 0
    assert progress(tmp_path / "run")["step"] == LAST
