"""Puts this folder on the path, for ``networks.py``."""
