"""Claims of gains: of rows over their baselines, and of the best of one group of rows over the best of another."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from prffn.study.claims import claims_greater, with_interval
from prffn.study.runs import Runs, image_sets

METRICS = {"psnr_y": "PSNR", "ssim_y": "SSIM", "lpips": "LPIPS"}
"""What claims call the metrics. Of LPIPS the lower is the better."""


def claims_of_gain(
    runs: Runs,
    over: Mapping[str, str],
    labels: Mapping[str, Iterable[str]],
    says: str = "L_contr with {} raises {}",
    printed: float | None = None,
) -> pd.DataFrame:
    """Each claim "this row's figure is greater than that of the row that it is over", as from `claims_greater`.

    over: by label, the label of its baseline. labels: the rows asked about, by metric. says: the claim, of the label
    and the metric's name. printed: the paper's gain in PSNR (dB).
    """

    def of_print(row: str, metric: str) -> dict[str, float]:
        return {} if printed is None or metric != "psnr_y" else {row: printed, over[row]: 0.0}

    verdicts = [
        claims_greater(
            runs,
            {says.format(row, METRICS[metric]): (row, over[row])},
            metric=metric,
            printed=of_print(row, metric),
        )
        for metric, rows in labels.items()
        for row in rows
    ]
    return pd.concat(verdicts)


def best_of(runs: Runs, labels: Iterable[str], image_set: str, metric: str = "psnr_y") -> str:
    """The label with the best mean of a metric over the seeds and images of a set: the highest, of LPIPS the lowest.

    Of equal ones the first; of those that were measured.
    """

    def place(label: str) -> float:
        values = runs.values_of(label, image_set, metric)
        return -np.inf if values is None else float(np.mean(values)) * (-1 if metric == "lpips" else 1)

    return max(labels, key=place)


def claims_of_best(runs: Runs, groups: Sequence[tuple[Sequence[str], Sequence[str]]], says: str) -> pd.DataFrame:
    """Each claim "the best of the first labels is better than the best of the second", in each of METRICS.

    As from `claims_greater`. The first image set chooses the best of both groups for each metric, and the last set
    alone judges them: what was chosen gains nothing by the images that it was chosen on, however many it was chosen
    from. (A seed's luck, which images share, is left; with one set, that one does both.) A claim names the chosen.
    says: what is claimed, such as "The best L_contr beats the best control". A metric not measured is left out.
    """
    chooses, judges = image_sets(runs)[0], image_sets(runs)[-1]
    verdicts = []
    for metric, name in METRICS.items():
        if runs.values_of(groups[0][0][0], judges, metric) is None:
            continue
        claims = {}
        for group in groups:
            first, second = (best_of(runs, labels, chooses, metric) for labels in group)
            text = f"{says} in {name}: {first}, over {second}"
            claims[text] = (second, first) if metric == "lpips" else (first, second)  # greater is then better
        verdicts.append(claims_greater(runs, claims, metric=metric).loc[(slice(None), [judges]), :])
    return pd.concat(verdicts)


SPEEDS_UP = "only speeds up"


def outcome(verdicts: Sequence[str]) -> str:
    """What verdicts on "it gains over L_1 alone" at several lengths, the shortest first, say of a loss.

    "helps" and "hurts": after the longest training. "only speeds up": a gain after a shorter one, and none to be seen
    after the longest. Else "cannot be told from L_1 alone".
    """
    if verdicts[-1] == "holds":
        return "helps"
    if verdicts[-1] == "does not hold":
        return "hurts"
    return SPEEDS_UP if "holds" in verdicts else "cannot be told from L_1 alone"


def said_by_length(runs: Runs, name: str, labels: Mapping[int, str], l1: Mapping[int, str]) -> str:
    """The answer in one sentence: what a loss does, by its gains over L_1 alone at several lengths. In Markdown.

    labels, l1: by the number of steps, the label of the loss and that of L_1 alone. The last image set comes first: it
    has the most images.
    """
    *others, last = image_sets(runs)
    if not all(runs[label] for label in (*labels.values(), *l1.values())):
        return "Nothing was measured."
    verdicts = {n: claims_greater(runs, {name: (labels[n], l1[n])}) for n in sorted(labels)}

    def found(image_set: str) -> str:
        return outcome([rows.loc[(name, image_set), "verdict"] for rows in verdicts.values()])

    rows = {n: rows.loc[(name, last)] for n, rows in verdicts.items()}
    gains = ", ".join(f"{with_interval(row, unit=' dB')} after {n} steps" for n, row in rows.items())
    elsewhere = "".join(f"; on {name} it {found(name)}" for name in others)
    seeds = min(int(row["seeds"]) for row in rows.values())
    return (
        f"**{name} {found(last)} on {last}** (PSNR over L_1 alone: {gains}){elsewhere}; "
        f"{seeds} seed{'s' if seeds > 1 else ''}, profile {runs.profile}."
    )
