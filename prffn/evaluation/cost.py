"""Time and memory of losses and of training steps: each case in a process of its own, in turns, and recorded.

A process has its own peak of memory, and cases in turns are slowed alike by a machine that slows down: read the ratios,
and the medians. One record, reports/<profile>/timings/<key>.json, holds all cases of one run, side by side.
"""

import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from typing import Any, ClassVar, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from prffn.config import check_profile
from prffn.evaluation.convolutions import conv_calls
from prffn.evaluation.tiling import MEMORY_FORMAT
from prffn.files import DamagedRecord, digest, read_record, reports_root, save_record
from prffn.losses import Implementation, pixel_contrast
from prffn.losses.contrast import Contrast, Form, Similarity, regions
from prffn.models import PRFFN
from prffn.models.prffn import Variant
from prffn.models.straightforward import straightforward
from prffn.study.provenance import provenance
from prffn.training.device import peak_memory_mb, pick_device, reset_peak_memory
from prffn.training.loop import progress_bar

SLOW = 3.0
"""Seconds of a call from which on a case is measured in the first turn only."""


@dataclass(frozen=True, kw_only=True)
class LossCase:
    """L_contr and its gradient for `batch` HR patches of 144 x 144.

    implementation: of `pixel_contrast`, or "compiled reference", or "matmul or cdist", the S x S matrix by one library
    call and autograd. seconds: how long to go on calling.
    """

    region_size: int
    form: Form = Contrast.form
    similarity: Similarity = Contrast.similarity
    temperature: float = Contrast.temperature
    implementation: Implementation | Literal["compiled reference", "matmul or cdist"] = "streaming"
    batch: int = 16
    seconds: float = 1.0

    def measure(self, device: torch.device) -> dict[str, float]:
        generator = torch.Generator().manual_seed(0)
        hr = torch.rand(self.batch, 3, 144, 144, generator=generator)
        sr = (hr + 0.1 * torch.randn(hr.shape, generator=generator)).to(device).requires_grad_()
        hr = hr.to(device)
        loss = self.loss()
        value = hr.new_zeros(())

        def once() -> None:
            nonlocal value
            sr.grad = None
            value = loss(sr, hr)
            value.backward()

        return {**repeat(once, device, self.seconds), "loss": value.item()}

    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The loss of this case, (sr, hr) -> ()."""
        if self.implementation == "matmul or cdist":
            return lambda sr, hr: by_library(sr, hr, self.region_size, self.form, self.similarity, self.temperature)
        name: Any = self.implementation.removeprefix("compiled ")

        def loss(sr: Tensor, hr: Tensor) -> Tensor:
            return pixel_contrast(
                sr,
                hr,
                self.region_size,
                form=self.form,
                similarity=self.similarity,
                temperature=self.temperature,
                implementation=name,
            )

        return torch.compile(loss) if self.implementation == "compiled reference" else loss


@dataclass(frozen=True, kw_only=True)
class StepCase:
    """A training step of full-size PRFFN at x3, as in Table 6: L_1, and L_contr with these settings.

    region_size: S; None for L_1 alone. batch: LR patches of 48 x 48. steps: how many, after one that does not count.
    """

    region_size: int | None = None
    form: Form = Contrast.form
    similarity: Similarity = Contrast.similarity
    temperature: float = Contrast.temperature
    implementation: Implementation = "streaming"
    batch: int = 16
    steps: int = 3

    def measure(self, device: torch.device) -> dict[str, float]:
        generator = torch.Generator().manual_seed(0)
        lr, hr = (torch.rand(self.batch, 3, side, side, generator=generator).to(device) for side in (48, 144))
        model = PRFFN(3, generator=torch.Generator().manual_seed(0)).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

        def once() -> None:
            sr = model(lr)
            loss = F.l1_loss(sr, hr)
            if self.region_size is not None:
                loss = loss + 0.1 * pixel_contrast(
                    sr,
                    hr,
                    self.region_size,
                    form=self.form,
                    similarity=self.similarity,
                    temperature=self.temperature,
                    implementation=self.implementation,
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return repeat(once, device, 0.0, at_least=self.steps)


@dataclass(frozen=True, kw_only=True)
class InferenceCase:
    """PRFFN's forward pass on one image of `height` x `width` LR pixels, beside its convolutions alone.

    In each of `rounds`, after one that does not count: the forward as `upscale` calls it; `straightforward`, in NCHW;
    and each convolution of the first by itself, on an input of the shape and layout that it has there. Gives medians
    in seconds: "seconds" of the forward, "straightforward", "convs" of all convolutions together, and for each step,
    such as "branch of rate 4", "convs, <step>"; and how many there are and their work, "count, " and "multi-adds, ".
    """

    scale: int = 3
    variant: Variant = "PRFFN3"
    channels: int = 64
    groups: int = 10
    height: int = 120
    width: int = 160
    rounds: int = 5

    def model(self) -> PRFFN:
        generator = torch.Generator().manual_seed(0)
        model = PRFFN(self.scale, variant=self.variant, channels=self.channels, groups=self.groups, generator=generator)
        return model.eval()

    def measure(self, device: torch.device) -> dict[str, float]:
        model = self.model().to(device)
        lr = torch.rand(1, 3, self.height, self.width, generator=torch.Generator().manual_seed(1)).to(device)
        fast = lr.contiguous(memory_format=MEMORY_FORMAT)
        calls = conv_calls(model, fast)
        inputs = {
            (call.shape, call.strides): torch.empty_strided(call.shape, call.strides, device=device).uniform_()
            for call in calls
        }
        rounds: list[dict[str, float]] = []
        with torch.inference_mode():
            for _ in range(1 + self.rounds):
                times = {
                    "seconds": _seconds(lambda: model(fast), device),
                    "straightforward": _seconds(lambda: straightforward(model, lr), device),
                    "convs": 0.0,
                }
                for call in calls:
                    x = inputs[call.shape, call.strides]
                    taken = _seconds(partial(call.compute, x), device)
                    for name in ("convs", f"convs, {call.step}"):
                        times[name] = times.get(name, 0.0) + taken
                rounds.append(times)
        work: dict[str, float] = {}
        for call in calls:
            for name, amount in {f"count, {call.step}": 1, f"multi-adds, {call.step}": call.multi_adds}.items():
                work[name] = work.get(name, 0) + amount
        return {name: statistics.median(times[name] for times in rounds[1:]) for name in rounds[0]} | work


class Case(Protocol):
    """What can be timed: a frozen dataclass, of this module or another, with fields that JSON can hold."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def measure(self, device: torch.device) -> dict[str, float]:
        """`seconds` of a call and `peak_mb`, at least."""
        ...


STEP_BUDGETS: dict[str, dict[str, Any]] = {
    "paper": {"batch": 16, "steps": 20},
    "cpu": {"batch": 2, "steps": 3},
    "quick": {"batch": 1, "steps": 2},
}
"""How many patches and steps of full-size PRFFN to time at each profile. Time and memory of network and loss alike grow
with the batch, so that the ratios can be compared."""


TURNS = {"paper": 3, "cpu": 3, "quick": 1}
"""How often each case is measured."""


def step_cases(profile: str, vary: Mapping[str, Mapping[str, Any]]) -> dict[str, StepCase]:
    """A training step for each label, with the settings that vary, at the profile's batch and number of steps."""
    budget = STEP_BUDGETS[check_profile(profile)]
    return {label: StepCase(**budget, **changes) for label, changes in vary.items()}


def repeat(once: Callable[[], None], device: torch.device, seconds: float, at_least: int = 2) -> dict[str, float]:
    """Median seconds of a call, without the first (it compiles, and touches memory for the first time), and the peak of
    memory in MB above what the process had."""
    reset_peak_memory(device)
    before = peak_memory_mb(device)
    once()
    times: list[float] = []
    while len(times) < at_least or sum(times) < seconds:
        times.append(_seconds(once, device))
    return {"seconds": statistics.median(times), "peak_mb": max(0.0, peak_memory_mb(device) - before)}


def _seconds(once: Callable[[], Any], device: torch.device) -> float:
    wait_for(device)
    began = time.perf_counter()
    once()
    wait_for(device)
    return time.perf_counter() - began


def wait_for(device: torch.device) -> None:
    """Returns when the device has done all that it was given; a CPU has at once."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def by_library(
    sr: Tensor, hr: Tensor, region_size: int, form: Form, similarity: Similarity, temperature: float
) -> Tensor:
    """`pixel_contrast` with one library call for all distances or products of a region, and autograd."""
    losses = []
    for x, y in zip(regions(sr, region_size), regions(hr, region_size), strict=True):
        if form == "ratio":
            distances = torch.cdist(x, y, p=1)  # (R, S, S)
            positive = distances.diagonal(dim1=1, dim2=2)
            mean = (distances.sum(dim=2) - positive) / (x.shape[1] - 1)
            losses.append((positive / (mean + Contrast.epsilon)).flatten())
            continue
        if similarity == "l1":
            scores = -torch.cdist(x, y, p=1)
        elif similarity == "squared":
            scores = 2 * x @ y.transpose(1, 2) - y.square().sum(2).unsqueeze(1)  # and |x|^2 drops out of the softmax
        else:
            if similarity == "cosine":
                x, y = F.normalize(x, dim=-1), F.normalize(y, dim=-1)
            scores = x @ y.transpose(1, 2)
        target = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
        losses.append(F.cross_entropy((scores / temperature).flatten(0, 1), target.flatten(), reduction="none"))
    return torch.cat(losses).mean()


def measure_in_turns(
    cases: Mapping[str, Case], device: torch.device, turns: int, once: Container[str] = ()
) -> dict[str, list[dict[str, Any]]]:
    """What each case measured in each turn, by label; for a case that failed, one entry with the `error`.

    once: labels of cases to measure in the first turn only, as is any case whose call takes more than SLOW seconds.
    """
    found: dict[str, list[dict[str, Any]]] = {label: [] for label in cases}
    bar = progress_bar(total=turns * len(cases), desc="measuring", unit="case", leave=False)
    for turn in range(turns):
        for label, case in cases.items():
            bar.set_postfix_str(label)
            first = found[label][0] if turn else {}
            again = label not in once and "error" not in first and first.get("seconds", 0.0) < SLOW
            if turn == 0 or again:
                found[label].append(_in_its_own_process(case, device))
            bar.update()
    bar.close()
    return found


def _in_its_own_process(case: Case, device: torch.device) -> dict[str, Any]:
    kind = [type(case).__module__, type(case).__name__]
    description = json.dumps({"kind": kind, "device": str(device), "case": asdict(case)})
    done = subprocess.run([sys.executable, "-m", "prffn.evaluation.cost", description], capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"error": lines[-1] if lines else f"the process ended with status {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


class Timings(Mapping[str, dict[str, Any]]):
    """What was measured of each case, by label: medians over the turns, or the `error`. Prints as one line."""

    def __init__(self, record: dict[str, Any], profile: str, loaded: bool) -> None:
        self.record, self.profile, self.loaded = record, profile, loaded

    def __getitem__(self, label: str) -> dict[str, Any]:
        turns = self.record["measured"][label]
        if "error" in turns[0]:
            return turns[0]
        return {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}

    def __iter__(self) -> Iterator[str]:
        return iter(self.record["measured"])

    def __len__(self) -> int:
        return len(self.record["measured"])

    def __repr__(self) -> str:
        loaded, measured = (len(self), 0) if self.loaded else (0, len(self))
        return f"{len(self)} timings of profile {self.profile}: {loaded} loaded, {measured} measured"


def ensure_timings(cases: Mapping[str, Case], profile: str, *, device: str = "auto", retrain: bool = False) -> Timings:
    """The timings of all cases: the recorded ones or, where there are none, new ones, all measured in one run.

    Timings belong to the machine they were made on, which the record names. retrain: measure afresh.
    """
    turns = TURNS[check_profile(profile)]
    identity = {"cases": {label: [type(case).__name__, asdict(case)] for label, case in cases.items()}, "turns": turns}
    key = digest(identity)[:16]
    store = reports_root() / profile / "timings"
    if not retrain and (path := store / f"{key}.json").is_file():
        try:
            return Timings(read_record(path), profile, loaded=True)
        except DamagedRecord as error:
            warnings.warn(f"{error}; the timings are measured again", stacklevel=2)
    picked = pick_device(device)
    started = datetime.now(UTC)
    measured = measure_in_turns(cases, picked, turns)
    record = {
        "key": key,
        **identity,
        "measured": measured,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "provenance": provenance(picked, torch.get_num_threads()),
    }
    save_record(store, key, record)
    return Timings(record, profile, loaded=False)


def _measure_one(description: str) -> None:
    d = json.loads(description)
    module, name = d["kind"]
    case: Case = getattr(import_module(module), name)(**d["case"])
    print(json.dumps(case.measure(torch.device(d["device"]))))


if __name__ == "__main__":
    _measure_one(sys.argv[1])
