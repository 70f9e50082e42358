"""Systems to run the integrator on: masses only, one molecule or many replicas."""

from dataclasses import dataclass
from numbers import Integral

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

from openmm_diffmd.integrator.molecules import check_topology


@dataclass(frozen=True)
class Replicas:
    """
    Copies of a molecule that do not see each other.

    Attributes
    ----------
    topology : openmm.app.Topology
        All copies, one chain each.
    system : openmm.System
        Masses of all copies.
    positions : Quantity, shape (n_replicas * n_atoms, 3), nm
        Positions of all copies.
    molecules : ndarray of int, shape (n_replicas * n_atoms,)
        Molecule id of each atom: the number of its copy.
    """

    topology: app.Topology
    system: openmm.System
    positions: unit.Quantity
    molecules: NDArray[np.int64]


def create_system(topology: app.Topology) -> openmm.System:
    """
    Make a System that holds the masses of a topology's elements, and no forces.

    Parameters
    ----------
    topology : openmm.app.Topology
        Atoms.

    Returns
    -------
    openmm.System
        The System.

    Raises
    ------
    ValueError
        If an atom has no element.
    """
    check_topology(topology)
    system = openmm.System()
    for atom in topology.atoms():
        if atom.element is None:
            raise ValueError(
                f"found atom {atom.index} ({atom.name}) without an element, expected "
                "one: its mass is needed; set the element in the topology"
            )
        system.addParticle(atom.element.mass)
    return system


def replicate(
    topology: app.Topology,
    system: openmm.System,
    positions: unit.Quantity,
    num_replicas: int,
) -> Replicas:
    """
    Copy a molecule, to be evolved in one batch.

    Parameters
    ----------
    topology : openmm.app.Topology
        The molecule.
    system : openmm.System
        Its masses, and nothing else: what `create_system` makes.
    positions : Quantity or ndarray, shape (n_atoms, 3), nm
        Its positions, the same for each copy.
    num_replicas : int
        Number of copies.

    Returns
    -------
    Replicas
        What `Simulation` and `DiffusionIntegrator` need; set different velocities. Add
        forces, restraints say, to its System: each to the atoms of one copy, since all
        copies lie on top of each other.

    Raises
    ------
    ValueError
        If there is no copy to make, the System holds forces or constraints, or numbers
        of particles differ.
    """
    check_topology(topology)
    if not isinstance(system, openmm.System) or not isinstance(num_replicas, Integral):
        raise TypeError(
            f"found a {type(system).__name__} as the System and a "
            f"{type(num_replicas).__name__} as the number of replicas, expected "
            "replicate(topology, system, positions, num_replicas)"
        )
    if num_replicas < 1:
        raise ValueError(f"found {num_replicas} replicas, expected at least 1")
    if system.getNumForces() or system.getNumConstraints():
        raise ValueError(
            f"found {system.getNumForces()} forces and {system.getNumConstraints()} "
            "constraints in the System, expected masses only; use create_system, and "
            "add forces to the System of the replicas"
        )
    if unit.is_quantity(positions):
        positions = positions.value_in_unit(unit.nanometer)
    coordinates = np.array(positions, np.float64)
    num_atoms = topology.getNumAtoms()
    if coordinates.shape != (num_atoms, 3) or system.getNumParticles() != num_atoms:
        raise ValueError(
            f"found {num_atoms} atoms in the topology, positions of shape "
            f"{coordinates.shape} and {system.getNumParticles()} particles in the "
            "System, expected the same number of each"
        )
    copies = app.Topology()
    copied_system = openmm.System()
    for _ in range(num_replicas):
        _append(copies, topology)
        for particle in range(num_atoms):
            copied_system.addParticle(system.getParticleMass(particle))
    return Replicas(
        copies,
        copied_system,
        unit.Quantity(np.tile(coordinates, (num_replicas, 1)), unit.nanometer),
        np.repeat(np.arange(num_replicas), num_atoms),
    )


def _append(copies: app.Topology, topology: app.Topology) -> None:
    chain = copies.addChain()
    atoms = {}
    for residue in topology.residues():
        copied = copies.addResidue(residue.name, chain)
        for atom in residue.atoms():
            atoms[atom] = copies.addAtom(atom.name, atom.element, copied)
    for bond in topology.bonds():
        copies.addBond(atoms[bond.atom1], atoms[bond.atom2], bond.type, bond.order)
