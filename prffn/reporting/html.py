"""The executed notebooks and the overview as web pages: reports/<profile>/html/. A page loads nothing from anywhere."""

import base64
import io
import os
from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template

from prffn.config import check_profile
from prffn.files import RECORDED, atomic_write, checkout, from_extra, reports_root
from prffn.reporting.overview import overview, page_path, slug

with from_extra("kit"):
    import mistune
    from matplotlib.mathtext import math_to_image
    from mistune.util import striptags, unescape
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
    from pygments.formatters import HtmlFormatter

PAGE = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))


def write_site(profile: str) -> Path:
    """Write a page for each executed notebook of a profile, and index.html, the overview. Returns the latter's path.

    Pages of notebooks that are gone are removed. Raises ValueError if the profile has no reports, or naming the
    notebook that cannot be read.
    """
    index, folder = page_path(check_profile(profile)), reports_root() / profile / "html"
    notebooks = sorted((checkout() / "notebooks" if profile == RECORDED else reports_root() / profile).glob("*.ipynb"))
    names = [path.stem for path in notebooks]
    renderer = Renderer(index.parent, folder, names, escape=True)
    bodies = {"index": MarkdownWithMath(renderer).render(overview(profile))}
    bodies |= {path.stem: notebook_html(path, folder, names) for path in notebooks}
    links = "\n".join(f'<a href="{escape(name)}.html">{escape(name)}</a>' for name in bodies)
    highlighting = HtmlFormatter().get_style_defs(".highlight")
    for name, body in bodies.items():
        with atomic_write(folder / f"{name}.html", "w") as file:
            title = f"{escape(name)} (prffn, {profile})"
            file.write(PAGE.substitute(title=title, highlighting=highlighting, links=links, body=body))
    for stale in set(folder.glob("*.html")) - {folder / f"{name}.html" for name in bodies}:
        stale.unlink()
    return folder / "index.html"


def notebook_html(path: Path, folder: Path, names: Iterable[str]) -> str:
    """Return an executed notebook's cells as HTML without a head. Raises ValueError if it cannot be read."""
    text = MarkdownWithMath(Renderer(path.parent, folder, names, escape=False))
    exporter = HTMLExporter(
        template_name="basic", filters={"markdown2html": text.render}, embed_images=True,
        exclude_input_prompt=True, exclude_output_prompt=True,
    )  # fmt: skip
    try:
        return exporter.from_filename(str(path))[0]
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a notebook: run it again") from error


class Renderer(IPythonRenderer):
    """Markdown to HTML: a link to a notebook leads to its page, mathematics is an image (MathJax needs a network).

    source: the folder that links in the Markdown are relative to. folder: where the pages stand. names: of the pages.
    Images are put inside the page. escape: whether HTML in the text is shown as text; if not, it stays HTML.
    """

    def __init__(self, source: Path, folder: Path, names: Iterable[str], *, escape: bool) -> None:
        super().__init__(
            escape, allow_harmful_protocols=False, embed_images=not escape, exclude_anchor_links=True, path=str(source)
        )
        self.source, self.folder, self.names = source, folder, set(names)

    def link(self, text: str, url: str, title: str | None = None) -> str:
        path, hash_sign, anchor = url.partition("#")
        if path and ":" not in path:
            to_page = path.endswith(".ipynb") and Path(path).stem in self.names
            path = f"{Path(path).stem}.html" if to_page else os.path.relpath(self.source / path, self.folder)
        return super().link(text, path.replace(os.sep, "/") + hash_sign + anchor, title)

    def image(self, text: str, url: str, title: str | None = None) -> str:
        if (file := self.source / url).suffix == ".png" and file.is_file():
            url = f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
        return mistune.HTMLRenderer.image(self, text, url, title)

    def heading(self, text: str, level: int, **attributes: object) -> str:
        return mistune.HTMLRenderer.heading(self, text, level, id=slug(unescape(striptags(text))))

    def inline_math(self, body: str) -> str:
        image = io.BytesIO()
        try:
            depth = math_to_image(f"${body}$", image, format="svg")
        except ValueError:  # TeX that matplotlib cannot set stays readable as it was written
            return f"<code>{escape(body)}</code>"
        data = base64.b64encode(image.getvalue()).decode()
        return f'<img alt="{escape(body)}" style="vertical-align: -{depth}pt" src="data:image/svg+xml;base64,{data}">'

    def block_math(self, body: str) -> str:
        return f"<p>{self.inline_math(' '.join(body.split()))}</p>\n"
