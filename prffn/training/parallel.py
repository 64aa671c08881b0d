"""The processes that train one run together: who they are, what each takes of a batch, how they agree on a number.

torchrun starts them, one for each GPU (or some on the CPU), and tells each its number. Without it a process is alone,
forms no group, and all of this costs nothing and changes no bit.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from prffn.training.device import pick_device

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets for each process that it starts."""

CPU = torch.device("cpu")

PATIENCE = timedelta(days=7)
"""How long the others wait while rank 0 evaluates, or itself waits for another program that trains the same run."""


@dataclass(frozen=True)
class Processes:
    """This process among those that train a run together; by default it is alone.

    rank: its number, from 0 to world_size - 1; rank 0 keeps checkpoints and records. device: where it trains.
    waiting: a group for what may last longer than a step, None for one alone.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = CPU
    waiting: dist.ProcessGroup | None = None

    def part(self, batch_size: int) -> slice:
        """The samples of a batch that this process takes: each sample is one process's, no two differ by more than one.

        Raises ValueError for a batch of fewer samples than processes.
        """
        if batch_size < self.world_size:
            few = f"data.batch_size is {batch_size}, fewer samples than the {self.world_size} processes"
            raise ValueError(f"{few}: start {batch_size} at most")
        first, last = (batch_size * rank // self.world_size for rank in (self.rank, self.rank + 1))
        return slice(first, last)

    def mean(self, value: Tensor, share: float) -> Tensor:
        """The mean over a batch, from each process's `value`, the mean over its `share` of it. All get the same bits.

        No gradient flows through it. Of several processes it is in float64; of one it is `value` itself.
        """
        if self.world_size == 1:
            return value
        total = value.detach().double() * share
        dist.all_reduce(total)
        return total

    def broadcast(self, value: Any) -> Any:
        """Return what the process of rank 0 has as `value`, on all of them; they wait for it."""
        values = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(values, group=self.waiting)
        return values[0]

    def gather(self, value: Any) -> list[Any]:
        """Return the `value` of each process, by rank, on all of them."""
        values = [value] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(values, value, group=self.waiting)
        return values

    def wait(self) -> None:
        """Returns when all processes have come here."""
        if self.world_size > 1:
            dist.barrier(group=self.waiting)


def world_size() -> int:
    """How many processes torchrun has started together; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in VARIABLES) else 1


@contextmanager
def started(device: str = "auto") -> Iterator[Processes]:
    """This process among those that torchrun has started, in a group for as long as the context lasts; else alone.

    device: "auto", "cpu", "cuda" or "mps"; of several processes each takes the GPU of its local rank (nccl between
    them), or they share the CPU (gloo).
    Raises ValueError if the device cannot be used, ConnectionError if another process has ended before its time.
    """
    if (count := world_size()) == 1:
        yield Processes(device=pick_device(device))
        return
    rank, picked = int(os.environ["RANK"]), device_of(int(os.environ["LOCAL_RANK"]), device)
    if picked.type == "cuda":
        torch.cuda.set_device(picked)
    try:
        dist.init_process_group("nccl" if picked.type == "cuda" else "gloo")
        waiting = dist.new_group(backend="gloo", timeout=PATIENCE)
        assert isinstance(waiting, dist.ProcessGroup)
        yield Processes(rank, count, picked, waiting)
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        reason = str(error).splitlines()[0].partition(". ")[0]  # what follows is advice of the library
        lost = f"process {rank} of {count} has lost the others ({reason}); another one may have said why"
        raise ConnectionError(f"{lost}. Start them again: a training resumes from its last checkpoint") from error
    # After an error the group is left as it is: to take it down in order takes all processes, and the others may be
    # waiting for this one. Its end tells them.
    dist.destroy_process_group()


def device_of(local_rank: int, device: str = "auto") -> torch.device:
    """The device of one of several processes on a machine: a GPU of its own, or the CPU.

    Raises ValueError if the machine has fewer GPUs, or for "mps", of which there is one.
    """
    picked = pick_device("cpu" if device == "auto" and not torch.cuda.is_available() else device)
    if picked.type == "mps":
        raise ValueError("device 'mps' cannot be shared by several processes; try cpu or cuda, or a single process")
    if picked.type == "cpu":
        return picked
    if local_rank >= (count := torch.cuda.device_count()):
        way_out = f"start {count} at most (torchrun --nproc-per-node), or take the CPU (--device cpu)"
        raise ValueError(f"process {local_rank} of this machine has no GPU of its own: {way_out}")
    return torch.device("cuda", local_rank)


def in_parallel(model: nn.Module) -> nn.Module:
    """The network for several processes: all get the weights of rank 0 here, and the mean of their gradients later."""
    constants = [name for name, _ in model.named_buffers()]  # such as the mean RGB: nothing to be sent at every step
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, constants)
    return DistributedDataParallel(model)
