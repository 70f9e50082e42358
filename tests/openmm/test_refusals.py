"""What does not fit is refused, saying what was found, expected, and what to do."""

import openmm
import pytest
from openmm import app, unit

from openmm_diffmd.integrator import DiffusionIntegrator, create_system

REFERENCE = "Reference"


def make_context(model, system, topology=None):
    topology = model.example()[0] if topology is None else topology
    return openmm.Context(
        system,
        DiffusionIntegrator(model, topology),
        openmm.Platform.getPlatform(REFERENCE),
    )


@pytest.fixture
def system(flow):
    return create_system(flow.example()[0])


def test_other_number_of_particles_is_refused(flow, system):
    system.addParticle(1.0)
    with pytest.raises(
        openmm.OpenMMException, match=r"found 10 particles.*expected 9.*"
    ):
        make_context(flow, system)


def test_constraints_are_refused(flow, system):
    system.addConstraint(0, 3, 0.109)
    with pytest.raises(
        openmm.OpenMMException, match=r"1 constraints.*constraints=None"
    ):
        make_context(flow, system)


def test_virtual_sites_are_refused(flow, system):
    system.setParticleMass(8, 0)
    system.setVirtualSite(8, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
    with pytest.raises(openmm.OpenMMException, match=r"virtual site at particle 8"):
        make_context(flow, system)


def test_massless_particles_are_refused(flow, system):
    system.setParticleMass(4, 0)
    with pytest.raises(openmm.OpenMMException, match=r"massless particle 4, expected"):
        make_context(flow, system)


def test_repartitioned_masses_are_refused(flow, system):
    system.setParticleMass(4, 3.024)
    with pytest.raises(
        openmm.OpenMMException, match=r"mass 3\.024 Da of particle 4.*repartitioning"
    ):
        make_context(flow, system)


@pytest.mark.parametrize(
    "barostat",
    [
        openmm.MonteCarloBarostat(1, 300),
        openmm.MonteCarloAnisotropicBarostat(openmm.Vec3(1, 1, 1), 300),
        openmm.MonteCarloFlexibleBarostat(1, 300),
        openmm.MonteCarloMembraneBarostat(
            1,
            0,
            300,
            openmm.MonteCarloMembraneBarostat.XYIsotropic,
            openmm.MonteCarloMembraneBarostat.ZFree,
        ),
    ],
    ids=lambda barostat: barostat.getName(),
)
def test_barostats_are_refused(flow, system, barostat):
    periodic = openmm.CustomBondForce("0")
    periodic.setUsesPeriodicBoundaryConditions(True)
    for force in (periodic, barostat):
        force.setForceGroup(5)
        system.addForce(force)
    integrator = DiffusionIntegrator(flow, flow.example()[0])
    integrator.setIntegrationForceGroups(0)
    with pytest.raises(openmm.OpenMMException, match=r"found a barostat.*remove it"):
        openmm.Context(system, integrator, openmm.Platform.getPlatform(REFERENCE))


def test_a_second_heat_bath_is_refused(flow, system):
    system.addForce(openmm.AndersenThermostat(300, 1))
    with pytest.raises(openmm.OpenMMException, match=r"found a thermostat \(Andersen"):
        make_context(flow, system)


def test_other_step_sizes_are_refused(flow):
    integrator = DiffusionIntegrator(flow, flow.example()[0])
    integrator.setStepSize(10 * unit.femtosecond)
    integrator.setStepSize(0.01)
    with pytest.raises(
        openmm.OpenMMException,
        match=r"step size 0\.002 ps, expected 0\.01 ps.*lag time",
    ):
        integrator.setStepSize(2 * unit.femtosecond)


def test_unknown_elements_are_refused(flow):
    topology = app.Topology()
    residue = topology.addResidue("X", topology.addChain())
    topology.addAtom("N", app.element.nitrogen, residue)
    with pytest.raises(ValueError, match=r"found element N, expected one of H, C, O"):
        DiffusionIntegrator(flow, topology)


def test_unknown_bonds_are_refused(flow):
    topology = app.Topology()
    residue = topology.addResidue("X", topology.addChain())
    atoms = [topology.addAtom(f"O{i}", app.element.oxygen, residue) for i in (1, 2)]
    topology.addBond(*atoms)
    with pytest.raises(ValueError, match=r"found a O-O bond.*C-C, C-H, C-O, H-O"):
        DiffusionIntegrator(flow, topology)


def test_molecule_ids_that_do_not_fit_are_refused(flow):
    topology, _ = flow.example()
    with pytest.raises(ValueError, match=r"shape \(3,\), expected \(9,\)"):
        DiffusionIntegrator(flow, topology, molecules=[0, 0, 0])
    with pytest.raises(ValueError, match=r"found a bond between atoms .* same id"):
        DiffusionIntegrator(flow, topology, molecules=range(9))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"temperature": -1}, "found temperature -1"),
        ({"friction": -1}, "found friction -1"),
        ({"sampler": "magic"}, "found sampler 'magic', expected 'exponential'"),
        ({"num_sampling_steps": -1}, "found num_sampling_steps -1"),
        ({"max_resamples": -1}, "found max_resamples -1"),
        ({"molecules_per_batch": -1}, "found molecules_per_batch -1"),
    ],
)
def test_options_out_of_range_are_refused(flow, option, message):
    with pytest.raises(ValueError, match=message):
        DiffusionIntegrator(flow, flow.example()[0], **option)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("setTemperature", -1.0),
        ("setFriction", float("nan")),
        ("setSampler", "magic"),
        ("setNumSamplingSteps", -1),
        ("setMaxResamples", -1),
        ("setMoleculesPerBatch", -1),
    ],
)
def test_setters_refuse_the_same(flow, name, value):
    integrator = DiffusionIntegrator(flow, flow.example()[0])
    with pytest.raises(openmm.OpenMMException, match="DiffusionIntegrator: found"):
        getattr(integrator, name)(value)


def test_learned_bath_cannot_be_changed(thermostatted):
    topology, _ = thermostatted.example()
    for option, expected in (("temperature", "300.0 K"), ("friction", r"20.0 1/ps")):
        with pytest.raises(ValueError, match=f"expected {expected}"):
            DiffusionIntegrator(thermostatted, topology, **{option: 0})
    integrator = DiffusionIntegrator(thermostatted, topology)
    integrator.setTemperature(300 * unit.kelvin)
    integrator.setFriction(20.0)
    with pytest.raises(
        openmm.OpenMMException, match="temperature 310 K, expected 300 K"
    ):
        integrator.setTemperature(310.0)
    with pytest.raises(openmm.OpenMMException, match="friction 0 1/ps, expected 20"):
        integrator.setFriction(0)


def test_temperatures_beyond_the_training_data_are_warned_of(flow):
    topology, _ = flow.example()
    with pytest.warns(UserWarning, match="expected at most 300 K"):
        integrator = DiffusionIntegrator(flow, topology, temperature=400)
    with pytest.warns(UserWarning, match="expected at most 300 K"):
        integrator.setTemperature(350 * unit.kelvin)


def test_a_mass_that_is_no_number_is_refused(flow, system):
    system.setParticleMass(4, float("nan"))
    with pytest.raises(openmm.OpenMMException, match="found mass nan Da of particle 4"):
        make_context(flow, system)


def test_what_has_no_effect_on_a_context_is_refused(flow, system):
    context = make_context(flow, system)
    integrator = context.getIntegrator()
    for what, add in (
        ("a molecule is added", lambda: integrator.addMolecule(50.0)),
        ("a particle is added", lambda: integrator.addParticle(0, 1.0, 0)),
        ("a bond is added", lambda: integrator.addBond(0, 1, 0.1, 0.2)),
        ("a contact limit is added", lambda: integrator.addContactLimit(0, 1, 0.1)),
        ("the sampler is", lambda: integrator.setSampler("exponential")),
        ("the number of sampling", lambda: integrator.setNumSamplingSteps(0)),
        ("the noise levels are", lambda: integrator.setNoiseLevels(0.1, 2.0, 7.0)),
        ("the number of resamples", lambda: integrator.setMaxResamples(3)),
        ("the temperature of the h", lambda: integrator.setMaxTemperature(900.0)),
        ("the angular", lambda: integrator.setConserveAngularMomentum(True)),
        ("the number of molecules", lambda: integrator.setMoleculesPerBatch(2)),
    ):
        with pytest.raises(openmm.OpenMMException, match=f"expected none when {what}"):
            add()


@pytest.mark.parametrize("levels", [(0.02, 3.0, 1e-4), (0.02, 0.9, 1e-4)])
def test_noise_levels_that_no_number_holds_are_refused(flow, levels):
    integrator = DiffusionIntegrator(flow, flow.example()[0])
    with pytest.raises(openmm.OpenMMException, match=r"found noise levels of 0\.02 to"):
        integrator.setNoiseLevels(*levels)


def test_a_bond_shorter_at_most_than_at_least_is_refused(flow):
    integrator = DiffusionIntegrator(flow, flow.example()[0])
    with pytest.raises(openmm.OpenMMException, match=r"smallest bond length of 0\.2"):
        integrator.addBond(0, 1, 0.2, 0.1)


def test_contact_limits_without_an_element_or_below_nothing_are_refused(flow):
    integrator = DiffusionIntegrator(flow, flow.example()[0])
    with pytest.raises(
        openmm.OpenMMException, match=r"species -1 and 0, expected both"
    ):
        integrator.addContactLimit(-1, 0, 0.1)
    with pytest.raises(openmm.OpenMMException, match=r"contact limit -0\.1"):
        integrator.addContactLimit(0, 0, -0.1)
