"""Reading FlatBuffers tables by field number, every offset checked against the file's length.

Format: flatbuffers.dev/internals. A table starts with a signed offset back to its vtable; the vtable lists its
own size, the table's size and, per field, the offset inside the table (0: absent). Vectors and strings start with
their length. Everything is little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcuq.errors import ModelError

MAX_ENTRIES = 10_000
"""Tables in one vector: operators, tensors, buffers."""
_SIZES = {"b": 1, "B": 1, "?": 1, "h": 2, "H": 2, "i": 4, "I": 4, "q": 8, "Q": 8, "f": 4}


@dataclass(frozen=True, slots=True)
class Table:
    """A table at ``position`` of the file ``data``."""

    data: bytes
    position: int

    def read(self, position: int, kind: str) -> Any:
        """One number of struct type ``kind``. Raises ModelError outside the file."""
        if position < 0 or position + _SIZES[kind] > len(self.data):
            raise ModelError(f"the file is damaged: an offset points to byte {position} of {len(self.data)}")
        return struct.unpack_from(f"<{kind}", self.data, position)[0]

    def field(self, number: int) -> int:
        """Position of field ``number``; 0 when absent."""
        vtable = self.position - self.read(self.position, "i")
        size = self.read(vtable, "H")
        if 6 + 2 * number > size:
            return 0
        offset = self.read(vtable + 4 + 2 * number, "H")
        return self.position + offset if offset else 0

    def number(self, number: int, kind: str, default: Any = 0) -> Any:
        """A scalar field."""
        position = self.field(number)
        return self.read(position, kind) if position else default

    def table(self, number: int) -> Table | None:
        position = self.field(number)
        return Table(self.data, position + self.read(position, "I")) if position else None

    def vector(self, number: int, size: int) -> tuple[int, int]:
        """(position of the first entry, entries) of a vector of entries of ``size`` bytes; (0, 0) when absent."""
        position = self.field(number)
        if not position:
            return 0, 0
        start = position + self.read(position, "I")
        count = self.read(start, "I")
        if start + 4 + count * size > len(self.data):
            raise ModelError(f"the file is damaged: a vector of {count} entries at byte {start} leaves the file")
        return start + 4, count

    def tables(self, number: int) -> list[Table]:
        """A vector of tables. Raises ModelError above :data:`MAX_ENTRIES`."""
        start, count = self.vector(number, 4)
        if count > MAX_ENTRIES:
            raise ModelError(f"{count} entries in one table of the file, at most {MAX_ENTRIES} are allowed")
        positions = range(start, start + 4 * count, 4)
        return [Table(self.data, position + self.read(position, "I")) for position in positions]

    def array(self, number: int, kind: str) -> NDArray[Any]:
        """A vector of numbers (a view of the file)."""
        start, count = self.vector(number, _SIZES[kind])
        return np.frombuffer(self.data, dtype=np.dtype(kind).newbyteorder("<"), count=count, offset=start)

    def text(self, number: int) -> str:
        """A string; bytes that are not UTF-8 are replaced."""
        start, count = self.vector(number, 1)
        return self.data[start : start + min(count, 1000)].decode("utf-8", errors="replace")


def root(data: bytes) -> Table:
    """The file's root table."""
    return Table(data, Table(data, 0).read(0, "I"))
