"""Accuracy: metrics, calibration, DR2, and the comparison with a truth."""
