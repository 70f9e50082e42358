r"""
Ramachandran maps of peptides: rollouts beside a reference.

The joint distribution of each pair of backbone torsions, phi and psi, as a free energy,
and as numbers: the Jensen-Shannon divergence from the reference, beside that of the
reference's own halves, and the share of time in each region. References of several
seeds count as one. Writes ``ramachandran.json`` and ``ramachandran.png``:

    python benchmarks/ramachandran.py --rollouts rollout/ala.json \
        --references data/ala_fresh/thermostatted.h5
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
from command_line import one_line_errors, require_same_molecule, write_results
from machine import describe_run
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon

from openmm_diffmd.analysis.comparable import check_temperature
from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.loading import load_reference, load_rollout
from openmm_diffmd.analysis.report import format_columns
from openmm_diffmd.analysis.rollouts import row_names
from openmm_diffmd.analysis.statistics import mean_and_error
from openmm_diffmd.bond_graphs import bond_graph
from openmm_diffmd.checks import at_least
from openmm_diffmd.outputs import make_folder

BINS = np.linspace(-180.0, 180.0, 37)
"""Bin edges of both torsions, degrees."""
DEEPEST = 7.0
"""Free energies above this are drawn alike, kT."""
REGIONS: Mapping[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "C5": ((-180.0, -115.0), (90.0, 180.0)),
    "C7eq": ((-115.0, -30.0), (0.0, 115.0)),
    "alphaR": ((-180.0, -30.0), (-120.0, 0.0)),
    "C7ax": ((30.0, 120.0), (-140.0, 30.0)),
}
"""Ranges of phi and psi, degrees, about the minima of alanine dipeptide in vacuum."""


@dataclass(frozen=True)
class Torsions:
    """
    Backbone torsions of a trajectory.

    Attributes
    ----------
    replicas : list of ndarray, shape (n_frames, n_residues, 2), degrees
        phi and psi of each residue, of each replica.
    """

    replicas: list[NDArray[np.float64]]

    def density(self) -> NDArray[np.float64]:
        """Return the share of frames in each bin of phi and psi."""
        pairs = np.concatenate(self.replicas).reshape(-1, 2)
        counts = np.histogram2d(pairs[:, 0], pairs[:, 1], (BINS, BINS))[0]
        return counts / counts.sum()

    def shares(self) -> dict[str, tuple[float, float]]:
        """Measure the share of time in each region, and its standard error."""
        found = {}
        for name, ranges in REGIONS.items():
            inside = [
                np.all(
                    [
                        (low <= one[..., axis]) & (one[..., axis] < high)
                        for axis, (low, high) in enumerate(ranges)
                    ],
                    axis=0,
                ).mean(axis=1)
                for one in self.replicas
            ]
            found[name] = mean_and_error(inside)
        return found


def backbone(topology: mdtraj.Topology) -> list[tuple[list[int], list[int]]]:
    """
    Find the residues between two peptide bonds, from bonds alone.

    Parameters
    ----------
    topology : mdtraj.Topology
        The molecule, with bonds.

    Returns
    -------
    list of (list of int, list of int)
        Atoms of phi, C-N-CA-C, and of psi, N-CA-C-N, of each residue.

    Raises
    ------
    ValueError
        If there is none.
    """
    symbols = [atom.element.symbol for atom in topology.atoms]
    graph = bond_graph(symbols, ((a.index, b.index) for a, b in topology.bonds))

    def near(atom: int, symbol: str) -> list[int]:
        return [other for other in graph[atom] if symbols[other] == symbol]

    def is_carbonyl(atom: int) -> bool:
        return any(graph.degree(oxygen) == 1 for oxygen in near(atom, "O"))

    found = [
        ([before, nitrogen, alpha, after], [nitrogen, alpha, after, following])
        for nitrogen in graph
        if symbols[nitrogen] == "N"
        for before in near(nitrogen, "C")
        if is_carbonyl(before)
        for alpha in near(nitrogen, "C")
        if not is_carbonyl(alpha)
        for after in near(alpha, "C")
        if is_carbonyl(after)
        for following in near(after, "N")
    ]
    if not found:
        raise ValueError(
            "found no residue between two peptide bonds, expected a peptide such as "
            "alanine dipeptide, with bonds"
        )
    return found


def measure_torsions(ensemble: Ensemble) -> Torsions:
    """
    Measure phi and psi.

    Parameters
    ----------
    ensemble : Ensemble
        Frames.

    Returns
    -------
    Torsions
        The torsions.
    """
    residues = backbone(ensemble.topology)
    indices = np.array([torsion for pair in residues for torsion in pair])
    replicas = []
    for positions in ensemble.positions:
        frames = mdtraj.Trajectory(positions, ensemble.topology)
        angles = np.rad2deg(mdtraj.compute_dihedrals(frames, indices))
        replicas.append(angles.reshape(len(angles), len(residues), 2))
    return Torsions(replicas)


def divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """
    Jensen-Shannon divergence of two maps.

    Parameters
    ----------
    p, q : ndarray, shape (n_bins, n_bins)
        Shares of frames.

    Returns
    -------
    float
        Bits; 0 is equal, 1 disjoint.
    """
    return float(jensenshannon(p.ravel(), q.ravel(), base=2) ** 2)


def floor_of(ensemble: Ensemble) -> float:
    """
    Jensen-Shannon divergence of the first half of all frames from the second.

    Parameters
    ----------
    ensemble : Ensemble
        Frames.

    Returns
    -------
    float
        Bits.
    """
    return divergence(*(measure_torsions(half).density() for half in ensemble.split(2)))


def compare(found: Ensemble, reference: Ensemble) -> dict[str, Any]:
    """
    Compare a rollout with the reference.

    Parameters
    ----------
    found, reference : Ensemble
        Both.

    Returns
    -------
    dict
        ``divergence`` in bits, what finite runs explain of it (a quarter of the sum of
        both half-against-half divergences), and ``shares`` of time by region, with
        errors.
    """
    ours, theirs = measure_torsions(found), measure_torsions(reference)
    return {
        "divergence": divergence(ours.density(), theirs.density()),
        "by_sampling": 0.25 * (floor_of(found) + floor_of(reference)),
        "shares": ours.shares(),
    }


def draw(maps: Mapping[str, NDArray[np.float64]], path: Path) -> None:
    """
    Draw free energies, side by side.

    Parameters
    ----------
    maps : mapping of str to ndarray, shape (n_bins, n_bins)
        Shares of frames by phi and psi, by title.
    path : path-like
        PNG file to write.
    """
    figure = Figure(
        figsize=(3.4 * len(maps) + 0.7, 3.5), layout="constrained", facecolor="white"
    )
    panels = figure.subplots(1, len(maps), sharey=True, squeeze=False)[0]
    for axes, (title, share) in zip(panels, maps.items(), strict=True):
        energy = np.full(share.shape, np.nan)
        energy[share > 0] = -np.log(share[share > 0] / share.max())
        image = axes.pcolormesh(
            BINS, BINS, energy.T, cmap="viridis", vmin=0.0, vmax=DEEPEST
        )
        axes.set(
            title=title,
            xlabel="φ / degrees",
            aspect="equal",
            xticks=range(-180, 181, 90),
            yticks=range(-180, 181, 90),
        )
    panels[0].set_ylabel("ψ / degrees")
    figure.colorbar(image, ax=list(panels), label="free energy / kT", extend="max")
    figure.savefig(path, dpi=150)


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, draw and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rollouts", type=Path, nargs="+", required=True, help=".json of each")
    add("--references", type=Path, nargs="+", required=True, help="of any seeds")
    add("--equilibration-ps", type=float, default=2.0, help="left out of each replica")
    add("--output", type=Path, default=Path("rollout"), help="folder")
    arguments = parser.parse_args(words)
    with one_line_errors("ramachandran"):
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """
    Compare the rollouts of a command line with its references.

    Parameters
    ----------
    arguments : argparse.Namespace
        Command line.

    Raises
    ------
    ValueError
        If molecules, temperatures or references' frame intervals differ, or nothing is
        left of a replica.
    """
    at_least(0, equilibration_ps=arguments.equilibration_ps)
    loaded = [load_reference(path) for path in arguments.references]
    first = loaded[0][0]
    for path, (frames, _) in zip(arguments.references, loaded, strict=True):
        require_same_molecule("a reference", frames.symbols, first.symbols)
        if not np.isclose(frames.frame_interval, first.frame_interval):
            raise ValueError(
                f"found frames each {frames.frame_interval:g} ps in {path}, expected "
                f"each {first.frame_interval:g} ps as in {arguments.references[0]}: "
                "references are joined frame by frame"
            )
    positions = [one for frames, _ in loaded for one in frames.positions]
    reference = replace(first, positions=positions, velocities=None)
    measured, length = measure_torsions(reference), reference.length
    rows = {
        "reference": {"divergence": floor_of(reference), "shares": measured.shares()}
    }
    maps = {f"reference, {length:g} ps": measured.density()}
    names = row_names(arguments.rollouts)
    for name, path in zip(names, arguments.rollouts, strict=True):
        ensemble, sidecar = load_rollout(path)
        require_same_molecule("a rollout", ensemble.symbols, first.symbols)
        for _, provenance in loaded:
            check_temperature(provenance, sidecar.temperature_K)
        start = round(arguments.equilibration_ps / ensemble.frame_interval)
        if start >= min(map(len, ensemble.positions)):
            raise ValueError(
                f"found equilibration_ps {arguments.equilibration_ps:g}, expected less "
                f"than the length of each replica of {path}"
            )
        found = ensemble.window(
            [start] * ensemble.n_replicas, [len(p) for p in ensemble.positions]
        )
        rows[name] = compare(found, reference)
        maps[f"{name}, {found.length:g} ps"] = measure_torsions(found).density()
    print(table(rows))
    output = make_folder(arguments.output)
    draw(maps, output / "ramachandran.png")
    written = {
        **describe_run(__file__),
        "equilibration_ps": arguments.equilibration_ps,
        "reference_ps": length,
        "regions_degrees": REGIONS,
        "rows": rows,
    }
    write_results(output / "ramachandran.json", written)
    print(f"\nIn {output}: ramachandran.json, ramachandran.png")


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """
    Write the table.

    Parameters
    ----------
    rows : mapping of str to mapping
        Of `compare`; of the reference its floor.

    Returns
    -------
    str
        A line a row.
    """
    lines = []
    for name, row in rows.items():
        sampling = row.get("by_sampling")
        explained = "floor" if sampling is None else f"{sampling:.4f}"
        shares = (
            f"{100 * share:.1f} +- {100 * error:.1f}"
            for share, error in row["shares"].values()
        )
        lines.append([name, f"{row['divergence']:.4f} ({explained})", *shares])
    header = ["", "JSD, bits (by sampling)", *(f"{name}, %" for name in REGIONS)]
    return format_columns(header, lines)


if __name__ == "__main__":
    main()
