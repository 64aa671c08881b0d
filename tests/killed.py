"""What is killed, in a process of its own: a set is downloaded, decoded, trained on, evaluated and recorded.

The processes are forked from one that has imported the kit: then killing twenty of them costs seconds.
"""

import json
import multiprocessing
import os
import signal
import sys
import warnings
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from prffn.config import experiment
from prffn.data.download import Archive, get
from prffn.study import runs
from prffn.study.ensure import ensure

PHASES = {"download": "data", "caching": "cache/images", "training": "cache/checkpoints", "recording": "reports"}
"""Where each phase has its files."""

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"}
"""Of the interpreter's audit events, those of changed files; they come before what they announce."""

context = multiprocessing.get_context("forkserver")
# torch._dynamo is what Adam imports
context.set_forkserver_preload(["prffn.study.ensure", "prffn.data.download", "torch._dynamo"])


def started(folder: Path, archive: Archive, settings: dict[str, Any], moment: tuple[str, int] | None) -> BaseProcess:
    """The process, which does all its work in `folder`. moment: the phase and the number of the event in it, counted
    from here on, at which it kills itself by SIGKILL."""
    process = context.Process(target=work, args=(folder, archive, settings, moment))
    process.start()
    return process


def work(folder: Path, archive: Archive, settings: dict[str, Any], moment: tuple[str, int] | None) -> None:
    """The command that is killed and given again. It leaves the number of events by phase in events.json, and a byte
    in `steps` for each training step."""
    os.environ |= {
        "PRFFN_DATA": str(folder / "data"),
        "PRFFN_CACHE": str(folder / "cache"),
        "PRFFN_REPORTS": str(folder / "reports"),
        "CC": "false",  # nothing is compiled, in every cache anew
    }
    warnings.simplefilter("ignore")  # of a Set5 that is not the study's
    torch.set_num_threads(1)
    runs.train = partial(runs.train, checkpoint_every=0)
    events = dict.fromkeys(PHASES, 0)

    def happens(phase: str) -> None:
        events[phase] += 1
        if moment == (phase, events[phase]):
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        changes = event in CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if changes:
            for phase, place in PHASES.items():
                if any(str(path).startswith(str(folder / place)) for path in arguments[:2]):
                    happens(phase)

    step = torch.optim.Adam.step

    def stepping(*arguments: Any, **more: Any) -> Any:
        happens("training")  # with the gradients, before the weights change
        with (folder / "steps").open("ab") as log:
            log.write(b".")
        return step(*arguments, **more)

    torch.optim.Adam.step = stepping  # type: ignore[method-assign]
    sys.addaudithook(audit)
    get("Set5", archives=(archive,), progress=False)
    ensure({"killed": [experiment(settings)]}, "quick", progress=False)
    (folder / "events.json").write_text(json.dumps(events))
