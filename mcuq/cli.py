"""The command line: arguments in, one pipeline call, a table or one JSON object out. No logic lives here."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mcuq import options as o
from mcuq import pipeline
from mcuq.errors import McuqError

app = typer.Typer(
    name="mcuq",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
people = Console(stderr=True)
if not people.is_terminal and "COLUMNS" not in os.environ:
    people.width = 120  # of a log file; Rich takes 80


def _emit(document: dict[str, Any], as_json: bool, show: Callable[[], None]) -> None:
    """Print ``document`` as JSON on stdout, or let ``show`` print for people."""
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
    else:
        show()


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"mcuq {version('mcuq')}\n")
        raise typer.Exit


@app.callback()
def every_command(
    show_version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Deploy a neural network to a microcontroller: exact mixed-precision bits, integer-only C, proved bit-exact."""


@app.command()
def train(
    model: o.TrainedModel = None,
    width: o.Width = 1.0,
    resolution: o.Resolution = None,
    input_shape: o.InputShape = None,
    weights: o.Weights = None,
    logits: o.Logits = 8,
    data: o.DataName = "digits",
    data_dir: o.DataDir = None,
    images: o.TrainingImages = None,
    board: o.BoardName = None,
    mem_constraint: o.MemConstraint = None,
    max_instructions: o.MaxInstructions = None,
    max_latency_ms: o.MaxLatency = None,
    mixed: o.Mixed = None,
    weight_bits: o.WeightBits = None,
    act_bits: o.ActBits = None,
    bits: o.Bits = None,
    first_last_bits: o.FirstLast = 2,
    pin: o.Pin = None,
    pins: o.PinFile = None,
    share: o.Share = None,
    granularity: o.Granularity = None,
    sensitivity: o.Sensitivity = "kl",
    check_sensitivity: o.Check = 0,
    epochs: o.Epochs = None,
    float_epochs: o.FloatEpochs = None,
    batch_size: o.BatchSize = None,
    lr: o.Lr = None,
    optimizer: o.Optimizer = None,
    recipe: o.Recipe = None,
    resume: o.Resume = False,
    device: o.Device = "cpu",
    tensorboard: o.Tensorboard = False,
    quant_type: o.QuantType = None,
    act_type: o.ActType = None,
    weight_range: o.WeightRange = None,
    act_range: o.ActRange = None,
    branch_quant: o.BranchQuant = True,
    fold_type: o.FoldType = None,
    fold_delay: o.FoldDelay = None,
    scaling: o.TrainScaling = None,
    clamp_epochs: o.ClampEpochs = None,
    layer_config: o.LayerConfig = None,
    optimize: o.Optimize = "speed",
    seed: o.Seed = 0,
    out: o.RunOut = None,
    config: o.Config = None,
    as_json: o.Json = False,
) -> None:
    """Train, choose bits under the limits, retrain with quantization, and save the integer network."""
    settings = pipeline.TrainSettings(
        model=pipeline.model_spec(model, width, resolution, pipeline.parse_shape(input_shape)),
        data=data,
        data_dir=data_dir,
        epochs=epochs,
        float_epochs=float_epochs,
        weights=weights,
        choice=pipeline.BitChoice(
            mem_constraint=mem_constraint,
            board=board,
            mixed=mixed,
            weight_bits=weight_bits,
            act_bits=act_bits,
            bits=bits,
            sensitivity=sensitivity,
            check_sensitivity=check_sensitivity,
            optimize=optimize,
            **pipeline.wishes(max_instructions, max_latency_ms, pin, pins, share, first_last_bits, granularity),
        ),
        quant_type=quant_type,
        fold_type=fold_type,
        fold_delay=fold_delay,
        act_type=act_type,
        weight_range=weight_range,
        act_range=act_range,
        branch_quant=branch_quant,
        scaling=scaling,
        clamp_epochs=clamp_epochs,
        layer_config=layer_config,
        logits=logits,
        seed=seed,
        batch_size=batch_size,
        lr=lr,
        optimizer=optimizer,
        device=device,
        images=images,
        recipe=pipeline.parse_recipe(recipe or []),
        tensorboard=tensorboard,
    )
    outcome = pipeline.train(settings, out, resume=resume, console=people)
    _emit(outcome.document(), as_json, lambda: outcome.show(people))
    if not outcome.fits:
        raise typer.Exit(1)


@app.command()
def solve(
    model: o.Model,
    width: o.Width = 1.0,
    resolution: o.Resolution = None,
    input_shape: o.InputShape = None,
    classes: o.Classes = None,
    board: o.BoardName = None,
    mem_constraint: o.MemConstraint = None,
    max_instructions: o.MaxInstructions = None,
    max_latency_ms: o.MaxLatency = None,
    mixed: o.Mixed = None,
    first_last_bits: o.FirstLast = 2,
    pin: o.Pin = None,
    pins: o.PinFile = None,
    share: o.Share = None,
    granularity: o.Granularity = None,
    optimize: o.Optimize = "speed",
    seed: o.Seed = 0,
    out: o.BitsOut = Path("bits.json"),
    config: o.Config = None,
    as_json: o.Json = False,
) -> None:
    """Find the bits only, without data: the sensitivity is the data-free measure of docs/solver.md."""
    spec = pipeline.ModelSpec(model, width, resolution, pipeline.parse_shape(input_shape), classes)
    choice = pipeline.BitChoice(
        mem_constraint=mem_constraint,
        board=board,
        mixed=mixed,
        sensitivity="data-free",
        optimize=optimize,
        **pipeline.wishes(max_instructions, max_latency_ms, pin, pins, share, first_last_bits, granularity),
    )
    outcome = pipeline.solve(spec, choice, out, seed=seed)
    _emit(outcome.document(), as_json, lambda: outcome.show(people))
    if outcome.plan.status == "INFEASIBLE":
        raise typer.Exit(1)


@app.command()
def pareto(
    model: o.Model,
    width: o.Width = 1.0,
    resolution: o.Resolution = None,
    input_shape: o.InputShape = None,
    classes: o.Classes = None,
    board: o.BoardName = None,
    mem_constraint: o.MemConstraint = None,
    max_instructions: o.MaxInstructions = None,
    max_latency_ms: o.MaxLatency = None,
    first_last_bits: o.FirstLast = 2,
    pin: o.Pin = None,
    pins: o.PinFile = None,
    share: o.Share = None,
    granularity: o.Granularity = None,
    over: o.Over = "flash",
    points: o.Points = 12,
    seed: o.Seed = 0,
    out: o.Picture = None,
    config: o.Config = None,
    as_json: o.Json = False,
) -> None:
    """Expected loss over flash, RAM or instructions: the optimum at every limit, rules and uniform bits beside it."""
    spec = pipeline.ModelSpec(model, width, resolution, pipeline.parse_shape(input_shape), classes)
    choice = pipeline.BitChoice(
        mem_constraint=mem_constraint,
        board=board,
        sensitivity="data-free",
        **pipeline.wishes(max_instructions, max_latency_ms, pin, pins, share, first_last_bits, granularity),
    )
    outcome = pipeline.pareto(spec, choice, over, points, out, seed=seed)
    _emit(outcome.document(), as_json, lambda: outcome.show(people))


@app.command()
def quantize(
    model: o.ModelFile,
    calibrate: o.Calibrate,
    data_dir: o.DataDir = None,
    images: o.CalibrationImages = 512,
    logits: o.Logits = 8,
    board: o.BoardName = None,
    mem_constraint: o.MemConstraint = None,
    max_instructions: o.MaxInstructions = None,
    max_latency_ms: o.MaxLatency = None,
    mixed: o.Mixed = None,
    weight_bits: o.WeightBits = None,
    act_bits: o.ActBits = None,
    bits: o.Bits = None,
    first_last_bits: o.FirstLast = 2,
    pin: o.Pin = None,
    pins: o.PinFile = None,
    share: o.Share = None,
    granularity: o.Granularity = None,
    sensitivity: o.Sensitivity = "kl",
    check_sensitivity: o.Check = 0,
    mean: o.Mean = "",
    std: o.Std = "",
    dims: o.Dims = "",
    transpose: o.Transpose = "2,0,1",
    channel_swap: o.ChannelSwap = "",
    raw_scale: o.RawScale = None,
    mean_value: o.MeanValue = "",
    input_scale: o.InputScale = None,
    ranges: o.Ranges = "mse",
    percentile: o.Percentile = 0.9999,
    rounding: o.Rounding = "feedback",
    grid: o.Grid = "affine",
    quant_type: o.ChaiMode = None,
    bitwidths: o.Bitwidths = "",
    fl_bitwidths: o.FlBitwidths = "",
    precision: o.Precision = None,
    scaling: o.CalibratedScaling = "exact",
    norms: o.Norms = "folded",
    equalize: o.Equalize = False,
    one_rounding: o.OneRounding = False,
    optimize: o.Optimize = "speed",
    out: o.RunOut = None,
    config: o.Config = None,
    as_json: o.Json = False,
) -> None:
    """Quantize a model file without training; emit, verify and profile take the run."""
    choice = pipeline.BitChoice(
        mem_constraint,
        board,
        mixed,
        weight_bits,
        act_bits,
        bits,
        sensitivity,
        optimize=optimize,
        check_sensitivity=check_sensitivity,
        **pipeline.wishes(max_instructions, max_latency_ms, pin, pins, share, first_last_bits, granularity),
    )
    inputs = pipeline.Preprocessing(
        pipeline.parse_integers("--dims", dims),
        pipeline.parse_integers("--transpose", transpose),
        pipeline.parse_integers("--channel-swap", channel_swap),
        raw_scale,
        pipeline.parse_numbers("--mean-value", mean_value),
        input_scale,
    )
    settings = pipeline.QuantizeSettings(
        model,
        calibrate,
        choice,
        data_dir,
        pipeline.parse_numbers("--mean", mean),
        pipeline.parse_numbers("--std", std),
        inputs,
        ranges=ranges,
        percentile=percentile,
        rounding=rounding,
        grid=grid,
        quant_type=quant_type,
        bitwidths=pipeline.parse_integers("--bitwidths", bitwidths),
        fl_bitwidths=pipeline.parse_integers("--fl-bitwidths", fl_bitwidths),
        precision=precision,
        scaling=scaling,
        norms=norms,
        equalize=equalize,
        images=images,
        logits=logits,
        one_rounding=one_rounding,
    )
    outcome = pipeline.quantize(settings, out, console=people)
    _emit(outcome.document(), as_json, lambda: outcome.show(people))
    if not outcome.fits:
        raise typer.Exit(1)


@app.command()
def emit(
    run: o.Run = None,
    board: o.Board = "stm32h7",
    out: o.COut = None,
    prefix: o.Prefix = "model",
    build: o.Build = True,
    optimize: o.Optimize = "speed",
    as_json: o.Json = False,
) -> None:
    """Write the C project of a run for a board, build it, and hold promised bytes against the linked image."""
    outcome = pipeline.emit(run, pipeline.optimized(board, optimize), out, prefix=prefix, build=build)
    _emit(outcome.document(), as_json, lambda: outcome.show(people))


@app.command()
def verify(
    run: o.Run = None,
    target: o.Target = "host",
    samples: o.Samples = None,
    as_json: o.Json = False,
) -> None:
    """Run the test split on the built C and compare every output byte with the oracle. Exit 1 on a difference."""
    outcome = pipeline.verify(run, target, samples, console=people)
    _emit(outcome.document(), as_json, lambda: outcome.show(people))
    if outcome.mismatching_bytes:
        raise typer.Exit(1)


@app.command()
def profile(
    run: o.Run = None,
    board: o.Board = "stm32h7",
    optimize: o.Optimize = "speed",
    as_json: o.Json = False,
) -> None:
    """Executed instructions (QEMU, not cycles), bytes and MACs of every layer."""
    outcome = pipeline.profile(run, pipeline.optimized(board, optimize))
    _emit(outcome.document(), as_json, lambda: outcome.show(people))


@app.command()
def boards(as_json: o.Json = False) -> None:
    """Boards and QEMU machines mcuq knows."""
    outcome = pipeline.boards()
    _emit(outcome.document(), as_json, lambda: outcome.show(people))


@app.command()
def models(as_json: o.Json = False) -> None:
    """Models of the zoo."""
    outcome = pipeline.models()
    _emit(outcome.document(), as_json, lambda: outcome.show(people))


@app.command()
def doctor(as_json: o.Json = False) -> None:
    """Which compilers, emulators and packages are there, and what to install. Exit 1 when one is missing."""
    outcome = pipeline.doctor()
    _emit(outcome.document(), as_json, lambda: outcome.show(people))
    if not outcome.healthy:
        raise typer.Exit(1)


@app.command()
def demo(
    out: o.DemoOut = Path("runs/demo"),
    seed: o.Seed = 0,
    as_json: o.Json = False,
) -> None:
    """The whole way on handwritten digits, ending with the device's accuracy and bytes in one table."""
    outcome = pipeline.demo(out, seed=seed, console=people)
    _emit(outcome.document(), as_json, lambda: outcome.show(people))
    if outcome.mismatching_bytes:
        raise typer.Exit(1)


def main() -> None:
    """Entry point: errors become one line on stderr (and a JSON object with --json), exit codes 0, 1, 2."""
    try:
        app()
    except McuqError as error:
        people.print(f"[bold red]error:[/] {type(error).__name__}: ", end="")
        people.print(str(error), markup=False, highlight=False, soft_wrap=True)
        if "--json" in sys.argv:
            document = {"error": {"kind": type(error).__name__, "message": str(error)}}
            sys.stdout.write(json.dumps(document) + "\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        people.print("interrupted; a training goes on with --resume")
        sys.exit(130)
    except Exception:
        traceback.print_exc()
        people.print("[bold red]error:[/] this is a fault in mcuq; please report the lines above")
        sys.exit(70)
