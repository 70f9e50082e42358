"""The force that a reference was made with, made again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openmm
from openmm import app

from openmm_diffmd.reference.potentials import FILES, create_reference_system


def recreate_reference_system(
    topology: app.Topology, provenance: Mapping[str, Any]
) -> openmm.System:
    """
    Make the System that a reference was made with, from what its file says.

    Parameters
    ----------
    topology : openmm.app.Topology
        The molecule.
    provenance : mapping
        Of the reference: `potential` and `potential_options` are read.

    Returns
    -------
    openmm.System
        As of `create_reference_system`.

    Raises
    ------
    FileNotFoundError
        If the force is a file that does not lie in this folder.
    ValueError
        If the reference does not name its force, or it cannot be made here.
    """
    potential = provenance.get("potential")
    if potential is None:
        raise ValueError(
            "found a reference that does not name its force, expected a file of "
            "openmm-diffmd reference"
        )
    if str(potential).endswith(FILES) and not Path(potential).is_file():
        raise FileNotFoundError(
            f"found no {potential} in this folder, whose force made the reference: "
            "copy it here"
        )
    return create_reference_system(
        topology, potential, provenance.get("potential_options")
    )
