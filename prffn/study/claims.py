"""Claims about a table as code over its records: each comes out as holds, does not hold, or not decided."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import Any

import pandas as pd

from prffn.study.intervals import Interval, paired_interval, seeds_to_decide, verdict
from prffn.study.runs import Runs, image_sets

Figures = Sequence[Any] | None

NOT_MEASURED = "not measured"

OPEN = "not decided"

LESS = "less than printed"
"""The verdict where the interval holds zero, and lies below the printed difference: what there is, is smaller."""

WOULD_DECIDE = "would decide"  # the column that says of an open claim what would decide it
MANY_SEEDS = 100  # where it takes more, no number of seeds on these images is of use (our choice)
UNITS = {"ssim_y": "SSIM", "lpips": "LPIPS"}  # units of differences that are not in dB
DIGITS = {"dB": 3, "SSIM": 4, "LPIPS": 4}  # decimals of figures of each unit, as the paper prints them or one more


def digits_of(metric: str) -> int:
    """To how many decimals figures of a metric are rounded."""
    return DIGITS[UNITS.get(metric, "dB")]


LABELS = {
    "paper": "measured here at the paper's protocol",
    "gpu": "measured here in fewer steps than the paper's (profile gpu), not a reproduction",
    "cpu": "measured here at a smaller protocol (profile cpu), not a reproduction",
    "quick": "measured here at a far smaller protocol (profile quick), not a reproduction",
}
"""What a number of each profile may be called. Numbers of the paper are called "printed"."""


def seeds_of(counts: Iterable[float]) -> str:
    """How many seeds rows have: "5", or "1 to 5" where they differ; empty where no row has any.

    counts: of each row; zeros and NaN do not count.
    """
    there = [int(count) for count in counts if count > 0]
    return " to ".join(map(str, sorted({min(there), max(there)}))) if there else ""


def seeds_said(counts: Iterable[float]) -> str:
    """How many seeds, in words: "5 seeds", "1 seed", "3 to 5 seeds", "no seeds"; counts as in `seeds_of`."""
    seeds = seeds_of(counts) or "no"
    return f"{seeds} seed{'s' if seeds != '1' else ''}"


def counts_of(runs: Mapping[str, Sized]) -> list[int]:
    """How many seeds each row has, where there is something of each seed."""
    return [len(group) for group in runs.values()]


def claims_greater(
    runs: Runs,
    claims: Mapping[str, tuple[str, str]],
    *,
    metric: str = "psnr_y",
    printed: Mapping[str, float] | None = None,
    margin: float | None = None,
) -> pd.DataFrame:
    """Each claim "the first label's figure is greater than the second's": the verdict on each set, with its interval.

    A claim holds, or does not hold, only if the paired 95 % interval over seeds and images excludes zero.
    printed: the paper's figures by label; the column "printed" is then their difference, and an open claim whose whole
    interval lies below it is LESS. margin: the claim is then "not smaller by more than this", and the interval has to
    exclude its negative.
    """
    rows, digits, printed = [], digits_of(metric), printed or {}
    for text, (first, second) in claims.items():
        for image_set in image_sets(runs):
            row: dict[str, Any] = {"claim": text, "set": image_set}
            if metric in UNITS:
                row["unit"] = UNITS[metric]
            if first in printed and second in printed:
                row["printed"] = round(printed[first] - printed[second], digits)
            a, b = (runs.values_of(label, image_set, metric) for label in (first, second))
            rows.append(row | judged(a, b, digits, margin, row.get("printed")))
    return pd.DataFrame(rows).set_index(["claim", "set"])


def judged(
    a: Figures, b: Figures, digits: int, margin: float | None = None, printed: float | None = None
) -> dict[str, Any]:
    """The difference of two rows' figures, its interval and verdict, as a row of a table of claims.

    a, b: (seeds, images) or (seeds,), paired by the seeds that both have; None where nothing was measured. printed: the
    difference in the paper.
    """
    if a is None or b is None:
        return {"verdict": NOT_MEASURED}
    seeds = min(len(a), len(b))
    difference = paired_interval(a[:seeds], b[:seeds])
    row: dict[str, Any] = {"seeds": seeds, "difference": round(difference.mean, digits)}
    if seeds > 1:
        row |= {"low": round(difference.low, digits), "high": round(difference.high, digits)}
        row["p"] = float(f"{difference.p(margin or 0.0):.2g}")
    if margin is not None:
        row["margin"] = margin
    found = verdict(difference, margin or 0.0)
    if found == OPEN and margin is None and printed is not None and printed > 0 and difference.high < printed:
        return {**row, "verdict": LESS}
    return {**row, "verdict": found} | (
        {WOULD_DECIDE: _would_decide(difference, margin, seeds)} if found == OPEN else {}
    )


def _would_decide(difference: Interval, margin: float | None, seeds: int) -> str:
    """What would decide an open claim of this many seeds if mean and scatter stayed as they are, in words."""
    needed = seeds_to_decide(difference, margin or 0.0)
    if math.isnan(needed):
        return "more than one seed"
    return f"about {max(needed, seeds + 1):.0f} seeds" if needed <= MANY_SEEDS else "other images, or more"


def with_interval(row: Mapping[str, Any], name: str = "difference", *, digits: int = 3, unit: str = "") -> str:
    """A difference and its interval: "+0.009 dB [+0.006, +0.013]"; -0.0 keeps its sign, the side of zero decides."""
    interval = f" [{row['low']:+.{digits}f}, {row['high']:+.{digits}f}]" if pd.notna(row.get("low")) else ""
    return f"{row[name]:+.{digits}f}{unit}{interval}"


def as_math(text: str) -> str:
    """The losses and the weight in a text set as mathematics: L_contr becomes $L_{contr}$."""
    text = re.sub(r"\bL_(contr|perc|CSD|1)\b", r"$L_{\1}$", text)
    return re.sub(r"\blambda_c\b", r"$\\lambda_c$", text)


def answer(runs: Runs, verdicts: pd.DataFrame) -> str:
    """The first claim's verdict in one sentence, with difference and interval on each set; how the others came out.

    verdicts: from `claims_greater`, the headline first. In Markdown.
    """
    if verdicts.empty or not runs.all():
        return "Nothing was measured."
    rows = verdicts.reset_index()
    first = rows[rows["claim"] == rows["claim"].iloc[0]]
    found = [f"{row['verdict']} on {row['set']} ({_evidence(row)})" for _, row in first.iterrows()]
    seeds = seeds_said(first.get("seeds", counts_of(runs)))
    sentence = f"**{first['claim'].iloc[0]}: {', '.join(found)}**, {seeds}, profile {runs.profile}"
    others = rows[rows["claim"] != rows["claim"].iloc[0]]["verdict"]
    if len(others):
        counts = [f"{verdict} {count}" for verdict, count in others.value_counts().items()]
        count = rows["claim"].nunique() - 1
        which = f"{count} claims" if count > 1 else "claim"
        sentence += f". The other {which}, a verdict for each set: {', '.join(counts)}"
    return f"{sentence}."


def _evidence(row: pd.Series) -> str:
    if pd.isna(row.get("difference")):
        return NOT_MEASURED
    unit = row["unit"] if pd.notna(row.get("unit")) else "dB"
    return with_interval(row, digits=DIGITS[unit], unit=f" {unit}")


def smallest_difference(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """For each set the median half-width of the intervals: "0.056 dB on Set5". Empty where there is no interval.

    verdicts: rows with `set`, and `low` and `high` where there is an interval; `unit` where it is not dB.
    """
    rows = pd.DataFrame(verdicts).reindex(columns=["set", "unit", "low", "high"]).dropna(subset=["low", "high"])
    half_widths = (rows["high"] - rows["low"]).astype(float) / 2
    medians = half_widths.groupby([rows["unit"].astype(object).fillna("dB"), rows["set"]], sort=False).median()
    return ", ".join(f"{value:.{DIGITS[unit]}f} {unit} on {name}" for (unit, name), value in medians.items())


def conclusion(runs: Runs, verdicts: pd.DataFrame) -> str:
    """A sentence for each claim, from the verdicts, and what the seeds could not have shown.

    verdicts: from `claims_greater`.
    """
    label = LABELS[runs.profile] if runs.all() else "nothing was measured"
    lines = [f"Profile {runs.profile}, {seeds_said(counts_of(runs))}: {label}.", ""]
    for claim, rows in verdicts.groupby(level="claim", sort=False):
        found = ", ".join(f"{verdict} on {image_set}" for (_, image_set), verdict in rows["verdict"].items())
        lines.append(f"- {claim}: {found}.")
    lines += [f"- {label}: not measured: {reason}." for label, reason in runs.not_measured.items()]
    lines.append("")
    if seeds_of(counts_of(runs)) == "1":
        lines.append("One seed has no interval: nothing can be decided with it.")
    elif reach := smallest_difference(verdicts.reset_index().to_dict("records")):
        lines.append(
            f"With these seeds and steps a difference must be about {reach} (the median of the intervals' half-widths) "
            "to be told from none."
        )
    return "\n".join(lines)
