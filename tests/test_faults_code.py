"""No file makes the kit run code: nothing in it unpickles, and a pickle that would run some is refused unread."""

import hashlib
import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from conftest import CHECKOUT, tiny_settings

from prffn import __main__ as command_line
from prffn.apps.upscale import network
from prffn.config import experiment
from prffn.models.weights import CHECKPOINT_MAGIC, UnusableCheckpoint, load_network
from prffn.training.loop import train

UNPICKLERS = "(pickle|joblib|dill|cloudpickle|shelve|marshal|jsonpickle)"
RUNS_CODE = re.compile(
    rf"""(?<![.\w])(eval|exec|__import__)\(
    | from\ {UNPICKLERS}\ import | \b{UNPICKLERS}\.(?!UnpicklingError)\w+ | read_pickle
    | torch\.load\((?!.*weights_only=True) | np\.load\((?!.*allow_pickle=False)
    | torch\.(jit\.load|hub\.load\(|package) | yaml\.(unsafe_)?load""",
    re.VERBOSE,
)
"""What in a line of the kit would run code that a file or a text holds."""

ALLOWED = {("notebook.py", "exec("), ("own.py", "exec(")}
"""notebook.experiments_of executes cells of the kit's own notebooks: they are code of the checkout as the modules are,
and whoever could change them could change these; and of a notebook whose path a user gives. It is given what
`find_notebooks` finds; no notebook is ever downloaded or found by a mere name. A test below holds it to that.
own.own_loss executes the file of a loss that a user names by its path, as it was when it was named."""


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)", "torch.load(path, weights_only=False)", "pickle.load(file)",
        "from pickle import loads", "np.load(path)", "np.load(path, allow_pickle=True)", "eval(text)", "exec(text)",
        "yaml.load(text)", "pd.read_pickle(path)", "marshal.loads(text)", "torch.jit.load(path)", "shelve.open(path)",
    ],
)  # fmt: skip
def test_the_search_finds(source):
    assert RUNS_CODE.search(source)


def test_nothing_in_the_kit_runs_code_from_a_file():
    modules = sorted((CHECKOUT / "prffn").rglob("*.py"))
    assert len(modules) > 50
    found = [(path.name, way[0]) for path in modules for way in RUNS_CODE.finditer(path.read_text(encoding="utf-8"))]
    assert set(found) == ALLOWED


BY_NAME = ("evil", "evil.ipynb", "evil.txt", "link", "link.ipynb", "own", "own.ipynb", "./evil.txt")
BY_PATH = ("./evil.ipynb", "{}/evil.ipynb", "kit/../own.ipynb", "kit/notebooks/link.ipynb")


@pytest.mark.parametrize(("name", "executed"), [(n, False) for n in BY_NAME] + [(n, True) for n in BY_PATH])
def test_a_strangers_notebook_is_executed_only_by_its_path(name, executed, tmp_path, monkeypatch):
    """It lies in the current folder, also under a name of the kit's; a link in the kit's folder leads to it."""
    marker, notebooks = tmp_path / "executed", tmp_path / "kit" / "notebooks"
    notebooks.mkdir(parents=True)
    for path, code in {
        tmp_path / "evil.ipynb": f"open({str(marker)!r}, 'w')\nexperiments = {{}}",
        notebooks / "own.ipynb": "experiments = {}",
    }.items():
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), path)
    for other in ("evil.txt", "own.ipynb"):
        shutil.copy(tmp_path / "evil.ipynb", tmp_path / other)
    (notebooks / "link.ipynb").symlink_to(tmp_path / "evil.ipynb")
    monkeypatch.setattr(command_line, "checkout", lambda: tmp_path / "kit")
    monkeypatch.chdir(tmp_path)
    known = executed or name.startswith("own")
    for command in ("plan", "train"):
        assert command_line.main([command, name.format(tmp_path)]) == (0 if known else 1)
        assert marker.exists() == executed
        marker.unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"two notebooks have the name own: .*kit/notebooks/own.ipynb and own.ipynb"):
        command_line.find_notebooks(["own", "./own.ipynb"])


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


@pytest.fixture(params=[True, False], ids=["today's format", "the older one"])
def evil(request, tmp_path) -> Iterator[bytes]:
    """A file of PyTorch's that would run code; fails if it did."""
    buffer, marker = io.BytesIO(), tmp_path / "executed"
    torch.save({"features.0.weight": Evil(marker)}, buffer, _use_new_zipfile_serialization=request.param)
    yield buffer.getvalue()
    assert not marker.exists()


def test_the_pickle_is_evil(tmp_path):
    """It does run where it is unpickled: the test below would notice."""
    torch.save({"a": Evil(tmp_path / "executed")}, tmp_path / "evil.pt")
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.safetensors"])
def test_as_weights(evil, name, tmp_path):
    (tmp_path / name).write_bytes(evil)
    for load in (load_network, lambda path: network(2, path)):
        with pytest.raises(UnusableCheckpoint, match=f"{name} (holds Python objects|is damaged)"):
            load(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"1", {"identity": "x"}, [1]])
def test_other_contents_under_the_right_checksum(content, tmp_path, photo_folder):
    buffer = io.BytesIO(content if isinstance(content, bytes) else b"")
    if not isinstance(content, bytes):
        torch.save(content, buffer)
    payload, path = buffer.getvalue(), tmp_path / "run.ckpt"
    path.write_bytes(CHECKPOINT_MAGIC + hashlib.sha256(payload).digest() + payload)
    with pytest.warns(UserWarning, match=r"run.ckpt is not of this kit and is not used"):
        train(experiment(tiny_settings(photo_folder)), checkpoint=path, progress=False)
