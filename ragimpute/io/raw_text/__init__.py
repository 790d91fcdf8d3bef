"""Raw text of 23andMe, AncestryDNA, MyHeritage and FTDNA, read as targets."""
