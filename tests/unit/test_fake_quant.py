"""Fake quantization as one operator: native kernels, torch operations and plain arithmetic agree."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import Tensor  # noqa: E402

from mcuq.build.host_library import host_library, loaded_openmp  # noqa: E402
from mcuq.build.toolchain import WARNINGS, host_clang, host_gcc, run_tool  # noqa: E402
from mcuq.errors import ToolchainError, UsageError  # noqa: E402
from mcuq.quant import kernels, norm_kernels  # noqa: E402
from mcuq.quant.fake_quant import (  # noqa: E402
    Branch,
    Learned,
    Norm,
    Rule,
    add_quantize,
    fake_quantize,
    norm_quantize,
)

GRIDS = {
    "unsigned 2": (0.7, 0.0, 3.0),
    "unsigned 4": (0.11, 0.0, 15.0),
    "signed 4": (0.2, -7.0, 8.0),
    "unsigned 8": (0.013, 0.0, 255.0),
    "signed 8": (0.02, -128.0, 127.0),
}
SHAPES = [(1,), (3, 5), (2, 3, 5, 7), (4, 16, 33, 33)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2


def rule_of(name: str, parameter: Tensor | None = None) -> Rule:
    step, low, high = GRIDS[name]
    step = float(np.float32(step))
    learned = () if parameter is None else (Learned(parameter, 1.0, 0.5, -2.0),)
    return Rule(step, low, high, low * step, high * step, learned)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", GRIDS)
def test_values_and_sums_equal_plain_arithmetic(name: str, shape: tuple[int, ...]) -> None:
    x, g = normal(*shape), normal(*shape, seed=1)
    p = torch.tensor(1.0, requires_grad=True)
    x.requires_grad_()
    rule = rule_of(name, p)
    y = fake_quantize(x, rule)
    y.backward(g)
    v, w, s = x.detach().numpy(), g.double().numpy(), np.float32(rule.step)
    codes = np.clip(np.floor(v / s + np.float32(0.5)), rule.low, rule.high)
    assert np.array_equal(y.detach().numpy(), (codes * s).astype(np.float32))
    below, above = v <= np.float32(rule.bottom), v >= np.float32(rule.top)
    inside = ~(below | above)
    assert x.grad is not None and np.array_equal(x.grad.numpy(), np.where(inside, g.numpy(), 0))
    terms = w * (codes * s - v.astype(np.float64))
    expected = terms[inside].sum() + 0.5 * w[below].sum() - 2.0 * w[above].sum()
    assert p.grad is not None
    assert float(p.grad) == pytest.approx(expected, rel=1e-4, abs=5e-5 * math.sqrt(v.size))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", GRIDS)
def test_native_and_torch_give_the_same_bits(name: str, layout: torch.memory_format) -> None:
    x = normal(5, 6, 17, 19).to(memory_format=layout)
    x[0, 0, 0] = torch.tensor([math.nan, math.inf, -math.inf, *[(i + 0.5) * GRIDS[name][0] for i in range(16)]])
    g, rule = normal(5, 6, 17, 19, seed=2), rule_of(name)
    results: list[tuple[Tensor, Tensor]] = []
    for means in ("native", "torch"):
        with kernels.use(means):
            value = x.clone().requires_grad_()
            y = fake_quantize(value, rule)
            y.backward(g)
        assert value.grad is not None and y.stride() == x.stride()
        assert math.isnan(float(y.detach()[0, 0, 0, 0])), "NaN is not hidden"
        value.grad[0, 0, 0, 0] = 0.0  # the gradient of NaN is nobody's
        results.append((y.detach(), value.grad))
    assert torch.equal(results[0][0].nan_to_num(), results[1][0].nan_to_num())
    assert torch.equal(results[0][1], results[1][1])


def test_strided_inputs_and_gradients() -> None:
    rule = rule_of("signed 4")
    whole = normal(4, 8, 6, 6)
    part = whole[:, ::2, 1:].requires_grad_()
    y = fake_quantize(part, rule)
    assert torch.equal(y, fake_quantize(part.detach().contiguous(), rule))
    y.mean(dim=(2, 3)).sum().backward()  # an expanded gradient
    assert part.grad is None or part.grad.shape == part.shape


def test_sums_do_not_depend_on_the_number_of_threads() -> None:
    x, g, grid = normal(8, 16, 40, 40), normal(8, 16, 40, 40, seed=1), rule_of("unsigned 4").grid
    before = torch.get_num_threads()
    sums: list[list[float]] = []
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            for kept in (x, kernels.quantize_keeping(x, grid)[1]):
                sums.append(kernels.quantize_gradient(kept, g, grid)[1].tolist())
    finally:
        torch.set_num_threads(before)
    assert sums[2:] == sums[:2] * 3
    assert sums[0] == pytest.approx(sums[1], rel=1e-4)


def test_kernels_are_chosen_by_name() -> None:
    x = torch.zeros(2)
    assert kernels.means_for(x.double()) == "torch"
    for means in ("native", "torch"):
        with kernels.use(means):
            assert kernels.means_for(x) == means
    with pytest.raises(UsageError, match="native, compile, torch"), kernels.use("fast"):  # type: ignore[arg-type]
        pass


def test_without_a_compiler_torch_does_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for function in (kernels.native, kernels.why_not_native):
        function.cache_clear()
    try:
        x = torch.tensor([0.4, 0.6])
        assert kernels.means_for(x) == "torch"
        assert "clang was not found" in str(kernels.why_not_native())
        assert fake_quantize(x, Rule(1.0, 0.0, 1.0, 0.0, 1.0)).tolist() == [0.0, 1.0]
        with pytest.raises(ToolchainError, match="not found"), kernels.use("native"):
            pass
    finally:
        for function in (kernels.native, kernels.why_not_native):
            function.cache_clear()


def test_libraries_are_compiled_once(tmp_path: Path) -> None:
    source = tmp_path / "add" / "add.c"
    source.parent.mkdir()
    source.write_text("int add(int a, int b) { return a + b; }\n")
    first = host_library([source], tmp_path / "cache")
    stamp = first.stat().st_mtime_ns
    assert host_library([source], tmp_path / "cache") == first and first.stat().st_mtime_ns == stamp
    source.write_text("int add(int a, int b) { return a + b + 1; }\n")
    assert host_library([source], tmp_path / "cache") != first
    source.write_text("int add(\n")
    with pytest.raises(ToolchainError, match=r"cannot compile add\.c"):
        host_library([source], tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_one_pool_of_threads() -> None:
    """The kernels run on the OpenMP library that torch loaded, not on the compiler's."""
    kernels.quantize(torch.zeros(4), kernels.Grid(1, 0, 1, 0, 1))
    lines = Path("/proc/self/maps").read_text().splitlines()
    found = {line.split(maxsplit=5)[5] for line in lines if "libgomp" in line or "libomp" in line}
    mine = loaded_openmp()
    packages = Path(torch.__file__).resolve().parents[1]
    assert kernels.why_not_native() is None and mine in found and "torch" in Path(mine).parts
    assert all(Path(file).is_relative_to(packages) for file in found)


@pytest.mark.parametrize("source", kernels.SOURCES, ids=lambda path: path.name)
@pytest.mark.parametrize("compiler", [host_gcc, host_clang])
def test_sources_compile_without_warnings(compiler: object, source: Path, tmp_path: Path) -> None:
    try:
        tool = compiler()  # type: ignore[operator]
    except ToolchainError as error:
        pytest.skip(str(error))
    warnings = [flag.replace("-Wcast-align=strict", "-Wcast-align") for flag in WARNINGS]
    warnings += ["-Wno-pass-failed"] if "clang" in tool.name else []  # a loop that clang does not vectorize
    command = [
        tool.compiler,
        "-std=c11",
        "-O1",
        "-fopenmp-simd",
        *warnings,
        "-c",
        str(source),
        "-o",
        str(tmp_path / "o"),
    ]
    run_tool(command, f"{tool.name}: {source.name}")


# -- batch norm, clip and quantization in one ---------------------------------------------------------------

NORMED = [(64, 16, 9, 9), (3, 5, 7, 11), (8, 1, 6, 6), (16, 24, 1, 1), (2, 130, 3, 3), (40, 8, 24, 24)]


def batch_norm(x: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Batch norm in float64 by its definition: (result, mean, biased variance)."""
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    column = (1, -1, 1, 1)
    scaled = (x - mean.view(column)) / (variance + 1e-5).sqrt().view(column)
    return scaled * gamma.view(column) + beta.view(column), mean.detach(), variance.detach()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", NORMED, ids=str)
@pytest.mark.parametrize("name", ["unsigned 2", "signed 4", "unsigned 8"])
def test_norm_and_quantization_equal_the_definition(
    name: str, shape: tuple[int, ...], layout: torch.memory_format
) -> None:
    channels = shape[1]
    spread = torch.linspace(0.1, 4.0, channels).view(1, -1, 1, 1)
    x = (normal(*shape) * spread + 3 * spread).to(memory_format=layout).requires_grad_()
    gamma = normal(channels, seed=3).requires_grad_()
    beta = normal(channels, seed=4).requires_grad_()
    step = torch.tensor(1.0, requires_grad=True)
    rule = rule_of(name, step)
    wide = [t.detach().double().requires_grad_() for t in (x, gamma, beta)]
    v, mean, variance = batch_norm(*wide)
    ratio = v.detach() / rule.step
    # Close to the boundary of two codes, or of the range, float32 may take either: no gradient comes from there.
    sure = ((ratio + 0.5) - (ratio + 0.5).round()).abs() > 1e-3
    sure &= torch.minimum((ratio - rule.low).abs(), (ratio - rule.high).abs()) > 1e-3
    g = normal(*shape, seed=5) * sure
    running = torch.zeros(channels), torch.ones(channels)
    y = norm_quantize(x, Norm(gamma, beta, running, 0.25, 1e-5), rule)
    y.backward(g)
    codes = (ratio + 0.5).floor().clamp(rule.low, rule.high)
    assert y.stride() == x.stride()
    assert torch.equal(y.detach()[sure], (codes.float() * np.float32(rule.step))[sure])
    assert float((y.detach() - codes * rule.step).abs().max()) <= rule.step * 1.001
    inside = (ratio > rule.low) & (ratio < rule.high)
    v.backward(g.double() * inside)
    for got, want in zip((x, gamma, beta), wide, strict=True):
        assert got.grad is not None and want.grad is not None
        torch.testing.assert_close(got.grad.double(), want.grad, rtol=1e-4, atol=2e-5 * float(want.grad.abs().max()))
    terms = torch.where(inside, codes * rule.step - v.detach(), torch.where(ratio <= rule.low, 0.5, -2.0)) * g
    assert step.grad is not None
    assert float(step.grad) == pytest.approx(float(terms.sum()), rel=1e-4, abs=1e-5 * float(terms.abs().sum()))
    unbiased = variance * (v[:, 0].numel() / (v[:, 0].numel() - 1))
    torch.testing.assert_close(running[0].double(), 0.25 * mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(running[1].double(), 0.75 + 0.25 * unbiased, rtol=1e-5, atol=1e-7)


def branch(kind: str, shape: tuple[int, ...], layout: torch.memory_format, seed: int) -> tuple[Branch, list[Tensor]]:
    """(A branch, everything that its gradients and running statistics land in)."""
    x = normal(*shape, seed=seed).to(memory_format=layout).requires_grad_()
    if kind == "plain":
        return Branch(x), [x]
    step = torch.tensor(1.0, requires_grad=True)
    rule = rule_of("signed 4", step)
    if kind == "quantized":
        return Branch(x, rule), [x, step]
    gamma, beta = (normal(shape[1], seed=seed + i).requires_grad_() for i in (1, 2))
    running = torch.zeros(shape[1]), torch.ones(shape[1])
    return Branch(x, rule, Norm(gamma, beta, running, 0.1, 1e-5)), [x, step, gamma, beta, *running]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(3, 5, 7, 11), (8, 16, 18, 18), (2, 130, 3, 3)], ids=str)
@pytest.mark.parametrize(
    "kinds",
    [("normed", "plain"), ("plain", "normed"), ("normed", "normed"), ("quantized", "plain"), ("normed", "quantized")],
)
def test_sums_in_one_pass_equal_one_after_the_other(
    kinds: tuple[str, str], shape: tuple[int, ...], layout: torch.memory_format
) -> None:
    results: list[list[Tensor]] = []
    for together in (True, False):
        pairs = [branch(kind, shape, layout, 10 * i) for i, kind in enumerate(kinds)]
        step = torch.tensor(1.0, requires_grad=True)
        a, b = (pair[0] for pair in pairs)
        rule = rule_of("unsigned 4", step)
        y = add_quantize(a, b, rule) if together else fake_quantize(a.value() + b.value(), rule)
        assert ("AddQuantize" in type(y.grad_fn).__name__) == together and y.stride() == a.x.stride()
        y.backward(normal(*shape, seed=7))
        found = [step, *pairs[0][1], *pairs[1][1]]
        results.append([y.detach(), *(t if t.grad is None else t.grad for t in found)])
    for one, other in zip(*results, strict=True):
        if one.dim() > 0:
            assert torch.equal(one, other)
        else:  # the gradient of a step: rounding errors are kept in 1/32760 of it where a branch stands alone
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_norm_and_quantization_do_not_depend_on_the_number_of_threads(layout: torch.memory_format) -> None:
    x, g = normal(16, 10, 30, 30).to(memory_format=layout), normal(16, 10, 30, 30, seed=1).to(memory_format=layout)
    gamma, beta, grid = normal(10, seed=2), normal(10, seed=3), rule_of("signed 4").grid
    before, results = torch.get_num_threads(), list[tuple[Tensor, ...]]()
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            running = torch.zeros(10), torch.ones(10)
            forward = norm_kernels.norm_quantize(x, gamma, beta, running, 0.1, 1e-5, grid)
            forward = *forward, *norm_kernels.add_quantize(x, g, (forward[1], None), (grid, grid), grid)
            results.append((*forward, *running, *norm_kernels.norm_quantize_gradient(x, g, forward[1], grid)))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_large_means_do_not_cancel() -> None:
    """Sums are of differences from the first value of a channel."""
    for layout in (torch.contiguous_format, torch.channels_last):
        x = (normal(16, 4, 20, 20) * 1e-2 + 1000.0).to(memory_format=layout)
        running, grid = (torch.zeros(4), torch.zeros(4)), rule_of("signed 8").grid
        norm_kernels.norm_quantize(x, torch.ones(4), torch.zeros(4), running, 1.0, 1e-5, grid)
        torch.testing.assert_close(running[1].double(), x.double().var((0, 2, 3)), rtol=1e-3, atol=0)


@pytest.mark.parametrize("shape", [(1, 1), (3, 27), (16, 145)], ids=str)
def test_rows_have_grids_of_their_own(shape: tuple[int, int]) -> None:
    rows, g = normal(*shape), normal(*shape, seed=1)
    steps = torch.linspace(0.05, 0.4, shape[0]).unsqueeze(1)
    lows, highs = torch.full_like(steps, -3.0), torch.linspace(2, 7, shape[0]).floor().unsqueeze(1)
    results: list[tuple[Tensor, ...]] = []
    for means in ("native", "torch"):
        with kernels.use(means):
            gradient = kernels.quantize_rows_gradient(rows, g, steps, lows, highs)
            results.append((kernels.quantize_rows(rows, steps, lows, highs), *gradient))
    native, plain = results
    assert torch.equal(native[0], plain[0]) and torch.equal(native[1], plain[1])
    torch.testing.assert_close(native[2], plain[2], rtol=1e-4, atol=1e-4)
    ratio = rows.double().numpy() / steps.double().numpy()
    below, above = ratio <= lows.numpy(), ratio >= highs.numpy()
    expected = [(g.numpy() * mask).sum(1) for mask in (below, above)]
    np.testing.assert_allclose(native[2][1:].numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_torch_compile_gives_the_same_bits() -> None:
    x, g = normal(2, 3, 8, 8), normal(2, 3, 8, 8, seed=1)
    for name in ("unsigned 4", "signed 8"):  # another step: nothing may be compiled into the function
        results: list[tuple[Tensor, Tensor]] = []
        for means in ("torch", "compile"):
            with kernels.use(means):
                value = x.clone().requires_grad_()
                y = fake_quantize(value, rule_of(name))
                y.backward(g)
            assert value.grad is not None
            results.append((y.detach(), value.grad))
        assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
