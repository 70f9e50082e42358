"""Force providers for reference dynamics: an OpenMM System with one potential."""

from pathlib import Path

import openmm
from openmm import app
from openmmml import MLPotential

ASE_METHODS = ("GFN2-xTB", "GFN1-xTB")
"""Methods of tblite's ASE calculator that are known by name."""


def create_reference_system(
    topology: app.Topology,
    potential: str | Path = "GFN2-xTB",
    max_iterations: int = 250,
) -> openmm.System:
    """
    Make the System whose forces the reference is made with.

    Parameters
    ----------
    topology : openmm.app.Topology
        The molecule.
    potential : str or path-like
        A tblite method of `ASE_METHODS`, run through openmmml's ``ase`` potential,
        or the path of a serialized OpenMM System (``.xml``).
    max_iterations : int
        Self-consistent-field iterations allowed to tblite.

    Returns
    -------
    openmm.System
        Masses and forces; centre-of-mass motion is not removed.

    Raises
    ------
    ValueError
        If `potential` is neither, or the System does not fit the topology.
    """
    if str(potential) in ASE_METHODS:
        from tblite.ase import TBLite

        calculator = TBLite(
            method=str(potential), verbosity=0, max_iterations=max_iterations
        )
        return MLPotential("ase").createSystem(
            topology, removeCMMotion=False, calculator=calculator
        )
    if Path(potential).is_file():
        system = openmm.XmlSerializer.deserialize(Path(potential).read_text())
        if system.getNumParticles() != topology.getNumAtoms():
            raise ValueError(
                f"{potential} has {system.getNumParticles()} particles, expected "
                f"{topology.getNumAtoms()} as in the molecule"
            )
        return system
    raise ValueError(
        f"found potential {str(potential)!r}, expected one of {ASE_METHODS} or the "
        "path of a System XML"
    )
