"""Token models: BERTWithRAG over retrieved haplotypes."""
