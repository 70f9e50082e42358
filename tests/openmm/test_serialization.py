"""XML holds everything but the weights; another model file is refused."""

import copy
import dataclasses
import gc
import pickle
import re
import weakref

import openmm
import pytest
from openmm import unit

from openmm_diffmd.export.torchscript import load_model, save_model
from openmm_diffmd.integrator import DiffusionIntegrator, create_system
from openmm_diffmd.testing import HarmonicModel, read_frame, save_stub_model

# Most are of one bond only, so that there is less to write.
pytestmark = [
    pytest.mark.filterwarnings("ignore:found .* bonded as no molecule"),
    pytest.mark.filterwarnings("ignore:found 1 of 2 molecules without a bond"),
    pytest.mark.filterwarnings("ignore:found sampler heun of 3 steps"),
]

GETTERS = [
    "getModelFile",
    "getModelHash",
    "getStepSize",
    "getThermostatted",
    "getTemperature",
    "getFriction",
    "getMaxTemperature",
    "getRandomNumberSeed",
    "getSampler",
    "getNumSamplingSteps",
    "getNoiseLevels",
    "getMaxResamples",
    "getConserveAngularMomentum",
    "getMoleculesPerBatch",
    "getConstraintTolerance",
    "getIntegrationForceGroups",
    "getNumMolecules",
    "getNumParticles",
    "getNumBonds",
]


def describe(integrator):
    return (
        [getattr(integrator, name)() for name in GETTERS],
        [integrator.getKineticEnergyQuantile(i) for i in (0, 1)],
        [integrator.getParticleParameters(i) for i in range(9)],
        [integrator.getBondParameters(i) for i in range(integrator.getNumBonds())],
    )


@pytest.fixture(scope="module")
def other_levels(flow, tmp_path_factory):
    """The flow with noise levels that are no integrator's default."""
    noise = {"sigma_min": 0.03, "sigma_max": 2.5, "rho": 5.0}
    metadata = dataclasses.replace(flow.metadata, noise=noise)
    path = tmp_path_factory.mktemp("models") / "other_levels.pt"
    return load_model(save_model(HarmonicModel(), metadata, path))


@pytest.fixture
def integrator(other_levels):
    topology, _ = other_levels.example()
    topology._bonds = topology._bonds[:1]
    made = DiffusionIntegrator(
        other_levels,
        topology,
        temperature=273.5,
        friction=0.75,
        molecules=[5, 5, 5, 2, 2, 2, 2, 2, 2],
        sampler="heun",
        num_sampling_steps=3,
        max_resamples=4,
        conserve_angular_momentum=True,
        molecules_per_batch=6,
    )
    made.setRandomNumberSeed(77)
    made.setIntegrationForceGroups({1, 31})
    made.setConstraintTolerance(1e-4)
    return made


def test_xml_round_trip(integrator):
    assert integrator.getNoiseLevels() == [0.03, 2.5, 5.0]
    xml = openmm.XmlSerializer.serialize(integrator)
    read = DiffusionIntegrator.from_xml(xml)
    assert isinstance(read, DiffusionIntegrator)
    assert describe(read) == describe(integrator)
    assert openmm.XmlSerializer.serialize(read) == xml
    assert openmm.XmlSerializer.serialize(openmm.XmlSerializer.deserialize(xml)) == xml


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda i: pickle.loads(pickle.dumps(i))]
)
def test_copies_are_complete(integrator, duplicate):
    copied = duplicate(integrator)
    assert type(copied) is DiffusionIntegrator
    assert describe(copied) == describe(integrator)


@pytest.mark.parametrize(
    "change",
    [
        lambda i: i.setMaxTemperature(2000),
        lambda i: i.setNoiseLevels(0.02, 3.0, 7.0),
        lambda i: i.addBond(0, 2, 0.05, 0.2 * unit.nanometer),
        lambda i: i.addContactLimit(0, 0, 0.12),
    ],
    ids=["hottest data", "noise levels", "bond", "contact limit"],
)
def test_what_a_user_sets_is_read_back(integrator, change):
    change(integrator)
    xml = openmm.XmlSerializer.serialize(integrator)
    for read in (
        DiffusionIntegrator.from_xml(xml),
        copy.copy(integrator),
        openmm.XmlSerializer.deserialize(xml),
    ):
        assert openmm.XmlSerializer.serialize(read) == xml


def test_what_openmm_deserializes_runs_the_same(simulate, thermostatted):
    simulation = simulate(thermostatted)
    xml = openmm.XmlSerializer.serialize(simulation.integrator)
    topology, positions = thermostatted.example()
    integrator = openmm.XmlSerializer.deserialize(xml)
    context = openmm.Context(
        create_system(topology), integrator, openmm.Platform.getPlatform("Reference")
    )
    context.setPositions(positions)
    context.setVelocitiesToTemperature(thermostatted.temperature, 1)
    integrator.step(5)
    simulation.step(5)
    assert (read_frame(context)[0] == read_frame(simulation.context)[0]).all()


def test_what_openmm_returns_can_be_taken_for_what_it_is(thermostatted):
    topology, positions = thermostatted.example()
    compound = openmm.CompoundIntegrator()
    compound.addIntegrator(DiffusionIntegrator(thermostatted, topology))
    compound.addIntegrator(openmm.VerletIntegrator(0.001))
    xml = openmm.XmlSerializer.serialize(compound)
    compound = openmm.XmlSerializer.deserialize(xml)
    context = openmm.Context(
        create_system(topology), compound, openmm.Platform.getPlatform("Reference")
    )
    context.setPositions(positions)
    context.setVelocitiesToTemperature(thermostatted.temperature, 1)
    compound.step(3)
    found = DiffusionIntegrator.cast(compound.getIntegrator(0))
    assert type(found) is DiffusionIntegrator
    assert DiffusionIntegrator.cast(found) is found
    # Of the running one: a copy would have no Context.
    assert found.getNumEvaluations() > 0
    for other in (compound.getIntegrator(1), compound, None):
        with pytest.raises(TypeError, match="expected a DiffusionIntegrator"):
            DiffusionIntegrator.cast(other)


def test_a_part_keeps_its_compound_alive(thermostatted):
    topology, _ = thermostatted.example()
    compound = openmm.CompoundIntegrator()
    compound.addIntegrator(DiffusionIntegrator(thermostatted, topology))
    owner = weakref.ref(compound)
    found = DiffusionIntegrator.cast(compound.getIntegrator(0), owner=compound)
    del compound
    gc.collect()
    assert owner() is not None
    assert found.getModelFile() == str(thermostatted.path)
    del found
    gc.collect()
    assert owner() is None


def test_another_model_file_is_refused_saying_both_hashes(tmp_path):
    path = tmp_path / "model.pt"
    model = load_model(save_stub_model(path))
    integrator = DiffusionIntegrator(model, model.example()[0])
    xml = openmm.XmlSerializer.serialize(integrator)
    save_stub_model(path, HarmonicModel(angular_frequency=21.0))
    other = load_model(path).sha256
    match = f"found SHA-256 {other} of .*model.pt, expected {model.sha256}"
    with pytest.raises(openmm.OpenMMException, match=match):
        DiffusionIntegrator.from_xml(xml)
    with pytest.raises(openmm.OpenMMException, match=match):
        openmm.Context(create_system(model.example()[0]), integrator)


def test_missing_model_file_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    model = load_model(save_stub_model(path))
    xml = openmm.XmlSerializer.serialize(DiffusionIntegrator(model, model.example()[0]))
    path.unlink()
    with pytest.raises(openmm.OpenMMException, match=r"no readable file .*model.pt"):
        DiffusionIntegrator.from_xml(xml)


def test_what_cannot_be_judged_is_not_set(tmp_path):
    path = save_stub_model(tmp_path / "model.pt")
    model = load_model(path)
    compound = openmm.CompoundIntegrator()
    compound.addIntegrator(DiffusionIntegrator(model, model.example()[0]))
    integrator = DiffusionIntegrator.cast(compound.getIntegrator(0))
    before = integrator.getFriction()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.pt"):
        integrator.setFriction(0.5 * before)
    assert integrator.getFriction() == before


def test_a_bundled_model_is_found_on_another_machine():
    model = load_model("ethanol")
    integrator = DiffusionIntegrator(model, model.example()[0])
    xml = openmm.XmlSerializer.serialize(integrator)
    there = xml.replace(str(model.path.parent), "/nowhere")
    assert there != xml
    assert DiffusionIntegrator.from_xml(there).getModelFile() == str(model.path)


def test_xml_of_another_integrator_is_refused():
    xml = openmm.XmlSerializer.serialize(openmm.VerletIntegrator(0.001))
    with pytest.raises(openmm.OpenMMException, match="XML of another integrator"):
        DiffusionIntegrator.from_xml(xml)


def test_xml_of_another_version_is_refused(integrator):
    xml = openmm.XmlSerializer.serialize(integrator)
    changed = xml.replace(
        'type="DiffusionIntegrator" version="2"',
        'type="DiffusionIntegrator" version="9"',
    )
    assert changed != xml
    with pytest.raises(openmm.OpenMMException, match="version 9, expected 2"):
        DiffusionIntegrator.from_xml(changed)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("stepSize", "0.02", r"lag time 0\.02 in the XML, expected 0\.01 as model"),
        ("thermostatted", "1", r"learned heat bath: True in the XML, expected False"),
        ("species", "3", r"species 3 of particle 0 .* one below 3"),
        ("mass", "14", r"mass of particle 0 14\.0 in the XML, expected 12\.0"),
    ],
)
def test_xml_that_contradicts_the_model_is_refused(integrator, name, value, message):
    xml = openmm.XmlSerializer.serialize(integrator)
    changed = re.sub(rf'\b{name}="[^"]*"', f'{name}="{value}"', xml, count=1)
    assert changed != xml
    for read in (DiffusionIntegrator.from_xml, openmm.XmlSerializer.deserialize):
        with pytest.raises(openmm.OpenMMException, match=message):
            read(changed)


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        (r'temperature="[^"]*"', 'temperature="-5"', "found temperature -5"),
        (r'friction="[^"]*"', 'friction="x"', "friction 'x' in the XML, expected a n"),
        (r'p1="0"', 'p1="0z"', "p1 '0z' in the XML, expected a number"),
        (r'numSamplingSteps="3"', 'numSamplingSteps="20000"', "expected at most 10000"),
        (r'sampler="heun"', 'sampler="magic"', "found sampler 'magic', expected"),
        (r'molecule="1"', 'molecule="7"', "in molecule 7, expected"),
        (r'p2="1"', 'p2="99"', "between particles 0 and 99"),
        (r'numSamplingSteps="3"', 'numSamplingSteps="-1"', "sampling steps -1"),
        (r'modelHash="', 'modelHash="0', "found SHA-256"),
        (r'randomSeed="77"', "", "randomSeed"),
        (r"(?s)<Particles>.*", "", "Particles"),
    ],
)
def test_xml_that_is_nonsense_is_refused(integrator, pattern, replacement, message):
    xml = openmm.XmlSerializer.serialize(integrator)
    changed = re.sub(pattern, replacement, xml, count=1)
    assert changed != xml
    with pytest.raises(openmm.OpenMMException, match=message):
        DiffusionIntegrator.from_xml(changed)
