from collections.abc import Callable

import mdtraj
import numpy as np
import pytest

from openmm_diffmd import topologies
from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.figures import Row
from openmm_diffmd.analysis.measure import Reference, measure, prepare_reference
from openmm_diffmd.units import BOLTZMANN

SYMBOLS = ["C", "C", "O", "H", "H", "H", "H", "H", "H"]
BONDS = [(0, 1), (1, 2), (0, 3), (0, 4), (0, 5), (1, 6), (1, 7), (2, 8)]


@pytest.fixture
def make_topology() -> Callable[..., mdtraj.Topology]:
    return topologies.make_topology


@pytest.fixture
def hydrogen_peroxide() -> mdtraj.Topology:
    return topologies.make_topology(["H", "O", "O", "H"], [(0, 1), (1, 2), (2, 3)])


@pytest.fixture
def ethanol() -> mdtraj.Topology:
    return topologies.make_topology(SYMBOLS, BONDS)


@pytest.fixture
def diatomic() -> mdtraj.Topology:
    return topologies.make_topology(["C", "O"], [(0, 1)])


@pytest.fixture
def triatomic() -> mdtraj.Topology:
    return topologies.make_topology(["O", "C", "O"], [(0, 1), (1, 2)])


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


@pytest.fixture
def reference(gaussian_ethanol: Callable[..., Ensemble]) -> Reference:
    return prepare_reference(gaussian_ethanol(1, 10_000, seed=1), 500.0, window=0.64)


@pytest.fixture
def row(gaussian_ethanol: Callable[..., Ensemble], reference: Reference) -> Row:
    return measure("same", gaussian_ethanol(4, 2000, seed=2), reference, 0.5)
