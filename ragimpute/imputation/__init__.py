"""The command impute: windows, outputs, resuming, summary and warnings."""
