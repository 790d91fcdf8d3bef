"""PLINK 2's PGEN, PVAR and PSAM: dosages, sites and samples."""
