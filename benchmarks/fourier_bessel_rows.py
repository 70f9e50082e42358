"""Rows of bench_fourier_bessel.py: what they are about, their goals, their file."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openmm_diffmd.outputs import written_whole

OURS = "compiled"
SETTINGS = ("memory", "sphericart")
"""What all runs of a file have in common."""


@dataclass(frozen=True)
class Case:
    """What a row of a table is about."""

    device: str
    threads: int
    dtype: str
    l_max: int
    n_max: int
    edges: int
    task: str


@dataclass(frozen=True)
class Row:
    """Nanoseconds per edge of each contender, and the floor's."""

    case: Case
    ns_per_edge: dict[str, float]
    floor: float | None

    def speedup(self) -> float | None:
        """Say how many times quicker ours is than the best other."""
        others = [ns for name, ns in self.ns_per_edge.items() if name != OURS]
        return min(others) / self.ns_per_edge[OURS] if others else None

    def over_floor(self) -> float | None:
        """Say how many times the floor ours takes."""
        return self.ns_per_edge[OURS] / self.floor if self.floor else None


def print_row(row: Row, before: Case | None) -> None:
    """Print a row, and a heading where a table begins."""
    case = row.case
    table = (case.device, case.threads, case.dtype, case.l_max, case.n_max)
    if before is None or table != (
        before.device,
        before.threads,
        before.dtype,
        before.l_max,
        before.n_max,
    ):
        print(
            f"\n{case.device}, {case.threads} threads, {case.dtype}, l_max "
            f"{case.l_max}, n_max {case.n_max}; ns per edge"
        )
    times = ", ".join(f"{name} {ns:.4g}" for name, ns in row.ns_per_edge.items())
    print(f"{case.edges:>8} {case.task:<28} {times}", end="")
    if row.floor is not None:
        print(f", floor {row.floor:.4g} (x {row.over_floor():.2f})", end="")
    gain = row.speedup()
    print(f"; {gain:.1f} times the best other" if gain else "", flush=True)


def judge(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Compare float32 rows with the goals."""
    found = []
    for row in rows:
        case = row.case
        at = (case.task, case.edges)
        if case.dtype != "float32":
            continue
        gain, over = row.speedup(), row.over_floor()
        if case.device != "cpu":
            if at == ("forward", 1_000_000) and over is not None:
                goal = "at least 0.7 of the measured bandwidth"
                found.append((case, goal, 1 / over, 1 / over >= 0.7))
            continue
        least = {
            ("forward", 10_000): 10.0,
            ("forward+backward", 10_000): 8.0,
            ("forward", 100): 30.0,
            ("forward+backward", 100): 30.0,
        }.get(at)
        if case.task.startswith("invariants"):
            least = 3.0
        if least is not None and gain is not None:
            found.append(
                (case, f"at least {least:g} times the best other", gain, gain >= least)
            )
        if over is None or case.edges < 100_000 or (case.l_max, case.n_max) != (3, 8):
            continue
        most = {"forward": 1.5, "backward": 4.0}.get(case.task)
        if most is not None:
            found.append(
                (case, f"at most {most:g} times the floor", over, over <= most)
            )
    return [
        {"case": asdict(case), "goal": goal, "found": value, "met": met}
        for case, goal, value, met in found
    ]


def write_results(
    path: Path, run: dict[str, Any], rows: Sequence[Row], *, merge: bool
) -> None:
    """
    Write a run's rows as JSON, among those of earlier runs if wanted.

    Parameters
    ----------
    path : Path
        JSON file.
    run : dict
        The run's command, machine, load and settings.
    rows : sequence of Row
        What it measured, until now.
    merge : bool
        Keep the file's rows of other cases. Each row says which of `runs` it is of.

    Raises
    ------
    ValueError
        If the file's runs had other settings, or were on another kind of processor
        or GPU.
    """
    runs, kept = [], []
    if merge and path.is_file():
        before = json.loads(path.read_text())
        new = {row.case for row in rows}
        kept = [row for row in before["rows"] if Case(**row["case"]) not in new]
        # A run of which no row is left is forgotten: an earlier state of this one too.
        used = sorted({row["run"] for row in kept})
        runs = [before["runs"][index] for index in used]
        kept = [row | {"run": used.index(row["run"])} for row in kept]
    for other in runs:
        for name in (*SETTINGS, "processor", "gpu"):
            one, this = (r.get(name, r["machine"].get(name)) for r in (other, run))
            if one != this:
                raise ValueError(
                    f"found {name} {one!r} in {path}, expected {this!r} as in this "
                    "run; write to another file"
                )
    added = [asdict(row) | {"run": len(runs)} for row in rows]
    every = kept + added
    every.sort(key=lambda row: [v for k, v in row["case"].items() if k != "task"])
    made = [Row(Case(**r["case"]), r["ns_per_edge"], r["floor"]) for r in every]
    result = {"runs": [*runs, run], "rows": every, "goals": judge(made)}
    # Rows of earlier runs are in it: a kill while it is written must leave them.
    with written_whole(path) as part:
        part.write_text(json.dumps(result, indent=1) + "\n")
