"""Figures 7 to 10 as people read them: the table beside the crops, its conclusion, provenance, files."""

from collections.abc import Mapping, Sequence, Sized
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from prffn.reporting.crop_plots import DPI
from prffn.reporting.report import keys_of, rows_of, write_report
from prffn.reporting.tables import markdown, provenance_table, side_by_side, where_made  # fmt: skip
from prffn.study.claims import LABELS, answer, conclusion, judged
from prffn.study.crops import BICUBIC, Crops, of_seed
from prffn.study.runs import Runs

LABEL = (
    "measured here from the weights that the table names, not a reproduction: no figures of the paper's crops can be "
    "read, and what it prints are averages over whole sets (Table 8)"
)
"""What the numbers of Figures 8 to 10 may be called."""


def crop_table(pictures: Sequence[Crops]) -> pd.DataFrame:
    """A row for each image and method: whose weights, parameters (K), PSNR-Y (dB) and SSIM-Y of crop and whole image.

    `gain` is the crop's PSNR-Y less bicubic's.
    """
    rows = []
    for crops in pictures:
        bicubic = crops.figures("crop")[BICUBIC]
        for method, record in crops.items():
            crop, image = record["figures"]["crop"], record["figures"]["image"]
            rows.append({
                "image": f"{crops.picture.name} x{crops.picture.scale}", "method": method,
                "weights": record["origin"], "parameters (K)": record["parameters"] / 1e3,
                "crop PSNR": crop["psnr_y"], "gain": crop["psnr_y"] - bicubic, "crop SSIM": crop["ssim_y"],
                "image PSNR": image["psnr_y"], "image SSIM": image["ssim_y"],
            })  # fmt: skip
    return pd.DataFrame(rows).set_index(["image", "method"])


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `crop_table` with the field's number of decimals."""
    text = table.assign(
        **{"parameters (K)": table["parameters (K)"].map("{:.0f}".format), "gain": table["gain"].map("{:+.2f}".format)},
        **{f"{part} PSNR": table[f"{part} PSNR"].map("{:.2f}".format) for part in ("crop", "image")},
        **{f"{part} SSIM": table[f"{part} SSIM"].map("{:.4f}".format) for part in ("crop", "image")},
    )
    text.loc[(slice(None), BICUBIC), ["parameters (K)", "gain"]] = ""
    return text


def answer_crops(pictures: Sequence[Crops]) -> str:
    """Whether PRFFN comes nearest to HR, as the paper says, and which network does, in one sentence. In Markdown."""
    found = [
        f"{_prffn(crops)}; highest PSNR-Y on {crops.picture.name} x{crops.picture.scale}: {_highest(crops, 'crop')}"
        for crops in pictures
    ]
    return f"**PRFFN's crop is the nearest to HR: {'. '.join(found)}.**"


def crop_conclusion(pictures: Sequence[Crops]) -> str:
    """Which method comes nearest to HR on each crop and image, and whether that is PRFFN, as the paper says."""
    lines = []
    for crops in pictures:
        shown = crops.picture
        top, left, height, width = shown.region
        ssim = {part: crops.figures(part, "ssim_y") for part in ("crop", "image")}
        first = {part: max(found, key=found.__getitem__) for part, found in ssim.items()}
        best = {
            part: f"highest PSNR-Y {_highest(crops, part)}; highest SSIM-Y {first[part]}, {found[first[part]]:.4f}"
            for part, found in ssim.items()
        }
        lines.append(
            f"{shown.name} x{shown.scale}, {height} x {width} pixels from row {top}, column {left}. "
            f"Of the crop: {best['crop']}. Of the whole image: {best['image']}. "
            f"That PRFFN is nearest to HR: {_prffn(crops)}."
        )
    lines.append(
        "A crop shows what a network makes of one structure. It does not rank networks: the sets of Table 8 do."
    )
    return "\n\n".join(lines)


def _highest(crops: Crops, part: str) -> str:
    """The method with the highest PSNR-Y: "CARN-M, 21.50 dB, 1.50 dB above bicubic"."""
    psnr = crops.figures(part)
    first = max(psnr, key=psnr.__getitem__)
    above = "" if first == BICUBIC else f", {psnr[first] - psnr[BICUBIC]:.2f} dB above bicubic"
    return f"{first}, {psnr[first]:.2f} dB{above}"


def _prffn(crops: Crops) -> str:
    """The verdict on PSNR of this one crop; only PRFFN of the paper's size can bear out what the paper says of it."""
    if "PRFFN" not in crops:
        return "not decided, no PRFFN of the paper's size is there"
    psnr = crops.figures("crop")
    others = [value for method, value in psnr.items() if method not in ("PRFFN", BICUBIC)]
    if not others:
        return "not decided, there is no other network"
    return f"{'holds' if psnr['PRFFN'] > max(others) else 'does not hold'} on this crop"


def compare_losses(crops: Crops, claims: Mapping[str, tuple[str, str]], runs: Mapping[str, Sized]) -> pd.DataFrame:
    """Each claim "the first loss gives a higher PSNR-Y than the second": its verdict on the crop and on the image.

    As `claims_greater`: the paired 95 % interval decides, over the seeds that the runs of both have.
    """
    rows = []
    for text, labels in claims.items():
        for part, where in {"crop": "the crop", "image": "the whole image"}.items():
            psnr = crops.figures(part)
            names = [[of_seed(label, seed) for seed in range(len(runs[label]))] for label in labels]
            measured = all(group and set(group) <= psnr.keys() for group in names)
            first, second = ([psnr[name] for name in group] if measured else None for group in names)
            rows.append({"claim": text, "set": where, **judged(first, second, digits=3)})
    return pd.DataFrame(rows).set_index(["claim", "set"])


def crop_provenance(pictures: Sequence[Crops], runs: Runs | None = None) -> pd.DataFrame:
    """What was shown, and made where and how, read off the records; a second column for what was trained for it."""
    shown = [crops.picture for crops in pictures]
    values = {
        "image": [p.name for p in shown],
        "SHA-256 of its size and pixels": [p.checksum[:12] for p in shown],
        "HR pixels (height x width)": [f"{p.hr.shape[0]} x {p.hr.shape[1]}" for p in shown],
        "region (top, left, height, width)": [str(list(p.region)) for p in shown],
        "scale": [f"x{p.scale}" for p in shown],
    }
    of_crops = {"profile": pictures[0].profile}
    of_crops |= {name: ", ".join(dict.fromkeys(found)) for name, found in values.items()}
    made = where_made([record for crops in pictures for record in crops.values()])
    return side_by_side({"crops": of_crops | made, **({"training": provenance_table(runs)["value"]} if runs else {})})


def save_crops(
    name: str,
    pictures: Sequence[Crops],
    figure: Figure,
    *,
    title: str,
    runs: Runs | None = None,
    verdicts: pd.DataFrame | None = None,
) -> str:
    """Writes the report of crops. Returns its path from the reports' root.

    runs, verdicts: of trainings that were made for the figure, and from `compare_losses`.
    """
    profile, table, text = pictures[0].profile, crop_table(pictures), crop_conclusion(pictures)
    label = LABEL if runs is None else LABELS[profile]
    content: dict[str, Any] = {"answer": answer_crops(pictures)}
    if runs is not None and verdicts is not None:
        text = conclusion(runs, verdicts)
        content["answer"] = answer(runs, verdicts)
        content["verdicts"] = rows_of(verdicts)
        content["runs"] = keys_of(runs)
    missing = dict.fromkeys(method for crops in pictures for method in crops.missing)
    return write_report(
        name, profile, title=title, label=label, table=table.round(4), figure=figure, dpi=DPI,
        provenance=crop_provenance(pictures, runs),
        sections=[
            f"All figures: {label}.",
            f"![{title}]({name}.png)",
            "PSNR-Y in dB and SSIM-Y of the crop, nothing shaved off; the best ones are bold. `gain`: the crop's "
            "PSNR-Y less bicubic's. Whole image: by the kit's protocol.",
            markdown(readable(table)),
            *([f"Weights missing, and left out: {', '.join(missing)}."] if missing else []),
            "## Conclusion",
            text,
            *([markdown(verdicts)] if verdicts is not None else []),
        ],
        crops=[record["key"] for crops in pictures for record in crops.values()],
        missing={crops.picture.name: crops.missing for crops in pictures},
        **content,
    )  # fmt: skip
