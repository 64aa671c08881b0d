"""What things cost, measured once and recorded: reports/<profile>/timings/<key>.json."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from prffn.config import check_profile
from prffn.evaluation.cost import Case, ForwardCase, StepCase, in_rounds, peak_memory
from prffn.losses import computed_by
from prffn.losses.contrast import Contrast
from prffn.models.complexity import OUTPUT_720P
from prffn.study.provenance import provenance
from prffn.study.store import Store, key_of
from prffn.training.device import pick_device

ROUNDS = {"paper": 10, "cpu": 7, "quick": 2}
"""How often each case is timed, after a call that does not count. At `quick` they tell an order of magnitude."""

BATCH = {"paper": 16, "cpu": 2, "quick": 1}
"""Patches of a training step. Time and memory of network and loss grow with them alike: the ratios can be compared."""

OUTPUT = {"paper": OUTPUT_720P, "cpu": (108, 192), "quick": (48, 72)}
"""Height and width of the SR image of Table 8's run times.

The paper does not say what they are of; 1280 x 720, as for its multi-adds, is our choice. The work of a convolution
grows with the pixels, so the ratios of smaller images are comparable, but for what each call costs whatever the size.
"""


class Timings(Mapping[str, dict[str, Any]]):
    """By label the `seconds` (the median of the rounds) and `peak_mb`, or the `error`. Prints as one line."""

    def __init__(self, record: dict[str, Any], profile: str, loaded: bool) -> None:
        self.record, self.profile, self.loaded = record, profile, loaded

    def __getitem__(self, label: str) -> dict[str, Any]:
        seconds, memory = self.record["seconds"][label], self.record["peak_mb"].get(label)
        if error := next((value for value in (seconds, memory) if isinstance(value, str)), None):
            return {"error": error}
        return {"seconds": float(np.median(seconds)), **({} if memory is None else {"peak_mb": memory})}

    def __iter__(self) -> Iterator[str]:
        return iter(self.record["cases"])

    def __len__(self) -> int:
        return len(self.record["cases"])

    def ratio(self, label: str, baseline: str) -> tuple[float, float, float]:
        """Time over the baseline's, paired round by round: the median, and the quartiles. NaN where one failed."""
        a, b = self.record["seconds"][label], self.record["seconds"][baseline]
        if isinstance(a, str) or isinstance(b, str):
            return np.nan, np.nan, np.nan
        low, middle, high = np.percentile(np.array(a) / np.array(b), (25, 50, 75))
        return float(middle), float(low), float(high)

    def __repr__(self) -> str:
        loaded, measured = (len(self), 0) if self.loaded else (0, len(self))
        return f"{len(self)} timings of profile {self.profile}: {loaded} loaded, {measured} measured"


def ensure_timings(
    cases: Mapping[str, Case], profile: str, *, memory: bool = False, device: str = "auto", retrain: bool = False
) -> Timings:
    """The timings of all cases: the recorded ones or, where there are none, new ones, all measured in one run.

    memory: the peak of each case too. device: whose timings; "auto" takes those of this machine's own kind of device
    or, where only the CPU's are recorded, these. Timings belong to the machine that the record names. retrain: measure
    again. Raises ValueError for a device that cannot be used.
    """
    rounds, picked = ROUNDS[check_profile(profile)], pick_device(device)

    def identity(kind: str) -> dict[str, Any]:
        described = {label: [type(case).__name__, asdict(case)] for label, case in cases.items()}  # type: ignore[call-overload]
        return {"cases": described, "rounds": rounds, "memory": memory, "device": kind}

    store = Store(profile, "timings", lambda record: {name: record[name] for name in identity("")})
    for kind in [] if retrain else dict.fromkeys([picked.type, *(["cpu"] if device == "auto" else [])]):
        if record := store.load(key_of(identity(kind))):
            return Timings(record, profile, loaded=True)
    computed: dict[str, str] = {}
    for case in cases.values():
        if isinstance(case, StepCase) and case.contrast is not None and case.implementation == "auto":
            computed |= computed_by(Contrast(**case.contrast), picked)
    started = datetime.now(UTC)
    record = {
        **identity(picked.type),
        "seconds": in_rounds(cases, rounds, picked),
        "peak_mb": peak_memory(cases, picked) if memory else {},
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "provenance": {**provenance(picked, torch.get_num_threads()), **computed},
    }
    return Timings(store.save(record), profile, loaded=False)


def step_cases(profile: str, vary: Mapping[str, Mapping[str, Any]]) -> dict[str, StepCase]:
    """A training step for each label, with the fields of `StepCase` that vary, at the profile's batch."""
    return {label: StepCase(batch=BATCH[check_profile(profile)], **fields) for label, fields in vary.items()}


def forward_label(network: str, scale: int) -> str:
    """The name of a case in records: 'CARN x3'."""
    return f"{network} x{scale}"


def forward_cases(
    profile: str, networks: Mapping[str, tuple[str, Mapping[str, Any]]], scales: tuple[int, ...] = (2, 3, 4)
) -> dict[str, ForwardCase]:
    """A case for each scale and network, at the profile's size of the output.

    networks: by the name of the table's row, the name in NETWORKS and what differs from the published size.
    """
    cases = {}
    for scale in scales:
        height, width = (round(side / scale) for side in OUTPUT[check_profile(profile)])
        for row, (network, options) in networks.items():
            cases[forward_label(row, scale)] = ForwardCase(
                network=network, scale=scale, height=height, width=width, options=dict(options)
            )
    return cases
