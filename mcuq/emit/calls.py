"""C text of one operator, and what its writers need to know around it."""

from __future__ import annotations

from dataclasses import dataclass

from mcuq.emit.literals import Fields
from mcuq.ir.integer import IntegerGraph, IntegerOp


@dataclass(frozen=True, slots=True)
class Table:
    """A constant array of structs that an operator's parameters point to."""

    c_type: str
    name: str
    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """C text of one operator: struct type ("" for none), its members, tables before it, and statements."""

    params_type: str
    fields: Fields
    tables: tuple[Table, ...]
    statements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Context:
    """What a call needs to know around its operator.

    ``idents``: C name of every tensor's pointer. ``overwritten``: the input with which the output shares bytes, or "";
    it begins ``ahead`` bytes behind the output.
    """

    graph: IntegerGraph
    core: str
    prefix: str
    idents: dict[str, str]
    scratch: str
    aliased: bool
    overwritten: str
    ahead: int

    def symbol(self, op: IntegerOp, suffix: str) -> str:
        return f"{self.prefix}_{self.idents[op.name]}_{suffix}"
