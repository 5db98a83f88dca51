"""Legends of figures: a method with its strength, and what lines, stars and shades mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .canvas import GREY, plain, style
from .pipeline import Analysis
from .recommend import Recommendation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REGION_SHADES = {"linear": "#e3ecf3", "transitional": "#f4f4f4", "convergence": "#dcdcdc"}


def legend(figure: Figure, handles: Sequence[Any], title: str, columns: int) -> None:
    """One legend above the panels, so that it covers no point."""
    figure.legend(
        handles=handles, loc="outside upper left", ncols=columns, frameon=False, fontsize=8.5, alignment="left",
        title=plain(title) or None, title_fontsize=11,
    )  # fmt: skip


def line(label: str, **look: Any) -> Any:
    """An entry of a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **{"color": GREY, "linestyle": "-", **look}, label=label)


def patch(label: str, colour: str) -> Any:
    """An entry of a legend for what is shaded."""
    from matplotlib.patches import Patch

    return Patch(facecolor=colour, edgecolor="#bbbbbb", label=label)


def methods(analyses: Mapping[str, Analysis]) -> list[Any]:
    """A method with its strength, by its marker."""
    named = enumerate(analyses.items())
    return [line(_named(label, found), linestyle="", markersize=4, **style(number)) for number, (label, found) in named]


def _named(label: str, found: Analysis) -> str:
    best = found.recommendation
    if best is None or best.m is None:
        return plain(label)
    return f"{plain(label)}: {'use' if best.reliable else 'not reliable:'} {best.strength}"


def law() -> list[Any]:
    return [
        line("preference, fitted law"),
        line("utility, fitted law", linestyle="--"),
        line("points joined", linewidth=0.7),
    ]


def stars(recommended: list[Recommendation | None]) -> list[Any]:
    """What a star means, and a hollow one, as far as they are drawn."""
    known = [best for best in recommended if best is not None and best.m is not None]
    handles = []
    if any(best.reliable for best in known):
        handles.append(line("recommended m", marker="*", linestyle=":", markersize=10))
    if not all(best.reliable for best in known):
        handles.append(line("not reliable", marker="*", fillstyle="none", linestyle="", markersize=10))
    return handles


def regions(found: Analysis) -> list[Any]:
    present = set() if found.regions is None else {span[0] for span in found.regions.spans()}
    shades = [(name, shade) for name, shade in REGION_SHADES.items() if name in present]
    return [patch(f"{name} region", shade) for name, shade in shades]
