"""The page of all claims: as committed, and by hand from made-up reports."""

import json
import re
from pathlib import Path

import pytest
from conftest import CHECKOUT

from prffn.__main__ import main
from prffn.files import REPORTS_VARIABLE, save_record, write_json
from prffn.reporting.overview import overview, slug, write_overview
from prffn.reporting.report import KIND
from prffn.reporting.written import reports_of
from prffn.study.claims import smallest_difference

COMMITTED = CHECKOUT / "reports" / "README.md"
STUDY = CHECKOUT / "reports" / "cpu"


@pytest.fixture
def committed(monkeypatch: pytest.MonkeyPatch) -> str:
    """The committed page; the recorded study is what the code reads."""
    monkeypatch.setenv(REPORTS_VARIABLE, str(CHECKOUT / "reports"))
    return COMMITTED.read_text(encoding="utf-8")


def test_the_committed_page_says_what_the_reports_say(committed):
    """If not: python -m prffn overview --profile cpu."""
    assert overview("cpu") == committed


def test_every_link_leads_somewhere(committed):
    headings = {slug(line.lstrip("# ")) for line in committed.splitlines() if line.startswith("#")}
    links = re.findall(r"\]\(([^)]+)\)", committed)
    assert len(links) > 50
    for link in links:
        path, _, anchor = link.partition("#")
        assert (COMMITTED.parent / path).exists(), link
        assert path or anchor in headings, link


def test_the_smallest_difference_is_the_one_of_the_reports(committed):
    for report in reports_of("cpu"):
        said = re.search(r"a difference must be about (.+?) \(the median", report.path.with_suffix(".md").read_text())
        assert (said[1] if said else "") == smallest_difference(report.verdicts)


def verdict(claim: str, image_set: str, found: str, *interval: float, **more: object) -> dict[str, object]:
    numbers = dict(zip(("difference", "low", "high"), interval, strict=False))
    return {"claim": claim, "set": image_set, "verdict": found, **numbers, **more}


def test_the_smallest_difference_by_hand():
    """Half-widths 0.1, 0.3 and 0.2 on s: the median is 0.2. One of 0.05 on t; one seed gives no interval."""
    rows = [
        verdict("a", "s", "holds", 0.2, 0.1, 0.3), verdict("b", "s", "holds", 0.4, 0.1, 0.7),
        verdict("c", "s", "holds", 0.3, 0.1, 0.5), verdict("a", "t", "not decided", 0, -0.05, 0.05),
        verdict("b", "t", "not decided", 0.7), verdict("c", "t", "not decided", 0, None, None),
        verdict("d", "t", "not decided", 0, -0.01, 0.01, unit="LPIPS"),
    ]  # fmt: skip
    assert smallest_difference(rows) == "0.200 dB on s, 0.050 dB on t, 0.0100 LPIPS on t"
    assert smallest_difference(rows[4:6]) == ""


def report(folder: Path, name: str, **more: object) -> None:
    content = {"kind": KIND, "title": f"Title of {name}", "profile": "quick", "label": "measured", **more}
    write_json(folder / f"{name}.json", content)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the made-up reports of profile quick lie."""
    folder = tmp_path / "reports" / "quick"
    folder.mkdir(parents=True)
    return folder


def test_reports_stand_in_the_papers_order(folder):
    """JSON files of another kind are left out."""
    names = ["architecture", "beyond_a", "extra", "fig10_b", "fig7_a", "table2_a", "table10_b", "table1_z"]
    for name in names:
        report(folder, name)
    write_json(folder / "other.json", [1])
    write_json(folder / "of_no_kind.json", {"title": "A"})
    in_order = ["table1_z", "table2_a", "table10_b", "fig7_a", "fig10_b", "beyond_a", "extra", "architecture"]
    assert [found.name for found in reports_of("quick")] == in_order
    places = [overview("quick").index(f"Title of {name}") for name in in_order]
    assert places == sorted(places)
    assert "verdict" not in overview("quick")


def test_a_page_by_hand(folder):
    """Two reports share run k1: three distinct runs of 1800, 3600 and 9000 s are 4.0 hours. One record is not there."""
    for key, seconds in {"k1": 1800, "k2": 3600, "k3": 9000}.items():
        save_record(folder / "runs", key, {"key": key, "train_seconds": seconds})
    made = {"training time in all": "5 min", "scale": "x3", "steps": "600"}
    report(folder, "table1_a", runs={"x": ["k1", "k2"], "y": ["k3", "gone"]}, provenance=made, verdicts=[
        verdict("x is better", "s", "holds", 0.2, 0.1, 0.3, p=0.01),
        verdict("x is better", "t", "not decided", 0, -0.1, 0.1, p=1.0, **{"would decide": "about 9 seeds"}),
    ])  # fmt: skip
    report(folder, "beyond_b", runs={"x": ["k1"]}, verdicts=[verdict("y is better", "s", "not decided", 0.3)])
    report(folder, "your_e", verdicts=[verdict("w is better", "s", "holds", 0.3, 0.1, 0.5)])
    columns = {"crops": {"scale": "x2"}, "training": {"scale": "x4", "training time in all": "7 min"}}
    report(folder, "fig7_d", runs={"x": ["k2"]}, provenance=columns, verdicts=[
        verdict("z is better", "the crop", "does not hold", -0.2, -0.3, -0.1, printed=0.1),
    ])  # fmt: skip
    report(folder.parent / "bench", "b")
    (folder.parent / "bench" / "NOTES.md").write_text("no benchmark, and no heading")
    text = write_overview("quick").read_text()
    assert (folder / "README.md").read_text() == text
    for line in (
        "- **Claims of the paper: 2.** Verdicts, one for each image set: holds 1, does not hold 1, not decided 1. "
        "After Holm's correction: holds 1, does not hold 0.",
        "- **Questions beyond the paper: 2.** Verdicts, one for each image set: holds 1, not decided 1.",
        "- Behind them stand 4 training runs, 4.0 hours in all (without 1 whose records are missing); a run that "
        "several reports need counts once.",
        "| [Title of table1_a](#title-of-table1_a) | 1 | 1 | 0 | 0 | 1 | 0.100 dB on s, 0.100 dB on t | 2 | 4 "
        "| 5 min |",
        "| [Title of beyond_b](#title-of-beyond_b) | 1 | 0 | 0 | 0 | 1 |  | 1 | 1 |  |",
        "| x is better | **holds** +0.200 [+0.100, +0.300] | *not decided* +0.000 [-0.100, +0.100]; about 9 seeds "
        "would decide |",
        "profile: quick; seeds: 2; smallest difference: 0.100 dB on s, 0.100 dB on t; scale: x3; steps: 600.",
        "profile: quick; seeds: 1; smallest difference: none, there is no interval.",
        "| [Title of fig7_d](#title-of-fig7_d) | 1 | 0 | 0 | 1 | 0 | 0.100 dB on the crop | 1 | 1 | 7 min |",
        "| z is better | +0.100 | **does not hold** -0.200 [-0.300, -0.100] |",
        "profile: quick; seeds: 1; smallest difference: 0.100 dB on the crop; scale: x4.",
        "- [Title of b](../bench/b.md), [JSON](../bench/b.json)",
        "| y | [k3](runs/k3.json) | [gone](runs/gone.json) |",
    ):
        assert line in text.splitlines()


def test_what_cannot_be_read_is_named(folder, capsys):
    with pytest.raises(ValueError, match="no reports in .*quick: python -m prffn reports --profile quick"):
        overview("quick")
    with pytest.raises(ValueError, match="Did you mean 'quick'"):
        overview("quik")
    (folder / "table1_a.json").write_text('{"title": "A"')
    assert main(["overview", "--profile", "quick"]) == 1
    assert re.search(r"table1_a.json cannot be read .*: run its notebook again", capsys.readouterr().err)


def test_reports_end_with_the_pages(folder, monkeypatch, capsys):
    """`python -m prffn reports`: the notebook is stood in for, what comes after it is real."""
    monkeypatch.setattr("papermill.execute_notebook", lambda *_, **__: report(folder, "architecture"))
    assert main(["reports", "architecture"]) == 0
    assert (folder / "README.md").read_text() == overview("quick")
    assert "Title of architecture" in (folder / "html" / "index.html").read_text()
    assert capsys.readouterr().out.endswith(f"web pages: {folder / 'html' / 'index.html'}\n")


def test_the_readmes_table_counts_the_verdicts(committed):
    """Each row's cell "holds / less / does not hold / not decided", from the report that the row links."""
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    found = set()
    for line in re.findall(r"^\| .*\(reports/cpu/\w+\.md\).*\|$", readme, re.M):
        (name, *others) = re.findall(r"reports/cpu/(\w+)\.md", line)
        verdicts = [row["verdict"] for row in json.loads((STUDY / f"{name}.json").read_text()).get("verdicts", [])]
        counts = [verdicts.count(verdict) for verdict in ("holds", "less than printed", "does not hold", "not decided")]
        cell = re.split(r" ?\| ?", line)[3]
        assert cell == (" / ".join(map(str, counts)) if verdicts else ""), name
        found |= {name, *others}
    assert found == {report.name for report in reports_of("cpu")}
