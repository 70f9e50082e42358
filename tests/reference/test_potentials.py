import openmm
import pytest
from openmm import unit

from openmm_diffmd.reference.molecules import load_molecule
from openmm_diffmd.reference.potentials import create_reference_system

TOPOLOGY, POSITIONS = load_molecule("water")


def water(n_particles=3):
    system = openmm.System()
    for mass in (16.0, 1.008, 1.008)[:n_particles]:
        system.addParticle(mass)
    bond = openmm.HarmonicBondForce()
    bond.addBond(0, 1, 0.1, 1000.0)
    system.addForce(bond)
    return system


def save(folder, thing):
    path = folder / "system.xml"
    path.write_text(openmm.XmlSerializer.serialize(thing))
    return path


def energy_of(system):
    integrator = openmm.VerletIntegrator(0.001)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, integrator, platform)
    context.setPositions(POSITIONS)
    energy = context.getState(energy=True).getPotentialEnergy()
    return energy.value_in_unit(unit.kilojoule_per_mole)


def test_system_xml_keeps_its_masses_and_forces(tmp_path):
    system = create_reference_system(TOPOLOGY, save(tmp_path, water()))
    assert system.getParticleMass(0) == 16.0 * unit.dalton
    assert system.getNumForces() == 1


def test_repartitioned_masses_are_refused(tmp_path):
    heavy = water()
    for index, mass in enumerate((12.0, 3.0, 3.0)):
        heavy.setParticleMass(index, mass)
    with pytest.raises(
        ValueError, match=r"found mass 12 Da of atom 0 in .*system.xml, expected 15.99"
    ):
        create_reference_system(TOPOLOGY, save(tmp_path, heavy))


def test_centre_of_mass_motion_is_left_alone(tmp_path):
    system = water()
    system.addForce(openmm.CMMotionRemover())
    loaded = create_reference_system(TOPOLOGY, save(tmp_path, system))
    assert [force.getName() for force in loaded.getForces()] == ["HarmonicBondForce"]


def spoil_constraint(system):
    system.addConstraint(0, 1, 0.1)


def spoil_mass(system):
    system.setParticleMass(2, 0.0)


def spoil_barostat(system):
    system.addForce(openmm.MonteCarloBarostat(1.0, 300.0))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_constraint, "1 constraints, expected none: make the System with"),
        (spoil_mass, "particle 2 without a mass, expected atoms only"),
        (spoil_barostat, "a MonteCarloBarostat, expected forces that do not change"),
    ],
)
def test_system_that_would_spoil_the_dynamics_is_refused(tmp_path, spoil, message):
    system = water()
    spoil(system)
    with pytest.raises(ValueError, match=message):
        create_reference_system(TOPOLOGY, save(tmp_path, system))


def test_xml_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match="2 particles, expected 3 as in the molecule"):
        create_reference_system(TOPOLOGY, save(tmp_path, water(2)))
    integrator = save(tmp_path, openmm.VerletIntegrator(0.001))
    with pytest.raises(ValueError, match="a VerletIntegrator, expected a serialized S"):
        create_reference_system(TOPOLOGY, integrator)
    integrator.write_text("no XML")
    with pytest.raises(ValueError, match="is not a serialized OpenMM object"):
        create_reference_system(TOPOLOGY, integrator)
    with pytest.raises(FileNotFoundError, match=r"found no file .* serialized System"):
        create_reference_system(TOPOLOGY, tmp_path / "absent.xml")
    with pytest.raises(ValueError, match=r"options {'a': 1} .* expected none"):
        create_reference_system(TOPOLOGY, save(tmp_path, water()), {"a": 1})


def test_any_ase_calculator_is_taken_with_its_options():
    path = "ase.calculators.lj.LennardJones"
    options = {"sigma": 1.5, "rc": 20.0}
    once = energy_of(create_reference_system(TOPOLOGY, path, options))
    twice = energy_of(create_reference_system(TOPOLOGY, path, options | {"epsilon": 2}))
    assert once != 0.0
    assert twice == pytest.approx(2 * once)


@pytest.mark.parametrize(
    ("path", "options", "reason"),
    [
        ("GFN3-xTB", {}, "ImportError: no path of a module"),
        ("ase.calculators.lj.Nothing", {}, "AttributeError: .*Nothing"),
        ("no_such_package.Calculator", {}, "ModuleNotFoundError: .*no_such_package"),
        ("json.JSONEncoder", {"no_such_option": 1}, "TypeError: .*no_such_option"),
    ],
)
def test_what_is_no_calculator_is_refused(path, options, reason):
    with pytest.raises(ValueError, match=rf"(?s){path}.*{reason}.*expected one of"):
        create_reference_system(TOPOLOGY, path, options)


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        (
            "GFN2-xTB",
            {"maxiter": 5, "accuracy": 0.1},
            r"options \['maxiter'\] for TBLite, .*'max_iterations'",
        ),
        # It would contradict the name that the file keeps.
        ("GFN2-xTB", {"method": "GFN1-xTB"}, r"options \['method'\] for TBLite"),
        (
            "ase.calculators.lj.LennardJones",
            {"sigm": 1.5},
            r"options \['sigm'\] for LennardJones, expected some of .*'sigma'",
        ),
    ],
)
def test_options_that_a_calculator_would_ignore_are_refused(path, options, message):
    if path == "GFN2-xTB":
        pytest.importorskip("tblite")
    with pytest.raises(ValueError, match=message):
        create_reference_system(TOPOLOGY, path, options)


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("ase.calculators.morse.MorsePotential", {"epsilon": 2.0, "rho0": 3.0}),
        # Named in its __init__ and in no table.
        ("ase.calculators.emt.EMT", {"asap_cutoff": True}),
        # Whatever it is given goes into its program's input.
        ("ase.calculators.gaussian.Gaussian", {"anything": 1}),
    ],
)
def test_options_that_a_calculator_reads_are_taken(path, options):
    assert create_reference_system(TOPOLOGY, path, options).getNumForces() == 1


def test_odd_electrons_need_a_charge_or_a_multiplicity(tmp_path):
    path = tmp_path / "ammonium.xyz"
    hydrogens = "H .6 .6 .6\nH -.6 -.6 .6\nH .6 -.6 -.6\nH -.6 .6 -.6\n"
    path.write_text(f"5\n\nN 0 0 0\n{hydrogens}")
    ion, _ = load_molecule(path)
    with pytest.raises(
        ValueError, match=r"found 11 electrons for GFN2-xTB .*charge: 1"
    ):
        create_reference_system(ion)
    pytest.importorskip("tblite")
    for charge in (0.5, float("nan")):
        with pytest.raises(ValueError, match=rf"found charge {charge} .* a whole numb"):
            create_reference_system(TOPOLOGY, options={"charge": charge})
    for options in ({"charge": 1}, {"multiplicity": 2}):
        assert create_reference_system(ion, options=options).getNumForces() == 1
