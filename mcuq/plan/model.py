"""Planning problems from float graphs: mcuq's own byte model, and the paper's for comparison on equal terms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Literal

from mcuq.errors import UsageError
from mcuq.ir.graph import (
    Activation,
    Add,
    Argmax,
    AvgPool,
    Concat,
    Conv2d,
    FloatOp,
    Graph,
    Input,
    MaxPool,
    Resample,
    Reshape,
    Softmax,
    is_depthwise,
)
from mcuq.ir.integer import QTensor, reshape_is_alias
from mcuq.ir.plans import Granularity, Limits, Sensitivity
from mcuq.numerics import row_bytes, tensor_bytes
from mcuq.plan.decisions import Wishes, decide, fixed_bits, sharing
from mcuq.plan.executed import instruction_costs
from mcuq.plan.paper import FoldType, QuantType, paper_layers, static_bytes
from mcuq.plan.problem import (
    CONSTANT_ZERO,
    Code,
    Cost,
    Decision,
    Member,
    Peak,
    PlanOp,
    PlanStorage,
    Problem,
    Take,
    Term,
)
from mcuq.plan.rules import Scheme
from mcuq.target import code_table
from mcuq.target.cost import (
    FUNCTIONS,
    RAM_RESERVE,
    RESAMPLE,
    band_struct,
    conv_flash_bytes,
    float_case,
    float_struct_bytes,
)
from mcuq.target.fusion import (
    BAND_FUNCTIONS,
    AddFusion,
    band_bytes,
    fusion_into,
    fusion_of_conv,
    fusions,
)
from mcuq.target.kernels import Kernel, select
from mcuq.target.placement import (
    ROW_FUNCTIONS,
    call_kind,
    is_placed,
    placement_of,
    placements,
    rows_held,
    spreadable,
    stored,
)
from mcuq.target.runtime import elementwise
from mcuq.target.sharing import overlap

WIDTHS = (32, 8, 4, 2)


@dataclass(frozen=True, slots=True)
class Scales:
    """How weights are quantized, as far as bytes go: with zero points or symmetric, one step per channel or per layer.

    ``auto``: the solver chooses for each layer whose bytes depend on it (:func:`smaller_per_layer`).
    """

    asymmetric: bool = False
    granularity: Granularity | Literal["auto"] = "channel"


def layers_with_choice(graph: Graph, core: str, scales: Scales) -> dict[str, tuple[Granularity, ...]]:
    """Granularities to choose from, by convolution; those left out have one step per channel."""
    match scales.granularity:
        case "channel":
            return {}
        case "layer":
            return {op.name: ("layer",) for op in graph.convs}
        case "auto":
            return {op.name: ("channel", "layer") for op in graph.convs if smaller_per_layer(graph, op, core, scales)}


def smaller_per_layer(graph: Graph, op: Conv2d, core: str, scales: Scales) -> bool:
    """One step for the layer takes less flash than one per channel, at some bits.

    It does not where kernels store a multiplier beside every channel's weights either way; then it is never better.
    """

    def flash(x: int, w: int, y: int) -> int:
        case = float_case(graph, op, (x, w, y), asymmetric=scales.asymmetric)
        return conv_flash_bytes(case, select(case, core))

    return any(flash(x, -w, y) < flash(x, w, y) for x, w, y in product(WIDTHS[1:], repeat=3))


def problem_from_graph(
    graph: Graph,
    sensitivity: Sensitivity,
    limits: Limits,
    core: str,
    *,
    wishes: Wishes | None = None,
    scales: Scales | None = None,
    ram_reserve: int = RAM_RESERVE,
    cuts: tuple[int, ...] = (),
) -> Problem:
    """The problem of a fused ``graph`` in mcuq's byte model with the kernels of ``core``.

    Flash: packed weights, parameter arrays and structs, tables, and the code of the kernels used (measured table). RAM:
    arena with scratch, cut where a RAM region ends (``Board.cuts``), plus ``ram_reserve`` for stack and statics.

    Raises:
        UsageError: see :func:`mcuq.plan.decisions.decide`.
    """
    wishes, scales = wishes or Wishes(), scales or Scales()
    members = _members(graph)
    fixed = fixed_bits(graph, wishes.logits_bits)
    steps = {f"{name}.weight": allowed for name, allowed in layers_with_choice(graph, core, scales).items()}
    decisions, owner = decide(graph, members, sensitivity, wishes, sharing(graph), fixed=fixed, steps=steps)
    builder = _Builder(graph, core, scales, members, {d.name: d for d in decisions}, owner, {})
    flash = tuple(Cost(f"{op.name}.weight", builder.conv_flash(op)) for op in graph.convs)
    flash += tuple(Cost(f"table of {op.name}", builder.table(op)) for op in graph if isinstance(op, Activation))
    storages, views = builder.storages()
    others = [op for op in graph if not isinstance(op, Conv2d)]
    steps = [op for op in graph if fusion_of_conv(graph, op.name) is None]
    calls = [(call_kind(graph, op), len(op.inputs)) for op in steps]
    constant = code_table.startup_bytes(core) + code_table.model_bytes(core, calls)
    constant += sum(float_struct_bytes(op) for op in others) + sum(map(band_struct, fusions(graph)))
    return Problem(
        decisions=decisions,
        flash=flash,
        code=builder.code(),
        flash_constant=constant,
        ops=tuple(builder.plan_op(op, views) for op in steps),
        storages=storages,
        peaks=(),
        ram_reserve=ram_reserve,
        limits=limits,
        unit=8,
        tensors=tuple((name, owner[name]) for name in members),
        order=tuple(op.name for op in graph),
        instructions=builder.instructions(limits),
        cuts=cuts,
    )


def _members(graph: Graph) -> dict[str, Member]:
    """Every tensor in execution order: a layer's weights, then what it writes."""
    found: dict[str, Member] = {}
    for op in graph:
        if isinstance(op, Conv2d):
            sizes = tuple((b, _weight_bytes(graph, op, b)) for b in WIDTHS[1:])
            found[f"{op.name}.weight"] = Member(op.name, "weight", sizes)
        found[op.name] = Member(op.name, "activation", tuple((b, tensor_bytes(op.shape, b)) for b in WIDTHS))
    return found


def _weight_bytes(graph: Graph, op: Conv2d, bits: int) -> int:
    """Packed rows of the portable layouts: per output channel, or per tap for depthwise."""
    out, height, width, depth = op.weight.shape
    if op.window.transposed:
        return out * height * width * row_bytes(depth, bits)
    if is_depthwise(op.groups, op.weight.shape, graph.op(op.inputs[0]).shape[2]):
        return height * width * row_bytes(out, bits)
    return out * row_bytes(height * width * depth, bits)


@dataclass(frozen=True, slots=True)
class _Builder:
    graph: Graph
    core: str
    scales: Scales
    members: Mapping[str, Member]
    decisions: Mapping[str, Decision]
    owner: Mapping[str, str]
    cached: dict[str, tuple[tuple[str, ...], list[tuple[tuple[int, ...], Kernel, int]]]]

    def _rows(self, tensors: tuple[str, ...]) -> tuple[tuple[str, ...], list[tuple[tuple[int, ...], tuple[int, ...]]]]:
        """Distinct decisions of ``tensors`` and rows of (choice of each decision, choice of each tensor)."""
        names = tuple(dict.fromkeys(self.owner[tensor] for tensor in tensors))
        rows: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        for key in product(*(self.decisions[name].choices for name in names)):
            chosen = dict(zip(names, key, strict=True))
            own = tuple(self.members[tensor].choice(chosen[self.owner[tensor]]) for tensor in tensors)
            rows.append((key, own))
        return names, rows

    def _kernels(self, op: Conv2d) -> tuple[tuple[str, ...], list[tuple[tuple[int, ...], Kernel, int]]]:
        """Decisions a convolution depends on, and (their bits, kernel, flash bytes) of every combination."""
        if op.name not in self.cached:
            self.cached[op.name] = self._select(op)
        return self.cached[op.name]

    def _select(self, op: Conv2d) -> tuple[tuple[str, ...], list[tuple[tuple[int, ...], Kernel, int]]]:
        names, rows = self._rows((op.inputs[0], f"{op.name}.weight", op.name))
        found: list[tuple[tuple[int, ...], Kernel, int]] = []
        for key, (x, w, y) in rows:
            case = float_case(self.graph, op, (x, w, y), asymmetric=self.scales.asymmetric)
            kernel = select(case, self.core)
            found.append((key, kernel, conv_flash_bytes(case, kernel)))
        return names, found

    def conv_flash(self, op: Conv2d) -> Term:
        names, rows = self._kernels(op)
        return reduced(Term(names, tuple((key, size) for key, _, size in rows)))

    def table(self, op: Activation) -> Term:
        """Entries of a table: one byte per code of the input."""
        names, rows = self._rows((op.inputs[0],))
        return Term(names, tuple((key, 1 << bits) for key, (bits,) in rows))

    def code(self) -> tuple[Code, ...]:
        """Symbols of the runtime with the bits that need them; helpers that functions share count once."""
        uses: dict[str, set[tuple[tuple[str, int], ...]]] = {}
        bands = [name for fusion in fusions(self.graph) for name in BAND_FUNCTIONS[type(fusion)]]
        bands += ROW_FUNCTIONS if placements(self.graph) else ()
        always = dict.fromkeys(s for name in bands for s in code_table.symbols(name, self.core))
        for op in self.graph:
            names, rows = self._functions(op)
            for function in dict.fromkeys(name for _, name in rows if name):
                term = reduced(Term(names, tuple((key, int(name == function)) for key, name in rows)))
                wanted = {tuple(zip(term.decisions, key, strict=True)) for key, used in term.table if used}
                for symbol in code_table.symbols(function, self.core):
                    if term.decisions:
                        uses.setdefault(symbol, set()).update(wanted)
                    else:
                        always[symbol] = None
        found = [Code(name, code_table.symbol_bytes(name, self.core), ()) for name in always]
        found += [
            Code(name, code_table.symbol_bytes(name, self.core), tuple(sorted(wanted)))
            for name, wanted in sorted(uses.items())
            if name not in always
        ]
        return tuple(found)

    def instructions(self, limits: Limits) -> tuple[Cost, ...]:
        """Predicted per operator; none for a core without measurements. Raises UsageError if they are limited then."""
        try:
            costs = instruction_costs(
                self.graph, self.core, self._rows, self._functions, asymmetric=self.scales.asymmetric
            )
        except UsageError:
            if limits.instructions is not None:
                raise
            return ()
        return tuple(Cost(cost.name, reduced(cost.term)) for cost in costs)

    def _functions(self, op: FloatOp) -> tuple[tuple[str, ...], list[tuple[tuple[int, ...], str]]]:
        """The runtime function of ``op`` ("" for none) for every choice of the bits that matter."""
        if isinstance(op, Conv2d):
            names, rows = self._kernels(op)
            return names, [(key, kernel.function) for key, kernel, _ in rows]
        if isinstance(op, Add | MaxPool | AvgPool):
            name = FUNCTIONS[type(op).__name__]
            dilated = not isinstance(op, Add) and op.window.dilation != (1, 1)
            names, chosen = self._rows((*op.inputs, op.name))
            return names, [(key, elementwise(name, self.core, bits, dilated=dilated)) for key, bits in chosen]
        view = isinstance(op, Reshape) and all(self._aliases(op, b) for b in self._bits(op.name))
        codes = isinstance(op, Input) and op.normalization is None
        if isinstance(op, Resample):
            return (), [((), RESAMPLE[op.chooses])]
        return (), [((), "" if view or codes else FUNCTIONS[type(op).__name__])]

    def storages(self) -> tuple[tuple[PlanStorage, ...], dict[str, str]]:
        """Storages, and the storage of every tensor: reshapes that move no byte at any choice are views."""
        storage: dict[str, str] = {}
        tensors: dict[str, list[str]] = {}
        for op in self.graph:
            view = isinstance(op, Reshape) and all(self._aliases(op, b) for b in self._bits(op.name))
            storage[op.name] = storage[op.inputs[0]] if view else stored(self.graph, op.name)
            tensors.setdefault(storage[op.name], []).append(op.name)
        kept = {storage[name] for name in self.graph.outputs}
        found = tuple(
            PlanStorage(name, self._size(self.graph.op(name)), tuple(group), name in kept)
            for name, group in tensors.items()
            if fusion_of_conv(self.graph, name) is None
        )
        return found, storage

    def _bits(self, tensor: str) -> tuple[int, ...]:
        return tuple(abs(choice) for choice in self.decisions[self.owner[tensor]].choices)

    def _aliases(self, op: Reshape, bits: int) -> bool:
        source = self.graph.op(op.inputs[0])
        return reshape_is_alias(QTensor(source.shape, bits, 1.0, 0), QTensor(op.shape, bits, 1.0, 0))

    def _size(self, op: FloatOp) -> Term:
        names, rows = self._rows((op.name,))
        return Term(names, tuple((key, tensor_bytes(op.shape, bits)) for key, (bits,) in rows))

    def plan_op(self, op: FloatOp, storage: Mapping[str, str]) -> PlanOp:
        scratch, fusion = CONSTANT_ZERO, fusion_into(self.graph, op.name)
        conv = self.graph.op(fusion.conv) if fusion else op
        if isinstance(conv, Conv2d):
            scratch = self._scratch(conv)
        reads = tuple(dict.fromkeys(storage[name] for name in self._inputs(op)))
        return PlanOp(op.name, reads, storage[op.name], scratch, self._takes(op, storage), isinstance(op, Concat))

    def _scratch(self, conv: Conv2d) -> Term:
        """The kernel's scratch and rows of the convolution's output, if it runs in bands."""
        band, (_, width, channels) = rows_held(self.graph, conv.name), conv.shape
        names, rows = self._kernels(conv)
        _, bits = self._rows((conv.inputs[0], f"{conv.name}.weight", conv.name))
        table: list[tuple[tuple[int, ...], int]] = []
        for (key, kernel, _), (_, (_, _, y)) in zip(rows, bits, strict=True):
            own, behind = kernel.scratch_bytes, band_bytes(row_bytes(channels, y), width, band)
            table.append((key, (own + 3 & ~3) + behind if band else own))
        return reduced(Term(names, tuple(table)))

    def _takes(self, op: FloatOp, storage: Mapping[str, str]) -> tuple[Take, ...]:
        """Inputs with which the output may share bytes (``target.sharing``); reshapes that alias at some bits, and
        concatenations that spread an input, share whole ones."""
        if placement_of(self.graph, op.name) or is_placed(self.graph, op.name):
            return ()
        if isinstance(op, Concat):
            return tuple(self._spread(op, source, storage) for source in spreadable(self.graph, op))
        if isinstance(op, Reshape):
            found = [] if storage[op.name] != op.name else [self._aliasing(op, storage)]
        else:
            read = self._inputs(op)
            found = [self._take(op, source, storage) for source in dict.fromkeys(read)]
            twice = [name for name, count in Counter(take.storage for take in found).items() if count > 1]
            found = [replace(take, distance=None) if take.storage in twice else take for take in found]
        return tuple(take for take in found if take.allowed.most or take.distance is not None)

    def _inputs(self, op: FloatOp) -> tuple[str, ...]:
        """Tensors that the step of ``op`` reads."""
        fusion = fusion_into(self.graph, op.name)
        if fusion is None:
            return op.inputs
        inputs = self.graph.op(fusion.conv).inputs
        return (*inputs, fusion.residual) if isinstance(fusion, AddFusion) else inputs

    def _take(self, op: FloatOp, source: str, storage: Mapping[str, str]) -> Take:
        kernels: list[Kernel | None] = []
        if isinstance(op, Conv2d):
            kernels = [kernel for _, kernel, _ in self._kernels(op)[1]]
            names, chosen = self._rows((source, f"{op.name}.weight", op.name))
        else:
            names, chosen = self._rows((source, op.name))
            kernels = [None] * len(chosen)
        ways = [
            (key, bits[-1], overlap(self.graph, op, source, (bits[0], bits[-1]), kernel))
            for (key, bits), kernel in zip(chosen, kernels, strict=True)
        ]
        allowed = tuple((key, int(way is not None and way.in_place)) for key, _, way in ways)
        whole = [tensor_bytes(op.shape, bits) for _, bits, _ in ways]
        far = [
            size if way is None or way.distance is None else min(way.distance, size)
            for size, (_, _, way) in zip(whole, ways, strict=True)
        ]
        distance = tuple((key, least) for (key, _, _), least in zip(ways, far, strict=True))
        return Take(
            storage[source],
            reduced(Term(names, allowed)),
            reduced(Term(names, distance)) if far != whole else None,
        )

    def _aliasing(self, op: Reshape, storage: Mapping[str, str]) -> Take:
        source = op.inputs[0]
        names, rows = self._rows((source, op.name))
        table = tuple((key, int(self._aliases(op, bits[1]))) for key, bits in rows)
        return Take(storage[source], reduced(Term(names, table)))

    def _spread(self, op: Concat, source: str, storage: Mapping[str, str]) -> Take:
        names, rows = self._rows((source, op.name))
        return Take(storage[source], reduced(Term(names, tuple((key, int(x <= y)) for key, (x, y) in rows))))


def reduced(term: Term) -> Term:
    """The same cost without the decisions it does not depend on."""
    for k, name in enumerate(term.decisions):
        rest = tuple(n for n in term.decisions if n != name)
        values: dict[tuple[int, ...], set[int]] = {}
        for key, value in term.table:
            values.setdefault(key[:k] + key[k + 1 :], set()).add(value)
        if all(len(v) == 1 for v in values.values()):
            return reduced(Term(rest, tuple((key, next(iter(v))) for key, v in values.items())))
    return term


def paper_problem(
    graph: Graph,
    sensitivity: Sensitivity,
    limits: Limits,
    scheme: Scheme,
    *,
    wishes: Wishes | None = None,
) -> Problem:
    """The problem of a fused ``graph`` in the paper's byte model (see ``plan.paper``).

    A layer's output bits are the next layer's input bits, and operators without weights keep the bits of the layer
    before them, as in ``plan.rules``; fold types follow from the bits (sub-byte: ICN).
    """
    wishes = wishes or Wishes(first_last_bits=2)
    members = _paper_members(graph)
    fixed = {name: bits for name, bits in fixed_bits(graph, 8).items() if name == graph.input.name}
    fixed |= {op.name: (8,) for op in graph if isinstance(op, Softmax)}
    fixed |= {op.name: (32,) for op in graph if isinstance(op, Argmax)}
    fixed[graph.convs[-1].name] = (8,)
    shared, current = list[tuple[str, str]](), graph.input.name
    for op in graph:
        if isinstance(op, Conv2d):
            current = op.name
        elif not isinstance(op, Softmax | Argmax) and op.name != current:
            shared.append((current, op.name))
    decisions, owner = decide(graph, members, sensitivity, wishes, shared, fixed=fixed)
    choices = {d.name: d.choices for d in decisions}
    layers = paper_layers(graph)
    flash: list[Cost] = []
    peaks: list[Peak] = []
    before = owner[graph.input.name]
    for k, layer in enumerate(layers):
        weight, after = owner[f"{layer.name}.weight"], owner[layer.name]
        static = _static(layer.channels, scheme, (weight, after), choices, last=k == len(layers) - 1)
        flash.append(Cost(f"{layer.name}.weight", _scaled(weight, choices[weight], layer.weights)))
        flash.append(Cost(f"parameters of {layer.name}", static))
        source = Cost(graph.op(layer.name).inputs[0], _scaled(before, choices[before], layer.inputs))
        peaks.append(Peak(layer.name, (source, Cost(layer.name, _scaled(after, choices[after], layer.outputs)))))
        before = after
    return Problem(
        decisions=decisions,
        flash=tuple(flash),
        code=(),
        flash_constant=0,
        ops=(),
        storages=(),
        peaks=tuple(peaks),
        ram_reserve=0,
        limits=limits,
        unit=1,
        tensors=tuple((name, owner[name]) for name in members),
        order=tuple(op.name for op in graph),
    )


def _paper_members(graph: Graph) -> dict[str, Member]:
    """As :func:`_members`, with sizes that are not rounded up per row."""
    found: dict[str, Member] = {}
    for op in graph:
        if isinstance(op, Conv2d):
            sizes = tuple((b, -(-op.weight.size * b // 8)) for b in WIDTHS)
            found[f"{op.name}.weight"] = Member(op.name, "weight", sizes)
        found[op.name] = Member(op.name, "activation", tuple((b, -(-prod(op.shape) * b // 8)) for b in WIDTHS))
    return found


def _scaled(name: str, bits: tuple[int, ...], count: int) -> Term:
    return Term((name,), tuple(((b,), count * b) for b in bits))


def _static(
    channels: int, scheme: Scheme, names: tuple[str, str], choices: Mapping[str, tuple[int, ...]], *, last: bool
) -> Term:
    quant: QuantType = "PerLayerAsymPACT" if scheme == "MixPL" else "PerChannelsAsymMinMax"
    rows: list[tuple[tuple[int, ...], int]] = []
    for w, y in product(choices[names[0]], choices[names[1]]):
        fold: FoldType = "ICN" if scheme == "MixPC" or w < 8 or y < 8 else "folding_weights"
        rows.append(((w, y), 8 * static_bytes(channels, quant, fold, last=last)))
    return reduced(Term(names, tuple(rows)))
