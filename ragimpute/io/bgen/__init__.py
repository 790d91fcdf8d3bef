"""BGEN 1.2: genotype probabilities as regenie, SAIGE, BOLT-LMM and plink2 read them."""
