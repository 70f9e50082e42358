"""The table of the ablations: cells of one row averaged over their seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from openmm_diffmd.analysis.report import format_columns

HEADER = (
    "",
    "sampler",
    "K",
    "lag\nfs",
    "friction\n1/ps",
    "seeds",
    "replicas\nx ps",
    "broken\nreplicas",
    "ended\nps",
    "redrawn",
    "h(r)\nerror",
    "of it by\nsampling",
)
AFTER = (
    "one-lag\nerror",
    "drift\nmeV/atom/ps",
    "CPU\nms/lag",
    "all replicas\nns/day, 1 core",
)
Result = Mapping[str, Any]


def make_table(
    results: Mapping[str, Result], floor: Result, symbols: Sequence[str]
) -> str:
    """
    Write the rows in the order their first cells were run.

    Parameters
    ----------
    results : mapping
        Cells by their key.
    floor : mapping
        Figures of the reference beside itself.
    symbols : sequence of str
        Elements of the temperatures.

    Returns
    -------
    str
        A table. ``+-`` is the standard deviation over seeds where there are several,
        else what one run knows of its own error.
    """
    rows: dict[tuple[str, ...], list[Result]] = {}
    for result in results.values():
        rows.setdefault(tuple(result["row"]), []).append(result)
    header = [*HEADER, *(f"T({symbol})\nK" for symbol in symbols), *AFTER]
    lines: list[list[str]] = []
    group = None
    for row, cells in rows.items():
        if row[0] != group:
            group = row[0]
            lines.append([f"[{group}]", *[""] * (len(header) - 1)])
        lines.append(_line(row, cells, symbols))
    lines.append(["[reference]", *[""] * (len(header) - 1)])
    lines.append(_line(("", "floor, half to half", "", "", ""), [floor], symbols))
    return format_columns(header, lines)


def _line(
    row: Sequence[str], cells: Sequence[Result], symbols: Sequence[str]
) -> list[str]:
    _, name, sampler, steps, friction = row
    return [
        name,
        sampler,
        steps,
        _several([cell.get("lag_time_fs") for cell in cells], "{:g}", spread=False),
        friction,
        str(len(cells)),
        "{n_replicas} x {length_ps:g}".format(**cells[0]),
        _sum_of(cells, "n_broken", "n_replicas"),
        _ended(cells),
        _several([cell.get("redrawn") for cell in cells], "{:.1e}", spread=False),
        _several([cell.get("h_r_error") for cell in cells], "{:.3f}"),
        _several([cell.get("h_r_by_sampling") for cell in cells], "{:.3f}", False),
        *(_temperature(cells, symbol) for symbol in symbols),
        _several([cell.get("one_lag_error") for cell in cells], "{:.4f}"),
        _drift(cells),
        _several([cell.get("cpu_ms_per_lag") for cell in cells], "{:.1f}", False),
        _several([cell.get("cpu_ns_per_day") for cell in cells], "{:.0f}", False),
    ]


def _several(values: Sequence[Any], form: str, spread: bool = True) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = form.format(np.mean(known))
    if len(known) < 2 or not spread:
        return mean
    return f"{mean} +- {form.format(np.std(known, ddof=1))}"


def _sum_of(cells: Sequence[Result], part: str, whole: str) -> str:
    # A run that ended before its first frame broke all that could be watched.
    broken = sum(cell.get(part, cell.get(whole, 0)) for cell in cells)
    return f"{broken} of {sum(cell.get(whole, 0) for cell in cells)}"


def _ended(cells: Sequence[Result]) -> str:
    early = [cell["ended_ps"] for cell in cells if cell.get("error")]
    return ", ".join(f"{time:.2g}" for time in early) or "-"


def _temperature(cells: Sequence[Result], symbol: str) -> str:
    found = [
        cell["temperatures"][symbol]
        for cell in cells
        if symbol in cell.get("temperatures", {})
    ]
    if len(found) == 1:
        return "{:.0f} +- {:.0f}".format(*found[0])
    return _several([value for value, _ in found], "{:.0f}")


def _drift(cells: Sequence[Result]) -> str:
    found = [cell["energy_drift"] for cell in cells if cell.get("energy_drift")]
    if len(found) == 1:
        return "{value:+.3f} +- {error:.3f}".format(**found[0])
    return _several([drift["value"] for drift in found], "{:+.3f}")
