"""What does a run leave in log.jsonl?"""
import json
import os
from contextlib import suppress


class Log:
    """A file of JSON objects, one a line, that is only ever written behind its last whole line.

    Raises OSError.
    """

    def __init__(self, path):
        self.path = path

    def add(self, row):
        """Write one more line."""
        if self.path.exists() and not self.path.is_file():
            raise OSError("it is no file")             # a pipe would wait for its reader
        size = self.size()
        try:
            with open(self.path, "a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError:
            self.cut(size)                             # no half a line
            raise

    def size(self):
        """Bytes of what was written so far."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def cut(self, size):
        """Take back what was written behind so many bytes."""
        with suppress(FileNotFoundError):
            os.truncate(self.path, min(size, self.size()))
