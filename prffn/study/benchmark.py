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
from prffn.models.pretrained import SCALES, SIZES, pretrained_path, settings_of_file
from prffn.study.evaluations import (
    BICUBIC,
    SMALL,
    Evaluations,
    Weights,
    bicubic,
    shipped_weights,
    weights_from_files,
    weights_of_runs,
)
from prffn.study.keys import settings_of
from prffn.study.runs import Runs
from prffn.study.timings import Timings

PRINTED_SETS = ("Set5", "Set14", "B100", "Urban100", "Manga109")
METRICS = {"PSNR": "psnr_y", "SSIM": "ssim_y"}  # by what the columns call them, the names in records


def image_sets(profile: str) -> tuple[str, ...]:
    """The image sets of a profile: those of Table 8, or those that the profile's trainings are evaluated on."""
    return PROFILES[check_profile(profile)].get("data.evaluation", PRINTED_SETS)


def trained_scales(profile: str) -> tuple[int, ...]:
    """The scales at which PRFFN is trained for the table: none at a profile that trains networks of a smaller size."""
    smaller = any(name.startswith("model.") for name in PROFILES[check_profile(profile)])
    return () if smaller else SCALES


def networks() -> dict[str, tuple[str, dict[str, Any]]]:
    """The networks of the table by row: the name in NETWORKS, and what differs from the published size.

    The rows of Table 8, CARN-M, which it does not have, and the small PRFFN of the package, of one size at all scales.
    """
    rows: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in paper.table(8).method.unique()}
    rows["CARN-M"] = ("CARN-M", {})
    published = settings_of(Experiment())
    small = published | settings_of_file(pretrained_path(SCALES[0]))["settings"]
    keys = {name: f"model.{name}" for name in SIZES}
    rows[SMALL] = ("PRFFN", {name: small[key] for name, key in keys.items() if small[key] != published[key]})
    return rows


def weights_there(experiments: Mapping[str, Sequence[Experiment]], runs: Runs) -> dict[tuple[str, int], Weights]:
    """What can be evaluated: bicubic, the package's networks, files in PRFFN_WEIGHTS, and the trained runs."""
    baseline = {(BICUBIC, scale): bicubic(scale) for scale in SCALES}
    files = shipped_weights(SCALES) | weights_from_files(networks(), SCALES)
    return baseline | files | weights_of_runs(experiments, runs)


def compare_networks(timings: Timings, runs: Runs, evaluations: Evaluations) -> pd.DataFrame:
    """A row for each scale and network, all figures as numbers; NaN where nothing is printed or measured.

    Columns, with "printed" for those of the paper: "parameters (K)", "multi-adds (G)", "time (ms)", the median of the
    turns, "time / PRFFN", for each image set "<set> PSNR" (dB) and "<set> SSIM", on Y. "weights" says whose they are,
    "met" whether both counts are within the bounds of `comparison`, "note" which one is not, and why.
    """
    counted = table8_complexity().set_index(["scale", "method"])
    rows, table = networks(), []
    for scale in SCALES:
        for row, (network, options) in rows.items():
            label = f"{row} x{scale}"
            figures = _counted(counted, scale, row, network, options)
            if "error" in (timed := timings[label]):
                figures["note"] = f"{figures['note']}; not timed: {timed['error']}".removeprefix("; ")
            figures["time (ms)"] = 1000 * timed.get("seconds", np.nan)
            figures["time / PRFFN"] = timings.ratio(label, f"PRFFN x{scale}")[0]
            table.append({"scale": scale, "network": row, **figures, **_quality(row, scale, runs, evaluations)})
        baseline = {"note": "baseline", **_quality(BICUBIC, scale, runs, evaluations)}
        table.append({"scale": scale, "network": BICUBIC, **baseline})
    frame = pd.DataFrame(table).set_index(["scale", "network"])
    frame = frame.join(_printed().rename_axis(frame.index.names))
    sets = dict.fromkeys([*PRINTED_SETS, *image_sets(runs.profile)])
    quantities = ["parameters (K)", "multi-adds (G)", "time (ms)", "time / PRFFN"]
    quantities += [f"{name} {metric}" for name in sets for metric in METRICS]
    both = [f"{name}{how}" for name in quantities for how in (" printed", "")]
    return frame[[name for name in (*both, "weights", "met", "note") if name in frame]]


def _counted(counted: pd.DataFrame, scale: int, row: str, network: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters and multi-adds, whether both are as printed, and the note on them."""
    if (scale, row) in counted.index:
        found = counted.loc[(scale, row)]
        about = {"met": bool(found.met), "note": found.note}
        return {"parameters (K)": found.params_k, "multi-adds (G)": found.flops_g, **about}
    model = NETWORKS[network](scale, **options)
    note = ", ".join(f"{name}: {value}" for name, value in options.items()) or "not in the paper's table"
    return {"parameters (K)": parameters(model) / 1e3, "multi-adds (G)": multi_adds(model, scale) / 1e9, "note": note}


def _printed() -> pd.DataFrame:
    """All that Table 8 prints, by the names of the columns, and the run times over PRFFN's."""
    table = paper.table(8).set_index(["scale", "method"])
    names = {"params_k": "parameters (K)", "flops_g": "multi-adds (G)", "runtime_ms": "time (ms)"}
    names |= {f"{name.lower()}_{m.lower()}": f"{name} {m}" for name in PRINTED_SETS for m in METRICS}
    table = table[list(names)].rename(columns=names)
    prffn = table["time (ms)"].xs("PRFFN", level="method")
    return table.assign(**{"time / PRFFN": table["time (ms)"].div(prffn, level="scale")}).add_suffix(" printed")


def _quality(row: str, scale: int, runs: Runs, evaluations: Evaluations) -> dict[str, Any]:
    """Means over images, and over the seeds of what was trained here, and whose weights they are of.

    Nothing of a set that was not measured with each seed.
    """
    trained = runs.get(f"x{scale}", []) if row == "PRFFN" else []
    rows = [f"{row}, seed {run.record['settings']['seed']}" for run in trained] or [row]
    found: dict[str, Any] = {"weights": ""}
    for name in image_sets(runs.profile):
        records = [evaluations[of, scale, name] for of in rows if (of, scale, name) in evaluations]
        if len(records) == len(rows):
            found["weights"] = records[0]["origin"]
            for column, metric in METRICS.items():
                found[f"{name} {column}"] = float(np.mean([np.mean(r["evaluation"][metric]) for r in records]))
    return found


def scale_table(table: pd.DataFrame, scale: int) -> pd.DataFrame:
    """One scale's rows as people read them: figures as text, PSNR and SSIM in one column for each set.

    table: from `compare_networks`. A star: beyond the bound, see `notes`. Columns of which nothing is known at this
    scale are left out.
    """
    rows = table.loc[scale]
    shown = pd.DataFrame(index=rows.index)
    for name in table.columns:
        if name == "weights":
            shown[name] = rows[name]
        elif " PSNR" in name:
            ssim = rows[name.replace("PSNR", "SSIM")]
            shown[name.replace(" PSNR", "")] = [
                "" if np.isnan(a) else f"{a:.2f} / {b:.4f}" for a, b in zip(rows[name], ssim, strict=True)
            ]
        elif name.startswith(("parameters", "multi-adds", "time")):
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
    rows = table[table["note"] != ""].reset_index()
    rows["scale"] = rows["scale"].map("x{}".format)
    found = rows.groupby(["network", "note"], sort=False)["scale"].agg(" ".join)
    return found.reset_index("note")[["scale", "note"]].sort_index(kind="stable")


def _figure(value: float, column: str) -> str:
    if np.isnan(value):
        return ""
    if "/" in column:
        return f"{value:.2f}"
    if column.startswith("multi-adds"):
        return f"{value:.1f}"
    return f"{value:.0f}" if value >= 100 or column.startswith("parameters") else f"{value:.3g}"
