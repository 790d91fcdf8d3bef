"""Reading VCF and BCF: records, genotypes, dosages, phase sets."""
