import hashlib
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from openmm_diffmd.data.downloads import MD17, RemoteFile, download

CONTENT = bytes(range(256)) * 4096


class Server(ThreadingHTTPServer):
    """Serves CONTENT, as its fields tell."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.knows_ranges = True
        self.stops_after = len(CONTENT)
        self.ranges = []
        self.chunked = False


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/file":
            self.send_error(404)
            return
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        start = 0
        if wanted and self.server.knows_ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= len(CONTENT):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        if self.server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"ffff\r\n" + CONTENT[:1000])
            return
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : self.server.stops_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def remote(server):
    return RemoteFile(
        f"http://127.0.0.1:{server.server_port}/file",
        "file.bin",
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )


def test_download_is_whole_and_done_once(server, remote, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for _ in range(2):
        path = download(remote, tmp_path / "new")
        assert path.read_bytes() == CONTENT
    assert server.ranges == [None]
    assert [item.name for item in path.parent.iterdir()] == ["file.bin"]
    assert "file.bin" in capsys.readouterr().err


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_interrupted_download_goes_on(server, remote, tmp_path, knows_ranges):
    server.knows_ranges = knows_ranges
    server.stops_after = 300_000
    with pytest.raises(ConnectionError, match="300000 of 1048576 bytes; call again"):
        download(remote, tmp_path, progress=False)
    assert (tmp_path / "file.bin.part").stat().st_size == 300_000
    server.stops_after = len(CONTENT)
    path = download(remote, tmp_path, progress=False)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-"]


def test_whole_part_of_unknown_size_is_taken(server, remote, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    unsized = RemoteFile(remote.url, remote.name, sha256=remote.sha256)
    assert download(unsized, tmp_path, progress=False).read_bytes() == CONTENT


def test_a_connection_cut_within_a_chunk_is_told(server, remote, tmp_path):
    server.chunked = True
    with pytest.raises(ConnectionError, match="ended within a block; call again"):
        download(remote, tmp_path, progress=False)


def test_a_page_is_no_archive(server, remote, tmp_path):
    page = RemoteFile(remote.url, "md17.npz")
    with pytest.raises(ValueError, match=r"begins with b'\\x00.*expected a \.npz file"):
        download(page, tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_wrong_checksum_is_refused_and_removed(remote, tmp_path):
    wrong = RemoteFile(remote.url, remote.name, remote.size, "0" * 64)
    with pytest.raises(ValueError, match=r"SHA-256 .* expected 0000.*it is removed"):
        download(wrong, tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_wrong_size_is_refused(remote, tmp_path):
    wrong = RemoteFile(remote.url, remote.name, size=len(CONTENT) + 1)
    with pytest.raises(ValueError, match="1048576 bytes, expected 1048577"):
        download(wrong, tmp_path, progress=False)


def test_file_that_was_changed_on_disk_is_refused(remote, tmp_path):
    path = download(remote, tmp_path, progress=False)
    path.write_bytes(CONTENT[:-1] + b"\0")
    with pytest.raises(ValueError, match="remove it to download it again"):
        download(remote, tmp_path, progress=False)


def test_missing_file_is_told(server, tmp_path):
    absent = RemoteFile(f"http://127.0.0.1:{server.server_port}/absent", "absent")
    with pytest.raises(OSError, match=r"answers 404 .* expected the file"):
        download(absent, tmp_path, progress=False)


def test_aspirin_has_its_known_size_and_checksum():
    assert MD17["aspirin"].size == 202_398_748
    assert MD17["aspirin"].sha256.startswith("af4ce531")
