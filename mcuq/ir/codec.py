"""Frozen dataclasses to JSON values and back, by their type annotations; arrays go into a table of their own.

A dataclass is an object with exactly its fields, a tuple a list, an array the key under which it is stored. A
new operator or field needs no code here.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NoReturn, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from mcuq.errors import ModelError

LONGEST_TEXT = 1000
LONGEST_LIST = 100_000
LARGEST_INT = 1 << 62


class Writer:
    """Turns values into JSON; collects the arrays met on the way, keyed by their path (``conv/weight``)."""

    def __init__(self) -> None:
        self.arrays: dict[str, NDArray[Any]] = {}

    def encode(self, value: Any, path: str) -> Any:
        """JSON of a scalar, tuple, array or dataclass."""
        if isinstance(value, np.ndarray):
            self.arrays[path] = value
            return path
        if isinstance(value, tuple):
            return [self.encode(v, f"{path}.{i}") for i, v in enumerate(cast("tuple[Any, ...]", value))]
        if dataclasses.is_dataclass(value):
            separator = "." if "/" in path else "/"
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            return {name: self.encode(field, f"{path}{separator}{name}") for name, field in fields.items()}
        if isinstance(value, float) and not math.isfinite(value):
            raise ModelError(f"{path}: {value} cannot be saved; it must be finite")
        if isinstance(value, bool | int | float | str) or value is None:
            return value
        if isinstance(value, np.integer | np.floating):
            return self.encode(cast("Any", value).item(), path)
        raise TypeError(f"{path}: {type(value).__name__} has no JSON form")


class Reader:
    """Inverse of :class:`Writer`. Every array is to be used once; :meth:`finish` reports the others."""

    def __init__(self, arrays: dict[str, NDArray[Any]]) -> None:
        self._arrays = dict(arrays)

    def finish(self) -> None:
        """Raises ModelError when arrays are left that nothing refers to."""
        if self._arrays:
            raise ModelError(f"the file is damaged: array {next(iter(self._arrays))[:140]!r} belongs to no operator")

    def decode(self, kind: Any, value: Any, path: str) -> Any:
        """``value`` as a ``kind`` (a type annotation). Raises ModelError."""
        if kind is int:
            return self._int(value, path)
        if kind is float:
            return self._float(value, path)
        if kind is str:
            return value if isinstance(value, str) and len(value) <= LONGEST_TEXT else _wrong(path, "a text", value)
        if kind is bool:
            return value if isinstance(value, bool) else _wrong(path, "true or false", value)
        if dataclasses.is_dataclass(kind):
            return self.fields(cast("type[Any]", kind), value, path)
        return self._composed(kind, value, path)

    def fields(self, kind: type[Any], value: Any, path: str) -> Any:
        """A dataclass from an object with exactly its fields."""
        hints = hints_of(kind)
        if not isinstance(value, dict):
            _wrong(path, f"an object ({kind.__name__})", value)
        found = cast("dict[str, Any]", value)
        if set(found) != set(hints):
            odd = sorted(set(found) ^ set(hints))
            raise ModelError(f"the file is damaged: {path} ({kind.__name__}) lacks or adds field {odd[0][:140]!r}")
        return kind(**{name: self.decode(hint, found[name], f"{path}.{name}") for name, hint in hints.items()})

    def _composed(self, kind: Any, value: Any, path: str) -> Any:
        origin, args = get_origin(kind), get_args(kind)
        if origin is Literal:
            return value if isinstance(value, str) and value in args else _wrong(path, f"one of {args}", value)
        if origin in (Union, types.UnionType):
            inner = next(arg for arg in args if arg is not types.NoneType)
            return None if value is None else self.decode(inner, value, path)
        if origin is tuple:
            return self._tuple(args, value, path)
        if origin is np.ndarray:
            return self._array(np.dtype(get_args(args[1])[0]), value, path)
        raise TypeError(f"no decoder for {kind}")

    def _tuple(self, args: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            _wrong(path, "a list", value)
        items = cast("list[Any]", value)
        if len(args) == 2 and args[1] is Ellipsis:
            if len(items) > LONGEST_LIST:
                _wrong(path, f"a list of at most {LONGEST_LIST}", f"{len(items)} items")
            kinds = (args[0],) * len(items)
        else:
            kinds = args
        if len(kinds) != len(items):
            _wrong(path, f"a list of {len(kinds)}", items)
        pairs = zip(kinds, items, strict=True)
        return tuple(self.decode(kind, item, f"{path}.{i}") for i, (kind, item) in enumerate(pairs))

    def _array(self, dtype: np.dtype[Any], value: Any, path: str) -> NDArray[Any]:
        if not isinstance(value, str) or value not in self._arrays:
            _wrong(path, "the name of an unused array", value)
        array = self._arrays.pop(value)
        if array.dtype != dtype:
            raise ModelError(f"the file is damaged: {path} holds {array.dtype}, {dtype} is needed")
        return array

    @staticmethod
    def _int(value: Any, path: str) -> int:
        fits = type(value) is int and -LARGEST_INT <= value <= LARGEST_INT
        return value if fits else _wrong(path, "a whole number", value)

    @staticmethod
    def _float(value: Any, path: str) -> float:
        fits = type(value) in (int, float) and abs(value) < 1e300
        return float(value) if fits else _wrong(path, "a finite number", value)


@cache
def hints_of(kind: type[Any]) -> Mapping[str, Any]:
    """Field name -> resolved annotation of a dataclass."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _wrong(path: str, wanted: str, found: Any) -> NoReturn:
    raise ModelError(f"the file is damaged: {path[:200]} must be {wanted}, found {repr(found)[:80]}")
