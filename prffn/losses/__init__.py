"""Losses: L_contr, and the weighted total."""
