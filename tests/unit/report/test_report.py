"""Pictures and the page: deterministic, complete, unimpressed by odd names."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import numpy as np
import pytest
from nets import integer_net

from mcuq.ir.plans import BitPlan, Buffer, Limits, MemoryPlan, TensorBits
from mcuq.pipeline.pictures import draw
from mcuq.pipeline.runs import RunFolder
from mcuq.report import (
    EpochPoint,
    Fact,
    Picture,
    SizeRow,
    bits_picture,
    curves_picture,
    html_report,
    layer_rows,
    memory_picture,
    ranks_picture,
    sizes_picture,
)
from mcuq.report.style import BITS, bytes_text

pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")

ODD = "$x_{1}$ <b>&\\frac{"
EPOCHS = [EpochPoint("float", 2 / (i + 1), 0.5 + 0.05 * i, 0.5 + 0.04 * i) for i in range(5)]
EPOCHS += [EpochPoint("quantized", 0.4 / (i + 1), None, 0.6 + 0.1 * i) for i in range(3)]


def plan(weight_bits=(8, 4, 2), activation_bits=(8, 8, 4)):
    tensors = []
    for name, w, a in zip(("conv", ODD, "fc"), weight_bits, activation_bits, strict=True):
        tensors.append(TensorBits(f"{name}.weight", name, "weight", w, 1152 * w // 8))
        tensors.append(TensorBits(name, name, "activation", a, 4096 * a // 8))
    return BitPlan(tuple(tensors), "OPTIMAL", 0.5, 0.5, 9000, 7000, Limits(10000, 8000), "exact")


def memory():
    buffers = (
        Buffer("x", 0, 1024, 0, 1),
        Buffer("conv", 1024, 2048, 1, 2),
        Buffer("conv", 3072, 512, 1, 1, kind="scratch"),
        Buffer(ODD, 1024, 2048, 2, 3, alias_of="conv"),
    )
    return MemoryPlan(("x", "conv", ODD, "out"), buffers, 3584, 3584)


DRAWINGS = {
    "bits": lambda: bits_picture(plan()),
    "memory": lambda: memory_picture(memory(), {"x": 8, "conv": 4, ODD: 2}, limit=4000),
    "curves": lambda: curves_picture(EPOCHS),
    "ranks": lambda: ranks_picture("kl", [0.5, 0.1, 2.0], [0.4, 0.2, 1.5], 0.5),
    "sizes": lambda: sizes_picture([SizeRow("flash", 61_000, 60_900, 65_536), SizeRow("RAM", 20_000)]),
}


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def share(png, color):
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return (pixels(png) == rgb).all(axis=2).mean()


@pytest.mark.parametrize("name", DRAWINGS)
def test_pictures_are_the_same_every_time_and_carry_no_date(name):
    first, second = DRAWINGS[name](), DRAWINGS[name]()
    assert first == second
    picture = Image.open(io.BytesIO(first))
    picture.load()
    assert min(picture.size) > 200 and "Software" not in picture.info and "Creation Time" not in picture.info
    assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_users_style_does_not_leak_in():
    import matplotlib as mpl

    plain = bits_picture(plan())
    with mpl.rc_context({"axes.facecolor": "black", "font.size": 30}):
        assert bits_picture(plan()) == plain
        assert mpl.rcParams["font.size"] == 30


def test_bits_show_in_their_colors():
    mixed, eight = bits_picture(plan()), bits_picture(plan((8, 8, 8), (8, 8, 8)))
    assert share(mixed, BITS[2]) > 0.005 and share(mixed, BITS[4]) > 0.005
    assert share(eight, BITS[2]) == 0 and share(eight, BITS[8]) > share(mixed, BITS[8])


def test_the_arena_shows_every_tensor():
    full = memory_picture(memory(), {"x": 8, "conv": 4, ODD: 2})
    assert min(share(full, BITS[b]) for b in (8, 4, 2)) > 0.01
    # x fills 1024 of 3584 bytes for half of the time; conv 2048 for one step of four until the alias takes over.
    assert share(full, BITS[2]) > share(full, BITS[4]) > 0.5 * share(full, BITS[8])


def test_empty_and_tiny_inputs_still_draw():
    empty = BitPlan((), "INFEASIBLE", 0.0, 0.0, 0, 0, Limits(1, 1), "exact")
    assert bits_picture(empty)
    assert memory_picture(MemoryPlan((), (), 0, 0))
    assert curves_picture([]) and curves_picture([EpochPoint("float", 0.0)])
    assert sizes_picture([]) and sizes_picture([SizeRow("flash", 0, 0, 0)])


@pytest.mark.parametrize(
    "count, text",
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 K"), (19_660, "19.2 K"), (524_288, "512 K"), (1_069_548, "1.02 M")],
)
def test_bytes_in_three_digits(count, text):
    assert bytes_text(count) == text


def test_layer_rows_name_operators_and_count():
    graph = integer_net(3, 4, 8)
    rows = {row.name: row for row in layer_rows(graph, {"stem": 5000})}
    assert list(rows) == [op.name for op in graph]
    assert rows["stem"].operator == "conv 3x3, stride 2" and rows["dw"].operator == "depthwise 3x3"
    assert rows["grouped"].operator == "conv, 2 groups 3x3" and rows["fc"].operator == "fully connected"
    assert rows["stem"].macs == 6 * 6 * 8 * 27 and rows["stem"].weight_bytes == 8 * 27 // 2
    assert rows["stem"].instructions == 5000 and rows["dw"].instructions is None
    assert rows["sum"].operator == "add" and rows["sum"].weight_bits is None


def page(title="Digits"):
    rows = layer_rows(integer_net(3, 4, 8), {"stem": 15552})
    facts = [Fact("accuracy, device", "97.33 %", "450 images"), Fact(ODD, ODD, ODD)]
    return html_report(title, "on a board", "mcuq train --out 'a & b'", facts, [Picture("Bits", b"\x89PNG")], rows)


def test_page_is_self_contained_escaped_and_repeatable():
    text = page(title="<script>alert(1)</script> $title")
    assert text == page(title="<script>alert(1)</script> $title")
    assert "<script" not in text and "&lt;script&gt;alert(1)&lt;/script&gt; $title" in text
    assert "&lt;b&gt;&amp;" in text and "a &amp; b" in text
    assert not re.search(r'(?:src|href)="(?!data:)', text) and "default-src 'none'" in text
    assert "iVBORw" not in text.replace("data:image/png;base64,iVBORw==", "")


def test_page_shows_layers_and_totals():
    text = page()
    assert text.count("<tr>") == len(integer_net(3, 4, 8).ops) + 2
    assert "<td>15,552</td><td>2.00</td>" in text
    total = sum(row.macs for row in layer_rows(integer_net(3, 4, 8)))
    assert "<td>whole network</td>" in text and f"{total:,}" in text


def test_page_is_well_formed():
    from xml.etree import ElementTree

    text = page().replace("<!DOCTYPE html>", "")
    text = re.sub(r"<(meta|img)([^>]*)>", r"<\1\2/>", text)
    ElementTree.fromstring(text)


def test_report_needs_matplotlib_only_for_pictures():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import mcuq.report as r\n"
        "assert r.html_report('t', 's', 'c', [], [], [])\n"
        "try:\n    r.curves_picture([])\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "UsageError pictures need matplotlib" in result.stdout


def test_a_checked_sensitivity_is_in_the_report(tmp_path):
    run = RunFolder(tmp_path)
    graph = integer_net(0)
    assert "sensitivity" not in draw(run, plan(), graph, "cortex-m4")
    found = {"method": "kl", "plans": 2, "spearman": 1.0, "predicted": [0.1, 0.2], "measured": [0.2, 0.3]}
    run.write_sensitivity(found)
    drawn = draw(run, plan(), graph, "cortex-m4")["sensitivity"]
    assert drawn.png.startswith(b"\x89PNG") and "predicts" in drawn.caption
