"""Lists of bits by block, as accelerators' configurations give them, turned into choices per layer.

A list names the bits of the input (or stem), of every block, of the header and of the classifier: ``32, 8, 6x3, 16``
is 32, 8, 6, 6, 6, 16. The device stores 2, 4 and 8 bits: 16 and 32 ("not quantized" in training) become 8, widths
between take the next larger one with as many levels as the symmetric code has, 2^bits - 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcuq.errors import UsageError

WIDEST = 32
TOYNET_LISTS = {
    "cfg-1": ("32, 8, 8x3, 8x3, 8x3, 32, 32", "32, 8, 8x3, 8x3, 8x3, 16, 16"),
    "cfg-2": ("32, 8, 8x3, 8x3, 8x3, 32, 32", "32, 8, 6x3, 6x3, 8x3, 16, 16"),
    "cfg-3": ("32, 8, 6x3, 6x3, 6x3, 32, 32", "32, 8, 6x3, 6x3, 6x3, 16, 16"),
    "cfg-1*": ("32, 8x11, 16", "8x13"),
}
"""Activation and weight bits of ToyNet (PACT-Quantization, louvinci): activations start with the input, weights with
the stem; ten blocks, header and classifier follow in both."""


def parse_bits(text: str) -> tuple[int, ...]:
    """``8, 6x3`` to (8, 6, 6, 6). Raises UsageError."""
    bits: list[int] = []
    for entry in text.split(","):
        value, _, count = entry.strip().partition("x")
        if not value.isdigit() or not (count or "1").isdigit():
            raise UsageError(f"bits {entry.strip()!r} in {text!r}: write a number, or 8x3 for 8, 8, 8")
        bits += [int(value)] * int(count or "1")
    wrong = [b for b in bits if not 2 <= b <= WIDEST]
    if wrong:
        raise UsageError(f"{wrong[0]} bits in {text!r}; 2 to {WIDEST} are allowed")
    return tuple(bits)


def layer_choices(layers: Sequence[str], activations: str, weights: str) -> list[dict[str, Any]]:
    """Entries of ``QuantOp(layer_config=...)`` for a network of a stem, blocks and two last layers.

    Args:
        layers: names of its convolutions in order; those of block i begin with ``blocks.i.``.
        activations, weights: lists; the input's entry has no layer, for its pixels always have 8 bits.

    Raises:
        UsageError: lists that do not fit the blocks.
    """
    a, w = parse_bits(activations), parse_bits(weights)
    blocks = sorted({int(name.split(".")[1]) for name in layers if name.startswith("blocks.")})
    if len(a) != len(blocks) + 3 or len(w) != len(blocks) + 3:
        raise UsageError(
            f"{len(a)} and {len(w)} entries for {len(blocks)} blocks; one each for stem, header, classifier too"
        )
    order = ["stem", *(f"blocks.{b}" for b in blocks), *layers[-2:]]
    entries: list[dict[str, Any]] = []
    for name in layers:
        group = ".".join(name.split(".")[:2]) if name.startswith("blocks.") else name if name in layers[-2:] else "stem"
        place = order.index(group)
        entries.append({"layer": name, **_choice("w", w[place]), **_choice("a", a[max(place, 1)])})
    return entries


def _choice(part: str, bits: int) -> dict[str, int]:
    """Bits or, where the device has no such width, a range of levels."""
    if bits >= 8 or bits in (2, 4):
        return {f"{part}_bits": min(bits, 8)}
    return {f"{part}_range": (1 << bits) - 2}
