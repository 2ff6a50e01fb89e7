"""Downloads from a server that does what servers do: cuts, ignores, lies, redirects, sends pages in place of files."""

import hashlib
import io
import shutil
import threading
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import filelock
import numpy as np
import pytest
import requests

from unweave.data import download as module
from unweave.data.download import download
from unweave.data.sets.card import Remote
from unweave.errors import UserError

SIZE = 300_000
CONTENT = np.random.default_rng(0).bytes(SIZE)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
PAGE = b"<!DOCTYPE html><html><head><title>Quota exceeded</title></head></html>"


class Handler(BaseHTTPRequestHandler):
    """Answers as `server.behave` says; notes the Range of each request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.headers["Range"])
        self.server.behave(self)

    def log_message(self, *_):
        pass

    def send(self, body, code=200, length=None, **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    @property
    def first(self):
        return int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))

    def send_rest(self, most=None, content=CONTENT, **headers):
        """What is missing, as a server does that knows ranges; cut after `most` bytes."""
        rest = content[self.first :]
        if not rest:
            self.send(b"", 416, Content_Range=f"bytes */{len(content)}")
        elif self.first:
            where = f"bytes {self.first}-{len(content) - 1}/{len(content)}"
            self.send(rest[:most], 206, len(rest), Content_Range=where, **headers)
        else:
            self.send(rest[:most], 200, len(rest), **headers)


@pytest.fixture
def server(monkeypatch):
    """A server of `CONTENT`, at `url`; the waits between tries are left out."""
    monkeypatch.setattr(module, "FIRST_WAIT", 0.0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.behave = [], Handler.send_rest
    server.url = f"http://127.0.0.1:{server.server_port}/file.bin"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def remote(server, size=SIZE, digest=f"sha256:{SHA256}", urls=None):
    return Remote("file.bin", urls or (server.url,), size, digest)


def there(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("digest", [f"sha256:{SHA256}", f"md5:{MD5}"])
def test_a_file_comes_whole_and_once(server, tmp_path, digest):
    said = []
    path = download(remote(server, digest=digest), tmp_path / "new", said.append)
    assert path.read_bytes() == CONTENT
    assert said[0] == f"file.bin: 300,000 bytes, {digest}, into {tmp_path / 'new'}"
    download(remote(server, digest=digest), tmp_path / "new", said.append)
    assert server.asked == [None]
    assert said[-1] == f"{path} exists and is intact ({digest})"
    assert there(tmp_path / "new") == ["file.bin"]


def test_a_cut_is_gone_on_from_by_itself(server, tmp_path):
    server.behave = lambda handler: handler.send_rest(most=100_000)
    path = download(remote(server), tmp_path, [].append)
    assert path.read_bytes() == CONTENT
    starts = [int(asked.removeprefix("bytes=").removesuffix("-")) for asked in server.asked[1:]]
    assert len(starts) in (2, 3)
    assert starts == sorted(starts)
    assert starts[0] > 0


def test_the_next_call_goes_on_where_the_last_one_stopped(server, tmp_path):
    server.behave = lambda handler: handler.send(b"", 404) if handler.first else handler.send_rest(most=200_000)
    with pytest.raises(UserError, match=r"file\.bin\.part has \d+,\d+ bytes: the same command resumes"):
        download(remote(server), tmp_path, [].append)
    kept = (tmp_path / "file.bin.part").stat().st_size
    server.behave = Handler.send_rest
    assert download(remote(server), tmp_path, [].append).read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={kept}-"


def test_a_part_that_is_whole_needs_no_server(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    download(remote(server), tmp_path, [].append)
    assert server.asked == []
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file.bin.part").write_bytes(CONTENT)  # of a size that is not known: the server says 416
    download(remote(server, size=None), tmp_path / "other", [].append)
    assert server.asked == ["bytes=300000-"]


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    said = []
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1_000])
    server.behave = lambda handler: handler.send(CONTENT)
    assert download(remote(server), tmp_path, said.append).read_bytes() == CONTENT
    assert any("cannot resume a download: starting over" in line for line in said)


def test_a_server_that_sends_another_part_is_asked_for_all(server, tmp_path):
    def wrong(handler):
        if handler.first:
            handler.send(CONTENT[7:], 206, Content_Range=f"bytes 7-{SIZE - 1}/{SIZE}")
        else:
            handler.send(CONTENT)

    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1_000])
    server.behave = wrong
    assert download(remote(server), tmp_path, [].append).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_begun_anew(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT + b"more")
    assert download(remote(server), tmp_path, [].append).read_bytes() == CONTENT
    assert server.asked == [f"bytes={SIZE + 4}-", None]


def test_a_server_that_never_sends_the_end(server, tmp_path):
    server.behave = lambda handler: handler.send(CONTENT[:100_000], 200, SIZE)  # neither ranges nor an end
    with pytest.raises(UserError, match=r"the connection was cut, 5 times in a row.*file\.bin\.part has"):
        download(remote(server), tmp_path, [].append)
    assert len(server.asked) == 5
    assert there(tmp_path) == ["file.bin.part"]


@pytest.mark.parametrize("size", [SIZE, None])
def test_a_damaged_file_is_removed(server, tmp_path, size):
    server.behave = lambda handler: handler.send(CONTENT[:-1] + b"?")
    with pytest.raises(UserError, match=f"file.bin.part has sha256:.*should be sha256:{SHA256}: damaged in transfer"):
        download(remote(server, size), tmp_path, [].append)
    assert there(tmp_path) == []


@pytest.mark.parametrize(
    ("behave", "words"),
    [
        (lambda handler: handler.send(CONTENT[:-9]), "has 299,991 bytes, the published file 300,000"),
        (lambda handler: handler.send(CONTENT + b"x"), "has 300,001 bytes, the published file 300,000"),
        (lambda handler: handler.send(PAGE, Content_Type="text/html; charset=utf-8"), "a web page .Quota exceeded. in"),
        (lambda handler: handler.send(b"\n" + PAGE), "a web page .Quota exceeded. in place of the file"),
        (lambda handler: handler.send(b"", 404), "answers 404 Not Found"),
        (lambda handler: handler.send(b"", 403), "answers 403 Forbidden"),
        (lambda handler: handler.send(b"", 503), "answers 503 Service Unavailable, 5 times in a row"),
        (lambda handler: handler.send(b"", 302, Location="/file.bin"), "Exceeded 30 redirects"),
        (lambda handler: handler.send(b"", 302, Location="gopher://nowhere"), "gopher"),
    ],
)
def test_what_is_not_the_file_is_named(server, tmp_path, behave, words):
    server.behave = behave
    size = None if "web page" in words else SIZE
    with pytest.raises(UserError, match=f"file.bin cannot be downloaded from {server.url}: .*{words}"):
        download(remote(server, size), tmp_path, [].append)
    assert there(tmp_path) == []


def test_a_busy_server_and_a_redirect(server, tmp_path):
    answers = [
        lambda handler: handler.send(b"", 500),
        lambda handler: handler.send(b"", 429),
        lambda handler: handler.send(b"", 302, Location="/moved"),
        Handler.send_rest,
    ]
    server.behave = lambda handler: answers.pop(0)(handler)
    said = []
    assert download(remote(server), tmp_path, said.append).read_bytes() == CONTENT
    assert sum("trying again" in line for line in said) == 2


def test_the_second_address_is_tried(server, tmp_path):
    server.behave = lambda handler: handler.send_rest() if handler.path == "/file.bin" else handler.send(b"", 410)
    gone = server.url.replace("file.bin", "gone")
    nobody = "http://127.0.0.1:9/file.bin"  # the port that discards: nothing listens
    said = []
    assert download(remote(server, urls=(gone, nobody, server.url)), tmp_path, said.append).read_bytes() == CONTENT
    assert f"{gone}: answers 410 Gone; trying the next address" in said
    assert f"{nobody}: cannot be reached, 5 times in a row; trying the next address" in said


def test_a_redirect_from_https_to_http_is_not_followed(server, tmp_path, monkeypatch):
    class Downgrade(requests.adapters.BaseAdapter):
        def send(self, request, **_):
            response = requests.Response()
            response.status_code, response.url, response.request = 302, request.url, request
            response.headers["Location"] = server.url
            response.raw = io.BytesIO()
            return response

        def close(self):
            pass

    start = module._Session.__init__

    def mounted(self):
        start(self)
        self.mount("https://", Downgrade())

    monkeypatch.setattr(module._Session, "__init__", mounted)
    with pytest.raises(UserError, match="redirects to http://127.*, which is not encrypted"):
        download(remote(server, urls=("https://safe.example/file.bin",)), tmp_path, [].append)
    assert server.asked == []


def test_without_a_published_hash_the_first_is_kept(server, tmp_path):
    said = []
    path = download(remote(server, None, ""), tmp_path, said.append)
    assert "no published size, no published hash" in said[0]
    assert said[-1] == f"file.bin has no published hash: recorded sha256:{SHA256} in {path}.sha256"
    assert (tmp_path / "file.bin.sha256").read_text() == f"{SHA256}  file.bin\n"
    path.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(UserError, match=r"is not the published file: it has sha256:.*move it away"):
        download(remote(server, None, ""), tmp_path, said.append)


def test_a_hash_that_the_server_states_is_compared(server, tmp_path):
    server.behave = lambda handler: handler.send_rest(X_Linked_Etag=f'"{SHA256}"')
    assert download(remote(server, None, ""), tmp_path, [].append).read_bytes() == CONTENT
    server.behave = lambda handler: handler.send_rest(X_Linked_Etag=f'"{"0" * 64}"')
    with pytest.raises(UserError, match="should be sha256:0000"):
        download(remote(server, None, ""), tmp_path / "other", [].append)


def test_a_file_of_another_size_that_is_there_is_left_alone(server, tmp_path):
    (tmp_path / "file.bin").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"has 4 bytes, the published file 300,000: move it away"):
        download(remote(server), tmp_path, [].append)
    assert (tmp_path / "file.bin").read_bytes() == b"mine"


def test_packed_answers_stay_as_they_are(server, tmp_path):
    """A .gz that a server calls packed is the file itself, not what it unpacks to."""
    server.behave = lambda handler: handler.send(CONTENT, Content_Encoding="gzip")
    assert download(remote(server), tmp_path, [].append).read_bytes() == CONTENT


def test_ctrl_c_says_how_to_go_on(server, tmp_path, monkeypatch):
    def interrupted(self, done, note=""):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.Display, "update", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"file\.bin\.part has \d+,\d+ bytes: the same command resumes"):
        download(remote(server), tmp_path, [].append)
    assert there(tmp_path) == ["file.bin.part"]


def test_space_is_looked_for_first(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1_000))
    with pytest.raises(UserError, match="has 1,000 bytes free, file.bin needs 300,000 more"):
        download(remote(server), tmp_path, [].append)
    assert there(tmp_path) == []


def test_one_process_downloads_a_file(server, tmp_path):
    with (
        filelock.FileLock(tmp_path / ".file.bin.lock"),
        pytest.raises(UserError, match="another process is downloading"),
    ):
        download(remote(server), tmp_path, [].append)


def test_a_folder_that_cannot_be_made_is_named(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*file"):
        download(remote(server), tmp_path / "file" / "folder", [].append)
