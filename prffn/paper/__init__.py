"""The numbers printed in the paper, and what is doubtful about some of them.

Zhou, Liu, Liu: Pixel-wise contrastive learning for single image super-resolution, Acta Automatica Sinica 50(1), 2024.
The tables are transcribed in paper/*.csv.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

TABLES = {
    1: "table1_ablation", 2: "table2_losses", 3: "table3_lambda_c", 4: "table4_generality", 5: "table5_region_size",
    6: "table6_memory_time", 7: "table7_dilation", 8: "table8_benchmark",
}  # fmt: skip


@dataclass(frozen=True)
class Doubt:
    """A printed figure that is almost certainly a slip, or that contradicts another."""

    table: int
    where: str
    printed: str
    note: str


DOUBTS = (
    Doubt(6, "text", "21 % of memory and 11 % of time for S = 64",
          "the printed figures give 26.4 % and 13.1 % over the plain run; 21 % and 11.6 % are of the larger run"),
    Doubt(8, "CARN, x3, Urban100", "27.38 / 0.8493", "CARN's authors publish 28.06 / 0.8493"),
    Doubt(8, "CARN, parameters", "1592 K", "counts the upsamplers of all three scales"),
    Doubt(8, "PRFFN, x2, parameters", "2988 K",
          "almost certainly 2983: x3 minus x2 is 184,640 for any 64-channel sub-pixel upsampler"),
    Doubt(8, "PRFFN, multi-adds", "656.4, 312.5, 200.1 G",
          "do not agree with the printed parameters for any structure found: the kit's count is 683.2, 323.7, 206.0 G"),
    Doubt(8, "FSRCNN, x3, multi-adds", "4.6 G", "repeats the x4 figure; the network has 5.0 G at x3"),
    Doubt(8, "ACAN, x2, multi-adds", "2108.0 G",
          "does not fit 1051.7 and 616.5 G at x3 and x4: by the printed parameters those use each weight 17.7 times, "
          "this one 16.2"),
    Doubt(8, "MSRN, parameters and multi-adds", "6078 K at every scale; 1356.8, 621.2, 365.1 G",
          "6078 K is the authors' RGB network at x4; the multi-adds are those of their first, Y-only network"),
    Doubt(8, "SeaNet, parameters", "7471, 7397, 7397 K",
          "the authors' network has 7108, 7477, 7403 K: the x3 figure is printed at x2, the x4 figure at x3 and x4"),
    Doubt(8, "DRCN, multi-adds", "17974.0 G at every scale", "its input is the bicubic-upsampled image"),
)  # fmt: skip


def table(number: int) -> pd.DataFrame:
    """A printed table, 1 to 8, as transcribed. Raises ValueError for another number."""
    if number not in TABLES:
        raise ValueError(f"the paper has tables 1 to 8, got {number!r}")
    return pd.read_csv(Path(__file__).parent / f"{TABLES[number]}.csv")


def doubts(number: int) -> list[Doubt]:
    """What is doubtful in a printed table."""
    return [doubt for doubt in DOUBTS if doubt.table == number]


def region_size_psnr() -> dict[str, float]:
    """Table 5: PSNR in dB on DIV2K_val5, x3, for each region size; L_1 alone is the first row of Table 2."""
    losses, sizes = table(2), table(5)
    return {
        "no L_contr": float(losses.psnr_db[0]),
        **{f"S = {s}": float(psnr) for s, psnr in zip(sizes.s, sizes.psnr_db, strict=True)},
    }


def memory_and_time() -> pd.DataFrame:
    """Table 6 by label: memory in MB, and time in seconds of 10 epochs, of the paper's GPU."""
    printed = table(6)
    labels = ["no L_contr" if not row.l_contr else f"S = {row.s:.0f}" for row in printed.itertuples()]
    return printed[["memory_mb", "time_s"]].set_axis(labels)


def lambda_psnr() -> pd.Series:
    """Table 3: PSNR in dB on DIV2K_val5, x3, S = 64, by lambda_c."""
    printed = table(3)
    return pd.Series(printed.psnr_db.to_numpy(), index=[f"lambda_c = {value:g}" for value in printed.lambda_c])


def ablation_psnr() -> dict[str, float]:
    """Table 1: PSNR in dB on DIV2K_val5, x3, by model; "PRFFN" is PRFFN3 trained with L_contr."""
    return _by_label(table(1).model, table(1).psnr_db)


LOSSES = {"l1": "L_1", "l_perc": "L_perc", "l_csd": "L_CSD", "l_contr": "L_contr"}
"""The losses of Table 2 by the names of its columns."""


def losses(metric: str) -> dict[str, float]:
    """Table 2 by label, such as "L_1 + L_contr": "psnr_db", dB on DIV2K_val5, x3, or "lpips", lower is better."""
    printed = table(2)
    labels = [" + ".join(name for column, name in LOSSES.items() if row[column]) for _, row in printed.iterrows()]
    return _by_label(labels, printed[metric])


def generality(metric: str) -> dict[str, float]:
    """Table 4 by label, such as "RCAN" and "RCAN + L_contr": "psnr_db", dB on DIV2K_val5, x3, or "ssim"."""
    printed = table(4)
    labels = [f"{row.model} + L_contr" if row.l_contr else row.model for row in printed.itertuples()]
    return _by_label(labels, printed[metric])


def dilation_psnr() -> dict[str, float]:
    """Table 7: PSNR in dB on DIV2K_val5, x3, by dilation rates, such as "rates 1, 2, 4"."""
    printed = table(7)
    return _by_label([f"rates {rates.replace(',', ', ')}" for rates in printed.dilation_rates], printed.psnr_db)


def _by_label(labels: Iterable[str], values: Iterable[float]) -> dict[str, float]:
    return {label: float(value) for label, value in zip(labels, values, strict=True)}
