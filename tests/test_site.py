"""The web pages: one for each executed notebook, and the overview; they are linked, and load nothing."""

import json
import re
import shutil
from html import unescape
from pathlib import Path

import nbformat
import pytest
from conftest import CHECKOUT
from nbformat import v4

from prffn.__main__ import main
from prffn.files import REPORTS_VARIABLE, write_json
from prffn.reporting.html import write_site
from prffn.reporting.report import KIND

ADDRESSES = re.compile(r'<(\w+)[^<>]*?\b(?:src|href|srcset|data|action)="([^"]*)"')
"""Tags and what they name; a browser loads all but what links name."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """All pages of the recorded study, by name."""
    folder = tmp_path_factory.mktemp("study") / "reports"
    shutil.copytree(CHECKOUT / "reports", folder, ignore=shutil.ignore_patterns("quick", "paper", "html"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(REPORTS_VARIABLE, str(folder))
        index = write_site("cpu")
    return {path.stem: path.read_text(encoding="utf-8") for path in index.parent.iterdir()}


def test_every_notebook_has_a_page_and_every_page_links_all(pages):
    notebooks = {path.stem for path in (CHECKOUT / "notebooks").glob("*.ipynb")}
    assert set(pages) == notebooks | {"index"}
    for html in pages.values():
        assert {f"{name}.html" for name in pages} <= set(re.findall(r'href="([^"#]+)"', html))
    body = pages["index"].partition("</nav>")[2]
    judged = [path.stem for path in (CHECKOUT / "reports" / "cpu").glob("*.json") if path.stem in notebooks]
    assert len(judged) > 10
    assert all(f'href="{name}.html"' in body for name in judged)


def test_links_within_a_page_lead_somewhere(pages):
    for name, html in pages.items():
        ids = re.findall(r'\bid="([^"]+)"', html)
        assert {unescape(anchor) for anchor in re.findall(r'href="#([^"]+)"', html)} <= set(map(unescape, ids)), name


def test_nothing_is_loaded_from_anywhere(pages):
    """The page itself forbids a browser to load or run anything; and there is nothing that it would."""
    for name, html in pages.items():
        assert "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\"" in html
        assert all(tag == "a" or value.startswith(("data:", "#")) for tag, value in ADDRESSES.findall(html)), name
        assert not re.search(r"@import|url\(", html), name


def test_the_pages_show_the_notebooks_figures_and_the_reports_verdicts(pages):
    for path in (CHECKOUT / "notebooks").glob("*.ipynb"):
        cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
        figures = [
            out.data["image/png"] for cell in cells for out in cell.outputs if "image/png" in out.get("data", {})
        ]
        html = re.sub(r"\s", "", pages[path.stem])
        assert all(re.sub(r"\s", "", figure) in html for figure in figures)
    index = unescape(pages["index"])
    for path in (CHECKOUT / "reports" / "cpu").glob("*.json"):
        for row in json.loads(path.read_text()).get("verdicts", []):
            assert f"<td>{row['claim']}</td>" in index


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    """Profile quick: a report that would be harmful if its text were not escaped, and an executed notebook."""
    folder = tmp_path / "reports" / "quick"
    evil = "<script>alert(1)</script>"
    claim = {"claim": evil, "set": "s", "difference": 0.1, "verdict": "holds"}
    content = {"kind": KIND, "title": evil, "profile": "quick", "label": evil, "verdicts": [claim]}
    write_json(folder / "table1_a.json", content)
    text = v4.new_markdown_cell(
        r"$\lambda_c$ and $\nosuch{x}$; [b](table2_b.ipynb), [a](table1_a.ipynb#part), [c](x/y.md)"
    )
    notebook = v4.new_notebook(cells=[text, v4.new_code_cell("print('<b>')")])
    nbformat.write(notebook, folder / "table1_a.ipynb")
    return folder


def test_links_mathematics_and_escaped_text(quick):
    """A link to a notebook with a page leads to the page; another is relative to the page's folder."""
    index = write_site("quick").read_text()
    assert "<script" not in index
    assert "&lt;script&gt;alert(1)" in index
    html = (quick / "html" / "table1_a.html").read_text()
    assert {"../table2_b.ipynb", "table1_a.html#part", "../x/y.md"} <= set(re.findall(r'href="([^"]+)"', html))
    assert "javascript:" not in html
    assert re.search(r'<img alt="\\lambda_c" [^>]*src="data:image/svg', html)
    assert r"<code>\nosuch{x}</code>" in html
    assert "&lt;b&gt;" in html


def test_the_command_removes_the_pages_of_notebooks_that_are_gone_and_names_what_it_cannot_read(quick, capsys):
    assert main(["html", "--profile", "quick"]) == 0
    assert capsys.readouterr().out == f"web pages: {quick / 'html' / 'index.html'}\n"
    (quick / "table1_a.ipynb").rename(quick / "table2_b.ipynb")
    write_site("quick")
    assert {path.name for path in (quick / "html").iterdir()} == {"index.html", "table2_b.html"}
    (quick / "table2_b.ipynb").write_text("{")
    assert main(["html", "--profile", "quick"]) == 1
    assert "table2_b.ipynb cannot be read" in capsys.readouterr().err
    shutil.rmtree(quick)
    assert main(["html", "--profile", "quick"]) == 1
    assert "no reports in" in capsys.readouterr().err
