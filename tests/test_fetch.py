"""A file comes over the network in as many pieces as it takes, and no other one comes."""
import hashlib
import http.server
import os
import threading

import numpy as np
import pytest

from data import cifar10, fetch
from tinynet.errors import UserError

ARCHIVE = np.random.default_rng(1).bytes(300_000)
DIGESTS = {kind: hashlib.new(kind, ARCHIVE).hexdigest() for kind in ("md5", "sha256")}


class Server(http.server.ThreadingHTTPServer):
    """Serves ARCHIVE, at most `most` bytes a connection; then it breaks off."""

    def __init__(self, content=ARCHIVE, most=10 ** 9, resumes=True, status=None, to=None,
                 claims=None, chunked=False):
        self.content, self.most, self.resumes, self.status = content, most, resumes, status
        self.to, self.claims, self.chunked = to, claims, chunked
        self.asked = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/{cifar10.ARCHIVE}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        server.asked.append(start)
        if server.to:
            self.send_response(302)
            self.send_header("Location", server.to)
            self.end_headers()
            return
        if server.status or start >= len(server.content):
            self.send_error(server.status or 416)
            return
        if not server.resumes:
            start = 0
        rest = server.content[start:]
        self.send_response(206 if server.resumes else 200)
        self.send_header("Content-Length", server.claims or str(len(rest)))
        if server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            rest = b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest)
        self.end_headers()
        self.wfile.write(rest[:server.most])

    def log_message(self, *words):
        pass


@pytest.fixture
def serve(monkeypatch):
    """Start servers, which may be asked without https."""
    servers = []
    monkeypatch.setattr(fetch, "SCHEMES", ("http",))

    def start(**how):
        server = Server(**how)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def fetched(folder, *servers):
    urls = [server.url for server in servers]
    return cifar10.download(folder, urls, len(ARCHIVE), DIGESTS).read_bytes()


def test_a_broken_line_is_taken_up_again_where_it_broke(tmp_path, serve):
    server = serve(most=130_000)
    assert fetched(tmp_path, server) == ARCHIVE
    assert server.asked == [0, 130_000, 260_000]
    assert os.listdir(tmp_path) == [cifar10.ARCHIVE]


def test_what_an_earlier_call_left_is_not_fetched_again(tmp_path, serve):
    server = serve()
    (tmp_path / (cifar10.ARCHIVE + ".part")).write_bytes(ARCHIVE[:1000])
    assert fetched(tmp_path, server) == ARCHIVE and server.asked == [1000]
    assert fetched(tmp_path, server) == ARCHIVE and server.asked == [1000]


def test_a_file_that_was_whole_but_not_yet_renamed_is_taken(tmp_path, serve):
    (tmp_path / (cifar10.ARCHIVE + ".part")).write_bytes(ARCHIVE)
    assert fetched(tmp_path, serve()) == ARCHIVE


def test_a_planted_link_is_not_written_through(tmp_path, serve):
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / (cifar10.ARCHIVE + ".part")).symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match="symbolic links"):
        fetched(tmp_path / "here", serve())
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_a_server_that_cannot_resume_starts_over(tmp_path, serve):
    (tmp_path / (cifar10.ARCHIVE + ".part")).write_bytes(b"x" * 1000)
    assert fetched(tmp_path, serve(resumes=False)) == ARCHIVE


def test_the_next_mirror_goes_on_where_the_first_one_failed(tmp_path, serve):
    gone, broken, whole = serve(status=404), serve(most=100_000, resumes=False), serve()
    assert fetched(tmp_path, gone, broken, whole) == ARCHIVE
    assert whole.asked == [100_000]


def test_a_slow_mirror_gives_way_to_a_quick_one(tmp_path, serve, monkeypatch):
    slow, quick = serve(), serve()
    clock = iter(range(0, 10 ** 6, 11))
    with monkeypatch.context() as patch:
        patch.setattr(fetch.time, "monotonic", lambda: next(clock))
        assert fetched(tmp_path, slow) == ARCHIVE              # the only one: patience
        assert slow.asked[:2] == [0, 65536]
        (tmp_path / cifar10.ARCHIVE).unlink()
        fetched(tmp_path, slow, quick)
    assert quick.asked == [65536]


def test_a_file_with_the_wrong_md5_is_thrown_away_and_the_next_mirror_asked(tmp_path, serve):
    other = serve(content=ARCHIVE[::-1])
    assert fetched(tmp_path, other, serve()) == ARCHIVE
    with pytest.raises(ValueError, match="the md5 and sha256 is wrong"):
        fetched(tmp_path / "b", other)
    assert os.listdir(tmp_path / "b") == []


def test_when_nothing_answers_it_says_what_was_tried_and_keeps_what_came(tmp_path, serve):
    gone, broken = serve(status=503), serve(most=1000, resumes=False)
    with pytest.raises(ValueError) as error:
        fetched(tmp_path, gone, broken)
    for words in (gone.url, "503", broken.url, "broke off at byte 1,000 of 300,000",
                  "the 1,000 bytes that are there", "--from"):
        assert words in str(error.value)


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_each_digest_must_be_right(tmp_path, serve, kind):
    wrong = dict(DIGESTS, **{kind: "0" * len(DIGESTS[kind])})
    with pytest.raises(UserError, match=f"the {kind} is wrong, what came was thrown away"):
        cifar10.download(tmp_path, [serve().url], len(ARCHIVE), wrong)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/a", "ftp://127.0.0.1/a", "file:///etc/passwd"])
def test_only_https_is_asked(tmp_path, url):
    with pytest.raises(UserError, match=f"{url} is no address with https"):
        cifar10.download(tmp_path, [url], len(ARCHIVE), DIGESTS)
    assert all(url.startswith("https://") for url in cifar10.URLS)


@pytest.mark.parametrize("to", ["ftp://127.0.0.1/a", "file:///etc/passwd", "HTTPS://127.0.0.1/a"])
def test_only_https_is_followed(tmp_path, serve, to):
    """Here http takes the place of https, which would need a certificate."""
    with pytest.raises(UserError, match="127.0.0.1/a is no address with https|is not allowed"):
        fetched(tmp_path, serve(to=to))
    there = serve()
    assert fetched(tmp_path, serve(to=there.url)) == ARCHIVE


def test_a_file_of_another_size_is_not_read(tmp_path, serve):
    for server, said in (
            (serve(content=ARCHIVE + b"x"), "its file has 300,001 bytes and not 300,000"),
            (serve(claims=str(10 ** 15)), "its file has 1,000,000,000,000,000 bytes"),
            (serve(claims="many"), "the server does not say how long the file is")):
        with pytest.raises(UserError, match=said):
            fetched(tmp_path, server)
    assert os.listdir(tmp_path) == []


def test_no_more_is_read_than_the_file_has(tmp_path, serve):
    """A server may send in chunks more than it has said."""
    server = serve(content=ARCHIVE + b"x" * 10 ** 6, claims=str(len(ARCHIVE)), chunked=True)
    assert fetched(tmp_path, server) == ARCHIVE
