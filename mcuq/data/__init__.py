"""Data sets the commands know by name."""
