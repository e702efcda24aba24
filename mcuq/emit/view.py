"""What the templates are filled with: every figure and name computed, nothing left to reckon."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from mcuq.emit.arrays import ConstArray, const_arrays
from mcuq.emit.calls import Call, Context, Table
from mcuq.emit.literals import Fields
from mcuq.emit.names import comment_name
from mcuq.emit.operators import call
from mcuq.errors import CheckError
from mcuq.ir.integer import IntegerGraph, IntegerOp, QConcat, QConv2d, QInput, QReshape, QTensor, reshape_is_alias
from mcuq.ir.plans import Buffer, MemoryPlan
from mcuq.target.fusion import fusion_into, fusions, steps
from mcuq.target.placement import is_placed, placement_of, stored
from mcuq.target.runtime import step_scratch, undeclared_kernels

_CHART_COLUMNS = 64


@dataclass(frozen=True, slots=True)
class BlockView:
    """Arena bytes in one region: ``arena``, ``arena1``, ... with macros ``ARENA``, ``ARENA1``, ...

    ``region`` counts the regions of the board's arena.
    """

    name: str
    macro: str
    region: int
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class TensorView:
    """An activation: C name, comment text, arena offset (None: it is part of another) and how it is declared.

    Offsets count from the ``block`` that holds the tensor. ``read``: a statement names it; a reshape that only renames
    bytes may be named by no statement at all.
    """

    ident: str
    label: str
    text: str
    offset: int | None
    c_type: str
    scratch: int | None
    read: bool
    block: str


@dataclass(frozen=True, slots=True, eq=False)
class StepView:
    """One operator: comment, constants, parameters, statements, and the pointer and bytes of its whole output."""

    index: int
    ident: str
    comment: tuple[str, ...]
    params_type: str
    fields: Fields
    tables: tuple[Table, ...]
    arrays: tuple[tuple[str, ConstArray], ...]
    statements: tuple[str, ...]
    title: str
    result: str
    result_bytes: int


@dataclass(frozen=True, slots=True)
class PortView:
    """Input or output of the network as the header declares it."""

    macro: str
    function: str
    ident: str
    c_type: str
    size: int
    elements: int
    height: int
    width: int
    channels: int
    bits: int
    scale: str
    zero_point: int
    text: str
    pixels: bool
    block: str


@dataclass(frozen=True, slots=True, eq=False)
class ModelView:
    """Everything the templates of a model print."""

    prefix: str
    upper: str
    core: str
    steps: tuple[StepView, ...]
    tensors: tuple[TensorView, ...]
    chart: tuple[str, ...]
    blocks: tuple[BlockView, ...]
    alignment: int
    inputs: tuple[PortView, ...]
    outputs: tuple[PortView, ...]
    macs: int
    weight_bytes: int
    parameter_bytes: int
    kernels: tuple[str, ...]

    @property
    def arena_bytes(self) -> int:
        """Bytes of all blocks together."""
        return sum(block.size for block in self.blocks)

    @property
    def arrays(self) -> tuple[tuple[str, ConstArray], ...]:
        """Symbols and content of all weight and parameter arrays, in the order they are written."""
        return tuple(pair for step in self.steps for pair in step.arrays)

    @property
    def weights_crc32(self) -> int:
        """CRC-32 of :attr:`arrays` as they lie in little-endian memory."""
        crc = 0
        for _, array in self.arrays:
            crc = zlib.crc32(array.stored(), crc)
        return crc


def tensor_text(tensor: QTensor) -> str:
    height, width, channels = tensor.shape
    return f"{height}x{width}x{channels}, {tensor.bits} bits"


def c_type(tensor: QTensor) -> str:
    """Element type of a tensor's buffer: packed tensors are bytes."""
    return {8: "int8_t", 32: "int32_t"}.get(tensor.bits, "uint8_t")


def build_view(graph: IntegerGraph, plan: MemoryPlan, core: str, prefix: str) -> ModelView:
    """Everything to print.

    Raises:
        CheckError: plan and graph do not belong together.
        UnsupportedError: a figure is too large for the runtime's parameter structs.
    """
    _check_plan(graph, plan, core)
    ordered = tuple(graph.op(name) for name in plan.order)
    idents = {op.name: f"l{index}" for index, op in enumerate(ordered)}
    idents |= {fusion.conv: f"{idents[fusion.into]}c" for fusion in fusions(graph)}
    blocks = tuple(
        BlockView(f"arena{i or ''}", f"ARENA{i or ''}", b.region, b.start, b.size) for i, b in enumerate(plan.blocks)
    )
    steps = tuple(_step(op, i, graph, plan, core, prefix, idents, blocks) for i, op in enumerate(ordered))
    arrays = [array for step in steps for _, array in step.arrays]
    named = frozenset(word for step in steps for text in step.statements for word in re.findall(r"\w+", text))
    return ModelView(
        prefix=prefix,
        upper=prefix.upper(),
        core=core,
        steps=steps,
        tensors=tuple(_tensor(op, graph, plan, core, idents, named, blocks) for op in ordered),
        chart=_chart(plan, idents, blocks),
        blocks=blocks,
        alignment=plan.alignment,
        inputs=_ports(graph.inputs, "input", idents, plan, blocks),
        outputs=_ports(tuple(graph.op(name) for name in graph.outputs), "output", idents, plan, blocks),
        macs=sum(_macs(op) for op in graph),
        weight_bytes=sum(a.values.nbytes for a in arrays if a.role == "weights"),
        parameter_bytes=sum(a.values.nbytes for a in arrays if a.role == "parameters"),
        kernels=undeclared_kernels(graph, core),
    )


def _holding(blocks: Sequence[BlockView], buffer: Buffer) -> BlockView:
    """The block in which a buffer lies."""
    return next(block for block in reversed(blocks) if block.start <= buffer.offset)


def _macs(op: IntegerOp) -> int:
    return op.output.shape[0] * op.output.shape[1] * op.weight.size if isinstance(op, QConv2d) else 0


def _check_plan(graph: IntegerGraph, plan: MemoryPlan, core: str) -> None:
    """The plan has a large enough, aligned buffer for everything; that they do not collide is the planner's proof."""
    if sorted(plan.order) != sorted(op.name for op in steps(graph)):
        raise CheckError("the memory plan orders other operators than the graph has; plan this graph again")
    for op in steps(graph):
        whole = stored(graph, op.name) == op.name
        need = [("activation", op.output.bytes, 4 if op.output.bits == 32 else 1)] if whole else []
        if scratch := step_scratch(op, graph, core):
            need.append(("scratch", scratch, 4))
        for kind, size, alignment in need:
            try:
                buffer = plan.buffer(op.name, kind)
            except KeyError:
                text = f"the memory plan has no {kind} buffer for layer {op.name}; plan for core {core}"
                raise CheckError(text) from None
            if buffer.size < size or buffer.offset + size > plan.arena_bytes or buffer.offset % alignment:
                raise CheckError(
                    f"the memory plan gives layer {op.name} {buffer.size} bytes at {buffer.offset} of "
                    f"{plan.arena_bytes}, but its {kind} needs {size} bytes at a multiple of {alignment}; "
                    f"plan for core {core}"
                )


def _aliased(op: IntegerOp, graph: IntegerGraph, plan: MemoryPlan) -> bool:
    """A reshape whose output already lies where its input is."""
    if not isinstance(op, QReshape):
        return False
    source = op.inputs[0]
    same_place = plan.buffer(op.name).offset == plan.buffer(source).offset
    if same_place and not reshape_is_alias(graph.tensor(source), op.output):
        raise CheckError(f"the memory plan aliases layer {op.name}, whose rows must be repacked; plan this graph again")
    return same_place


def _step(
    op: IntegerOp,
    index: int,
    graph: IntegerGraph,
    plan: MemoryPlan,
    core: str,
    prefix: str,
    idents: dict[str, str],
    blocks: tuple[BlockView, ...],
) -> StepView:
    scratch = "NULL"
    if step_scratch(op, graph, core):
        scratch = f"{_holding(blocks, plan.buffer(op.name, 'scratch')).name} + L{index}_SCRATCH"
    target = stored(graph, op.name)
    overwritten = plan.buffer(target).alias_of if target == op.name else ""
    ahead = plan.buffer(overwritten).offset - plan.buffer(target).offset if overwritten else 0
    at = Context(graph, core, prefix, idents, scratch, _aliased(op, graph, plan), overwritten, ahead)
    text: Call = call(op, at)
    fusion = fusion_into(graph, op.name)
    owners = (op,) if fusion is None else (graph.op(fusion.conv), op)
    arrays = tuple((owner, array) for owner in owners for array in const_arrays(owner, graph, core))
    title = " in ".join(map(_title, owners))
    return StepView(
        index=index,
        ident=idents[op.name],
        comment=_comment(op, graph, [array for _, array in arrays], title, at),
        params_type=text.params_type,
        fields=text.fields,
        tables=text.tables,
        arrays=tuple((at.symbol(owner, array.field), array) for owner, array in arrays),
        statements=text.statements,
        title=f"{comment_name(op.name)}: {title}",
        result=idents[target],
        result_bytes=op.output.bytes if target == op.name else 0,
    )


def _title(op: IntegerOp) -> str:
    kind = type(op).__name__.removeprefix("Q").lower()
    window = getattr(op, "window", None)
    if window is None:
        return kind
    stride = "" if window.stride == (1, 1) else f" stride {window.stride[0]}x{window.stride[1]}"
    groups = f" groups {op.groups}" if isinstance(op, QConv2d) and op.groups > 1 else ""
    return f"{kind} {window.kernel[0]}x{window.kernel[1]}{stride}{groups}"


def _comment(
    op: IntegerOp, graph: IntegerGraph, arrays: Sequence[ConstArray], title: str, at: Context
) -> tuple[str, ...]:
    inputs = " + ".join(tensor_text(graph.tensor(name)) for name in op.inputs)
    flow = f"{inputs} -> {tensor_text(op.output)}" if inputs else tensor_text(op.output)
    lines = [f"{comment_name(op.name)}: {title}", f"{flow} ({op.output.bytes} bytes)"]
    fusion, placement = fusion_into(graph, op.name), placement_of(graph, op.name)
    conv = op if fusion is None else graph.op(fusion.conv)
    if fusion is not None:
        source = tensor_text(graph.tensor(conv.inputs[0]))
        lines.append(f"{comment_name(conv.name)} of {source} is computed here, {fusion.rows} rows at a time")
    if placement is not None:
        channels = f"channels {placement.first} to {placement.first + op.output.shape[2] - 1}"
        lines.append(f"written into {comment_name(placement.concat)}, {channels}, {placement.rows} rows at a time")
    if isinstance(conv, QConv2d):
        stored_bytes = sum(array.values.nbytes for array in arrays if array.role == "weights")
        lines.append(f"weights {conv.weight_bits} bits, {stored_bytes} bytes; {_macs(conv)} multiply-accumulates")
    if at.aliased:
        lines.append("the same bytes under another shape: nothing to compute")
    elif is_placed(graph, op.name):
        lines.append("its inputs were written where they belong: nothing to compute")
    elif at.overwritten and not isinstance(op, QReshape):
        lines.append(_over(op, at))
    return tuple(lines)


def _over(op: IntegerOp, at: Context) -> str:
    source = comment_name(at.overwritten)
    if at.ahead:
        return f"shares bytes with {source}, which begins {at.ahead} bytes behind the output's first byte"
    return f"{'spread' if isinstance(op, QConcat) else 'in place'}: the output takes the bytes of {source}"


def _tensor(
    op: IntegerOp,
    graph: IntegerGraph,
    plan: MemoryPlan,
    core: str,
    idents: dict[str, str],
    named: frozenset[str],
    blocks: tuple[BlockView, ...],
) -> TensorView:
    scratch = plan.buffer(op.name, "scratch") if step_scratch(op, graph, core) else None
    whole = plan.buffer(op.name) if stored(graph, op.name) == op.name else None
    block = blocks[0] if whole is None else _holding(blocks, whole)
    return TensorView(
        ident=idents[op.name],
        label=idents[op.name].upper(),
        text=f"{comment_name(op.name)}, {tensor_text(op.output)}",
        offset=None if whole is None else whole.offset - block.start,
        c_type="int32_t" if op.output.bits == 32 else "uint8_t",
        scratch=None if scratch is None else scratch.offset - _holding(blocks, scratch).start,
        read=idents[op.name] in named,
        block=block.name,
    )


def _ports(
    ops: Sequence[IntegerOp], kind: str, idents: dict[str, str], plan: MemoryPlan, blocks: tuple[BlockView, ...]
) -> tuple[PortView, ...]:
    """``kind``, ``kind1``, ...; of several the text says the name."""
    named = [comment_name(op.name) + ", " if len(ops) > 1 else "" for op in ops]
    found = [_holding(blocks, plan.buffer(op.name)).name for op in ops]
    return tuple(_port(op, idents[op.name], f"{kind}{i or ''}", named[i], found[i]) for i, op in enumerate(ops))


def _port(op: IntegerOp, ident: str, function: str, named: str, block: str) -> PortView:
    tensor = op.output
    height, width, channels = tensor.shape
    pixels = isinstance(op, QInput) and op.encoding == "uint8"
    return PortView(
        macro=function.upper(),
        function=function,
        ident=ident,
        c_type="uint8_t" if pixels else c_type(tensor),
        size=tensor.bytes,
        elements=height * width * channels,
        height=height,
        width=width,
        channels=channels,
        bits=tensor.bits,
        scale=repr(float(tensor.scale)),
        zero_point=tensor.zero_point,
        text=named + tensor_text(tensor),
        pixels=pixels,
        block=block,
    )


def _chart(plan: MemoryPlan, idents: dict[str, str], blocks: tuple[BlockView, ...]) -> tuple[str, ...]:
    """Rows of the liveness table: buffer, offset (in which of several blocks), bytes, steps, a bar over the steps."""
    steps = len(plan.order)
    per_column = -(-steps // _CHART_COLUMNS)
    columns = -(-steps // per_column)
    wide = 9 if len(blocks) == 1 else 16
    head = f"{'buffer':<13}{'offset':>{wide}}{'bytes':>9}  {'steps':<9}" + "one column per "
    head += "step" if per_column == 1 else f"{per_column} steps"
    rows = [head]
    for buffer in sorted(plan.buffers, key=lambda b: (b.first, b.offset, b.kind, int(idents[b.name][1:]))):
        bar = "".join(_mark(buffer, column * per_column, per_column) for column in range(columns))
        block = _holding(blocks, buffer)
        label = idents[buffer.name] + (" scratch" if buffer.kind == "scratch" else "")
        offset = f"{block.name}+{buffer.offset - block.start}" if len(blocks) > 1 else str(buffer.offset)
        lifetime = f"{buffer.first}-{buffer.last}"
        rows.append(f"{label:<13}{offset:>{wide}}{buffer.size:>9}  {lifetime:<9}{bar}".rstrip())
    return tuple(rows)


def _mark(buffer: Buffer, start: int, count: int) -> str:
    alive = buffer.first < start + count and buffer.last >= start
    return ("+" if buffer.kind == "scratch" else "#") if alive else "."
