"""What a notebook needs beside its science: its parameters checked, its experiments listed without training them."""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import IPython
import pandas as pd
from IPython.display import Markdown

from prffn.config import MOST_SEEDS, PROFILE_SEEDS, Experiment, check_profile, check_seeds, variants
from prffn.files import RECORDED, unknown, whole_number
from prffn.losses.own import FORM
from prffn.study.claims import answer, as_math
from prffn.study.continued import continued
from prffn.study.ensure import ensure
from prffn.study.runs import Runs
from prffn.training.device import pick_device

KINDS: dict[str, tuple[type, str]] = {
    "retrain": (bool, "True or False"),
    "device": (str, "one of auto, cpu, cuda or mps"),
    "image": (str, "a name or the path of a file"),
    "second_image": (str, "a name or the path of a file"),
    "loss": (str, FORM),
}
"""Parameters of one type, and what they must be."""


def check_parameters(**parameters: Any) -> None:
    """Checks a notebook's parameters, given by name, and that papermill set no others. Raises ValueError or TypeError.

    Whether an image is there, and a region or pixel in it, is checked where it is opened, before anything is made.
    papermill only warns of a `-p` name that the notebook does not have, and runs it with the defaults: here the
    misspelt name is found in the cell that papermill has added, and stops the notebook.
    """
    for name in _injected_names():
        if name not in parameters:
            raise ValueError(unknown("notebook parameter", name, parameters))
    if "profile" in parameters:
        check_profile(parameters["profile"])
    if "seeds" in parameters:
        check_seeds(parameters["seeds"])
    for name in parameters.keys() & KINDS.keys():
        kind, what = KINDS[name]
        if not isinstance(parameters[name], kind):
            raise TypeError(f"{name} must be {what}, got {parameters[name]!r}")
    if "device" in parameters:
        pick_device(parameters["device"])
    for name in parameters.keys() & {"row", "column"}:
        whole_number(name, parameters[name], 0)
    if "scale" in parameters and whole_number("scale", parameters["scale"]) not in (2, 3, 4):
        raise ValueError(f"scale must be 2, 3 or 4, got {parameters['scale']!r}")
    if "weight" in parameters:
        weight = parameters["weight"]
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 1e12:
            raise ValueError(f"weight must be a number above 0, 1e12 at most, got {weight!r}")
    if parameters.get("scheduler") is not None:
        from prffn.study.cluster import check_address  # which loads all that trains

        check_address(parameters["scheduler"])


class Study:
    """What a notebook asks, at its parameters, which are checked when it is made: see `check_parameters`."""

    def __init__(self, **parameters: Any) -> None:
        check_parameters(**parameters)
        self.profile: str = parameters["profile"]
        self.seeds: int | None = parameters.get("seeds")
        self.how = {name: parameters[name] for name in ("device", "retrain", "scheduler") if name in parameters}

    def variants(
        self,
        vary: Mapping[str, Mapping[str, Any]],
        *,
        recorded: int | None = None,
        at_most: int = MOST_SEEDS,
        instead: tuple[str, ...] = (),
    ) -> dict[str, list[Experiment]]:
        """See `config.variants`. Where the notebook gives no number of seeds, it is the profile's own.

        recorded: in its place, at the profile of the recorded study; at_most: at any profile.
        """
        own = recorded if recorded and self.profile == RECORDED else PROFILE_SEEDS[self.profile]
        seeds = min(at_most, own) if self.seeds is None else self.seeds
        return variants(self.profile, vary, seeds=seeds, instead=instead)

    def continued(self, vary: Mapping[str, Mapping[str, Any]], **more: Any) -> dict[str, list[Experiment]]:
        """As `variants`, but each resumes from a training with L_1 alone where the profile says so: continued.py."""
        return continued(self.variants(vary, **more), self.profile)

    def ensure(self, experiments: Mapping[str, Sequence[Experiment]]) -> Runs:
        """The runs, recorded or trained now, see `ensure`; prints how many were which, where there are any."""
        runs = ensure(experiments, self.profile, workers=None, **self.how)
        if experiments:
            print(runs)
        return runs

    def answer(self, runs: Runs, verdicts: pd.DataFrame) -> Markdown:
        """The answer in one sentence, from the verdicts: see `claims.answer`."""
        return self.said(answer(runs, verdicts))

    def said(self, text: str) -> Markdown:
        """A text of Markdown, with the losses in it set as mathematics."""
        return Markdown(as_math(text))


def parameters_of(path: Path) -> list[str]:
    """The names of a notebook's parameters, from its cell tagged "parameters"."""
    return [name for cell, tree in _code_cells(path) if _has_parameters(cell) for name in _assigned(tree)]


def _injected_names() -> list[str]:
    """Names assigned in the cell that papermill has added, which begins with the comment "# Parameters".

    As it was last executed: after a corrected cell is rerun, the old misspelling is no longer reported.
    """
    shell = IPython.get_ipython()
    history = shell.user_ns.get("In", []) if shell is not None else []
    added = [cell for cell in history if cell.split("\n", 1)[0].rstrip() == "# Parameters"]
    return _assigned(ast.parse(added[-1])) if added else []


EXPERIMENTS = "experiments"  # the name under which a notebook keeps what it hands to `ensure`

ENSURE = re.compile(r"\bensure(\w*)\(\s*(?:experiments=)?([^,)]*)")
"""A call that trains or measures: of `ensure` or its kin, such as `ensure_timings`, and what it is given first."""


def experiments_of(path: Path, **parameters: Any) -> dict[str, list[Experiment]]:
    """The experiments of a notebook by label, as it would hand them to `ensure`; none is trained. {} if it has none.

    The convention: a notebook assigns the name `experiments` at the top level of a cell, before it trains anything, and
    calls `ensure(experiments, ...)`. Here its code cells up to the one that assigns it (the last, if there are several)
    are executed in a namespace of their own, and no cell after that: give only a notebook that you trust.
    parameters: take the place of those in the cell tagged "parameters", as papermill's do.
    Raises ValueError, naming the notebook and the cell, if the convention is not kept or a cell stops with an error.
    """
    cells = _code_cells(path)
    last = max((number for number, (_, tree) in enumerate(cells) if EXPERIMENTS in _assigned(tree)), default=-1)
    for number, (cell, _) in enumerate(cells):
        where, source = f"{path.stem}, code cell {number + 1}", "".join(cell["source"])
        for kin, given in ENSURE.findall(source):
            if number <= last:
                raise ValueError(f"{where}: trains or measures before its `{EXPERIMENTS}` are complete; do so after")
            if not kin and (last < 0 or given.strip() != EXPERIMENTS):
                raise ValueError(f"{where}: name what is trained `{EXPERIMENTS}`, and call ensure({EXPERIMENTS}, ...)")
    if last < 0:
        return {}
    names: dict[str, Any] = {}
    for number, (cell, tree) in enumerate(cells[: last + 1], start=1):
        try:
            exec(compile(tree, f"{path.name}, code cell {number}", "exec"), names)
        except Exception as error:
            raise ValueError(f"{path.stem}, code cell {number}: {type(error).__name__}: {error}") from error
        if _has_parameters(cell):
            for name in parameters.keys() - names.keys():
                raise ValueError(f"{path.stem}: " + unknown("notebook parameter", name, _assigned(tree)))
            names |= parameters
    if not isinstance(found := names[EXPERIMENTS], Mapping):
        raise ValueError(f"{path.stem}: `{EXPERIMENTS}` must be what variants() gives, got {type(found).__name__}")
    return dict(found)


def _code_cells(path: Path) -> list[tuple[dict[str, Any], ast.Module]]:
    """The notebook's code cells, each with its syntax tree. Raises ValueError naming one that is not plain Python."""
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    found = []
    for number, cell in enumerate(cells, start=1):
        try:
            found.append((cell, ast.parse("".join(cell["source"]))))
        except SyntaxError as error:
            raise ValueError(f"{path.stem}, code cell {number} is not plain Python: {error}") from error
    return found


def _has_parameters(cell: Mapping[str, Any]) -> bool:
    return "parameters" in cell["metadata"].get("tags", [])


def _assigned(tree: ast.Module) -> list[str]:
    """Names that a cell assigns at its top level, by `=`, `|=` or with an annotation."""
    targets: list[ast.expr] = []
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            targets += statement.targets
        elif isinstance(statement, ast.AugAssign | ast.AnnAssign):
            targets.append(statement.target)
    return [target.id for target in targets if isinstance(target, ast.Name)]
