from collections.abc import Callable

import mdtraj
import numpy as np
import pytest

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.units import BOLTZMANN

SYMBOLS = ["C", "C", "O", "H", "H", "H", "H", "H", "H"]
BONDS = [(0, 1), (1, 2), (0, 3), (0, 4), (0, 5), (1, 6), (1, 7), (2, 8)]


def build_topology(symbols: list[str], bonds: list[tuple[int, int]]) -> mdtraj.Topology:
    topology = mdtraj.Topology()
    residue = topology.add_residue("MOL", topology.add_chain())
    atoms = [
        topology.add_atom(f"{s}{i}", mdtraj.element.get_by_symbol(s), residue)
        for i, s in enumerate(symbols)
    ]
    for i, j in bonds:
        topology.add_bond(atoms[i], atoms[j])
    return topology


@pytest.fixture
def make_topology() -> Callable[..., mdtraj.Topology]:
    return build_topology


@pytest.fixture
def hydrogen_peroxide() -> mdtraj.Topology:
    return build_topology(["H", "O", "O", "H"], [(0, 1), (1, 2), (2, 3)])


@pytest.fixture
def ethanol() -> mdtraj.Topology:
    return build_topology(SYMBOLS, BONDS)


@pytest.fixture
def diatomic() -> mdtraj.Topology:
    return build_topology(["C", "O"], [(0, 1)])


@pytest.fixture
def gaussian_ethanol(ethanol: mdtraj.Topology) -> Callable[..., Ensemble]:
    """Atoms that fluctuate about fixed places, with Maxwell velocities."""

    def make(
        n_replicas: int,
        n_frames: int,
        seed: int,
        temperature: float = 500.0,
        spread: float = 0.005,
    ) -> Ensemble:
        places = 0.15 * np.random.default_rng(3).normal(size=(9, 3))
        generator = np.random.default_rng(seed)
        masses = np.array([atom.element.mass for atom in ethanol.atoms])
        scale = np.sqrt(BOLTZMANN * temperature / masses)[:, None]
        shape = (n_replicas, n_frames, 9, 3)
        return Ensemble(
            ethanol,
            0.01,
            list(places + spread * generator.normal(size=shape)),
            list(scale * generator.normal(size=shape)),
        )

    return make
