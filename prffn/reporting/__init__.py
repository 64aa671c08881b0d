"""What people read: tables, figures and pages, written from the records."""

from prffn.files import from_extra

with from_extra("kit"):
    from prffn.reporting.plots import new_figure, plot_gains
    from prffn.reporting.report import save
    from prffn.reporting.tables import (
        compare,
        compare_with_bicubic,
        distance_from_print,
        gain_grid,
        gradient_shares,
        made_by_group,
        provenance_table,
        shown,
        summary,
    )

__all__ = [
    "compare", "compare_with_bicubic", "distance_from_print", "gain_grid", "gradient_shares",
    "made_by_group", "new_figure", "plot_gains", "provenance_table", "save", "shown", "summary",
]  # fmt: skip
