"""Byte limits as users write them."""

from __future__ import annotations

import re

from mcuq.errors import UsageError
from mcuq.ir.plans import Limits

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|[kKM]i?B?)?")
_UNITS = {
    "": 1,
    "B": 1,
    "K": 1024,
    "KI": 1024,
    "KIB": 1024,
    "KB": 1000,
    "M": 1 << 20,
    "MI": 1 << 20,
    "MIB": 1 << 20,
    "MB": 10**6,
}


def parse_bytes(text: str) -> int:
    """``512000``, ``512KiB``, ``512K`` (1024), ``512kB`` (1000), ``2MiB``, ``2MB`` to bytes.

    Raises:
        UsageError: not a positive size.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise UsageError(f"size {text!r} is not understood; write bytes (512000) or a unit: 512KiB, 512kB, 2MiB")
    size = round(float(match[1]) * _UNITS[(match[2] or "").upper()])
    if size <= 0:
        raise UsageError(f"size {text!r} is not positive")
    return size


def parse_mem_constraint(text: str) -> Limits:
    """``FLASH,RAM`` in bytes or with units, with or without the paper's brackets: ``[2048000,512000]``.

    Raises:
        UsageError: not two sizes.
    """
    body = text.strip()
    if body.startswith("[") and body.endswith("]"):
        body = body[1:-1]
    parts = body.split(",")
    if len(parts) != 2:
        raise UsageError(
            f"--mem-constraint {text!r} has {len(parts)} part(s); write FLASH,RAM, "
            "for example 2048000,512000 or 2MiB,512KiB"
        )
    return Limits(flash=parse_bytes(parts[0]), ram=parse_bytes(parts[1]))
