"""What kernel choice is asked and what it answers."""

from __future__ import annotations

from dataclasses import dataclass

from mcuq.ir.graph import Shape, Window, is_depthwise

WeightLayout = str
"""A layout that ``layouts.pack_weights`` knows. rows: per output channel one packed row of kh*kw*(I/groups) codes.
taps: kh*kw packed rows of C codes."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the actual weights prove of a layer; kernels with range conditions are chosen by it.

    Attributes:
        accumulator: per channel the largest |bias + sum x * (w - zw)| that any input reaches;
        shift: per channel the requantization shift;
        idle: channels whose outputs are their zero point whatever the input;
        negative: a channel's multiplier is below zero.
    """

    accumulator: tuple[int, ...]
    shift: tuple[int, ...]
    idle: tuple[bool, ...]
    negative: bool = False


@dataclass(frozen=True, slots=True)
class ConvCase:
    """All that kernel choice depends on, known before weights are."""

    input_shape: Shape
    output_shape: Shape
    weight_shape: tuple[int, int, int, int]
    window: Window
    groups: int
    input_bits: int
    weight_bits: int
    output_bits: int
    asymmetric: bool = False
    per_channel: bool = True
    roundings: int = 1
    beside_blocks: bool = False
    """Other layers of the network compute several output pixels of all channels: their kernels are there anyway."""
    facts: Facts | None = None
    """None before weights are known: kernels are then chosen as for a layer that meets every condition."""


@dataclass(frozen=True, slots=True)
class Groups:
    """How a kernel goes through its output: ``pixels`` at a time, in ascending order.

    A group is stored once its inputs were read; if it ``holds`` them, its last input may be read after all but its last
    output was stored. The last group has at least ``again`` pixels, as far as there are: it computes some once more.
    """

    pixels: int
    holds: bool = False
    again: int = 1


@dataclass(frozen=True, slots=True)
class Kernel:
    """A runtime function: C symbol, source files under ``runtime_c/src``, weight layout, scratch bytes.

    ``weight_bytes`` are those of ``layouts.pack_weights``. With ``packs_parameters`` they hold bias, multiplier,
    shift and weight zero point too, and the parameter struct's pointers to those are NULL. With ``in_place`` the output
    may be the input's own buffer, written from its first byte on; it is then no longer than the input. ``groups`` say
    how far behind the output's first byte the input must lie else to share bytes (``target.overlap``); None: never.
    """

    function: str
    sources: tuple[str, ...]
    layout: WeightLayout
    scratch_bytes: int
    weight_bytes: int
    packs_parameters: bool = False
    in_place: bool = False
    groups: Groups | None = None


def all_bytes(case: ConvCase) -> bool:
    """Inputs, weights and outputs of 8 bits."""
    return (case.input_bits, case.weight_bits, case.output_bits) == (8, 8, 8)


def is_depthwise_case(case: ConvCase) -> bool:
    """One filter per channel (see ``ir.graph.is_depthwise``)."""
    return is_depthwise(case.groups, case.weight_shape, case.input_shape[2])


def is_fully_connected(case: ConvCase) -> bool:
    """Kernel covers the whole input without padding, one output pixel, one group."""
    return (
        case.groups == 1
        and case.output_shape[:2] == (1, 1)
        and case.weight_shape[1:3] == case.input_shape[:2]
        and case.window.padding == (0, 0, 0, 0)
        and case.window.dilation == (1, 1)
    )
