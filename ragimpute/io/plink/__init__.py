"""PLINK 1 (bed, bim, fam) and PLINK 2 (pgen, pvar, psam), read as targets."""
