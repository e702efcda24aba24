"""What a user asked for about widths and ranges on the symmetric grids: CHaiDNN's modes and files of precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from mcuq.errors import UsageError
from mcuq.ir.graph import Graph

if TYPE_CHECKING:
    from pathlib import Path

    from mcuq.pipeline.settings import BitChoice
    from mcuq.quant.precision import Precision

QUANT_TYPES = {"Xilinx": "threshold", "DynamicFixed": "fixed"}
BITWIDTHS, FL_BITWIDTHS = (6, 6, 6), (2, 5, 2)
"""Widths and fractional bits (network input, params, layer outputs) of a quantization type that come without."""


class Asked(Protocol):
    """The part of ``QuantizeSettings`` that is read here."""

    @property
    def grid(self) -> str: ...
    @property
    def quant_type(self) -> str | None: ...
    @property
    def bitwidths(self) -> tuple[int, ...]: ...
    @property
    def fl_bitwidths(self) -> tuple[int, ...]: ...
    @property
    def precision(self) -> Path | None: ...
    @property
    def choice(self) -> BitChoice: ...


def grid_of(asked: Asked) -> str:
    """The grid: the quantization type's where one is given."""
    return asked.grid if asked.quant_type is None else QUANT_TYPES[asked.quant_type]


def check_widths(asked: Asked) -> None:
    """Raises UsageError for unknown or contradicting options, other widths than 8 and 6 in these modes included."""
    if asked.quant_type not in (None, *QUANT_TYPES):
        raise UsageError(f"--quant-type {asked.quant_type!r} is unknown; use {' or '.join(QUANT_TYPES)}")
    if asked.quant_type is not None and asked.grid not in ("affine", QUANT_TYPES[asked.quant_type]):
        raise UsageError(f"--quant-type {asked.quant_type} is the grid {grid_of(asked)}, not {asked.grid}; give one")
    for name, values in (("--bitwidths", asked.bitwidths), ("--fl-bitwidths", asked.fl_bitwidths)):
        if values and len(values) != 3:
            raise UsageError(f"{name} has {len(values)} values; give three: network input, params, layer outputs")
    if any(bits not in (8, 6) for bits in asked.bitwidths):
        text = ",".join(map(str, asked.bitwidths))
        raise UsageError(f"--bitwidths {text}: 8 and 6 are possible; other widths go with --weight-bits and --act-bits")
    if any(abs(fl) > 40 for fl in asked.fl_bitwidths):
        raise UsageError(f"--fl-bitwidths {asked.fl_bitwidths}: fractional bits of -40 .. 40 are possible")
    uniform = bool(asked.quant_type or asked.bitwidths or asked.fl_bitwidths)
    if uniform and asked.precision is not None:
        raise UsageError("--precision has its own mode and widths; leave --quant-type and (fl-)bitwidths out")
    if asked.bitwidths and grid_of(asked) == "affine":
        raise UsageError("--bitwidths needs --quant-type, or --grid threshold or fixed")
    if asked.fl_bitwidths and grid_of(asked) != "fixed":
        raise UsageError("--fl-bitwidths needs --quant-type DynamicFixed or --grid fixed")
    choice = asked.choice
    if (uniform or asked.precision is not None) and (
        choice.weight_bits or choice.act_bits or choice.bits or choice.mixed
    ):
        raise UsageError("widths are given twice: --bitwidths or --precision, and --weight-bits, --act-bits or --bits")


def asked_precision(asked: Asked, graph: Graph, say: Callable[[str], None]) -> Precision | None:
    """Blocks for the layers of ``graph`` (fused), from a file or uniform; None leaves widths to the plan of bits.

    Raises:
        ModelError: the file is damaged.
    """
    from mcuq.quant.precision import uniform
    from mcuq.quant.precision_file import load_precision
    from mcuq.quant.precision_prototxt import load_prototxt

    if asked.precision is not None:
        messages: tuple[str, ...] = ()
        if asked.precision.suffix == ".json":
            precision = load_precision(asked.precision)
        else:
            deploy = load_prototxt(asked.precision)
            precision, messages = deploy.precision, deploy.messages
        for text in (*messages, *precision.warnings(graph)):
            say(f"  warning: {text}")
        return precision
    if not (asked.quant_type or asked.bitwidths or asked.fl_bitwidths):
        return None
    fl: Any = asked.fl_bitwidths or (FL_BITWIDTHS if asked.quant_type == "DynamicFixed" else None)
    bits: Any = asked.bitwidths or BITWIDTHS
    mode: Any = grid_of(asked)
    return uniform(graph, mode, bits, fl)
