"""Die in front of a system call that changes a file, as if by kill -9: of which call, a number
says. A write is torn: half of it is on the disk."""
import builtins
import io
import os

NAMES = "replace", "link", "fsync", "unlink", "open", "truncate", "mkdir", "rmdir"
KILLED = 9


class Calls:
    """Counts the calls from here on; at call number `last` the process ends. For a process that
    is a fork, as what is replaced here stays so."""

    def __init__(self, last):
        self.last, self.count = last, 0
        os.fsync = lambda file: None       # what kill -9 leaves is not lost with the power
        for name in NAMES:
            setattr(os, name, self._counted(getattr(os, name)))
        calls, real = self, builtins.open

        class Torn(io.FileIO):
            def write(self, data):
                if calls.is_the_last():
                    super().write(memoryview(data)[:len(data) // 2])
                    os._exit(KILLED)
                return super().write(data)

        def opened(path, mode="r", *rest, **how):
            if isinstance(path, int) or how or rest or mode not in ("xb", "wb", "a"):
                return real(path, mode, *rest, **how)
            if calls.is_the_last():
                os._exit(KILLED)
            file = io.BufferedWriter(Torn(path, mode[0]))
            return file if "b" in mode else io.TextIOWrapper(file)

        builtins.open = opened

    def is_the_last(self):
        self.count += 1
        return self.count == self.last

    def _counted(self, call):
        def counted(*arguments, **how):
            if self.is_the_last():
                os._exit(KILLED)
            return call(*arguments, **how)
        return counted


def in_a_fork(job):
    """job() in a process of its own: its exit status, 0 ... 255; what it raises is 1."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(job() or 0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
