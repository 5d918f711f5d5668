"""``python -m chestxray`` is ``chestxray``."""

from chestxray.cli import main

main()
