"""What a notebook needs beside its science: its parameters checked."""

import ast
from typing import Any

from prffn.config import check_profile, unknown
from prffn.machine import pick_device


def check_parameters(**parameters: Any) -> None:
    """Checks a notebook's parameters, given by name, and that papermill set no others. Raises ValueError or TypeError.

    papermill only warns of a `-p` name that the notebook does not have, and runs it with the defaults: here the
    misspelt name is found in the cell that papermill has added, and stops the notebook.
    """
    for name in _injected_names():
        if name not in parameters:
            raise ValueError(unknown("notebook parameter", name, parameters))
    if "profile" in parameters:
        check_profile(parameters["profile"])
    if "seeds" in parameters:
        seeds = parameters["seeds"]
        if seeds is not None and (isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1):
            raise ValueError(f"seeds must be a whole number from 1 on, or None for the profile's own, got {seeds!r}")
    if "retrain" in parameters and not isinstance(parameters["retrain"], bool):
        raise TypeError(f"retrain must be True or False, got {parameters['retrain']!r}")
    if "device" in parameters:
        if not isinstance(parameters["device"], str):
            raise TypeError(f"device must be 'auto', 'cpu', 'cuda' or 'mps', got {parameters['device']!r}")
        pick_device(parameters["device"])


def _injected_names() -> list[str]:
    """Names assigned in the cells that papermill has added, which begin with the comment "# Parameters"."""
    try:
        from IPython import get_ipython
    except ImportError:
        return []
    shell = get_ipython()
    history = shell.user_ns.get("In", []) if shell is not None else []
    names = []
    for cell in history:
        if cell.lstrip().startswith("# Parameters"):
            for statement in ast.parse(cell).body:
                if isinstance(statement, ast.Assign):
                    names += [target.id for target in statement.targets if isinstance(target, ast.Name)]
    return names
