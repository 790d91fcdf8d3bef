"""Phasing of targets against the panel."""
