"""One page over all reports of a profile: each claim with its verdicts, and the way to every number behind them.

It says nothing that the JSON files of the reports, and the records that these name, do not say.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from prffn.config import check_profile
from prffn.files import RECORDED, atomic_write, checkout, read_record, reports_root
from prffn.reporting.tables import markdown
from prffn.reporting.written import Report, benchmarks, heading_of, reports_of
from prffn.study.claims import DIGITS, NOT_MEASURED, smallest_difference

VERDICTS = ("holds", "does not hold", "not decided", NOT_MEASURED)

MEANING = """\
- **holds**, **does not hold**: the 95 % confidence interval of the difference, paired, over seeds and images, lies
  wholly on one side of zero: on the claim's side, or on the other. *not decided*: zero lies within it. A claim of "no
  harm" or "not worse" is judged in the same way against a small loss, the margin in its cell, instead of zero.
- A cell gives the verdict on one image set, the mean difference measured here, and its interval. `printed` is the
  difference printed in the paper: on the paper's own images, network and training.
- *Smallest difference*: what could be told from none, the median of the intervals' half-widths. An effect smaller than
  that may be there and not be found here."""


def page_path(profile: str) -> Path:
    """Where the page lies: reports/README.md for the recorded study, reports/<profile>/README.md for the others."""
    return (reports_root() if profile == RECORDED else reports_root() / profile) / "README.md"


def write_overview(profile: str) -> Path:
    """Writes the page of a profile from its reports. Returns its path."""
    path = page_path(check_profile(profile))
    text = overview(profile)
    with atomic_write(path, "w") as file:
        file.write(text)
    return path


def overview(profile: str) -> str:
    """The page as Markdown, its links relative to `page_path`. Raises ValueError if the profile has no reports."""
    reports = reports_of(profile)
    base = page_path(profile).parent
    judging = [report for report in reports if report.verdicts]
    others = [report for report in reports if not report.verdicts]
    sections = [
        f"# What holds: the claims at profile {profile}",
        f"Written by `python -m prffn overview --profile {profile}` from the reports' JSON files: no number was typed.",
        *([_in_short(judging), "## How to read the verdicts", MEANING] if judging else []),
        *([f"## At a glance\n\n{markdown(glance(judging))}", "## Claim by claim"] if judging else []),
        *(_claims(report, base) for report in judging),
        *([f"## Tables and figures without claims\n\n{markdown(_without_claims(others, base))}"] if others else []),
        *([f"## Benchmarks\n\n{_benchmarks(base)}"] if benchmarks() else []),
        *([f"## Records\n\n{_RECORDS}", *_records(reports, base)] if any(report.runs for report in reports) else []),
    ]
    return "\n\n".join(sections) + "\n"


def _in_short(judging: Sequence[Report]) -> str:
    """How many claims, what came out, what was trained for them, and what such numbers may be called."""
    kinds = {
        "Claims of the paper": [report for report in judging if not report.name.startswith("beyond")],
        "Questions beyond the paper": [report for report in judging if report.name.startswith("beyond")],
    }
    lines = []
    for kind, reports in kinds.items():
        claims = sum(len({row["claim"] for row in report.verdicts}) for report in reports)
        counts = _counts([row["verdict"] for report in reports for row in report.verdicts])
        found = ", ".join(f"{verdict} {count}" for verdict, count in counts.items() if count)
        if claims:
            lines.append(f"- **{kind}: {claims}.** Verdicts, one for each image set: {found}.")
    records = {record for report in judging for group in report.records().values() for record in group}
    seconds = [read_record(record)["train_seconds"] for record in sorted(records) if record.is_file()]
    missing = len(records) - len(seconds)
    labels = "; ".join(dict.fromkeys(report.content["label"] for report in judging))
    lines.append(
        f"- Behind them stand {len(records)} training runs, {sum(seconds) / 3600:.1f} hours in all"
        f"{f' (without {missing} whose records are missing)' if missing else ''}; a run that several reports need "
        "counts once."
    )
    lines.append(f"- All numbers that are not called printed: {labels}.")
    return "\n".join(lines)


def _counts(verdicts: Sequence[str]) -> dict[str, int]:
    """How often each verdict was given, in the order of VERDICTS, and any other after them."""
    return {verdict: verdicts.count(verdict) for verdict in dict.fromkeys((*VERDICTS, *verdicts))}


def glance(judging: Sequence[Report]) -> pd.DataFrame:
    """One row for each report: its verdicts counted, and how much was trained for them."""
    rows = []
    for report in judging:
        counts = _counts([row["verdict"] for row in report.verdicts])
        rows.append({
            "report": f"[{report.title}](#{slug(report.title)})",
            "claims": str(len({row["claim"] for row in report.verdicts})),
            **{verdict: str(count) for verdict, count in counts.items()},
            "smallest difference": smallest_difference(report.verdicts),
            "seeds": report.seeds,
            "runs": str(len({key for group in report.runs.values() for key in group})),
            "training": report.made.get("training time in all"),
        })  # fmt: skip
    table = pd.DataFrame(rows).set_index("report").fillna("")
    return table.drop(columns=NOT_MEASURED) if (table[NOT_MEASURED] == "0").all() else table


def claim_table(verdicts: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row for each claim, a column for each image set; `printed` where any difference was printed.

    verdicts: rows of `claim`, `set`, `verdict`; `difference`, `low`, `high` where measured; `printed` where compared.
    """
    sets = dict.fromkeys(row["set"] for row in verdicts)
    any_printed = any(row.get("printed") is not None for row in verdicts)
    rows: dict[str, dict[str, str]] = {}
    for row in verdicts:
        cells = rows.setdefault(row["claim"], {"claim": row["claim"]})
        if any_printed:
            printed = row.get("printed")
            cells["printed"] = "not printed" if printed is None else signed(printed, DIGITS[row.get("unit") or "dB"])
        cells[row["set"]] = verdict_cell(row)
    columns = ["claim", *(["printed"] if any_printed else []), *sets]
    return pd.DataFrame(rows.values(), columns=columns).set_index("claim").fillna("")


def verdict_cell(row: Mapping[str, Any]) -> str:
    """A verdict with its evidence, in Markdown: "**holds** +0.137 [+0.049, +0.225]"."""
    verdict, digits = row["verdict"], DIGITS[row.get("unit") or "dB"]
    cell = f"**{verdict}**" if verdict in ("holds", "does not hold") else f"*{verdict}*"
    if row.get("difference") is not None:
        cell += f" {signed(row['difference'], digits)}"
        if row.get("low") is not None and row.get("high") is not None:
            cell += f" [{signed(row['low'], digits)}, {signed(row['high'], digits)}]"
    return f"{cell}, margin {row['margin']:g}" if row.get("margin") is not None else cell


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign, even where all its decimals are zeros: on which side of zero it lies, decides."""
    return f"{value:+.{digits}f}"


def _claims(report: Report, base: Path) -> str:
    """A report's section: its answer, its claims, what they rest on, and the way to its files."""
    facts = {
        "profile": report.content["profile"],
        "seeds": report.seeds,
        "smallest difference": smallest_difference(report.verdicts) or "none, there is no interval",
        **{
            name: report.made.get(name)
            for name in ("scale", "network", "parameters", "training images", "steps", "device")
        },
    }
    basis = "; ".join(f"{name}: {value}" for name, value in facts.items() if value)
    table = markdown(claim_table(report.verdicts))
    answer = [report.content["answer"]] if "answer" in report.content else []
    return "\n\n".join([f"### {report.title}", *answer, table, f"{basis}.", files(report, base)])


def files(report: Report, base: Path, page: str = "") -> str:
    """Links, relative to a folder, to the notebook, the report, its figure and data, and to the records behind it.

    page: of the overview, relative to the folder; empty on the overview itself.
    """
    paths = {
        "notebook": checkout() / "notebooks" / f"{report.name}.ipynb",
        "report": report.file(".md"),
        "figure": report.file(".png"),
        "CSV": report.file(".csv"),
        "JSON": report.path,
    }
    folder = report.path.parent
    if "timings" in report.content:
        paths["record of timings"] = folder / "timings" / f"{report.content['timings']}.json"
    for kind in ("evaluations", "crops"):
        if report.content.get(kind):
            paths[f"records of {kind}"] = folder / kind
    links = [_link(text, path, base) for text, path in paths.items() if path.exists()]
    if report.runs:
        links.append(f"[records of runs]({page}#{slug(_records_heading(report))})")
    return ", ".join(links)


def _without_claims(reports: Sequence[Report], base: Path) -> pd.DataFrame:
    rows = [
        {
            "what": report.title,
            "answer": report.content.get("answer", ""),
            "its numbers": report.content["label"],
            "files": files(report, base),
        }
        for report in reports
    ]
    return pd.DataFrame(rows).set_index("what")


def _benchmarks(base: Path) -> str:
    """A line for each benchmark. They are of one machine and one day, and belong to no profile."""
    lines = []
    for path in benchmarks():
        others = {
            "figure": path.with_suffix(".png"),
            "CSV": path.with_suffix(".csv"),
            "JSON": path.with_suffix(".json"),
        }
        links = [_link(text, file, base) for text, file in others.items() if file.is_file()]
        lines.append(f"- {', '.join([_link(heading_of(path), path, base), *links])}")
    return "\n".join(lines)


_RECORDS = (
    "Each run behind each row, one for each seed: settings, figures of every image, curve, versions, device, time, "
    "memory, commit, and a checksum of all that."
)


def _records_heading(report: Report) -> str:
    return f"Records of {report.name}"


def _records(reports: Sequence[Report], base: Path) -> list[str]:
    """A table for each report with runs: a row for each label, a link for each seed."""
    sections = []
    for report in reports:
        rows = [
            {"label": label, **{f"seed {n}": _link(file.stem[:8], file, base) for n, file in enumerate(files)}}
            for label, files in report.records().items()
        ]
        if rows:
            table = pd.DataFrame(rows).set_index("label").fillna("")
            sections.append(f"### {_records_heading(report)}\n\n{markdown(table)}")
    return sections


def _link(text: str, path: Path, base: Path) -> str:
    return f"[{text}]({os.path.relpath(path, base).replace(os.sep, '/')})"


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading: lower case, without punctuation, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
