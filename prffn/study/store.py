"""The one store of records: JSON files reports/<profile>/<kind>/<key>.json, each with a checksum of its own content.

Four kinds: runs, evaluations, timings, crops. A record's key is a hash of what was asked, the same on any machine.
"""

import warnings
from collections import UserDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from prffn.files import DamagedRecord, digest, read_record, reports_root, save_record

Record = dict[str, Any]
K = TypeVar("K")


@dataclass(frozen=True)
class Store:
    """The records of one kind at one profile.

    identity: the fields of a record that say what it was asked for, by the names under which they enter its key.
    protocol: of the records; those of another one are passed over. None where they have none.
    """

    profile: str
    kind: str
    identity: Mapping[str, str]
    protocol: int | None = None

    @property
    def folder(self) -> Path:
        return reports_root() / self.profile / self.kind

    def key(self, record: Mapping[str, Any]) -> str:
        """16 hexadecimal digits: a hash of what a record is asked for. Raises KeyError where it does not say that."""
        asked = {"protocol": self.protocol, **record}
        return digest({name: asked[field] for name, field in self.identity.items()})[:16]

    def load(self, key: str) -> Record | None:
        """The record of a key. None where there is none, and, with a warning that names the file, for one that is
        damaged, of another kind, or not of what it says it is."""
        path = self.folder / f"{key}.json"
        try:
            record = read_record(path)
            if self.protocol is not None and record["protocol"] != self.protocol:
                return None
            if self.key(record) == key:
                return record
            problem = f"{path} is not of what it names"
        except FileNotFoundError:
            return None
        except DamagedRecord as error:
            problem = str(error)
        except (KeyError, TypeError) as error:
            problem = f"{path} is a record of another kind ({type(error).__name__}: {error})"
        warnings.warn(f"{problem}; it is not used", stacklevel=2)
        return None

    def all(self) -> list[Record]:
        """All valid records, the oldest first."""
        found = [record for path in sorted(self.folder.glob("*.json")) if (record := self.load(path.stem))]
        return sorted(found, key=lambda record: record["finished"])

    def save(self, record: Record) -> Record:
        """Writes a record with its key and protocol, atomically. Returns it."""
        protocol = {} if self.protocol is None else {"protocol": self.protocol}
        record = {"key": self.key(record), **protocol, **record}
        save_record(self.folder, record["key"], record)
        return record


class Found(UserDict[K, Record]):
    """Records by what was asked for, and which of them are new, by key. Prints as one line."""

    def __init__(self, kind: str, profile: str, records: Mapping[K, Record], new: set[str], note: str = "") -> None:
        super().__init__(records)
        self.kind, self.profile, self.new, self.note = kind, profile, new, note

    def __repr__(self) -> str:
        counts = f"{len(self) - len(self.new)} loaded, {len(self.new)} measured"
        return f"{len(self)} {self.kind} of profile {self.profile}: {counts}{self.note}"
