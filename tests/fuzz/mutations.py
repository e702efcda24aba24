"""Damage for files: flips, overwritten numbers, cuts, copies. Deterministic per seed."""

from __future__ import annotations

import numpy as np

NUMBERS = (0, 1, -1, 2**31 - 1, -(2**31), 2**32 - 1, 2**40, 2**63 - 1, -(2**63), 255, 127, 128)


def mutate(data: bytes, seed: int) -> bytes:
    """``data`` after one to four random changes."""
    rng = np.random.default_rng(seed)
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        _change(changed, rng)
    return bytes(changed)


def _change(data: bytearray, rng: np.random.Generator) -> None:
    if not data:
        return
    at = int(rng.integers(len(data)))
    match int(rng.integers(7)):
        case 0:
            data[at] ^= 1 << int(rng.integers(8))
        case 1:
            data[at] = int(rng.integers(256))
        case 2:
            size = int(rng.choice([1, 2, 4, 8]))
            number = NUMBERS[int(rng.integers(len(NUMBERS)))] & ((1 << 8 * size) - 1)
            data[at : at + size] = number.to_bytes(size, "little")
        case 3:
            del data[at:]
        case 4:
            del data[at : at + int(rng.integers(1, 33))]
        case 5:
            start = int(rng.integers(len(data)))
            data[at:at] = data[start : start + int(rng.integers(1, 65))]
        case _:
            start = int(rng.integers(len(data)))
            piece = bytes(data[start : start + int(rng.integers(1, 65))])
            data[at : at + len(piece)] = piece
