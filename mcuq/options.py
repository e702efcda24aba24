"""Options of the commands: names, what they mean, and the panel of ``--help`` that shows them."""

from __future__ import annotations

import difflib
import tomllib
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from mcuq.errors import UsageError

_model = partial(typer.Option, rich_help_panel="Model")
_data = partial(typer.Option, rich_help_panel="Data")
_bits = partial(typer.Option, rich_help_panel="Limits and bits")
_quantizer = partial(typer.Option, rich_help_panel="Quantizers")
_training = partial(typer.Option, rich_help_panel="Training")
_calibration = partial(typer.Option, rich_help_panel="Calibration")


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Options of a TOML file become the defaults of ``context``'s command.

    Names are those of the options, without dashes in front; options that repeat take a list, or a table of pairs.

    Raises:
        UsageError: the file cannot be read, or names no option of the command.
    """
    if path is None:
        return None
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--config {path} is no TOML file that can be read: {error}") from error
    options = {
        name.removeprefix("--"): str(option.name)
        for option in context.command.params
        for name in option.opts
        if name.startswith("--") and option.name not in ("config", "help")
    }
    defaults: dict[str, Any] = {}
    for name, value in document.items():
        key = name.replace("_", "-")
        if key not in options:
            near = difflib.get_close_matches(key, options, 1)
            hint = f"; did you mean {near[0]}" if near else ""
            raise UsageError(f"--config {path}: {name!r} is no option of {context.info_name}{hint}")
        pairs = isinstance(value, dict)
        defaults[options[key]] = [f"{k}={_text(v)}" for k, v in value.items()] if pairs else value
    context.default_map = defaults
    return path


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


Config = Annotated[
    Path | None,
    typer.Option(
        help="TOML file of options, name = value; those on the command line win.", is_eager=True, callback=read_config
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; everything for people on stderr.")]
Run = Annotated[Path | None, typer.Argument(help="Folder of an 'mcuq train'; the latest run when left out.")]
Board = Annotated[str, typer.Option(help="A board or QEMU machine from 'mcuq boards'.")]
RunOut = Annotated[Path | None, typer.Option(help="Run folder; runs/<model>-<data>-<n> when left out.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Optimize = Annotated[
    str, typer.Option(help="speed, or size: portable kernels and -Os, about half the code, several times slower.")
]
Target = Annotated[str, typer.Option(help="host, qemu (Cortex-M7), qemu:MACHINE or qemu:BOARD (see 'mcuq boards').")]
Samples = Annotated[int | None, typer.Option(help="Test samples to run; all when left out.", min=1)]
COut = Annotated[Path | None, typer.Option(help="C folder; RUN/c-<board> when left out.")]
Prefix = Annotated[str, typer.Option(help="Prefix of every C symbol.")]
Build = Annotated[bool, typer.Option("--build/--no-build", help="Compile, link and measure.")]
DemoOut = Annotated[Path, typer.Option(help="Run folder.")]
BitsOut = Annotated[Path, typer.Option(help="Where to write the bits.")]
Over = Annotated[str, typer.Option(help="The limit to sweep: flash, ram or instructions; the others are kept.")]
Points = Annotated[int, typer.Option(help="Limits tried, evenly spaced.", min=2, max=200)]
Picture = Annotated[Path | None, typer.Option(help="Where to draw the frontier (.png).")]

Model = Annotated[
    str, _model(help="A name from 'mcuq models', your own package.module:build, an ONNX or a TFLite file.")
]
ModelFile = Annotated[Path, _model(help="An ONNX or TFLite file, float or quantized.")]
TrainedModel = Annotated[
    str | None,
    _model(
        help="A name from 'mcuq models', or your own: package.module:build (any torch nn.Module). "
        "Chosen by the size of the images when left out."
    ),
]
Width = Annotated[float, _model(help="Width multiplier of models that have one.", min=0.05, max=4.0)]
Resolution = Annotated[int | None, _model(help="Input height and width; the model's own when left out.", min=1)]
InputShape = Annotated[
    str | None,
    _model(help="H,W,C of a user's own model, when no data set tells it; H,W,C;H,W,C of two.", metavar="H,W,C"),
]
Classes = Annotated[int | None, _model(help="Number of classes; the data set's when left out.", min=1)]
Weights = Annotated[
    Path | None, _model(help="Trained float weights to start from: .safetensors, or an .npz of a slim MobileNetV1.")
]
Logits = Annotated[int, _model(help="Bits of the network's output: 8 or 32.")]

DataName = Annotated[str, _data(help="digits, mnist, fashion-mnist, cifar10, a folder of classes, or an .npz file.")]
DataDir = Annotated[Path | None, _data(help="Where the data set's files are or shall go.")]
TrainingImages = Annotated[int | None, _data(help="Training images used, the first ones; all of them.", min=1)]

MemConstraint = Annotated[
    str | None, _bits(help="FLASH,RAM limits: 2048000,512000 or [2048000,512000] or 2MiB,512KiB.", metavar="FLASH,RAM")
]
BoardName = Annotated[str | None, _bits(help="A board from 'mcuq boards'; its limits are taken.")]
Mixed = Annotated[
    str | None,
    _bits(help="How bits are chosen: exact (proved optimum, the default), MixPL or MixPC (the paper's rules)."),
]
MaxInstructions = Annotated[
    int | None, _bits(help="Limit of instructions of one inference, predicted: an estimate.", min=1)
]
MaxLatency = Annotated[
    float | None, _bits(help="The same as milliseconds at the --board's clock, one instruction per clock: an estimate.")
]
Pin = Annotated[
    list[str] | None,
    _bits(help="Bits of one tensor, repeatable: layer.weight=8, layer=4 (its output).", metavar="NAME=BITS"),
]
PinFile = Annotated[Path | None, _bits(help='Pins as JSON: {"layer": {"w": 8, "a": 4}}.')]
Share = Annotated[
    list[str] | None, _bits(help="Tensors that share bits, repeatable: layer1,layer2.", metavar="NAME,NAME")
]
Granularity = Annotated[
    str | None,
    _bits(
        help="Steps of weights: one per channel, per layer (batch norm folded), or auto: chosen with the bits. "
        "Default: auto where batch norm is folded into the weights, else channel."
    ),
]
FirstLast = Annotated[int, _bits(help="Fewest bits of the first and last layers' weights, where that fits.")]
WeightBits = Annotated[int | None, _bits(help="One width for all weights (8, 4, 2): no search.")]
ActBits = Annotated[int | None, _bits(help="One width for all activations (8, 4, 2): no search.")]
Bits = Annotated[Path | None, _bits(help="A bits.json to use instead of searching.")]
Sensitivity = Annotated[str, _bits(help="Measure for the search: kl, fit, sqnr, hessian, loss or data-free.")]
Check = Annotated[
    int, _bits(help="Random plans on which the sensitivity is held against the truth; RUN/sensitivity.json.", min=0)
]

QuantType = Annotated[
    str | None,
    _quantizer(
        help="Weight quantizer: PerLayer or PerChannels, then AsymPACT, AsymMinMax, SymMinMax, SymMSE, SymLSQ, "
        "AsymLSQ, DoReFa, SATDefault, SATSymmetric, SATAsymmetric or SATFullRange. Default: PerChannelsSymMSE."
    ),
]
ActType = Annotated[
    str | None,
    _quantizer(
        help="Activation quantizer: LSQ, LSQ+, PACT, PACT-floor, CG-PACT, mPACT, Clipped, ScaleClip, DoReFa, or none "
        "(weights only). Default: the one that goes with the weights."
    ),
]
WeightRange = Annotated[
    int | None,
    _quantizer(help="Levels of weights less one, 1 (binary) to 255, instead of bits; both ends keep 8 bits."),
]
ActRange = Annotated[int | None, _quantizer(help="Levels of activations less one, 1 to 255.")]
BranchQuant = Annotated[
    bool, _quantizer(help="Outputs of branches that an addition joins take --act-bits; without, 8 bits.")
]
FoldType = Annotated[
    str | None, _quantizer(help="folding_weights, ICN (arXiv 1905.13082) or folding_thresholds. Default: ICN.")
]
FoldDelay = Annotated[
    int | None, _quantizer(help="Epoch from which batch norm is frozen (and folded); else at the end.", min=0)
]
ClampEpochs = Annotated[
    int | None, _quantizer(help="First of the epochs, in which SAT and DoReFa weights are mapped only.", min=0)
]
LayerConfig = Annotated[
    Path | None, _quantizer(help="JSON list of choices per layer: layer, w_bits, a_range, act_type ...")
]
TrainScaling = Annotated[
    str | None,
    _quantizer(
        help="Form of the factors between layers: exact, mantissa16, fixed16, fixed32, single-shift, "
        "double-shift or fixed<B,I>. Default: exact."
    ),
]
CalibratedScaling = Annotated[
    str, _quantizer(help="Requantization factors: exact, fixed16, fixed32, single-shift, double-shift, fixed<B,I>.")
]
Ranges = Annotated[str, _quantizer(help="Activation ranges: mse, absmax, percentile or kl.")]
Percentile = Annotated[float, _quantizer(help="Share that --ranges percentile keeps.")]
Rounding = Annotated[str, _quantizer(help="Weights below 8 bits: feedback or nearest.")]
Grid = Annotated[str, _quantizer(help="affine, threshold (symmetric) or fixed (powers of two).")]
ChaiMode = Annotated[
    str | None, _quantizer(help="Xilinx or DynamicFixed: CHaiDNN's modes, 6,6,6 bits (fl 2,5,2) unless given.")
]
Bitwidths = Annotated[
    str, _quantizer(help="8 or 6 bits of network input, params, layer outputs on symmetric grids: 8,8,8.")
]
FlBitwidths = Annotated[str, _quantizer(help="Fractional bits likewise, grid fixed: 2,5,2.")]
Precision = Annotated[
    Path | None, _quantizer(help="Precision per layer: a precision.json, or a prototxt with precision_param.")
]
Norms = Annotated[str, _quantizer(help="Batch norms: folded, or fixed (kept as fixed point).")]
Equalize = Annotated[bool, _quantizer("--equalize", help="Balance ranges across layers first.")]
OneRounding = Annotated[
    bool, _quantizer("--one-rounding", help="Of quantized TFLite models, whose kernels round twice.")
]

Epochs = Annotated[int | None, _training(help="Epochs with quantization in the loop.", min=0)]
FloatEpochs = Annotated[int | None, _training(help="Epochs of float training before.", min=0)]
BatchSize = Annotated[int | None, _training(help="Images of one step.", min=1)]
Lr = Annotated[float | None, _training(help="Learning rate of quantization-aware training.", min=0)]
Optimizer = Annotated[str | None, _training(help="adamw or sgd.")]
Recipe = Annotated[
    list[str] | None,
    _training(
        metavar="NAME=VALUE",
        help="A setting of quantization-aware training, repeatable: ema, distill, temperature, label_smoothing, "
        "flip, shift, dampening, freezing, progressive, step_lr, warmup ... (docs/QUANTIZATION.md). Presets by bit "
        "width hold for the rest.",
    ),
]
Device = Annotated[str, _training(help="cpu or cuda.")]
Tensorboard = Annotated[bool, _training("--tensorboard", help="Write event files into RUN/events.")]
Resume = Annotated[bool, _training("--resume", help="Go on with an interrupted run: that in --out, or the latest.")]

Calibrate = Annotated[
    str,
    _calibration(
        help="Images: as --data of train, or without labels: a folder of pictures, an .npz with x (x0, x1, ... of "
        "several inputs)."
    ),
]
CalibrationImages = Annotated[
    int, _calibration("--images", "--calibration-size", help="Calibration images used, the first ones.", min=1)
]
Mean = Annotated[str, _calibration(help="Mean of pixel / 255 the model expects, one or one per channel.")]
Std = Annotated[str, _calibration(help="Standard deviation of pixel / 255, likewise.")]
Dims = Annotated[str, _calibration(help="Model input without batch, in its order: 3,224,224; images fit to it.")]
Transpose = Annotated[str, _calibration(help="Image axes (rows, columns, channels) that --dims names.")]
ChannelSwap = Annotated[str, _calibration(help="Order of channels the model takes: 2,1,0 for BGR.")]
RawScale = Annotated[float | None, _calibration(help="Value of the brightest pixel, 255.0 or 1.0.")]
MeanValue = Annotated[str, _calibration(help="Subtracted after --raw-scale, one or one per channel.")]
InputScale = Annotated[float | None, _calibration(help="Factor after --mean-value.")]
