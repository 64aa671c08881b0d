"""What things cost, measured once and recorded: reports/<profile>/timings/<key>.json."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np

from prffn.config import check_profile
from prffn.evaluation.cost import Case, ForwardCase, StepCase, in_rounds, peak_memory
from prffn.losses import computed_by
from prffn.losses.contrast import Contrast
from prffn.models.complexity import OUTPUT_720P
from prffn.study.provenance import measured
from prffn.study.side_by_side import cores
from prffn.study.store import Found, Record, Store
from prffn.training.device import pick_device

ROUNDS = {"paper": 10, "gpu": 10, "cpu": 7, "quick": 2}
"""How often each case is timed, after a call that does not count. At `quick` they tell an order of magnitude."""

BATCH = {"paper": 16, "gpu": 16, "cpu": 2, "quick": 1}
"""Patches of a training step. Time and memory of network and loss grow with them alike: the ratios can be compared."""

OUTPUT = {"paper": OUTPUT_720P, "gpu": OUTPUT_720P, "cpu": (108, 192), "quick": (48, 72)}
"""Height and width of the SR image of Table 8's run times.

The paper does not say what they are of; 1280 x 720, as for its multi-adds, is our choice. The work of a convolution
grows with the pixels, so the ratios of smaller images are comparable, but for what each call costs whatever the size.
"""


class Timings(Found[str]):
    """By label the `seconds` (the median of the rounds) and `peak_mb`, or the `error`; and their one record."""

    def __init__(self, record: Record, profile: str, loaded: bool) -> None:
        figures: dict[str, Record] = {}
        for label, seconds in record["seconds"].items():
            memory = record["peak_mb"].get(label)
            if error := next((value for value in (seconds, memory) if isinstance(value, str)), None):
                figures[label] = {"error": error}
            else:
                figures[label] = {"seconds": float(np.median(seconds)), "peak_mb": memory}
        super().__init__("timings", profile, figures, set() if loaded else set(figures))
        self.record = record

    def ratio(self, label: str, baseline: str) -> tuple[float, float, float]:
        """Time over the baseline's, paired round by round: the median, and the quartiles. NaN where one failed."""
        a, b = self.record["seconds"][label], self.record["seconds"][baseline]
        if isinstance(a, str) or isinstance(b, str):
            return np.nan, np.nan, np.nan
        low, middle, high = np.percentile(np.array(a) / np.array(b), (25, 50, 75))
        return float(middle), float(low), float(high)


def ensure_timings(
    cases: Mapping[str, Case], profile: str, *, memory: bool = False, device: str = "auto", retrain: bool = False
) -> Timings:
    """The timings of all cases: the recorded ones or, where there are none, new ones, all measured in one run.

    memory: the peak of each case too. device: whose timings; "auto" takes those of this machine's own kind of device
    or, where only the CPU's are recorded, these. Timings belong to the machine that the record names. retrain: measure
    again. Raises ValueError for a device that cannot be used.
    """
    rounds, picked = ROUNDS[check_profile(profile)], pick_device(device)
    described = {label: [type(case).__name__, asdict(case)] for label, case in cases.items()}  # type: ignore[call-overload]
    asked = {"cases": described, "rounds": rounds, "memory": memory, "device": picked.type}
    store = Store(profile, "timings", {name: name for name in asked})
    for kind in [] if retrain else dict.fromkeys([picked.type, *(["cpu"] if device == "auto" else [])]):
        if record := store.load(store.key({**asked, "device": kind})):
            return Timings(record, profile, loaded=True)
    started = datetime.now(UTC)
    timed = {
        "seconds": in_rounds(cases, rounds, picked),
        "peak_mb": peak_memory(cases, picked, cores() if profile == "quick" else 1) if memory else {},
    }
    made = measured(started, picked)
    for case in cases.values():
        if isinstance(case, StepCase) and case.contrast is not None and case.implementation == "auto":
            made["provenance"] |= computed_by(Contrast(**case.contrast), picked)
    return Timings(store.save({**asked, **timed, **made}), profile, loaded=False)


def step_cases(profile: str, vary: Mapping[str, Mapping[str, Any]]) -> dict[str, StepCase]:
    """A training step for each label, with the fields of `StepCase` that vary, at the profile's batch."""
    return {label: StepCase(batch=BATCH[check_profile(profile)], **fields) for label, fields in vary.items()}


def forward_cases(profile: str, networks: Mapping[str, tuple[str, Mapping[str, Any]]]) -> dict[str, ForwardCase]:
    """A case for each scale and network, such as "CARN x3", at the profile's size of the output.

    networks: by the name of the table's row, the name in NETWORKS and what differs from the published size.
    """
    cases = {}
    for scale in (2, 3, 4):
        height, width = (round(side / scale) for side in OUTPUT[check_profile(profile)])
        for row, (network, options) in networks.items():
            cases[f"{row} x{scale}"] = ForwardCase(
                network=network, scale=scale, height=height, width=width, options=dict(options)
            )
    return cases
