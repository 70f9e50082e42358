"""What a user may get wrong: each says what was found and what to do."""

from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
from openmm import app, unit

import openmm_diffmd as diffmd
from openmm_diffmd.testing import HarmonicModel, save_stub_model

NM, PS = unit.nanometer, unit.picosecond


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> diffmd.DiffusionModel:
    path = tmp_path_factory.mktemp("stub") / "harmonic.pt"
    return diffmd.load_model(save_stub_model(path, HarmonicModel()))


def integrator(model, *arguments, **options):
    topology, _ = model.example()
    return diffmd.DiffusionIntegrator(model, *(arguments or (topology,)), **options)


def replicas(model, num_replicas=2):
    topology, positions = model.example()
    return diffmd.replicate(
        topology, diffmd.create_system(topology), positions, num_replicas
    )


def simulation(model):
    topology, _ = model.example()
    return app.Simulation(
        topology,
        diffmd.create_system(topology),
        integrator(model),
        openmm.Platform.getPlatformByName("Reference"),
    )


USAGES = {
    "text for a temperature": (
        lambda model: integrator(model, temperature="500 K"),
        "found the text '500 K', expected a number in kelvin",
    ),
    "text for a new temperature": (
        lambda model: integrator(model).setTemperature("300"),
        "found the text '300', expected a number in kelvin",
    ),
    "half a step of sampling": (
        lambda model: integrator(model, num_sampling_steps=2.5),
        r"found num_sampling_steps 2\.5, expected a whole number",
    ),
    "half a redraw": (
        lambda model: integrator(model, max_resamples=0.5),
        r"found max_resamples 0\.5, expected a whole number",
    ),
    "half a molecule": (
        lambda model: integrator(model, molecules_per_batch=0.5),
        r"found molecules_per_batch 0\.5, expected a whole number",
    ),
    "text for a choice": (
        lambda model: integrator(model, conserve_angular_momentum="false"),
        "found conserve_angular_momentum 'false', expected True or False",
    ),
    "half a seed": (
        lambda model: diffmd.run(str(model.path), "none", seed=1.5),
        r"found seed 1\.5, expected a whole number",
    ),
    "run of half a replica": (
        lambda model: diffmd.run(str(model.path), "none", replicas=1.5),
        r"found replicas 1\.5, expected a whole number",
    ),
    "half a seed of a reference": (
        lambda model: diffmd.make_reference("water", "none", seed=1.5),
        r"found seed 1\.5, expected a whole number",
    ),
    "positions for a topology": (
        lambda model: integrator(model, model.example()[1]),
        r"as the topology, expected an openmm.app.Topology: .* give its .topology",
    ),
    "Modeller for a topology": (
        lambda model: diffmd.create_system(app.Modeller(*model.example())),
        "found a Modeller as the topology",
    ),
    "replicas without ids": (
        lambda model: integrator(model, replicas(model).topology),
        r"found 2 pieces without bonds between .* give molecules=replicas.molecules",
    ),
    "topology for a model": (
        lambda model: diffmd.DiffusionIntegrator(*model.example()),
        "found a Topology as the model, expected a bundled name or the path of a model",
    ),
    "friction in nm": (
        lambda model: integrator(model).setFriction(5 * NM),
        r"found 5 nm, expected a quantity in /picosecond",
    ),
    "rescue by a Simulation": (
        lambda model: integrator(model).setRescueContext(simulation(model)),
        "found a Simulation for the rescue, expected a Context: .* simulation.context",
    ),
    "checkpoint for a Simulation": (
        lambda model: diffmd.load_checkpoint(simulation(model), b""),
        "found a Simulation, expected a Context: .* simulation.context",
    ),
    "System in the last place": (
        lambda model: diffmd.replicate(
            model.example()[0], model.example()[1], 4, openmm.System()
        ),
        r"found a Quantity as the System and a System as the number .* replicate\(top",
    ),
    "half a replica": (
        lambda model: replicas(model, 2.5),
        "a float as the number of replicas, expected",
    ),
    "half an interval": (
        lambda model: diffmd.DiffusionReporter("none.csv", 2.5),
        "found a report interval of 2.5, expected a whole number",
    ),
    "Replicas for their ids": (
        lambda model: diffmd.ReplicaDCDReporter("{replica}.dcd", 1, replicas(model)),
        r"found a Replicas as the molecules, .*Replicas.molecules",
    ),
    "another name in braces": (
        lambda model: diffmd.ReplicaDCDReporter("{i}.dcd", 1, [0, 0]),
        r"found '\{i\}.dcd', expected \{replica\} where",
    ),
    "score below 0 K": (
        lambda model: diffmd.score_force(model, *model.example(), temperature=-300),
        "found temperature -300 K, expected more than 0",
    ),
    "score of no numbers": (
        lambda model: diffmd.score_force(
            model, model.example()[0], np.full((9, 3), np.nan)
        ),
        "found positions that are not finite",
    ),
    "velocities in nm": (
        lambda model: diffmd.score_force(
            model, *model.example(), velocities=model.example()[1]
        ),
        r"found velocities in nanometer, expected nanometer/picosecond",
    ),
    "folder for a model": (
        lambda model: diffmd.load_model(Path(model.path).parent),
        "found the folder .* as the model, .* openmm-diffmd export makes one",
    ),
    "endless run": (
        lambda model: diffmd.run(str(model.path), "none", length_ps=float("inf")),
        "found length_ps of inf fs .* expected finite numbers",
    ),
    "run of no number": (
        lambda model: diffmd.run(str(model.path), "none", length_ps=float("nan")),
        "found length_ps of nan fs .* expected finite numbers",
    ),
    "reference without an end": (
        lambda model: diffmd.make_reference("water", "none", length_ps=float("inf")),
        "found length_ps of inf fs .* expected finite numbers",
    ),
}


@pytest.mark.parametrize("name", USAGES)
def test_wrong_usage_is_told_clearly(name, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    use, message = USAGES[name]
    with pytest.raises((TypeError, ValueError, OSError), match=message):
        use(model)
    assert not list(tmp_path.iterdir())


def test_right_usage_near_the_wrong_ones_works(model, tmp_path):
    made = integrator(model)
    made.setFriction(0.002 / unit.femtosecond)
    assert made.getFriction().value_in_unit(PS**-1) == pytest.approx(2.0)
    made.setFriction(3)
    assert made.getFriction().value_in_unit(PS**-1) == pytest.approx(3.0)
    made.setRescueContext(None)
    topology = replicas(model, np.int64(2)).topology
    with pytest.warns(UserWarning, match="found C4H12O2, bonded as no molecule"):
        made = integrator(model, topology, molecules=[0] * 18)
    assert made.getNumMolecules() == 1
    diffmd.DiffusionReporter(str(tmp_path / "a.csv"), np.int64(2))


def test_deserialized_integrator_runs_and_from_xml_has_its_methods(model):
    topology, positions = model.example()
    xml = openmm.XmlSerializer.serialize(integrator(model, friction=0))
    plain = openmm.XmlSerializer.deserialize(xml)
    assert not hasattr(plain, "setFriction")
    whole = diffmd.DiffusionIntegrator.from_xml(xml)
    frames = []
    for one in (plain, whole):
        platform = openmm.Platform.getPlatformByName("Reference")
        context = openmm.Context(diffmd.create_system(topology), one, platform)
        context.setPositions(positions)
        context.setVelocitiesToTemperature(300, 1)
        one.step(2)
        frames.append(context.getState(positions=True).getPositions(asNumpy=True))
    np.testing.assert_array_equal(frames[0] / NM, frames[1] / NM)
    whole.setFriction(2)


@pytest.mark.parametrize(("wrapped", "option"), [(True, None), (False, False)])
def test_stock_reporter_wraps_only_with_a_periodic_force(
    model, tmp_path, wrapped, option
):
    topology, positions = model.example()
    system = diffmd.create_system(topology)
    system.setDefaultPeriodicBoxVectors(*(0.5 * np.eye(3)))
    force = openmm.CustomBondForce("0")
    force.addBond(0, 1)
    force.setUsesPeriodicBoundaryConditions(True)
    for is_periodic in (False, True):
        if is_periodic:
            system.addForce(force)
        platform = openmm.Platform.getPlatformByName("Reference")
        made = app.Simulation(topology, system, integrator(model), platform)
        made.context.setPositions(positions + np.array([0.6, 0.0, 0.0]) * NM)
        path = tmp_path / f"{is_periodic}.dcd"
        made.reporters.append(app.DCDReporter(str(path), 1, enforcePeriodicBox=option))
        made.step(1)
        made.reporters.clear()
        (x,) = mdtraj.load_dcd(str(path), mdtraj.Topology.from_openmm(topology)).xyz
        middle = x[:, 0].mean()
        assert middle == pytest.approx(0.1 if wrapped and is_periodic else 0.6, abs=0.1)


def test_whole_numbers_of_numpy_are_taken(model):
    made = integrator(
        model,
        num_sampling_steps=np.int64(2),
        max_resamples=np.int64(3),
        conserve_angular_momentum=np.bool_(True),
        molecules_per_batch=np.int64(4),
    )
    assert made.getNumSamplingSteps() == 2
    assert made.getMaxResamples() == 3
    assert made.getConserveAngularMomentum() is True
    assert made.getMoleculesPerBatch() == 4
