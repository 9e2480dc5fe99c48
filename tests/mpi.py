"""How tests start several ranks, and see that none is left."""
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from types import SimpleNamespace

from command_line import PROGRAM
from helpers import environment
from tinynet.ranks import OF_LAUNCHERS

BESIDE = Path(sys.executable).parent                   # where pip puts what an MPI's wheel has
MPIEXEC = shutil.which("mpiexec", path=f"{BESIDE}{os.pathsep}{os.environ.get('PATH', '')}")
MISSING = ("mpi4py is not installed" if importlib.util.find_spec("mpi4py") is None else
           "no mpiexec is beside Python or in PATH" if MPIEXEC is None else
           "no /proc here to see who is left" if not os.path.isdir("/proc/self") else "")
# Open MPI does not start as root, nor more ranks than cores, unless it is asked to.
ASKED = dict(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
             PRTE_MCA_rmaps_default_mapping_policy=":oversubscribe")


class Job:
    """mpiexec -n size, and what it has started. stop() ends all of it, however it went."""

    def __init__(self, size, *argv, program=PROGRAM, **variables):
        own = {name: value for name, value in environment(**ASKED, **variables).items()
               if not name.startswith(OF_LAUNCHERS) or name in (*ASKED, *variables)}
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [MPIEXEC, "-n", str(size), sys.executable, "-c", program, *map(str, argv)], text=True,
            env={**own, "TINYNET_JOB": self.mark}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True)

    def left(self, what="TINYNET_JOB"):
        """The processes of this job that are there, by what stands in their environment: a
        launcher may give each a session of its own."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                zombie = path.joinpath("stat").read_text().rpartition(")")[2].split()[0] == "Z"
                if not zombie and f"{what}={self.mark}" in path.joinpath("environ").read_text():
                    found.append(int(path.name))
            except (OSError, UnicodeDecodeError):
                continue
        return found

    def ranks(self):
        """{rank: its process} of this job, as soon as all are there."""
        found = {}
        for pid in self.left():
            for line in Path(f"/proc/{pid}/environ").read_text().split("\0"):
                name, _, value = line.partition("=")
                if name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK"):
                    found[int(value)] = pid
        return found

    def ended(self, timeout=40):
        """Its exit code and what it printed; nothing of it may be left."""
        try:
            out, err = self.process.communicate(timeout=timeout)
            deadline = time.perf_counter() + 10
            while self.left() and time.perf_counter() < deadline:
                time.sleep(0.05)
            assert not self.left(), "ranks are left"
            return SimpleNamespace(code=self.process.returncode, out=out, err=err)
        finally:
            self.stop()

    def stop(self):
        for pid in self.left():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def mpirun(size, *argv, **how):
    return Job(size, *argv, **how).ended()
