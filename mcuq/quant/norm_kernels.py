"""Loops of batch norm and of sums, with the fake quantization after them; native only (``mcuq.quant.kernels``)."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from mcuq.quant.kernels import Branch, Grid, Shape, layout_of, like, native


def norm_quantize(
    x: Tensor, gamma: Tensor, beta: Tensor, running: tuple[Tensor, Tensor], momentum: float, epsilon: float, grid: Grid
) -> tuple[Tensor, Tensor]:
    """Batch norm by the statistics of ``x`` [N, C, H, W] (``layout_of`` knows it), then ``grid``.

    Args:
        running: running mean and variance [C], which move by ``momentum`` towards those of ``x``.

    Returns:
        (result like ``x``, what the backward pass needs [4, C]).
    """
    layout = layout_of(x)
    assert layout is not None
    y, saved = torch.empty_like(x), torch.empty(4, x.shape[1])
    mean, variance = running
    pointers = x.data_ptr(), y.data_ptr(), gamma.data_ptr(), beta.data_ptr(), saved.data_ptr()
    pointers = *pointers, mean.data_ptr(), variance.data_ptr()
    _check(native().norm[layout](*pointers, _shape(x, epsilon, momentum), grid))
    return y, saved


def norm_statistics(
    x: Tensor, gamma: Tensor, beta: Tensor, running: tuple[Tensor, Tensor], momentum: float, epsilon: float
) -> Tensor:
    """What :func:`norm_quantize` keeps for the backward pass, [4, C]; the last two rows are gain and offset."""
    layout = layout_of(x)
    assert layout is not None
    saved = torch.empty(4, x.shape[1])
    pointers = (t.data_ptr() for t in (gamma, beta, saved, *running))
    _check(native().norm[layout](x.data_ptr(), None, *pointers, _shape(x, epsilon, momentum), Grid()))
    return saved


def add_quantize(
    a: Tensor, b: Tensor, affine: tuple[Tensor | None, Tensor | None], grids: tuple[Grid, Grid | None], grid: Grid
) -> tuple[Tensor, Tensor]:
    """``grid`` of the sum of ``a`` and ``b`` [N, C, H, W] of one layout, each quantized before.

    Args:
        affine: [4, C] of :func:`norm_statistics`, whose gain and offset come first; None for neither.
        grids: None adds ``b`` as it is.

    Returns:
        (the result, what :func:`quantize_gradient` needs of the sum).
    """
    y, places = torch.empty_like(a), torch.empty_like(a, dtype=torch.int16)
    branches = [_branch(*parts) for parts in zip((a, b), affine, grids, strict=True)]
    pointers, rows = (y.data_ptr(), places.data_ptr()), layout_of(a) == "rows"
    _check(native().add_quantize(*branches, *pointers, _shape(a, 0.0, 0.0), grid, rows))
    return y, places


def _branch(x: Tensor, affine: Tensor | None, grid: Grid | None) -> Branch:
    gain, offset = (None, None) if affine is None else (affine[2].data_ptr(), affine[3].data_ptr())
    return Branch(x.data_ptr(), gain, offset, None if grid is None else ctypes.pointer(grid))


def norm_quantize_gradient(x: Tensor, g: Tensor, saved: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``x`` and of gamma and beta [2, C], and the sums of :func:`quantize_gradient`."""
    layout = layout_of(x)
    assert layout is not None
    g = like(g, x)
    dx, dnorm, sums = torch.empty_like(x), torch.empty(2, x.shape[1]), torch.empty(3, dtype=torch.float64)
    pointers = x.data_ptr(), g.data_ptr(), dx.data_ptr(), saved.data_ptr(), dnorm.data_ptr(), sums.data_ptr()
    _check(native().norm_gradient[layout](*pointers, _shape(x, 0.0, 0.0), grid))
    return dx, dnorm, sums


def _shape(x: Tensor, epsilon: float, momentum: float) -> Shape:
    images, channels, height, width = x.shape
    return Shape(images, channels, height * width, epsilon, momentum, torch.get_num_threads())


def _check(status: int) -> None:
    if status != 0:
        raise MemoryError("can't allocate memory for the sums of a batch norm")
