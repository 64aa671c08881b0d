"""Does a loss help beside L_1, and when? Asked for a loss of a reader, by notebooks/your_loss.ipynb.

Three trainings are compared at three lengths: with L_1 alone, with the loss beside it, and with a control in the place
of the loss, a squared error whose gradient in the SR images is as large at each step (training/objective.py).
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F

from prffn.config import PHOTOGRAPHS, PROFILE_SEEDS, PROFILES, Experiment, experiment, variants
from prffn.losses.own import check_loss, locate, own_loss, source_sha256
from prffn.study.claims import NOT_MEASURED, claims_greater, counts_of, seeds_said, with_interval
from prffn.study.ensure import recorded_runs
from prffn.study.gains import SPEEDS_UP, outcome
from prffn.study.runs import Runs
from prffn.training.device import pick_device
from prffn.training.loop import patches_of
from prffn.training.objective import GREY_LEVELS, gradient_norms, loss_terms, weighted

L1, YOURS, CONTROL = "L_1", "your loss", "control"  # the three trainings

SEEDS = {**PROFILE_SEEDS, "cpu": 3, "quick": 3}
"""How many seeds by profile: as many as an interval needs, where a third of an hour on two cores is enough."""

BATCHES = 16  # of how many the first share of a loss's gradient is a mean
FELT = (0.01, 10.0)  # first shares beyond these are warned of (our choice)


def beside_l1(loss: str, weight: float, profile: str, device: str = "auto") -> dict[str, dict[str, Any]]:
    """The settings of the three trainings, by name. The loss is tried on made-up images first, see `check_loss`.

    loss: see `locate`. weight: w of L_1 + w L, both of images in [0, 1]. profile: whose HR patches it will see.
    Raises ValueError or FileNotFoundError for a loss that cannot be used: what is wrong, and the way out. Warns of a
    weight at which the loss is hardly felt, or drowns L_1.
    """
    losses, data = settings_beside_l1(loss, weight), experiment(PROFILES[profile]).data
    yours, side = losses[YOURS], data.patch_size * data.scale
    function = own_loss(yours["loss.own"], yours["loss.own_sha256"])
    check_loss(function, (side, side), name=f"loss {loss!r}", device=pick_device(device))
    share = first_share(yours, profile)
    if not 0 < share < math.inf:
        raise ValueError(f"loss {loss!r} has a gradient of norm {share} in bicubic images, not a finite one above 0")
    if not FELT[0] <= share <= FELT[1]:
        found = f"at weight {weight:g} the gradient of loss {loss!r} is {share:.2g} times as large as L_1's"
        warnings.warn(f"{found}: at weight {weight / share:.2g} it would be as large", stacklevel=2)
    return losses


def settings_beside_l1(loss: str, weight: float) -> dict[str, dict[str, Any]]:
    """The settings of the three trainings, by name, without a trial of the loss."""
    located = locate(loss)
    own = {"loss.own": located, "loss.own_sha256": source_sha256(located), "loss.own_weight": GREY_LEVELS * weight}
    alone = {"loss.contrast_weight": 0.0}
    return {L1: alone, YOURS: alone | own, CONTROL: alone | own | {"loss.own_control": True}}


def first_share(settings: Mapping[str, Any], profile: str) -> float:
    """How large the gradient of a loss is in the SR images beside that of L_1, before any training.

    settings: of `beside_l1`. The root mean square over batches of the profile's size, of bicubic images of the
    photographs that are on every machine.
    """
    e = experiment({**PROFILES[profile], **PHOTOGRAPHS, **settings})
    sampler, squares = patches_of(e), torch.zeros(2)
    for _ in range(BATCHES):
        lr, hr = sampler.batch()
        sr = F.interpolate(lr, scale_factor=e.data.scale, mode="bicubic", align_corners=False).requires_grad_()
        squares += gradient_norms(weighted(loss_terms(sr, hr, lr, e.loss), e.loss), sr)
    of_l1, of_loss = squares.tolist()
    return (of_loss / of_l1) ** 0.5


def lengths(profile: str) -> tuple[int, int, int]:
    """A quarter of the profile's steps, half of them, and all (our choice)."""
    steps = experiment(PROFILES[profile]).training.steps
    return max(1, steps // 4), max(1, steps // 2), steps


def label(name: str, steps: int) -> str:
    """A training of one length, as it is called in tables."""
    return f"{name}, {steps} steps"


def trainings(
    losses: Mapping[str, Mapping[str, Any]], profile: str, seeds: int | None = None
) -> dict[str, list[Experiment]]:
    """The experiments: each of the three trainings, see `beside_l1`, at each length. seeds: None for SEEDS."""
    vary = {label(name, n): {**losses[name], "training.steps": n} for name in losses for n in lengths(profile)}
    return variants(profile, vary, seeds=seeds or SEEDS[profile], instead=("training.steps",))


KNOWN = {
    "squared_error": "it cannot beat its control, a squared error too",
    "absolute_error": "it is L_1 itself, and cannot be told from it",
}
"""The losses of notebooks/losses_to_try.py, and what must come out."""


def known_answers(profile: str) -> pd.DataFrame:
    """The answers for KNOWN, of which all runs are recorded: a row each, what must come out and what did."""
    rows = {}
    for name, known in KNOWN.items():
        loss = f"notebooks/losses_to_try.py:{name}"
        if runs := recorded_runs(trainings(settings_beside_l1(loss, 1.0), profile), profile):
            verdicts = claims_greater(runs, claims(lengths(profile)))
            rows[name] = {"known": known, "found": sentence(runs, verdicts, lengths(profile), loss)}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["known", "found"]).rename_axis("loss")


def claims(steps: Sequence[int]) -> dict[str, tuple[str, str]]:
    """What `claims_greater` is asked: the loss over L_1 alone, over the control, the control over L_1 alone; each at
    all lengths, the longest first."""
    pairs = ((YOURS, L1), (YOURS, CONTROL), (CONTROL, L1))
    return {claim(a, b, n): (label(a, n), label(b, n)) for a, b in pairs for n in sorted(steps, reverse=True)}


def claim(name: str, other: str, steps: int) -> str:
    """One claim, in words."""
    return f"{name} {'gains over L_1 alone' if other == L1 else f'beats the {other}'} after {steps} steps"


def outcomes(verdicts: pd.DataFrame, steps: Sequence[int]) -> dict[str, str]:
    """The outcome on each set. verdicts: of the `claims`."""
    return {
        name: outcome([verdicts.loc[(claim(YOURS, L1, n), name), "verdict"] for n in sorted(steps)])
        for name in verdicts.index.unique("set")
    }


OF_CONTROL = {"holds": "beats", "does not hold": "falls behind", "not decided": "cannot be told from"}
"""What the verdict on "it beats the control" says of a loss."""


def sentence(runs: Runs, verdicts: pd.DataFrame, steps: Sequence[int], loss: str) -> str:
    """The answer: what the loss does on the set with the most images, the gains behind that, and on the other sets.

    verdicts: of the `claims`. loss: as it was named. The control is judged at the first length at which a loss gains
    that only speeds up, else at the longest. In Markdown.
    """
    if NOT_MEASURED in set(verdicts["verdict"]):
        return "Nothing was measured."
    found = outcomes(verdicts, steps)
    images = {name: len(group[0].values(name) or []) for group in runs.values() for name in found}
    first = max(images, key=images.__getitem__)
    over_l1 = {n: verdicts.loc[(claim(YOURS, L1, n), first)] for n in sorted(steps)}
    gaining = [n for n, row in over_l1.items() if row["verdict"] == "holds"]
    judged_at = gaining[0] if found[first] == SPEEDS_UP else max(steps)
    over_control = verdicts.loc[(claim(YOURS, CONTROL, judged_at), first)]
    gains = ", ".join(f"{with_interval(row, unit=' dB')} after {n} steps" for n, row in over_l1.items())
    elsewhere = "".join(f"; on {name} it {found[name]}" for name in found if name != first)
    return (
        f"**`{loss.rpartition(':')[2]}` {found[first]} on {first}** (over L_1 alone: {gains}); it "
        f"{OF_CONTROL[over_control['verdict']]} a squared error of the same share of the gradient "
        f"({with_interval(over_control, unit=' dB')} after {judged_at} steps){elsewhere}; "
        f"{seeds_said(counts_of(runs))}, profile {runs.profile}."
    )
