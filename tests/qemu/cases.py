"""Cases of the kernel grid: parameters, buffers and expected bytes, and their file for ``runtime_c/tests/grid.c``.

A case names the C function it runs, so that a family of faster kernels is put through the same grid by renaming:
``replace(case, kernel=...)``, with its own weights layout and scratch.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from exact import Ints

from mcuq.target.kernels import ConvCase

SCALARS, BUFFERS = 32, 8
HEAD_BYTES = 8
"""A result starts with two words: status and counter ticks."""
STATUS = {1: "kernel unknown to the driver", 2: "no room", 3: "wrote outside its buffers", 4: "wrote to a constant"}


@dataclass(frozen=True, eq=False)
class Case:
    """One call of one kernel.

    Attributes:
        kernel: C function. scalars: its parameters in the order the driver's runner reads them.
        buffers: (alignment, bytes) of input 0, and what else the runner expects; alignment 1 is an odd address.
        expected: exact output bytes. output_align: 4 for 32-bit outputs.
        in_place: the output begins ``ahead`` bytes before buffer 0, in the same memory.
        text: what it is, for failures.
        conv, weights: of convolutions, the case as kernel selection sees it and the weight codes [O, kh, kw, I/groups],
            so that another family can lay them out its own way.
    """

    kernel: str
    scalars: tuple[int, ...]
    buffers: tuple[tuple[int, bytes], ...]
    expected: bytes
    text: str
    scratch: int = 0
    output_align: int = 1
    in_place: bool = False
    ahead: int = 0
    conv: ConvCase | None = None
    weights: Ints | None = None

    @property
    def shifts(self) -> tuple[int, ...]:
        """Of a convolution: one for all channels, or one each."""
        return tuple(self.buffers[4][1]) or self.scalars[23:24]

    @property
    def bytes(self) -> int:
        """Memory the driver needs for it, canaries aside."""
        return sum(len(data) for _, data in self.buffers) + len(self.expected) + self.scratch

    def record(self) -> bytes:
        """The case as the driver reads it."""
        scalars = (*self.scalars, *(0,) * (SCALARS - len(self.scalars)))
        buffers = (*self.buffers, *((1, b""),) * (BUFFERS - len(self.buffers)))
        head = struct.pack("<48s32i", self.kernel.encode(), *scalars)
        head += b"".join(struct.pack("<II", align, len(data)) for align, data in buffers)
        shared = self.ahead + 1 if self.in_place else 0
        head += struct.pack("<IIII", self.output_align, len(self.expected), self.scratch, shared)
        return head + b"".join(data for _, data in buffers)


def write_cases(cases: Iterable[Case], path: Path) -> None:
    """Write the driver's case file."""
    with path.open("wb") as file:
        for case in cases:
            file.write(case.record())


def mismatches(cases: list[Case], results: bytes, limit: int = 10) -> list[str]:
    """What is wrong with the driver's results, at most ``limit`` lines; empty when every byte is right."""
    wrong: list[str] = []
    at = 0
    for case in cases:
        if len(wrong) == limit:
            break
        if at + HEAD_BYTES + len(case.expected) > len(results):
            return [*wrong, f"results end before {case.text}"]
        (status,) = struct.unpack_from("<I", results, at)
        got = results[at + HEAD_BYTES : at + HEAD_BYTES + len(case.expected)]
        at += HEAD_BYTES + len(case.expected)
        if status != 0:
            wrong.append(f"{case.text}: {STATUS.get(status, f'status {status}')}")
        elif got != case.expected:
            differing = [i for i, (a, b) in enumerate(zip(got, case.expected, strict=True)) if a != b]
            first = differing[0]
            wrong.append(
                f"{case.text}: {len(differing)} of {len(got)} bytes differ, first at {first}: "
                f"got {got[first]:#04x}, expected {case.expected[first]:#04x}"
            )
    return wrong


def ticks(cases: list[Case], results: bytes) -> list[int]:
    """Counter ticks that each case's call took."""
    counted: list[int] = []
    at = 0
    for case in cases:
        counted.append(struct.unpack_from("<I", results, at + 4)[0])
        at += HEAD_BYTES + len(case.expected)
    return counted


def stored_shifts(shifts: Iterable[int]) -> tuple[int, tuple[int, bytes]]:
    """(last scalar, buffer) of a convolution's shifts: a common one stands in the parameters."""
    own = bytes(shifts)
    return (own[0], (1, b"")) if len(set(own)) == 1 else (0, (1, own))


def renamed(case: Case, kernel: str, *, weights: bytes | None = None, scratch: int | None = None) -> Case:
    """The same convolution through another kernel, with its own packed weights and scratch."""
    buffers = case.buffers
    if weights is not None:
        buffers = (buffers[0], (buffers[1][0], weights), *buffers[2:])
    return replace(
        case,
        kernel=kernel,
        buffers=buffers,
        scratch=case.scratch if scratch is None else scratch,
        text=case.text.replace(case.kernel, kernel),
    )
