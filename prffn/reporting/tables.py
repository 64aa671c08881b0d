"""From records to what people read: tables beside the paper's numbers, plots, verdicts, provenance, files."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from prffn.files import atomic_write, reports_root, write_json
from prffn.reporting.plots import save_figure
from prffn.study.claims import (
    DIGITS,
    LABELS,
    NOT_MEASURED,
    answer,
    conclusion,
    digits_of,
    seeds_of,
    with_interval,
)  # fmt: skip
from prffn.study.intervals import paired_interval
from prffn.study.runs import Runs, image_sets
from prffn.training.loop import NOT_RECORDED


def compare(
    runs: Runs,
    printed: Mapping[str, float],
    *,
    baseline: str | Mapping[str, str],
    metric: str = "psnr_y",
) -> pd.DataFrame:
    """One row for each image set and label: printed value, the mean over the seeds, each seed, and differences.

    `gain` is the mean difference to `baseline`, paired by seed (those of both rows) and image, `low` and `high` its
    95 % interval over both (None with one seed, which has no interval); `printed gain` is the printed difference.
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
            row: dict[str, Any] = {"set": image_set, "label": label, "printed": printed.get(label)}
            values = runs.values_of(label, image_set, metric)
            if values is None:
                rows.append({**row, "mean": NOT_MEASURED})
                continue
            seeds = [float(np.mean(of_images)) for of_images in values]
            row["mean"] = sum(seeds) / len(seeds)
            others = runs.values_of(own[label], image_set, metric) if label in own else None
            if others is not None:
                row |= _gain(values, others) | {"over": own[label]}
                if label in printed and own[label] in printed:
                    row["printed gain"] = printed[label] - printed[own[label]]
            rows.append({**row, **{f"seed {n}": value for n, value in enumerate(seeds)}})
    table = pd.DataFrame(rows).set_index(["set", "label"])
    first = ["printed", "mean", *(["over"] if own is baseline else []), "printed gain", "gain", "low", "high"]
    columns = [name for name in (*first, *(c for c in table if c.startswith("seed "))) if name in table]
    return table[columns].round(digits_of(metric))


def _gain(values: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> dict[str, float]:
    """The mean difference, and its interval where there is one; paired by the seeds that both have."""
    seeds = min(len(values), len(others))
    difference = paired_interval(values[:seeds], others[:seeds])
    interval = {"low": difference.low, "high": difference.high} if seeds > 1 else {}
    return {"gain": difference.mean, **interval}


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


def gain_grid(table: pd.DataFrame, grid: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """Gains with their intervals as a grid, for each set: `grid` names the label of each row and column.

    table: from `compare`.
    """

    def cell(row: pd.Series) -> str:
        return with_interval(row, "gain") if pd.notna(row.get("gain")) else NOT_MEASURED

    rows = [
        {"set": name, "": row, **{column: cell(table.loc[(name, label)]) for column, label in columns.items()}}
        for name in table.index.unique("set")
        for row, columns in grid.items()
    ]
    return pd.DataFrame(rows).set_index(["set", ""])


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
        "runs": f"{len(records)}, seeds: {seeds_of(runs)}",
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


KIND = "report"
"""What a report's JSON file says it is."""


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
            f"Column `printed`: printed in the paper. All others: {LABELS[runs.profile]}.",
            markdown(table),
            f"![{title}]({name}.png)",
            "## Conclusion",
            conclusion(runs, verdicts),
            markdown(verdicts),
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


def shown(table: pd.DataFrame, digits: int = 3) -> pd.DataFrame:
    """The table as people read it: `digits` decimals, or those of a row's `unit`; nothing for no value."""

    def row(values: pd.Series) -> pd.Series:
        decimals = DIGITS.get(values.get("unit"), digits)
        texts = [f"{value:.{decimals}f}" if isinstance(value, float) else str(value) for value in values]
        return pd.Series(texts, values.index).where(values.notna(), "")

    return table.astype(object).apply(row, axis=1)


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown, its cells as in `shown`."""
    flat = shown(table).reset_index()
    header = [str(name) if name != "index" else "" for name in flat.columns]
    rows = [[str(value).replace("|", "\\|") for value in row] for row in flat.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *rows])
