"""What is the same in all tests is made once, though they run in several processes."""
import atexit
import os
import shutil
import tempfile
from pathlib import Path

try:
    import fcntl
except ImportError:                        # on Windows two may make the same: the last one stays
    fcntl = None

NAME = "TINYNET_TESTS"                     # of the variable that says where it lies


def folder():
    """Where it lies. Whoever asks first makes the folder and removes it at the end; the processes
    that it starts find it in their environment."""
    if NAME not in os.environ:
        os.environ[NAME] = tempfile.mkdtemp(prefix="tinynet-tests-")
        atexit.register(shutil.rmtree, os.environ[NAME], ignore_errors=True)
    return Path(os.environ[NAME])


def once(name, make):
    """The path of a file, which make(path) has written, here or in another process. One that is
    about to make it is waited for."""
    path = folder() / name
    with open(f"{path}.lock", "w") as lock:
        if fcntl:
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            aside = path.with_name(f"{os.getpid()}-{name}")
            make(aside)
            os.replace(aside, path)
    return path
