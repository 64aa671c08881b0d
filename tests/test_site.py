"""The web pages: well-formed, whole in themselves, linked, and with the numbers of the reports."""

import base64
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import CHECKOUT
from PIL import Image
from skimage import data as skimage_data

from prffn.__main__ import main
from prffn.data.pictures import picture
from prffn.files import REPORTS_VARIABLE, save_record
from prffn.reporting.html import write_site
from prffn.reporting.slider import slider
from prffn.reporting.tables import write_report

VOID = {"meta", "img", "input", "br", "hr", "link"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    children: list["Element"] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def all(self, tag: str) -> list["Element"]:
        return [found for child in self.children for found in ([child] if child.tag == tag else []) + child.all(tag)]

    @property
    def text(self) -> str:
        return "".join(self.words)


class Parser(HTMLParser):
    """A tree of elements; a tag that is not closed, or closed out of turn, is an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open = [Element("", {})]
        self.feed(html)
        self.close()
        assert len(self.open) == 1, f"<{self.open[-1].tag}> is not closed"

    def handle_starttag(self, tag, attrs):
        assert len(attrs) == len(dict(attrs)), f"an attribute stands twice in <{tag}>"
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        for element in self.open:
            element.words.append(data)


def parsed(html: str) -> Element:
    return Parser(html).open[0]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the recorded study's reports."""
    folder = tmp_path_factory.mktemp("study") / "reports"
    shutil.copytree(CHECKOUT / "reports", folder, ignore=shutil.ignore_patterns("quick", "paper", "html"))
    return folder


@pytest.fixture(scope="module")
def pages(study: Path) -> dict[str, Element]:
    """All pages of the recorded study, by file name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(REPORTS_VARIABLE, str(study))
        index = write_site("cpu")
    return {path.name: parsed(path.read_text(encoding="utf-8")) for path in index.parent.iterdir()}


def test_every_report_has_a_page_and_every_page_is_linked(study, pages):
    names = {f"{path.stem}.html" for path in (study / "cpu").glob("*.md") if path.stem not in ("README", "plan")}
    names |= {f"bench_{path.stem}.html" for path in (study / "bench").glob("*.md")}
    assert names | {"index.html"} <= set(pages)
    linked = {a.attributes["href"] for a in pages["index.html"].all("main")[0].all("a")}
    assert names <= {link.partition("#")[0] for link in linked}
    for page in pages.values():
        (nav,) = page.all("nav")
        assert {a.attributes["href"] for a in nav.all("a")} == set(pages)


def test_links_and_anchors_lead_somewhere(study, pages):
    ids = {name: [e.attributes["id"] for e in everything(page) if "id" in e.attributes] for name, page in pages.items()}
    for name, page in pages.items():
        assert len(ids[name]) == len(set(ids[name])), "an id stands twice"
        for a in page.all("a"):
            path, _, anchor = a.attributes["href"].partition("#")
            there = Path(os.path.normpath(study / "cpu" / "html" / path))
            if not there.exists():  # a report's own link to the code, which the copy does not have beside it
                there = Path(os.path.normpath(CHECKOUT / "reports" / "cpu" / "html" / path))
            assert there.exists(), (name, path)
            assert not anchor or anchor in ids[path or name], (name, anchor)


def everything(element: Element) -> Iterator[Element]:
    for child in element.children:
        yield child
        yield from everything(child)


def test_nothing_is_loaded_from_anywhere(pages):
    """Only links may lead out; images are inside, and the page itself forbids a browser to load anything."""
    for name, page in pages.items():
        for element in everything(page):
            assert element.tag not in {"link", "iframe", "object", "embed", "base", "source", "video", "audio"}
            src = element.attributes.get("src")
            assert element.tag == "img" or src is None
            assert src is None or src.startswith("data:image/png;base64,")
            assert not {key for key in element.attributes if key.startswith("on")}, name
        (style,), (script,) = page.all("style"), page.all("script")
        assert not re.search(r"url\(|@import|https?:", style.text + script.text)
        (policy,) = [m for m in page.all("meta") if m.attributes.get("http-equiv") == "Content-Security-Policy"]
        assert policy.attributes["content"].startswith("default-src 'none'; img-src data:;")


def test_the_figures_are_the_reports_figures(study, pages):
    for path in (study / "cpu").glob("*.json"):
        images = pages[f"{path.stem}.html"].all("img")
        figure = path.with_suffix(".png").read_bytes()
        (image,) = [i for i in images if base64.b64decode(i.attributes["src"].partition(",")[2]) == figure]
        assert image.attributes["alt"]
        opened = Image.open(io.BytesIO(figure))
        inches = [length / dpi for length, dpi in zip(opened.size, opened.info["dpi"], strict=True)]
        shown = [int(image.attributes[side]) / 96 for side in ("width", "height")]
        assert shown == pytest.approx(inches, abs=0.01)


def cells(table: Element) -> list[list[str]]:
    return [[cell.text.strip() for cell in row.children] for row in table.all("tr")]


def same(cell: str, value: object) -> bool:
    """Whether a cell says what a JSON value says; a number may be shown with fewer decimals."""
    if value is None or isinstance(value, str):
        return cell == (value or "")
    return float(cell) == pytest.approx(float(value), abs=5.1e-4)


def test_tables_hold_the_numbers_of_the_reports(study, pages):
    """The table of runs of each report with claims, and its table of verdicts, cell by cell."""
    compared = 0
    for path in (study / "cpu").glob("*.json"):
        content = json.loads(path.read_text())
        if "verdicts" not in content:
            continue
        tables = [cells(table) for table in pages[f"{path.stem}.html"].all("table")]
        # the table of crops is written for people: it leaves out that bicubic has no parameters
        for rows in (content["table"], content["verdicts"])[path.stem.startswith("fig") :]:
            table, *_others = [found for found in tables if found[0] == list(rows[0])]  # another metric may follow
            for line, row in zip(table[1:], rows, strict=True):
                assert all(same(*pair) for pair in zip(line, row.values(), strict=True)), (path.stem, line)
                compared += 1
    assert compared > 20


def test_columns_of_numbers_are_aligned_and_others_are_not(pages):
    table = next(t for t in pages["table5_region_size.html"].all("table") if cells(t)[0][0] == "claim")
    kinds = [[cell.attributes["class"] for cell in row.children] for row in table.all("tr")]
    assert [len(set(column)) for column in zip(*kinds, strict=True)] == [1] * 7
    assert kinds[0] == ["short", "short", "number", "number", "number", "number", "short"]
    (made,) = [t for t in pages["table5_region_size.html"].all("table") if cells(t)[0] == ["", "value"]]
    assert "number" not in {cell.attributes["class"] for row in made.all("tr") for cell in row.children}


def test_the_first_page_gives_each_verdict(study, pages):
    """A table for each report, its rows its claims."""
    tables = [cells(table) for table in pages["index.html"].all("table")]
    for path in (study / "cpu").glob("*.json"):
        verdicts = json.loads(path.read_text()).get("verdicts", [])
        if not verdicts:
            continue
        claims = list(dict.fromkeys(row["claim"] for row in verdicts))
        (table,) = [found for found in tables if [line[0] for line in found[1:]] == claims]
        for row in verdicts:
            cell = table[1 + claims.index(row["claim"])][table[0].index(row["set"])]
            assert cell.startswith(row["verdict"])
            numbers = [float(number) for number in re.findall(r"[+-][\d.]+", cell)]
            expected = [row[name] for name in ("difference", "low", "high") if row.get(name) is not None]
            assert numbers == pytest.approx(expected, abs=5e-5)
    marks = [e for e in pages["index.html"].all("strong") if e.attributes.get("class") == "holds"]
    assert {mark.text for mark in marks} == {"holds"}


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    """A report of profile quick that would be harmful if it were not escaped."""
    folder = tmp_path / "reports" / "quick"
    evil = "<script>alert(1)</script> & \"<b>\" <img src='http://example.org/x.png'>"
    claim = {"claim": evil, "set": "<i>s</i>", "difference": 0.1, "verdict": "holds"}
    write_report(folder / "table1_a.json", {"title": evil, "profile": "quick", "label": evil, "verdicts": [claim]})
    (folder / "table1_a.md").write_text(
        f"# {evil}\n\n{evil}\n\n| {evil} |\n| --- |\n| {evil} |\n\n[x](javascript:alert(1))\n\n![{evil}](a.png)\n"
    )
    (folder / "a.png").write_bytes(png(4, 4))
    return folder


def test_text_stays_text(quick):
    for path in write_site("quick").parent.glob("*.html"):
        page = parsed(path.read_text())
        assert len(page.all("script")) == 1
        assert not page.all("b")
        assert not page.all("i")
        assert "<script>alert(1)</script>" in page.text
        assert all(image.attributes["src"].startswith("data:") for image in page.all("img"))
        assert not [a for a in page.all("a") if "javascript" in (a.attributes["href"] or "")]
    (image,) = parsed((quick / "html" / "table1_a.html").read_text()).all("img")
    assert "<b>" in image.attributes["alt"]


def test_pages_of_reports_that_are_gone_are_removed(quick):
    """Those that the site has written: a page that somebody has put there stays."""
    write_site("quick")
    (quick / "html" / "mine.html").write_text("<p>mine</p>")
    (quick / "table2_b.json").write_text((quick / "table1_a.json").read_text())
    (quick / "table2_b.md").write_text("# B\n")
    write_site("quick")
    kept = {"index.html", "mine.html", "table2_b.html"}
    assert {path.name for path in (quick / "html").iterdir()} == kept | {"table1_a.html"}
    (quick / "table1_a.json").unlink()
    write_site("quick")
    assert {path.name for path in (quick / "html").iterdir()} == kept


@pytest.mark.parametrize(("file", "expected"), [("table1_a.md", "is not a text"), ("a.png", "the bytes of a PNG")])
def test_a_damaged_file_is_named(quick, file, expected):
    (quick / file).write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=f"{file}.*{expected}"):
        write_site("quick")


def test_the_pages_are_the_same_each_time(quick):
    first = {path: path.read_bytes() for path in write_site("quick").parent.iterdir()}
    assert {path: path.read_bytes() for path in write_site("quick").parent.iterdir()} == first


def test_the_command(quick, capsys):
    assert main(["html", "--profile", "quick"]) == 0
    assert capsys.readouterr().out == f"web pages: {quick / 'html' / 'index.html'}\n"
    shutil.rmtree(quick)
    assert main(["html", "--profile", "quick"]) == 1
    assert "no reports in" in capsys.readouterr().err


def png(height: int, width: int, grey: int = 128) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), grey, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


CROPS = {"bicubic": png(8, 12, 10), "L_contr <b>": png(8, 12, 20), "HR": png(8, 12, 30)}


def test_the_slider_shows_all_crops_without_scripts():
    """What the script needs is hidden until it runs; the crops themselves are there, each with its name."""
    page = parsed(slider(CROPS, title='"img_004" & x3', left="bicubic", right="HR",
                         notes={"L_contr <b>": "31.20 dB"}))  # fmt: skip
    (section,) = page.all("section")
    assert section.attributes["aria-label"] == '"img_004" & x3'
    (strip,) = [d for d in page.all("div") if d.attributes.get("class") == "strip"]
    figures = strip.all("figure")
    assert [f.all("figcaption")[0].all("b")[0].text for f in figures] == list(CROPS)
    assert "31.20 dB" in figures[1].text
    for figure, crop in zip(figures, CROPS.values(), strict=True):
        (image,) = figure.all("img")
        assert base64.b64decode(image.attributes["src"].partition(",")[2]) == crop
        assert (image.attributes["width"], image.attributes["height"]) == ("12", "8")
    hidden = [element for element in everything(page) if "hidden" in element.attributes]
    assert [element.attributes["class"] for element in hidden] == ["slider"]
    assert "hidden" not in strip.attributes


def test_the_slider_can_be_moved_by_keyboard():
    """A range input, which arrow keys move, and the two crops that it begins with."""
    (box,) = [
        d for d in parsed(slider(CROPS, title="t", left="bicubic", right="HR")).all("div") if "hidden" in d.attributes
    ]
    (range_input,) = box.all("input")
    assert range_input.attributes["type"] == "range"
    assert range_input.attributes["aria-label"]
    for choice, name in zip(box.all("select"), ("bicubic", "HR"), strict=True):
        assert [option.text for option in choice.all("option")] == list(CROPS)
        assert [option.text for option in choice.all("option") if "selected" in option.attributes] == [name]


@pytest.mark.parametrize(
    ("images", "left", "message"),
    [
        (CROPS, "bilinear", "no crop 'bilinear', there are bicubic, L_contr"),
        ({**CROPS, "SR": png(8, 11)}, "bicubic", "must be of one size"),
        ({**CROPS, "SR": b"GIF89a"}, "bicubic", "expected the bytes of a PNG"),
    ],
)
def test_crops_that_cannot_be_compared(images, left, message):
    with pytest.raises(ValueError, match=message):
        slider(images, title="t", left=left, right="HR")


def test_crops_of_a_report_come_from_their_records(quick):
    """Two methods on one picture and one on another: two sliders, each before the report's first section."""
    made = [("cat", "bicubic", 30.125), ("cat", "PRFFN", 31.5), ("page", "bicubic", 22.0)]
    keys = []
    for n, (image, method, psnr) in enumerate(made):
        crop = base64.b64encode(png(11, 11, n)).decode()
        save_record(quick / "crops", f"k{n}", {
            "key": f"k{n}", "image": image, "scale": 3, "region": [3, 6, 11, 11], "method": method, "png": crop,
            "figures": {"crop": {"psnr_y": psnr, "ssim_y": 0.9}}, "checksum": "of another image",
        })  # fmt: skip
        keys.append(f"k{n}")
    write_report(quick / "fig8_a.json", {"title": "Figure 8", "label": "measured", "profile": "quick", "crops": keys})
    (quick / "fig8_a.md").write_text("# Figure 8\n\nText.\n\n## Conclusion\n")
    write_site("quick")
    page = parsed((quick / "html" / "fig8_a.html").read_text())
    first, second = page.all("section")
    assert first.attributes["aria-label"] == "cat, x3: 11 x 11 pixels from row 3, column 6"
    assert [f.text.split() for f in first.all("figcaption")] == [
        ["bicubic", "30.12", "dB", "/", "0.9000"], ["PRFFN", "31.50", "dB", "/", "0.9000"],
    ]  # fmt: skip
    for n, image in enumerate(first.all("img") + second.all("img")):
        assert base64.b64decode(image.attributes["src"].partition(",")[2]) == png(11, 11, n)
    assert [e.tag for e in page.all("main")[0].children] == ["h1", "p", "section", "section", "h2", "h2", "p"]


def test_hr_is_shown_where_its_image_is_at_hand(quick):
    """A photograph inside the scikit-image wheel, its region cut out by hand; an image that is nowhere has no HR."""
    region = [30, 60, 24, 36]
    shown = picture("chelsea", region, 3)
    for key, image in {"k0": "chelsea", "k1": "Urban100/img_004"}.items():
        save_record(quick / "crops", key, {
            "key": key, "image": image, "scale": 3, "region": region, "method": "bicubic", "checksum": shown.checksum,
            "figures": {"crop": {"psnr_y": 30, "ssim_y": 0.9}}, "png": base64.b64encode(png(24, 36)).decode(),
        })  # fmt: skip
    write_report(
        quick / "fig8_a.json", {"title": "Figure 8", "label": "measured", "profile": "quick", "crops": ["k0", "k1"]}
    )
    (quick / "fig8_a.md").write_text("# Figure 8\n")
    write_site("quick")
    first, second = parsed((quick / "html" / "fig8_a.html").read_text()).all("section")
    assert [option.text for option in first.all("select")[1].all("option")] == ["bicubic", "HR"]
    hr = Image.open(io.BytesIO(base64.b64decode(first.all("img")[1].attributes["src"].partition(",")[2])))
    assert np.array_equal(np.asarray(hr), skimage_data.chelsea()[30:54, 60:96])
    assert [option.text for option in second.all("select")[1].all("option")] == ["bicubic"]
