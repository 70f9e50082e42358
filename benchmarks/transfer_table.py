"""The table of the transfer: one row for each unseen isomer, model and sampler."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from md17_rollout import OURS, REGRESSION
from molecules_table import number, temperatures

from openmm_diffmd.analysis.report import format_columns
from openmm_diffmd.sidecar import RolloutSidecar

HEADER = (
    "model",
    "isomer",
    "K",
    "one-lag\nerror",
    "broken\nreplicas",
    "ended\nps",
    "redrawn",
    "h(r)\nerror",
    "of it by\nsampling",
    "floor",
    "T, % off\nequipartition",
    "the\nreference's",
)
Cell = Mapping[str, Any]


def make_table(cells: Mapping[str, Mapping[str, Cell]]) -> str:
    """
    Write the rows of each model, and a line that sums each sampler up.

    Parameters
    ----------
    cells : mapping of str to mapping of str to mapping
        Cells of `summarize` by model and isomer.

    Returns
    -------
    str
        A table.
    """
    lines: list[list[str]] = []
    for model, found in cells.items():
        for row in (OURS, REGRESSION):
            rows = {name: cell for name, cell in found.items() if row in cell["rows"]}
            lines += [_line(model, name, cell, row) for name, cell in rows.items()]
            if len(rows) > 1:
                lines.append(_mean_line(model, list(rows.values()), row))
    return format_columns(HEADER, lines)


def summarize(result: Mapping[str, Any], one_lag_error: float) -> dict[str, Any]:
    """
    Keep what the table and the reader need of a rollout's results.

    Parameters
    ----------
    result : mapping
        What `md17_rollout` wrote, or an ``error`` where it could not begin.
    one_lag_error : float
        Of the mean.

    Returns
    -------
    dict
        A cell.
    """
    if "error" in result:
        return {
            "one_lag_error": one_lag_error,
            "rows": {OURS: _not_begun(result["replicas"], result["error"])},
            "error": result["error"],
        }
    rows = {}
    for row in (OURS, REGRESSION):
        if row in result.get("not_begun", {}):
            rows[row] = _not_begun(result["replicas"], result["not_begun"][row])
        if row not in result["rows"]:
            continue
        sidecar = RolloutSidecar(**result["rollouts"][row])
        length = sidecar.length_ps
        rows[row] = {
            **result["rows"][row],
            "K": sidecar.num_sampling_steps,
            "length_ps": length,
            "redrawn": sidecar.redrawn,
            "ended_ps": None if sidecar.error is None else length,
            "error": sidecar.error,
        }
    return {
        "one_lag_error": one_lag_error,
        "model_sha256": result["model"]["sha256"],
        "reference": result["reference"]["provenance"],
        "reference_ps": result["reference"]["length_ps"],
        "floor": result["floor"],
        "rows": rows,
        "seconds": result["seconds"],
    }


def _not_begun(n_replicas: int, error: str) -> dict[str, Any]:
    """Count all replicas as broken where the first lag was refused."""
    return {
        "n_replicas": n_replicas,
        "n_broken": n_replicas,
        "ended_ps": 0.0,
        "error": error,
    }


def _line(model: str, name: str, cell: Cell, row: str) -> list[str]:
    figures = cell["rows"][row]
    begun = "K" in figures
    return [
        model,
        name,
        str(figures.get("K", "-")),
        number(cell["one_lag_error"], 3),
        f"{figures['n_broken']}/{figures['n_replicas']}",
        number(figures["ended_ps"], 2),
        f"{figures['redrawn']:.0e}" if begun else "-",
        *_structure(figures, cell, begun),
        temperatures(figures) if begun else "-",
        temperatures(cell["floor"]) if begun else "-",
    ]


def _structure(figures: Cell, cell: Cell, begun: bool) -> list[str]:
    if not begun:
        return ["-", "-", "-"]
    return [
        number(figures["h_r_error"], 3),
        number(figures["h_r_expected"], 3),
        number(cell["floor"]["h_r_halves"], 3),
    ]


def _mean_line(model: str, cells: Sequence[Cell], row: str) -> list[str]:
    """Sum up broken replicas and ended runs; average what was measured."""
    figures = [cell["rows"][row] for cell in cells]
    begun = [
        (cell, found)
        for cell, found in zip(cells, figures, strict=True)
        if "K" in found
    ]
    watched = [found for _, found in begun]
    broken, run = (sum(f[key] for f in figures) for key in ("n_broken", "n_replicas"))
    return [
        model,
        "all",
        str(watched[0]["K"]) if begun else "-",
        number(float(np.mean([cell["one_lag_error"] for cell in cells])), 3),
        f"{broken}/{run}",
        f"{sum(f['ended_ps'] is not None for f in figures)} of {len(figures)}",
        f"{np.mean([f['redrawn'] for f in watched]):.0e}" if begun else "-",
        _mean([f["h_r_error"] for f in watched]),
        _mean([f["h_r_expected"] for f in watched]),
        _mean([cell["floor"]["h_r_halves"] for cell, _ in begun]),
        _mean_temperatures([f["temperatures"] for f in watched]),
        _mean_temperatures([cell["floor"]["temperatures"] for cell, _ in begun]),
    ]


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return number(float(np.mean(known)) if known else None, 3)


def _mean_temperatures(found: Sequence[Mapping[str, Cell] | None]) -> str:
    """Average over isomers; in brackets the standard error over isomers."""
    known = [each for each in found if each is not None]
    if not known:
        return "-"
    words = []
    for symbol in known[0]:
        off = [100 * (t[symbol]["value"] / t[symbol]["expected"] - 1) for t in known]
        error = np.std(off, ddof=1) / np.sqrt(len(off)) if len(off) > 1 else None
        words.append(f"{symbol} {np.mean(off):+.0f}({number(error, 0)})")
    return " ".join(words)
