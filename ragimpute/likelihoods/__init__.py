"""Impute from genotype likelihoods, such as those of shallow sequencing."""
