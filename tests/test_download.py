"""Downloads from a server on this machine: checksum and retry. Archives not to be trusted: test_faults_archives.py."""

import os
from contextlib import ExitStack

import pytest
from archives import SET5, archive_at, png, served, tar_of

from prffn.data.download import ARCHIVES, get, unpack
from prffn.data.images import image_set


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Serves one file on the loopback interface; `broken` answers come first, cut in the middle."""
    monkeypatch.setenv("PRFFN_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # pooch waits between its tries
    with ExitStack() as servers:
        yield lambda content, broken=0: servers.enter_context(served(content, broken))


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


def test_302003_stays_out_of_the_training_images(tmp_path):
    """Set5's woman is a reduced copy of it."""
    (tmp_path / "a").write_bytes(tar_of({"train/302003.jpg": png(1), "train/100075.jpg": png(2)}))
    unpack(tmp_path / "a", "train", tmp_path / "BSD200", without=("302003",))
    assert os.listdir(tmp_path / "BSD200") == ["100075.jpg"]


def test_checksums_are_those_recorded_in_public_code(shared_data):
    """Against the list of official places: each archive's checksum stands in the line of its address."""
    lines = (shared_data / "official_checksums.tsv").read_text().splitlines()
    for archive in ARCHIVES:
        (line,) = [line for line in lines if line.startswith(archive.url + "\t")]
        assert archive.checksum.split(":")[1] in line.split("\t")
