"""Training at wider bits first: plans and configurations of the stages before the one that counts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mcuq.ir.plans import BitPlan
from mcuq.quant.settings import Phase, TrainConfig

_PHASES: dict[int, Phase] = {8: "qat-8", 4: "qat-4"}


@dataclass(frozen=True, slots=True)
class Stage:
    """One training; the last stage, phase "qat", has the plan's own bits."""

    phase: Phase
    plan: BitPlan
    config: TrainConfig


def stages(plan: BitPlan, config: TrainConfig) -> tuple[Stage, ...]:
    """8, then 4, then 2 bits, as far as ``plan`` goes down; wider stages share ``config.progressive`` of the epochs.

    Each wider stage has at least one epoch and the last one too; a single epoch is not divided.
    """
    narrowest = min((t.bits for t in plan.tensors), default=8)
    wider = [bits for bits in (8, 4) if bits > narrowest]
    spent = min(max(len(wider), round(config.epochs * config.progressive)), config.epochs - 1)
    if not wider or config.progressive == 0 or spent < len(wider):
        wider, spent = [], 0
    epochs = [spent // len(wider) + (i < spent % len(wider)) for i in range(len(wider))]
    first = tuple(
        Stage(_PHASES[bits], widened(plan, bits), replace(config, epochs=count))
        for bits, count in zip(wider, epochs, strict=True)
    )
    return (*first, Stage("qat", plan, replace(config, epochs=config.epochs - spent)))


def widened(plan: BitPlan, least: int) -> BitPlan:
    """``plan`` with no tensor below ``least`` bits; its byte counts stay those of the narrow plan."""
    return replace(plan, tensors=tuple(replace(t, bits=max(t.bits, least)) for t in plan.tensors))
