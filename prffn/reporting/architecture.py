"""How the printed counts pin the network down: the cost of each part, and what other structures would cost.

Arithmetic on lists of convolutions, each sum checked against the kit's modules. Parameters are printed in K = 1000 and
multi-adds in G = 1e9, for a 1280 x 720 output.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from torch import nn

from prffn import paper
from prffn.files import atomic_write, reports_root
from prffn.models import PRFFN
from prffn.models.blocks import MRCAB, RCAB
from prffn.models.complexity import multi_adds, parameters
from prffn.reporting.candidates import (
    BLOCKS,
    CHANNELS,
    GROUPS,
    KIT_SAFB,
    SCALES,
    X2_SAFB,
    Conv,
    baseline_parts,
    baselines,
    fusions,
    safb_candidates,
    spelled,
    total,
    work,
)
from prffn.reporting.plots import save_figure
from prffn.reporting.tables import markdown, write_markdown, write_report

LABEL = "counted here, exact: nothing was trained or timed"


def counted_parts(model: PRFFN) -> dict[str, int]:
    """The parts of `baseline_parts`, counted in the real network."""
    blocks = [m for m in model.modules() if isinstance(m, RCAB | MRCAB)]

    def count(modules: Iterable[nn.Module]) -> int:
        return sum(parameters(module) for module in modules)

    return {
        "head": count([model.head]),
        "RCAB: two convs": count(conv for block in blocks for conv in (block.conv1, block.conv2)),
        "RCAB: channel attention": count(block.attention for block in blocks),
        "group: conv": count(group.conv for group in model.groups),  # type: ignore[misc]
        "trunk: conv": count([model.trunk]),
        "upsampler": count([model.upsampler]),
        "tail": count([model.tail]),
    }


def baseline_table() -> pd.DataFrame:
    """PRFFN0 at x3 part by part: by arithmetic, counted in the module, and the running total."""
    counted = counted_parts(PRFFN(3, variant="PRFFN0"))
    rows = [
        {
            "part": name,
            "convolutions": spelled(convs),
            "one": sum(c.parameters for c in convs),
            "times": times,
            "all, by arithmetic": times * sum(c.parameters for c in convs),
            "all, counted": counted[name],
        }
        for name, (times, convs) in baseline_parts().items()
    ]
    table = pd.DataFrame(rows).set_index("part")
    table["running total"] = table["all, counted"].cumsum()
    return table


def fits(printed_k: Mapping[int, float]) -> str:
    """How counts of parameters can have become the printed K: all "rounded", all "cut off", either, or "no".

    printed_k: the printed K by count.
    """
    ways = {
        "rounded": all(round(count / 1000) == k for count, k in printed_k.items()),
        "cut off": all(count // 1000 == k for count, k in printed_k.items()),
    }
    return ", ".join(way for way, met in ways.items() if met) or "no"


def _beside(candidates: Mapping[str, int], printed_k: float) -> pd.DataFrame:
    """Total parameters by candidate beside a printed count, nearest first."""
    rows = {
        name: {
            "parameters": count,
            "printed (K)": printed_k,
            "off (K)": round(count / 1000 - printed_k, 3),
            "fits": fits({count: printed_k}),
        }
        for name, count in candidates.items()
    }
    return pd.DataFrame(rows).T.sort_values("off (K)", key=abs, kind="stable")


def baseline_candidates() -> pd.DataFrame:
    """Other baselines at x3 beside the printed 2975 K, nearest first."""
    return _beside({name: total(parts) for name, parts in baselines().items()}, _table1("PRFFN0"))


def fusion_candidates() -> pd.DataFrame:
    """Fusions that PRFFN1 may have, beside the printed 3222 K at x3, nearest first."""
    return _beside({name: total(parts) for name, parts in fusions().items()}, _table1("PRFFN1"))


def _table1(variant: str) -> float:
    return float(paper.table(1).set_index("model").params_k[variant])


def _table8(column: str) -> dict[int, float]:
    printed = paper.table(8).set_index(["method", "scale"])[column]["PRFFN"]
    return {scale: float(printed[scale]) for scale in SCALES}


def safb_window() -> pd.DataFrame:
    """How many parameters a SAFB must have for the printed totals, if those were rounded or cut off: lowest to highest.

    The last row holds what x3 and x4 allow together; the 2988 K of x2 are doubtful (paper.DOUBTS).
    """
    rows = {}
    for scale, printed in _table8("params_k").items():
        plain = total(baseline_parts(scale))
        row: dict[str, float] = {"printed (K)": printed}
        for way, low, high in (("rounded", -500, 499), ("cut off", 0, 999)):
            row[f"{way}, from"] = -(-(1000 * printed + low - plain) // (GROUPS * BLOCKS))
            row[f"{way}, to"] = (1000 * printed + high - plain) // (GROUPS * BLOCKS)
        rows[f"x{scale}"] = row
    both = pd.DataFrame(rows).T.loc[["x3", "x4"]]
    rows["x3 and x4"] = {name: both[name].max() if "from" in name else both[name].min() for name in both.columns[1:]}
    return pd.DataFrame(rows).T.convert_dtypes()


def safb_table(*, biases: bool = True) -> pd.DataFrame:
    """Each candidate for SAFB beside the printed parameters and multi-adds of PRFFN, nearest in parameters first.

    "off (K)" is the largest distance over x3 and x4 (the printed x2 is doubtful), "off (G)" over all scales. MRCAB's
    branches are counted once; `biases` says whether multi-adds count biases.
    """
    printed_k, printed_g = _table8("params_k"), _table8("flops_g")
    plain = {scale: baseline_parts(scale) for scale in SCALES}
    bare = {scale: (total(plain[scale]), work(plain[scale], scale, biases=biases)) for scale in SCALES}
    rows = {}
    for name, convs in safb_candidates().items():
        safb = {"SAFB": (GROUPS * BLOCKS, convs)}
        k = {scale: bare[scale][0] + total(safb) for scale in SCALES}
        g = {scale: (bare[scale][1] + work(safb, scale, biases=biases)) / 1e9 for scale in SCALES}
        rows[name] = {
            "one SAFB": sum(conv.parameters for conv in convs),
            **{f"x{scale} (K)": k[scale] / 1000 for scale in SCALES},
            "off (K)": max(abs(k[scale] / 1000 - printed_k[scale]) for scale in (3, 4)),
            "fits x3 and x4": fits({k[scale]: printed_k[scale] for scale in (3, 4)}),
            **{f"x{scale} (G)": round(g[scale], 1) for scale in SCALES},
            "off (G)": max(abs(g[scale] - printed_g[scale]) for scale in SCALES),
        }
    table = pd.DataFrame.from_dict(rows, orient="index").sort_values("off (K)", kind="stable")
    return table.rename_axis("candidate")


def mrcab_table() -> pd.DataFrame:
    """PRFFN3 with one weight shared by MRCAB's branches or one each: parameters at x3 and multi-adds beside the print.

    Counted in the kit's network (shared) and by arithmetic from there (separate).
    """
    c = Conv(CHANNELS, CHANNELS)
    shared = parameters(PRFFN(3))
    rows = {
        "printed": {"x3 (K)": _table1("PRFFN3")},
        "shared weight, counted once": {"x3 (K)": shared / 1000},
        "shared weight, all branches": {"x3 (K)": shared / 1000},
        "separate weights": {"x3 (K)": (shared + GROUPS * BLOCKS * 2 * c.parameters) / 1000},
    }
    for scale in SCALES:
        model, column = PRFFN(scale), f"x{scale} (G)"
        rows["printed"][column] = _table8("flops_g")[scale]
        rows["shared weight, counted once"][column] = round(multi_adds(model, scale) / 1e9, 1)
        computed = round(multi_adds(model, scale, shared_branches="all") / 1e9, 1)
        rows["shared weight, all branches"][column] = rows["separate weights"][column] = computed
    return pd.DataFrame.from_dict(rows, orient="index")


def run_times(scale: int = 2) -> pd.DataFrame:
    """Printed run times over printed multi-adds at a scale (Table 8), and PRFFN's if all its branches are counted.

    The two further branches of each MRCAB are added to PRFFN's printed multi-adds. Fewest ms a G first.
    """
    printed = paper.table(8).query("scale == @scale").dropna(subset=["runtime_ms"]).set_index("method")
    table = printed[["params_k", "flops_g", "runtime_ms"]].set_axis(["params (K)", "G", "ms"], axis=1)
    further = {"branches": (GROUPS * BLOCKS * 2, (Conv(CHANNELS, CHANNELS),))}
    row = table.loc["PRFFN"].copy()
    row["G"] = round(row["G"] + work(further, scale) / 1e9, 1)
    table.loc["PRFFN, all branches"] = row
    table["ms a G"] = (table["ms"] / table["G"]).round(2)
    return table.sort_values("ms a G")


def ablation() -> pd.DataFrame:
    """Table 1 at x3: printed parameters, those of the kit's networks, and what each step adds."""
    rows: dict[str, dict[str, float | str]] = {}
    before: tuple[float, int] | None = None
    for variant in ("PRFFN0", "PRFFN1", "PRFFN2", "PRFFN3"):
        printed, counted = _table1(variant), parameters(PRFFN(3, variant=variant))
        rows[variant] = {
            "printed (K)": printed,
            "counted": counted,
            "off (K)": round(counted / 1000 - printed, 3),
            "fits": fits({counted: printed}),
            "step, printed (K)": f"{printed - before[0]:+.0f}" if before else "",
            "step, counted": f"{counted - before[1]:+,}" if before else "",
        }
        before = printed, counted
    return pd.DataFrame.from_dict(rows, orient="index")


DIGITS = {"printed (K)": 0, "params (K)": 0, "ms": 0, "ms a G": 2, "G": 1, "off (G)": 2}
"""Decimals of a column as people read it; otherwise 1 for multi-adds in G, and 3."""


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Any table of this module as people read it: the decimals that its figures have, thousands set off."""

    def cell(value: Any, column: str) -> str:
        if isinstance(value, str) or pd.isna(value):
            return "" if pd.isna(value) else value
        digits = 0 if float(value).is_integer() and "(G)" not in column else 1 if column.endswith("(G)") else 3
        return f"{value:,.{DIGITS.get(column, digits)}f}"

    return table.apply(lambda column: [cell(value, str(column.name)) for value in column])


def conclusion(
    baseline: pd.DataFrame, fusion: pd.DataFrame, window: pd.DataFrame, safb: pd.DataFrame, mrcab: pd.DataFrame
) -> str:
    """Which part is printed, inferred or our choice, and what the counts say of it, in sentences from the tables.

    baseline, fusion: from `baseline_candidates` and `fusion_candidates`. window, safb: from `safb_window` and
    `safb_table`. mrcab: from `mrcab_table`.
    """
    kit, for_x2, needed = safb.loc[KIT_SAFB], safb.loc[X2_SAFB], window.loc["x3 and x4"]
    near = (safb["off (K)"] < 1).sum()
    in_one_way = safb["fits x3 and x4"] != "no"
    printed, shared = mrcab.loc["printed"], mrcab.loc["shared weight, counted once"]
    speed = run_times(2)["ms a G"]
    lines = [
        "Printed: 10 groups of 3 MRCABs and 3 SAFBs; MRCAB's equations and its rates 1, 2, 4; attention reduction 16; "
        "what a SAFB does. From the counts:",
        "",
        f"- PRFFN0 is inferred: {baseline.index[0]}, {_off(baseline, 0)}. The next of {len(baseline)} candidates, "
        f"{baseline.index[1]}, is {_off(baseline, 1)}. Skips have no parameters: they are RCAN's.",
        f"- PRFFN1's fusion is inferred: {fusion.index[0]}, {_off(fusion, 0)} ({fusion.fits.iloc[0]}); "
        f"{fusion.index[1]}, {_off(fusion, 1)}; the next of {len(fusion)} is {_off(fusion, 2)}.",
        f"- MRCAB's shared weight is inferred: {shared['x3 (K)']:.0f} K with it, "
        f"{mrcab.loc['separate weights', 'x3 (K)']:.0f} K with separate weights, printed {printed['x3 (K)']:.0f} K.",
        f"- That its branches are all computed but counted once is likely, not sure: at x2 PRFFN takes "
        f"{speed['PRFFN']} ms a printed G, {speed['PRFFN, all branches']} with all branches; OISR-RK2 takes "
        f"{speed['OISR-RK2']}, but TSAN {speed['TSAN']} and CARN {speed['CARN']}.",
        f"- SAFB's layers are our choice: {KIT_SAFB}: {kit['one SAFB']:,} parameters, {kit['off (K)']:.3f} K off; the "
        f"nearest of {len(safb):,} candidates is {safb['off (K)'].iloc[0]:.3f} K off, {near} lie within 1 K. The "
        f"printed totals at x3 and x4 ask for {needed['rounded, from']} to {needed['rounded, to']} if rounded, "
        f"{needed['cut off, from']} to {needed['cut off, to']} if cut off: {in_one_way.sum() or 'none'} of them.",
        f"- The printed {window.loc['x2', 'printed (K)']} K at x2 asks for {window.loc['x2', 'rounded, from']} to "
        f"{window.loc['x2', 'cut off, to']}, which x3 and x4 exclude: a slip, or another network at x2.",
        f"- The printed multi-adds remain open: {printed['x2 (G)']} / {printed['x3 (G)']} / {printed['x4 (G)']} G, "
        f"counted {shared['x2 (G)']} / {shared['x3 (G)']} / {shared['x4 (G)']}. With {X2_SAFB} and biases counted they "
        f"are {for_x2['x2 (G)']} / {for_x2['x3 (G)']} / {for_x2['x4 (G)']}, and the parameters "
        f"{for_x2['off (K)']:.0f} K off.",
        "- The wiring of a group around its SAFBs is our choice: counts say nothing of it.",
    ]
    return "\n".join(lines)


def _off(table: pd.DataFrame, row: int) -> str:
    """The distance of a candidate in words."""
    return f"{table['off (K)'].iloc[row]:+.3f} K off"


def save_architecture(
    name: str, profile: str, tables: Mapping[str, pd.DataFrame], conclusion: str, figure: Figure, *, title: str
) -> str:
    """Writes reports/<profile>/<name>.{md,csv,png,json}. Returns the report's path relative to the reports' root.

    tables: by heading. The CSV holds them all, each with its heading in the first column.
    """
    folder = reports_root() / profile
    flat = {heading: table.rename_axis("row").reset_index() for heading, table in tables.items()}
    with atomic_write(folder / f"{name}.csv", "w") as file:
        pd.concat(flat, names=["table"]).droplevel(1).to_csv(file, lineterminator="\n")
    save_figure(figure, folder / f"{name}.png")
    content = {
        "title": title,
        "profile": profile,
        "label": LABEL,
        "tables": {heading: json.loads(table.to_json(orient="records")) for heading, table in flat.items()},
        "conclusion": conclusion,
    }
    write_report(folder / f"{name}.json", content)
    sections = [
        f"# {title}",
        f"What is named `printed` is printed in the paper. All else: {LABEL}.",
        f"![{title}]({name}.png)",
        "## Conclusion",
        conclusion,
        *(part for heading, table in tables.items() for part in (f"## {heading}", markdown(readable(table)))),
    ]
    write_markdown(folder / f"{name}.md", sections)
    return f"{reports_root().name}/{profile}/{name}.md"
