"""From records to what people read: tables beside the paper's numbers, plots, verdicts, provenance, files."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prffn.paths import atomic_write, reports_root, write_json
from prffn.runs import Runs
from prffn.statistics import paired_interval, verdict_greater

STYLE = Path(__file__).parent / "prffn.mplstyle"

LABELS = {
    "paper": "measured here at the paper's protocol",
    "cpu": "measured here at a smaller protocol (profile cpu), not a reproduction",
    "quick": "measured here at a far smaller protocol (profile quick), not a reproduction",
}
"""What a number of each profile may be called. Numbers of the paper are called "printed"."""

NOT_MEASURED = "not measured"


def compare(
    runs: Runs, printed: Mapping[str, float], *, baseline: str, metric: str = "psnr_y", digits: int = 3
) -> pd.DataFrame:
    """One row for each image set and label: printed value, the mean over the seeds, each seed, and differences.

    `gain` is the mean difference to `baseline`, paired by seed, `low` and `high` its 95 % interval over the seeds
    (None with one seed, which has no interval); `printed gain` is the printed difference. Values are rounded.
    """
    rows = []
    for image_set in image_sets(runs):
        values = {label: [run.mean(image_set, metric) for run in group] for label, group in runs.items()}
        for label, seeds in values.items():
            row: dict[str, Any] = {"set": image_set, "label": label, "printed": printed.get(label)}
            if any(value is None for value in seeds):
                rows.append({**row, "mean": NOT_MEASURED})
                continue
            row |= {"mean": sum(seeds) / len(seeds)}  # type: ignore[arg-type]
            if label != baseline:
                difference = paired_interval(seeds, values[baseline])  # type: ignore[arg-type]
                row |= {"gain": difference.mean}
                if len(seeds) > 1:
                    row |= {"low": difference.low, "high": difference.high}
                if label in printed and baseline in printed:
                    row |= {"printed gain": printed[label] - printed[baseline]}
            rows.append({**row, **{f"seed {n}": value for n, value in enumerate(seeds)}})
    table = pd.DataFrame(rows).set_index(["set", "label"])
    first = ["printed", "mean", "printed gain", "gain", "low", "high"]
    seeds_last = [name for name in table.columns if name not in first]
    columns = [name for name in first if name in table.columns]
    return table[columns + seeds_last].round(digits)


def image_sets(runs: Runs) -> list[str]:
    """The sets on which the runs were evaluated, in their order."""
    return list(next(iter(runs.all().values())).record["evaluation"])


def bicubic_psnr(runs: Runs, image_set: str, metric: str = "psnr_y") -> float:
    """Bicubic's mean figure on a set, from the records."""
    record = next(iter(runs.all().values())).record
    values = record["bicubic"][image_set][metric]
    return sum(values) / len(values)


def compare_with_bicubic(runs: Runs, digits: int = 3) -> pd.DataFrame:
    """PSNR-Y in dB of bicubic upscaling, and of the worst and the best run, for each set: have the networks learnt?"""
    rows = []
    for image_set in image_sets(runs):
        psnr: list[float] = [run.mean(image_set) for run in runs.all().values()]  # type: ignore[misc]
        bicubic = bicubic_psnr(runs, image_set)
        rows.append({"set": image_set, "bicubic": bicubic, "worst run": min(psnr), "best run": max(psnr)})
    return pd.DataFrame(rows).set_index("set").round(digits)


def summary(runs: Runs) -> pd.DataFrame:
    """Means over images and seeds for each set and label: PSNR-Y (dB), SSIM-Y, LPIPS (lower is better)."""
    metrics = {"PSNR-Y": ("psnr_y", 3), "SSIM-Y": ("ssim_y", 4), "LPIPS": ("lpips", 4)}
    rows = []
    for image_set in image_sets(runs):
        for label, group in runs.items():
            row: dict[str, Any] = {"set": image_set, "label": label}
            for name, (metric, digits) in metrics.items():
                values = [run.mean(image_set, metric) for run in group]
                missing = any(value is None for value in values)
                row[name] = NOT_MEASURED if missing else f"{sum(values) / len(values):.{digits}f}"  # type: ignore[arg-type]
            rows.append(row)
    return pd.DataFrame(rows).set_index(["set", "label"])


def claims_greater(runs: Runs, claims: Mapping[str, tuple[str, str]], *, metric: str = "psnr_y") -> pd.DataFrame:
    """Each claim "the first label's figure is greater than the second's": the verdict on each set, with its interval.

    A claim holds, or does not hold, only if the paired 95 % interval over the seeds excludes zero.
    """
    rows = []
    for text, (greater, smaller) in claims.items():
        for image_set in image_sets(runs):
            a, b = ([run.mean(image_set, metric) for run in runs[label]] for label in (greater, smaller))
            row: dict[str, Any] = {"claim": text, "set": image_set}
            if None in a or None in b:
                rows.append({**row, "verdict": NOT_MEASURED})
                continue
            difference = paired_interval(a, b)  # type: ignore[arg-type]
            row["difference"] = round(difference.mean, 3)
            if len(a) > 1:
                row |= {"low": round(difference.low, 3), "high": round(difference.high, 3)}
            rows.append({**row, "verdict": verdict_greater(difference)})
    return pd.DataFrame(rows).set_index(["claim", "set"])


def conclusion(runs: Runs, verdicts: pd.DataFrame, *, unit: str = "dB") -> str:
    """A sentence for each claim, from the verdicts, and what the seeds could not have shown.

    verdicts: from `claims_greater`.
    """
    seeds = len(next(iter(runs.values())))
    lines = [f"Profile {runs.profile}, {seeds} seed{'s' if seeds > 1 else ''}: {LABELS[runs.profile]}.", ""]
    for claim, rows in verdicts.groupby(level="claim", sort=False):
        found = ", ".join(f"{verdict} on {image_set}" for (_, image_set), verdict in rows["verdict"].items())
        lines.append(f"- {claim}: {found}.")
    lines.append("")
    if seeds == 1:
        lines.append("One seed has no interval: nothing can be decided with it.")
    elif "high" in verdicts:  # something was measured
        half_width = ((verdicts["high"] - verdicts["low"]) / 2).groupby(level="set", sort=False).max()
        reach = ", ".join(f"{width:.2f} {unit} on {image_set}" for image_set, width in half_width.items())
        lines.append(f"Differences of less than about {reach} could not be told from none with these seeds and steps.")
    return "\n".join(lines)


def new_figure(**options: Any) -> tuple[Figure, Axes]:
    """A figure with one axis in the kit's style."""
    with plt.style.context(STYLE):
        figure, ax = plt.subplots(**options)
    plt.close(figure)  # shown where the notebook names it, not a second time at the cell's end
    return figure, ax


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG atomically, the same bytes for the same figure."""
    with atomic_write(path) as file, plt.style.context(STYLE):
        figure.savefig(file, format="png", metadata={"Software": None})


def plot_gains(ax: Axes, table: pd.DataFrame, *, unit: str = "dB") -> Axes:
    """Gain over the baseline for each label: means with 95 % intervals, each seed a dot; printed gains dashed grey.

    table: from `compare`. Returns the axis.
    """
    gains = table.dropna(subset=["gain"])
    labels = list(dict.fromkeys(gains.index.get_level_values("label")))
    place = {label: n for n, label in enumerate(labels)}
    sets = list(dict.fromkeys(gains.index.get_level_values("set")))
    with plt.style.context(STYLE):
        colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
        ax.axhline(0, color="0.3", linewidth=0.8)
        printed = gains.loc[sets[0]].get("printed gain")
        if printed is not None and printed.notna().any():
            ax.plot([place[name] for name in printed.index], printed, "--", color="0.55", marker="_",
                    markersize=14, label="printed in the paper")  # fmt: skip
        for n, name in enumerate(sets):
            rows = gains.loc[name]
            x = [place[label] + 0.16 * (n - (len(sets) - 1) / 2) for label in rows.index]
            error = None
            if "low" in rows and rows["low"].notna().all():
                error = [(rows["gain"] - rows["low"]).to_numpy(), (rows["high"] - rows["gain"]).to_numpy()]
            ax.errorbar(x, rows["gain"], yerr=error, fmt="o", color=colours[n], capsize=3,
                        label=f"{name}, measured here")  # fmt: skip
            baseline = table.loc[name].iloc[0]
            for seed in [c for c in table.columns if str(c).startswith("seed ")]:
                ax.plot(x, rows[seed] - baseline[seed], ".", color=colours[n], alpha=0.35, markersize=4)
        ax.set_xticks(range(len(labels)), labels)
        ax.set_xlim(-0.5, len(labels) - 0.5)
        ax.set_ylabel(f"gain over {table.index[0][1]} ({unit})")
        ax.legend(fontsize=8)
    return ax


def provenance_table(runs: Runs) -> pd.DataFrame:
    """What was measured where and how, read off the records: one column of values."""
    records = [run.record for run in runs.all().values()]

    def distinct(values: Iterable[Any]) -> str:
        return ", ".join(sorted({str(value) for value in values}))

    first = records[0]["settings"]
    made = [record["provenance"] for record in records]
    rows = {
        "profile": runs.profile,
        "runs": f"{len(records)}, seeds: {len(next(iter(runs.values())))}",
        "training images": distinct(record["settings"]["data.train"] for record in records),
        "network": f"channels: {first['model.channels']}, groups: {first['model.groups']}",
        "scale": f"x{first['data.scale']}",
        "parameters": distinct(f"{record['parameters']:,}" for record in records),
        "steps": f"{first['training.steps']} of {first['data.batch_size']} LR patches of "
                 f"{first['data.patch_size']} x {first['data.patch_size']}",
        "device": distinct(f"{m['device_name']} ({m['device']})" for m in made),
        "threads": distinct(m["threads"] for m in made),
        "platform": distinct(m["platform"] for m in made),
        "torch": distinct(m["versions"]["torch"] for m in made),
        "commit": distinct(m["commit"] or "none" for m in made),
        "made": f"{min(r['started'] for r in records)[:10]} to {max(r['finished'] for r in records)[:10]}",
        "training time in all": f"{sum(r['train_seconds'] for r in records) / 60:.0f} min",
        "peak memory of a run": f"{max(r['peak_memory_mb'] for r in records):.0f} MB",
    }  # fmt: skip
    return pd.DataFrame({"value": rows})


def save(name: str, runs: Runs, table: pd.DataFrame, verdicts: pd.DataFrame, figure: Figure, *, title: str) -> str:
    """Writes reports/<profile>/<name>.{md,csv,png,json}. Returns the folder relative to the reports' root."""
    folder = reports_root() / runs.profile
    with atomic_write(folder / f"{name}.csv", "w") as file:
        table.to_csv(file, lineterminator="\n")
    save_figure(figure, folder / f"{name}.png")
    content = {
        "title": title,
        "profile": runs.profile,
        "label": LABELS[runs.profile],
        "table": json.loads(table.reset_index().to_json(orient="records")),
        "verdicts": json.loads(verdicts.reset_index().to_json(orient="records")),
        "runs": {label: [run.key for run in group] for label, group in runs.items()},
        "provenance": provenance_table(runs)["value"].to_dict(),
    }
    write_json(folder / f"{name}.json", content)
    sections = [
        f"# {title}",
        f"Column `printed`: printed in the paper. All others: {LABELS[runs.profile]}.",
        markdown(table),
        f"![{title}]({name}.png)",
        "## Conclusion",
        conclusion(runs, verdicts),
        markdown(verdicts),
        "## All metrics (means over images and seeds; LPIPS: lower is better)",
        markdown(summary(runs)),
        "## The networks beside bicubic (PSNR-Y, dB)",
        markdown(compare_with_bicubic(runs)),
        "## What was measured, where, how",
        markdown(provenance_table(runs)),
        f"Each run's record: `runs/<key>.json`; the keys stand in `{name}.json`.",
    ]
    with atomic_write(folder / f"{name}.md", "w") as file:
        file.write("\n\n".join(sections) + "\n")
    return f"{reports_root().name}/{runs.profile}/{name}.md"


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table as people read it: three decimals, and nothing where there is no value."""

    def cell(value: Any) -> str:
        if value is None or (isinstance(value, float) and pd.isna(value)):
            return ""
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    return table.astype(object).map(cell)


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown, its cells as in `shown`."""
    flat = shown(table).reset_index()
    header = [str(name) if name != "index" else "" for name in flat.columns]
    rows = [[str(value).replace("|", "\\|") for value in row] for row in flat.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *rows])
