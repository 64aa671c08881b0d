"""Claims of gains: of rows over their baselines, of one gain over another, and of the best rows of two groups."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from prffn.study.claims import claims_greater, digits_of, judged, seeds_said, with_interval
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
            runs, {says.format(row, METRICS[metric]): (row, over[row])}, metric=metric, printed=of_print(row, metric)
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


def in_words(items: Sequence[str]) -> str:
    """Items as a sentence lists them: "375, 1500 and 6000"."""
    return f"{', '.join(items[:-1])} and {items[-1]}" if len(items) > 1 else items[0]


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
    seeds = seeds_said(row["seeds"] for row in rows.values())
    return (
        f"**{name} {found(last)} on {last}** (PSNR over L_1 alone: {gains}){elsewhere}; {seeds}, "
        f"profile {runs.profile}."
    )


def gains_of(runs: Runs, label: str, over: Mapping[str, str], image_set: str) -> list[list[float]] | None:
    """Gain in PSNR (dB) of a row over its baseline: (seeds, images), of the seeds that both have.

    over: by label, the label of its baseline. None where either was not measured.
    """
    values, others = (runs.values_of(name, image_set) for name in (label, over[label]))
    if values is None or others is None:
        return None
    seeds = min(len(values), len(others))
    return np.subtract(values[:seeds], others[:seeds]).tolist()


def claims_of_growth(runs: Runs, over: Mapping[str, str], claims: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """Each claim "the first row's gain over its baseline is larger than the second row's", as from `claims_greater`.

    The interval is of the difference of the two gains, PSNR in dB, paired by seed and image as all others are. Networks
    of two sizes share a seed's patches, though not its first weights. over: by label, the label of its baseline.
    """
    rows = []
    for text, labels in claims.items():
        for image_set in image_sets(runs):
            first, second = (gains_of(runs, label, over, image_set) for label in labels)
            rows.append({"claim": text, "set": image_set} | judged(first, second, digits_of("psnr_y")))
    return pd.DataFrame(rows).set_index(["claim", "set"])


STAYS = 0.5  # a gain stays where its change, with the whole interval, is less than this part of it (our choice)
CANNOT_BE_SAID = "cannot be said to grow, stay or vanish"


def trend(first: Mapping[str, Any], last: Mapping[str, Any], change: Mapping[str, Any]) -> str:
    """What becomes of a gain from the first to the last network: "grows", "shrinks", "vanishes", "stays", or none.

    first, last, change: rows of `judged`, of the gain in either network and of the last gain less the first. It grows
    or shrinks where the interval of the change excludes zero; it vanishes where it was there, shrinks, and is not told
    from zero in the last network; it stays where it is there in both and the interval of the change is within STAYS.
    """
    if change["verdict"] == "holds":
        return "grows"
    there = [row["verdict"] == "holds" for row in (first, last)]
    if change["verdict"] == "does not hold":
        return "vanishes" if there == [True, False] else "shrinks"
    if all(there) and max(-change["low"], change["high"]) < STAYS * first["difference"]:
        return "stays"
    return CANNOT_BE_SAID


def said_by_size(runs: Runs, name: str, grid: Mapping[int, Mapping[int, str]], over: Mapping[str, str]) -> str:
    """The answer in one sentence: what becomes of a loss's gain from the smallest network to the largest. In Markdown.

    grid: by the number of steps, and by thousands of parameters, ascending, the label of the loss. over: by label, that
    of L_1 alone. The longest training comes first, and the last image set: it has the most images.
    """
    *others, judge = image_sets(runs)
    of_all = [label for labels in grid.values() for label in labels.values()]
    if not all(runs[label] and runs[over[label]] for label in of_all):
        return "Nothing was measured."
    gains = claims_greater(runs, {label: (label, over[label]) for label in of_all})
    first, *_, last = next(iter(grid.values()))
    changes = claims_of_growth(runs, over, {str(n): (labels[last], labels[first]) for n, labels in grid.items()})

    def found(image_set: str) -> str:
        words: dict[str, list[str]] = {}
        for n in sorted(grid, reverse=True):
            small, large = (gains.loc[(grid[n][k], image_set)] for k in (first, last))
            words.setdefault(trend(small, large, changes.loc[(str(n), image_set)]), []).insert(0, str(n))
        return " and ".join(f"{word} after {in_words(steps)} steps" for word, steps in words.items())

    figures = ", ".join(f"{with_interval(changes.loc[(str(n), judge)], unit=' dB')} after {n} steps" for n in grid)
    elsewhere = "".join(f"; on {image_set} it {found(image_set)}" for image_set in others)
    return (
        f"**From {first} K to {last} K parameters the gain of {name} over L_1 alone {found(judge)} on {judge}** (its "
        f"change, in PSNR: {figures}){elsewhere}; {seeds_said(gains['seeds'])}, profile {runs.profile}."
    )
