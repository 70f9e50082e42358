"""The table as text and as JSON."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from openmm_diffmd.analysis.figures import Figures, Row
from openmm_diffmd.analysis.goal import Goal
from openmm_diffmd.analysis.measure import Reference

FLOOR = "floor"
KINDS = ("bonds", "angles", "dihedrals")


def format_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """
    Align cells in columns: the first to the left, the others to the right.

    Parameters
    ----------
    header : sequence of str
        Titles; a line break makes two lines.
    rows : sequence of sequence of str
        Cells.

    Returns
    -------
    str
        Lines.
    """
    titles = [title.split("\n") for title in header]
    height = max(len(title) for title in titles)
    lines = [
        [
            title[i - height + len(title)] if i >= height - len(title) else ""
            for title in titles
        ]
        for i in range(height)
    ]
    cells = [*lines, *[list(row) for row in rows]]
    widths = [max(len(line[c]) for line in cells) for c in range(len(header))]

    def join(line: Sequence[str]) -> str:
        first = line[0].ljust(widths[0])
        rest = [cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True)]
        return "  ".join([first, *rest]).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([*map(join, cells[:height]), rule, *map(join, cells[height:])])


def structure_table(reference: Reference, rows: Sequence[Row]) -> str:
    """
    Write stability, structure and dynamics of each row, the floor last.

    Parameters
    ----------
    reference : Reference
        The reference.
    rows : sequence of Row
        What was run.

    Returns
    -------
    str
        A table.
    """
    header = [
        "",
        "broken\nreplicas",
        "first break\nps",
        "h(r)\nerror",
        "of it by\nsampling",
        "JSD bonds, bits\n(by sampling)",
        "JSD angles, bits\n(by sampling)",
        "JSD dihedr., bits\n(by sampling)",
        "spectrum overlap\n(by sampling)",
        "kin. energy\nmean, width",
        "p",
    ]
    lines = [_structure_cells(row.name, row.figures) for row in rows]
    floor = _structure_cells(FLOOR, reference.figures)
    floor[4] = ""
    return format_columns(header, [*lines, floor])


def temperature_table(reference: Reference, rows: Sequence[Row]) -> str:
    """
    Write the temperature of each element of each row, with standard errors.

    Parameters
    ----------
    reference : Reference
        The reference.
    rows : sequence of Row
        What was run.

    Returns
    -------
    str
        A table, K; the reference and what equipartition gives are the last rows.
    """
    own = reference.figures.temperatures
    if own is None:
        return "The reference has no velocities: no temperatures to compare."
    symbols = list(own)
    lines = []
    for name, figures in _with_reference(reference, rows):
        cells = ["-"] * len(symbols)
        if figures.temperatures is not None:
            found = [figures.temperatures[s] for s in symbols]
            cells = [_with_error(t.value, t.error, ".0f") for t in found]
        lines.append([name, *cells])
    lines.append(["equipartition", *(f"{own[s].expected:.0f}" for s in symbols)])
    return format_columns(["K, centre-of-mass frame", *symbols], lines)


def mode_table(reference: Reference, rows: Sequence[Row]) -> str:
    """
    Write what velocities say beside elements, with standard errors.

    Parameters
    ----------
    reference : Reference
        The reference.
    rows : sequence of Row
        What was run.

    Returns
    -------
    str
        A table: temperatures of rotation and bonds' stretches as deviations from the
        heat bath's, %, and what velocities leave of steps, %; empty where the
        reference has no velocities.
    """
    own = reference.figures.modes
    if own is None:
        return ""
    lines = []
    for name, figures in _with_reference(reference, rows):
        cells = ["-"] * (len(own) + 1)
        if figures.modes is not None:
            found = [figures.modes.get(mode) for mode in own]
            cells[:-1] = [
                "-"
                if t is None
                else _with_error(
                    100 * (t.value / t.expected - 1), 100 * t.error / t.expected, "+.1f"
                )
                for t in found
            ]
        if (residual := figures.step_residual) is not None:
            cells[-1] = _with_error(100 * residual.value, 100 * residual.error, ".1f")
        lines.append([name, *cells])
    return format_columns(["% off equipartition", *own, "left of steps, %"], lines)


def event_table(reference: Reference, rows: Sequence[Row]) -> str:
    """
    Write the rates of rare events of each row, with standard errors.

    Parameters
    ----------
    reference : Reference
        The reference.
    rows : sequence of Row
        What was run.

    Returns
    -------
    str
        A table; empty where `find_rotors` and `find_protons` find none. *At T*: the
        rate for turns as hot as the heat bath.
    """
    own = reference.figures.events
    if not own:
        return ""
    header = ["events of one group, 1/ns"]
    for kind, rate in own.items():
        many = f" (x {rate.n_groups})" if rate.n_groups > 1 else ""
        header.append(f"{kind}{many}")
        if rate.share is not None:
            header.append("share of time, %")
        if rate.in_equilibrium is not None:
            header += ["at T", "T of it, K"]
    lines = []
    for name, figures in _with_reference(reference, rows):
        cells = []
        for kind in own:
            found = figures.events[kind] if figures.events else None
            cells.append(
                "-" if found is None else _with_error(found.rate, found.error, ".0f")
            )
            if own[kind].share is not None:
                cells.append(
                    "-"
                    if found is None or found.share is None or found.share_error is None
                    else _with_error(100 * found.share, 100 * found.share_error, ".2f")
                )
            if own[kind].in_equilibrium is not None:
                even = None if found is None else found.in_equilibrium
                cells += (
                    ["-", "-"]
                    if even is None
                    else [
                        _with_error(even.rate, even.error, ".0f"),
                        _with_error(even.temperature, even.temperature_error, ".0f"),
                    ]
                )
        lines.append([name, *cells])
    return format_columns(header, lines)


def goal_lines(goals: Sequence[Goal]) -> str:
    """
    Write the goals and a last line that counts them.

    Parameters
    ----------
    goals : sequence of Goal
        From `judge`.

    Returns
    -------
    str
        One line a goal, and one summary line.
    """
    words = {True: "met", None: "undecided", False: "MISSED"}
    lines = [f"{words[g.passed]:<9}  {g.name}: {g.found}" for g in goals]
    counts = [f"{sum(g.passed is True for g in goals)} of {len(goals)} goals met"]
    for verdict in (None, False):
        names = [g.name for g in goals if g.passed is verdict]
        if names:
            counts.append(f"{words[verdict]}: {', '.join(names)}")
    return "\n".join([*lines, "; ".join(counts)])


def to_plain(value: Any) -> Any:
    """
    Turn dataclasses and numbers into what JSON can hold.

    Parameters
    ----------
    value : object
        Dataclasses, mappings, sequences, numbers, strings, None.

    Returns
    -------
    object
        The same of dicts, lists and plain numbers; numbers that are not finite
        become None.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return to_plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _with_reference(
    reference: Reference, rows: Sequence[Row]
) -> list[tuple[str, Figures]]:
    return [*((r.name, r.figures) for r in rows), ("reference", reference.figures)]


def _structure_cells(name: str, figures: Figures) -> list[str]:
    test = figures.kinetic_energy
    return [
        name,
        f"{figures.n_broken}/{figures.n_replicas}",
        _number(figures.first_break_ps, ".2f"),
        _number(figures.h_r_error, ".3f"),
        _number(figures.h_r_expected, ".3f"),
        *(
            _beside(
                figures.mean_divergence(kind),
                figures.mean_expected_divergence(kind),
                ".4f",
            )
            for kind in KINDS
        ),
        _beside(figures.spectrum_overlap, figures.spectrum_expected, ".3f"),
        "-"
        if test is None
        else f"{test.mean_deviation:.1f}, {test.width_deviation:.1f}",
        "-" if test is None else f"{test.p_value:.2g}",
    ]


def _beside(value: float | None, expected: float | None, form: str) -> str:
    alone = _number(value, form)
    return alone if expected is None else f"{alone} ({_number(expected, form)})"


def _with_error(value: float, error: float, form: str) -> str:
    return f"{_number(value, form)} +- {_number(error, form.lstrip('+'))}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None or math.isnan(value) else format(value, form)
