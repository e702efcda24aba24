"""Quantized float graphs to integer graphs."""

from mcuq.lower.lower import lower

__all__ = ["lower"]
