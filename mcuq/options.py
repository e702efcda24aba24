"""Options of the search for bits that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MemConstraint = Annotated[
    str | None,
    typer.Option(help="FLASH,RAM limits: 2048000,512000 or [2048000,512000] or 2MiB,512KiB.", metavar="FLASH,RAM"),
]
BoardName = Annotated[str | None, typer.Option(help="A board from 'mcuq boards'; its limits are taken.")]
Mixed = Annotated[
    str | None,
    typer.Option(help="How bits are chosen: exact (proved optimum, the default), MixPL or MixPC (the paper's rules)."),
]
Optimize = Annotated[
    str, typer.Option(help="speed, or size: portable kernels and -Os, about half the code, several times slower.")
]
MaxInstructions = Annotated[
    int | None, typer.Option(help="Limit of instructions of one inference, predicted: an estimate.", min=1)
]
MaxLatency = Annotated[
    float | None,
    typer.Option(help="The same as milliseconds at the --board's clock, one instruction per clock: an estimate."),
]
Pin = Annotated[
    list[str] | None,
    typer.Option(help="Bits of one tensor, repeatable: layer.weight=8, layer=4 (its output).", metavar="NAME=BITS"),
]
PinFile = Annotated[Path | None, typer.Option(help='Pins as JSON: {"layer": {"w": 8, "a": 4}}.')]
Share = Annotated[
    list[str] | None, typer.Option(help="Tensors that share bits, repeatable: layer1,layer2.", metavar="NAME,NAME")
]
Check = Annotated[
    int,
    typer.Option(help="Random plans on which the sensitivity is held against the truth; RUN/sensitivity.json.", min=0),
]
FirstLast = Annotated[int, typer.Option(help="Fewest bits of the first and last layers' weights, where that fits.")]
