"""Systems to run the integrator on: masses only, one molecule or many replicas."""

import copy
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

from openmm_diffmd.integrator.molecules import check_topology

# Forces whose terms name their atoms: the name of a term, and how many of its first
# parameters are atoms.
TERMS = {
    openmm.HarmonicBondForce: ("Bond", 2),
    openmm.HarmonicAngleForce: ("Angle", 3),
    openmm.PeriodicTorsionForce: ("Torsion", 4),
    openmm.RBTorsionForce: ("Torsion", 4),
    openmm.CustomBondForce: ("Bond", 2),
    openmm.CustomAngleForce: ("Angle", 3),
    openmm.CustomTorsionForce: ("Torsion", 4),
    openmm.CustomCompoundBondForce: ("Bond", 1),
    openmm.CustomExternalForce: ("Particle", 1),
}


@dataclass(frozen=True)
class Replicas:
    """
    Copies of a molecule that do not see each other.

    Attributes
    ----------
    topology : openmm.app.Topology
        All copies, one chain each.
    system : openmm.System
        Masses of all copies, and what acts on each.
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
        Its masses, as `create_system` makes them, and restraints or biases that are to
        act on each copy: forces of bonds, angles, torsions, compounds of atoms, and
        external ones.
    positions : Quantity or ndarray, shape (n_atoms, 3), nm
        Its positions, the same for each copy.
    num_replicas : int
        Number of copies.

    Returns
    -------
    Replicas
        What `Simulation` and `DiffusionIntegrator` need; set different velocities. What
        is to act on some copies only may be added to its System.

    Raises
    ------
    ValueError
        If there is no copy to make, the System holds constraints or a force that would
        act between copies, which lie on top of each other, or numbers of particles
        differ.
    TypeError
        If arguments are of other types.
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
    if system.getNumConstraints():
        raise ValueError(
            f"found {system.getNumConstraints()} constraints in the System, expected "
            "none; use create_system"
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
    for force in system.getForces():
        copied_system.addForce(_for_each_copy(force, num_atoms, num_replicas))
    copied_system.setDefaultPeriodicBoxVectors(*system.getDefaultPeriodicBoxVectors())
    return Replicas(
        copies,
        copied_system,
        unit.Quantity(np.tile(coordinates, (num_replicas, 1)), unit.nanometer),
        np.repeat(np.arange(num_replicas), num_atoms),
    )


def _for_each_copy(
    force: openmm.Force, num_atoms: int, num_replicas: int
) -> openmm.Force:
    if type(force) not in TERMS:
        raise ValueError(
            f"found a {type(force).__name__} in the System, expected one of "
            f"{', '.join(kind.__name__ for kind in TERMS)}, which act on the atoms "
            "that their terms name: any other may act between copies; leave it out, or "
            "add it to the System of the replicas"
        )
    name, num_named = TERMS[type(force)]
    terms = [
        getattr(force, f"get{name}Parameters")(index)
        for index in range(getattr(force, f"getNum{name}s")())
    ]
    copied = copy.deepcopy(force)
    add = getattr(copied, f"add{name}")
    for first in range(num_atoms, num_replicas * num_atoms, num_atoms):
        for term in terms:
            atoms = [
                first + named
                if isinstance(named, int)
                else [first + atom for atom in named]
                for named in term[:num_named]
            ]
            add(*atoms, *term[num_named:])
    return copied


def _append(copies: app.Topology, topology: app.Topology) -> None:
    chain = copies.addChain()
    atoms = {}
    for residue in topology.residues():
        copied = copies.addResidue(residue.name, chain)
        for atom in residue.atoms():
            atoms[atom] = copies.addAtom(atom.name, atom.element, copied)
    for bond in topology.bonds():
        copies.addBond(atoms[bond.atom1], atoms[bond.atom2], bond.type, bond.order)
