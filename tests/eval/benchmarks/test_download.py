"""Downloads from a small local server: the right bytes are kept, anything else leaves no file."""

import functools
import hashlib
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest


@pytest.fixture
def site(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site/file.jsonl").write_text('{"a": 1}\n')

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path / "site")))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_known_bytes_are_kept(site, tmp_path, command):
    digest = hashlib.sha256(b'{"a": 1}\n').hexdigest()
    out = tmp_path / "got/file.jsonl"
    assert command("eval", "download", "--url", f"{site}/file.jsonl", "--sha256", digest, "--out", out)[0] == 0
    assert out.read_text() == '{"a": 1}\n'


WRONG = [("file.jsonl", "its sha256 is"), ("none.jsonl", "404"), ("", "or put the file at")]


@pytest.mark.parametrize(("name", "expected"), WRONG)
def test_failed_download_leaves_no_file(site, tmp_path, command, name, expected):
    url = f"{site}/{name}" if name else "http://127.0.0.1:9/file"
    out = tmp_path / "got/file.jsonl"
    status, said = command("eval", "download", "--url", url, "--sha256", "0" * 64, "--out", out)
    assert status == 1
    assert said.startswith(f"error: {url}: ")
    assert expected in said
    assert not list((tmp_path / "got").iterdir())
