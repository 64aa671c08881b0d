"""The project's own files: pins in step, the package light to import, every promise of the command line kept."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from itertools import chain

import torch
import yaml
from conftest import CHECKOUT
from packaging.requirements import Requirement
from packaging.version import Version

from prffn.__main__ import main

PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def asked(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for: the base, and what these extras bring, through other extras too."""
    found = []
    for line in PROJECT["dependencies"] if not extras else chain.from_iterable(EXTRAS[extra] for extra in extras):
        requirement = Requirement(line)
        found += asked(*sorted(requirement.extras)) if requirement.name == PROJECT["name"] else [requirement]
    return found


ASKED = asked() + asked("dev")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines: list[str]) -> dict[str, str]:
    return {normal(name): version for name, _, version in (line.strip().partition("==") for line in lines) if version}


LOCK = pins((CHECKOUT / "requirements.lock").read_text().splitlines())


def test_the_lock_pins_what_is_asked_for():
    for requirement in ASKED:
        assert requirement.specifier.contains(LOCK[normal(requirement.name)]), requirement


def test_environment_yml_is_in_step():
    """It names exactly what pyproject.toml asks for, at the versions of the lock."""
    conda = yaml.safe_load((CHECKOUT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)]
    expected = {normal(r.name): LOCK[normal(r.name)] for r in ASKED}
    assert pins(pip) == expected
    assert "--editable .[dev]" in pip
    assert "python=3.11" in conda["dependencies"]


def lowest(requirement: Requirement) -> Version:
    """The lower bound that pyproject.toml claims."""
    (bound,) = [Version(part.version) for part in requirement.specifier if part.operator == ">="]
    return bound


def test_what_runs_here_is_what_is_claimed():
    """All at the versions of the lock, or all at the lower bounds: tests on others prove nothing about either."""
    here = {r.name: Version(Version(version(r.name)).public) for r in ASKED}
    claimed = [{r.name: Version(LOCK[normal(r.name)]) for r in ASKED}, {r.name: lowest(r) for r in ASKED}]
    assert here in claimed


def test_the_workflow_runs_what_is_claimed():
    """The lowest Python of pyproject.toml on every system, and the lower bounds of all packages."""
    jobs = yaml.safe_load((CHECKOUT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    least = PROJECT["requires-python"].removeprefix(">=")
    for name in ("linux", "windows-and-macos"):
        assert jobs[name]["strategy"]["matrix"]["python"][0] == least
    assert jobs["windows-and-macos"]["strategy"]["matrix"]["system"] == ["windows-latest", "macos-latest"]
    commands = {name: "\n".join(step.get("run", "") for step in job["steps"]) for name, job in jobs.items()}
    assert "make test" in commands["linux"]
    assert "make reports" in commands["linux"]
    assert '--constraint requirements.lock --editable ".[dev]"' in commands["windows-and-macos"]
    assert "--resolution lowest-direct" in commands["lowest-versions"]


def test_the_loss_needs_nothing_but_torch():
    """`from prffn import PixelContrastLoss` in one's own training must not load the kit."""
    code = (
        "import sys; from prffn import PixelContrastLoss; "
        "print([m for m in ('skimage', 'pandas', 'matplotlib', 'papermill', 'lpips', 'filelock', 'pooch', 'scipy') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_reader_that_wants_no_more_ends_a_command_quietly():
    """As `python -m prffn data list | head -1`: the other end of the pipe is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "prffn", "data", "list"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_data_list_says_what_is_missing(capsys):
    assert main(["data", "list"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"embedded_train\s+there", printed)
    assert re.search(r"Set5\s+missing", printed)
    assert "manga109.org" in printed


def test_the_readme_links_to_files_that_exist():
    text = (CHECKOUT / "README.md").read_text()
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", text) if not t.startswith("http")]
    assert targets
    for target in targets:
        assert (CHECKOUT / target).exists(), target


def test_the_readme_links_to_every_notebook():
    """To every report too: test_overview.py."""
    text = (CHECKOUT / "README.md").read_text()
    for notebook in (CHECKOUT / "notebooks").glob("*.ipynb"):
        assert f"(notebooks/{notebook.name})" in text, notebook.name


def test_what_the_readme_found_stands_in_the_reports():
    """Each difference with its interval, such as +0.009 dB [+0.006, +0.013], stands in a report: so, or in columns."""
    text = (CHECKOUT / "README.md").read_text()
    found = set(re.findall(r"[+-]\d+\.\d+ dB \[[+-][\d.]+, [+-][\d.]+\]", text))
    pages = sorted((CHECKOUT / "reports").rglob("*.md"))
    reports = "".join(path.read_text() for path in pages).replace(" dB", "")
    columns = {difference: " | ".join(re.findall(r"-?\d+\.\d+", difference)) for difference in found}
    assert found
    assert {d for d in found if d.replace(" dB", "") not in reports and columns[d] not in reports} == set()


def test_the_readmes_training_loop_trains():
    """The code block as it stands, on a network of one convolution that can learn to copy."""
    text = (CHECKOUT / "README.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "PixelContrastLoss" in block]
    torch.manual_seed(0)
    model = torch.nn.Conv2d(3, 3, 3, padding=1)
    images = torch.rand(2, 3, 16, 16)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    names = {"torch": torch, "model": model, "optimizer": optimizer, "loader": [(images, images)] * 30}
    before = (model(images) - images).abs().mean().item()
    exec(code, names)
    assert (model(images) - images).abs().mean().item() < 0.5 * before
