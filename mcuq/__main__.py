"""``python -m mcuq``."""

from mcuq.cli import main

main()
