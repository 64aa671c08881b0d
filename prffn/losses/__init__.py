"""Losses: L_contr, L_perc and L_CSD, and the weighted total."""
