"""One training: the objective, the loop, its processes and its device."""
