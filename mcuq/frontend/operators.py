"""The table of operators: what each front end reads, and what the device computes for it.

``docs/operators.md`` is :func:`page`; a test keeps both equal and checks that the rows name exactly the operators
the front ends have handlers for.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of computation. ``device``: runtime functions; ``bits``: of (weights /) activations."""

    what: str
    device: str
    bits: str
    torch: tuple[str, ...] = ()
    onnx: tuple[str, ...] = ()
    tflite: tuple[str, ...] = ()
    limits: str = ""
    cores: str = "all: C"


CONV_BITS, ANY_BITS = "8 4 2 / 8 4 2", "8 4 2"
FAST, DSP = "all: C; M4, M7, M33: DSP; M55: Helium", "all: C; M4, M7, M33, M55: DSP (8 bits)"


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


LAYERS = (
    Row(
        "convolution, 2-D and 1-D, grouped, dilated",
        "conv2d",
        CONV_BITS,
        _words("conv2d conv1d"),
        _words("Conv QLinearConv"),
        _words("CONV_2D"),
        "zero padding; a final layer may keep 32-bit scores",
        FAST,
    ),
    Row(
        "transposed convolution, 2-D and 1-D, grouped, dilated",
        "conv2d_transpose",
        CONV_BITS,
        _words("conv_transpose2d conv_transpose1d"),
        _words("ConvTranspose"),
        _words("TRANSPOSE_CONV"),
        "",
    ),
    Row(
        "depthwise convolution",
        "depthwise",
        CONV_BITS,
        tflite=_words("DEPTHWISE_CONV_2D"),
        limits="any depth multiplier; conv2d and Conv with groups",
        cores=FAST,
    ),
    Row(
        "fully connected",
        "fully_connected",
        CONV_BITS,
        _words("linear matmul mm addmm"),
        _words("Gemm MatMul QLinearMatMul com.microsoft.QGemm"),
        _words("FULLY_CONNECTED"),
        "constant weights; after flattening the weights are permuted",
        FAST,
    ),
    Row(
        "batch normalization",
        "conv2d (in the one before it), else depthwise",
        CONV_BITS,
        _words("batch_norm _native_batch_norm_legit_no_training"),
        _words("BatchNormalization"),
        cores=FAST,
    ),
    Row(
        "layer, group and instance normalization",
        "conv2d or avg_pool (means), add, table, mul",
        ANY_BITS,
        _words("layer_norm native_layer_norm group_norm instance_norm"),
        _words("LayerNormalization GroupNormalization InstanceNormalization"),
        limits="written out in these parts, as TFLite's converter does; gamma and beta are constants in training",
    ),
    Row(
        "max pool, maximum and minimum over axes",
        "max_pool",
        ANY_BITS,
        _words(
            "max_pool1d max_pool2d max_pool2d_with_indices adaptive_max_pool1d adaptive_max_pool2d amax amin max min"
        ),
        _words("MaxPool GlobalMaxPool ReduceMax ReduceMin"),
        _words("MAX_POOL_2D REDUCE_MAX REDUCE_MIN"),
        "ceil mode included; adaptive pools of any size",
        "all: C; M4, M7, M33, M55: DSP (equal bits)",
    ),
    Row(
        "average pool, mean and sum over axes",
        "avg_pool",
        ANY_BITS,
        _words("avg_pool1d avg_pool2d adaptive_avg_pool1d adaptive_avg_pool2d mean sum var std logsumexp"),
        _words(
            "AveragePool GlobalAveragePool ReduceMean ReduceSum ReduceL1 ReduceSumSquare ReduceLogSum ReduceLogSumExp "
            "com.microsoft.QLinearAveragePool "
            "com.microsoft.QLinearGlobalAveragePool com.microsoft.QLinearReduceMean"
        ),
        _words("AVERAGE_POOL_2D MEAN SUM"),
        "a window has at most 255 rows and columns; adaptive pools of any size; variances and deviations in parts",
        DSP,
    ),
    Row(
        "softmax",
        "softmax",
        "8 4 2, result 8",
        _words("softmax _softmax log_softmax _log_softmax"),
        _words("Softmax LogSoftmax com.microsoft.QLinearSoftmax"),
        _words("SOFTMAX LOG_SOFTMAX"),
        "over any axis, by table; its logarithm by another one",
    ),
    Row(
        "argmax, argmin",
        "argmax",
        "8 4 2 32",
        _words("argmax argmin"),
        _words("ArgMax ArgMin"),
        _words("ARG_MAX ARG_MIN"),
        "over any axis but the batch; the first of equals",
    ),
    Row(
        "L2 normalization",
        "l2_normalize",
        "8 4 2, result 8",
        _words("linalg_vector_norm norm cosine_similarity pairwise_distance"),
        _words("LpNormalization ReduceL2"),
        _words("L2_NORMALIZATION"),
        "over any axis; also written out as x / length(x); lengths alone by table and pool",
    ),
)
ARITHMETIC = (
    Row(
        "ReLU, ReLU6, clip",
        "clamp of conv2d, add or mul, else rescale_copy",
        ANY_BITS,
        _words("relu relu6 hardtanh clamp clamp_min clamp_max"),
        _words("Relu Clip"),
        _words("RELU RELU6 RELU_N1_TO_1 RELU_0_TO_1"),
    ),
    Row(
        "sigmoid, tanh, GELU, SiLU, Mish, hard swish, hard sigmoid, ELU, SELU, CELU, softplus, softsign, threshold, "
        "leaky ReLU, powers, roots, exponentials, logarithms, sine, cosine, rounding, sign, absolute value",
        "table",
        ANY_BITS,
        _words(
            "sigmoid tanh gelu silu mish hardswish hardsigmoid elu selu celu softplus log_sigmoid leaky_relu rrelu "
            "threshold exp log sqrt rsqrt square abs erf reciprocal pow sin cos floor ceil round sign expm1 log1p log2 "
            "log10 exp2 hardshrink softshrink"
        ),
        _words(
            "Sigmoid Tanh Gelu Swish Mish HardSwish HardSigmoid Elu Selu Celu Softplus Softsign LeakyRelu "
            "ThresholdedRelu Exp Log Sqrt Abs Erf Reciprocal Pow Sin Cos Floor Ceil Round Sign "
            "com.microsoft.QLinearSigmoid com.microsoft.QLinearLeakyRelu"
        ),
        _words(
            "LOGISTIC TANH GELU HARD_SWISH ELU LEAKY_RELU EXP LOG SQRT RSQRT SQUARE ABS POW SIN COS FLOOR CEIL "
            "ROUND SIGN"
        ),
        "any function of one element is one table, also when it is written out in several operators",
    ),
    Row(
        "PReLU",
        "prelu, with one slope table",
        ANY_BITS,
        _words("prelu"),
        _words("PRelu"),
        _words("PRELU"),
        "one slope, or one per channel",
    ),
    Row(
        "sum, difference",
        "add",
        ANY_BITS,
        _words("add sub rsub addcmul addcdiv"),
        _words("Add Sum Sub com.microsoft.QLinearAdd"),
        _words("ADD SUB SQUARED_DIFFERENCE"),
        "with constants: in bias or batch norm (per element: under another shape); smaller tensors are repeated",
        DSP,
    ),
    Row(
        "product, quotient",
        "mul",
        ANY_BITS,
        _words("mul div glu"),
        _words("Mul Div com.microsoft.QLinearMul"),
        _words("MUL DIV"),
        "with constants: in batch norm as sums; a tensor of size 1 along an axis is repeated (squeeze and excite)",
    ),
    Row(
        "scaling, change of sign",
        "conv2d (in the one before it), else depthwise",
        CONV_BITS,
        _words("neg"),
        _words("Neg"),
        _words("NEG"),
        "per channel",
        FAST,
    ),
    Row(
        "comparisons, masks, choices by them",
        "table, mul, add; of one tensor one table",
        ANY_BITS,
        _words("gt ge lt le eq ne logical_not where masked_fill"),
        _words("Greater GreaterOrEqual Less LessOrEqual Equal Not Where"),
        _words("GREATER GREATER_EQUAL LESS LESS_EQUAL EQUAL NOT_EQUAL LOGICAL_NOT SELECT SELECT_V2"),
        "a mask is an activation of zeros and ones",
    ),
    Row(
        "maximum, minimum",
        "extremum",
        ANY_BITS,
        _words("maximum minimum"),
        _words("Max Min"),
        _words("MAXIMUM MINIMUM"),
        "of two activations; with a number: a clip",
    ),
)
MOVES = (
    Row(
        "concatenation, stacking",
        "concat",
        ANY_BITS,
        _words("cat concat stack slice_scatter select_scatter copy"),
        _words("Concat com.microsoft.QLinearConcat"),
        _words("CONCATENATION PACK"),
        "along every axis but the batch; constants become activations; assignments to slices",
    ),
    Row(
        "zero and constant padding",
        "window of the next convolution, else pad",
        ANY_BITS,
        _words("pad constant_pad_nd"),
        _words("Pad"),
        _words("PAD PADV2"),
        "height and width; channels with zeros",
    ),
    Row(
        "resizing, nearest and bilinear; reflected and repeated borders",
        "choose (nearest, borders), blend (bilinear)",
        ANY_BITS,
        _words(
            "upsample_nearest1d upsample_nearest2d _upsample_nearest_exact1d _upsample_nearest_exact2d "
            "upsample_linear1d upsample_bilinear2d"
        ),
        _words("Resize Upsample"),
        _words("RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR MIRROR_PAD"),
        "all coordinate modes but crops; bilinear shares are rounded to 1 / 2048; pad modes reflect, edge, wrap",
    ),
    Row(
        "reshape, transpose, slice, crop, split, flip, tile, channel shuffle, depth to space",
        "none where a layer can read it so, else reshape, copy, or conv2d with weights 0 and 1 (with zeros)",
        ANY_BITS,
        _words(
            "view _unsafe_view reshape flatten unflatten squeeze unsqueeze permute transpose t mT slice select split "
            "split_with_sizes unbind chunk narrow flip roll repeat expand expand_as index_select pixel_shuffle "
            "pixel_unshuffle channel_shuffle movedim tile repeat_interleave unfold diagonal index"
        ),
        _words("Reshape Flatten Squeeze Unsqueeze Transpose Slice Split Gather Expand Tile DepthToSpace SpaceToDepth"),
        _words(
            "RESHAPE SQUEEZE EXPAND_DIMS TRANSPOSE SLICE STRIDED_SLICE SPLIT SPLIT_V UNPACK GATHER TILE REVERSE_V2 "
            "DEPTH_TO_SPACE SPACE_TO_DEPTH"
        ),
        "moves of up to six nested counters",
    ),
)
OTHERS = (
    Row(
        "scales of quantized models",
        "scale and zero point of the tensor",
        "8 4 2",
        (),
        (
            *_words("QuantizeLinear DequantizeLinear com.microsoft.QuantizeLinear com.microsoft.DequantizeLinear"),
            *_words("qonnx.Quant qonnx.BipolarQuant"),
        ),
        _words("QUANTIZE DEQUANTIZE"),
        "one scale per activation; weights per tensor or per output channel; other widths in the next of 2, 4, 8",
    ),
    Row(
        "without effect in inference",
        "none",
        ANY_BITS,
        _words(
            "dropout feature_dropout clone alias contiguous detach lift_fresh_copy to _to_copy zeros_like ones_like "
            "full_like new_zeros new_ones new_full fill"
        ),
        _words("Dropout Identity Cast"),
        _words("CAST SHAPE"),
        "casts between float types; shapes are constants",
    ),
)
ROWS: tuple[Row, ...] = (*LAYERS, *ARITHMETIC, *MOVES, *OTHERS)
"""Every operator that a front end reads, in exactly one row."""
UNSUPPORTED = (
    ("attention, products of two activations as matrices", "use convolutions, or run this part elsewhere"),
    ("LSTM, GRU, RNN, SVDF", "use convolutions over time"),
    ("local response normalization", "use batch normalization"),
    ("3-D convolutions and pools, unpooling", "use 2-D ones"),
    ("control flow (If, Loop, Scan, While)", "export the branch that is used"),
    (
        "non-maximum suppression, prior boxes, anchors, region proposals, region pooling, top-k, sorting",
        "run it on the network's outputs",
    ),
)


def page() -> str:
    """``docs/operators.md``."""
    head = [
        "# Operators",
        "",
        "What each front end reads and what the device computes for it. Bits are those of weights / activations. Every",
        "operator runs on every core: without a faster kernel, the portable C one gives the same bytes. ONNX:",
        "opset 8 to current; the constants that exporters compute (Shape, Gather, Cast, ...) are folded. Any number",
        "of inputs and outputs.",
        "",
        "| what | device | bits | cores | PyTorch (aten) | ONNX | TFLite | limits |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = [
        f"| {r.what} | {r.device} | {r.bits} | {r.cores} | {_names(r.torch)} | {_names(r.onnx)} | {_names(r.tflite)} | "
        f"{r.limits} |"
        for r in ROWS
    ]
    tail = [
        "",
        "Not supported; the error lists every such operator of a model at once, with its place and what to do:",
        "",
        "| what | instead |",
        "|---|---|",
    ]
    return "\n".join([*head, *rows, *tail, *(f"| {what} | {advice} |" for what, advice in UNSUPPORTED)]) + "\n"


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)
