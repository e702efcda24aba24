"""Quantized float graphs to integer graphs, and exact simplifications of those."""

from mcuq.lower.dead_channels import remove_dead_channels
from mcuq.lower.lower import lower

__all__ = ["lower", "remove_dead_channels"]
