"""
Draw what `md17_molecules.py` found: one picture of all molecules.

Each panel has a line for each molecule, and what sampling explains beside what was
found. Several tables are drawn in one picture, the first strongest:

    python benchmarks/molecules_figure.py --tables '{own: a.json, md17: b.json}'
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from command_line import run_command
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from md17_rollout import OURS

from openmm_diffmd.analysis.goals import MIN_SPECTRUM_OVERLAP
from openmm_diffmd.analysis.heat_goals import MAX_TEMPERATURE_DEVIATION
from openmm_diffmd.outputs import written_whole

Tables = Mapping[str, Mapping[str, Any]]
ELEMENT_COLORS = {"H": "#0f7ba0", "C": "#3c3c3c", "N": "#8a5a9e", "O": "#d9722e"}
KIND_COLORS = {"bonds": "#4d7c2a", "angles": "#b0862a", "dihedrals": "#a03a5a"}
MODEL_COLOR = "#1a1a1a"
GREY = "#9a9a9a"
MARKERS = ("o", "s", "^", "D")
GOAL_PERCENT = 100 * MAX_TEMPERATURE_DEVIATION
SIZE = 8.5


def draw(tables: Tables, path: Path) -> None:
    """
    Draw temperatures, h(r), divergences and spectra of all molecules.

    Parameters
    ----------
    tables : mapping of str to mapping
        Results of each molecule by its name, as in ``table.json``, by a label.
    path : path-like
        PNG file to write.

    Raises
    ------
    ValueError
        If there are more tables than markers, or no molecule.
    """
    molecules = _molecules(tables)
    figure = Figure(
        figsize=(11.0, 1.6 + 0.36 * len(molecules) * len(tables)),
        layout="constrained",
        facecolor="white",
    )
    panels = figure.subplots(1, 4, sharey=True, width_ratios=(1.35, 1, 1, 1))
    # There may be more markers than tables.
    marked = list(zip(tables.items(), MARKERS, strict=False))
    for index, ((_, results), marker) in enumerate(marked):
        for place, name in enumerate(molecules):
            if name not in results:
                continue
            row = results[name]["rows"].get(OURS)
            if row is None:
                continue
            y = place + 0.8 * ((index + 0.5) / len(tables) - 0.5)
            style = {"marker": marker, "markersize": 5, "linestyle": "none"}
            if index:
                style["markerfacecolor"] = "white"
            _temperatures(panels[0], row, y, style)
            _beside_sampling(panels[1], row, "h_r_error", "h_r_expected", y, style)
            _divergences(panels[2], row, y, style)
            _beside_sampling(
                panels[3], row, "spectrum_overlap", "spectrum_expected", y, style
            )
    panels[0].axvspan(-GOAL_PERCENT, GOAL_PERCENT, color="#e6e6e6", zorder=0)
    panels[0].axvline(0, color=GREY, linewidth=0.8, zorder=0)
    panels[2].axvline(1, color=GREY, linewidth=0.8, zorder=0)
    panels[3].axvline(
        MIN_SPECTRUM_OVERLAP, color=GREY, linewidth=0.8, linestyle="dotted", zorder=0
    )
    panels[2].set_xscale("log")
    panels[2].set_xticks([0.25, 0.5, 1, 2, 4, 8], ["1/4", "1/2", "1", "2", "4", "8"])
    panels[2].minorticks_off()
    for axes, title in zip(
        panels,
        (
            "Temperature of each element,\n% off equipartition (band: goal)",
            "Error of h(r)\n(grey tick: of it by sampling)",
            "Divergence over what\nsampling explains",
            "Overlap of velocity spectra\n(tick: perfect runs; dotted: goal)",
        ),
        strict=True,
    ):
        axes.set_title(title, fontsize=SIZE + 0.5)
        axes.tick_params(labelsize=SIZE)
        axes.spines[["top", "right"]].set_visible(False)
        for edge in range(1, len(molecules)):
            axes.axhline(edge - 0.5, color="#eeeeee", linewidth=0.8, zorder=0)
    panels[0].set_yticks(range(len(molecules)), [_label(n, tables) for n in molecules])
    panels[0].set_ylim(len(molecules) - 0.5, -0.5)
    elements = {s: c for s, c in ELEMENT_COLORS.items() if _has(tables, s)}
    _legend(panels[0], [_dot(s, c) for s, c in elements.items()])
    _legend(panels[2], [_dot(s, c) for s, c in KIND_COLORS.items()])
    if len(tables) > 1:
        handles = [
            _dot(label, MODEL_COLOR, marker, filled=index == 0)
            for index, ((label, _), marker) in enumerate(marked)
        ]
        _legend(panels[1], handles)
    with written_whole(path) as part:
        figure.savefig(part, dpi=160)


def _molecules(tables: Tables) -> list[str]:
    """List the molecules of all tables; one may have what the first has not."""
    if len(tables) > len(MARKERS):
        raise ValueError(
            f"found {len(tables)} tables, expected at most {len(MARKERS)}: leave some "
            "out of the picture"
        )
    names = dict.fromkeys(name for results in tables.values() for name in results)
    if not names:
        raise ValueError("found no molecule in the tables, expected one at least")
    return list(names)


def _temperatures(
    axes: Axes, row: Mapping[str, Any], y: float, style: Mapping[str, Any]
) -> None:
    found = row["temperatures"] or {}
    for index, (symbol, value) in enumerate(found.items()):
        axes.errorbar(
            100 * (value["value"] / value["expected"] - 1),
            y + 0.12 * (index - (len(found) - 1) / 2),
            xerr=100 * (value["error"] or 0.0) / value["expected"],
            color=ELEMENT_COLORS.get(symbol, GREY),
            elinewidth=1.2,
            **style,
        )


def _beside_sampling(
    axes: Axes,
    row: Mapping[str, Any],
    found: str,
    expected: str,
    y: float,
    style: Mapping[str, Any],
) -> None:
    if row[expected] is not None:
        axes.plot(
            row[expected], y, color=GREY, marker="|", markersize=11, markeredgewidth=2
        )
    if row[found] is not None:
        axes.plot(row[found], y, color=MODEL_COLOR, **style)


def _divergences(
    axes: Axes, row: Mapping[str, Any], y: float, style: Mapping[str, Any]
) -> None:
    for index, (kind, color) in enumerate(KIND_COLORS.items()):
        found = (row["divergences"] or {}).get(kind)
        expected = (row["divergences_expected"] or {}).get(kind)
        if found and expected and sum(expected.values()) > 0:
            place = y + 0.12 * (index - 1)
            ratio = fmean(found.values()) / fmean(expected.values())
            axes.plot(ratio, place, color=color, **style)


def _has(tables: Tables, symbol: str) -> bool:
    return any(
        symbol in (result["rows"].get(OURS, {}).get("temperatures") or {})
        for results in tables.values()
        for result in results.values()
    )


def _label(name: str, tables: Tables) -> str:
    lengths = dict.fromkeys(
        f"{table[name]['reference']['length_ps']:.0f}"
        for table in tables.values()
        if name in table
    )
    return f"{name}\n(reference {'; '.join(lengths)} ps)"


def _dot(label: str, color: str, marker: str = "o", *, filled: bool = True) -> Line2D:
    return Line2D(
        [],
        [],
        color=color,
        marker=marker,
        markersize=5,
        linestyle="none",
        markerfacecolor=color if filled else "white",
        label=label,
    )


def _legend(axes: Axes, handles: Sequence[Line2D]) -> None:
    if not handles:
        return
    axes.legend(
        handles=handles,
        fontsize=SIZE - 1,
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.04),
        ncols=len(handles),
        columnspacing=1.0,
        handletextpad=0.2,
    )


def molecules_figure(tables: dict[str, Path], output: Path) -> None:
    """
    Draw tables of `md17_molecules.py`.

    Parameters
    ----------
    tables : dict of str to path-like
        Files ``table.json`` by the label each gets.
    output : path-like
        PNG file to write.

    Raises
    ------
    FileNotFoundError
        If a table is missing.
    ValueError
        If there are more than four tables, or no molecule in any.
    """
    draw({label: json.loads(f.read_text()) for label, f in tables.items()}, output)


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Read the command line and run.

    Parameters
    ----------
    arguments : sequence of str, optional
        Command line without the program; the process's own unless given.
    """
    run_command(molecules_figure, arguments)


if __name__ == "__main__":
    main()
