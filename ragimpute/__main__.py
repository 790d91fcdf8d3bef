"""``python -m ragimpute``."""

from ragimpute.cli import run

run()
