"""Where things are; how files are written so that none is ever half there, and read so that no damaged one is used."""

import difflib
import glob
import hashlib
import json
import operator
import os
import pickle
import platform
import sys
import time
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

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
    with suppress(RuntimeError):
        return Path(name).expanduser()
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


PATIENCE = 2.0  # seconds for which Windows is asked again to replace a file that another program has open


@contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO]:
    """Opens a temporary file beside `path` that takes its place only when everything is written and on the disk.

    Text is UTF-8 with "\\n" on every system. Where writing fails, `path` is as it was before. Temporary files left
    behind by killed processes are removed.
    Raises OSError naming `path`, for a full disk for instance, whose own error names no file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    part = path.with_name(f"{_parts_of(path)}{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:  # from here on: Ctrl-C may come between any two lines, and leaves nothing either
        with part.open(mode, **text) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        _replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            raise named(error, path) from error
        raise


def _parts_of(path: Path) -> str:
    """How the names of this machine's temporary files for `path` begin; the number of the writing process follows."""
    return f".{path.name}.{hashlib.sha256(platform.node().encode()).hexdigest()[:8]}-"


def _remove_leftovers(path: Path) -> None:
    """Removes temporary files left behind by killed processes of this machine."""
    from psutil import pid_exists  # type: ignore[import-untyped]  # the loss alone does without

    begin = _parts_of(path)
    for part in path.parent.glob(f"{glob.escape(begin)}*.part"):
        if not pid_exists(int(part.name.removeprefix(begin).partition("-")[0])):
            with suppress(OSError):  # another process may have removed it, or just look at it
                part.unlink()


def named(error: OSError, path: Path) -> OSError:
    """The same error of writing, with the file's name and the way out: the operating system does not give them."""
    found = OSError(f"{path} cannot be written ({error}): make room on that disk, and run the same again")
    found.errno = error.errno
    return found


def _replace(part: Path, path: Path) -> None:
    """Puts a complete, closed file in the place of `path`. Windows refuses while a reader has that open: it waits."""
    given_up = time.monotonic() + PATIENCE
    while True:
        try:
            os.replace(part, path)
            return
        except PermissionError as error:
            if sys.platform != "win32":
                raise
            if time.monotonic() > given_up:
                reason = "is open in another program, perhaps a notebook, or may not be written: close it there"
                raise PermissionError(error.errno, reason, str(path)) from error
        time.sleep(0.05)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON that can be read as text, atomically."""
    with atomic_write(path, "w") as file:
        json.dump(content, file, indent=1)
        file.write("\n")


class DamagedRecord(ValueError):
    """A record's content does not match its checksum or its key."""


def digest(content: Any) -> str:
    """SHA-256 of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def save_record(store: Path, key: str, record: dict[str, Any]) -> None:
    """Writes a record with its checksum, atomically."""
    content = json.loads(json.dumps(record))  # as it will be read: tuples are lists
    write_json(store / f"{key}.json", {"sha256": digest(content), **content})


def read_record(path: Path) -> dict[str, Any]:
    """A record from its file. Raises DamagedRecord, naming the file, if a single character of its content differs."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        recorded = content.pop("sha256")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedRecord(f"{path} is not a run record ({type(error).__name__}: {error})") from error
    if digest(content) != recorded or content.get("key") != path.stem:
        raise DamagedRecord(f"{path} was changed after it was written: its checksum does not match")
    return content


class DamagedTensors(ValueError):
    """A file is not what torch.save wrote, or holds more than tensors; the message says why, and the way out."""


def load_tensors(path: Path) -> Any:
    """What torch.save has written, on the CPU: tensors and the plain containers around them.

    PyTorch writes a CRC-32 beside each tensor and does not compare it: a flipped bit would pass. Here it is compared,
    unless it is 0, which stands for one that was not computed. Files from before PyTorch 1.6 have none.
    Raises DamagedTensors naming the file; FileNotFoundError if there is none, PermissionError where it may not be read.
    """
    import torch  # slow to load, and the command line reads this module for its --help

    try:
        if zipfile.is_zipfile(path):
            _compare_sums(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise  # each names the file
    except pickle.UnpicklingError as error:
        why = "holds Python objects, which could run any code, perhaps a whole pickled network, or is damaged"
        raise DamagedTensors(f"{path} {why}: where you trust it, load it and save its state_dict()") from error
    except Exception as error:
        raise DamagedTensors(f"{path} is damaged, or not a file of PyTorch's ({error!r}); get it again") from error


def _compare_sums(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.CRC:
                with archive.open(member) as content:
                    while content.read(1 << 20):  # the last one compares
                        pass


def weights_sha256(weights: "nn.Module | Mapping[str, Tensor]") -> str:
    """SHA-256 of a network's weights in the order of their names: equal for bit-identical networks."""
    total = hashlib.sha256()
    state = weights if isinstance(weights, Mapping) else weights.state_dict()
    for name, value in sorted(state.items()):
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


@contextmanager
def from_extra(extra: str) -> Iterator[None]:
    """Around imports of packages that an extra brings. Raises ImportError with the way to install what is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        message = f'the package {package} is not installed: pip install "prffn[{extra}]"'
        raise ImportError(message, name=error.name) from error


def in_one_line(error: Exception) -> str:
    """An error's kind and the first line of what it says."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def unknown(kind: str, name: object, choices: Any) -> str:
    """The text of an error for a misspelt name: what it was, the nearest choice, all choices.

    Nearest, in capitals or not, is a choice that starts with the name, else one that contains it, else one like it.
    """
    choices, typed = {str(choice).casefold(): str(choice) for choice in choices}, str(name).casefold()
    starting = [choice for choice in sorted(choices) if typed and choice.startswith(typed)]
    within = starting or [choice for choice in sorted(choices) if typed and typed in choice]
    near = difflib.get_close_matches(typed, within or sorted(choices), n=1, cutoff=0 if within else 0.5)
    hint = f" Did you mean {choices[near[0]]!r}?" if near else ""
    return f"unknown {kind} {name!r}.{hint} Choose one of: {', '.join(sorted(choices.values()))}"
