"""From what a user asked of quantizers and folding to a :class:`QuantOp`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mcuq.data import Dataset
from mcuq.errors import UsageError
from mcuq.ir.plans import BitPlan
from mcuq.ir.scaling import check_scaling
from mcuq.pipeline.bits import layer_types
from mcuq.pipeline.settings import TrainSettings

if TYPE_CHECKING:
    from mcuq.quant import QuantOp

FREE_CHOICES = ("quant_type", "act_type", "scaling", "clamp_epochs")
"""Settings that QuantOp takes as they are."""


def checked(settings: TrainSettings) -> TrainSettings:
    """``settings`` with the stored bits that ranges of levels need.

    Raises:
        UsageError: unknown quantizers, or choices that contradict each other; before anything is trained.
    """
    from mcuq.quant import activations, weights
    from mcuq.quant.layer import FOLD_TYPES

    choice = settings.choice
    choice.check()
    _overrides(settings.layer_config)
    quant_type, fold_type = settings.quant_type or "PerChannelsSymMSE", settings.fold_type or "ICN"
    one = weights.make(quant_type, choice.weight_bits or 8, 1, steps=settings.weight_range)
    if fold_type not in FOLD_TYPES:
        raise UsageError(f"--fold-type must be one of {', '.join(FOLD_TYPES)}, got {fold_type!r}")
    if one.rescales and fold_type == "folding_weights":
        raise UsageError(f"--quant-type {quant_type} goes with --fold-type ICN or folding_thresholds only")
    choice = choice.resolved(folds=fold_type == "folding_weights" and quant_type.startswith("PerChannels"))
    if choice.granularity != "channel" and (one.rescales or not one.per_channel):
        raise UsageError(
            f"--granularity {choice.granularity} does not go with --quant-type {quant_type}; leave one out"
        )
    check_scaling(settings.scaling or "exact")
    act = activations.make(settings.act_type or "LSQ", choice.act_bits or 8, signed=False, steps=settings.act_range)
    if fold_type == "folding_thresholds" and act.bits == 8 and (choice.act_bits or settings.act_range):
        raise UsageError("--fold-type folding_thresholds needs outputs of 2 or 4 bits: take --act-bits 4 or 2, or ICN")
    if settings.act_type == "none" and choice.act_bits not in (None, 8):
        raise UsageError("--act-type none stores activations with 8 bits; leave --act-bits out")
    for name, range_, bits in (
        ("--weight", settings.weight_range, choice.weight_bits),
        ("--act", settings.act_range, choice.act_bits),
    ):
        if range_ is not None and (bits is not None or choice.bits is not None or choice.mixed is not None):
            raise UsageError(f"{name}-range decides the bits; leave {name}-bits, --bits and --mixed out")
    if settings.weight_range is not None:
        choice = replace(choice, weight_bits=one.bits)
    if settings.act_range is not None or settings.act_type == "none":
        choice = replace(choice, act_bits=act.bits)
    return replace(settings, choice=choice)


def network(module: Any, dataset: Dataset, settings: TrainSettings, plan: BitPlan, epochs: int, **more: Any) -> QuantOp:
    """``module`` with the quantizers of ``plan``, to be trained for ``epochs``."""
    from mcuq.quant import QuantOp
    from mcuq.quant import train as loops

    given = {name: getattr(settings, name) for name in FREE_CHOICES}
    fold_type, entries = settings.fold_type or "ICN", layer_entries(plan, settings)
    folds = any(e.get("fold_type", fold_type) == "folding_weights" for e in ({}, *entries))
    changes = settings.clamp_epochs or folds or any(t.granularity == "layer" for t in plan.tensors)
    delay = (
        loops.default_fold_delay(epochs, changes=bool(changes)) if settings.fold_delay is None else settings.fold_delay
    )
    return QuantOp(
        module,
        input_shape=dataset.input_shape,
        fold_type=fold_type,
        fold_delay=delay,
        bits=plan,
        layer_config=entries,
        normalization=dataset.normalization,
        branch_quant=settings.branch_quant,
        **{name: value for name, value in given.items() if value is not None},
        **more,
    )


def layer_entries(plan: BitPlan, settings: TrainSettings) -> list[dict[str, Any]]:
    """Choices per layer: the plan's, what folding and ranges imply, then the user's file. Raises UsageError."""
    implied = [*_without_thresholds(plan, settings), *_ranges(plan, settings)]
    return [*layer_types(plan), *implied, *_overrides(settings.layer_config)]


def _without_thresholds(plan: BitPlan, settings: TrainSettings) -> list[dict[str, Any]]:
    """Layers whose output the plan gives 8 bits keep multipliers where the others fold into thresholds."""
    if settings.fold_type != "folding_thresholds":
        return []
    layers = {t.layer for t in plan.tensors if t.kind == "weight" and t.granularity == "channel"}
    wide = [t.layer for t in plan.tensors if t.kind == "activation" and t.bits == 8 and t.layer in layers]
    return [{"layer": layer, "fold_type": "ICN"} for layer in wide]


def _ranges(plan: BitPlan, settings: TrainSettings) -> list[dict[str, Any]]:
    """Levels of every layer's weights but the first's and last's, and of every layer's output."""
    layers = [t.layer for t in plan.tensors if t.kind == "weight"]
    entries: list[dict[str, Any]] = []
    for layer in layers:
        if settings.weight_range is not None and layer not in (layers[0], layers[-1]):
            entries.append({"layer": layer, "w_range": settings.weight_range})
        if settings.act_range is not None:
            entries.append({"layer": layer, "a_range": settings.act_range})
    return entries


def _overrides(path: Path | None) -> list[dict[str, Any]]:
    """The list of choices per layer in a JSON file. Raises UsageError."""
    if path is None:
        return []
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"--layer-config {path} cannot be read: {error}") from error
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in cast("list[Any]", found)):
        raise UsageError(f'--layer-config {path} has to hold a list, [{{"layer": "conv1", "w_bits": 8}}, ...]')
    return cast("list[dict[str, Any]]", found)
