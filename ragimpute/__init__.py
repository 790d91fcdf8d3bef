"""Genotype imputation by retrieved haplotypes and a trained network (BERTWithRAG)."""

__version__ = "0.1.0"
