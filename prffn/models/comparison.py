"""Parameters and multi-adds of all rows of Table 8, counted and printed, side by side."""

from dataclasses import dataclass

import torch

from prffn import paper
from prffn.files import from_extra
from prffn.models import build
from prffn.models.complexity import multi_adds, parameters

with from_extra("kit"):
    import pandas as pd

PARAMETER_BOUND = 1.0
"""Per cent by which parameters may differ from the printed figure; or they round to it (FSRCNN: 12.8 K, printed 13)."""

MULTI_ADDS_BOUND = 2.0  # per cent by which multi-adds may differ from the printed figure


@dataclass(frozen=True)
class Unmet:
    """A printed figure that the network cannot meet: by how many per cent the count is off, and why."""

    deviation: float
    reason: str


_MSRN = "the printed multi-adds are those of the authors' first, Y-only network, with one upsampling step"
_PRFFN = "the printed multi-adds do not agree with the printed parameters for any structure found"
_SEANET = "7471 K is about the authors' network at x3 (7477 K), 7397 K at x4 (7403 K); the multi-adds are as printed"

UNMET: dict[tuple[str, int, str], Unmet] = {
    ("FSRCNN", 3, "flops_g"): Unmet(8.6, "4.6 G repeats the x4 figure; with 1.8 times as many LR pixels it is 5.0 G"),
    ("ACAN", 2, "flops_g"): Unmet(9.1, "2108.0 G fits 16.2 uses of each recursive weight, x3 and x4 fit 17.7"),
    ("MSRN", 2, "params_k"): Unmet(-2.4, "6078 K, printed at every scale, is the x4 count; x2's upsampler is smaller"),
    ("MSRN", 4, "flops_g"): Unmet(3.2, _MSRN),
    ("SeaNet", 2, "params_k"): Unmet(-4.9, _SEANET),
    ("SeaNet", 3, "params_k"): Unmet(1.1, _SEANET),
    ("PRFFN", 2, "flops_g"): Unmet(4.1, _PRFFN),
    ("PRFFN", 3, "flops_g"): Unmet(3.6, _PRFFN),
    ("PRFFN", 4, "flops_g"): Unmet(2.9, _PRFFN),
}
"""By method, scale and column: all figures beyond the bounds. The tests check that there are no others, nor fewer."""

REMARKS = {
    "FSRCNN": "its transposed conv counted at the output's positions; 12.8 K parameters, printed as 13",
    "SMSR": "multi-adds of the dense network; what the masks skip depends on the image: published 41 / 33 / 27 % "
    "less at x2 / x3 / x4, measured with the authors' x2 checkpoint on Set5 50 % less",
    "ACAN": "structure inferred from these counts and the abstract",
    "DRCN": "works on the bicubic-upscaled image: the same multi-adds at every scale",
    "CARN": "parameters with the upsamplers of all three scales",
    "MSRN": "the RGB network of the authors' code; printed are parameters of it at x4 and multi-adds of a Y-only one",
}
"""What else a reader of a method's rows should know."""


def table8_complexity() -> pd.DataFrame:
    """A row for each scale and method of Table 8, in its order.

    params_k, flops_g: our count, in thousands and in 10^9 multi-adds, and *_printed beside them; met: whether both are
    within the bounds; note: which figure is not and why, and remarks.
    """
    rows = []
    for row in paper.table(8).itertuples():
        with torch.device("meta"):  # only shapes matter
            model = build(row.method, row.scale)
        own = {"params_k": parameters(model) / 1e3, "flops_g": multi_adds(model, row.scale) / 1e9}
        printed = {figure: float(getattr(row, figure)) for figure in own}
        rows.append(
            {"scale": row.scale, "method": row.method}
            | own
            | {f"{figure}_printed": value for figure, value in printed.items()}
            | {"met": all(is_met(figure, own[figure], printed[figure]) for figure in own)}
            | {"note": note(row.method, row.scale)}
        )
    return pd.DataFrame(rows)


def is_met(figure: str, own: float, printed: float) -> bool:
    """Whether a count is within the bound of its column, or rounds to the printed whole number of thousands."""
    bound, rounding = (PARAMETER_BOUND, 0.5) if figure == "params_k" else (MULTI_ADDS_BOUND, 0)
    return abs(own - printed) <= max(bound / 100 * printed, rounding)


def note(method: str, scale: int) -> str:
    """The note of a row: what is not met, then the remark on the method."""
    names = {"params_k": "parameters", "flops_g": "multi-adds"}
    unmet = [(name, UNMET[key]) for figure, name in names.items() if (key := (method, scale, figure)) in UNMET]
    texts = [f"{name} {found.deviation:+.1f} %: {found.reason}" for name, found in unmet]
    return "; ".join([*texts, *([REMARKS[method]] if method in REMARKS else [])])
