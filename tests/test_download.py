"""Downloads from a server on this machine: checksum, retry, and archives that must not be trusted."""

import hashlib
import http.server
import io
import os
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prffn.data import image_set
from prffn.download import ARCHIVES, Archive, UnsafeArchive, get, unpack


def png(value: int, size: int = 24) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def zip_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(members: dict[str, bytes | tarfile.TarInfo], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


SET5 = {f"benchmark/Set5/HR/{n}.png": png(n) for n in range(5)} | {"benchmark/Set5/LR_bicubic/X2/0x2.png": png(9, 12)}


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Serves one file on the loopback interface; `broken` answers come first, cut in the middle."""
    monkeypatch.setenv("PRFFN_DATA", str(tmp_path / "data"))
    servers = []

    def start(content: bytes, broken: int = 0) -> tuple[str, list[str]]:
        requests: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                requests.append(self.path)
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if len(requests) <= broken else content)

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/benchmark.tar", requests

    monkeypatch.setattr("time.sleep", lambda seconds: None)  # pooch waits between its tries
    yield start
    for server in servers:
        server.shutdown()


def archive_at(url: str, content: bytes) -> tuple[Archive, ...]:
    return (Archive(url, "sha256:" + hashlib.sha256(content).hexdigest(), {"Set5": "benchmark/Set5/HR"}),)


def test_a_set_is_downloaded_checked_and_unpacked(serve):
    content = tar_of(SET5, "w")
    url, requests = serve(content)
    folder = get("Set5", archives=archive_at(url, content), progress=False)
    assert sorted(os.listdir(folder)) == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    assert len(image_set("Set5")) == 5
    get("Set5", archives=archive_at(url, content), progress=False)
    assert len(requests) == 1
    assert not list((folder.parent / "downloads").iterdir())


def test_a_broken_download_is_tried_again(serve):
    content = tar_of(SET5, "w")
    url, requests = serve(content, broken=2)
    get("Set5", archives=archive_at(url, content), progress=False)
    assert len(requests) == 3
    assert len(image_set("Set5")) == 5


def test_a_file_with_another_checksum_is_never_unpacked(serve, tmp_path):
    content = tar_of(SET5, "w")
    url, _ = serve(content)
    with pytest.raises(ValueError, match="hash"):
        get("Set5", archives=archive_at(url, content + b"x"), progress=False)
    assert not (tmp_path / "data" / "Set5").exists()


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_paths_of_the_archive_never_reach_the_disk(tmp_path, make):
    members = {
        "set/good.png": png(1), "../evil.png": png(2), "/tmp/evil.png": png(3), "set/../../evil.png": png(4),
        "set/sub/deep.png": png(5), "set/notes.txt": b"text",
    }  # fmt: skip
    (tmp_path / "a").write_bytes(make(members))
    unpack(tmp_path / "a", "set", tmp_path / "out" / "set")
    assert [str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*")] == ["set", "set/good.png"]


def test_links_and_devices_are_passed_over(tmp_path):
    members = {"set/good.png": png(1)}
    for kind, name in ((tarfile.SYMTYPE, "link"), (tarfile.LNKTYPE, "hard"), (tarfile.CHRTYPE, "device")):
        info = tarfile.TarInfo(f"set/{name}.png")
        info.type, info.linkname = kind, "/etc/passwd"
        members[info.name] = info
    (tmp_path / "a.tgz").write_bytes(tar_of(members))
    unpack(tmp_path / "a.tgz", "set", tmp_path / "set")
    assert os.listdir(tmp_path / "set") == ["good.png"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zip_of({"set/bomb.png": bytes(65 << 20)}), "more than any image"),
        (zip_of({"set/text.png": b"no image"}), "text.png is no image"),
        (zip_of({"other/a.png": png(1)}), "no images in set"),
        (b"neither", "neither a zip nor a tar"),
    ],
)
def test_archives_that_are_not_what_they_should_be(tmp_path, content, message):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(UnsafeArchive, match=message):
        unpack(tmp_path / "a", "set", tmp_path / "out" / "set")
    assert not (tmp_path / "out" / "set").exists()
    assert not list((tmp_path / "out").iterdir())


def test_302003_stays_out_of_the_training_images(tmp_path):
    """Set5's woman is a reduced copy of it."""
    (tmp_path / "a").write_bytes(tar_of({"train/302003.jpg": png(1), "train/100075.jpg": png(2)}))
    unpack(tmp_path / "a", "train", tmp_path / "BSD200", without=("302003",))
    assert os.listdir(tmp_path / "BSD200") == ["100075.jpg"]


@pytest.mark.parametrize(("name", "message"), [("Manga109", "manga109.org"), ("Set55", "Did you mean 'Set5'")])
def test_sets_that_cannot_be_downloaded(name, message):
    with pytest.raises(ValueError, match=message):
        get(name)


def test_checksums_are_those_recorded_in_public_code(shared_data):
    """Against the list of official places: each archive's checksum stands in the line of its address."""
    lines = (shared_data / "official_checksums.tsv").read_text().splitlines()
    for archive in ARCHIVES:
        (line,) = [line for line in lines if line.startswith(archive.url + "\t")]
        assert archive.checksum.split(":")[1] in line.split("\t")


def test_known_urls_name_a_file():
    assert [Path(a.file_name).suffix for a in ARCHIVES] == [".zip", ".zip", ".tar", ".tgz"]
