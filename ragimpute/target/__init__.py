"""How impute, phase and --qc-only begin: the target is read, matched and reported."""
