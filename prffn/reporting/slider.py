"""Crops of an image by several methods in a web page, to be compared by moving a divider."""

import base64
import io
from collections.abc import Mapping
from html import escape
from typing import Any

from PIL import Image

from prffn.data.images import open_image
from prffn.data.pictures import picture
from prffn.files import read_record
from prffn.reporting.overview import Report
from prffn.study.crops import to_png


def sliders(report: Report) -> str:
    """HTML: a slider for each picture that a report shows crops of, from their records. Empty where it shows none.

    HR is among the crops where its image is at hand.
    """
    pictures: dict[str, dict[str, dict[str, Any]]] = {}
    for key in report.content.get("crops", []):
        record = read_record(report.path.parent / "crops" / f"{key}.json")
        top, left, height, width = record["region"]
        title = f"{record['image']}, x{record['scale']}: {height} x {width} pixels from row {top}, column {left}"
        pictures.setdefault(title, {})[record["method"]] = record
    return "".join(
        slider(
            {method: base64.b64decode(record["png"]) for method, record in records.items()}
            | _hr(next(iter(records.values()))),
            title=title,
            left=next(iter(records)),
            right=list(records)[-1],
            notes={method: _note(record) for method, record in records.items()},
        )
        for title, records in pictures.items()
    )


def _hr(record: Mapping[str, Any]) -> dict[str, bytes]:
    """The crop of the HR image; none where the image that the record was made of is not at hand."""
    try:
        found = picture(record["image"], record["region"], record["scale"])
    except (FileNotFoundError, ValueError):
        return {}
    return {"HR": base64.b64decode(to_png(found.crop(found.hr)))} if found.checksum == record["checksum"] else {}


def _note(record: Mapping[str, Any]) -> str:
    """PSNR-Y and SSIM-Y of the crop."""
    figures = record["figures"]["crop"]
    return f"{figures['psnr_y']:.2f} dB / {figures['ssim_y']:.4f}"


def image_html(png: bytes, alt: str) -> str:
    """An image that is inside the page, of the size in print that a figure asks for. ValueError if it is not a PNG."""
    image = open_png(png)
    dots = image.info.get("dpi", (CSS_DPI, CSS_DPI))[0]
    width, height = (round(length * CSS_DPI / dots) for length in image.size)
    data = base64.b64encode(png).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}" width="{width}" height="{height}">'


CSS_DPI = 96
"""A pixel of CSS is 1/96 of an inch."""


def open_png(png: bytes) -> Image.Image:
    """The image, not yet decoded. Raises ValueError if the bytes are not a PNG."""
    try:
        return open_image(io.BytesIO(png), ("PNG",))
    except OSError as error:
        raise ValueError(f"expected the bytes of a PNG, got {png[:8]!r}...") from error


def slider(
    images: Mapping[str, bytes], *, title: str, left: str, right: str, notes: Mapping[str, str] | None = None
) -> str:
    """Crops of one place side by side, and, where scripts run, two of them above each other with a divider to move.

    images: PNGs by what they show, such as "bicubic", "L_contr", "HR". left, right: the two to begin with; a reader can
    choose others. In print and without scripts the crops stand side by side. notes: what stands under a crop beside its
    name. Raises ValueError if one is no PNG, if their sizes differ, or if `left` or `right` is not among them.
    """
    for name in (left, right):
        if name not in images:
            raise ValueError(f"{title}: no crop {name!r}, there are {', '.join(images)}")
    sizes = {name: open_png(png).size for name, png in images.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{title}: the crops must be of one size to be compared, got {sizes}")
    strip = "\n".join(
        f"<figure>{image_html(png, f'{title}: {name}')}"
        f"<figcaption><b>{escape(name)}</b> {escape((notes or {}).get(name, ''))}</figcaption></figure>"
        for name, png in images.items()
    )
    return f"""<section class="crops" aria-label="{escape(title)}">
<h3>{escape(title)}</h3>
<div class="slider" hidden>
<div class="choice">
<label>left {_choice(images, left)}</label>
<label>right {_choice(images, right)}</label>
</div>
<div class="stack" aria-hidden="true"><div class="right"></div><div class="left"></div></div>
<input type="range" min="0" max="100" value="50" step="1" aria-label="{escape(title)}: where the left image ends">
</div>
<div class="strip">
{strip}
</div>
</section>
"""


def _choice(names: Mapping[str, bytes], chosen: str) -> str:
    options = "".join(f"<option{' selected' if name == chosen else ''}>{escape(name)}</option>" for name in names)
    return f"<select>{options}</select>"
