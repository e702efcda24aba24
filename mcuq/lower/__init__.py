"""Quantized float graphs to integer graphs, and exact simplifications of those."""

from mcuq.ir.integer import IntegerGraph
from mcuq.lower.dead_channels import remove_dead_channels
from mcuq.lower.idle_clamps import drop_idle_clamps
from mcuq.lower.lower import lower

__all__ = ["drop_idle_clamps", "lower", "remove_dead_channels", "simplified"]


def simplified(graph: IntegerGraph) -> IntegerGraph:
    """``graph`` without dead channels and idle clamps: every output the same to the last bit."""
    return drop_idle_clamps(remove_dead_channels(graph))
