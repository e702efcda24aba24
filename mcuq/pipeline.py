"""The order of the stages. Every command and the Python interface end here.

    module -> Graph -> bits -> quantization-aware training -> IntegerGraph -> MemoryPlan -> C -> ELF

Stages that need torch are imported when they run: a saved integer network is emitted, verified and profiled
without torch installed.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from mcuq.errors import UsageError
from mcuq.ir.files import load_integer
from mcuq.ir.graph import macs
from mcuq.ir.integer import IntegerGraph, QConv2d
from mcuq.ir.plans import MemoryPlan
from mcuq.outcomes import (
    DemoOutcome,
    EmitOutcome,
    ListOutcome,
    ProfiledLayer,
    ProfileOutcome,
    SolveOutcome,
    TrainOutcome,
    VerifyOutcome,
)
from mcuq.runs import RunFolder, find_run
from mcuq.settings import BitChoice, ModelSpec, TrainSettings, parse_shape
from mcuq.target.board import Board, load_board, load_boards
