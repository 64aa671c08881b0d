"""A report: what a notebook writes for people and for the overview, four files of one name."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from prffn.files import atomic_write, reports_root, write_json
from prffn.reporting.plots import save_figure
from prffn.reporting.tables import compare_with_bicubic, gradient_shares, markdown, provenance_table, summary
from prffn.study.claims import LABELS, answer, conclusion
from prffn.study.runs import Runs

KIND = "report"  # what a report's JSON file says it is

SHARES = """## What each term asks of the network

Norm of the gradient of each weighted term in the SR images, as a part of their sum: at the first validation of the
training, and at its last."""


def write_report(
    name: str,
    profile: str,
    *,
    title: str,
    label: str,
    table: pd.DataFrame,
    figure: Figure,
    provenance: pd.DataFrame,
    sections: Sequence[str],
    dpi: int | None = None,
    **content: Any,
) -> str:
    """Writes reports/<profile>/<name>.{csv,png,json,md}, each atomically. Returns the path from the reports' root.

    label: what its numbers may be called. sections: of the page, between the answer and what says where it was
    measured. content: what else the JSON file holds, by which the overview finds the answer, verdicts and records.
    """
    folder = reports_root() / profile
    with atomic_write(folder / f"{name}.csv", "w") as file:
        table.to_csv(file, lineterminator="\n")
    save_figure(figure, folder / f"{name}.png", **({"dpi": dpi, "pil_kwargs": {"optimize": True}} if dpi else {}))
    made = provenance.to_dict()
    about = {"kind": KIND, "title": title, "profile": profile, "label": label}
    content |= {"provenance": made.get("value", made)}  # of one kind of records, or a column for each
    write_json(folder / f"{name}.json", {**about, "table": rows_of(table), **content})
    where = ["## What was measured, where, how", markdown(provenance), f"The records' keys stand in `{name}.json`."]
    answer = [content["answer"]] if "answer" in content else []
    with atomic_write(folder / f"{name}.md", "w") as file:
        file.write("\n\n".join([f"# {title}", *answer, *sections, *where]) + "\n")
    return f"{reports_root().name}/{profile}/{name}.md"


def save(
    name: str,
    runs: Runs,
    table: pd.DataFrame,
    verdicts: pd.DataFrame,
    figure: Figure,
    *,
    title: str,
    more: Mapping[str, pd.DataFrame] | None = None,
    said: str | None = None,
) -> str:
    """Writes the report of a table of runs. Returns its path from the reports' root.

    more: further tables, by heading, as they are to be shown. said: the answer; None: that of `claims.answer`.
    """
    return write_report(
        name, runs.profile, title=title, label=LABELS[runs.profile], table=table, figure=figure,
        provenance=provenance_table(runs),
        sections=[
            f"`printed gain`: printed in the paper, of other images. All else: {LABELS[runs.profile]}.",
            markdown(table),
            f"![{title}]({name}.png)",
            "## Conclusion",
            conclusion(runs, verdicts),
            markdown(verdicts),
            *([SHARES, markdown(shares)] if len(shares := gradient_shares(runs)) else []),
            *(part for heading, extra in (more or {}).items() for part in (f"## {heading}", markdown(extra))),
            "## All metrics (means over images and seeds; LPIPS: lower is better)",
            markdown(summary(runs)),
            "## The networks beside bicubic (PSNR-Y, dB)",
            markdown(compare_with_bicubic(runs)),
        ],
        answer=said or answer(runs, verdicts),
        verdicts=rows_of(verdicts),
        runs=keys_of(runs),
    )  # fmt: skip


def keys_of(runs: Runs) -> dict[str, list[str]]:
    """The keys of the runs' records by label, one for each seed."""
    return {label: [run.key for run in group] for label, group in runs.items()}


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The table's rows for a JSON file, None where there is no value. pandas' own `to_json` loses the sign of -0.0."""
    flat = table.reset_index().astype(object)
    return flat.where(flat.notna(), None).to_dict(orient="records")
