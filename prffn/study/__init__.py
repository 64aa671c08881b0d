"""What is asked and answered: runs and their records, claims, intervals, timings, the plan, many machines."""

from prffn.files import from_extra

with from_extra("kit"):
    from prffn.study.claims import claims_greater, conclusion
    from prffn.study.gains import claims_of_gain, claims_of_growth, said_by_length, said_by_size
    from prffn.study.notebook import Study
    from prffn.study.timings import ensure_timings, forward_cases, step_cases

__all__ = [
    "Study", "claims_greater", "claims_of_gain", "claims_of_growth", "conclusion", "ensure_timings", "forward_cases",
    "said_by_length", "said_by_size", "step_cases",
]  # fmt: skip
