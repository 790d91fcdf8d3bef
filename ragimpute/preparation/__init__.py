"""From a phased VCF and a genetic map to panel.h5."""
