"""Draw h(r) of a rollout beside that of real frames, and what lies between them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from shape_comparison import Shape

from openmm_diffmd.outputs import written_whole

REAL_COLOR = "#3c3c3c"
LINES = {
    "rollout": {"color": "#0f7ba0", "linewidth": 1.6, "zorder": 3},
    "reference": {"color": "#d9722e", "linewidth": 1.1, "zorder": 2},
}
SIZE = 8.5


def draw(shapes: Mapping[str, Sequence[Shape]], path: Path, title: str) -> None:
    """
    Draw h(r), and below differences to the real frames beside those of their halves.

    Parameters
    ----------
    shapes : mapping of str to sequence of Shape
        What `shapes_of` made: of each set the whole and both halves.
    path : path-like
        PNG file to write.
    title : str
        What the picture shows.
    """
    figure = Figure(figsize=(9.0, 5.4), layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=SIZE + 1.5, x=0.01, ha="left", weight="bold")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1.5, 1))
    real, first, second = (shape.h_r for shape in shapes["real"])
    fill = {"color": REAL_COLOR, "alpha": 0.25, "lw": 0}
    upper.fill_between(real.centers, real.density, label="real frames", **fill)
    halves = first.density - second.density
    lower.fill_between(real.centers, halves, label="real, half - half", **fill)
    lower.axhline(0.0, color=REAL_COLOR, linewidth=0.6)
    for name, style in LINES.items():
        if name not in shapes:
            continue
        h = shapes[name][0].h_r
        upper.plot(h.centers, h.density, label=name, **style)
        lower.plot(h.centers, h.density - real.density, label=f"{name} - real", **style)
    shown = real.centers[np.flatnonzero(real.density)]
    upper.set(ylabel="h(r), 1/Å", ylim=(0, 1.12 * real.density.max()))
    lower.set(
        xlabel="distance of a pair of atoms r / Å",
        ylabel="difference, 1/Å",
        xlim=(shown[0] - 0.15, shown[-1] + 0.25),
    )
    for axes in (upper, lower):
        axes.legend(frameon=False, fontsize=SIZE)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=SIZE)
        axes.xaxis.label.set_fontsize(SIZE)
        axes.yaxis.label.set_fontsize(SIZE)
    with written_whole(path) as part:
        figure.savefig(part, dpi=160)
