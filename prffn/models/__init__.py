"""Networks: PRFFN and its ablation variants."""

from prffn.models.prffn import PRFFN

__all__ = ["PRFFN"]
