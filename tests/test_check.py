"""`python -m prffn check`: a line for each path of a device, and a page of them; what is wrong is found, and stops
nothing."""

import dataclasses
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args
from unittest.mock import Mock

import pytest
import torch
from conftest import CHECKOUT
from torch import Tensor

from prffn import files
from prffn.__main__ import main
from prffn.apps import check
from prffn.apps.check import loss, programs, step
from prffn.apps.check.lines import SMALL, Check, Sizes, Wrong, apart, performed, ratio
from prffn.losses import Implementation, pixel_contrast

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")

PRINTED = re.compile(r"(passed|failed|skipped) +(.+?): (.+?): (.+)  \[\d+\.\d s\]")


def rows(page: Path) -> list[tuple[str, ...]]:
    """Part, check, result and what was found, of each row of a page."""
    table = [line for line in page.read_text().splitlines() if line.startswith("| ")][2:]
    return [tuple(line.strip("| ").split(" | ")[:4]) for line in table]


# The command as people run it, once


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of reports and cache, and what the command printed."""
    folder = tmp_path_factory.mktemp("check")
    own = {files.REPORTS_VARIABLE: str(folder / "reports"), files.CACHE_VARIABLE: str(folder / "cache")}
    command = [sys.executable, "-m", "prffn", "check", "--device", "cpu"]
    out, err = folder / "out", folder / "err"  # no pipes: PyTorch 2.4 leaves compile workers behind, which hold them
    with out.open("w") as stdout, err.open("w") as stderr:
        ended = subprocess.run(command, cwd=CHECKOUT, env={**os.environ, **own}, stdout=stdout, stderr=stderr)
    return folder, subprocess.CompletedProcess(command, ended.returncode, out.read_text(), err.read_text())


def test_all_pass_on_a_cpu(done):
    folder, process = done
    assert process.returncode == 0, process.stdout + process.stderr
    found = rows(folder / "reports" / "check" / "cpu.md")
    assert len(found) > 20
    for part, name, result, reason in found:
        # a compiler of C or C++ may be missing; Triton code is for GPUs
        assert result == "passed" or "compiler" in reason or reason == "Triton code for GPUs", (part, name, reason)


def test_every_path_has_a_line(done):
    found = {(part, name) for part, name, *_ in rows(done[0] / "reports" / "check" / "cpu.md")}
    assert {("machine", "versions"), ("machine", "device")} <= found
    implementations = [how for how in get_args(Implementation) if how != "auto"]
    assert {("value and gradient", f"{form}, {how}") for form in loss.FORMS for how in implementations} <= found
    assert {("time and memory of the loss", f"S = {size}") for size in (16, 64, 256, 1024, 4096)} <= found
    assert {("training step", kind) for kind in step.KINDS} <= found
    parts = {part for part, _ in found}
    assert {"kill and resume", "one run by several processes", "notebook through papermill"} <= parts


def test_what_is_printed_is_the_page(done):
    """Line by line; then how many, which is the page's heading too, and where the page is."""
    folder, process = done
    *lines, last = process.stdout.splitlines()
    printed = [PRINTED.fullmatch(line).groups() for line in lines]
    page = folder / "reports" / "check" / "cpu.md"
    assert [(part, name, state, found) for state, part, name, found in printed] == rows(page)
    counts, _, where = last.partition(": ")
    assert where == str(page)
    assert page.read_text().startswith(f"# Checks on cpu: {counts}\n")


def test_it_leaves_the_page_alone(done):
    """No record, report or checkpoint of what it has trained stands among the user's."""
    folder, _ = done
    assert [path for path in (folder / "reports").rglob("*") if path.is_file()] == [
        folder / "reports" / "check" / "cpu.md"
    ]
    assert not (folder / "cache" / "checkpoints").exists()


# What is wrong


@pytest.fixture
def values_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all checks those of the loss's value and gradient, with small regions."""
    monkeypatch.setattr(check, "PARTS", (loss.value_checks,))
    monkeypatch.setattr(check, "sizes_for", lambda _: Sizes(regions=(16,), large=()))


BROKEN = {
    "slope": (lambda sr, hr, loss: loss(sr, hr) + 0.1 * (sr - sr.detach()).mean(), "gradient off by .+, more than"),
    "value": (lambda sr, hr, loss: loss(sr, hr) * float("nan"), "nan"),
    "gradient of HR": (lambda sr, hr, loss: loss(sr, one_slope_is_nan(hr)), "gradient off by nan"),
}


def one_slope_is_nan(hr: Tensor) -> Tensor:
    hr = hr.clone()
    hr.register_hook(lambda gradient: gradient.index_fill(3, torch.tensor([0]), float("nan")))
    return hr


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_loss_fails(case, values_only, monkeypatch, tmp_path, capsys):
    """In one of the implementations: its lines fail, and all others pass."""
    broken, message = BROKEN[case]

    def contrast(sr: Tensor, hr: Tensor, contrast: Any, implementation: Implementation) -> Tensor:
        def right(sr: Tensor, hr: Tensor) -> Tensor:
            return pixel_contrast(sr, hr, contrast, implementation=implementation)

        return broken(sr, hr, right) if implementation == "streaming" else right(sr, hr)

    monkeypatch.setattr(loss, "pixel_contrast", contrast)
    assert main(["check", "--device", "cpu"]) == 1
    found = rows(tmp_path / "reports" / "check" / "cpu.md")
    assert len(found) == len(loss.FORMS) * (len(get_args(Implementation)) - 1)
    for _, name, result, reason in found:
        assert (result == "failed") == name.endswith("streaming"), (name, reason)
        assert result != "failed" or re.match(rf"negatives \w+, S = \d+: .*{message}", reason), reason
    assert f"{len(loss.FORMS)} failed" in capsys.readouterr().out


def test_a_broken_step_fails(monkeypatch):
    """A network that is not the same in bfloat16: its output is found to differ."""
    right = step.build_model
    monkeypatch.setattr(step, "build_model", lambda e: right(dataclasses.replace(e, seed=int(e.training.bfloat16))))
    lines = [performed(each, CPU) for each in itertools.islice(step.step_checks(CPU, SMALL), 2)]
    assert [line.state for line in lines] == ["passed", "failed"]
    assert re.match(r"output off by .* from float32 on the CPU, more than 0.04", lines[1].found)


def test_no_check_begins_when_the_time_is_over(values_only, monkeypatch, tmp_path):
    monkeypatch.setattr(check, "SECONDS", -1)
    assert main(["check", "--device", "cpu"]) == 0
    assert {tuple(row[2:]) for row in rows(tmp_path / "reports" / "check" / "cpu.md")} == {
        ("skipped", "the -1 s for all checks are over")
    }


# Lines and figures


def test_an_unforeseen_error_fails_in_one_line():
    fails = Mock(side_effect=RuntimeError("first\n  second\n\nadvice"))
    line = performed(Check("part", "name", fails), CPU)
    assert (line.state, line.found) == ("failed", "RuntimeError: first second")


def test_a_difference_below_the_spread_is_none():
    """Ratios 2, 2.5 and 3, all above 1; and 0.5, 1 and 1.5, on both sides of it."""
    assert ratio([2.0, 5.0, 3.0], [1.0, 2.0, 1.0]) == "2.50 times (2.00 to 3.00)"
    assert ratio([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]) == "no difference, 1.00 times (0.50 to 1.50)"


def test_apart_by_hand():
    """The way is 5, from (0, 0) to (3, 4); the other network ends 1 beside its end."""
    first, expected, found = ({"w": torch.tensor(w)} for w in ([0.0, 0.0], [3.0, 4.0], [3.0, 3.0]))
    assert apart(found, expected, first) == pytest.approx(0.2)


def test_a_group_of_one():
    """What a machine with one GPU does with nccl, here with gloo."""
    assert programs._group_of_one(CPU).startswith("gradient off by ")


def test_a_command_that_takes_too_long_is_stopped(monkeypatch, tmp_path):
    monkeypatch.setattr(programs, "PATIENCE", 0.2)
    with pytest.raises(Wrong, match="stopped after 0 s: -c"):
        programs._run([sys.executable, "-c", "import time; time.sleep(60)"], str(tmp_path))


def test_a_command_that_fails_says_why(tmp_path):
    with pytest.raises(Wrong, match="exit status 1: ZeroDivisionError: division by zero"):
        programs._run([sys.executable, "-c", "1 / 0"], str(tmp_path))
