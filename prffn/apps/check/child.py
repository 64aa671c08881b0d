"""What a check does in a process of its own: a training that is killed, or the processes of one run where there is one.

`python -m prffn.apps.check.child <JSON>`, of a `Job`.
"""

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil  # type: ignore[import-untyped]
import torch
import torch.distributed as dist

from prffn.apps.check.lines import SHORT
from prffn.config import experiment
from prffn.training.loop import build_model, train
from prffn.training.parallel import in_parallel


@dataclass(frozen=True)
class Job:
    """What the process does. threads: of PyTorch, as in the process that compares."""

    what: Literal["killed", "alone"]
    device: str
    threads: int
    checkpoint: str = ""
    after: int = 0
    """Steps."""


def killed(job: Job) -> None:
    """Trains, and kills itself after `job.after` steps."""

    def on_step(step: int) -> None:
        if step == job.after:
            psutil.Process().kill()

    train(
        experiment(SHORT),
        device=job.device,
        checkpoint=Path(job.checkpoint),
        checkpoint_every=0,
        progress=False,
        on_step=on_step,
    )


def alone(job: Job) -> None:
    """Prints how far the gradient of a network is off that has a group of processes to itself, from one without."""
    device = torch.device(job.device)
    e = experiment(SHORT)
    gradients = []
    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{folder}/group", rank=0, world_size=1)
        for wrapped in (lambda model: model, in_parallel):
            network: Any = wrapped(build_model(e).to(device))
            lr = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(device)
            network(lr).square().mean().backward()
            gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
        dist.destroy_process_group()
    plain, of_group = gradients
    print(f"{float((of_group - plain).norm() / plain.norm())}")


if __name__ == "__main__":
    job = Job(**json.loads(sys.argv[1]))
    torch.set_num_threads(job.threads)
    {"killed": killed, "alone": alone}[job.what](job)
