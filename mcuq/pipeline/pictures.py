"""Pictures and the report of a run, written into its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mcuq.ir.container import write_atomic
from mcuq.ir.files import load_integer
from mcuq.ir.integer import IntegerGraph
from mcuq.ir.plans import BitPlan
from mcuq.pipeline import logs, statistics
from mcuq.pipeline.outcomes import DemoOutcome
from mcuq.pipeline.runs import RunFolder
from mcuq.plan.memory import plan_memory
from mcuq.report import (
    Fact,
    Picture,
    activations_picture,
    bits_picture,
    confusion_picture,
    curves_picture,
    html_report,
    layer_rows,
    memory_picture,
    ranks_picture,
    scales_picture,
    weights_picture,
)


def write(
    run: RunFolder,
    plan: BitPlan,
    graph: IntegerGraph,
    core: str,
    facts: Sequence[Fact] = (),
    instructions: Mapping[str, int] | None = None,
    cuts: tuple[int, ...] = (),
) -> tuple[str, ...]:
    """All pictures and ``report.html``, from the networks and from what the run's folder holds.

    Args:
        core: whose kernels' scratch the arena holds. cuts: where it goes on in another region of the board.

    Returns:
        Paths of the pictures; empty without matplotlib.
    """
    drawn = draw(run, plan, graph, core, cuts)
    for name, picture in drawn.items():
        write_atomic(run.path / f"{name}.png", picture.png)
    record = run.record()
    settings = record.get("settings", {})
    if "quantized" in record:
        settings = {"model": {"name": record["quantized"]["model"]}, "data": record["quantized"]["calibrate"]}
    title = f"{settings.get('model', {}).get('name', 'network')} on {settings.get('data', 'data')}"
    page = html_report(
        title, run.path.name, command(settings), facts, list(drawn.values()), layer_rows(graph, instructions)
    )
    write_atomic(run.path / "report.html", page.encode())
    return tuple(str(run.path / f"{name}.png") for name in drawn)


def draw(
    run: RunFolder, plan: BitPlan, graph: IntegerGraph, core: str, cuts: tuple[int, ...] = ()
) -> dict[str, Picture]:
    """The pictures by name; none without matplotlib."""
    try:
        import matplotlib  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ModuleNotFoundError:
        return {}
    memory = plan_memory(graph, core, cuts=cuts)
    bits = {op.name: op.output.bits for op in graph}
    drawn = {
        "bits": Picture("Bits of every tensor", bits_picture(plan)),
        "memory": Picture("The arena over time", memory_picture(memory, bits, plan.limits.ram or None)),
    }
    if found := run.read_sensitivity():
        picture = ranks_picture(found["method"], found["predicted"], found["measured"], found["spearman"])
        drawn["sensitivity"] = Picture("What the sensitivity predicts of whole plans", picture)
    if points := logs.epochs(run.path):
        drawn["curves"] = Picture("Loss and accuracy by epoch", curves_picture(points))
    if confusion := statistics.confusion(run):
        drawn["confusion"] = Picture("What the network says of each class, oracle", confusion_picture(*confusion))
    if weights := statistics.weight_rows(run):
        drawn["weights"] = Picture("Weights before and after training, and their codes", weights_picture(weights))
    if run.test.exists():
        rows = statistics.activation_rows(graph, run.read_test()[0])
        drawn["activations"] = Picture("Ranges of the activations and what they clip", activations_picture(rows))
    if scales := logs.scales(run.path):
        drawn["scales"] = Picture("Step sizes over the epochs", scales_picture(scales))
    return drawn


def command(settings: Mapping[str, Any]) -> str:
    """The command line that makes the run again."""
    model, choice = settings.get("model", {}), settings.get("choice", {})
    words = ["mcuq train"]
    flat = {
        "model": model.get("name"),
        "width": model.get("width") if model.get("width") != 1.0 else None,
        "resolution": model.get("resolution"),
        "data": settings.get("data"),
        **{k.replace("_", "-"): v for k, v in choice.items() if v is not None and (k, v) != ("sensitivity", "kl")},
        **{
            k.replace("_", "-"): settings.get(k)
            for k in (
                "epochs",
                "float_epochs",
                "quant_type",
                "fold_type",
                "fold_delay",
                "act_type",
                "weight_range",
                "act_range",
                "scaling",
                "clamp_epochs",
                "layer_config",
                "batch_size",
                "lr",
                "optimizer",
                "images",
                "weights",
            )
        },
        "seed": settings.get("seed") or None,
    }
    words += [f"--{key} {value}" for key, value in flat.items() if value is not None]
    words += [] if settings.get("branch_quant", True) else ["--no-branch-quant"]
    words += [f"--recipe {name}={value}" for name, value in settings.get("recipe", ())]
    return " ".join(words)


def conclude(run: RunFolder, demo: DemoOutcome) -> DemoOutcome:
    """Write the report again with what the device showed; returns the outcome with its pictures' paths."""
    graph, _ = load_integer(run.model)
    plan = demo.train.solve.plan
    accuracy = {**demo.train.accuracy, "device": demo.verify.accuracy["device"]}
    facts = [Fact(f"accuracy, {name}", f"{100 * (value or 0):.2f} %") for name, value in accuracy.items()]
    facts += [
        Fact("output bytes that differ", str(demo.verify.mismatching_bytes), f"of {demo.verify.compared_bytes:,}"),
        Fact("flash measured", f"{demo.emit.flash[1]:,}", f"promised {demo.emit.flash[0]:,}"),
        Fact("RAM measured", f"{demo.emit.ram[1]:,}", f"promised {demo.emit.ram[0]:,}"),
        Fact("instructions", f"{demo.profile.instructions:,}", f"{demo.profile.core}, QEMU"),
    ]
    counts = {layer.name: layer.instructions for layer in demo.profile.layers}
    write(run, plan, graph, demo.profile.core, facts=facts, instructions=counts)
    drawn = sorted(str(path) for path in run.path.glob("*.png"))
    return replace(demo, pictures=tuple(drawn))
