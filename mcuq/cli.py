"""The command line: arguments in, one pipeline call, a table or one JSON object out. No logic lives here."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mcuq import pipeline
from mcuq.errors import McuqError
from mcuq.options import (
    BoardName,
    Check,
    FirstLast,
    MaxInstructions,
    MaxLatency,
    MemConstraint,
    Mixed,
    Optimize,
    Pin,
    PinFile,
    Share,
)

app = typer.Typer(
    name="mcuq",
    help="Deploy a neural network to a microcontroller: exact mixed-precision bits, integer-only C, proved bit-exact.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
people = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; everything for people on stderr.")]
Run = Annotated[Path | None, typer.Argument(help="Folder of an 'mcuq train'; the latest run when left out.")]
Model = Annotated[
    str, typer.Option(help="A name from 'mcuq models', your own package.module:build, an ONNX or a TFLite file.")
]
Width = Annotated[float, typer.Option(help="Width multiplier of models that have one.", min=0.05, max=4.0)]
Resolution = Annotated[int | None, typer.Option(help="Input height and width; the model's own when left out.", min=1)]
InputShape = Annotated[
    str | None,
    typer.Option(help="H,W,C of a user's own model, when no data set tells it; H,W,C;H,W,C of two.", metavar="H,W,C"),
]
Classes = Annotated[int | None, typer.Option(help="Number of classes; the data set's when left out.", min=1)]
DataName = Annotated[
    str, typer.Option(help="digits, mnist, fashion-mnist, cifar10, a folder of classes, or an .npz file.")
]
DataDir = Annotated[Path | None, typer.Option(help="Where the data set's files are or shall go.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]


def _emit(document: dict[str, Any], as_json: bool, show: Callable[[], None]) -> None:
    """Print ``document`` as JSON on stdout, or let ``show`` print for people."""
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
    else:
        show()


@app.command()
def train(
    model: Annotated[
        str | None,
        typer.Option(
            help="A name from 'mcuq models', or your own: package.module:build (any torch nn.Module). "
            "Chosen by the size of the images when left out."
        ),
    ] = None,
    width: Width = 1.0,
    resolution: Resolution = None,
    input_shape: InputShape = None,
    data: DataName = "digits",
    data_dir: DataDir = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs with quantization in the loop.", min=0)] = None,
    float_epochs: Annotated[int | None, typer.Option(help="Epochs of float training before.", min=0)] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Trained float weights to start from: .safetensors, or an .npz of a slim MobileNetV1."),
    ] = None,
    mem_constraint: MemConstraint = None,
    board: BoardName = None,
    mixed: Mixed = None,
    max_instructions: MaxInstructions = None,
    max_latency_ms: MaxLatency = None,
    pin: Pin = None,
    pins: PinFile = None,
    share: Share = None,
    first_last_bits: FirstLast = 2,
    weight_bits: Annotated[int | None, typer.Option(help="One width for all weights (8, 4, 2): no search.")] = None,
    act_bits: Annotated[int | None, typer.Option(help="One width for all activations (8, 4, 2): no search.")] = None,
    quant_type: Annotated[
        str | None,
        typer.Option(
            help="Weight quantizer: PerLayer or PerChannels, then AsymPACT, AsymMinMax, SymMinMax, SymMSE, SymLSQ, "
            "AsymLSQ, DoReFa, SATDefault, SATSymmetric, SATAsymmetric or SATFullRange. Default: PerChannelsSymMSE."
        ),
    ] = None,
    act_type: Annotated[
        str | None,
        typer.Option(
            help="Activation quantizer: LSQ, LSQ+, PACT, CG-PACT, mPACT, Clipped, ScaleClip, DoReFa, or none (weights "
            "only). Default: the one that goes with the weights."
        ),
    ] = None,
    weight_range: Annotated[
        int | None,
        typer.Option(help="Levels of weights less one, 1 (binary) to 255, instead of bits; both ends keep 8 bits."),
    ] = None,
    act_range: Annotated[int | None, typer.Option(help="Levels of activations less one, 1 to 255.")] = None,
    branch_quant: Annotated[
        bool, typer.Option(help="Outputs of branches that an addition joins take --act-bits; without, 8 bits.")
    ] = True,
    fold_type: Annotated[
        str | None, typer.Option(help="folding_weights, ICN (arXiv 1905.13082) or folding_thresholds. Default: ICN.")
    ] = None,
    scaling: Annotated[
        str | None,
        typer.Option(
            help="Form of the factors between layers: exact, mantissa16, fixed16, fixed32, single-shift, "
            "double-shift or fixed<B,I>. Default: exact."
        ),
    ] = None,
    clamp_epochs: Annotated[
        int | None, typer.Option(help="First of the epochs, in which SAT and DoReFa weights are mapped only.", min=0)
    ] = None,
    layer_config: Annotated[
        Path | None, typer.Option(help="JSON list of choices per layer: layer, w_bits, a_range, act_type ...")
    ] = None,
    fold_delay: Annotated[
        int | None, typer.Option(help="Epoch from which batch norm is frozen (and folded); else at the end.", min=0)
    ] = None,
    bits: Annotated[Path | None, typer.Option(help="A bits.json to use instead of searching.")] = None,
    optimize: Optimize = "speed",
    sensitivity: Annotated[
        str, typer.Option(help="Measure for the search: kl, fit, sqnr, hessian, loss or data-free.")
    ] = "kl",
    check_sensitivity: Check = 0,
    logits: Annotated[int, typer.Option(help="Bits of the network's output: 8 or 32.")] = 8,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in --out.")] = False,
    seed: Seed = 0,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of quantization-aware training.", min=0)] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw or sgd.")] = None,
    images: Annotated[
        int | None, typer.Option(help="Training images used, the first ones; all of them.", min=1)
    ] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A setting of quantization-aware training, repeatable: ema, distill, temperature, label_smoothing, "
            "flip, shift, dampening, freezing, progressive, step_lr, warmup ... (docs/QUANTIZATION.md). Presets by bit "
            "width hold for the rest.",
        ),
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write event files into RUN/events.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/<model>-<data>-<n> when left out.")] = None,
    as_json: Json = False,
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
            **pipeline.wishes(max_instructions, max_latency_ms, pin, pins, share, first_last_bits),
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
    model: Model,
    width: Width = 1.0,
    resolution: Resolution = None,
    input_shape: InputShape = None,
    classes: Classes = None,
    mem_constraint: MemConstraint = None,
    board: BoardName = None,
    mixed: Mixed = None,
    optimize: Optimize = "speed",
    max_instructions: MaxInstructions = None,
    max_latency_ms: MaxLatency = None,
    pin: Pin = None,
    pins: PinFile = None,
    share: Share = None,
    first_last_bits: FirstLast = 2,
    out: Annotated[Path, typer.Option(help="Where to write the bits.")] = Path("bits.json"),
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Find the bits only, without data: the sensitivity is the data-free measure of docs/solver.md."""
    spec = pipeline.ModelSpec(model, width, resolution, pipeline.parse_shape(input_shape), classes)
    choice = pipeline.BitChoice(
        mem_constraint=mem_constraint,
        board=board,
        mixed=mixed,
        sensitivity="data-free",
        optimize=optimize,
        **pipeline.wishes(max_instructions, max_latency_ms, pin, pins, share, first_last_bits),
    )
    outcome = pipeline.solve(spec, choice, out, seed=seed)
    _emit(outcome.document(), as_json, lambda: outcome.show(people))
    if outcome.plan.status == "INFEASIBLE":
        raise typer.Exit(1)


@app.command()
def pareto(
    model: Model,
    width: Width = 1.0,
    resolution: Resolution = None,
    input_shape: InputShape = None,
    classes: Classes = None,
    mem_constraint: MemConstraint = None,
    board: BoardName = None,
    max_instructions: MaxInstructions = None,
    max_latency_ms: MaxLatency = None,
    pin: Pin = None,
    pins: PinFile = None,
    share: Share = None,
    first_last_bits: FirstLast = 2,
    over: Annotated[
        str, typer.Option(help="The limit to sweep: flash, ram or instructions; the others are kept.")
    ] = "flash",
    points: Annotated[int, typer.Option(help="Limits tried, evenly spaced.", min=2, max=200)] = 12,
    out: Annotated[Path | None, typer.Option(help="Where to draw the frontier (.png).")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Expected loss over flash, RAM or instructions: the optimum at every limit, rules and uniform bits beside it."""
    spec = pipeline.ModelSpec(model, width, resolution, pipeline.parse_shape(input_shape), classes)
    choice = pipeline.BitChoice(
        mem_constraint=mem_constraint,
        board=board,
        sensitivity="data-free",
        **pipeline.wishes(max_instructions, max_latency_ms, pin, pins, share, first_last_bits),
    )
    outcome = pipeline.pareto(spec, choice, over, points, out, seed=seed)
    _emit(outcome.document(), as_json, lambda: outcome.show(people))


@app.command()
def quantize(
    model: Annotated[Path, typer.Option(help="An ONNX or TFLite file, float or quantized.")],
    calibrate: Annotated[
        str,
        typer.Option(
            help="Images: as --data of train, or without labels: a folder of pictures, an .npz with x (x0, x1, ... of "
            "several inputs)."
        ),
    ],
    data_dir: DataDir = None,
    mem_constraint: MemConstraint = None,
    board: BoardName = None,
    mixed: Mixed = None,
    max_instructions: MaxInstructions = None,
    max_latency_ms: MaxLatency = None,
    pin: Pin = None,
    pins: PinFile = None,
    share: Share = None,
    first_last_bits: FirstLast = 2,
    weight_bits: Annotated[int | None, typer.Option(help="One width for all weights (8, 4, 2).")] = None,
    act_bits: Annotated[int | None, typer.Option(help="One width for all activations (8, 4, 2).")] = None,
    bits: Annotated[Path | None, typer.Option(help="A bits.json to use instead of searching.")] = None,
    optimize: Optimize = "speed",
    mean: Annotated[str, typer.Option(help="Mean of pixel / 255 the model expects, one or one per channel.")] = "",
    std: Annotated[str, typer.Option(help="Standard deviation of pixel / 255, likewise.")] = "",
    dims: Annotated[
        str, typer.Option(help="Model input without batch, in its order: 3,224,224; images fit to it.")
    ] = "",
    transpose: Annotated[str, typer.Option(help="Image axes (rows, columns, channels) that --dims names.")] = "2,0,1",
    channel_swap: Annotated[str, typer.Option(help="Order of channels the model takes: 2,1,0 for BGR.")] = "",
    raw_scale: Annotated[float | None, typer.Option(help="Value of the brightest pixel, 255.0 or 1.0.")] = None,
    mean_value: Annotated[str, typer.Option(help="Subtracted after --raw-scale, one or one per channel.")] = "",
    input_scale: Annotated[float | None, typer.Option(help="Factor after --mean-value.")] = None,
    ranges: Annotated[str, typer.Option(help="Activation ranges: mse, absmax, percentile or kl.")] = "mse",
    percentile: Annotated[float, typer.Option(help="Share that --ranges percentile keeps.")] = 0.9999,
    rounding: Annotated[str, typer.Option(help="Weights below 8 bits: feedback or nearest.")] = "feedback",
    grid: Annotated[str, typer.Option(help="affine, threshold (symmetric) or fixed (powers of two).")] = "affine",
    quant_type: Annotated[
        str | None, typer.Option(help="Xilinx or DynamicFixed: CHaiDNN's modes, 6,6,6 bits (fl 2,5,2) unless given.")
    ] = None,
    bitwidths: Annotated[
        str, typer.Option(help="8 or 6 bits of network input, params, layer outputs on symmetric grids: 8,8,8.")
    ] = "",
    fl_bitwidths: Annotated[str, typer.Option(help="Fractional bits likewise, grid fixed: 2,5,2.")] = "",
    precision: Annotated[
        Path | None, typer.Option(help="Precision per layer: a precision.json, or a prototxt with precision_param.")
    ] = None,
    scaling: Annotated[
        str,
        typer.Option(help="Requantization factors: exact, fixed16, fixed32, single-shift, double-shift, fixed<B,I>."),
    ] = "exact",
    norms: Annotated[str, typer.Option(help="Batch norms: folded, or fixed (kept as fixed point).")] = "folded",
    equalize: Annotated[bool, typer.Option("--equalize", help="Balance ranges across layers first.")] = False,
    sensitivity: Annotated[
        str, typer.Option(help="Measure for the search: kl, fit, sqnr, hessian, loss or data-free.")
    ] = "kl",
    check_sensitivity: Check = 0,
    images: Annotated[
        int, typer.Option("--images", "--calibration-size", help="Calibration images used, the first ones.", min=1)
    ] = 512,
    logits: Annotated[int, typer.Option(help="Bits of the network's output: 8 or 32.")] = 8,
    two_roundings: Annotated[bool, typer.Option("--two-roundings", help="As TFLite's kernels; slower.")] = False,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/<model>-<data>-<n> when left out.")] = None,
    as_json: Json = False,
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
        **pipeline.wishes(max_instructions, max_latency_ms, pin, pins, share, first_last_bits),
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
        two_roundings=two_roundings,
    )
    outcome = pipeline.quantize(settings, out, console=people)
    _emit(outcome.document(), as_json, lambda: outcome.show(people))
    if not outcome.fits:
        raise typer.Exit(1)


@app.command()
def emit(
    run: Run = None,
    board: Annotated[str, typer.Option(help="A board from 'mcuq boards'.")] = "stm32h7",
    out: Annotated[Path | None, typer.Option(help="C folder; RUN/c-<board> when left out.")] = None,
    prefix: Annotated[str, typer.Option(help="Prefix of every C symbol.")] = "model",
    build: Annotated[bool, typer.Option("--build/--no-build", help="Compile, link and measure.")] = True,
    optimize: Optimize = "speed",
    as_json: Json = False,
) -> None:
    """Write the C project of a run for a board, build it, and hold promised bytes against the linked image."""
    outcome = pipeline.emit(run, pipeline.optimized(board, optimize), out, prefix=prefix, build=build)
    _emit(outcome.document(), as_json, lambda: outcome.show(people))


@app.command()
def verify(
    run: Run = None,
    target: Annotated[
        str, typer.Option(help="host, qemu (Cortex-M7), qemu:MACHINE or qemu:BOARD (see 'mcuq boards').")
    ] = "host",
    samples: Annotated[int | None, typer.Option(help="Test samples to run; all when left out.", min=1)] = None,
    as_json: Json = False,
) -> None:
    """Run the test split on the built C and compare every output byte with the oracle. Exit 1 on a difference."""
    outcome = pipeline.verify(run, target, samples, console=people)
    _emit(outcome.document(), as_json, lambda: outcome.show(people))
    if outcome.mismatching_bytes:
        raise typer.Exit(1)


@app.command()
def profile(
    run: Run = None,
    board: Annotated[str, typer.Option(help="A board or QEMU machine from 'mcuq boards'.")] = "stm32h7",
    optimize: Optimize = "speed",
    as_json: Json = False,
) -> None:
    """Executed instructions (QEMU, not cycles), bytes and MACs of every layer."""
    outcome = pipeline.profile(run, pipeline.optimized(board, optimize))
    _emit(outcome.document(), as_json, lambda: outcome.show(people))


@app.command()
def boards(as_json: Json = False) -> None:
    """Boards and QEMU machines mcuq knows."""
    outcome = pipeline.boards()
    _emit(outcome.document(), as_json, lambda: outcome.show(people))


@app.command()
def models(as_json: Json = False) -> None:
    """Models of the zoo."""
    outcome = pipeline.models()
    _emit(outcome.document(), as_json, lambda: outcome.show(people))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Which compilers, emulators and packages are there, and what to install. Exit 1 when one is missing."""
    outcome = pipeline.doctor()
    _emit(outcome.document(), as_json, lambda: outcome.show(people))
    if not outcome.healthy:
        raise typer.Exit(1)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo"),
    seed: Seed = 0,
    as_json: Json = False,
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
        people.print("interrupted")
        sys.exit(130)
    except Exception:
        traceback.print_exc()
        people.print("[bold red]error:[/] this is a fault in mcuq; please report the lines above")
        sys.exit(70)
