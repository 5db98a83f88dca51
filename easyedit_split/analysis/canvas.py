"""The style that every picture shares: size, colours, the star at a strength, and how a picture is written.

Colours are those of Okabe and Ito, which remain apart for colour-blind readers; methods also differ in their markers.
matplotlib is loaded on first use, and without pyplot, so no window, no global state.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from ..storage.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY, FAINT = "#444444", "#888888"
WIDTH, DPI = 7.4, 160


def blank(height: float) -> Figure:
    """An empty figure of the common width, `height` inches high."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, stem: str | Path) -> tuple[Path, Path]:
    """Write ``stem``.png and ``stem``.svg and return both paths. The same figure gives the same bytes.

    Raises:
        ArtifactError: a file cannot be written.
    """
    import matplotlib

    base, png, svg = Path(stem), BytesIO(), BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "easyedit-split"}):
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return (
        write_bytes(base.with_name(base.name + ".png"), png.getvalue()),
        write_bytes(base.with_name(base.name + ".svg"), svg.getvalue()),
    )


def style(number: int) -> dict[str, str]:
    """Colour and marker of the method that comes at this place."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}


def star(axes: Axes, x: float, y: float, colour: str, reliable: bool) -> None:
    """A star at what is recommended: hollow where it is not reliable."""
    edge, filled = ("white", "full") if reliable else (colour, "none")
    axes.plot(x, y, "*", color=colour, markersize=13, fillstyle=filled, markeredgecolor=edge, zorder=5)


def plain(label: str) -> str:
    """A label as matplotlib shows it: `$` is no mathematics, and a leading `_` does not hide it."""
    text = " ".join(label.encode("utf-8", "backslashreplace").decode().split()).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.margins(x=0.02)
