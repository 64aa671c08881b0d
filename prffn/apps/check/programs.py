"""What takes processes of its own: a training that is killed and resumes, one run by several, a notebook."""

import importlib.util
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
import torch.distributed as dist

from prffn.apps.check.lines import SHORT, Check, Sizes, Skipped, Wrong, apart
from prffn.config import experiment
from prffn.files import CACHE_VARIABLE, REPORTS_VARIABLE, checkout
from prffn.models.complexity import parameters
from prffn.training.checkpoint import load_checkpoint
from prffn.training.device import threads_for
from prffn.training.loop import build_model, train
from prffn.training.parallel import in_parallel

KILLED_AFTER = 10  # steps, of the 20 of SHORT
CHECKPOINT = "killed.ckpt"
NEAR = 0.01  # bound of `apart` where bits may differ
NOTEBOOK = "table5_region_size"
PATIENCE = 150.0  # seconds after which a command is stopped


def program_checks(device: torch.device, _: Sizes) -> Iterator[Check]:
    """The checks that start processes."""
    yield Check("kill and resume", f"after {KILLED_AFTER} of {SHORT['training.steps']} steps", lambda: _resumed(device))
    yield Check("one run by several processes", "torchrun", lambda: _together(device))
    if device.type == "cuda":
        yield Check("one run by several processes", "nccl in a group of one", lambda: _group_of_one(device))
    yield Check("notebook through papermill", NOTEBOOK, lambda: _notebook(device))


def _resumed(device: torch.device) -> str:
    """How far a training that was killed ends from one that was not. On a CPU no bit may differ."""
    e = experiment(SHORT)
    first = build_model(e).state_dict()
    with tempfile.TemporaryDirectory() as folder, threads_for(parameters(build_model(e))) as threads:
        checkpoint = Path(folder, CHECKPOINT)
        code = f"from {__name__} import train_until_killed; train_until_killed({str(device)!r}, {threads}, {folder!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=PATIENCE)
        state = load_checkpoint(checkpoint)
        if state is None or not 0 < state["step"] <= KILLED_AFTER:
            raise Wrong(f"the training was not killed as planned, exit status {done.returncode}")
        resumed = train(e, device=device, checkpoint=checkpoint, progress=False)
        whole = train(e, device=device, progress=False)
    found, expected = resumed.model.state_dict(), whole.model.state_dict()
    if all(torch.equal(found[name], expected[name]) for name in expected) and resumed.curve == whole.curve:
        return "resumed from its checkpoint: the weights and losses of a training that was not killed, bit for bit"
    off = apart(found, expected, first)
    if device.type == "cpu" or not off <= NEAR:
        raise Wrong(f"not the weights of a training that was not killed: {off:.1e} of the way apart")
    return f"resumed from its checkpoint: not bit for bit; {off:.1e} of the way apart, {NEAR:g} allowed"


def train_until_killed(device: str, threads: int, folder: str) -> None:
    """In a process of its own: trains, and kills itself after KILLED_AFTER steps."""

    def on_step(step: int) -> None:
        if step == KILLED_AFTER:
            psutil.Process().kill()

    torch.set_num_threads(threads)
    checkpoint = Path(folder, CHECKPOINT)
    train(experiment(SHORT), device=device, checkpoint=checkpoint, checkpoint_every=0, progress=False, on_step=on_step)


def _together(device: torch.device) -> str:
    """How far a run by torchrun, recorded by `prffn train`, ends from that of one process."""
    if device.type not in ("cpu", "cuda"):
        raise Skipped(f"{device.type} cannot be shared by several processes")
    _needs("pandas", "IPython")
    count = 2 if device.type == "cpu" else torch.cuda.device_count()
    settings = {**SHORT, "data.batch_size": max(4, count)}
    e = experiment(settings)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count))
    with tempfile.TemporaryDirectory() as folder:
        path = _asking_for(settings, Path(folder))
        prffn = ("-m", "prffn", "train", str(path), "--profile", "quick", "--device", device.type)
        _run([sys.executable, *torchrun, *prffn], folder)
        (checkpoint,) = Path(folder, "cache", "checkpoints").glob("*.ckpt")
        (record,) = Path(folder, "reports", "quick", "runs").glob("*.json")
        made = json.loads(record.read_text(encoding="utf-8"))["provenance"]
        state = load_checkpoint(checkpoint)
    if state is None or made.get("processes", 1) != count:
        raise Wrong(f"{made.get('processes', 1)} processes have trained, {count} were started")
    with threads_for(parameters(build_model(e))):
        alone = train(e, device=device, progress=False)
    off = apart(state["model"], alone.model.state_dict(), build_model(e).state_dict())
    if not off <= NEAR:
        raise Wrong(f"{count} processes train other weights than one: {off:.1e} of the way apart")
    backend = "gloo" if device.type == "cpu" else "nccl" if count > 1 else "no group, since there is one GPU"
    return f"{count} processes ({backend}): {off:.1e} of the way from one process's weights, {NEAR:g} allowed"


def _asking_for(settings: dict[str, Any], folder: Path) -> Path:
    """A notebook whose only run is this one."""
    cells = [
        ("profile = 'quick'\nseeds = None", ["parameters"]),
        (f"from prffn.config import experiment\nexperiments = {{'short': [experiment({settings!r})]}}", []),
        ("from prffn.study.ensure import ensure\nruns = ensure(experiments, profile)", []),
    ]
    content = [{"cell_type": "code", "source": [text], "metadata": {"tags": tags}} for text, tags in cells]
    path = folder / "short.ipynb"
    path.write_text(json.dumps({"cells": content}), encoding="utf-8")
    return path


def _group_of_one(device: torch.device) -> str:
    """How far a gradient is off after nccl, in a group of one: what a single GPU can show of it."""
    with get_context("spawn").Pool(1) as pool:
        off = pool.apply_async(_off_in_a_group, (device, torch.get_num_threads())).get(PATIENCE)
    if not off <= NEAR:
        raise Wrong(f"the gradient is off by {off:.1e}, more than {NEAR:g}")
    return f"gradient off by {off:.1e} ({NEAR:g} allowed)"


def _off_in_a_group(device: torch.device, threads: int) -> float:
    """In a process of its own: how far a network's gradient is off in a group of one process, from one without."""
    torch.set_num_threads(threads)
    gradients = []
    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{folder}/group", rank=0, world_size=1)
        for wrapped in (lambda model: model, in_parallel):
            network: Any = wrapped(build_model(experiment(SHORT)).to(device))
            lr = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(device)
            network(lr).square().mean().backward()
            gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
        dist.destroy_process_group()
    plain, of_group = gradients
    return float((of_group - plain).norm() / plain.norm())


def _notebook(device: torch.device) -> str:
    """A notebook of the kit through papermill, at profile quick and with few steps, to its report."""
    source = checkout() / "notebooks" / f"{NOTEBOOK}.ipynb"
    if not source.is_file():
        raise Skipped(f"there are no notebooks in {checkout()}: a checkout of the kit has them")
    _needs("papermill", "nbformat", "pandas", "matplotlib")
    with tempfile.TemporaryDirectory() as folder:
        path = _in_few_steps(source, Path(folder))
        given = {"profile": "quick", "seeds": 1, "device": str(device)}
        parameters = [part for name, value in given.items() for part in ("-p", name, str(value))]
        out = Path(folder, "out.ipynb")
        _run([sys.executable, "-m", "papermill", str(path), str(out), *parameters], folder)
        report = Path(folder, "reports", "quick", f"{NOTEBOOK}.md")
        if not report.is_file():
            raise Wrong(f"{NOTEBOOK} ran to its end and wrote no report")
        heading = report.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        runs = len(list(report.with_name("runs").glob("*.json")))
    return f"{runs} runs of {SHORT['training.steps']} steps and the report {heading!r}"


def _in_few_steps(source: Path, folder: Path) -> Path:
    """A copy of a notebook that first gives the profile a few steps."""
    import nbformat

    notebook = nbformat.read(source, 4)
    (first,) = (n for n, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    changes = f"from prffn.config import PROFILES\nPROFILES['quick']['training.steps'] = {SHORT['training.steps']}"
    notebook.cells.insert(first, nbformat.v4.new_code_cell(changes))
    path = folder / source.name
    nbformat.write(notebook, path)
    return path


def _needs(*packages: str) -> None:
    """Raises Skipped for a package that is not installed, as where the kit is without its notebooks."""
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise Skipped(f"{', '.join(missing)} not installed")


def _run(command: list[str], folder: str) -> None:
    """Runs a command whose cache and reports are in a folder. Raises Wrong where it fails or takes too long."""
    own = {CACHE_VARIABLE: f"{folder}/cache", REPORTS_VARIABLE: f"{folder}/reports"}
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8", errors="replace",
        env={**os.environ, **own}, start_new_session=True,
    )  # fmt: skip
    try:
        _, told = process.communicate(timeout=PATIENCE)
    except BaseException as error:
        _kill(process.pid)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise Wrong(f"stopped after {PATIENCE:.0f} s: {shlex.join(command[1:3])}") from error
        raise
    if process.returncode:
        print(told, file=sys.stderr)
        last_line = (told.strip().splitlines() or ["it said nothing"])[-1]
        raise Wrong(f"exit status {process.returncode}: {last_line}")


def _kill(number: int) -> None:
    """Kills a process, and those that it has started."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(number)
        for each in (*process.children(recursive=True), process):
            with suppress(psutil.NoSuchProcess):
                each.kill()
