"""Pages, figures and tables about runs."""
