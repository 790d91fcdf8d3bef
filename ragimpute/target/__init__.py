"""How impute, phase and --qc-only begin: the target is read, matched, counted and warned of."""
