"""Puts this folder on the path, for ``helpers of these tests``."""
