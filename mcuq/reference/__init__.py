"""Interpreters in numpy, float and integer: the oracle."""
