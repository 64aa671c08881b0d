"""What follows from Table 8's figures, where they come from, and the files of its report."""

from itertools import product

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from prffn import paper
from prffn.models.comparison import MULTI_ADDS_BOUND, PARAMETER_BOUND
from prffn.reporting.report import keys_of, write_report
from prffn.reporting.table6 import provenance_of
from prffn.reporting.tables import markdown, provenance_table, side_by_side, where_made
from prffn.study.benchmark import PRINTED_SETS, SCALES, notes, scale_table
from prffn.study.claims import LABELS, counts_of, seeds_said
from prffn.study.evaluations import BICUBIC, SMALL, Evaluations
from prffn.study.runs import Runs
from prffn.study.timings import Timings


def benchmark_conclusion(table: pd.DataFrame, timings: Timings, runs: Runs) -> str:
    """What of Table 8 is met, and what can and cannot be said of PRFFN here, in sentences.

    table: from `compare_networks`.
    """
    seeds, trainings = (f", {seeds_said(counts_of(runs))}", " and trainings") if runs else ("", "")
    return "\n".join([
        f"Profile {runs.profile}{seeds}. Run times{trainings}: {LABELS[runs.profile]}.",
        "",
        *(f"- {line}" for line in (_counts(table), _times(table), *_checkpoints(table), _best(table), _tsan(table),
                                   _prffn(table, runs), _small(table))),
        "",
        _spread(timings),
    ])  # fmt: skip


def _counts(table: pd.DataFrame) -> str:
    met = table["met"].dropna().astype(bool)
    others = met[~met].reset_index()
    scales = others["scale"].map("x{}".format).groupby(others["network"], sort=False).agg(" ".join)
    names = "; ".join(f"{name} {at}" for name, at in scales.items())
    return (
        f"Parameters within {PARAMETER_BOUND:g} % and multi-adds within {MULTI_ADDS_BOUND:g} % of the printed: "
        f"{met.sum()} of {len(met)} rows. The others, each with its reason in the notes: {names}."
    )


def _times(table: pd.DataFrame) -> str:
    both = _run_times(table)
    rank = [f"{both.loc[scale].corr('spearman').iloc[0, 1]:.2f} at x{scale}" for scale in SCALES]
    others = both.drop(index="PRFFN", level=1)
    agree = ((others.printed < 1) == (others.here < 1)).sum()
    apart = np.log(others.here / others.printed).abs().idxmax()
    return (
        f"Run time: rank correlation of printed and measured {', '.join(rank)}. {agree} of {len(others)} are on the "
        f"same side of PRFFN, faster or slower, as in print; furthest from it is {apart[1]} x{apart[0]}, "
        f"{others.printed[apart]:.2f} of PRFFN's time in print and {others.here[apart]:.2f} here."
    )


def _run_times(table: pd.DataFrame) -> pd.DataFrame:
    """Times over PRFFN's, printed and here, of the networks of which both are known."""
    both = table[["time / PRFFN printed", "time / PRFFN"]].dropna().astype(float)
    return both.set_axis(["printed", "here"], axis=1)


def _checkpoints(table: pd.DataFrame) -> list[str]:
    """A line for each network of which weights of others were measured: PSNR measured and printed."""
    lines = []
    files = table[(table["weights"] != "") & ~table["weights"].str.startswith(("trained here", "shipped"))]
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
    pairs, exceptions = list(product(SCALES, PRINTED_SETS)), []
    for scale, image_set in pairs:
        printed = table.loc[scale, f"{image_set} PSNR printed"]
        exceptions += [f"{n} on x{scale} {image_set}" for n in printed.index[printed > printed["PRFFN"]]]
    better = f"; higher is {', '.join(exceptions)}" if exceptions else ""
    held = len(pairs) - len(exceptions)
    return f"In print PRFFN has the highest PSNR on {held} of {len(pairs)} pairs of scale and set{better}."


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


def _prffn(table: pd.DataFrame, runs: Runs) -> str:
    """PSNR of PRFFN as trained here less the printed; that it is not decided where it was not to be trained."""
    if runs:
        return f"PRFFN, trained here, less printed: {_differences(table, ('PRFFN', ''), ('PRFFN', ' printed'))}."
    sizes = ", ".join(f"{table.loc[(scale, SMALL), 'parameters (K)']:.0f}" for scale in SCALES)
    return (
        "Whether PRFFN's PSNR is as printed, and the order of the networks in PSNR: not decided at this profile. It "
        f"does not train PRFFN, and the small one that comes with the package, of {sizes} K parameters, cannot tell."
    )


def _small(table: pd.DataFrame) -> str:
    return f"{SMALL}, as it comes with the package, less bicubic: {_differences(table, (SMALL, ''), (BICUBIC, ''))}."


def _differences(table: pd.DataFrame, a: tuple[str, str], b: tuple[str, str]) -> str:
    """PSNR of a less that of b, at each scale and on each set where both are known.

    a, b: the row, and "" for what was measured or " printed".
    """
    parts = []
    for scale, image_set in product(SCALES, _measured_sets(table)):
        psnr = [table.loc[(scale, row)].get(f"{image_set} PSNR{how}", np.nan) for row, how in (a, b)]
        if not np.isnan(psnr).any():
            parts.append(f"{psnr[0] - psnr[1]:+.2f} dB on x{scale} {image_set}")
    return ", ".join(parts) or "not measured"


def _spread(timings: Timings) -> str:
    rounds = [seconds for seconds in timings.record["seconds"].values() if not isinstance(seconds, str)]
    if len(rounds[0]) < 3:
        return "So few rounds tell an order of magnitude of a run time."
    spread = [100 * float(np.subtract(*np.percentile(seconds, (75, 25))) / np.median(seconds)) for seconds in rounds]
    return (
        f"Between rounds a run time varies by {np.median(spread):.0f} % (quartiles, median of the networks) and up to "
        f"{max(spread):.0f} %; the ratios to PRFFN are paired within rounds."
    )


def benchmark_provenance(timings: Timings, runs: Runs, evaluations: Evaluations) -> pd.DataFrame:
    """What was trained, timed and evaluated where and how, read off the records: a column for each."""
    columns = {"training": provenance_table(runs)["value"]} if runs else {}
    columns["run time"] = provenance_of(timings)["value"]
    if evaluations:
        records = list(evaluations.values())
        about = {"profile": runs.profile, "cases": f"{len(records)} evaluations"}
        columns["PSNR and SSIM"] = pd.Series(about | where_made(records))
    return side_by_side(columns)


def answer_benchmark(table: pd.DataFrame, timings: Timings) -> str:
    """One sentence: how many counts are as printed, and how far the order of run times is."""
    met = table["met"].dropna().astype(bool)
    rank = _run_times(table).corr("spearman").loc["printed", "here"]
    return (
        f"**{met.sum()} of {len(met)} printed pairs of parameters and multi-adds are counted again within "
        f"{PARAMETER_BOUND:g} and {MULTI_ADDS_BOUND:g} %, and run times over PRFFN's rank as printed with a "
        f"correlation of {rank:.2f}** (profile {timings.profile}); "
        "which network has the best PSNR is not decided at this size."
    )


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
    """Writes Table 8's report. Returns its path from the reports' root."""
    trainings = ", and what was trained here" if runs else ""
    return write_report(
        name, runs.profile, title=title, label=LABELS[runs.profile], table=table.round(4), figure=figure,
        provenance=benchmark_provenance(timings, runs, evaluations),
        sections=[
            "Columns `printed`: printed in the paper. Parameters and multi-adds: counted on the kit's networks, of the "
            f"published sizes but for {SMALL}, which comes with the package. Run times{trainings}: "
            f"{LABELS[runs.profile]}. Sets: PSNR-Y (dB) / SSIM-Y of whole sets by the kit's protocol; `weights` says "
            "of whose weights. An empty cell: not printed, or not measured.",
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
            markdown(paper.doubts(8)),
        ],
        answer=answer_benchmark(table, timings),
        runs=keys_of(runs),
        timings=timings.record["key"],
        evaluations=[record["key"] for record in evaluations.values()],
    )  # fmt: skip
