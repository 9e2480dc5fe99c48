"""What does a run leave in log.jsonl?"""
import json
import os
from contextlib import suppress

from ..errors import UserError
from ..progress import shown, warn
from ..schema import check

# What every report and every validation tells; other lines tell of other things.
ROW = {"epochs": float, "loss": float, "top1_error": float, "seconds": float, "lr": float,
       "images_per_s": float}


class Log:
    """A file of JSON objects, one a line, that is only ever written behind its last whole line.

    Raises OSError.
    """

    def __init__(self, path):
        self.path = path

    def add(self, row):
        """Write one more line."""
        if self.path.exists() and not self.path.is_file():
            raise OSError("it is no file: remove or rename it")    # a pipe waits for its reader
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

    def rows(self):
        """The reports and validations in the file, a dict each; none if there is no file.

        A line that somebody has damaged is named on stderr, and left out.
        """
        found = []
        if not self.path.is_file():
            return found
        for number, line in enumerate(self.path.read_bytes().splitlines(), 1):
            try:
                row = json.loads(line)
                check(row, {"kind": str}, "it")
                if row["kind"] in ("train", "validation"):
                    check(row, ROW, "it")
                    found.append(row)
            except (ValueError, RecursionError, UserError) as error:
                warn(f"{shown(self.path)}: line {number} is left out: {error}")
        return found
