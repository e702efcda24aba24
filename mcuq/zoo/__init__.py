"""Model definitions the commands know by name."""
