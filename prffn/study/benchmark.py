"""Table 8: for each network and scale what is printed, and beside it what is measured here."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from prffn import paper
from prffn.config import PROFILES, Experiment, check_profile
from prffn.models import NETWORKS
from prffn.models.comparison import is_met, table8_complexity
from prffn.models.complexity import multi_adds, parameters
from prffn.study.evaluations import Evaluations, Weights, weights_from_files, weights_of_runs
from prffn.study.runs import Run, Runs
from prffn.study.timings import Timings, forward_label

SCALES = (2, 3, 4)

PRINTED_SETS = ("Set5", "Set14", "B100", "Urban100", "Manga109")


SMALL = "small PRFFN"
"""The row of the network that a profile smaller than the paper's trains."""


def image_sets(profile: str) -> tuple[str, ...]:
    """The image sets of a profile: those of Table 8, or those that the profile's trainings are evaluated on."""
    return PROFILES[check_profile(profile)].get("data.evaluation", PRINTED_SETS)


def networks(profile: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """The networks of the table by row: the name in NETWORKS, and what differs from the published size.

    The rows of Table 8, CARN-M, which it does not have, and PRFFN in the size that the profile trains.
    """
    rows: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in paper.table(8).method.unique()}
    rows["CARN-M"] = ("CARN-M", {})
    budget = PROFILES[check_profile(profile)].items()
    if size := {name.removeprefix("model."): value for name, value in budget if name.startswith("model.")}:
        rows[SMALL] = ("PRFFN", size)
    return rows


def weights_there(experiments: Mapping[str, Sequence[Experiment]], runs: Runs) -> dict[tuple[str, int], Weights]:
    """The weights that can be evaluated: of the rows whose files are in PRFFN_WEIGHTS, and of the trained runs."""
    of_runs = weights_of_runs(experiments, runs, trained_row(runs.profile), image_sets(runs.profile))
    return weights_from_files(networks(runs.profile), SCALES) | of_runs


def compare_networks(timings: Timings, runs: Runs, evaluations: Evaluations) -> pd.DataFrame:
    """A row for each scale and network, all figures as numbers; NaN where nothing is printed or measured.

    Columns, with "printed" for those of the paper: "parameters (K)", "multi-adds (G)", "time (ms)", the median of the
    turns, "time / PRFFN", for each image set "<set> PSNR" (dB) and "<set> SSIM", on Y. "weights" says whose they are,
    "met" whether both counts are within the bounds of `comparison`, "note" which one is not, and why.
    """
    counted = table8_complexity().set_index(["scale", "method"])
    printed = paper.table(8).set_index(["scale", "method"])
    table = []
    for scale in SCALES:
        for row, (network, options) in networks(runs.profile).items():
            known = (scale, row) in printed.index
            figures: dict[str, Any] = {"scale": scale, "network": row}
            if known:
                found = counted.loc[(scale, row)]
                figures |= _costs(found.params_k_printed, found.flops_g_printed, " printed")
                figures |= _costs(found.params_k, found.flops_g)
                figures |= {"met": bool(found.met), "note": found.note}
                figures |= _printed(printed.loc[(scale, row)], printed.loc[(scale, "PRFFN")])
            else:
                model = NETWORKS[network](scale, **options)
                figures |= _costs(parameters(model) / 1e3, multi_adds(model, scale) / 1e9)
                figures["note"] = "not in the paper's table"
                if options:
                    figures["note"] = ", ".join(f"{name}: {value}" for name, value in options.items())
            timed = timings[forward_label(row, scale)]
            seconds = timed.get("seconds", np.nan)
            if "error" in timed:
                figures["note"] = f"{figures['note']}; not timed: {timed['error']}".removeprefix("; ")
            figures["time (ms)"] = 1000 * seconds
            figures["time / PRFFN"] = timings.ratio(forward_label(row, scale), forward_label("PRFFN", scale))[0]
            table.append(figures | _quality(row, scale, runs, evaluations))
        table.append({"scale": scale, "network": "bicubic", "note": "baseline", **_bicubic(scale, runs)})
    frame = pd.DataFrame(table).set_index(["scale", "network"])
    return frame[[name for name in _columns(frame) if name in frame]]


def _columns(frame: pd.DataFrame) -> list[str]:
    """All columns, the printed figure before the measured one."""
    sets = dict.fromkeys([*PRINTED_SETS, *(c.removesuffix(" PSNR") for c in frame if c.endswith(" PSNR"))])
    quantities = ["parameters (K)", "multi-adds (G)", "time (ms)", "time / PRFFN"]
    quantities += [f"{name} {metric}" for name in sets for metric in ("PSNR", "SSIM")]
    both = [f"{name}{how}" for name in quantities for how in (" printed", "")]
    return [*both, "weights", "met", "note"]


def _costs(params_k: float, flops_g: float, suffix: str = "") -> dict[str, float]:
    return {f"parameters (K){suffix}": params_k, f"multi-adds (G){suffix}": flops_g}


def _printed(row: pd.Series, prffn: pd.Series) -> dict[str, float]:
    """Time and quality as printed, and the time over PRFFN's."""
    found = {"time (ms) printed": row.runtime_ms, "time / PRFFN printed": row.runtime_ms / prffn.runtime_ms}
    for name in PRINTED_SETS:
        for metric in ("PSNR", "SSIM"):
            found[f"{name} {metric} printed"] = row[f"{name.lower()}_{metric.lower()}"]
    return found


def trained_row(profile: str) -> str:
    """The row of what the profile trains: PRFFN at `paper`, else the small one."""
    return SMALL if SMALL in networks(profile) else "PRFFN"


def _quality(row: str, scale: int, runs: Runs, evaluations: Evaluations) -> dict[str, Any]:
    """Means over images, and over the seeds of what was trained here, and whose weights they are of."""
    figures: dict[str, Any] = {}
    for name in image_sets(runs.profile):
        if row == trained_row(runs.profile):
            found = [_of_run(run, row, scale, name, evaluations) for run in runs[f"x{scale}"]]
            origin = f"trained here, profile {runs.profile}"
        else:
            record = evaluations.get((row, scale, name), {})
            found, origin = [record.get("evaluation")], record.get("origin", "")
        if all(found):
            for column, metric in {"PSNR": "psnr_y", "SSIM": "ssim_y"}.items():
                figures[f"{name} {column}"] = float(np.mean([np.mean(values[metric]) for values in found if values]))
            figures["weights"] = origin
    return figures


def _of_run(run: Run, row: str, scale: int, name: str, evaluations: Evaluations) -> dict[str, Any] | None:
    """A run's figures of each image of a set: from its own record, or from an evaluation of its checkpoint."""
    later = evaluations.get((f"{row}, seed {run.record['settings']['seed']}", scale, name), {})
    return run.record["evaluation"].get(name) or later.get("evaluation")


def _bicubic(scale: int, runs: Runs) -> dict[str, float]:
    """Bicubic's means on the sets of the runs."""
    record = runs[f"x{scale}"][0].record["bicubic"]
    names = [name for name in image_sets(runs.profile) if name in record]
    psnr = {f"{name} PSNR": float(np.mean(record[name]["psnr_y"])) for name in names}
    return psnr | {f"{name} SSIM": float(np.mean(record[name]["ssim_y"])) for name in names}


def scale_table(table: pd.DataFrame, scale: int) -> pd.DataFrame:
    """One scale's rows as people read them: figures as text, PSNR and SSIM in one column for each set.

    table: from `compare_networks`. A star: beyond the bound, see `notes`. Columns of which nothing is known at this
    scale are left out.
    """
    rows = table.loc[scale]
    shown = pd.DataFrame(index=rows.index)
    for name in table.columns:
        if name == "weights":
            shown[name] = rows[name].fillna("")
        elif " PSNR" in name:
            ssim = rows[name.replace("PSNR", "SSIM")]
            shown[name.replace(" PSNR", "")] = [
                "" if np.isnan(a) else f"{a:.2f} / {b:.4f}" for a, b in zip(rows[name], ssim, strict=True)
            ]
        elif name.partition(" (")[0].partition(" /")[0] in ("parameters", "multi-adds", "time"):
            shown[name] = [_figure(value, name) for value in rows[name]]
    for name, figure in {"parameters (K)": "params_k", "multi-adds (G)": "flops_g"}.items():
        beyond = [
            not np.isnan(printed) and not is_met(figure, own, printed)
            for own, printed in zip(rows[name], rows[f"{name} printed"], strict=True)
        ]
        shown[name] += np.where(beyond, " *", "")
    return shown.loc[:, (shown != "").any()]


def notes(table: pd.DataFrame) -> pd.DataFrame:
    """What a reader of a row should know: figures beyond the bounds and why, remarks on a network. A row for each note.

    table: from `compare_networks`.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for (scale, name), note in table["note"].items():
        if note:
            found.setdefault((name, note), []).append(f"x{scale}")
    rows = [{"network": name, "scale": " ".join(scales), "note": note} for (name, note), scales in found.items()]
    return pd.DataFrame(rows).set_index("network").sort_index(kind="stable")


def _figure(value: float, column: str) -> str:
    if np.isnan(value):
        return ""
    if "/" in column:
        return f"{value:.2f}"
    if column.startswith("multi-adds"):
        return f"{value:.1f}"
    return f"{value:.0f}" if value >= 100 or column.startswith("parameters") else f"{value:.3g}"
