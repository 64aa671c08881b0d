"""The house: rooms import each other downwards only, nothing in a circle, and no module grows without end."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from conftest import CHECKOUT

PACKAGE = CHECKOUT / "prffn"

ROOMS = (
    "__main__", "apps", "reporting", "study", "evaluation", "training", "config", "losses", "models", "data", "paper",
    "files",
)  # fmt: skip
"""From the top down: a module imports from its own room and from rooms further right, never from one further left."""

MOST_ENTRIES = 14
LONGEST_MODULE = 300
"""Lines; the aim is 300."""


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Every module of the package by its dotted name; a package goes by its own name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the package that a file imports anywhere, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively: name the module in full"
            inner = [f"{node.module}.{name.name}" for name in node.names]
            yield from (module if module in known else str(node.module) for module in inner)


def arrows(package: Path = PACKAGE) -> set[tuple[str, str]]:
    """(importing module, imported module), both of the package."""
    known = modules(package)
    return {(name, other) for name, path in known.items() for other in imports(path, known) if other in known}


def upward(found: set[tuple[str, str]]) -> list[str]:
    """The arrows that run up, as text. What the package itself exports, prffn/__init__.py, stands outside the order."""

    def place(module: str) -> int:
        return ROOMS.index(module.split(".")[1]) if "." in module else -1

    return sorted(f"{a} imports {b}" for a, b in found if "." in a and place(a) > place(b))


def circle(found: set[tuple[str, str]]) -> list[str]:
    """Modules that import each other in a circle; empty where there are none."""
    graph: dict[str, set[str]] = {}
    for a, b in found:
        if a != b:
            graph.setdefault(a, set()).add(b)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_imports_run_downwards():
    assert upward(arrows()) == []


def test_no_imports_in_a_circle():
    assert circle(arrows()) == []


def test_what_is_wrong_is_found(tmp_path):
    """files.py imports data, hidden in a function, and data imports files: an arrow upwards, and a circle."""
    package = tmp_path / "prffn"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "data" / "__init__.py").touch()
    (package / "data" / "images.py").write_text("import prffn.files\n")
    (package / "files.py").write_text("def f():\n    from prffn.data import images\n")
    found = arrows(package)
    assert upward(found) == ["prffn.files imports prffn.data.images"]
    assert {"prffn.data.images", "prffn.files"} <= set(circle(found))


def test_the_corridor_is_short():
    entries = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert len(entries) <= MOST_ENTRIES, sorted(entries)


@pytest.mark.parametrize("name", modules())
def test_no_module_is_long(name):
    assert len(modules()[name].read_text(encoding="utf-8").splitlines()) <= LONGEST_MODULE
