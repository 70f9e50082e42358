"""Rows of the table of several molecules, from the results of each."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from md17_rollout import OURS, REGRESSION

from openmm_diffmd.sidecar import RolloutSidecar

HEADER = (
    "molecule",
    "steps",
    "broken",
    "redrawn",
    "h(r) error",
    "by sampling",
    "floor",
    "temperature, % of equipartition's",
    "reference's",
    "JSD b/a/d, 1e-3 bit",
    "by sampling",
    "spectrum",
    "by sampling",
    "kin. energy: mean, width; p",
    "ns/day",
)
EVENT_HEADER = (
    "molecule",
    "events of one group, 1/ns",
    "ours",
    "mean only",
    "reference's",
    "ours off by, errors",
)


def rows_of(name: str, result: Mapping[str, Any]) -> list[list[str]]:
    """Make the rows of a molecule: the model with its K steps, and its mean (K = 0)."""
    floor = result["floor"]
    rows = []
    for row in (OURS, REGRESSION):
        figures = result["rows"].get(row)
        if figures is None:
            continue
        speed = next(
            (c["ns_per_day"] for c in result["cost"] if c["name"] == row), None
        )
        sidecar = RolloutSidecar(**result["rollouts"][row])
        ended = sidecar.error is not None
        rows.append(
            [
                name,
                f"K={sidecar.num_sampling_steps}",
                f"{figures['n_broken']}/{figures['n_replicas']}"
                + (" ended" if ended else ""),
                f"{sidecar.redrawn:.0e}",
                number(figures["h_r_error"], 3),
                number(figures["h_r_expected"], 3),
                number(floor["h_r_halves"], 3),
                temperatures(figures, 1),
                temperatures(floor, 1),
                divergences(figures["divergences"]),
                divergences(figures["divergences_expected"]),
                number(figures["spectrum_overlap"], 3),
                number(figures["spectrum_expected"], 3),
                kinetic_energy(figures),
                number(speed and speed * sidecar.num_replicas, 0),
            ]
        )
    return rows


def event_rows(name: str, result: Mapping[str, Any]) -> list[list[str]]:
    """Make the rows of a molecule's rare events: none where it has no such group."""
    reference = result["floor"]["events"] or {}
    rows = []
    for kind, expected in reference.items():
        found = [
            (result["rows"].get(row) or {}).get("events") for row in (OURS, REGRESSION)
        ]
        rates = [events and events[kind] for events in found]
        deviation = rates[0] and (rates[0]["rate"] - expected["rate"]) / math.hypot(
            rates[0]["error"], expected["error"]
        )
        rows.append(
            [
                name,
                f"{kind} (x {expected['n_groups']})",
                *(rate_cell(rate) for rate in (*rates, expected)),
                "-" if deviation is None else f"{deviation:+.1f}",
            ]
        )
    return rows


def rate_cell(rate: Mapping[str, Any] | None) -> str:
    """Format a rate, +- one error."""
    return "-" if rate is None else f"{rate['rate']:.0f}({rate['error']:.0f})"


def kinetic_energy(figures: Mapping[str, Any]) -> str:
    """Format the test of kinetic energies: mean and width off by errors; p."""
    test = figures["kinetic_energy"]
    if test is None:
        return "-"
    return "{mean_deviation:.1f}, {width_deviation:.1f}; {p_value:.2g}".format(**test)


def temperatures(figures: Mapping[str, Any], digits: int = 0) -> str:
    """Compare each element's temperature with equipartition's, +- one error, in %."""
    if figures["temperatures"] is None:
        return "-"
    words = []
    for symbol, found in figures["temperatures"].items():
        # Of less than 20 independent samples there is no error.
        error = found["error"]
        known = (
            "-" if error is None else f"{100 * error / found['expected']:.{digits}f}"
        )
        off = 100 * (found["value"] / found["expected"] - 1)
        words.append(f"{symbol} {off:+.{digits}f}({known})")
    return " ".join(words)


def divergences(found: Mapping[str, Any] | None) -> str:
    """Format mean Jensen-Shannon divergences of bonds, angles and dihedrals."""
    if found is None:
        return "-"
    return " / ".join(
        number(1e3 * sum(kinds.values()) / len(kinds), 1) if kinds else "-"
        for kinds in found.values()
    )


def number(value: float | None, digits: int) -> str:
    """Format a figure, or what could not be measured."""
    return "-" if value is None else f"{value:.{digits}f}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True))
        for row in rows
    ]
