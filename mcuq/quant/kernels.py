"""The loops of fake quantization, by the best means this machine has.

``native``: C kernels, compiled once per machine (``mcuq.build.host_library``); float32 on the CPU.
``compile``: the torch operations below under ``torch.compile``.
``torch``: the torch operations, on any device.

All give the same bits forward; sums of gradients differ in the order of their terms. ``MCUQ_KERNELS`` or :func:`use`
choose; by default it is ``native`` with ``torch`` behind it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from mcuq.build.host_library import host_library
from mcuq.data.fetch import cache_folder
from mcuq.errors import ToolchainError, UsageError

Means = Literal["native", "compile", "torch"]
SOURCES = tuple(
    Path(__file__).with_name("native") / name for name in ("quantize.c", "norm_planes.c", "norm_rows.c", "add.c")
)


class Grid(ctypes.Structure):
    """``step * clamp(floor(x / step + rounding), low, high)``; gradients pass where bottom < x < top."""

    step: float
    low: float
    high: float
    bottom: float
    top: float
    rounding: float
    _fields_ = tuple((name, ctypes.c_float) for name in ("step", "low", "high", "bottom", "top", "rounding"))


class Shape(ctypes.Structure):
    """[images, channels, plane] of a batch norm's input, its epsilon, momentum, threads."""

    _fields_ = (
        *((name, ctypes.c_ssize_t) for name in ("images", "channels", "plane")),
        ("epsilon", ctypes.c_float),
        ("momentum", ctypes.c_float),
        ("threads", ctypes.c_int),
    )


class Branch(ctypes.Structure):
    """What is added: a tensor as it is, or (``grid``) quantized, after an affine map per channel if there is one."""

    _fields_ = (*((name, ctypes.c_void_p) for name in ("x", "gain", "offset")), ("grid", ctypes.POINTER(Grid)))


@dataclass(frozen=True, slots=True)
class Native:
    """Functions of the compiled kernels."""

    quantize: Callable[..., None]
    quantize_places: Callable[..., None]
    places_gradient: Callable[..., None]
    quantize_gradient: Callable[..., None]
    quantize_rows: Callable[..., None]
    quantize_rows_gradient: Callable[..., None]
    keep_memory: Callable[[], int]
    norm: dict[str, Callable[..., int]]
    norm_gradient: dict[str, Callable[..., int]]
    add_quantize: Callable[..., int]


_forced: list[Means] = []


@contextmanager
def use(means: Means) -> Generator[None]:
    """Force one of the means inside.

    Raises:
        UsageError: there is no such means. ToolchainError: native kernels cannot be compiled here.
    """
    _forced.append(_known(means))
    try:
        if means == "native":
            native()
        yield
    finally:
        _forced.pop()


def _known(means: str) -> Means:
    if means not in get_args(Means):
        raise UsageError(f"kernels must be one of {', '.join(get_args(Means))}, got {means!r}")
    return cast(Means, means)


def means_for(x: Tensor) -> Means:
    """What computes ``x``: native kernels take float32 on the CPU, torch everything."""
    asked = _forced[-1] if _forced else _asked()
    if asked != "native":
        return asked
    return "native" if x.dtype == torch.float32 and x.is_cpu and why_not_native() is None else "torch"


@cache
def _asked() -> Means:
    return _known(os.environ.get("MCUQ_KERNELS") or "native")


@cache
def why_not_native() -> str | None:
    """None when this machine has native kernels, else the reason."""
    try:
        native()
    except (ToolchainError, OSError) as error:
        return str(error)
    return None


@cache
def keep_memory() -> bool:
    """Let the process keep the memory that a training step frees for the next one; True where that is possible.

    By default the C library gives large tensors back to the system at once, and each step pays for fresh pages again:
    measured, up to a quarter of its time. Freed memory then stays with the process (up to 2 GiB) until it ends.
    """
    return why_not_native() is None and bool(native().keep_memory())


@cache
def native() -> Native:
    """Compiled on first use. Raises ToolchainError."""
    library = ctypes.CDLL(str(host_library(SOURCES, cache_folder() / "kernels")))
    pointer, index, integer = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int
    grid, shape, branch = (ctypes.POINTER(kind) for kind in (Grid, Shape, Branch))

    def function(name: str, *arguments: Any, result: Any = None) -> Any:
        found = getattr(library, f"mcuq_{name}")
        found.argtypes, found.restype = arguments, result
        return found

    forward, backward = (*[pointer] * 7, shape, grid), (*[pointer] * 6, shape, grid)
    return Native(
        function("quantize", pointer, pointer, index, grid, integer),
        function("quantize_places", pointer, pointer, pointer, index, grid, integer),
        function("places_gradient", pointer, pointer, pointer, index, ctypes.c_float, pointer, integer),
        function("quantize_gradient", *[pointer] * 3, index, grid, pointer, integer),
        function("quantize_rows", *[pointer] * 2, index, index, *[pointer] * 3),
        function("quantize_rows_gradient", *[pointer] * 4, index, index, *[pointer] * 3),
        function("keep_memory", result=integer),
        {kind: function(f"norm_{kind}", *forward, result=integer) for kind in ("planes", "rows")},
        {kind: function(f"norm_{kind}_gradient", *backward, result=integer) for kind in ("planes", "rows")},
        function("add_quantize", branch, branch, pointer, pointer, shape, grid, integer, result=integer),
    )


# -- one grid for a tensor ----------------------------------------------------------------------------------


def quantize(x: Tensor, grid: Grid) -> Tensor:
    """``x`` on ``grid``, in the same memory layout. A native ``x`` is dense, see :func:`dense`."""
    means = means_for(x)
    if means != "native":
        return _torch_function("quantize", means)(x, grid.step, grid.low, grid.high, grid.rounding)
    y = torch.empty_like(x)
    native().quantize(x.data_ptr(), y.data_ptr(), x.numel(), grid, torch.get_num_threads())
    return y


def quantize_keeping(x: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """:func:`quantize`, and what :func:`quantize_gradient` needs of ``x``.

    That is ``x`` itself, or natively two bytes a value: where it lies, and the rounding error in 1/32760 of a step.
    """
    if means_for(x) != "native":
        return quantize(x, grid), x
    y, places = torch.empty_like(x), torch.empty_like(x, dtype=torch.int16)
    pointers = x.data_ptr(), y.data_ptr(), places.data_ptr()
    native().quantize_places(*pointers, x.numel(), grid, torch.get_num_threads())
    return y, places


def quantize_gradient(kept: Tensor, g: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Gradient of x from that of the result, ``g``, and three sums, float64 [3].

    The sums are of g * (y - x) where bottom < x < top, of g where x <= bottom, and of g where x >= top.

    Args:
        kept: x, or what :func:`quantize_keeping` gave for it.
    """
    if kept.dtype != torch.int16 and means_for(kept) != "native":
        function = _torch_function("gradient", means_for(kept))
        return function(kept, g, grid.step, grid.low, grid.high, grid.rounding, grid.bottom, grid.top)
    dx, sums = torch.empty_like(kept, dtype=torch.float32), torch.empty(3, dtype=torch.float64)
    g = like(g, dx)
    pointers, threads = (kept.data_ptr(), g.data_ptr(), dx.data_ptr()), torch.get_num_threads()
    if kept.dtype == torch.int16:
        native().places_gradient(*pointers, kept.numel(), grid.step, sums.data_ptr(), threads)
    else:
        native().quantize_gradient(*pointers, kept.numel(), grid, sums.data_ptr(), threads)
    return dx, sums


def dense(x: Tensor) -> Tensor:
    """``x``, copied if its values have gaps between them in memory."""
    if x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)):
        return x
    return x.contiguous()


def layout_of(x: Tensor) -> str | None:
    """``rows`` (channels_last), ``planes`` (NCHW) or None (neither) of x [N, C, H, W]."""
    if x.dim() != 4:
        return None
    if x.is_contiguous(memory_format=torch.channels_last):
        return "rows"
    return "planes" if x.is_contiguous() else None


def like(g: Tensor, x: Tensor) -> Tensor:
    """``g`` in the memory layout and type of ``x``."""
    return g if g.stride() == x.stride() and g.dtype == x.dtype else torch.empty_like(x).copy_(g)


@cache
def _torch_function(name: str, means: Means) -> Callable[..., Any]:
    function: Callable[..., Any] = {"quantize": _quantize, "gradient": _gradient}[name]
    return torch.compile(function, dynamic=True) if means == "compile" else function


def _quantize(x: Tensor, step: float, low: float, high: float, rounding: float) -> Tensor:
    divisor = torch.full((), step, dtype=x.dtype, device=x.device)  # a number would be inverted on a GPU
    return (x / divisor).add_(rounding).floor_().clamp_(low, high).mul_(divisor)


def _gradient(
    x: Tensor, g: Tensor, step: float, low: float, high: float, rounding: float, bottom: float, top: float
) -> tuple[Tensor, Tensor]:
    dx = torch.ops.aten.hardtanh_backward(g, x, bottom, top)  # g where bottom < x < top, in one pass
    inside = _quantize(x, step, low, high, rounding).sub_(x).mul_(dx).sum()
    outside = g - dx
    above = torch.ops.aten.threshold_backward(outside, x, bottom).sum()
    return dx, torch.stack([inside, outside.sum() - above, above]).double()


# -- a step for each row ------------------------------------------------------------------------------------


def quantize_rows(rows: Tensor, steps: Tensor, lows: Tensor, highs: Tensor) -> Tensor:
    """Contiguous rows [R, K], each with a step and codes low .. high of its own, [R, 1]."""
    if means_for(rows) != "native":
        codes = torch.floor(rows / steps + 0.5)
        return torch.minimum(torch.maximum(codes, lows), highs) * steps
    y = torch.empty_like(rows)
    grids = steps.data_ptr(), lows.data_ptr(), highs.data_ptr()
    native().quantize_rows(rows.data_ptr(), y.data_ptr(), *rows.shape, *grids)
    return y


def quantize_rows_gradient(
    rows: Tensor, g: Tensor, steps: Tensor, lows: Tensor, highs: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradient dx of rows [R, K] (contiguous, as ``g`` is), which is g where low < x / step < high, and sums [3, R].

    The sums are the gradients of the steps' logarithms (of g * (y - x) inside and g * y outside), and of g at or
    below the low end, at or above the high end.
    """
    if means_for(rows) != "native":
        below, above = rows <= lows * steps, rows >= highs * steps
        dx = g * ~(below | above)
        dlog = (g * quantize_rows(rows, steps, lows, highs)).sum(1) - (dx * rows).sum(1)
        return dx, torch.stack([dlog, (g * below).sum(1), (g * above).sum(1)])
    dx, sums = torch.empty_like(rows), rows.new_empty((3, len(rows)))
    pointers = rows.data_ptr(), g.data_ptr(), dx.data_ptr(), sums.data_ptr()
    grids = steps.data_ptr(), lows.data_ptr(), highs.data_ptr()
    native().quantize_rows_gradient(*pointers, *rows.shape, *grids)
    return dx, sums
