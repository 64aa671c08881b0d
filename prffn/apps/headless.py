"""Notebooks run without anybody looking on: `python -m prffn reports`.

A notebook whose report lies there, made of what it would be made of again, is not executed a second time.
"""

import hashlib
import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prffn.files import atomic_write, cache_root, checkout, digest, from_extra, reports_root, write_json
from prffn.study import trainings
from prffn.study.notebook import check_parameters, parameters_of
from prffn.study.side_by_side import cores

with from_extra("kit"):
    import papermill


def run(notebooks: Mapping[str, Path], parameters: Mapping[str, Any], *, retrain: bool, scheduler: str | None) -> None:
    """Trains what the notebooks lack, then executes them; the executed copies go beside the reports.

    parameters: profile, device and perhaps seeds; each notebook gets those that it has. retrain: each trains its own
    runs again. Raises ValueError for a parameter that cannot be used, or a cell that stops.
    """
    check_parameters(**parameters)  # here too: papermill writes the executed notebook, stopped or not
    folder = reports_root() / parameters["profile"]
    folder.mkdir(parents=True, exist_ok=True)
    if not retrain:
        trainings.train(notebooks, **parameters, scheduler=scheduler)
    given = {**parameters, "retrain": retrain, **({"scheduler": scheduler} if scheduler else {})}
    known, now = _made_before(folder), _made(folder, notebooks, given)
    there = set() if retrain else {name for name in notebooks if name in now and now[name] == known.get(name)}
    if there:
        print(f"{len(there)} of {len(notebooks)} notebooks have nothing new, see {folder}", flush=True)
    todo = {name: path for name, path in notebooks.items() if name not in there}
    for number, (name, seconds) in enumerate(_in_turn(todo, given, folder), start=len(there) + 1):
        report = folder / f"{name}.md"
        written = report if report.is_file() else folder / f"{name}.ipynb"
        print(f"notebook {number} of {len(notebooks)}: {name}, done in {seconds:.0f} s, see {written}", flush=True)
    write_json(_notes(folder), known | _made(folder, notebooks, given))


def _notes(folder: Path) -> Path:
    """Where stands of what the reports of a folder were made."""
    return cache_root() / "reports" / f"{digest(str(folder.resolve()))[:16]}.json"


def _made_before(folder: Path) -> dict[str, str]:
    try:
        return dict(json.loads(_notes(folder).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return {}


def _made(folder: Path, notebooks: Mapping[str, Path], parameters: Mapping[str, Any]) -> dict[str, str]:
    """A hash of each notebook's report and of all that it was made of: cells, code, records, parameters, versions."""
    code = [*(checkout() / "notebooks").glob("*.py"), *(checkout() / "prffn").rglob("*.*")]
    records = [path for kind in folder.iterdir() if kind.is_dir() and kind.name != "html" for path in kind.iterdir()]
    versions = [platform.python_version(), *map(version, ("torch", "numpy", "pandas", "matplotlib"))]
    asked = {name: value for name, value in parameters.items() if name not in ("scheduler", "retrain")}
    shared = [_sums([path for path in code if path.suffix != ".pyc"]), _sums(records), versions, asked]
    return {
        name: digest([shared, _sums([path]), _sums(folder.glob(f"{name}.*"))])
        for name, path in notebooks.items()
        if (folder / f"{name}.ipynb").is_file()
    }


def _sums(files: Iterable[Path]) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files) if path.is_file()}


def _in_turn(notebooks: Mapping[str, Path], given: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, float]]:
    """Executes the notebooks. Yields name and seconds of each.

    Those whose runs are all recorded by now only read and draw, as many at a time as there are cores; then those that
    measure times, which need a quiet machine, one after the other.
    """

    def execute(name: str) -> tuple[str, float]:
        began, known = time.perf_counter(), parameters_of(notebooks[name])
        own = {parameter: value for parameter, value in given.items() if parameter in known}
        _execute(notebooks[name], folder / f"{name}.ipynb", own)
        return name, time.perf_counter() - began

    timing = [name for name, path in notebooks.items() if "ensure_timings" in path.read_text(encoding="utf-8")]
    with ThreadPoolExecutor(1 if given["retrain"] else cores()) as pool:
        try:
            for future in as_completed([pool.submit(execute, name) for name in notebooks if name not in timing]):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)
    yield from map(execute, timing)


def _execute(path: Path, executed: Path, parameters: dict[str, Any]) -> None:
    """Runs a notebook. Its executed copy takes its place when it is whole. Raises ValueError for a cell that stops."""
    with tempfile.TemporaryDirectory() as folder:
        made, stopped = Path(folder, path.name), None
        try:
            papermill.execute_notebook(
                str(path), str(made), kernel_name="python3", parameters=parameters, progress_bar=False,
                stderr_file=sys.stderr,
            )  # fmt: skip
        except papermill.PapermillExecutionError as error:  # the copy shows where
            stopped = error
        if made.is_file():
            before, after = (json.dumps(str(path), ensure_ascii=False) for path in (made, executed))
            with atomic_write(executed, "w") as file:  # papermill notes where it has written
                file.write(made.read_text(encoding="utf-8").replace(before, after))
    if stopped is not None:
        raise ValueError(f"{path.stem} stopped: {stopped.ename}: {stopped.evalue}") from stopped
