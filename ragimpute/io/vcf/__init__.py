"""VCF and BCF: blocks, headers, indexes and fields."""
