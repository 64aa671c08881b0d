"""The networks of Table 8 beside PRFFN, a file each."""
