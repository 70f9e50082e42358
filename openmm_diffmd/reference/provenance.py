"""What made a reference file, written into it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmm_diffmd.outputs import file_sha256
from openmm_diffmd.reference.molecules import molecule_names
from openmm_diffmd.reference.potentials import TBLITE_METHODS


def describe_run(
    molecule: str,
    potential: str,
    options: Mapping[str, Any] | None,
    masses: NDArray[np.floating],
) -> dict[str, Any]:
    """
    Collect the part of the provenance that does not depend on the dynamics.

    Parameters
    ----------
    molecule : str
        Name or file of the molecule.
    potential : str
        A tblite method, the import path of an ASE calculator, or the path of a trained
        force (``.pt``) or of a System XML.
    options : mapping, optional
        Keyword arguments of the calculator.
    masses : ndarray, shape (n_atoms,), Da
        Masses the dynamics used.

    Returns
    -------
    dict
        Serializes to JSON. Files are named without their folder, by SHA-256.
    """
    packages = ["openmm", "openmmml", "mdtraj", "numpy", "openmm_diffmd"]
    if potential in TBLITE_METHODS:
        packages += ["tblite", "ase"]
    elif potential.endswith(".pt"):
        packages += ["torch"]
    elif not potential.endswith(".xml"):
        packages += ["ase", potential.split(".")[0]]
    distributions = packages_distributions()
    return {
        "molecule": _name(molecule),
        "potential": _name(potential),
        "potential_options": _plain(options or {}),
        "sha256": {
            Path(name).name: file_sha256(name)
            for name in (molecule, potential)
            if Path(name).is_file()
        },
        "masses_Da": [float(mass) for mass in masses],
        "integrator": "BAOAB, full-step velocities",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            package: version(distributions[package][0])
            for package in dict.fromkeys(packages)
            if package in distributions
        },
    }


def _name(name: str) -> str:
    """Leave the folder out of a file, and the case out of a bundled molecule."""
    if Path(name).is_file():
        return Path(name).name
    return name.lower() if name.lower() in molecule_names() else name


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Make numbers and arrays of NumPy such as JSON holds."""
    return {
        name: value.tolist() if isinstance(value, np.generic | np.ndarray) else value
        for name, value in options.items()
    }
