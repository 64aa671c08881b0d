"""What is asked and answered: runs and their records, claims, intervals, the plan, many machines."""
