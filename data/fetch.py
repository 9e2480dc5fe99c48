"""How does a file come over the network, however often the line breaks?"""
import os
import time
import urllib.error
import urllib.request

from tqdm import tqdm


def fetch(url, part, slowest=0):
    """Append to the file `part` what it lacks of a URL; a broken line is taken up again.

    Raises OSError or HTTPException when nothing more comes, or when less than `slowest`
    bytes a second come for ten seconds.
    """
    while True:
        before = have = part.stat().st_size if part.exists() else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"})
        try:
            response = urllib.request.urlopen(request, timeout=30)
        except urllib.error.HTTPError as error:
            if error.code == 416:      # nothing behind the last byte: all of it is there
                return
            raise
        with response:
            if response.status != 206:                 # a server that cannot resume
                have = 0
            if "Content-Length" not in response.headers:
                raise OSError("the server does not say how long the file is")
            total = have + int(response.headers["Content-Length"])
            with open(part, "ab" if have else "wb") as file:
                _copy(response, file, have, total, slowest)
                size = file.tell()
        if size == total:
            return
        if size <= before:
            raise OSError(f"the connection broke off at byte {size:,} of {total:,}")


def _copy(response, file, have, total, slowest):
    start, came = time.monotonic(), 0
    host = response.url.split("/")[2]
    with tqdm(total=total, initial=have, desc=f"from {host}", unit="B", unit_scale=True,
              disable=None, leave=False) as progress:
        while block := response.read(1 << 16):
            file.write(block)
            progress.update(len(block))
            came += len(block)
            seconds = time.monotonic() - start
            if seconds > 10 and came < slowest * seconds:
                raise OSError(f"only {came / seconds / 1000:.0f} kB/s")
        file.flush()
        os.fsync(file.fileno())
