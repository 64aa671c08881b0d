"""The kit on Windows, as windows.py plays it on Linux: every command, with what Windows has not refused."""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import windows
from conftest import CHECKOUT, tiny_settings
from PIL import Image

from prffn import files
from prffn.apps.upscale import plan
from prffn.config import experiment
from prffn.losses import fused
from prffn.study.ensure import ensure

PACKAGE = CHECKOUT / "prffn"
TASKS = Path(__file__).with_name("windows_tasks.py")

Command = Callable[..., str]


@pytest.fixture
def home(tmp_path: Path, photo_folder: Path) -> Path:
    """The folder that is Windows' in the emulation, with a folder of three small images."""
    folder = tmp_path / "home"
    shutil.copytree(photo_folder, folder / "photos")
    return folder


@pytest.fixture
def python(home: Path, tmp_path: Path) -> Command:
    """Runs Python on that Windows, in `home`, and returns what it prints on its cp1252 console."""
    environment = windows.environment(PACKAGE, home, tmp_path / "elsewhere") | {
        files.CACHE_VARIABLE: str(home / "cache"),
        files.REPORTS_VARIABLE: str(home / "reports"),
        "KIT": str(PACKAGE),
    }

    def run(*arguments: object) -> str:
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(command, env=environment, cwd=home, capture_output=True, encoding="cp1252")
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def task(python: Command) -> Callable[..., Any]:
    """Runs a task of windows_tasks.py there, and returns what it says."""

    def run(name: str, *settings: Any) -> Any:
        return json.loads(python(TASKS, name, *map(json.dumps, settings)).splitlines()[-1])

    return run


def test_what_windows_has_not_is_refused(task):
    """The emulation is of use only where it does refuse: each line as one of the kit's."""
    attempts = {
        **{f"import {name}": "ModuleNotFoundError" for name in windows.REFUSED["modules"]},
        **{f"os.{name}": "AttributeError" for name in windows.REFUSED["os"]},
        "from os import fork": "ImportError",
        **{f"signal.{name}": "AttributeError" for name in windows.REFUSED["signal"]},
        **{f"multiprocessing.get_context({name!r})": "ValueError" for name in windows.REFUSED["start methods"]},
        "os.fork() if hasattr(os, 'fork') else 1 / 0": "ZeroDivisionError",
        "os.symlink('open.txt', 'link')": "OSError",
        "os.replace('open.txt', 'other')": "PermissionError",
        "Path('other').touch(); os.replace('other', 'open.txt')": "PermissionError",
        "Path('open.txt').unlink()": "PermissionError",
        "os.rename('full', 'other2')": "PermissionError",
        "Path('a').touch(); Path('b').touch(); Path('a').rename('b')": "FileExistsError",
        "Path('OPEN.txt').touch()": "FileExistsError",
        "Path('Full').mkdir()": "FileExistsError",
        "open('12:30.txt', 'wb')": "OSError",
        "open('aux.txt', 'wb')": "OSError",
        "Path('f' * 220).touch()": "FileNotFoundError",
        "Path('text').write_text('Łódź')": "UnicodeError",
        "open('/proc/self/status', 'rb')": "FileNotFoundError",
        "print('Łódź')": "UnicodeEncodeError",
    }
    assert task("refusals", attempts) == {}


def test_every_module_imports(task):
    assert task("imports") == {}


def test_files(task):
    r"""Written when a reader has done, refused by name when it has not; "\n", UTF-8, and nothing left behind."""
    said = task("files")
    assert json.loads(said["written when the reader had done"]) == "Łódź"
    assert said["written when the reader had done"].endswith('"\n')
    message, in_time = said["refused"]
    assert "is open in another program" in message
    assert "record.json" in message
    assert in_time
    assert sorted(said["left"]) == ["photos", "record.json"]


def test_a_stopped_training_resumes(task, home, monkeypatch):
    """To the bits of a training on Linux, as the text of its record says; nothing was compiled."""
    settings = tiny_settings(home / "photos")
    assert task("train", settings, 4) == {"steps": 4, "record": {}}
    said = task("train", settings, 12)
    monkeypatch.setattr(fused, "works", lambda: False)
    here = ensure({"a": [experiment(settings)]}, "quick", device="cpu", progress=False)["a"][0].record
    assert said["steps"] == 12 - 4
    for name in ("weights_sha256", "evaluation", "curve"):
        assert said["record"][name] == here[name]
    assert said["record"]["peak_memory_mb"] > 100  # of the process
    assert not list(home.rglob("*.part*"))
    (record,) = home.glob("reports/quick/runs/*.json")
    assert b"\r" not in record.read_bytes()


def test_a_folder_is_upscaled(python, home):
    """One of its files has a name that the console cannot print."""
    (home / "photos" / "1.png").rename(home / "photos" / "Łódź.png")
    printed = python("-m", "prffn", "upscale", "photos", "--scale", "2", "--device", "cpu")
    assert sorted(path.name for path in (home / "photos_x2").iterdir()) == ["0.png", "2.png", "Łódź.png"]
    with Image.open(home / "photos_x2" / "Łódź.png") as image:
        assert image.size == (192, 144)
    assert "\\u0141ód\\u017a.png: 192 x 144" in printed


@pytest.mark.parametrize(("system", "one_file"), [("linux", False), ("darwin", True), ("win32", True)])
def test_names_that_differ_by_case(system, one_file, tmp_path, monkeypatch):
    """Windows and macOS would write both images into one file."""
    sources = [tmp_path / "a" / "photo.png", tmp_path / "b" / "Photo.png"]
    for source in sources:
        source.parent.mkdir()
        source.touch()
    monkeypatch.setattr(sys, "platform", system)
    with pytest.raises(ValueError, match="would both become") if one_file else contextlib.nullcontext():
        assert len(plan(sources, tmp_path / "out", 2, False)) == 2


def test_a_report_is_written(python, home):
    """By its notebook, from the recorded study."""
    shutil.copytree(CHECKOUT / "reports" / "cpu" / "runs", home / "reports" / "cpu" / "runs")
    python("-m", "prffn", "reports", "table5_region_size", "--profile", "cpu", "--device", "cpu")
    for suffix in (".md", ".csv", ".json"):
        written = (home / "reports" / "cpu" / f"table5_region_size{suffix}").read_bytes()
        assert written == (CHECKOUT / "reports" / "cpu" / f"table5_region_size{suffix}").read_bytes()
