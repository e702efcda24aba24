"""What emission hands to the build: files of a project, and the samples it checks itself with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a generated project: ``path`` with forward slashes, relative to the project's folder."""

    path: str
    content: bytes


@dataclass(frozen=True, slots=True, eq=False)
class TestVector:
    """Every input [H, W, C] (pixels when the network takes pixels, else codes) and the codes of every output."""

    __test__ = False  # not a pytest class

    inputs: tuple[NDArray[Any], ...]
    outputs: tuple[NDArray[Any], ...]
