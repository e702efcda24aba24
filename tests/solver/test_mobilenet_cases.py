"""The 32 MobileNetV1 cases: the exact planner proves its optimum quickly and never loses to the rule."""

from __future__ import annotations

import time

import pytest
from mobilenet_table import mobilenet_v1
from tables import synthetic

from mcuq.errors import InfeasibleError
from mcuq.ir.plans import Limits
from mcuq.plan.exact import solve
from mcuq.plan.infeasible import NoPlanError
from mcuq.plan.rules import mixed

BUDGETS = (Limits(2_048_000, 512_000), Limits(1_048_576, 524_288))
FITS_AT_8 = {(0.5, 192), (0.5, 160), (0.5, 128), (0.25, 224), (0.25, 192), (0.25, 160), (0.25, 128)}
"""Nets that the larger budget holds at 8 bits everywhere."""


@pytest.mark.slow
@pytest.mark.parametrize("limits", BUDGETS, ids=lambda limits: str(limits.flash))
@pytest.mark.parametrize("width", [1.0, 0.75, 0.5, 0.25])
@pytest.mark.parametrize("resolution", [224, 192, 160, 128])
def test_case(limits: Limits, width: float, resolution: int) -> None:
    graph = mobilenet_v1(width, resolution)
    better = 0
    for seed in range(5):
        table = synthetic(graph, seed)
        for scheme in ("MixPL", "MixPC"):
            try:
                rule = mixed(graph, limits, scheme, sensitivity=table)
            except InfeasibleError:
                rule = None
            begin = time.process_time()
            try:
                plan = solve(graph, table, limits, byte_model="paper", scheme=scheme)
            except NoPlanError:
                plan = None
            assert time.process_time() - begin < 10
            assert (plan is None) == (rule is None)
            if plan is not None and rule is not None:
                assert plan.status == "OPTIMAL"
                # Better, or the rule's plan is proved optimal: its loss is the proved bound.
                assert plan.objective < rule.objective or rule.objective == pytest.approx(plan.bound, rel=1e-12)
                better += plan.objective < rule.objective * (1 - 1e-9)
        begin = time.process_time()
        if width == 1.0 and limits.flash < 2**20 + 1:
            with pytest.raises(NoPlanError, match="flash of 1048576 bytes"):
                solve(graph, table, limits)
            assert time.process_time() - begin < 1
        else:
            assert solve(graph, table, limits).status == "OPTIMAL"
            assert time.process_time() - begin < 10
    if width == 1.0 and limits.flash > 2**20 + 1:
        assert better == 10  # the budget binds in flash and RAM, and the rule knows no losses
    if limits.flash > 2**20 + 1 and (width, resolution) in FITS_AT_8:
        assert better == 0
