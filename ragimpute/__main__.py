"""``python -m ragimpute``."""

from ragimpute.cli.main import run

run()
