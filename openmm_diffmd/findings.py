"""What a verb of the console script found, for people to read."""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any


def _one_lag_errors(model: Path) -> str:
    from openmm_diffmd.export.torchscript import load_model

    found = load_model(model).metadata
    figures = found.acceptance["one_lag"]
    lines = [
        f"  {symbol:2} {1000 * error['position_nm']:.3f} pm "
        f"({100 * error['position_relative']:.2f} %), "
        f"{1000 * error['velocity_nm_per_ps']:.1f} m/s "
        f"({100 * error['velocity_relative']:.2f} %)"
        for symbol, error in figures.items()
        if isinstance(error, dict)
    ]
    head = (
        f"Errors of the mean over one lag, {figures['n_pairs']} pairs left out (in "
        "brackets relative to the scales of the training):"
    )
    return "\n".join([head, *lines, *_heat_lines(found.acceptance["heat"])])


def _heat_of_rollouts(model: Path) -> str:
    from openmm_diffmd.export.torchscript import load_model

    lines = ["Beyond the heat bath's temperature before balancing, %:"]
    for one in load_model(model).metadata.config["balanced_on"][-1]["rollouts"]:
        found = "  ".join(
            f"{name} {100 * heat['value']:+.1f}({100 * heat['error']:.1f})"
            for name, heat in one["heat"].items()
        )
        lines.append(f"  {one['formula']}, {one['length_ps']:.0f} ps:  {found}")
    return "\n".join(lines)


def _heat_lines(molecules: Sequence[dict[str, Any]]) -> list[str]:
    if not molecules:
        return []
    lines = ["Heat that a drawn lag adds, 1e-4 of the temperature, before balancing:"]
    for molecule in molecules:
        found = "  ".join(
            f"{name} {1e4 * heat['before']:+.1f}({1e4 * heat['error']:.1f})"
            for name, heat in molecule["heat"].items()
        )
        lines.append(f"  {molecule['formula']}, {molecule['pairs']} pairs:  {found}")
    return lines


def _rollout(path: Path) -> str:
    from mdtraj import load_topology

    from openmm_diffmd.elements import formula_of
    from openmm_diffmd.sidecar import RolloutSidecar

    found = RolloutSidecar.read(path)
    atoms = load_topology(str(path.with_suffix(".pdb"))).atoms
    one = islice(atoms, found.atoms_per_replica)
    formula = formula_of([atom.element.symbol for atom in one])
    return (
        f"{found.num_replicas} x {found.num_lags} lags of {found.lag_time_fs:g} fs of "
        f"{formula} by {found.model_name!r} at {found.temperature_K:g} K, "
        f"{found.friction_per_ps:g}/ps, seed {found.seed}: "
        f"{found.resamples} drawn again"
        + (f", {found.rescues} run with the reference force" if found.rescues else "")
    )


def _force_errors(force: Path) -> str:
    from openmm_diffmd.models.energy import load_force

    lines = [
        f"  {found['file']}: {found['test']['force_mae_meV_per_A']:.1f} meV/Angstrom, "
        f"energies {found['test']['energy_mae_meV']:.1f} meV"
        for found in load_force(force)[1]["data"]
    ]
    return "\n".join(["Mean absolute errors on frames left out:", *lines])


FINDINGS: dict[str, Callable[[Path], str]] = {
    "analyze": lambda path: path.with_name("report.txt").read_text().strip(),
    "balance": _heat_of_rollouts,
    "export": _one_lag_errors,
    "force": _force_errors,
    "run": _rollout,
}
"""What a verb found, read from the file that it wrote."""
