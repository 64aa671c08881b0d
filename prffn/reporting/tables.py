"""From records to what people read: tables beside the paper's numbers, plots, verdicts, provenance, files."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from prffn.study.claims import DIGITS, NOT_MEASURED, counts_of, digits_of, seeds_of, with_interval
from prffn.study.intervals import paired_interval
from prffn.study.runs import Runs, image_sets
from prffn.training.loop import NOT_RECORDED

COUNTS = ("seeds", "images")  # columns of `compare` that say how many of each a row rests on


def compare(
    runs: Runs, printed: Mapping[str, float], *, baseline: str | Mapping[str, str], metric: str = "psnr_y"
) -> pd.DataFrame:
    """One row for each image set and label: the mean over the seeds, each seed, how many, and differences.

    `gain` is the mean difference to `baseline`, paired by seed (those of both rows) and image, `low` and `high` its
    95 % interval over both (None with one seed, which has no interval); `printed gain` is the printed difference: the
    paper's values themselves are of other images.
    Values are rounded.
    baseline: the label of all, or the label of each one's own, which then stands in the column `over`. Runs from whose
    weights others start have none: less of them was trained.
    """
    if isinstance(baseline, str):
        own: Mapping[str, str] = {label: baseline for label in runs if label != baseline and not runs.is_start(label)}
    else:
        own = baseline
    rows = []
    for image_set in image_sets(runs):
        for label in runs:
            row: dict[str, Any] = {"set": image_set, "label": label}
            values = runs.values_of(label, image_set, metric)
            if values is None:
                rows.append({**row, "mean": NOT_MEASURED})
                continue
            seeds = [float(np.mean(of_images)) for of_images in values]
            row |= {"mean": sum(seeds) / len(seeds), "seeds": len(seeds), "images": len(values[0])}
            others = runs.values_of(own[label], image_set, metric) if label in own else None
            if others is not None:
                count = min(len(values), len(others))
                difference = paired_interval(values[:count], others[:count])
                row |= {"gain": difference.mean, "over": own[label]}
                row |= {"low": difference.low, "high": difference.high} if count > 1 else {}
                if label in printed and own[label] in printed:
                    row["printed gain"] = printed[label] - printed[own[label]]
            rows.append({**row, **{f"seed {n}": value for n, value in enumerate(seeds)}})
    table = pd.DataFrame(rows).set_index(["set", "label"])
    first = ["mean", *(["over"] if own is baseline else []), "printed gain", "gain", "low", "high", *COUNTS]
    columns = [name for name in (*first, *(c for c in table if c.startswith("seed "))) if name in table]
    return table[columns].round(digits_of(metric))


def compare_with_bicubic(runs: Runs) -> pd.DataFrame:
    """PSNR-Y in dB of bicubic upscaling, and of the worst and the best run, for each set: have the networks learnt?"""
    rows = []
    for image_set in image_sets(runs):
        row: dict[str, Any] = dict.fromkeys(("bicubic", "worst run", "best run"), NOT_MEASURED)
        if measured := list(runs.all().values()):
            psnr: list[float] = [run.mean(image_set) for run in measured]  # type: ignore[misc]
            bicubic = float(np.mean(measured[0].record["bicubic"][image_set]["psnr_y"]))
            row = {"bicubic": bicubic, "worst run": min(psnr), "best run": max(psnr)}
        rows.append({"set": image_set, **row})
    return pd.DataFrame(rows).set_index("set").round(3)


def summary(runs: Runs) -> pd.DataFrame:
    """Means over images and seeds for each set and label: PSNR-Y (dB), SSIM-Y, LPIPS (lower is better)."""
    metrics = {"PSNR-Y": "psnr_y", "SSIM-Y": "ssim_y", "LPIPS": "lpips"}
    rows = []
    for image_set in image_sets(runs):
        for label in runs:
            row: dict[str, Any] = {"set": image_set, "label": label}
            for name, metric in metrics.items():
                values = runs.values_of(label, image_set, metric)
                row[name] = NOT_MEASURED if values is None else f"{np.mean(values):.{digits_of(metric)}f}"
            rows.append(row)
    return pd.DataFrame(rows).set_index(["set", "label"])


def gain_grid(table: pd.DataFrame, grid: Mapping[str, Mapping[Any, str]], digits: int = 3) -> pd.DataFrame:
    """Gains with their intervals as a grid, for each set: `grid` names the label of each row and column.

    table: from `compare`. A row that has not all columns of the others has no value there. digits: see `digits_of`.
    """

    def cell(row: pd.Series) -> str:
        return with_interval(row, "gain", digits=digits) if pd.notna(row.get("gain")) else NOT_MEASURED

    rows = [
        {"set": name, "": row, **{column: cell(table.loc[(name, label)]) for column, label in columns.items()}}
        for name in table.index.unique("set")
        for row, columns in grid.items()
    ]
    return pd.DataFrame(rows).set_index(["set", ""])


def distance_from_print(
    table: pd.DataFrame, grid: Mapping[str, Mapping[float, str]], printed: pd.Series
) -> pd.DataFrame:
    """How far each row of a grid lies from printed gains, in dB: root mean square over the weights.

    The nearest first, by the last image set.
    table: from `compare`. grid: the label of each row at each weight. printed: gains by weight.
    """
    sets, rows = table.index.unique("set"), {}
    for name, labels in grid.items():
        at = [labels[weight] for weight in printed.index]
        off = {image_set: table.loc[image_set].loc[at, "gain"].to_numpy() - printed.to_numpy() for image_set in sets}
        rows[name] = {image_set: float(np.sqrt(np.mean(gains**2))) for image_set, gains in off.items()}
    return pd.DataFrame.from_dict(rows, orient="index").sort_values(sets[-1]).rename_axis("definition").round(3)


TERMS = {
    "l1": "L_1", "contrast": "L_contr", "perceptual": "L_perc", "csd": "L_CSD",
    "own": "your loss", "control": "control",
}  # fmt: skip
"""Terms of the total loss, as the paper writes them."""


def gradient_shares(runs: Runs) -> pd.DataFrame:
    """How much each term of the loss asks of the network, by label: its part of the gradient's norms, in per cent.

    Norms of each weighted term's gradient in the SR images, over their sum, at the first and at the last validation of
    the training, means over the seeds. Empty where no run recorded them.
    """

    def share(point: Mapping[str, float], term: str) -> float:
        norms = {name: point.get(f"gradient_{name}", 0.0) for name in TERMS}
        return norms[term] / (sum(norms.values()) or 1.0)

    rows: dict[str, dict[str, str]] = {}
    for label in runs:
        curves = [[point for point in run.record["curve"] if "gradient_l1" in point] for run in runs[label]]
        if not curves or not all(curves):
            continue
        row = rows.setdefault(label, {})
        for term, name in TERMS.items():
            ends = [[share(curve[end], term) for curve in curves] for end in (0, -1)]
            if any(ends[0]):
                first, last = (f"{100 * np.mean(shares):.0f}" for shares in ends)
                row[name] = f"{first} to {last} %" if first != last else f"{first} %"
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("label").fillna("")


def distinct(values: Iterable[Any]) -> str:
    """The values, each once, in order, as text."""
    return ", ".join(sorted({str(value) for value in values}))


def where_made(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Where and when records were made: device, threads, platform, torch, commit, dates."""
    made = [record["provenance"] for record in records]
    first = min(record.get("started", record["finished"]) for record in records)[:10]
    last = max(record["finished"] for record in records)[:10]
    processes = distinct(m.get("processes", 1) for m in made)
    computed = distinct(m["L_contr"] for m in made if "L_contr" in m)
    return {
        "device": distinct(f"{m['device_name']} ({m['device']})" for m in made),
        "threads": distinct(m["threads"] for m in made),
        **({"processes": processes} if processes != "1" else {}),
        **({"L_contr as trained": computed} if computed else {}),
        "platform": distinct(m["platform"] for m in made),
        "torch": distinct(m["versions"]["torch"] for m in made),
        "commit": distinct(m["commit"] or "none" for m in made),
        "made": first if first == last else f"{first} to {last}",
    }


def provenance_table(runs: Runs) -> pd.DataFrame:
    """What was measured where and how, read off the records: one column of values."""
    records = [run.record for run in runs.all().values()]
    if not records:
        return pd.DataFrame({"value": {"profile": runs.profile, "runs": NOT_MEASURED}})
    sizes = [(record["settings"]["model.channels"], record["settings"]["model.groups"]) for record in records]
    with_contrast = [record for record in records if record["settings"]["loss.contrast_weight"]]
    own = [(s["loss.own"], s["loss.own_sha256"]) for s in (r["settings"] for r in records) if s.get("loss.own")]
    ways = {part.get("L_contr", NOT_RECORDED) for r in with_contrast for part in r["provenance"].get("training", [{}])}
    rows = {
        "profile": runs.profile,
        "runs": f"{len(records)}, seeds: {seeds_of(counts_of(runs))}",
        "training images": distinct(record["settings"]["data.train"] for record in records),
        "network": distinct(f"channels: {channels}, groups: {groups}" for channels, groups in sizes),
        "scale": distinct(f"x{record['settings']['data.scale']}" for record in records),
        "parameters": distinct(f"{record['parameters']:,}" for record in records),
        "steps": _steps(runs),
        **({"L_contr computed by": distinct(ways)} if ways else {}),
        **({"own loss": distinct(f"{name}, SHA-256 {sha[:8]}" for name, sha in own)} if own else {}),
        **where_made(records),
        "training time in all": f"{sum(r['train_seconds'] for r in records) / 60:.0f} min",
        "peak memory of a run": f"{max(r['peak_memory_mb'] for r in records):.0f} MB",
    }
    return pd.DataFrame({"value": rows})


def side_by_side(columns: Mapping[str, Mapping[str, Any] | pd.Series]) -> pd.DataFrame:
    """Provenances of several kinds of records, a column each, rows in the order of their first mention."""
    order = dict.fromkeys(name for column in columns.values() for name in dict(column))
    return pd.DataFrame({name: pd.Series(column) for name, column in columns.items()}).reindex(list(order)).fillna("")


def made_by_group(runs: Runs, groups: Mapping[str, Iterable[str]]) -> pd.DataFrame:
    """Where and when the runs of each group of labels were made, a column each, of those that were measured."""
    records = {name: [run.record for label in labels for run in runs[label]] for name, labels in groups.items()}
    return side_by_side({name: where_made(of_group) for name, of_group in records.items() if of_group})


def _steps(runs: Runs) -> str:
    """How long was trained, and on what; of runs that start from others, also how long those had been trained."""
    settings = {key: run.record["settings"] for key, run in runs.all().items()}
    texts = []
    for s in settings.values():
        side = s["data.patch_size"]
        text = f"{s['training.steps']} of {s['data.batch_size']} LR patches of {side} x {side}"
        if before := settings.get(s.get("training.start", "")):
            text += f", after {before['training.steps']} with L_1 alone"
        texts.append(text)
    return "; ".join(dict.fromkeys(texts))


def shown(table: pd.DataFrame, digits: int = 3) -> pd.DataFrame:
    """The table as people read it: `digits` decimals, or those of a row's `unit`; nothing for no value."""

    def row(values: pd.Series) -> pd.Series:
        decimals = DIGITS.get(values.get("unit"), digits)
        texts = [_cell(name, value, decimals) for name, value in values.items()]
        return pd.Series(texts, values.index).where(values.notna(), "")

    return table.astype(object).apply(row, axis=1)


def _cell(column: Any, value: Any, decimals: int) -> str:
    if not isinstance(value, float):
        return str(value)
    if column in COUNTS:
        return f"{value:.0f}"
    return f"{value:.2g}" if column == "p" else f"{value:.{decimals}f}"


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown, its cells as in `shown`."""
    flat = shown(table).reset_index()
    header = [str(name) if name != "index" else "" for name in flat.columns]
    rows = [[str(value).replace("|", "\\|") for value in row] for row in flat.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *rows])
