"""The table of operators: what each front end reads, and what the device computes for it.

``docs/OPERATORS.md`` is :func:`page`; a test keeps both equal and checks that the rows name exactly the operators
the front ends have handlers for.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of computation. ``device``: integer operator; ``bits``: of (weights /) activations."""

    what: str
    device: str
    bits: str
    torch: tuple[str, ...] = ()
    onnx: tuple[str, ...] = ()
    tflite: tuple[str, ...] = ()
    limits: str = ""


CONV_BITS, ANY_BITS = "8 4 2 / 8 4 2", "8 4 2"
ROWS: tuple[Row, ...] = (
    Row(
        "convolution, 2-D and 1-D, grouped, dilated",
        "conv2d",
        CONV_BITS,
        ("conv2d", "conv1d"),
        ("Conv", "QLinearConv"),
        ("CONV_2D",),
        "zero padding; a final layer may keep 32-bit scores",
    ),
    Row("depthwise convolution", "conv2d", CONV_BITS, (), (), ("DEPTHWISE_CONV_2D",), "any depth multiplier"),
    Row(
        "fully connected",
        "conv2d over the whole map",
        CONV_BITS,
        ("linear",),
        ("Gemm", "MatMul", "QLinearMatMul", "com.microsoft.QGemm"),
        ("FULLY_CONNECTED",),
        "constant weights; after flattening the weights are permuted",
    ),
    Row(
        "batch normalization",
        "in the convolution before it, or a depthwise conv2d",
        CONV_BITS,
        ("batch_norm", "_native_batch_norm_legit_no_training"),
        ("BatchNormalization",),
    ),
    Row(
        "arithmetic with constants",
        "in bias or batch norm",
        CONV_BITS,
        (),
        ("Mul", "Div", "Neg", "Sub", "com.microsoft.QLinearMul"),
        ("MUL", "SUB"),
        "constants per channel; Sub of two activations negates and adds",
    ),
    Row(
        "ReLU, ReLU6, clip",
        "clamp of conv2d or add, else rescale",
        ANY_BITS,
        ("relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max"),
        ("Relu", "Clip", "Max", "Min"),
        ("RELU", "RELU6", "RELU_N1_TO_1"),
        "Max and Min with a number",
    ),
    Row("addition", "add", ANY_BITS, ("add",), ("Add", "Sum", "com.microsoft.QLinearAdd"), ("ADD",), "equal shapes"),
    Row(
        "concatenation",
        "concat",
        ANY_BITS,
        ("cat", "concat"),
        ("Concat", "com.microsoft.QLinearConcat"),
        ("CONCATENATION",),
        "torch: channels",
    ),
    Row(
        "max pool",
        "max_pool",
        ANY_BITS,
        ("max_pool1d", "max_pool2d", "max_pool2d_with_indices"),
        ("MaxPool", "GlobalMaxPool"),
        ("MAX_POOL_2D",),
        "ceil mode included",
    ),
    Row(
        "average pool, mean",
        "avg_pool",
        ANY_BITS,
        ("avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "mean"),
        (
            "AveragePool",
            "GlobalAveragePool",
            "ReduceMean",
            *(f"com.microsoft.QLinear{n}" for n in ("AveragePool", "GlobalAveragePool", "ReduceMean")),
        ),
        ("AVERAGE_POOL_2D", "MEAN"),
        "over height and width; adaptive pools with even windows",
    ),
    Row(
        "zero padding",
        "window of the next convolution, else pad",
        ANY_BITS,
        ("pad", "constant_pad_nd"),
        ("Pad",),
        ("PAD", "PADV2"),
    ),
    Row(
        "slices, splits, channel padding and shuffles",
        "conv2d with weights 0 and 1",
        "2 / 8 4 2",
        (),
        ("Slice", "Split", "Gather"),
        ("SLICE", "STRIDED_SLICE", "SPLIT"),
        "even steps over rows and columns, any choice of channels",
    ),
    Row(
        "reshape, flatten, transpose",
        "none, else reshape",
        ANY_BITS,
        ("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "_unsafe_view"),
        ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"),
        ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE"),
        "where they cancel, move vectors, or feed a fully connected layer",
    ),
    Row(
        "softmax",
        "softmax by table",
        "8",
        ("softmax", "_softmax"),
        ("Softmax", "com.microsoft.QLinearSoftmax"),
        ("SOFTMAX",),
        "over channels",
    ),
    Row("argmax", "argmax", "8 4 2 32", ("argmax",), ("ArgMax",), ("ARG_MAX",), "over the channels of a vector"),
    Row(
        "scales of quantized models",
        "scale and zero point of the tensor",
        "8 4",
        (),
        ("QuantizeLinear", "DequantizeLinear", "com.microsoft.QuantizeLinear", "com.microsoft.DequantizeLinear"),
        ("QUANTIZE", "DEQUANTIZE"),
        "one scale per activation; weights per tensor or per output channel",
    ),
    Row(
        "without effect in inference",
        "none",
        ANY_BITS,
        (
            "dropout",
            "feature_dropout",
            "clone",
            "alias",
            "contiguous",
            "detach",
            "lift_fresh_copy",
            "to",
            "_to_copy",
        ),
        ("Dropout", "Identity", "Cast"),
        (),
        "casts between float types",
    ),
)
"""Every operator that a front end reads, in exactly one row."""
UNSUPPORTED = (
    "sigmoid, tanh, GELU, SiLU, hard swish, hard sigmoid, leaky ReLU, PReLU, ELU",
    "products of two activations, powers, divisions by activations",
    "transposed convolution, resize, upsampling",
    "layer, group, instance and local response normalization, L2 normalization",
    "LSTM, GRU, RNN, attention",
    "control flow (If, Loop, Scan)",
    "detection post-processing (non-maximum suppression, prior boxes, region proposals, region pooling): run it on the "
    "network's outputs",
)


def page() -> str:
    """``docs/OPERATORS.md``."""
    head = [
        "# Operators",
        "",
        "What each front end reads and what the device computes for it. Bits are those of weights / activations. Every",
        "operator runs on every core: a core without a faster kernel uses the portable C one, with the same bytes as",
        "result. ONNX: opset 8 to current; the constants that exporters compute (Shape, Gather, Cast, ...) are folded.",
        "",
        "| what | device | bits | PyTorch (aten) | ONNX | TFLite | limits |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = [
        f"| {r.what} | {r.device} | {r.bits} | {_names(r.torch)} | {_names(r.onnx)} | {_names(r.tflite)} | {r.limits} |"
        for r in ROWS
    ]
    tail = ["", "Not supported; the error lists every such operator of a model at once, with its place:", ""]
    return "\n".join([*head, *rows, *tail, *(f"- {text}" for text in UNSUPPORTED)]) + "\n"


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)
