"""The reports that notebooks and benchmarks have written: found, read, put into the paper's order."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prffn.config import check_profile
from prffn.files import reports_root
from prffn.reporting.report import KIND
from prffn.study.claims import counts_of, seeds_of


@dataclass(frozen=True)
class Report:
    """What a notebook wrote: reports/<profile>/<name>.{md,csv,png,json}."""

    path: Path  # of the JSON file
    content: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def title(self) -> str:
        return self.content["title"]

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        """One row for each claim and image set; none where the report judges nothing."""
        return self.content.get("verdicts", [])

    @property
    def runs(self) -> dict[str, list[str]]:
        """Keys of the runs' records by label, one for each seed."""
        return self.content.get("runs", {})

    @property
    def seeds(self) -> str:
        """How many seeds the rows of the table have: "5", or "1 to 5"."""
        return seeds_of(counts_of(self.runs))

    @property
    def made(self) -> dict[str, Any]:
        """How its runs were trained; of a report that has columns of provenance, the one of the trainings."""
        made = self.content.get("provenance", {})
        return made.get("training", made)

    def record(self, key: str) -> Path:
        """The file of a run's record."""
        return self.path.parent / "runs" / f"{key}.json"


def reports_of(profile: str) -> list[Report]:
    """The reports of a profile: tables and figures in the paper's order, what goes beyond it, the rest, the structure.

    Raises ValueError if there are none, or naming the file that cannot be read.
    """
    folder = reports_root() / check_profile(profile)
    if not (reports := _reports_in(folder)):
        raise ValueError(f"no reports in {folder}: python -m prffn reports --profile {profile}")
    return sorted(reports, key=lambda report: _place(report.name))


def benchmarks() -> list[Report]:
    """The benchmarks' reports, reports/bench/: of one machine and one day, they belong to no profile."""
    return _reports_in(reports_root() / "bench")


def _reports_in(folder: Path) -> list[Report]:
    reports = []
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} cannot be read ({error}): run its notebook again, or move the file") from error
        if isinstance(content, dict) and content.get("kind") == KIND:
            reports.append(Report(path, content))
    return reports


def _place(name: str) -> tuple[int, int, str]:
    kinds = ("table", "fig", "beyond", "", "architecture")  # every name starts with the empty one
    kind = next(kind for kind in sorted(kinds, reverse=True) if name.startswith(kind))
    number = re.match(r"[a-z]+(\d+)", name)
    return kinds.index(kind), int(number[1]) if number else 0, name
