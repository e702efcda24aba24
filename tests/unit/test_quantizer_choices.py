"""What the command line allows of quantizers, levels and folding, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from mcuq.errors import UsageError
from mcuq.ir.plans import BitPlan, Limits, TensorBits
from mcuq.pipeline import quantizers
from mcuq.pipeline.settings import BitChoice, TrainSettings


def settings(bits: BitChoice | None = None, **given: object) -> TrainSettings:
    return TrainSettings(None, "digits", bits or BitChoice(), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "weight_bits", "act_bits"),
    [
        ({"weight_range": 1}, 2, None),
        ({"weight_range": 15, "quant_type": "PerLayerSATDefault"}, 8, None),
        ({"weight_range": 15, "quant_type": "PerLayerSATFullRange", "act_range": 2}, 8, 2),
        ({"weight_range": 14, "quant_type": "PerLayerDoReFa", "act_range": 15}, 4, 4),
        ({"act_type": "none"}, None, 8),
    ],
)
def test_ranges_decide_the_stored_bits(given: dict[str, object], weight_bits: int | None, act_bits: int | None) -> None:
    choice = quantizers.checked(settings(**given)).choice
    assert (choice.weight_bits, choice.act_bits) == (weight_bits, act_bits)


@pytest.mark.parametrize(
    ("given", "bits", "text"),
    [
        ({"quant_type": "LSQ"}, BitChoice(), "quant_type must be one of PerLayerAsymPACT"),
        ({"act_type": "ReLU"}, BitChoice(), "act_type must be one of LSQ, LSQ\\+, PACT"),
        ({"fold_type": "none"}, BitChoice(), "folding_weights, ICN, folding_thresholds"),
        ({"fold_type": "folding_weights", "quant_type": "PerLayerSATDefault"}, BitChoice(), "with --fold-type ICN or"),
        ({"fold_type": "folding_thresholds"}, BitChoice(act_bits=8), "needs outputs of 2 or 4 bits"),
        ({"weight_range": 3}, BitChoice(weight_bits=4), "--weight-range decides the bits"),
        ({"act_range": 3}, BitChoice(bits=Path("bits.json")), "--act-range decides the bits"),
        ({"act_type": "none"}, BitChoice(act_bits=4), "stores activations with 8 bits"),
        ({"weight_range": 255, "quant_type": "PerLayerSATDefault"}, BitChoice(), "take range 254"),
        ({"scaling": "fixed12"}, BitChoice(), "scaling must be one of exact"),
        ({}, BitChoice(granularity="row"), "--granularity 'row' is unknown; use channel, layer, auto"),
        ({}, BitChoice(granularity="auto"), "--granularity needs limits to search under"),
        ({}, BitChoice(granularity="layer", weight_bits=4), "--granularity holds for the exact search"),
        ({"quant_type": "PerLayerSymMSE"}, BitChoice("9,9", granularity="auto"), "auto does not go with --quant-type"),
        ({"quant_type": "PerChannelsSATDefault"}, BitChoice("9,9", granularity="layer"), "layer does not go with"),
    ],
)
def test_wrong_choices_say_what_is_allowed(given: dict[str, object], bits: BitChoice, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        quantizers.checked(settings(bits, **given))


@pytest.mark.parametrize(
    ("given", "bits", "granularity"),
    [
        ({}, BitChoice("90000,9000"), "channel"),
        ({"fold_type": "folding_weights"}, BitChoice("90000,9000"), "auto"),
        ({"fold_type": "folding_weights"}, BitChoice("90000,9000", mixed="MixPL"), "channel"),
        ({"fold_type": "folding_weights"}, BitChoice("90000,9000", weight_bits=4), "channel"),
        ({"fold_type": "folding_weights"}, BitChoice("90000,9000", granularity="channel"), "channel"),
        ({"fold_type": "folding_weights"}, BitChoice(), "channel"),
        ({"fold_type": "folding_weights", "quant_type": "PerLayerSymMSE"}, BitChoice("90000,9000"), "channel"),
        ({"quant_type": "PerChannelsSATDefault"}, BitChoice("90000,9000"), "channel"),
        ({}, BitChoice("90000,9000", granularity="layer"), "layer"),
    ],
)
def test_steps_are_chosen_where_batch_norm_is_folded(
    given: dict[str, object], bits: BitChoice, granularity: str
) -> None:
    assert quantizers.checked(settings(bits, **given)).choice.granularity == granularity


def test_a_layer_with_one_step_does_not_keep_multipliers() -> None:
    tensors = tuple(TensorBits(f"{n}.weight", n, "weight", 4, 10, "layer" if n == "a" else "channel") for n in "ab")
    tensors += tuple(TensorBits(n, n, "activation", 8, 10) for n in "ab")
    plan = BitPlan(tensors, "FEASIBLE", 0.0, 0.0, 1, 1, Limits(9, 9), "given")
    entries = quantizers.layer_entries(plan, settings(fold_type="folding_thresholds"))
    assert entries == [{"layer": "b", "fold_type": "ICN"}]


def test_ranges_leave_both_ends_and_overrides_come_from_a_file(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    tensors = tuple(TensorBits(f"{n}.weight", n, "weight", 4, 10) for n in names)
    tensors += tuple(TensorBits(n, n, "activation", 8 if n == "b" else 4, 10) for n in names)
    plan = BitPlan(tensors, "FEASIBLE", 0.0, 0.0, 1, 1, Limits(9, 9), "given")
    entries = quantizers.layer_entries(plan, settings(weight_range=7, act_range=5, fold_type="folding_thresholds"))
    assert {"layer": "b", "fold_type": "ICN"} in entries
    assert [e["layer"] for e in entries if "w_range" in e] == ["b"]
    assert [e["layer"] for e in entries if "a_range" in e] == ["a", "b", "c"]
    file = tmp_path / "layers.json"
    file.write_text('[{"layer": "c", "w_bits": 8}]')
    assert quantizers.layer_entries(plan, settings(layer_config=file)) == [{"layer": "c", "w_bits": 8}]
    for text in ("{", '{"layer": "c"}', "[3]"):
        file.write_text(text)
        with pytest.raises(UsageError, match="--layer-config"):
            quantizers.layer_entries(plan, settings(layer_config=file))
