"""Where things are, and how files are written so that nothing is ever half there."""

import fcntl
import glob
import json
import operator
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


def whole_number(name: str, value: Any, least: int | None = None) -> int:
    """The value as an int, from any kind of whole number, NumPy's too. Raises ValueError for anything else."""
    if not isinstance(value, bool):
        with suppress(TypeError):
            number = operator.index(value)
            if least is None or number >= least:
                return number
    bound = "" if least is None else f", at least {least}"
    raise ValueError(f"{name} must be a whole number{bound}, got {value!r}")


@contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO]:
    """Opens a temporary file beside `path` that takes its place only when everything is written and on the disk.

    Where that fails, `path` is as it was before. What killed processes left of their own attempts is removed.
    Raises OSError naming `path`, for a full disk for instance, whose own error names no file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    descriptor, name = _temporary_file(path)
    encoding = None if "b" in mode else "utf-8"
    try:
        with os.fdopen(descriptor, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            raise named(error, path) from error
        raise


def named(error: OSError, path: Path) -> OSError:
    """The same error of writing, with the file's name and the way out: the operating system does not give them."""
    found = OSError(
        f"{path} cannot be written ({error}): make room on that disk, or use another one, and run the same again; "
        "nothing that was complete is lost"
    )
    found.errno = error.errno
    return found


def _temporary_file(path: Path) -> tuple[int, str]:
    """A new file beside `path`, open and locked: the lock says that its writer is alive, and ends with it."""
    while True:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with suppress(OSError):  # some network file systems know no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return descriptor, name
        os.close(descriptor)  # taken for a leftover before it was locked


def _remove_leftovers(path: Path) -> None:
    for name in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError), name.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where its writer is alive
            name.unlink()


def write_json(path: Path, content: Any) -> None:
    """Writes JSON that can be read as text, atomically."""
    with atomic_write(path, "w") as file:
        json.dump(content, file, indent=1)
        file.write("\n")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
