r"""
One-lag errors of hot bonds: what a rollout meets where energy gathers in one of them.

The bursts are of a reference with heated bonds, whose seed no training had; the means
and variances of their lengths come from the thermostatted run that is given. Writes
``hot_bonds.json``:

    openmm-diffmd reference --config reference_hot_bonds --molecule mine.xyz \
        --seed 2 --output data/bonds_2
    python benchmarks/hot_bonds.py --models mine.pt --data data/bonds_2/bursts.h5 \
        --reference data/mine/thermostatted.h5
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from command_line import one_line_errors, require_same_molecule, write_results
from held_out_bursts import unseen_pieces
from machine import describe_run
from numpy.typing import NDArray
from one_lag import check, symbols_of
from one_lag_errors import model_change, sample_pairs

from openmm_diffmd.analysis.comparable import check_temperature
from openmm_diffmd.analysis.distributions import bonded_terms
from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.loading import load_reference
from openmm_diffmd.analysis.report import format_columns
from openmm_diffmd.bond_stretches import bond_stretches, reduced_masses
from openmm_diffmd.checks import at_least
from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.outputs import make_folder
from openmm_diffmd.threads import set_threads
from openmm_diffmd.units import BOLTZMANN

EDGES = (0.0, 2.0, 5.0, 10.0, 20.0)
"""Between ranges of a bond's energy, kT."""
FEWEST = 20
"""Bonds in a range that are worth a figure."""


@dataclass(frozen=True)
class Stretches:
    """
    Stretches of bonds as oscillators, in units in which their energy is kT.

    Attributes
    ----------
    offsets, speeds : ndarray, shape (n_frames, n_bonds)
        (r - r_0)/sigma and its rate over sqrt(kT/mu): E/kT is half the sum of squares.
    """

    offsets: NDArray[np.float64]
    speeds: NDArray[np.float64]

    @property
    def energies(self) -> NDArray[np.float64]:
        """Energies, kT."""
        return 0.5 * (self.offsets**2 + self.speeds**2)


def errors_by_energy(
    before: Stretches, expected: Stretches, found: Stretches
) -> list[dict[str, Any]]:
    """
    Compare stretches after one lag, by the energy that the bonds had before it.

    Parameters
    ----------
    before, expected, found : Stretches
        Of some bonds: before the lag, after it, and where a model puts them.

    Returns
    -------
    list of dict
        For each range of `EDGES`: ``kT``, its ends; ``bonds``, how many; and, where
        these are enough, ``error``, root mean square distance from what is expected
        over root mean square amplitude; ``gain``, mean energy beyond what is expected,
        kT; ``gain_error``, its standard error as if bonds were independent.
    """
    energies = before.energies
    missed = 0.5 * (
        (found.offsets - expected.offsets) ** 2 + (found.speeds - expected.speeds) ** 2
    )
    gains = found.energies - expected.energies
    rows = []
    for low, high in pairwise(EDGES):
        own = (energies >= low) & (energies < high)
        count = int(own.sum())
        row: dict[str, Any] = {"kT": (low, high), "bonds": count}
        if count >= FEWEST:
            row["error"] = float(
                np.sqrt(missed[own].mean() / expected.energies[own].mean())
            )
            row["gain"] = float(gains[own].mean())
            row["gain_error"] = float(gains[own].std() / count**0.5)
        rows.append(row)
    return rows


def measure(
    model: DiffusionModel, trajectory: Trajectory, reference: Ensemble, count: int
) -> dict[str, list[dict[str, Any]]]:
    """
    Measure the mean of a model on bonds of all energies.

    Parameters
    ----------
    model : DiffusionModel
        The model.
    trajectory : Trajectory
        Bursts.
    reference : Ensemble
        The same molecule in a heat bath, without heated bonds.
    count : int
        Pairs.

    Returns
    -------
    dict
        By kind of bond, such as ``H-N``, what `errors_by_energy` gives.

    Raises
    ------
    ValueError
        If the model has seen all of the bursts, or the reference is of other atoms.
    """
    expected = [chemical_symbols[z] for z in trajectory.atomic_numbers]
    require_same_molecule("a reference", reference.symbols, expected)
    metadata = model.metadata
    pieces = unseen_pieces(trajectory, metadata)
    symbols = symbols_of(trajectory)
    batch, _ = sample_pairs(pieces, symbols, metadata.lag_time_fs, count)
    with torch.inference_mode():
        change = model_change(model, symbols, metadata.sampler["name"], 0)(batch)
    before = torch.stack([batch.positions, batch.velocities], dim=2)
    states = [
        tuple(each.double().numpy() for each in state.unbind(2))
        for state in (before, batch.following, before + change)
    ]
    frames = np.concatenate(reference.positions).astype(np.float64)
    kT = BOLTZMANN * metadata.temperature_K
    found = {}
    for kind, bonds in bonded_terms(reference.topology)["bonds"].items():
        at_rest, _ = bond_stretches(frames, np.zeros_like(frames), bonds)
        mean, deviation = at_rest.mean(axis=0), at_rest.std(axis=0)
        thermal = np.sqrt(kT / reduced_masses(reference.masses, bonds))
        stretches = []
        for positions, velocities in states:
            lengths, speeds = bond_stretches(positions, velocities, bonds)
            offsets = (lengths - mean) / deviation
            stretches.append(Stretches(offsets, speeds / thermal))
        found[kind] = errors_by_energy(*stretches)
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Format errors in per cent of the amplitude, and gains in kT."""
    header = [
        "error, % (gain, kT)",
        "bond",
        *(f"{a:g} to {b:g} kT" for a, b in pairwise(EDGES)),
    ]
    lines = [
        [
            row["model"]["name"],
            kind,
            *(
                f"{100 * cell['error']:.1f} ({cell['gain']:+.3f} +- "
                f"{cell['gain_error']:.3f})"
                if "error" in cell
                else "-"
                for cell in cells
            ),
        ]
        for row in rows
        for kind, cells in row["bonds"].items()
    ]
    return str(format_columns(header, lines))


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument(
        "--data", type=Path, required=True, help="bursts.h5 with heated bonds"
    )
    parser.add_argument(
        "--reference", type=Path, required=True, help="thermostatted.h5 without"
    )
    parser.add_argument("--pairs", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("rollout"))
    arguments = parser.parse_args(words)
    with one_line_errors("hot_bonds"):
        at_least(FEWEST, pairs=arguments.pairs)
        set_threads(arguments.threads)
        trajectory = read_reference(arguments.data)
        reference, provenance = load_reference(arguments.reference)
        models = {name: load_model(name) for name in arguments.models}
        for model in models.values():
            check(model, trajectory)
            check_temperature(provenance, model.metadata.temperature_K)
        make_folder(arguments.output)
        rows = [
            {
                "model": {"name": Path(name).stem, "sha256": model.sha256},
                "bonds": measure(model, trajectory, reference, arguments.pairs),
            }
            for name, model in models.items()
        ]
        print(table(rows))
        written = {
            **describe_run(__file__),
            "provenance": dict(trajectory.provenance),
            "rows": rows,
        }
        path = arguments.output / "hot_bonds.json"
        write_results(path, written)
        print(f"\nIn {arguments.output}: hot_bonds.json")


if __name__ == "__main__":
    main()
