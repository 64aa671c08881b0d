"""The notebooks as people run them: papermill from anywhere, nbval from the records, and a changed output."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from conftest import CHECKOUT

from prffn import __main__ as command_line
from prffn.__main__ import main
from prffn.files import read_record
from prffn.study import trainings

pytestmark = pytest.mark.slow

NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
COUNTED = {"architecture"}
"""Notebooks that only count: exact at once, so that no record of runs, timings or crops stands behind them."""
SHOWN = {"00_quickstart"}
"""Notebooks that show how things work, and report nothing."""
TABLE5 = CHECKOUT / "notebooks" / "table5_region_size.ipynb"
BIN = Path(sys.executable).parent


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )


def parameters(path: Path) -> dict[str, object]:
    """What a notebook's cell of parameters assigns: literals only."""
    (cell,) = [cell for cell in nbformat.read(path, 4).cells if "parameters" in cell.metadata.get("tags", [])]
    names: dict[str, object] = {}
    exec(cell.source, {"__builtins__": {}}, names)
    return names


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Table 5 at profile quick with one seed, by papermill, from a folder that has nothing to do with the checkout."""
    folder = tmp_path_factory.mktemp("quick")
    environment = {"PRFFN_CACHE": str(folder / "cache"), "PRFFN_REPORTS": str(folder / "reports")}
    done = run(BIN / "papermill", TABLE5, folder / "out.ipynb", "-p", "profile", "quick", "-p", "seeds", 1,
               cwd=folder, **environment)  # fmt: skip
    return folder, done


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestEachNotebook:
    def test_is_committed_executed_in_order_thin_and_small(self, path):
        """nbval compares nothing in a cell without an execution count: a stripped notebook would pass unchecked."""
        cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
        assert sum(bool(cell.outputs) for cell in cells) >= 4
        lines = [line for cell in cells for line in cell.source.splitlines() if line.strip()]
        assert not [line for line in lines if line.lstrip().startswith(("def ", "class "))]
        assert len(lines) < 70
        assert path.stat().st_size < 1_000_000

    def test_has_literal_parameters_and_the_usual_kernel(self, path):
        names = parameters(path)
        assert {"device", "retrain"} <= set(names) or path.stem in COUNTED | SHOWN
        assert names["profile"] == "cpu"
        assert nbformat.read(path, 4).metadata.kernelspec.name == "python3"

    def test_shows_no_errors_paths_or_progress(self, path):
        outputs = [out for cell in nbformat.read(path, 4).cells for out in cell.get("outputs", [])]
        assert not [out for out in outputs if out.output_type == "error" or out.get("name") == "stderr"]
        assert str(CHECKOUT) not in json.dumps(outputs)

    def test_shows_the_recorded_study(self, path):
        """Runs, timings or crops were loaded, none was made, every record of the report is there and whole (runs:
        test_runs.py), and every interval is of three seeds or more."""
        text = json.dumps([cell.get("outputs", []) for cell in nbformat.read(path, 4).cells])
        folder = CHECKOUT / "reports" / "cpu"
        if path.stem in SHOWN:
            assert not list(folder.glob(f"{path.stem}.*"))
            return
        report = json.loads((folder / f"{path.stem}.json").read_text())
        assert bool({"runs", "timings", "crops"} & set(report)) == (path.stem not in COUNTED)
        if "runs" in report:
            assert ("loaded, 0 trained" in text) == bool(report["runs"])
            intervals = {row["label"] for row in report.get("table", []) if row.get("low") is not None}
            assert all(len(keys) >= 3 or label not in intervals for label, keys in report["runs"].items())
        if {"timings", "crops"} & set(report):
            assert "loaded, 0 measured" in text
        if "timings" in report:
            assert read_record(folder / "timings" / f"{report['timings']}.json")["rounds"] >= 3
        for kind in ("crops", "evaluations"):
            for key in report.get(kind, []):
                assert read_record(folder / kind / f"{key}.json")["key"] == key


def test_papermill_trains_for_real_and_beats_bicubic(quick):
    folder, done = quick
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "reports" / "quick" / "table5_region_size.json").read_text())
    assert report["label"].startswith("measured here at a far smaller protocol")
    keys = {key for group in report["runs"].values() for key in group}
    assert len(keys) == 4
    for key in keys:
        record = json.loads((folder / "reports" / "quick" / "runs" / f"{key}.json").read_text())
        psnr, bicubic = (sum(record[k]["embedded_val"]["psnr_y"]) / 3 for k in ("evaluation", "bicubic"))
        assert psnr > bicubic
        assert record["train_seconds"] > 0
    for suffix in ("md", "csv", "png"):
        assert (folder / "reports" / "quick" / f"table5_region_size.{suffix}").stat().st_size > 200
    assert "0 loaded, 4 trained" in (folder / "out.ipynb").read_text()


def test_a_second_call_trains_nothing(quick, monkeypatch, capfd):
    folder, _ = quick
    monkeypatch.setenv("PRFFN_CACHE", str(folder / "cache"))
    monkeypatch.setenv("PRFFN_REPORTS", str(folder / "reports"))
    assert main(["reports", "table5_region_size", "--profile", "quick", "--seeds", "1"]) == 0
    assert "4 loaded, 0 trained" in (folder / "reports" / "quick" / "table5_region_size.ipynb").read_text()
    assert "done in" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("error", "left"),
    [
        (None, "new, in {}"),
        (papermill.PapermillExecutionError(0, 1, "", "ValueError", "no", []), "new, in {}"),
        (KeyboardInterrupt(), "old"),
    ],
    ids=repr,
)
def test_the_executed_copy_is_replaced_whole(error, left, tmp_path, monkeypatch):
    """Also that of a notebook that stops, as it shows where. An interrupted one leaves the copy of before."""
    copy = tmp_path / "reports" / "quick" / "architecture.ipynb"
    copy.parent.mkdir(parents=True)
    copy.write_text("old")

    def execute(_: str, made: str, **__: object) -> None:
        Path(made).write_text(f"new, in {json.dumps(made)}")
        assert copy.read_text() == "old"
        if error is not None:
            raise error

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    monkeypatch.setattr(command_line, "write_pages", lambda _: 0)
    with contextlib.suppress(KeyboardInterrupt):
        assert main(["reports", "architecture"]) == (0 if error is None else 1)
    assert copy.read_text() == left.format(json.dumps(str(copy)))
    assert os.listdir(copy.parent) == [copy.name]


def test_a_report_is_made_once_from_the_same(tmp_path, monkeypatch, capsys):
    """The second time nothing is executed; where a record came, a report was changed or all is asked for, it is."""
    folder, executed = tmp_path / "reports" / "quick", []

    def execute(path: str, made: str, **_: object) -> None:
        executed.append(Path(path).stem)
        Path(made).write_text("{}")
        (folder / "architecture.md").write_text("report")

    def made_again(*more: str) -> bool:
        executed.clear()
        assert main(["reports", "architecture", *more]) == 0
        return executed == ["architecture"]

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    monkeypatch.setattr(command_line, "write_pages", lambda _: 0)
    assert made_again()
    assert not made_again()
    assert "1 of 1 notebooks have nothing new" in capsys.readouterr().out
    (folder / "runs").mkdir()
    (folder / "runs" / "new.json").write_text("{}")
    assert made_again()
    (folder / "architecture.md").write_text("changed")
    assert made_again()
    assert made_again("--retrain")
    assert not made_again()


def test_the_command_gives_each_notebook_the_parameters_that_it_has(monkeypatch):
    """Some train nothing, and have no seeds or scheduler, or only count, and have a profile alone."""
    given = {}
    monkeypatch.setattr(
        papermill, "execute_notebook", lambda path, *_, parameters, **__: given.update({Path(path).stem: parameters})
    )
    monkeypatch.setattr(command_line, "write_pages", lambda _: 0)
    monkeypatch.setattr(trainings, "train", lambda *_, **__: None)
    asked = {"profile": "quick", "device": "auto", "seeds": 2, "retrain": False, "scheduler": "tcp://head:8786"}
    for more in (["--scheduler", asked["scheduler"]], []):
        asked = asked if more else {name: value for name, value in asked.items() if name != "scheduler"}
        assert main(["reports", "--seeds", "2", *more]) == 0
        assert set(given) == {path.stem for path in NOTEBOOKS}
        for path in NOTEBOOKS:
            names = parameters(path)
            assert given[path.stem] == {name: value for name, value in asked.items() if name in names}


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A copy of the recorded study, which a notebook writes into."""
    return shutil.copytree(CHECKOUT / "reports" / "cpu", tmp_path / "reports" / "cpu")


def test_papermill_writes_to_standard_output(recorded, tmp_path):
    """`papermill notebook.ipynb > out.ipynb`: with the defaults, the recorded study."""
    done = run(BIN / "papermill", TABLE5, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    notebook = nbformat.reads(done.stdout, 4)
    assert "loaded, 0 trained" in json.dumps(notebook.cells)


def nbval(path: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "pytest", "--nbval", path, "-p", "no:cacheprovider", cwd=cwd)


def tampered(path: Path, old: str, new: str) -> str:
    text = path.read_text()
    assert old in text
    return text.replace(old, new)


def test_nbval_notices_a_changed_output(recorded, tmp_path):
    """With one digit of one output changed by hand; that the committed notebooks pass is what CI tests."""
    mean = str(json.loads((recorded / "table5_region_size.json").read_text())["table"][0]["mean"])
    (tmp_path / "copy.ipynb").write_text(tampered(TABLE5, mean, mean[:-1] + str((int(mean[-1]) + 1) % 10)))
    done = nbval(tmp_path / "copy.ipynb", tmp_path)
    assert done.returncode == 1
    assert "differ" in done.stdout


def test_nbval_notices_a_changed_record(recorded, tmp_path):
    """The run would be trained again; without the study's images, which no checkout has, the notebook stops."""
    report = json.loads((recorded / "table5_region_size.json").read_text())
    file = recorded / "runs" / f"{report['runs']['S = 64'][0]}.json"
    psnr = json.loads(file.read_text())["evaluation"]["Set5"]["psnr_y"][0]
    file.write_text(tampered(file, str(psnr), str(psnr + 0.5)))
    done = nbval(shutil.copy(TABLE5, tmp_path / "copy.ipynb"), tmp_path)
    assert done.returncode == 1
    assert re.search("image set (BSD200|Set5) is not in", done.stdout)
