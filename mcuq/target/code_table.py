"""Code bytes of runtime functions on every core, as ``scripts/measure_code`` found them.

A function pulls in symbols (itself, helpers, parts of the C library) that others may share, so a sum over functions
counts each symbol once. The table lies in ``code_size.json``.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from mcuq.errors import UsageError
from mcuq.target.files import product_text


def symbols(function: str, core: str) -> tuple[str, ...]:
    """Symbols that ``function`` pulls in on ``core``.

    Raises:
        UsageError: the function was never measured on this core.
    """
    needs = _core(core)["needs"]
    if function not in needs:
        raise UsageError(f"code size of {function} on {core} is not known; run scripts/measure_code")
    return tuple(needs[function])


def symbol_bytes(symbol: str, core: str) -> int:
    """Bytes of one symbol, rounded up to a word."""
    return (int(_core(core)["bytes"][symbol]) + 3) & ~3


def startup_bytes(core: str) -> int:
    """Vectors, reset code and the application skeleton."""
    return int(_core(core)["startup"])


def model_bytes(core: str, calls: list[tuple[str, int]]) -> int:
    """Code of the emitted model: its frame, and one call per operator.

    Args:
        calls: operator type names (without the Q of integer operators) and their number of inputs.
    """
    table = _core(core)
    calls = [call for call in calls if call[0] != "Placed"]  # a concatenation with nothing left to copy
    return int(table["model"]) + sum(int(table["operator"]) + _more_arguments(*call) for call in calls)


def _more_arguments(kind: str, inputs: int) -> int:
    """Code of a call beyond that of a convolution's: a pointer more, shapes by value, a loop over bands, more calls."""
    match kind:
        case "Add" | "Mul" | "Extremum":
            return 4
        case "AddFusion":
            return 76
        case "PoolFusion":
            return 132
        case "PlacedConv":
            return 64
        case "Concat":
            return 22 * (inputs - 1)
        case "Softmax" | "Argmax" | "L2Normalize":
            return 12
        case "Reshape":
            return 20
        case _:
            return 0


def _core(name: str) -> dict[str, Any]:
    cores = _table()["cores"]
    if name not in cores:
        raise UsageError(f"code sizes are known for {', '.join(sorted(cores))}, not for core {name}")
    return cores[name]


@cache
def _table() -> dict[str, Any]:
    return json.loads(product_text("code_size.json"))
