"""One picture of rollouts beside the reference."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from openmm_diffmd.analysis.distributions import Histogram
from openmm_diffmd.analysis.figures import Row
from openmm_diffmd.analysis.heat_goals import MAX_TEMPERATURE_DEVIATION
from openmm_diffmd.analysis.measure import Reference
from openmm_diffmd.outputs import written_whole

REFERENCE_COLOR = "#3c3c3c"
COLORS = ("#0f7ba0", "#d9722e", "#7a9e3b", "#8a5a9e", "#b0a13a")
STYLE_SIZE = 8.5
GOAL_PERCENT = 100 * MAX_TEMPERATURE_DEVIATION
FARTHEST_PERCENT = 20.0
"""Temperatures farther from equipartition are left out of the picture."""


def plot_rows(
    reference: Reference,
    rows: Sequence[Row],
    path: str | Path,
    title: str,
    survival_only: Sequence[Row] = (),
) -> None:
    """
    Draw h(r), spectrum, bonds, angles, dihedrals, temperatures and survival.

    Parameters
    ----------
    reference : Reference
        The reference, drawn in grey.
    rows : sequence of Row
        What was run; the first is drawn strongest.
    path : path-like
        PNG file to write.
    title : str
        What the picture shows.
    survival_only : sequence of Row
        Further rows, whose survival alone is drawn.
    """
    figure = Figure(figsize=(11.0, 8.2), layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=12, x=0.01, ha="left", weight="bold")
    grid = figure.add_gridspec(3, 6)
    h_r = figure.add_subplot(grid[0, :3])
    spectrum = figure.add_subplot(grid[0, 3:])
    kinds = [figure.add_subplot(grid[1, 2 * k : 2 * k + 2]) for k in range(3)]
    temperature = figure.add_subplot(grid[2, :3])
    survival = figure.add_subplot(grid[2, 3:])
    _h_r(h_r, reference, rows)
    _spectrum(spectrum, reference, rows)
    for axes, kind in zip(kinds, ("bonds", "angles", "dihedrals"), strict=True):
        _marginal(axes, kind, reference, rows)
    _temperatures(temperature, reference, rows)
    _survival(survival, [*rows, *survival_only])
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=STYLE_SIZE)
        axes.title.set_fontsize(STYLE_SIZE + 1.5)
        axes.xaxis.label.set_fontsize(STYLE_SIZE)
        axes.yaxis.label.set_fontsize(STYLE_SIZE)
    with written_whole(path) as part:
        figure.savefig(part, dpi=160)


def _line(index: int) -> dict[str, Any]:
    return {
        "color": COLORS[index % len(COLORS)],
        "linewidth": 1.8 if index == 0 else 1.1,
        "alpha": 1.0 if index == 0 else 0.9,
        "zorder": 10 - index,
    }


def _h_r(axes: Axes, reference: Reference, rows: Sequence[Row]) -> None:
    h = reference.h_r
    axes.fill_between(
        h.centers, h.density, color=REFERENCE_COLOR, alpha=0.25, lw=0, label="reference"
    )
    for index, row in enumerate(rows):
        if row.curves.h_r is not None:
            curve = row.curves.h_r
            axes.plot(curve.centers, curve.density, label=row.name, **_line(index))
    shown = h.centers[np.flatnonzero(h.density)]
    axes.set(
        title="All pair distances, h(r)",
        xlabel="r / Å",
        ylabel="1/Å",
        xlim=(shown[0] - 0.15, shown[-1] + 0.25),
        ylim=(0, 1.12 * h.density.max()),
    )
    axes.legend(frameon=False, fontsize=STYLE_SIZE)


def _spectrum(axes: Axes, reference: Reference, rows: Sequence[Row]) -> None:
    axes.set_title("Velocity spectrum (mass-weighted)")
    if reference.spectrum is None:
        axes.text(0.5, 0.5, "no velocities", ha="center", transform=axes.transAxes)
        return
    s = reference.spectrum
    axes.fill_between(
        s.wavenumbers, 1000 * s.density, color=REFERENCE_COLOR, alpha=0.25, lw=0
    )
    highest = s.density.max()
    for index, row in enumerate(rows):
        if row.curves.spectrum is not None:
            curve = row.curves.spectrum
            axes.plot(curve.wavenumbers, 1000 * curve.density, **_line(index))
            if index == 0:
                highest = max(highest, curve.density.max())
    axes.set(
        xlabel="wavenumber / cm⁻¹ (folded above the limit of the frames)",
        ylabel="10⁻³ cm",
        xlim=(0, s.wavenumbers[-1]),
        ylim=(0, 1100 * highest),
    )


def _marginal(axes: Axes, kind: str, reference: Reference, rows: Sequence[Row]) -> None:
    unit = "Å" if kind == "bonds" else "degrees"
    title = f"{kind.capitalize()} (mean over kinds of elements)"
    axes.set(title=title, xlabel=unit, yticks=[])
    groups = reference.marginals[kind]
    if not groups:
        return
    centers, density = _pooled(groups)
    axes.fill_between(centers, density, color=REFERENCE_COLOR, alpha=0.25, lw=0)
    shown = centers[density > 1e-3 * density.max()]
    margin = 0.03 * float(shown[-1] - shown[0])
    axes.set_xlim(shown[0] - margin, shown[-1] + margin)
    for index, row in enumerate(rows):
        if row.curves.marginals is not None:
            axes.plot(*_pooled(row.curves.marginals[kind]), **_line(index))
    axes.set_ylim(0, 1.2 * density.max())


def _pooled(
    groups: Mapping[str, Histogram],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    histograms = list(groups.values())
    return histograms[0].centers, np.mean([h.density for h in histograms], axis=0)


def _temperatures(axes: Axes, reference: Reference, rows: Sequence[Row]) -> None:
    own = reference.figures.temperatures
    axes.set_title("Temperature by element, centre-of-mass frame")
    if own is None:
        axes.text(0.5, 0.5, "no velocities", ha="center", transform=axes.transAxes)
        return
    shown = [("reference", own, REFERENCE_COLOR)]
    for index, row in enumerate(rows):
        found = row.figures.temperatures
        if found is not None:
            shown.append((row.name, found, COLORS[index % len(COLORS)]))
    width, positions = 0.8 / len(shown), np.arange(len(own))
    reach = 1.5 * GOAL_PERCENT
    axes.axhspan(-GOAL_PERCENT, GOAL_PERCENT, color=REFERENCE_COLOR, alpha=0.08, lw=0)
    axes.axhline(0.0, color="black", linestyle="dotted", linewidth=1.2)
    for index, (name, found, color) in enumerate(shown):
        off = [100 * (found[s].value / found[s].expected - 1) for s in own]
        errors = [100 * found[s].error / found[s].expected for s in own]
        axes.errorbar(
            positions + width * (index - 0.5 * (len(shown) - 1)),
            off,
            errors,
            fmt="o",
            markersize=5,
            color=color,
            alpha=0.6 if name == "reference" else 1.0,
            label=name,
        )
        reach = max(
            reach, *(abs(x) + 1.5 * e for x, e in zip(off, errors, strict=True))
        )
    # Rows that are far off must not hide the others.
    reach = min(reach, FARTHEST_PERCENT)
    axes.set(
        xticks=positions, ylim=(-reach, reach), ylabel="% off equipartition, ± 1 error"
    )
    axes.set_xticklabels(list(own))
    axes.set_xlim(-0.6, len(own) - 0.4)


def _survival(axes: Axes, rows: Sequence[Row]) -> None:
    longest = 0.0
    for index, row in enumerate(rows):
        stable = row.curves.stability
        shortest = float(stable.lengths.min())
        longest = max(longest, shortest)
        times = np.linspace(0.0, shortest, 400)
        axes.plot(times, 100 * stable.survival(times), label=row.name, **_line(index))
    axes.set(
        title="Replicas without a broken bond",
        xlabel="ps",
        ylabel="%",
        xlim=(0, longest),
        ylim=(-3, 106),
    )
    axes.legend(frameon=False, fontsize=STYLE_SIZE, loc="center right")
