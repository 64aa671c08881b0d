"""Runs on dask workers: the records of a serial run, whatever dies meanwhile. Scheduler, workers, SIGKILL: all real."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from conftest import tiny_settings
from test_continued import after
from test_distributed import notebook

import prffn.__main__ as command_line
from prffn import files
from prffn.config import Experiment, experiment
from prffn.files import read_record
from prffn.study import cluster
from prffn.study.cluster import RunKillsWorkers, local_workers
from prffn.study.ensure import ensure
from prffn.study.keys import checkpoint_path, run_key
from prffn.study.notebook import check_parameters
from prffn.study.worker import Place
from prffn.training.checkpoint import load_checkpoint
from prffn.training.curve import NonFiniteLoss
from prffn.training.parallel import Processes

pytestmark = pytest.mark.slow

distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")

OF_THE_MOMENT = {"train_seconds", "peak_memory_mb", "started", "finished", "provenance"}
"""What no two records share."""

SAVE_EACH_STEP = "import prffn.training.loop; prffn.training.loop.train.__kwdefaults__['checkpoint_every'] = 0.0"

DIE = """
import os, signal
from pathlib import Path
import torch

def dying(function, calls):
    left = torch.left = [calls]
    def wrapped(*arguments, **more):
        left[0] -= 1
        if left[0] == 0 and Path({flag!r}).is_file():
            Path({flag!r}).unlink()  # once is enough
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **more)
    return wrapped
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A scheduler with two workers, each a process."""
    with local_workers(2, "cpu") as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    """A client that looks behind the scenes; both workers are there."""
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=300)
        yield client


@pytest.fixture
def allowed_failures(client: Any) -> Iterator[Callable[[int], None]]:
    """Sets how many workers may die of a task before dask gives it up."""

    def allow(count: int) -> None:
        client.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", count))

    yield allow
    allow(3)


def on_workers(client: Any, code: str) -> None:
    """Executes code in all workers."""
    client.run(exec, code, {})


def seeds(e: Experiment, count: int) -> list[Experiment]:
    return [dataclasses.replace(e, seed=seed) for seed in range(count)]


def lasting(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in OF_THE_MOMENT}


def serially(experiments: dict[str, list[Experiment]], tmp_path: Path) -> dict[str, dict[str, Any]]:
    """What lasts of the records by key, made in this process, in folders of their own."""
    with pytest.MonkeyPatch.context() as elsewhere:
        elsewhere.setenv(files.CACHE_VARIABLE, str(tmp_path / "serial" / "cache"))
        elsewhere.setenv(files.REPORTS_VARIABLE, str(tmp_path / "serial" / "reports"))
        runs = ensure(experiments, "quick", device="cpu", progress=False)
        assert runs.trained == set(runs.all())
    return {key: lasting(run.record) for key, run in runs.all().items()}


def test_the_records_are_those_of_a_serial_run(client, address, tiny, tmp_path, monkeypatch, capfd):
    """Bit for bit, in the store and in what is returned; a run that starts from another one waits for it."""
    monkeypatch.setenv(files.TEXT_PROGRESS_VARIABLE, "1")
    asked = {"after": [after(tiny)], "start": seeds(tiny, 2)}
    expected = serially(asked, tmp_path)
    runs = ensure(asked, "quick", device="cpu", scheduler=address)
    assert repr(runs) == "3 runs of profile quick: 0 loaded, 3 trained"
    assert {key: lasting(run.record) for key, run in runs.all().items()} == expected
    store = tmp_path / "reports" / "quick" / "runs"
    for key, run in runs.all().items():
        assert read_record(store / f"{key}.json") == run.record
    assert sorted(os.listdir(store)) == sorted(f"{key}.json" for key in expected)
    assert runs["after"][0].record["start_sha256"] == runs["start"][0].record["weights_sha256"]
    assert "trainings" in capfd.readouterr().err  # the bar
    again = ensure(asked, "quick", device="cpu", scheduler="tcp://nobody.invalid:8786")
    assert not again.trained  # and nobody is asked


def test_retraining(address, tiny):
    first = ensure({"a": [tiny]}, "quick", device="cpu", progress=False, scheduler=address)
    again = ensure({"a": [tiny]}, "quick", device="cpu", progress=False, scheduler=address, retrain=True)
    assert again.trained == {run_key(tiny)}
    assert lasting(again["a"][0].record) == lasting(first["a"][0].record)
    assert again["a"][0].record != first["a"][0].record  # it took another time


def test_a_worker_is_killed_and_its_run_goes_on(client, address, tiny, tmp_path):
    """From its checkpoint on the other worker: of its 12 steps that one makes the last six."""
    expected = serially({"a": [tiny]}, tmp_path)
    (flag := tmp_path / "flag").touch()
    on_workers(client, SAVE_EACH_STEP)
    on_workers(client, DIE.format(flag=str(flag)) + "torch.optim.Adam.step = dying(torch.optim.Adam.step, 7)")
    runs = ensure({"a": [tiny]}, "quick", device="cpu", progress=False, scheduler=address)
    assert not flag.exists()
    assert {key: lasting(run.record) for key, run in runs.all().items()} == expected
    left = client.run(lambda: getattr(__import__("torch"), "left", None))
    assert [7 - count[0] for count in left.values() if count and count[0] != 7] == [6]


def test_a_run_that_kills_workers_is_named(client, address, allowed_failures, tiny, tmp_path):
    """It is not tried for ever. When the cause is gone, it can be asked for again, and resumes."""
    allowed_failures(0)
    (flag := tmp_path / "flag").touch()
    on_workers(client, DIE.format(flag=str(flag)) + "torch.optim.Adam.step = dying(torch.optim.Adam.step, 1)")
    message = rf"run 1 of 1: a, seed 0 \({run_key(tiny)}\): 1 workers ended .*--memory-limit 0"
    with pytest.raises(RunKillsWorkers, match=message):
        ensure({"a": [tiny]}, "quick", device="cpu", progress=False, scheduler=address)
    assert ensure({"a": [tiny]}, "quick", device="cpu", progress=False, scheduler=address).trained


def test_a_run_that_fails_does_not_take_the_others_with_it(client, address, photo_folder, tiny, tmp_path):
    """Nor does a run fail for ever: dask forgets the error."""
    asked = {
        "diverges": [experiment(tiny_settings(photo_folder, **{"training.learning_rate": 1e30}))],
        "no images": [experiment(tiny_settings(photo_folder, **{"data.train": "BSD200"}))],
        "good": seeds(tiny, 2),
    }
    asked["after"] = [after(asked["diverges"][0])]  # not trained, as what it starts from failed
    for missing in (5, 3):
        with pytest.warns(UserWarning, match="others go on"), pytest.raises(Exception) as raised:  # noqa: PT011
            ensure(asked, "quick", device="cpu", progress=False, scheduler=address)
        assert type(raised.value) in (NonFiniteLoss, FileNotFoundError)
        told = "\n".join([str(raised.value), *raised.value.__notes__])
        for number, label in enumerate(("diverges", "no images"), start=1):
            name = f"run {number} of {missing}: {label}, seed 0 ({run_key(asked[label][0])})"
            assert told.count(name) == 1
        assert "is nan at step" in told or "is inf at step" in told
        assert "python -m prffn data get BSD200" in told
        assert told.count(f"({run_key(asked['after'][0])}): NonFiniteLoss") == 1
    store = tmp_path / "reports" / "quick" / "runs"
    assert sorted(os.listdir(store)) == sorted(f"{run_key(e)}.json" for e in asked["good"])


def test_what_nobody_wants_any_more_stops(client, photo_folder, tiny):
    """A client that goes away frees its workers, and leaves a checkpoint."""
    long = experiment(tiny_settings(photo_folder, **{"training.steps": 1_000_000}))
    on_workers(client, SAVE_EACH_STEP)
    wanted = {
        run_key(e): cluster.Wanted(experiment=e, name="", retrain=False, need_weights=False) for e in (tiny, long)
    }
    outcomes = cluster.train_on(client.scheduler.address, wanted, files.reports_root(), device="cpu", progress=False)
    next(outcomes)
    wait_until(checkpoint_path(run_key(long)).is_file)
    outcomes.close()
    wait_until(lambda: not any(client.run(lambda dask_worker: dask_worker.state.executing_count).values()))
    assert load_checkpoint(checkpoint_path(run_key(long)))["step"] > 0


def wait_until(condition: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes], subprocess.Popen[bytes]]]:
    """A scheduler and a worker as processes of their own, as `dask scheduler` and `dask worker` start them."""
    file = tmp_path / "scheduler.json"
    common = ["--no-dashboard", "--host", "127.0.0.1", "--scheduler-file", str(file)]
    python = [sys.executable, "-m"]
    scheduler = subprocess.Popen(
        [*python, "distributed.cli.dask_scheduler", "--port", "0", *common], stderr=subprocess.DEVNULL
    )
    worker = subprocess.Popen(
        [*python, "distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny", *common], stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: file.is_file() and file.stat().st_size > 0)
        yield json.loads(file.read_text())["address"], scheduler, worker
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()


def test_the_scheduler_is_lost(lonely, photo_folder, tmp_path):
    """A clear error, and a second call without it goes on from what is saved."""
    address, scheduler, worker = lonely
    e = experiment(tiny_settings(photo_folder, **{"training.steps": 40}))
    expected = serially({"a": [e]}, tmp_path)
    checkpoint = checkpoint_path(run_key(e))
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=300)
        on_workers(client, SAVE_EACH_STEP)
        slow = "import time, torch; step = torch.optim.Adam.step; torch.optim.Adam.step = "
        on_workers(client, slow + "lambda *a, **k: (time.sleep(1), step(*a, **k))")

    def kill() -> None:
        wait_until(checkpoint.is_file)
        scheduler.send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(ConnectionError, match=rf"the scheduler at {address} is lost.*kept in .*: run the same again"):
        ensure({"a": [e]}, "quick", device="cpu", progress=False, scheduler=address)
    killer.join()
    worker.wait(timeout=300)  # it does not go on by itself
    assert 0 < load_checkpoint(checkpoint)["step"] < 40
    runs = ensure({"a": [e]}, "quick", device="cpu", progress=False)
    assert {key: lasting(run.record) for key, run in runs.all().items()} == expected


def test_no_scheduler_answers(tiny):
    import dask

    message = r"no dask scheduler answers at tcp://127\.0\.0\.1:1 .*dask worker"
    soon = dask.config.set({"distributed.comm.timeouts.connect": "200ms"})
    with soon, pytest.raises(ConnectionError, match=message):
        ensure({"a": [tiny]}, "quick", device="cpu", scheduler="tcp://127.0.0.1:1")


def test_workers_of_other_code_get_nothing(client, address, tiny, monkeypatch):
    """Whether they are there when a client comes, or come later."""
    other = "import prffn.study.worker as w; w.kept = w.code; w.code = lambda: 'other'"
    on_workers(client, other)
    try:
        with pytest.raises(ValueError, match=r"the worker at tcp://\S+ runs other code"):
            ensure({"a": [tiny]}, "quick", device="cpu", progress=False, scheduler=address)
        monkeypatch.setattr(cluster, "_checked", lambda client, address, place, marks: place)
        with pytest.raises(ValueError, match=r"the worker at tcp://\S+ runs other code"):
            ensure({"a": [tiny]}, "quick", device="cpu", progress=False, scheduler=address)
    finally:
        on_workers(client, "import prffn.study.worker as w; w.code = w.kept")


def test_a_worker_must_see_the_same_folders(tmp_path):
    place = Place.here(tmp_path / "store", "cpu")
    with cluster._shared(tmp_path / "store", tmp_path / "cache") as marks:
        assert place.refusal(marks) == ""
        unseen = (marks[0], str(tmp_path / "elsewhere" / "mark"))
        assert f"does not see the folder {tmp_path / 'elsewhere'}" in place.refusal(unseen)
        assert "runs torch" in dataclasses.replace(place, torch="1.0.0").refusal(marks)
    assert os.listdir(tmp_path / "store") == os.listdir(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("device", "said", "expected"),
    [
        ("auto", {"a": ("", 0, 1), "b": ("", 0, 1)}, False),
        ("auto", {"a": ("is wrong", 0, 1), "b": ("", 1, 4)}, True),  # a gets no run; b's GPU trains one at a time
        ("cpu", {"a": ("", 1, 1)}, False),
        ("auto", {"a": ("", 0, 1), "b": OSError("it is dying")}, False),
        ("auto", {"a": ImportError("no prffn")}, "worker at a cannot run prffn"),
        ("auto", {"a": ("is wrong", 1, 1)}, "worker at a is wrong"),
        ("auto", {"a": ("", 2, 1)}, 'worker at a has the resource "GPU=2"'),
        ("auto", {"a": ("", 0, 4)}, "worker at a runs 4 tasks at once"),
        ("cuda", {"a": ("", 0, 1)}, "no worker of tcp://h:1 has the resource GPU"),
    ],
    ids=str,
)
def test_runs_go_to_gpus_where_there_are_any(tmp_path, device, said, expected):
    """said: by worker, its answer to `fitness`."""
    place = Place.here(tmp_path, device)
    client = Mock(nthreads=lambda: said, run=lambda *_, **__: said)
    if isinstance(expected, bool):
        assert cluster._checked(client, "tcp://h:1", place, ()) == dataclasses.replace(place, on_gpu=expected)
    else:
        with pytest.raises(ValueError, match=expected):
            cluster._checked(client, "tcp://h:1", place, ())


def test_without_distributed(tiny, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r'pip install "prffn\[cluster\]"'):
        ensure({"a": [tiny]}, "quick", device="cpu", scheduler="tcp://127.0.0.1:8786")
    assert command_line.main(["reports", "table5_region_size", "--workers", "2"]) == 1
    assert 'pip install "prffn[cluster]"' in capsys.readouterr().err
    assert ensure({}, "quick").trained == set()


def test_a_scheduler_or_several_processes(tiny):
    with pytest.raises(ValueError, match="give one of the two"):
        ensure({"a": [tiny]}, "quick", scheduler="tcp://127.0.0.1:1", processes=Processes())


def test_folders_of_images_are_absolute(tiny):
    relative = dataclasses.replace(tiny, data=dataclasses.replace(tiny.data, train="drawn+photos"))
    wanted = {"key": cluster.Wanted(experiment=relative, name="", retrain=False, need_weights=False)}
    with pytest.raises(ValueError, match="'photos' must be an absolute path"):
        list(cluster.train_on("tcp://127.0.0.1:1", wanted, files.reports_root(), device="cpu", progress=False))


@pytest.mark.parametrize("address", ["", "head", "tcp://head", "http://head:8787", "tcp://head:99999", "a b:1", 8786])
def test_addresses(address):
    for right in ("tcp://10.0.0.1:8786", "tls://head.node-1.org:1", "head:65535", "tcp://[::1]:8786", None):
        check_parameters(scheduler=right)
    with pytest.raises((ValueError, TypeError), match=r'scheduler must be .*such as "tcp://host:8786"'):
        check_parameters(scheduler=address)


def test_each_worker_has_its_share_of_the_threads(client):
    import torch

    before = dict(os.environ)
    assert set(client.run(torch.get_num_threads).values()) == {max(1, torch.get_num_threads() // 2)}
    assert dict(os.environ) == before


def test_each_worker_has_a_gpu_of_its_own(monkeypatch):
    import torch

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [each["CUDA_VISIBLE_DEVICES"] for each in cluster._environments(2, "cuda")] == ["0", "1"]
    with pytest.raises(ValueError, match="3 workers need as many GPUs, and there are 2 here"):
        cluster._environments(3, "cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3,GPU-4f")  # what the user leaves to this program
    assert [each["CUDA_VISIBLE_DEVICES"] for each in cluster._environments(3, "cuda")] == ["5", "3", "GPU-4f"]
    assert "CUDA_VISIBLE_DEVICES" not in cluster._environments(1, "cpu")[0]


def test_the_train_command(address, photo_folder, tmp_path, capsys):
    settings = tiny_settings(photo_folder)
    path = notebook(tmp_path, {"a": [settings]})
    expected = serially({"a": [experiment(settings)]}, tmp_path)
    assert command_line.main(["train", str(path), "--device", "cpu", "--scheduler", address]) == 0
    assert capsys.readouterr().out == "1 runs of profile quick: 0 loaded, 1 trained\n"
    for key, record in expected.items():
        assert lasting(read_record(tmp_path / "reports" / "quick" / "runs" / f"{key}.json")) == record
