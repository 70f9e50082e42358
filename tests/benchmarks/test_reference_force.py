import openmm
import pytest
from openmm import unit
from reference_force import recreate_reference_system

from openmm_diffmd.reference.molecules import load_molecule
from openmm_diffmd.reference.potentials import create_reference_system

WATER = load_molecule("water")


def energy_of(system):
    integrator = openmm.VerletIntegrator(0.001)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, integrator, platform)
    context.setPositions(WATER[1])
    energy = context.getState(energy=True).getPotentialEnergy()
    return energy.value_in_unit(unit.kilojoule_per_mole)


def test_force_of_a_reference_is_made_again_with_its_options():
    pytest.importorskip("tblite")
    said = {"potential": "GFN2-xTB", "potential_options": {"charge": 2}}
    ion = energy_of(create_reference_system(WATER[0], options={"charge": 2}))
    assert energy_of(recreate_reference_system(WATER[0], said)) == ion
    neutral = recreate_reference_system(WATER[0], {"potential": "GFN2-xTB"})
    assert abs(energy_of(neutral) - ion) > 1000.0


def test_force_of_a_file_is_made_again_where_the_file_lies(tmp_path):
    system = openmm.System()
    for atom in WATER[0].atoms():
        system.addParticle(atom.element.mass)
    bond = openmm.HarmonicBondForce()
    bond.addBond(0, 1, 0.1, 1000.0)
    system.addForce(bond)
    path = tmp_path / "mine.xml"
    path.write_text(openmm.XmlSerializer.serialize(system))
    again = recreate_reference_system(WATER[0], {"potential": str(path)})
    assert energy_of(again) == energy_of(system)


@pytest.mark.parametrize("name", ["mine.xml", "gone.pt"])
def test_force_whose_file_is_not_here_is_refused(name):
    with pytest.raises(FileNotFoundError, match=rf"no {name} in this folder"):
        recreate_reference_system(WATER[0], {"potential": name})


def test_force_that_is_not_named_is_refused():
    with pytest.raises(ValueError, match="does not name its force"):
        recreate_reference_system(WATER[0], {})
