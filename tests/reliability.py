"""What the tests of faults have tried, and the README's table of it."""

from collections import Counter
from pathlib import Path

import pytest

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN = "<!-- Written by `pytest tests/test_faults_*.py --write-reliability` from what those tests tried. -->"
END = "<!-- The end of what they tried. -->"
FILES = sorted(Path(__file__).parent.glob("test_faults_*.py"))


class Faults:
    """Counts the faults that were tried and what came of each; knows whether all tests of faults have run."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.deselected = False
        self.passed: set[str] = set()

    def tried(self, fault: str, outcome: str) -> None:
        """To be called once for each, when what came of it has been asserted."""
        self.counts.setdefault(fault, Counter())[outcome] += 1

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self.deselected |= any(item.path in FILES for item in items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid)

    def missing(self, session: pytest.Session, last: pytest.Item) -> str:
        """Why the counts are not those of all tests of faults; empty where they are. last: the test that asks."""
        others = [item for item in session.items if item.path in FILES and item is not last]
        if absent := [path.name for path in FILES if path not in {item.path for item in [*others, last]}]:
            return f"{absent[0]} is not part of this run"
        if self.deselected or any("::" in argument for argument in session.config.args):
            return "some tests of faults are not part of this run"
        without = [item.nodeid for item in others if item.nodeid not in self.passed]
        return f"{without[0]} was skipped, or failed" if without else ""

    def table(self) -> str:
        """In Markdown, in the order of the tests."""
        rows = [
            f"| {fault} | {outcomes.total()} | {', '.join(f'{outcome}: {n}' for outcome, n in outcomes.items())} |"
            for fault, outcomes in self.counts.items()
        ]
        return "\n".join(["| fault | tried | what came of it |", "| --- | --- | --- |", *rows])


def in_readme() -> str:
    """The table that stands in the README."""
    return README.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip()


def write_into_readme(table: str) -> None:
    """Replaces the README's table."""
    text = README.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    README.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")
