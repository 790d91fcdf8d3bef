"""panel.h5: its format, reading it, and views of it."""
