"""How does a file come over the network, however often the line breaks, and only the right one?"""
import os
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from tinynet.progress import bar

SCHEMES = "https",


def fetch(url, part, size, slowest=0):
    """Append to the file `part` what it lacks of a URL; a broken line is taken up again.

    size: how many bytes the file has; no more are read. Raises OSError or HTTPException when
    nothing more comes, when less than `slowest` bytes a second come for ten seconds, when the
    server has a file of another size, and when the URL, or one that it leads to, is no https.
    """
    _is_safe(url)
    while True:
        before = have = part.stat().st_size if part.exists() else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"})
        try:
            response = urllib.request.build_opener(_Redirects).open(request, timeout=30)
        except urllib.error.HTTPError as error:
            if error.code == 416:      # nothing behind the last byte: all of it is there
                return
            raise
        with response:
            if response.status != 206:                 # a server that cannot resume
                have = 0
            rest = response.headers.get("Content-Length", "")
            if not rest.isdecimal():
                raise OSError("the server does not say how long the file is")
            if have + int(rest[:18]) != size:
                raise OSError(f"its file has {have + int(rest[:18]):,} bytes and not {size:,}")
            with open(part, "ab" if have else "wb", opener=_no_link) as file:
                _copy(response, file, have, size, slowest)
                got = file.tell()
        if got == size:
            return
        if got <= before:
            raise OSError(f"the connection broke off at byte {got:,} of {size:,}")


def _is_safe(url):
    """Raises OSError for a URL under which anybody on the way could answer."""
    if urlsplit(url).scheme not in SCHEMES:
        raise OSError(f"{url} is no address with https")


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request, file, code, message, headers, url):
        _is_safe(url)
        return super().redirect_request(request, file, code, message, headers, url)


def _no_link(path, flags):
    # The name can be foretold: whoever may write there could have planted a link.
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _copy(response, file, have, size, slowest):
    """Append to an open file of `have` bytes what comes, until it has `size` bytes."""
    start, came = time.monotonic(), 0
    host = response.url.split("/")[2]
    with bar(size, f"from {host}", have, unit="B", unit_scale=True) as progress:
        while block := response.read(min(1 << 16, size - have - came)):
            file.write(block)
            progress.update(len(block))
            came += len(block)
            seconds = time.monotonic() - start
            if seconds > 10 and came < slowest * seconds:
                raise OSError(f"only {came / seconds / 1000:.0f} kB/s")
        file.flush()
        os.fsync(file.fileno())
