"""Grid cases through the kernels of faster families: other weights, scratch and function."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from cases import Case, renamed
from drivers import ROOT

from mcuq.ir.integer import QConv2d
from mcuq.target.kernels import layer_facts, select
from mcuq.target.kernels_dsp import ELEMENTWISE, PACKED_ELEMENTWISE
from mcuq.target.kernels_mve import MVE_CORES, MVE_ELEMENTWISE
from mcuq.target.layouts import ChannelParameters, pack_weights

SOURCES: tuple[Path, ...] = tuple(
    sorted(path for path in (ROOT / "src" / "armv7em").iterdir() if path.suffix in (".c", ".S"))
)
MVE_SOURCES: tuple[Path, ...] = tuple(
    sorted(path for path in (ROOT / "src" / "mve").iterdir() if path.suffix in (".c", ".S"))
)
EXTRA = ROOT / "tests" / "grid_extra_dsp.c"


def sources(core: str) -> tuple[Path, ...]:
    """Sources of the faster families that ``core`` runs."""
    return (*SOURCES, *MVE_SOURCES) if core in MVE_CORES else SOURCES


def parameters(case: Case) -> ChannelParameters:
    """The channel parameters that a portable convolution case carries in its buffers."""
    assert case.conv is not None
    bias, multiplier = (np.frombuffer(case.buffers[i][1], "<i4") for i in (2, 3))
    shift = np.array(case.shifts, np.uint8)
    zero = np.frombuffer(case.buffers[5][1] or b"\0", np.int8)
    return ChannelParameters(bias, multiplier, shift, zero, case.conv.input_bits, case.conv.roundings)


def on_dsp(case: Case, core: str = "cortex-m4", families: tuple[str, ...] = ("_dsp",)) -> Case | None:
    """``case`` as the compiler would run it on ``core``; None when its kernel is of none of the ``families``."""
    if case.conv is None:
        twins = MVE_ELEMENTWISE if "_mve" in families and core in MVE_CORES else ELEMENTWISE
        twin = twins.get(case.kernel) if _bits(case) == {8} else PACKED_ELEMENTWISE.get(case.kernel)
        known = twin is not None and len(_bits(case)) == 1 and twin.endswith(families)
        return renamed(case, twin) if twin is not None and known else None
    assert case.weights is not None
    p = parameters(case)
    op = SimpleNamespace(
        weight=case.weights,
        weight_zero_point=p.weight_zero_point,
        bias=p.bias,
        multiplier=p.multiplier,
        shift=p.shift,
        roundings=case.conv.roundings,
    )
    facts = layer_facts(cast(QConv2d, op), p.input_bits)
    kernel = select(replace(case.conv, facts=facts), core)
    if not kernel.function.endswith(families):
        return None
    blob = pack_weights(kernel.layout, case.weights, case.conv.weight_bits, p).tobytes()
    assert len(blob) == kernel.weight_bytes
    moved = renamed(case, kernel.function, weights=blob, scratch=kernel.scratch_bytes)
    own: list[Any] = list(moved.buffers)
    own[1] = (4, blob)
    if kernel.packs_parameters:
        own = own[:2]
    return replace(moved, buffers=tuple(own))


def _bits(case: Case) -> set[int]:
    """Of the tensors of an addition or of a pool without dilation; of another none."""
    s = case.scalars
    if case.kernel == "mcuq_add":
        return set(s[3:6])
    return {s[3], s[7]} if s[12:14] == (1, 1) else set()
