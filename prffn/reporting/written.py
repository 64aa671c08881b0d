"""The reports that notebooks and benchmarks have written: found by kind, read, put into the paper's order."""

import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prffn.config import check_profile
from prffn.files import reports_root
from prffn.reporting.tables import KIND
from prffn.study.claims import seeds_of


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
    def made(self) -> dict[str, Any]:
        """How its runs were trained; of a report that has columns of provenance, the one of the trainings."""
        made = self.content.get("provenance", {})
        return made.get("training", made)

    @property
    def seeds(self) -> str:
        """How many seeds the rows of the table have: "5", or "1 to 5"."""
        return seeds_of(self.runs)

    def records(self) -> dict[str, list[Path]]:
        """Files of the runs' records by label, one for each seed."""
        folder = self.path.parent / "runs"
        return {label: [folder / f"{key}.json" for key in keys] for label, keys in self.runs.items()}

    def file(self, suffix: str) -> Path:
        """The report's file of another kind, such as `.md`."""
        return self.path.with_suffix(suffix)


def reports_of(profile: str) -> list[Report]:
    """The reports of a profile: tables and figures in the paper's order, what goes beyond it, the rest, the structure.

    A report is a JSON file of kind "report". One that names no kind is left out with a warning, another kind is none of
    the overview's. Raises ValueError if there are none, or naming the file that cannot be read.
    """
    reports = []
    for path in sorted((reports_root() / check_profile(profile)).glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} cannot be read ({error}): run its notebook again, or move the file") from error
        kind = content.get("kind") if isinstance(content, dict) else None
        if kind == KIND and not {"title", "profile", "label"} <= set(content):
            raise ValueError(f"{path} lacks the title, profile or label of a report: run its notebook again")
        if kind == KIND:
            reports.append(Report(path, content))
        elif kind is None:
            warnings.warn(f"{path} is no report of this version and is left out: run its notebook again", stacklevel=2)
    if not reports:
        raise ValueError(f"no reports in {reports_root() / profile}: python -m prffn reports --profile {profile}")
    return sorted(reports, key=lambda report: _place(report.name))


def _place(name: str) -> tuple[int, int, str]:
    kinds = ("table", "fig", "beyond", "", "architecture")  # every name starts with the empty one
    kind = next(kind for kind in sorted(kinds, reverse=True) if name.startswith(kind))
    number = re.match(r"[a-z]+(\d+)", name)
    return kinds.index(kind), int(number[1]) if number else 0, name


def benchmarks() -> list[Path]:
    """The benchmarks' reports, reports/bench/*.md with the record beside each, which belong to no profile."""
    return [page for page in sorted((reports_root() / "bench").glob("*.md")) if page.with_suffix(".json").is_file()]


def read_text(path: Path) -> str:
    """A text in UTF-8. Raises ValueError naming the file that is none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text ({error}): write it again") from error


def heading_of(path: Path) -> str:
    """The heading of a Markdown file: its first line. Raises ValueError where that is something else."""
    first = read_text(path).partition("\n")[0]
    if not first.startswith("# "):
        raise ValueError(f"{path} must begin with a heading such as '# Time and memory', got {first[:40]!r}")
    return first.removeprefix("# ")
