"""A plan's bytes are those of the network that comes of it: arena planned and flash counted after lowering."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mcuq import zoo  # noqa: E402
from mcuq.frontend.torch import capture  # noqa: E402
from mcuq.ir.fuse import fuse  # noqa: E402
from mcuq.ir.graph import Graph, Normalization  # noqa: E402
from mcuq.ir.plans import BitPlan, Limits, Sensitivity  # noqa: E402
from mcuq.lower.lower import lower  # noqa: E402
from mcuq.plan.exact import solve  # noqa: E402
from mcuq.plan.memory import plan_memory  # noqa: E402
from mcuq.plan.pareto import pareto, references  # noqa: E402
from mcuq.quant.data_free import data_free  # noqa: E402
from mcuq.quant.ptq import ptq  # noqa: E402
from mcuq.target.footprint import footprint  # noqa: E402

CORE = "cortex-m3"


@cache
def measured(name: str) -> tuple[Graph, Sensitivity, list[BitPlan]]:
    """A network of the zoo, its sensitivities, and its plans to compare with."""
    torch.manual_seed(0)
    graph = fuse(capture(zoo.build(name), zoo.card(name).input_shape, Normalization(1 / 128, 128)).graph)
    table = data_free(graph)
    return graph, table, references(graph, table, Limits(10**9, 10**9), CORE)


@pytest.mark.parametrize("name", ["lenet", "ds_cnn", "resnet8"])
@pytest.mark.parametrize("tightness", [1.0, 0.5, 0.2])
def test_promised_bytes_are_the_lowered_networks(name: str, tightness: float) -> None:
    graph, table, (eight, four, *_) = measured(name)
    limits = Limits(
        int(four.flash_used + tightness * (eight.flash_used - four.flash_used)),
        int(four.ram_used + tightness * (eight.ram_used - four.ram_used)),
    )
    plan = solve(graph, table, limits, CORE)
    assert plan.status == "OPTIMAL"
    assert plan.objective >= eight.objective
    images = np.random.default_rng(0).integers(0, 256, (4, *graph.input.shape)).astype(np.uint8)
    integer = lower(ptq(graph, images, plan))
    memory = plan_memory(integer, CORE)
    promise = footprint(integer, memory, CORE)
    assert memory.arena_bytes == memory.lower_bound
    assert (promise.flash, promise.ram) == (plan.flash_used, plan.ram_used)


@pytest.mark.slow
def test_frontier_falls_and_holds_the_references() -> None:
    torch.manual_seed(0)
    graph = fuse(capture(zoo.build("ds_cnn"), zoo.card("ds_cnn").input_shape).graph)
    table = data_free(graph)
    eight = references(graph, table, Limits(10**9, 10**9), CORE)[0]
    for resource in ("flash", "ram"):
        frontier = pareto(graph, table, Limits(10**9, 10**9), CORE, resource=resource, points=6)
        used = [p.flash_used if resource == "flash" else p.ram_used for p in frontier.points]
        losses = [p.objective for p in frontier.points]
        assert len(losses) > 2
        assert used == sorted(used)
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] == pytest.approx(eight.objective)
        assert [p.method for p in frontier.references] == ["uniform 8", "uniform 4", "uniform 2", "MixPL", "MixPC"]
        for reference in frontier.references:
            same = Limits(reference.flash_used, reference.ram_used)
            assert solve(graph, table, same, CORE).objective <= reference.objective * (1 + 1e-12)
