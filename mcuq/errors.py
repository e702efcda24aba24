"""Errors a user can act on: what was found, what is allowed, what to do next."""

from __future__ import annotations


class McuqError(Exception):
    """Base of every error mcuq raises on purpose. ``str(error)`` is one readable line.

    Attributes:
        exit_code: process exit status of the command line (1 a check failed, 2 bad usage or input).
    """

    exit_code = 2


class UsageError(McuqError):
    """An argument, option or configuration value is wrong."""


class ModelError(McuqError):
    """A model file or module is damaged, hostile or holds something mcuq has no operator for."""


class UnsupportedError(ModelError):
    """The model is sound, but uses operators mcuq does not have; the text lists all of them at once."""


class DataError(McuqError):
    """A data set is missing, damaged or of the wrong shape."""


class InfeasibleError(McuqError):
    """The limits cannot be met; the text names the tensors and the missing bytes."""

    exit_code = 1


class OverflowProofError(McuqError):
    """An int32 accumulator could overflow for the actual weights; the text names the layer."""


class TrainingError(McuqError):
    """Training cannot go on (NaN loss, out of memory, damaged checkpoint)."""

    exit_code = 1


class ToolchainError(McuqError):
    """A compiler or emulator is missing, too old or failed; the text says what to install."""


class LimitError(McuqError):
    """A linked image exceeds the board; the text names section and bytes."""

    exit_code = 1


class CheckError(McuqError):
    """A promise was checked and does not hold (bit-exactness, an invariant of a graph)."""

    exit_code = 1
