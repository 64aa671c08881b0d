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
from prffn.reporting.written import Report, benchmarks, reports_of
from prffn.study.claims import DIGITS, LESS, NOT_MEASURED, OPEN, WOULD_DECIDE, smallest_difference, with_interval
from prffn.study.intervals import holm

HEADLINES = ("beyond_when", "beyond_scale", "beyond_negatives", "beyond_baseline")
"""Reports whose answers open the page, each with its figure."""

VERDICTS = ("holds", LESS, "does not hold", OPEN, NOT_MEASURED)

MEANING = """\
- **holds**, **does not hold**: the 95 % confidence interval of the difference, paired, over seeds and images, lies
  wholly on one side of zero: on the claim's side, or on the other. *not decided*: zero lies within it. *less than
  printed*: zero lies within it, and all of it lies below the printed difference: there is no such gain here, only a
  smaller one or none. A claim of "no harm" is judged against a small loss, the margin in its cell, instead of zero.
- Of many verdicts some come out by chance: of a hundred claims with nothing in them, five. *After Holm's correction*
  only those count that leave a chance of 5 % that any one of them is false.
- What would decide an open claim: an estimate from the scatter over seeds and images, if mean and scatter stayed.
- A cell gives the verdict on one image set, the mean difference measured here, and its interval. `printed` is the
  difference printed in the paper: on the paper's own images, network and training.
- *Smallest difference*: what could be told from none, the median of the intervals' half-widths. An effect smaller than
  that may be there and not be found here."""

RECORDS = (
    "Each run behind each row, one for each seed: settings, figures of every image, curve, versions, device, time, "
    "memory, commit, and a checksum of all that."
)


def page_path(profile: str) -> Path:
    """Where the page lies: reports/README.md for the recorded study, reports/<profile>/README.md for the others."""
    return (reports_root() if profile == RECORDED else reports_root() / profile) / "README.md"


def write_overview(profile: str) -> Path:
    """Writes the page of a profile from its reports. Returns its path."""
    path, text = page_path(check_profile(profile)), overview(profile)
    with atomic_write(path, "w") as file:
        file.write(text)
    return path


def overview(profile: str) -> str:
    """The page as Markdown, its links relative to `page_path`. Raises ValueError if the profile has no reports."""
    reports = reports_of(profile)
    base = page_path(profile).parent
    judging = [report for report in reports if report.verdicts]
    others = [report for report in reports if not report.verdicts]
    trained = [report for report in reports if report.runs]
    sections = [
        f"# What holds: the claims at profile {profile}",
        f"Written by `python -m prffn overview --profile {profile}` from the reports' JSON files: no number was typed.",
    ]
    opening = [report for name in HEADLINES for report in judging if report.name == name]
    sections += ["\n\n".join(_headline(report, base) for report in opening)] if opening else []
    if judging:
        sections += ["## In short", _in_short(judging), "## How to read the verdicts", MEANING]
        sections += ["## At a glance", markdown(glance(judging)), "## Claim by claim"]
        sections += [_claims(report, base) for report in judging]
    if others:
        sections += ["## Tables and figures without claims", markdown(_without_claims(others, base))]
    if found := benchmarks():
        lines = [
            f"- {_link(report.title, report.path.with_suffix('.md'), base)}, {_data(report, base)}" for report in found
        ]
        sections += ["## Benchmarks", "\n".join(lines)]
    if trained:
        sections += ["## Records", RECORDS, *(_records(report, base) for report in trained)]
    return "\n\n".join(sections) + "\n"


def _headline(report: Report, base: Path) -> str:
    """A report's question, its answer, its figure."""
    figure = os.path.relpath(report.path.with_suffix(".png"), base).replace(os.sep, "/")
    return f"## {report.title}\n\n{report.content['answer']}\n\n![{report.title}]({figure})"


def _in_short(judging: Sequence[Report]) -> str:
    """How many claims, what came out, what was trained for them, and what such numbers may be called."""
    lines = []
    for kind, beyond in (("Claims of the paper", False), ("Questions beyond the paper", True)):
        reports = [report for report in judging if report.name.startswith(("table", "fig")) != beyond]
        counts = _counts([row for report in reports for row in report.verdicts])
        found = ", ".join(f"{verdict} {count}" for verdict, count in counts.items() if count)
        if reports:
            claims = sum(_claim_count(report) for report in reports)
            corrected = _after_holm([row for report in reports for row in report.verdicts])
            lines.append(f"- **{kind}: {claims}.** Verdicts, one for each image set: {found}.{corrected}")
    records = {report.record(key) for report in judging for keys in report.runs.values() for key in keys}
    seconds = [read_record(record)["train_seconds"] for record in sorted(records) if record.is_file()]
    missing = len(records) - len(seconds)
    lines.append(
        f"- Behind them stand {len(records)} training runs, {sum(seconds) / 3600:.1f} hours in all"
        f"{f' (without {missing} whose records are missing)' if missing else ''}; a run that several reports need "
        "counts once."
    )
    labels = "; ".join(dict.fromkeys(report.content["label"] for report in judging))
    lines.append(f"- All numbers that are not called printed: {labels}.")
    return "\n".join(lines)


def _after_holm(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """How many verdicts stand after Holm's correction for their number; empty where none has a p value."""
    judged = [row for row in verdicts if row.get("p") is not None]
    if not judged:
        return ""
    pairs = zip(judged, holm([row["p"] for row in judged]), strict=True)
    counts = _counts([row for row, p in pairs if p < 0.05])
    return f" After Holm's correction: holds {counts['holds']}, does not hold {counts['does not hold']}."


def _counts(verdicts: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How often each verdict was given."""
    given = [row["verdict"] for row in verdicts]
    return {verdict: given.count(verdict) for verdict in VERDICTS}


def _claim_count(report: Report) -> int:
    return len({row["claim"] for row in report.verdicts})


def glance(judging: Sequence[Report]) -> pd.DataFrame:
    """One row for each report: its verdicts counted, and how much was trained for them."""
    rows = [
        {
            "report": f"[{report.title}](#{slug(report.title)})",
            "claims": str(_claim_count(report)),
            **{verdict: str(count) for verdict, count in _counts(report.verdicts).items()},
            "smallest difference": smallest_difference(report.verdicts),
            "seeds": report.seeds,
            "runs": str(len({key for keys in report.runs.values() for key in keys})),
            "training": report.made.get("training time in all"),
        }
        for report in judging
    ]
    table = pd.DataFrame(rows).set_index("report").fillna("")
    return table.drop(columns=NOT_MEASURED) if (table[NOT_MEASURED] == "0").all() else table


def claim_table(verdicts: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row for each claim, a column for each image set; `printed` where any difference was printed.

    verdicts: rows of `claim`, `set`, `verdict`; `difference`, `low`, `high` where measured; `printed` where compared.
    """
    sets = dict.fromkeys(row["set"] for row in verdicts)
    rows: dict[str, dict[str, str]] = {}
    for row in verdicts:
        cells = rows.setdefault(row["claim"], {"claim": row["claim"], "printed": "not printed"})
        if row.get("printed") is not None:
            cells["printed"] = with_interval({"printed": row["printed"]}, "printed", digits=_digits(row))
        cells[row["set"]] = verdict_cell(row)
    table = pd.DataFrame(rows.values(), columns=["claim", "printed", *sets]).set_index("claim").fillna("")
    return table if (table["printed"] != "not printed").any() else table.drop(columns="printed")


def verdict_cell(row: Mapping[str, Any]) -> str:
    """A verdict with its evidence, in Markdown: "**holds** +0.137 [+0.049, +0.225]"."""
    verdict = row["verdict"]
    cell = f"**{verdict}**" if verdict in ("holds", "does not hold") else f"*{verdict}*"
    if row.get("difference") is not None:
        cell += f" {with_interval(row, digits=_digits(row))}"
    cell += f", margin {row['margin']:g}" if row.get("margin") is not None else ""
    return f"{cell}; {row[WOULD_DECIDE]} would decide" if row.get(WOULD_DECIDE) else cell


def _digits(row: Mapping[str, Any]) -> int:
    return DIGITS[row.get("unit") or "dB"]


def _claims(report: Report, base: Path) -> str:
    """A report's section: its answer, its claims, what they rest on, and the way to its files."""
    facts = {
        "profile": report.content["profile"],
        "seeds": report.seeds,
        "smallest difference": smallest_difference(report.verdicts) or "none, there is no interval",
    }
    facts |= {
        name: report.made.get(name) for name in ("scale", "network", "parameters", "training images", "steps", "device")
    }
    basis = "; ".join(f"{name}: {value}" for name, value in facts.items() if value)
    table = markdown(claim_table(report.verdicts))
    answer = [report.content["answer"]] if "answer" in report.content else []
    return "\n\n".join([f"### {report.title}", *answer, table, f"{basis}.", _files(report, base)])


def _files(report: Report, base: Path) -> str:
    """Links, relative to a folder, to the notebook, the report, its figure and data, and to the records behind it."""
    folder = report.path.parent
    notebook, page = checkout() / "notebooks" / f"{report.name}.ipynb", report.path.with_suffix(".md")
    links = [_link(text, path, base) for text, path in {"notebook": notebook, "report": page}.items() if path.exists()]
    links.append(_data(report, base))
    if "timings" in report.content:
        links.append(_link("record of timings", folder / "timings" / f"{report.content['timings']}.json", base))
    links += [
        _link(f"records of {kind}", folder / kind, base)
        for kind in ("evaluations", "crops")
        if report.content.get(kind)
    ]
    if report.runs:
        links.append(f"[records of runs](#{slug(f'Records of {report.name}')})")
    return ", ".join(links)


def _data(report: Report, base: Path) -> str:
    """Links to a report's figure and data."""
    suffixes = {"figure": ".png", "CSV": ".csv", "JSON": ".json"}
    files = {text: report.path.with_suffix(suffix) for text, suffix in suffixes.items()}
    return ", ".join(_link(text, path, base) for text, path in files.items() if path.exists())


def _without_claims(reports: Sequence[Report], base: Path) -> pd.DataFrame:
    rows = {
        report.title: {
            "answer": report.content.get("answer", ""),
            "its numbers": report.content["label"],
            "files": _files(report, base),
        }
        for report in reports
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("what")


def _records(report: Report, base: Path) -> str:
    """A table of a report's runs: a row for each label, a link for each seed."""
    rows = {
        label: {f"seed {n}": _link(key[:8], report.record(key), base) for n, key in enumerate(keys)}
        for label, keys in report.runs.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("label").fillna("")
    return f"### Records of {report.name}\n\n{markdown(table)}"


def _link(text: str, path: Path, base: Path) -> str:
    return f"[{text}]({os.path.relpath(path, base).replace(os.sep, '/')})"


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading: lower case, without punctuation, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
