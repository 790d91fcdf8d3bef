"""Copying corrected by a network: the family of models that ships with weights."""
