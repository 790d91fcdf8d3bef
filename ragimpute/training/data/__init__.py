"""Batches of training examples of both families of models."""
