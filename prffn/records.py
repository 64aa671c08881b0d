"""Records: JSON files that carry a checksum of their own content."""

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prffn.files import write_json


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


def read_own_record(path: Path, protocol: int, key_of: Callable[[dict[str, Any]], str]) -> dict[str, Any] | None:
    """A record of a protocol whose key follows from its content; None where there is none.

    key_of: the key that a record's content gives; KeyError where it is of another kind. What is damaged, of another
    kind, or not of the key in its name gets a warning that names the file, and is not used.
    """
    if not path.is_file():
        return None
    try:
        record = read_record(path)
        if record["protocol"] != protocol:
            return None
        if record["key"] == key_of(record):
            return record
        problem = f"{path} is not of the image and weights that it names"
    except DamagedRecord as error:
        problem = str(error)
    except (KeyError, TypeError) as error:
        problem = f"{path} is a record of another kind ({type(error).__name__}: {error})"
    warnings.warn(f"{problem}; it is not used", stacklevel=4)
    return None
