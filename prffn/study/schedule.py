"""How long runs take on several GPUs: simulated, one run on a GPU at a time, the longest first."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

from prffn.files import whole_number


@dataclass(frozen=True)
class Slot:
    """Where and when a run is trained; times in seconds from the beginning."""

    gpu: int
    start: float
    finish: float


def chains(seconds: Mapping[str, float], after: Mapping[str, str]) -> dict[str, float]:
    """For each run, its seconds and those of the longest chain of runs that wait for it, one after the other.

    Raises ValueError if a run waits for one that is not there, or runs wait for each other.
    """
    waiting: dict[str, list[str]] = {run: [] for run in seconds}
    for run, first in after.items():
        if first not in seconds or run not in seconds:
            raise ValueError(f"run {run!r} waits for {first!r}: both must be among the runs")
        waiting[first].append(run)
    found: dict[str, float] = {}

    def follow(run: str) -> float:
        found[run] = seconds[run] + max((follow(later) for later in waiting[run]), default=0.0)
        return found[run]

    for run in seconds:
        if run not in after:
            follow(run)
    if endless := [run for run in seconds if run not in found]:
        raise ValueError(f"runs wait for each other: {', '.join(endless)}")
    return found


def schedule(seconds: Mapping[str, float], gpus: int, after: Mapping[str, str] | None = None) -> dict[str, Slot]:
    """When each run is trained on which of `gpus` equal GPUs, in the order of their starts.

    seconds: of each run by name, 0 or more. after: the run for whose weights a run waits. A GPU that is free takes, of
    the runs that wait for none, the one with the longest chain: without `after`, the longest run (LPT list scheduling,
    Graham 1969: at most 4/3 - 1 / (3 gpus) times the shortest possible makespan).
    Raises ValueError for fewer than one GPU, for a time that is negative or no number, and as `chains` does.
    """
    whole_number("gpus", gpus, 1)
    for run, value in seconds.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"run {run!r} must take 0 seconds or more, got {value!r}")
    after = after or {}
    length = chains(seconds, after)
    waiting = sorted(seconds, key=lambda run: -length[run])
    free = [(0.0, gpu) for gpu in range(gpus)]
    slots: dict[str, Slot] = {}
    while waiting:
        now, gpu = heapq.heappop(free)
        placed = {
            run: slots[after[run]].finish if run in after else 0.0 for run in waiting if _placed(run, after, slots)
        }
        ready = [run for run, earliest in placed.items() if earliest <= now]
        if not ready:  # the GPU is idle until a run has ended for which another waits
            heapq.heappush(free, (min(placed.values()), gpu))
            continue
        waiting.remove(ready[0])
        slots[ready[0]] = Slot(gpu, now, now + seconds[ready[0]])
        heapq.heappush(free, (slots[ready[0]].finish, gpu))
    return slots


def _placed(run: str, after: Mapping[str, str], slots: Mapping[str, Slot]) -> bool:
    """Whether it is known from when on a run can start."""
    return run not in after or after[run] in slots


def makespan(seconds: Mapping[str, float], gpus: int, after: Mapping[str, str] | None = None) -> float:
    """Seconds until the last run of the `schedule` has ended; 0 without runs."""
    return max((slot.finish for slot in schedule(seconds, gpus, after).values()), default=0.0)


def lower_bound(seconds: Mapping[str, float], gpus: int, after: Mapping[str, str] | None = None) -> float:
    """Seconds below which no schedule can be: the longest chain of runs (without `after`, the longest run), or an equal
    share of all for each GPU, whichever is more."""
    longest = max(chains(seconds, after or {}).values(), default=0.0)
    return max(longest, sum(seconds.values()) / gpus)
