"""How the printed counts pin the network down: what its parts and other structures cost beside the printed figures.

Parameters are printed in K = 1000 and multi-adds in G = 1e9, for a 1280 x 720 output.
"""

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn

from prffn import paper
from prffn.files import reports_root
from prffn.models import PRFFN
from prffn.models.complexity import OUTPUT_720P, multi_adds, parameters
from prffn.models.pretrained import SCALES
from prffn.reporting.candidates import BLOCKS, KIT_SAFB, X2_SAFB, C, Conv, cost, safb_candidates
from prffn.reporting.report import write_report
from prffn.reporting.tables import markdown

LABEL = "counted here, exact: nothing was trained or timed"
DIAGRAM = Path(__file__).parent / "prffn.svg"  # of the network: what is printed, what is inferred here, our choices


def fits(k: Iterable[float], printed: Iterable[float]) -> str:
    """How thousands of parameters can have become the printed K: all "rounded", all "cut off", either, or "no"."""
    pairs = list(zip(k, printed, strict=True))
    ways = {
        "rounded": all(round(n) == whole for n, whole in pairs),
        "cut off": all(n // 1 == whole for n, whole in pairs),
    }
    return ", ".join(way for way, met in ways.items() if met) or "no"


def beside(candidates: Mapping[str, int], variant: str) -> pd.DataFrame:
    """Parameters by candidate beside the printed ones of a variant of Table 1, nearest first."""
    printed = float(paper.table(1).set_index("model").params_k[variant])
    table = pd.DataFrame({"parameters": candidates, "printed (K)": printed})
    table["off (K)"] = (table["parameters"] / 1000 - printed).round(3)
    table["fits"] = [fits([count / 1000], [printed]) for count in table["parameters"]]
    return table.sort_values("off (K)", key=abs, kind="stable")


def printed(column: str) -> pd.Series:
    """A column of PRFFN in Table 8, by scale."""
    return paper.table(8).query("method == 'PRFFN'").set_index("scale")[column].astype(float)


def safb_window() -> pd.DataFrame:
    """The fewest and the most parameters that a SAFB may have, if the printed totals were rounded or cut off.

    The last row is for x3 and x4 together: the 2988 K of x2 are doubtful (paper.DOUBTS).
    """
    table = printed("params_k").to_frame("printed (K)")
    plain = [parameters(PRFFN(scale, variant="PRFFN0")) for scale in SCALES]
    for way, low, high in (("rounded", -500, 499), ("cut off", 0, 999)):
        table[f"{way}, from"] = -(-(1000 * table["printed (K)"] + low - plain) // BLOCKS)
        table[f"{way}, to"] = (1000 * table["printed (K)"] + high - plain) // BLOCKS
    both = table.loc[[3, 4]]
    table.loc["both"] = both.max().where(both.columns.str.contains("from"), both.min())
    table.loc["both", "printed (K)"] = float("nan")
    return table.set_axis(["x2", "x3", "x4", "x3 and x4"]).convert_dtypes()


def bias_adds(model: nn.Module, scale: int) -> int:
    """Additions of biases for a 1280 x 720 output: one for each value that a convolution with a bias returns."""
    counts: list[int] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            module.register_forward_hook(lambda _module, _inputs, output: counts.append(output.numel()))
    model(torch.empty(1, 3, *(round(n / scale) for n in OUTPUT_720P), device="meta"))
    return sum(counts)


def safb_table(*, biases: bool = True) -> pd.DataFrame:
    """Each candidate for SAFB beside the printed parameters and multi-adds of PRFFN, nearest in parameters first.

    "off (K)" is the largest distance over x3 and x4 (the printed x2 is doubtful), "off (G)" over all scales. MRCAB's
    branches are counted once; `biases` says whether multi-adds count biases.
    """
    family = safb_candidates()
    one = pd.Series({name: cost(*convs) for name, convs in family.items()}, name="one SAFB")
    adds = one if biases else pd.Series({name: sum(c.weights for c in convs) for name, convs in family.items()})
    k, g = pd.DataFrame(), pd.DataFrame()
    for scale in SCALES:
        plain, positions = PRFFN(scale, variant="PRFFN0").to("meta"), math.prod(round(n / scale) for n in OUTPUT_720P)
        work = multi_adds(plain, scale) + (bias_adds(plain, scale) if biases else 0)
        k[scale] = (parameters(plain) + BLOCKS * one) / 1000
        g[scale] = (work + BLOCKS * positions * adds) / 1e9
    in_print = printed("params_k")[[3, 4]]
    k_off, g_off = (k[[3, 4]] - in_print).abs(), (g - printed("flops_g")).abs()
    fit = [fits(row, in_print) for row in k[[3, 4]].to_numpy()]
    columns = [
        one,
        k.rename(columns="x{} (K)".format),
        k_off.max(axis=1).rename("off (K)"),
        pd.Series(fit, index=one.index, name="fits x3 and x4"),
        g.round(1).rename(columns="x{} (G)".format),
        g_off.max(axis=1).rename("off (G)"),
    ]
    return pd.concat(columns, axis=1).sort_values("off (K)", kind="stable").rename_axis("candidate")


def mrcab_table() -> pd.DataFrame:
    """PRFFN3 with one weight shared by MRCAB's branches or one each: parameters at x3 and multi-adds beside the print.

    Counted in the kit's network (shared) and by arithmetic from there (separate).
    """
    k = parameters(PRFFN(3))
    once, computed = (
        [round(multi_adds(PRFFN(scale), scale, repeats=repeats) / 1e9, 1) for scale in SCALES]
        for repeats in (False, True)
    )
    rows = {
        "printed": [printed("params_k")[3], *printed("flops_g")],
        "shared weight, counted once": [k / 1000, *once],
        "shared weight, all branches": [k / 1000, *computed],
        "separate weights": [(k + BLOCKS * 2 * cost(Conv(C, C))) / 1000, *computed],
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["x3 (K)", *(f"x{scale} (G)" for scale in SCALES)])


def run_times() -> pd.DataFrame:
    """Printed run times over printed multi-adds at x2 (Table 8), and PRFFN's if all its branches are counted.

    The two further branches of each MRCAB are added to PRFFN's printed multi-adds. Fewest ms a G first.
    """
    table = paper.table(8).query("scale == 2").set_index("method")[["params_k", "flops_g", "runtime_ms"]].dropna()
    table = table.set_axis(["params (K)", "G", "ms"], axis=1)
    further = BLOCKS * 2 * Conv(C, C).weights * math.prod(OUTPUT_720P) // 4
    table.loc["PRFFN, all branches"] = table.loc["PRFFN"] + [0, round(further / 1e9, 1), 0]
    return table.assign(**{"ms a G": (table["ms"] / table["G"]).round(2)}).sort_values("ms a G")


def ablation() -> pd.DataFrame:
    """Table 1 at x3: printed parameters, those of the kit's networks, and what each step adds."""
    table = pd.concat(
        beside({name: parameters(PRFFN(3, variant=name))}, name) for name in ("PRFFN0", "PRFFN1", "PRFFN2", "PRFFN3")
    )
    table = table.rename(columns={"parameters": "counted"})[["printed (K)", "counted", "off (K)", "fits"]]
    for column, step in (("printed (K)", "step, printed (K)"), ("counted", "step, counted")):
        table[step] = [""] + [f"{change:+,.0f}" for change in table[column].diff()[1:]]
    return table


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Any table of this module as people read it: the decimals that its figures have, thousands set off."""
    known = {"printed (K)": 0, "params (K)": 0, "ms": 0, "ms a G": 2, "G": 1, "off (G)": 2}

    def cell(value: Any, name: str) -> str:
        if isinstance(value, str) or pd.isna(value):
            return value if isinstance(value, str) else ""
        return f"{value:,.{known.get(name, 1 if '(G)' in name else 3 * (value % 1 != 0))}f}"

    return table.apply(lambda column: [cell(value, column.name) for value in column])


def answer(baseline: pd.DataFrame, fusion: pd.DataFrame, safb: pd.DataFrame) -> str:
    """What the printed counts fix and what they leave open, in one sentence. In Markdown."""
    return (
        f"**The printed parameters fix PRFFN0's layers ({baseline['off (K)'].iloc[0]:+.3f} K off), RFA's fusion in "
        f"PRFFN1 ({fusion['off (K)'].iloc[0]:+.3f} K off) and one weight shared by MRCAB's branches; they leave SAFB's "
        f"inner layers open**: {(safb['off (K)'] < 1).sum()} of {len(safb):,} candidates lie within 1 K, and the kit's "
        f"({safb.loc[KIT_SAFB, 'off (K)']:.3f} K off) is our choice among them."
    )


def conclusion(
    baseline: pd.DataFrame, fusion: pd.DataFrame, window: pd.DataFrame, safb: pd.DataFrame, mrcab: pd.DataFrame
) -> str:
    """Which part is printed, inferred or our choice, and what the counts say of it, in sentences from the tables."""
    off = [[f"{value:+.3f} K off" for value in table["off (K)"]] for table in (baseline, fusion)]
    kit, for_x2, needed = safb.loc[KIT_SAFB], safb.loc[X2_SAFB], window.loc["x3 and x4"]
    near, met = (safb["off (K)"] < 1).sum(), (safb["fits x3 and x4"] != "no").sum()
    in_print, shared = mrcab.loc["printed"], mrcab.loc["shared weight, counted once"]
    speed = run_times()["ms a G"]
    lines = [
        "Printed: 10 groups of 3 MRCABs and 3 SAFBs; MRCAB's equations and its rates 1, 2, 4; attention reduction 16; "
        "what a SAFB does. From the counts:",
        "",
        f"- PRFFN0 is inferred: {baseline.index[0]}, {off[0][0]}. The next of {len(baseline)} candidates, "
        f"{baseline.index[1]}, is {off[0][1]}. Skips have no parameters: they are RCAN's.",
        f"- PRFFN1's fusion is inferred: {fusion.index[0]}, {off[1][0]} ({fusion.fits.iloc[0]}); "
        f"{fusion.index[1]}, {off[1][1]}; the next of {len(fusion)} is {off[1][2]}.",
        f"- MRCAB's shared weight is inferred: {shared['x3 (K)']:.0f} K with it, "
        f"{mrcab.loc['separate weights', 'x3 (K)']:.0f} K with separate weights, printed {in_print['x3 (K)']:.0f} K.",
        f"- That its branches are all computed but counted once is likely, not sure: at x2 PRFFN takes "
        f"{speed['PRFFN']} ms a printed G, {speed['PRFFN, all branches']} with all branches; OISR-RK2 takes "
        f"{speed['OISR-RK2']}, but TSAN {speed['TSAN']} and CARN {speed['CARN']}.",
        f"- SAFB's layers are our choice: {KIT_SAFB}: {kit['one SAFB']:,} parameters, {kit['off (K)']:.3f} K off; the "
        f"nearest of {len(safb):,} candidates is {safb['off (K)'].iloc[0]:.3f} K off, {near} lie within 1 K. The "
        f"printed totals at x3 and x4 ask for {needed['rounded, from']} to {needed['rounded, to']} if rounded, "
        f"{needed['cut off, from']} to {needed['cut off, to']} if cut off: {met or 'none'} of them.",
        f"- The printed {window.loc['x2', 'printed (K)']} K at x2 asks for {window.loc['x2', 'rounded, from']} to "
        f"{window.loc['x2', 'cut off, to']}, which x3 and x4 exclude: a slip, or another network at x2.",
        f"- The printed multi-adds remain open: {in_print['x2 (G)']} / {in_print['x3 (G)']} / {in_print['x4 (G)']} G, "
        f"counted {shared['x2 (G)']} / {shared['x3 (G)']} / {shared['x4 (G)']}. With {X2_SAFB} and biases counted they "
        f"are {for_x2['x2 (G)']} / {for_x2['x3 (G)']} / {for_x2['x4 (G)']}, and the parameters "
        f"{for_x2['off (K)']:.0f} K off.",
        "- The wiring of a group around its SAFBs is our choice: counts say nothing of it.",
    ]
    return "\n".join(lines)


def save_architecture(
    name: str,
    profile: str,
    tables: Mapping[str, pd.DataFrame],
    conclusion: str,
    figure: Figure,
    *,
    title: str,
    answer: str,
) -> str:
    """Write the report of the structure. Returns its path from the reports' root.

    tables: by heading. The CSV holds them all, each with its heading in the first column.
    """
    flat = {heading: table.rename_axis("row").reset_index().astype(object) for heading, table in tables.items()}
    diagram = Path(os.path.relpath(DIAGRAM, reports_root() / profile)).as_posix()
    return write_report(
        name, profile, title=title, label=LABEL, figure=figure,
        table=pd.concat(flat, names=["table"]).droplevel(1),
        provenance=pd.DataFrame({"value": {"counted on": "the kit's own networks, exactly"}}),
        answer=answer,
        sections=[
            f"What is named `printed` is printed in the paper. All else: {LABEL}.",
            f"![PRFFN, PFFG, MRCAB and SAFB]({diagram})",
            "## Conclusion",
            conclusion,
            f"![Candidates for SAFB: distance from the printed parameters and multi-adds]({name}.png)",
            *(part for heading, table in tables.items() for part in (f"## {heading}", markdown(readable(table)))),
        ],
    )  # fmt: skip
