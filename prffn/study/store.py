"""The one store of records: JSON files reports/<profile>/<kind>/<key>.json, each with a checksum of its own content.

Four kinds: runs, evaluations, timings, crops. A record's key is a hash of what was asked, the same on any machine.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from prffn.files import DamagedRecord, digest, read_record, reports_root, save_record

Record = dict[str, Any]
K = TypeVar("K")


@dataclass(frozen=True)
class Store:
    """The records of one kind at one profile.

    identity_of: what a record was asked for, of which its key is the hash; KeyError for a record of another kind.
    protocol: of the records; those of another one are passed over. None where they have none.
    """

    profile: str
    kind: str
    identity_of: Callable[[Record], Any]
    protocol: int | None = None

    @property
    def folder(self) -> Path:
        return reports_root() / self.profile / self.kind

    def load(self, key: str) -> Record | None:
        """The record of a key. None where there is none, and, with a warning that names the file, for one that is
        damaged, of another kind, or not of what it says it is."""
        path = self.folder / f"{key}.json"
        try:
            record = read_record(path)
            if self.protocol is not None and record["protocol"] != self.protocol:
                return None
            if key_of(self.identity_of(record)) == key:
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
        """Writes a record under its key, atomically. Returns it."""
        key = key_of(self.identity_of(record))
        save_record(self.folder, key, {"key": key, **record})
        return {"key": key, **record}


def key_of(identity: Any) -> str:
    """16 hexadecimal digits."""
    return digest(identity)[:16]


class Found(Mapping[K, Record], Generic[K]):
    """Records by what was asked for, and which of them are new. Prints as one line."""

    def __init__(self, kind: str, profile: str, records: Mapping[K, Record], new: set[str], note: str = "") -> None:
        self.kind, self.profile, self.records, self.new, self.note = kind, profile, records, new, note

    def __getitem__(self, asked: K) -> Record:
        return self.records[asked]

    def __iter__(self) -> Iterator[K]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        counts = f"{len(self) - len(self.new)} loaded, {len(self.new)} measured"
        return f"{len(self)} {self.kind} of profile {self.profile}: {counts}{self.note}"
