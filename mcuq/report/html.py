"""``report.html``: one file with everything a run has to show. No scripts, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from string import Template

from mcuq.report.layers import LayerRow
from mcuq.report.style import BITS, ON_BITS


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of the summary: ``label``, ``value``, and a note (a limit, a unit) if any."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG with its caption."""

    caption: str
    png: bytes


_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1f2933; --faint: #616e7c; --line: #e4e7eb; --paper: #fff; --band: #f5f7fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --faint: #9aa5b1; --line: #3e4c59; --paper: #1f2933; --band: #283541; }
}
body { margin: 2rem auto; max-width: 72rem; padding: 0 1.25rem; background: var(--paper); color: var(--ink);
       font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
pre { background: var(--band); padding: .7rem .9rem; border-radius: 6px; white-space: pre-wrap;
      overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: .75rem; margin: 1.2rem 0; }
dl div { background: var(--band); border-radius: 6px; padding: .6rem .9rem; }
dt { color: var(--faint); font-size: .85rem; } dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
dd small { display: block; color: var(--faint); font-size: .8rem; }
figure { margin: 0 0 1.6rem; } figure img { max-width: 100%; background: #fff; border-radius: 6px; }
figcaption { color: var(--faint); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { color: var(--faint); font-weight: 600; font-size: .85rem; }
th:nth-child(-n+3), td:nth-child(-n+3) { text-align: left; }
tfoot td { font-weight: 600; border-bottom: 0; }
.bits { display: inline-block; min-width: 1.6em; text-align: center; border-radius: 4px; padding: 0 .3em; }
$colors
</style>
</head>
<body>
<h1>$title</h1>
<p>$subtitle</p>
<pre>$command</pre>
<dl>
$facts
</dl>
$pictures
<h2>Layers</h2>
<div class="wide"><table>
<thead><tr><th>layer</th><th>operator</th><th>output</th><th>weight bits</th><th>output bits</th><th>MACs</th>
<th>weight bytes</th><th>output bytes</th><th>instructions</th><th>per MAC</th></tr></thead>
<tbody>
$rows
</tbody>
<tfoot>$total</tfoot>
</table></div>
<p>MACs count padding taps; bytes are of packed codes;
instructions are executed instructions under QEMU, not cycles.</p>
</body>
</html>
""")


def html_report(
    title: str,
    subtitle: str,
    command: str,
    facts: Sequence[Fact],
    pictures: Sequence[Picture],
    layers: Sequence[LayerRow],
) -> str:
    """The page. Every text is escaped; the same arguments give the same bytes."""
    colors = "\n".join(f".b{b} {{ background: {BITS[b]}; color: {ON_BITS[b]}; }}" for b in sorted(BITS))
    return _PAGE.substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        command=escape(command),
        colors=colors,
        facts="\n".join(map(_fact, facts)),
        pictures="\n".join(map(_figure, pictures)),
        rows="\n".join(map(_row, layers)),
        total=_total(layers),
    )


def _fact(fact: Fact) -> str:
    note = f"<small>{escape(fact.note)}</small>" if fact.note else ""
    return f"<div><dt>{escape(fact.label)}</dt><dd>{escape(fact.value)}{note}</dd></div>"


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    caption = escape(picture.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>'
    )


def _bits(bits: int | None) -> str:
    if bits is None:
        return ""
    return f'<span class="bits b{bits}">{bits}</span>' if bits in BITS else str(bits)


def _cells(*cells: str) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _number(value: int | None) -> str:
    return f"{value:,}" if value else ""


def _ratio(instructions: int | None, macs: int) -> str:
    return f"{instructions / macs:.2f}" if instructions and macs else ""


def _row(layer: LayerRow) -> str:
    return _cells(
        escape(layer.name),
        escape(layer.operator),
        " x ".join(map(str, layer.shape)),
        _bits(layer.weight_bits),
        _bits(layer.activation_bits),
        _number(layer.macs),
        _number(layer.weight_bytes),
        _number(layer.activation_bytes),
        _number(layer.instructions),
        _ratio(layer.instructions, layer.macs),
    )


def _total(layers: Sequence[LayerRow]) -> str:
    macs = sum(x.macs for x in layers)
    weights = sum(x.weight_bytes for x in layers)
    instructions = sum(x.instructions or 0 for x in layers)
    ratio = _ratio(instructions, macs)
    return _cells("whole network", "", "", "", "", _number(macs), _number(weights), "", _number(instructions), ratio)
