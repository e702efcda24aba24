"""Colors, sizes and deterministic files for every picture. matplotlib is imported inside functions: it is optional."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mcuq.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#1f2933"
FAINT = "#7b8794"
GRID = "#e4e7eb"
LIMIT = "#c0392b"
# One color per number of bits, the same in every picture: light is small. Distinguishable without color vision.
BITS = {32: "#52606d", 8: "#1d4e89", 4: "#3aa6a0", 2: "#f2b134"}
ON_BITS = {32: "white", 8: "white", 4: "white", 2: INK}
SERIES = ("#1d4e89", "#d1603d", "#3aa6a0", "#7d5ba6")
DPI = 144
_RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 9,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "text.color": INK,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "text.parse_math": False,  # names of layers are text, whatever dollars they hold
}


def context() -> Any:
    """The style, as a context manager. Raises UsageError when matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError as error:
        raise UsageError("pictures need matplotlib: pip install 'mcuq[train]'") from error
    # rc_context keeps the user's settings; the defaults below them would let a matplotlibrc change the pictures.
    settings: dict[Any, Any] = {**mpl.rcParamsDefault, **_RC, "backend": mpl.rcParams["backend"]}
    return mpl.rc_context(settings)


def figure(width: float, height: float) -> Figure:
    """An empty white figure of ``width`` x ``height`` inches, apart from pyplot's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")


def drawable(names: Sequence[str]) -> list[str]:
    """``names``; a number stands for one with letters that the pictures' font lacks."""
    from matplotlib import font_manager

    letters = font_manager.get_font(font_manager.findfont(_RC["font.family"])).get_charmap()
    return [n if all(ord(c) in letters for c in n) else str(i) for i, n in enumerate(names)]


def png(picture: Figure) -> bytes:
    """The figure as a PNG without dates or versions: the same figure gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(picture)
    stream = io.BytesIO()
    with context():
        picture.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()


def bits_legend(axes: Any, bits: Iterable[int], extra: Iterable[Any] = (), **options: Any) -> None:
    """A legend of the bit widths that occur, then ``extra`` handles."""
    from matplotlib.patches import Patch

    handles = [Patch(color=BITS[b], label=f"{b} bits") for b in sorted(set(bits), reverse=True)]
    axes.legend(handles=[*handles, *extra], **options)


def bytes_text(count: float) -> str:
    """``count`` bytes in three digits: 384 B, 19.2 K, 1.02 M (K = 1024)."""
    if count < 1024:
        return f"{count:.0f} B"
    value, unit = (count / 1024, "K") if count < 1024 * 999.5 else (count / 1024**2, "M")
    return f"{value:.2f} {unit}" if value < 10 else f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"
