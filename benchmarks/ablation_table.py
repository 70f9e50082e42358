"""The table of the ablations: cells of one row averaged over their seeds."""

from collections.abc import Callable, Mapping, Sequence
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
        else what one run knows of its own error. What is of fewer runs than seeds, as
        the guards ended the others, says so; in brackets where they ended all.
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
        _mean([cell.get("lag_time_fs") for cell in cells], "{:g}"),
        friction,
        _seeds(cells),
        "{n_replicas} x {length_ps:g}".format(**cells[0]),
        _sum_of(cells, "n_broken", "n_replicas"),
        _ended(cells),
        _mean([cell.get("redrawn") for cell in cells], "{:.1e}"),
        _of_whole_runs(cells, "h_r_error", "{:.3f}"),
        _of_whole_runs(cells, "h_r_by_sampling", "{:.3f}", spread=False),
        *(_temperature(cells, symbol) for symbol in symbols),
        _several([cell.get("one_lag_error") for cell in cells], "{:.4f}"),
        _drift(cells),
        _mean([cell.get("cpu_ms_per_lag") for cell in cells], "{:.1f}"),
        _mean([cell.get("cpu_ns_per_day") for cell in cells], "{:.0f}"),
    ]


def _mean(values: Sequence[Any], form: str) -> str:
    known = [value for value in values if value is not None]
    return form.format(np.mean(known)) if known else "-"


def _several(values: Sequence[Any], form: str) -> str:
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return _mean(known, form)
    return f"{_mean(known, form)} +- {form.format(np.std(known, ddof=1))}"


def _seeds(cells: Sequence[Result]) -> str:
    # A cell is kept when its training is over; the bundled model has none here.
    trained = {cell["seed"] for cell in cells if cell.get("training")}
    return str(len(trained)) if trained else "-"


def _sum_of(cells: Sequence[Result], part: str, whole: str) -> str:
    # A run that ended before its first frame broke all that could be watched.
    broken = sum(cell.get(part, cell.get(whole, 0)) for cell in cells)
    return f"{broken} of {sum(cell.get(whole, 0) for cell in cells)}"


def _ended(cells: Sequence[Result]) -> str:
    early = [cell["ended_ps"] for cell in cells if cell.get("error")]
    return ", ".join(f"{time:.2g}" for time in early) or "-"


def _of_whole_runs(
    cells: Sequence[Result],
    key: str,
    form: str,
    *,
    spread: bool = True,
    pick: Callable[[Any], Any] = lambda found: found,
    own_error: Callable[[Any], Any] | None = None,
) -> str:
    """
    Average what a run's length decides over the runs that the guards did not end.

    A run that ended early is short, and what it would have met is not in its figures:
    it counts only where there is no other, and in brackets.
    """
    ran = [cell for cell in cells if cell.get(key) is not None]
    whole = [cell for cell in ran if not cell.get("error")]
    used = [cell[key] for cell in whole or ran]
    values = [pick(found) for found in used]
    text = _several(values, form) if spread else _mean(values, form)
    if len(used) == 1 and own_error is not None:
        error = own_error(used[0])
        # Of less than 20 independent samples there is none.
        known = "-" if error is None else form.format(error).lstrip("+")
        text += f" +- {known}"
    if ran and not whole:
        return f"[{text}]"
    missing = len(whole) < len(cells)
    return f"{text} ({len(whole)} of {len(cells)})" if ran and missing else text


def _temperature(cells: Sequence[Result], symbol: str) -> str:
    found = [
        dict(cell) | {symbol: cell.get("temperatures", {}).get(symbol)}
        for cell in cells
    ]
    return _of_whole_runs(
        found,
        symbol,
        "{:.0f}",
        pick=lambda value: value[0],
        own_error=lambda value: value[1],
    )


def _drift(cells: Sequence[Result]) -> str:
    return _of_whole_runs(
        cells,
        "energy_drift",
        "{:+.3f}",
        pick=lambda drift: drift["value"],
        own_error=lambda drift: drift["error"],
    )
