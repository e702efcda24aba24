"""Figures of whole models: exact outputs, nothing 1 % above the stored figures, targets that were met stay met."""

from __future__ import annotations

from dataclasses import replace

import pytest
from model_bench import BASELINE, MODELS, Model, Result, from_json, regressions, run

STORED = from_json(BASELINE.read_text(encoding="ascii"))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["int8", "int4"])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_whole_model_is_exact_and_no_dearer(model: Model, variant: str) -> None:
    result = run(model, variant, "cortex-m4")
    assert regressions([result], STORED) == []
    assert result.arena == result.bound
    if variant == "int8":
        assert model.target.instructions is not None and result.instructions <= model.target.instructions


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["int8", "int4"])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_whole_model_with_helium(model: Model, variant: str) -> None:
    result = run(model, variant, "cortex-m55")
    assert regressions([result], STORED) == []
    assert result.instructions <= model.m55[1]
    assert result.instructions <= 1.05 * stored(model.name, "int8", "cortex-m55").instructions


def stored(model: str, variant: str, core: str = "cortex-m4") -> Result:
    return next(r for r in STORED if r.key == (core, model, variant))


def test_a_regression_and_a_wrong_byte_are_reported() -> None:
    old = stored("ds_cnn", "int8")
    assert regressions([old], STORED) == []
    for what in ("instructions", "arena", "flash"):
        dearer = replace(old, **{what: getattr(old, what) * 102 // 100})
        assert len(regressions([dearer], STORED)) == 1
    assert len(regressions([replace(old, exact=False)], STORED)) == 1
