"""What a user asked for, before anything is loaded: models, limits, ways to choose bits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from mcuq.errors import UsageError
from mcuq.ir.plans import Limits
from mcuq.ir.samples import InputShape
from mcuq.pipeline.wishes import Pins, instruction_limit
from mcuq.target.board import load_board, optimized
from mcuq.target.cost import RAM_RESERVE
from mcuq.target.limits import parse_mem_constraint

METHODS = ("exact", "MixPL", "MixPC")
GRANULARITIES = ("channel", "layer", "auto")
MEASURES = ("kl", "fit", "sqnr", "hessian", "loss", "data-free")
DEFAULT_CORE = "cortex-m7"
SUFFIXES = (".onnx", ".tflite")
"""Model files."""
UNLIMITED = Limits(flash=1 << 31, ram=1 << 31)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model by zoo name or ``package.module:attribute``, and its options."""

    name: str
    width: float = 1.0
    resolution: int | None = None
    input_shape: InputShape | None = None
    classes: int | None = None

    @property
    def is_users_own(self) -> bool:
        return ":" in self.name

    @property
    def is_file(self) -> bool:
        return self.name.lower().endswith(SUFFIXES)


@dataclass(frozen=True, slots=True)
class BitChoice:
    """How bits are chosen: limits (from ``mem_constraint`` or ``board``) and a method, or fixed widths.

    Attributes:
        max_instructions, max_latency_ms: limits of predicted instructions (estimates; the latter by the board's clock).
        pins: (tensor, bits), named as in bits.json. groups: tensors that share bits.
        first_last_bits: fewest bits of the first and last layers' weights, where that fits.
        granularity: steps of weights, per channel or per layer, or ``auto``: chosen with the bits. None: see
            :meth:`resolved`.
        check_sensitivity: random plans on which the sensitivity's sums are held against true losses.
    """

    mem_constraint: str | None = None
    board: str | None = None
    mixed: str | None = None
    weight_bits: int | None = None
    act_bits: int | None = None
    bits: Path | None = None
    sensitivity: str = "kl"
    optimize: str = "speed"
    max_instructions: int | None = None
    max_latency_ms: float | None = None
    pins: Pins = ()
    groups: tuple[tuple[str, ...], ...] = ()
    first_last_bits: int = 2
    granularity: str | None = None
    check_sensitivity: int = 0

    def check(self) -> None:
        """Raises UsageError when choices contradict each other or do not exist."""
        if self.mixed is not None and self.mixed not in METHODS:
            raise UsageError(f"--mixed {self.mixed!r} is unknown; use {', '.join(METHODS)}")
        if self.sensitivity not in MEASURES:
            raise UsageError(f"--sensitivity {self.sensitivity!r} is unknown; use {', '.join(MEASURES)}")
        if self.granularity not in (None, *GRANULARITIES):
            raise UsageError(f"--granularity {self.granularity!r} is unknown; use {', '.join(GRANULARITIES)}")
        for name, value in (("--weight-bits", self.weight_bits), ("--act-bits", self.act_bits)):
            if value not in (None, 8, 4, 2):
                raise UsageError(f"{name} {value} is not possible; use 8, 4 or 2")
        fixed = self.weight_bits is not None or self.act_bits is not None
        ways = [
            n for n, on in (("--mixed", self.mixed), ("--weight-bits/--act-bits", fixed), ("--bits", self.bits)) if on
        ]
        if len(ways) > 1:
            raise UsageError(f"{' and '.join(ways)} contradict each other; give one")
        if self.mixed is not None and self.limits() is None:
            raise UsageError(f"--mixed {self.mixed} needs limits: --mem-constraint FLASH,RAM or --board NAME")
        self._check_wishes(searched=not fixed and self.bits is None and self.mixed in (None, "exact"))

    def _check_wishes(self, *, searched: bool) -> None:
        """Only the exact search knows pins, groups, floors and instructions."""
        if self.first_last_bits not in (8, 4, 2):
            raise UsageError(f"--first-last-bits {self.first_last_bits} is not possible; use 8, 4 or 2")
        wished = {
            "--pin": self.pins,
            "--share": self.groups,
            "--first-last-bits": self.first_last_bits > 2,
            "--granularity": self.granularity in ("layer", "auto"),
            "--max-instructions": self.max_instructions,
            "--max-latency-ms": self.max_latency_ms,
        }
        if named := [name for name, value in wished.items() if value]:
            if not searched:
                raise UsageError(f"{named[0]} holds for the exact search; leave --mixed, --weight-bits, --bits out")
            if self.limits() is None:
                raise UsageError(f"{named[0]} needs limits to search under: --mem-constraint FLASH,RAM or --board NAME")

    def resolved(self, *, folds: bool) -> BitChoice:
        """With a granularity: unless the user gave one, it is chosen where batch norm ``folds`` into the weights."""
        searched = self.bits is None and self.weight_bits is None and self.act_bits is None
        chosen = folds and searched and self.mixed in (None, "exact") and self.limits() is not None
        return self if self.granularity else replace(self, granularity="auto" if chosen else "channel")

    def limits(self) -> Limits | None:
        """Limits; an explicit constraint wins over the board's. None when nothing is given."""
        most = instruction_limit(self.max_instructions, self.max_latency_ms, self.board)
        if self.mem_constraint is not None:
            found = parse_mem_constraint(self.mem_constraint)
        elif self.board is not None:
            found = load_board(self.board).limits
        else:
            found = UNLIMITED if most is not None else None
        return None if found is None else replace(found, instructions=most)

    @property
    def core(self) -> str:
        """The core whose kernels are planned for."""
        core = load_board(self.board).core if self.board is not None else DEFAULT_CORE
        return optimized(core, self.optimize)

    @property
    def ram_reserve(self) -> int:
        """Bytes of the RAM limit kept for the stack: none on boards whose stack lies in a region of its own."""
        if self.board is None:
            return RAM_RESERVE
        placement = load_board(self.board).placement
        return RAM_RESERVE if placement.stack in placement.arena else 0

    @property
    def cuts(self) -> tuple[int, ...]:
        """Where the arena goes on in another RAM region of the board."""
        return () if self.board is None else load_board(self.board).cuts


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """Everything that determines a training run; None leaves a value to the recipe for the bits at hand.

    Attributes:
        model: None is the one for the data's image size, see ``default_model``.
        quant_type .. layer_config: as the arguments of ``mcuq.QuantOp``; layer_config is a JSON file of its list.
        images: training images used, the first ones.
        recipe: (name, value) of ``mcuq.quant.TrainConfig`` for quantization-aware training.
        tensorboard: write event files.
    """

    model: ModelSpec | None
    data: str
    choice: BitChoice
    data_dir: Path | None = None
    epochs: int | None = None
    float_epochs: int | None = None
    weights: Path | None = None
    quant_type: str | None = None
    fold_type: str | None = None
    fold_delay: int | None = None
    act_type: str | None = None
    weight_range: int | None = None
    act_range: int | None = None
    branch_quant: bool = True
    scaling: str | None = None
    clamp_epochs: int | None = None
    layer_config: Path | None = None
    logits: int = 8
    seed: int = 0
    batch_size: int | None = None
    lr: float | None = None
    optimizer: str | None = None
    device: str = "cpu"
    images: int | None = None
    recipe: tuple[tuple[str, str], ...] = ()
    tensorboard: bool = False


def default_model(shape: tuple[int, ...]) -> ModelSpec:
    """The model for images [H, W, C] when the user names none: small enough for a microcontroller at that size.

    Raises:
        UsageError: images of fewer than four rows or columns.
    """
    side = min(shape[0], shape[1])
    if side < 4:
        raise UsageError(
            f"images of {shape[0]} rows, {shape[1]} columns and {shape[2]} channels are too small for the models "
            "chosen by size; name one by --model, or store images as [N, H, W, C] if these are [N, C, H, W]"
        )
    if side < 16:
        return ModelSpec("resnet_tiny")
    if side < 64:
        return ModelSpec("resnet8")
    return ModelSpec("mobilenet_v1", width=0.25)


def model_spec(
    name: str | None, width: float = 1.0, resolution: int | None = None, input_shape: InputShape | None = None
) -> ModelSpec | None:
    """The model a user names, None for the data's. Raises UsageError for options of a model that is not named."""
    if name is not None:
        return ModelSpec(name, width, resolution, input_shape)
    if width != 1.0 or resolution is not None or input_shape is not None:
        raise UsageError("--width, --resolution and --input-shape are options of a model; name it with --model")
    return None


def parse_recipe(entries: list[str]) -> tuple[tuple[str, str], ...]:
    """``name=value`` texts as pairs. Raises UsageError."""
    pairs = [entry.partition("=") for entry in entries]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise UsageError(f"--recipe takes name=value, for example ema=0.99; got {name + equals + value!r}")
    return tuple((name.strip().replace("-", "_"), value.strip()) for name, _, value in pairs)


def parse_shape(text: str | None) -> InputShape | None:
    """``H,W,C`` to integers; ``H,W,C;F`` to those of several inputs. Raises UsageError."""
    if text is None:
        return None
    shapes = tuple(_shape(part) for part in text.split(";"))
    return shapes[0] if len(shapes) == 1 else shapes


def _shape(text: str) -> tuple[int, ...]:
    parts = text.lower().replace("x", ",").split(",")
    if not 1 <= len(parts) <= 3 or not all(p.strip().isdigit() and int(p) > 0 for p in parts):
        raise UsageError(f"--input-shape {text!r} is not understood; write H,W,C, for example 32,32,3")
    return tuple(int(p) for p in parts)


def parse_numbers(option: str, text: str) -> tuple[float, ...]:
    """``0.485,0.456,0.406`` to numbers; empty to none. Raises UsageError."""
    try:
        values = tuple(float(part) for part in text.split(",")) if text.strip() else ()
    except ValueError:
        raise UsageError(f"{option} {text!r} is not understood; write numbers with commas, 0.485,0.456,0.406") from None
    if not all(math.isfinite(v) for v in values):
        raise UsageError(f"{option} {text!r} holds a value that is not finite")
    return values


def parse_integers(option: str, text: str) -> tuple[int, ...]:
    """``3,224,224`` to integers; empty to none. Raises UsageError."""
    try:
        return tuple(int(part) for part in text.split(",")) if text.strip() else ()
    except ValueError:
        raise UsageError(f"{option} {text!r} is not understood; write whole numbers with commas, 3,224,224") from None
