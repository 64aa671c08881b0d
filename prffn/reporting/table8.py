"""What follows from Table 8's figures, where they come from, and the files of its report."""

import json

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from prffn import paper
from prffn.evaluation.cost import Timings
from prffn.files import atomic_write, reports_root
from prffn.models.comparison import MULTI_ADDS_BOUND, PARAMETER_BOUND
from prffn.reporting.plots import save_figure
from prffn.reporting.table6 import provenance_of
from prffn.reporting.tables import markdown, provenance_table, write_markdown, write_report
from prffn.study.benchmark import PRINTED_SETS, SCALES, notes, scale_table, trained_row
from prffn.study.claims import LABELS, protocol_of
from prffn.study.evaluations import Evaluations
from prffn.study.runs import Runs


def benchmark_conclusion(table: pd.DataFrame, timings: Timings, runs: Runs) -> str:
    """What of Table 8 is met, and what can and cannot be said of PRFFN here, in sentences.

    table: from `compare_networks`.
    """
    return "\n".join([
        f"{protocol_of(runs)}. Run times and trainings: {LABELS[runs.profile]}.",
        "",
        *(f"- {line}" for line in (_counts(table), _times(table), *_checkpoints(table), _best(table), _tsan(table),
                                   _trained(table, runs.profile))),
        "",
        _spread(timings),
    ])  # fmt: skip


def _counts(table: pd.DataFrame) -> str:
    met = table["met"].dropna().astype(bool)
    others: dict[str, list[str]] = {}
    for scale, name in met[~met].index:
        others.setdefault(name, []).append(f"x{scale}")
    names = "; ".join(f"{name} {' '.join(scales)}" for name, scales in others.items())
    return (
        f"Parameters within {PARAMETER_BOUND:g} % and multi-adds within {MULTI_ADDS_BOUND:g} % of the printed: "
        f"{met.sum()} of {len(met)} rows. The others, each with its reason in the notes: {names}."
    )


def _times(table: pd.DataFrame) -> str:
    both = table[["time / PRFFN printed", "time / PRFFN"]].dropna().astype(float)
    both.columns = pd.Index(["printed", "here"])
    rank = [f"{stats.spearmanr(both.loc[s, 'printed'], both.loc[s, 'here']).statistic:.2f} at x{s}" for s in SCALES]
    others = both.drop(index="PRFFN", level=1)
    agree = ((others.printed < 1) == (others.here < 1)).sum()
    apart = np.log(others.here / others.printed).abs().idxmax()
    return (
        f"Run time: rank correlation of printed and measured {', '.join(rank)}. {agree} of {len(others)} are on the "
        f"same side of PRFFN, faster or slower, as in print; furthest from it is {apart[1]} x{apart[0]}, "
        f"{others.printed[apart]:.2f} of PRFFN's time in print and {others.here[apart]:.2f} here."
    )


def _checkpoints(table: pd.DataFrame) -> list[str]:
    """A line for each network of which weights from a file were measured: PSNR measured and printed."""
    lines = []
    files = table[table["weights"].notna() & ~table["weights"].fillna("").str.startswith("trained here")]
    for (scale, name), row in files.iterrows():
        found = []
        for image_set in _measured_sets(table):
            printed = row.get(f"{image_set} PSNR printed", np.nan)
            beside = "" if np.isnan(printed) else f" ({printed:.2f} printed)"
            if not np.isnan(row[f"{image_set} PSNR"]):
                found.append(f"{row[f'{image_set} PSNR']:.2f} dB on {image_set}{beside}")
        lines.append(f"{name} x{scale}, {row.weights} weights: {', '.join(found)}.")
    return lines


def _measured_sets(table: pd.DataFrame) -> list[str]:
    return [name.removesuffix(" PSNR") for name in table if name.endswith(" PSNR")]


def _best(table: pd.DataFrame) -> str:
    exceptions, pairs = [], 0
    for scale in SCALES:
        for image_set in PRINTED_SETS:
            printed = table.loc[scale, f"{image_set} PSNR printed"].dropna()
            pairs += 1
            exceptions += [f"{n} on x{scale} {image_set}" for n in printed.index[printed > printed["PRFFN"]]]
    better = f"; higher is {', '.join(exceptions)}" if exceptions else ""
    return (
        f"In print PRFFN has the highest PSNR on {pairs - len(exceptions)} of {pairs} pairs of scale and set{better}."
    )


def _tsan(table: pd.DataFrame) -> str:
    """What PRFFN needs beside TSAN, the best of the others, at each scale, printed and here."""
    parts = []
    for cost in ("parameters (K)", "multi-adds (G)", "time / PRFFN"):
        more = {
            how: [100 * (table.loc[(s, "PRFFN"), cost + how] / table.loc[(s, "TSAN"), cost + how] - 1) for s in SCALES]
            for how in (" printed", "")
        }
        shown = {how: ", ".join(f"{value:+.0f}" for value in values) for how, values in more.items()}
        name = cost.partition(" ")[0].replace("time", "run time")
        parts.append(f"{name} {shown[' printed']} % in print, {shown['']} % here")
    return f"PRFFN beside TSAN, the best of the others, at x2, x3, x4: {'; '.join(parts)}."


def _trained(table: pd.DataFrame, profile: str) -> str:
    """At `paper`: PRFFN's PSNR less the printed. Else that the small network cannot tell, and what it has learnt."""
    row, parts = trained_row(profile), []
    against = "bicubic" if row != "PRFFN" else "printed"
    for scale in SCALES:
        for image_set in _measured_sets(table):
            rows = table[f"{image_set} PSNR"][scale]
            reference = rows["bicubic"] if row != "PRFFN" else table.loc[(scale, row), f"{image_set} PSNR printed"]
            if not np.isnan([rows[row], reference]).any():
                parts.append(f"{rows[row] - reference:+.2f} dB on x{scale} {image_set}")
    found = f"{row}, trained here, less {against}: {', '.join(parts) or 'not measured'}."
    if row == "PRFFN":
        return found
    sizes = ", ".join(f"{table.loc[(scale, row), 'parameters (K)']:.0f}" for scale in SCALES)
    return (
        "Whether PRFFN's PSNR is as printed, and the order of the networks in PSNR: not decided at this profile, which "
        f"trains a network of {sizes} K parameters for a short time. {found}"
    )


def _spread(timings: Timings) -> str:
    several = [[t["seconds"] for t in turns] for turns in timings.record["measured"].values() if len(turns) > 1]
    if not several:
        return "One turn says nothing of how far a run time varies."
    spread = [100 * (max(turns) - min(turns)) / float(np.median(turns)) for turns in several]
    return (
        f"Between turns a run time varies by {np.median(spread):.0f} % (median of the networks) and up to "
        f"{max(spread):.0f} %: smaller differences mean nothing."
    )


def doubtful() -> pd.DataFrame:
    """What is doubtful in the printed table, from `paper.doubts`."""
    rows = [{"where": d.where, "printed": d.printed, "note": d.note} for d in paper.doubts(8)]
    return pd.DataFrame(rows).set_index("where")


def benchmark_provenance(timings: Timings, runs: Runs, evaluations: Evaluations) -> pd.DataFrame:
    """What was trained, timed and evaluated where and how, read off the records: a column for each."""
    columns = {"training": provenance_table(runs)["value"], "run time": provenance_of(timings)["value"]}
    if evaluations:
        made = [record["provenance"] for record in evaluations.values()]
        values = {
            "profile": [runs.profile],
            "cases": [f"{len(made)} evaluations"],
            "device": [f"{m['device_name']} ({m['device']})" for m in made],
            "threads": [m["threads"] for m in made],
            "platform": [m["platform"] for m in made],
            "torch": [m["versions"]["torch"] for m in made],
            "commit": [m["commit"] or "none" for m in made],
            "measured": [max(record["finished"] for record in evaluations.values())[:10]],
        }
        columns["weights from files"] = pd.Series(
            {name: ", ".join(sorted({str(value) for value in found})) for name, found in values.items()}
        )
    order = dict.fromkeys(name for column in columns.values() for name in column.index)
    return pd.DataFrame(columns).reindex(list(order)).fillna("")


def save_benchmark(
    name: str,
    table: pd.DataFrame,
    timings: Timings,
    runs: Runs,
    evaluations: Evaluations,
    figure: Figure,
    *,
    title: str,
) -> str:
    """Writes reports/<profile>/<name>.{md,csv,png,json}. Returns the report's path relative to the reports' root."""
    folder = reports_root() / runs.profile
    rounded = table.round(4)
    with atomic_write(folder / f"{name}.csv", "w") as file:
        rounded.to_csv(file, lineterminator="\n")
    save_figure(figure, folder / f"{name}.png")
    provenance = benchmark_provenance(timings, runs, evaluations)
    content = {
        "title": title,
        "profile": runs.profile,
        "label": LABELS[runs.profile],
        "table": json.loads(rounded.reset_index().to_json(orient="records")),
        "runs": {label: [run.key for run in group] for label, group in runs.items()},
        "timings": timings.record["key"],
        "evaluations": [record["key"] for record in evaluations.values()],
        "provenance": provenance.to_dict(),
    }
    write_report(folder / f"{name}.json", content)
    sections = [
        f"# {title}",
        "Columns `printed`: printed in the paper. Parameters and multi-adds: counted on the kit's networks, of the "
        f"published sizes. Run times, and what was trained here: {LABELS[runs.profile]}. Weights of others: evaluated "
        "by the kit's protocol on whole sets. Sets: PSNR-Y (dB) / SSIM-Y. An empty cell: not printed, or not at hand.",
        *(part for scale in SCALES for part in (f"## x{scale}", markdown(scale_table(table, scale)))),
        f"A star: parameters further than {PARAMETER_BOUND:g} % from the printed figure, multi-adds further than "
        f"{MULTI_ADDS_BOUND:g} %. The notes say why.",
        "## Notes",
        markdown(notes(table)),
        "## PSNR against parameters and run time",
        f"![{title}]({name}.png)",
        "## Conclusion",
        benchmark_conclusion(table, timings, runs),
        "## Doubtful in print",
        markdown(doubtful()),
        "## What was measured, where, how",
        markdown(provenance),
        f"The records: `runs/`, `timings/` and `evaluations/<key>.json`; the keys stand in `{name}.json`.",
    ]
    write_markdown(folder / f"{name}.md", sections)
    return f"{reports_root().name}/{runs.profile}/{name}.md"
