"""Where things are, and how files are written so that nothing is ever half there."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

DATA_VARIABLE = "PRFFN_DATA"
CACHE_VARIABLE = "PRFFN_CACHE"
REPORTS_VARIABLE = "PRFFN_REPORTS"
WEIGHTS_VARIABLE = "PRFFN_WEIGHTS"
TEXT_PROGRESS_VARIABLE = "PRFFN_TEXT_PROGRESS"

RECORDED = "cpu"
"""The profile of the recorded study: its overview is reports/README.md, what a visitor of reports/ sees first."""


def checkout() -> Path:
    """The folder that holds notebooks/ and reports/: the parent of the package (it is installed in editable mode)."""
    return Path(__file__).resolve().parent.parent


def cache_root() -> Path:
    """Checkpoints, decoded images, compiled code and locks: the environment variable PRFFN_CACHE, or .cache in the
    checkout. Where the package is installed without one: prffn in the user's folder of caches."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    if (checkout() / "pyproject.toml").is_file():
        return checkout() / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prffn"


def data_root() -> Path:
    """The folder that holds the image sets, one folder each: PRFFN_DATA, or .cache/data in the checkout."""
    return Path(os.environ.get(DATA_VARIABLE) or cache_root() / "data")


def reports_root() -> Path:
    """Run records and reports: PRFFN_REPORTS, or reports/ in the checkout."""
    return Path(os.environ.get(REPORTS_VARIABLE) or checkout() / "reports")


def weights_root() -> Path | None:
    """The user's folder of network weights, PRFFN_WEIGHTS, if it is set."""
    folder = os.environ.get(WEIGHTS_VARIABLE)
    return Path(folder) if folder else None


def user_path(name: str) -> Path:
    """A path that a user has given, with ~ for the home folder; as it stands where there is no such user."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


@contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO]:
    """Opens a temporary file beside `path` that takes its place only when everything is written and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    encoding = None if "b" in mode else "utf-8"
    try:
        with os.fdopen(descriptor, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Writes JSON that can be read as text, atomically."""
    with atomic_write(path, "w") as file:
        json.dump(content, file, indent=1)
        file.write("\n")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
