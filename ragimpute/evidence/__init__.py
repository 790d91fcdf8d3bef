"""What copying says of a (haplotype, site) pair in doubt: features for the network."""
