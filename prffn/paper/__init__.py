"""The numbers printed in the paper, and what is doubtful about some of them.

Zhou, Liu, Liu: Pixel-wise contrastive learning for single image super-resolution, Acta Automatica Sinica 50(1), 2024.
The tables are transcribed in table*.csv. doubts.csv lists printed figures that are almost certainly slips, or that
contradict others.
"""

from pathlib import Path

from prffn.files import from_extra

with from_extra("kit"):
    import pandas as pd

LOSSES = {"l1": "L_1", "l_perc": "L_perc", "l_csd": "L_CSD", "l_contr": "L_contr"}
"""The losses of Table 2 by the names of its columns."""


def table(number: int) -> pd.DataFrame:
    """A printed table, 1 to 8, as transcribed. Raises ValueError for another number."""
    for path in Path(__file__).parent.glob(f"table{number}_*.csv"):
        return pd.read_csv(path)
    raise ValueError(f"the paper has tables 1 to 8, got {number!r}")


def doubts(number: int) -> pd.DataFrame:
    """What is doubtful in a printed table, and why, by the place."""
    found = pd.read_csv(Path(__file__).parent / "doubts.csv", index_col="where")
    return found[found.table == number][["printed", "note"]]


def region_size_psnr() -> dict[str, float]:
    """Table 5: PSNR in dB on DIV2K_val5, x3, for each region size; L_1 alone is the first row of Table 2."""
    return {"no L_contr": float(table(2).psnr_db[0])} | _by_label(table(5).psnr_db, "S = " + table(5).s.astype(str))


def memory_and_time() -> pd.DataFrame:
    """Table 6 by label: memory in MB, and time in seconds of 10 epochs, of the paper's GPU."""
    printed = table(6)
    labels = ["no L_contr" if not row.l_contr else f"S = {row.s:.0f}" for row in printed.itertuples()]
    return printed[["memory_mb", "time_s"]].set_axis(labels)


def lambda_psnr() -> pd.Series:
    """Table 3: PSNR in dB on DIV2K_val5, x3, S = 64, by lambda_c."""
    return table(3).set_index("lambda_c").psnr_db.rename("lambda_c = {:g}".format).rename_axis(None).rename(None)


def ablation_psnr() -> dict[str, float]:
    """Table 1: PSNR in dB on DIV2K_val5, x3, by model; "PRFFN" is PRFFN3 trained with L_contr."""
    return _by_label(table(1).psnr_db, table(1).model)


def losses(metric: str) -> dict[str, float]:
    """Table 2 by label, such as "L_1 + L_contr": "psnr_db", dB on DIV2K_val5, x3, or "lpips", lower is better."""
    printed = table(2)
    labels = [" + ".join(name for column, name in LOSSES.items() if row[column]) for _, row in printed.iterrows()]
    return _by_label(printed[metric], labels)


def generality(metric: str) -> dict[str, float]:
    """Table 4 by label, such as "RCAN" and "RCAN + L_contr": "psnr_db", dB on DIV2K_val5, x3, or "ssim"."""
    printed = table(4)
    return _by_label(printed[metric], printed.model + printed.l_contr.map({0: "", 1: " + L_contr"}))


def dilation_psnr() -> dict[str, float]:
    """Table 7: PSNR in dB on DIV2K_val5, x3, by dilation rates, such as "rates 1, 2, 4"."""
    return _by_label(table(7).psnr_db, "rates " + table(7).dilation_rates.str.replace(",", ", "))


def _by_label(values: pd.Series, labels: "pd.Series | list[str]") -> dict[str, float]:
    return dict(zip(labels, values.astype(float), strict=True))
