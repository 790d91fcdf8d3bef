"""Writing VCF and BCF: the writer, and the text and bytes of its records."""
