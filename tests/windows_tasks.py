"""What a process of test_systems.py does on the Windows that windows.py plays: `windows_tasks.py TASK [SETTINGS]`."""

import importlib
import json
import os
import pkgutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any


def imports() -> None:
    """Imports every module of the package, and prints those that cannot be."""
    import prffn

    failed = {}
    for module in pkgutil.walk_packages(prffn.__path__, "prffn.", onerror=lambda name: None):
        try:
            importlib.import_module(module.name)
        except Exception as error:
            failed[module.name] = repr(error)
    print(json.dumps(failed))


def train(settings: dict[str, Any], last_step: int) -> None:
    """Trains to Ctrl-C in the step after `last_step`, or to the end. Prints the steps taken, and what was recorded."""
    import torch

    from prffn.config import experiment
    from prffn.study import runs
    from prffn.study.ensure import ensure

    runs.train = partial(runs.train, checkpoint_every=0)  # type: ignore[attr-defined]
    step, steps = torch.optim.Adam.step, []

    def stepping(*arguments: Any, **more: Any) -> Any:
        if len(steps) == last_step:
            raise KeyboardInterrupt
        steps.append(step(*arguments, **more))

    torch.optim.Adam.step = stepping  # type: ignore[method-assign]
    record: dict[str, Any] = {}
    with suppress(KeyboardInterrupt):
        record = ensure({"a": [experiment(settings)]}, "quick", device="cpu", progress=False)["a"][0].record
    print(json.dumps({"steps": len(steps), "record": record}))


def files() -> None:
    """A reader has a file open while it is written: for a moment, and for good. Prints what became of it."""
    from prffn import files

    path, said = Path("record.json").resolve(), {}
    files.write_json(path, 1)
    reader = path.open("rb")
    threading.Timer(0.3, reader.close).start()
    files.write_json(path, "Łódź")
    said["written when the reader had done"] = path.read_bytes().decode()
    with path.open("rb"):
        began = time.monotonic()
        try:
            files.write_json(path, 3)
        except PermissionError as error:
            said["refused"] = [str(error), time.monotonic() - began < 10]
    said["left"] = os.listdir(path.parent)
    print(json.dumps(said))


def refusals(attempts: dict[str, str]) -> None:
    """Tries what Windows refuses, each as a line of the kit. Prints what was not refused."""
    here = {name: module for name, module in sys.modules.items() if name in ("os", "signal", "multiprocessing")}
    Path("open.txt").write_bytes(b"")
    Path("full").mkdir()
    granted = {}
    with Path("open.txt").open("rb"), Path("full", "held").open("wb"):
        for line, error in attempts.items():
            try:
                exec(compile(line, os.environ["KIT"] + "/files.py", "exec"), {**here, "Path": Path})
                granted[line] = "granted"
            except Exception as refusal:
                if type(refusal).__name__ != error:
                    granted[line] = repr(refusal)
    print(json.dumps(granted))


if __name__ == "__main__":
    tasks: dict[str, Callable[..., None]] = {
        task.__name__: task for task in (imports, train, files, refusals)
    }  # fmt: skip
    tasks[sys.argv[1]](*map(json.loads, sys.argv[2:]))
