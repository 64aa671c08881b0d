"""The reports as web pages that need no network: reports/<profile>/html/, each page one file with its figures inside.

Markdown becomes HTML by mistune; text is always escaped, and a browser is told to load nothing from anywhere.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import mistune
from mistune.core import BlockState

from prffn.config import check_profile
from prffn.files import atomic_write, reports_root
from prffn.reporting.overview import (
    VERDICTS,
    benchmarks,
    files,
    heading_of,
    overview,
    page_path,
    read_text,
    reports_of,
    slug,
)
from prffn.reporting.slider import image_html, sliders

STYLE = Path(__file__).parent / "site.css"
SCRIPT = Path(__file__).parent / "site.js"
GENERATOR = '<meta name="generator" content="prffn">'
"""By this line the site knows its own pages in the folder."""


@dataclass(frozen=True)
class Page:
    """A page of the site and the Markdown that it is made of."""

    name: str  # of the HTML file
    title: str
    source: Path  # the Markdown file: what its links are relative to
    markdown: str
    crops: str = ""  # HTML, shown before the first section


def site_folder(profile: str) -> Path:
    """Where the pages of a profile lie."""
    return reports_root() / profile / "html"


def write_site(profile: str) -> Path:
    """Writes all pages of a profile; its own of reports that are gone are removed. Returns the path of the first."""
    folder = site_folder(check_profile(profile))
    pages = pages_of(profile)
    for page in pages:
        with atomic_write(folder / page.name, "w") as file:
            file.write(html_page(page, pages, profile))
    for stale in set(folder.glob("*.html")) - {folder / page.name for page in pages}:
        if GENERATOR.encode() in stale.read_bytes():
            stale.unlink()
    return folder / pages[0].name


def pages_of(profile: str) -> list[Page]:
    """The overview, each report, each benchmark. Raises ValueError if the profile has no reports."""
    index = page_path(profile)
    pages = [Page("index.html", f"Overview of profile {profile}", index, overview(profile))]
    for report in reports_of(profile):
        source = report.file(".md")
        if source.is_file():
            links = files(report, source.parent, page=os.path.relpath(index, source.parent))
            text = f"{read_text(source)}\n## Files\n\n{links}\n"
            pages.append(Page(f"{report.name}.html", report.title, source, text, sliders(report)))
    for source in benchmarks():
        pages.append(Page(f"bench_{source.stem}.html", heading_of(source), source, read_text(source)))
    return pages


def html_page(page: Page, pages: list[Page], profile: str) -> str:
    """A page as HTML, whole in itself: style, script and figures are inside."""
    body = to_html(page, {other.source: other.name for other in pages}, site_folder(profile))
    entries = "".join(f"<li>{_page_link(other, here=other is page)}</li>" for other in pages)
    number = pages.index(page)
    before, after = pages[:number][-1:], pages[number + 1 :][:1]
    turn = "".join(
        [f'<span class="before">&larr; {_page_link(other)}</span>' for other in before]
        + [f'<span class="after">{_page_link(other)} &rarr;</span>' for other in after]
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{GENERATOR}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{escape(page.title)} (prffn, profile {escape(profile)})</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<nav aria-label="All reports">
<a href="{pages[0].name}">prffn, profile {escape(profile)}</a>
<details><summary>All reports</summary><ul>{entries}</ul></details>
</nav>
<main>
{body}</main>
<footer>{turn}</footer>
<script>
{SCRIPT.read_text(encoding="utf-8")}</script>
</body>
</html>
"""


def _page_link(page: Page, here: bool = False) -> str:
    current = ' aria-current="page"' if here else ""
    return f'<a href="{page.name}"{current}>{escape(page.title)}</a>'


def to_html(page: Page, names: Mapping[Path, str], folder: Path) -> str:
    """The page's Markdown as HTML.

    names: of the HTML files, by the Markdown files that they are made of. folder: where the HTML files lie.
    """
    render = mistune.create_markdown(renderer=Html(page.source.parent, names, folder), plugins=["table"])
    first, heading, rest = page.markdown.partition("\n## ")
    return f"{render(first)}{page.crops}{render(heading + rest)}"


class Html(mistune.HTMLRenderer):
    """Links lead to the pages of the site, figures are inside, headings have GitHub's anchors, raw HTML is text.

    Columns of numbers are aligned to the right, verdicts marked.
    """

    def __init__(self, base: Path, names: Mapping[Path, str], folder: Path) -> None:
        super().__init__(escape=True)
        self.base = base
        self.names = {os.path.abspath(path): name for path, name in names.items()}
        self.folder = folder

    def link(self, text: str, url: str, title: str | None = None) -> str:
        path, hash_sign, anchor = url.partition("#")
        if path and ":" not in path:
            target = os.path.abspath(self.base / path)
            path = self.names.get(target) or os.path.relpath(target, os.path.abspath(self.folder)).replace(os.sep, "/")
        return super().link(text, path + hash_sign + anchor, title)

    def image(self, text: str, url: str, title: str | None = None) -> str:
        try:
            return image_html((self.base / url).read_bytes(), mistune.util.unescape(text))
        except ValueError as error:
            raise ValueError(f"{self.base / url}: {error}") from error

    def heading(self, text: str, level: int, **attributes: object) -> str:
        plain = mistune.util.unescape(mistune.util.striptags(text))
        return f'<h{level} id="{escape(slug(plain))}">{text}</h{level}>\n'

    def strong(self, text: str) -> str:
        return f'<strong class="{css_class(text)}">{text}</strong>' if text in VERDICTS else super().strong(text)

    def emphasis(self, text: str) -> str:
        return f'<em class="{css_class(text)}">{text}</em>' if text in VERDICTS else super().emphasis(text)

    def render_token(self, token: dict[str, Any], state: BlockState) -> str:
        if token["type"] == "table":
            head, body = token["children"]
            for column in zip(head["children"], *(row["children"] for row in body["children"]), strict=True):
                filled = [
                    text for cell in column[1:] if (text := "".join(part.get("raw", "?") for part in cell["children"]))
                ]
                if filled and all(NUMBER.fullmatch(text) for text in filled):
                    for cell in column:
                        cell["attrs"]["align"] = "right"
        return super().render_token(token, state)

    def table(self, text: str) -> str:
        return f'<div class="scroll" role="region" aria-label="Table" tabindex="0">\n<table>\n{text}</table>\n</div>\n'

    def table_cell(self, text: str, align: str | None = None, head: bool = False) -> str:
        kind = "number" if align == "right" else "short" if len(mistune.util.striptags(text)) <= SHORT else "long"
        if head:
            return f'  <th scope="col" class="{kind}">{text}</th>\n'
        if text in VERDICTS:
            text = f'<span class="{css_class(text)}">{text}</span>'
        return f'  <td class="{kind}">{text}</td>\n'


NUMBER = re.compile(r"[+-]?[\d,]+(\.\d+)?")
"""What fills a column that is aligned to the right."""

SHORT = 40
"""Characters of a cell that stay on one line: a verdict with its difference and interval is shorter."""


def css_class(verdict: str) -> str:
    """ "does not hold" is "does-not-hold"."""
    return verdict.replace(" ", "-")
