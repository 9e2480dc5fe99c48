"""Whose is a folder? Two programs that write into one folder spoil it for each other."""
import os
import time
import weakref
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:                        # on Windows: nobody is kept out
    fcntl = None

from ..errors import UserError
from ..progress import shown
from ..store import PARTS


class Claim:
    """A folder, made if need be, that this process has to itself until close() or its end.

    The lock dies with the process, however it ends. What a killed one has left half written is
    removed. A folder that was made for nothing goes again. Raises UserError, which says who has
    the folder, if another process does.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        made = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / ".lock"
        self.file = self._locked() if fcntl else None
        self.close = weakref.finalize(self, _give_back, self.file, self.path, made)
        for half in self.folder.glob(PARTS):
            half.unlink()

    def _locked(self):
        while True:
            file = open(self.path, "r+", errors="replace", opener=lambda path, flags: os.open(
                path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o666))          # no planted link
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                who = _owner(file)
                file.close()
                raise UserError(f"{shown(self.folder)} is in use by {who}: wait for it to "
                                "end, or choose another folder") from None
            except OSError:                # a file system without locks
                pass
            if self._is_there(file):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
                file.flush()
                return file
            file.close()                   # whoever had it has just removed it: once more

    def _is_there(self, file):
        with suppress(FileNotFoundError, NotADirectoryError):
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self.path))

    def is_ours(self):
        """Whether the folder of this name is still the one that was taken: somebody may have
        removed or renamed it, and somebody else have made another."""
        return not self.file or self._is_there(self.file)


def _owner(file):
    """What stands in the file of a lock. Who has locked it this very moment has yet to write (and
    may have found there what a killed one wrote)."""
    for _ in range(50):
        if who := file.read(200).strip():
            return who
        time.sleep(0.002)
        file.seek(0)
    return "another process"


def _give_back(file, path, made):
    if file:
        with suppress(OSError):            # before the lock ends: then it may be another's
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                path.unlink()
        file.close()
    with suppress(OSError):                # as soon as one is not empty
        for folder in made:
            folder.rmdir()
