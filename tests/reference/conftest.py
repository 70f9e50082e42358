from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import unit

SPRING = 2.0e4
"""Spring constant of each atom of the harmonic molecule, kJ/mol/nm^2."""
SITES = np.array([[0.0, 0.0, 0.0], [0.11, 0.0, 0.0]])
"""Where its springs hold a carbon and a hydrogen (they do not interact), nm."""
MASSES = np.array([12.01078, 1.007947])


def harmonic_system() -> openmm.System:
    system = openmm.System()
    spring = openmm.CustomExternalForce("0.5*k*((x-x0)^2 + (y-y0)^2 + (z-z0)^2)")
    spring.addGlobalParameter("k", SPRING)
    for name in ("x0", "y0", "z0"):
        spring.addPerParticleParameter(name)
    for index, (mass, site) in enumerate(zip(MASSES, SITES, strict=True)):
        system.addParticle(mass * unit.dalton)
        spring.addParticle(index, site)
    system.addForce(spring)
    return system


@pytest.fixture
def harmonic(tmp_path: Path) -> dict[str, str]:
    """Molecule and potential of `make_reference` whose averages are known."""
    (tmp_path / "ch.xyz").write_text("2\n\nC 0 0 0\nH 1.1 0 0\n")
    (tmp_path / "ch.xml").write_text(openmm.XmlSerializer.serialize(harmonic_system()))
    return {
        "molecule": str(tmp_path / "ch.xyz"),
        "potential": str(tmp_path / "ch.xml"),
    }
