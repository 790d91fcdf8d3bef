"""``python -m ragimpute``."""

from ragimpute.cli import main

main()
