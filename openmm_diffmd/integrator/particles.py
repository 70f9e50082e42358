"""What an integrator knows of its particles and bonds, as arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from openmm import unit

from openmm_diffmd.integrator.diffusion_integrator import DiffusionIntegrator
from openmm_diffmd.units import to_float


@dataclass(frozen=True)
class Particles:
    """
    Particles and bonds of an integrator.

    Attributes
    ----------
    species : ndarray of int, shape (n_particles,)
        Indices into the elements of the model.
    masses : ndarray, shape (n_particles,)
        Da.
    molecules : ndarray of int, shape (n_particles,)
        Molecule of each.
    bonds : ndarray of int, shape (n_bonds, 2)
        Pairs of bonded particles.
    bond_ranges : ndarray, shape (n_bonds, 2)
        Shortest and longest length that the guards allow, nm.
    """

    species: NDArray[np.int64]
    masses: NDArray[np.float64]
    molecules: NDArray[np.int64]
    bonds: NDArray[np.int64]
    bond_ranges: NDArray[np.float64]


def read_particles(integrator: DiffusionIntegrator) -> Particles:
    """
    Read particles and bonds of an integrator.

    Parameters
    ----------
    integrator : DiffusionIntegrator
        In a Context, or not yet.

    Returns
    -------
    Particles
        What it was given.
    """
    particles = [
        integrator.getParticleParameters(i) for i in range(integrator.getNumParticles())
    ]
    bonds = [integrator.getBondParameters(i) for i in range(integrator.getNumBonds())]
    species, masses, molecules = zip(*particles, strict=True)
    return Particles(
        species=np.array(species, np.int64),
        masses=np.array([to_float(mass, unit.dalton) for mass in masses]),
        molecules=np.array(molecules, np.int64),
        bonds=np.array([bond[:2] for bond in bonds], np.int64).reshape(-1, 2),
        bond_ranges=np.array(
            [[to_float(length, unit.nanometer) for length in b[2:]] for b in bonds]
        ).reshape(-1, 2),
    )
