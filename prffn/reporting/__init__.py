"""What people read: tables, figures and pages, written from the records."""

from prffn.files import from_extra

with from_extra("kit"):
    from prffn.reporting.plots import new_figure, plot_gain_grid, plot_gains, plot_gains_by_length
    from prffn.reporting.tables import (
        compare,
        compare_with_bicubic,
        gain_grid,
        provenance_table,
        save,
        shown,
        summary,
    )

__all__ = [
    "compare", "compare_with_bicubic", "gain_grid", "new_figure", "plot_gain_grid", "plot_gains",
    "plot_gains_by_length", "provenance_table", "save", "shown", "summary",
]  # fmt: skip
