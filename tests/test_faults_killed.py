"""SIGKILL at random moments of downloading, decoding, training and recording: the same command then goes on, and ends
with the same images, weights and figures as one that was never disturbed."""

import json
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import archive_at, served, tar_of, to_png
from conftest import tiny_settings
from killed import PHASES, started

from prffn.data.images import KNOWN_SETS
from prffn.files import _parts_of, atomic_write, read_record
from prffn.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

STEPS = 12


@dataclass
class Command:
    """What is killed, and what it gave where it was not."""

    archive: Any
    settings: dict[str, Any]
    expected: dict[str, Any]
    events: dict[str, int]

    def run(self, folder: Path, moment: tuple[str, int] | None = None) -> bool:
        """Gives the command. Returns whether it was killed at that moment."""
        process = started(folder, self.archive, self.settings, moment)
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        return process.exitcode != 0


@pytest.fixture(scope="module")
def command(tmp_path_factory, photo):
    """An undisturbed run, and all that it takes to run it again."""
    crops = [photo[30 * n : 30 * n + 60, 70 * n : 70 * n + 66] for n in range(5)]
    content = tar_of({f"benchmark/Set5/HR/{n}.png": to_png(crop) for n, crop in enumerate(crops)})
    with served(content) as (url, _):
        settings = {**tiny_settings(Path("Set5")), "training.steps": STEPS}
        (archive,) = archive_at(url, content)
        whole = Command(archive, settings, {}, {})
        folder = tmp_path_factory.mktemp("undisturbed")
        assert not whole.run(folder)
        whole.expected, whole.events = result(folder), json.loads((folder / "events.json").read_text())
        yield whole


def result(folder: Path) -> dict[str, Any]:
    """All that does not tell of times and places: images, decoded ones, weights, curve, figures."""
    check_what_is_there(folder)
    (record,) = (read_record(path) for path in folder.glob("reports/quick/runs/*.json"))
    (checkpoint,) = (load_checkpoint(path) for path in folder.glob("cache/checkpoints/*.ckpt"))
    told = ("key", "settings", "checksums", "evaluation", "bicubic", "curve", "weights_sha256", "parameters")
    return {
        "record": {name: record[name] for name in told},
        "weights": {name: value.numpy().tobytes() for name, value in checkpoint["model"].items()},
        "images": {path.name: path.read_bytes() for path in folder.glob("data/Set5/*")},
        "decoded": {
            (path.parent.name, path.name): np.load(path).tobytes() for path in folder.glob("cache/images/*/*/*.npy")
        },
    }


def check_what_is_there(folder: Path) -> None:
    """Nothing under its final name is half there, at any time."""
    for path in (*folder.glob("reports/*/*/*.json"), *folder.glob("cache/images/*/*/*.json")):
        read_record(path)
    for path in folder.glob("cache/checkpoints/*.ckpt"):
        assert load_checkpoint(path) is not None
    for path in folder.glob("data/Set5"):
        assert len(list(path.iterdir())) == KNOWN_SETS["Set5"].count


def check_the_end(folder: Path, command: Command) -> None:
    """As undisturbed, bit for bit; nothing is left over; the step in which the training was killed was made again."""
    assert result(folder) == command.expected
    names = [path.name for path in folder.rglob("*")]
    assert not [name for name in names if ".part" in name or name.startswith("tmp")]
    assert STEPS <= len((folder / "steps").read_bytes()) <= STEPS + 1


def test_leftovers_of_the_dead_are_removed_and_not_those_of_the_living(tmp_path):
    path = tmp_path / "a[b].json"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f"{_parts_of(path)}{dead.pid}-k1ll3d.part"
    left.touch()
    with atomic_write(path, "w") as living:
        living.write("first")
        assert not left.exists()
        writing = set(tmp_path.iterdir())
        assert [file.suffix for file in writing] == [".part"]
        with atomic_write(path, "w") as another:
            another.write("second")
        assert set(tmp_path.iterdir()) == {*writing, path}
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_interrupted_at_any_line_before_the_first_byte(tmp_path):
    """Ctrl-C at each line that runs from the call to the body, this package's or a library's: no file stays."""
    lines = 0

    def interrupt(*event):
        nonlocal left
        left -= event[1] == "line"
        if left < 0:
            raise KeyboardInterrupt
        return interrupt

    while True:
        left, writing = lines, atomic_write(tmp_path / "a.json", "w")
        sys.settrace(interrupt)
        try:
            with writing:
                sys.settrace(None)
            break
        except KeyboardInterrupt:
            assert list(tmp_path.iterdir()) == [], f"after {lines} lines"
        finally:
            sys.settrace(None)
        lines += 1
    assert lines > 20
    assert list(tmp_path.iterdir()) == [tmp_path / "a.json"]


@pytest.mark.parametrize("seed", range(5))
def test_killed_once_in_each_phase(command: Command, tmp_path, seed):
    """At a random one of its events: a file is about to be opened, renamed or removed, or in a training step."""
    draw = random.Random(seed)
    for phase in PHASES:  # each is met whole: a kill in one keeps it from its end
        assert command.run(tmp_path, (phase, draw.randint(1, command.events[phase])))
        check_what_is_there(tmp_path)
    assert not command.run(tmp_path)
    check_the_end(tmp_path, command)
