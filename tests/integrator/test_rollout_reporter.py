import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_diffmd.analysis.loading import load_rollout
from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.integrator.diffusion_integrator import DiffusionIntegrator
from openmm_diffmd.integrator.rollout_reporter import record_rollout
from openmm_diffmd.integrator.run import run
from openmm_diffmd.integrator.systems import create_system, replicate
from openmm_diffmd.sidecar import RolloutSidecar
from openmm_diffmd.testing import FaultyModel, save_stub_model


def simulate(model: Path, replicas: int = 2, seed: int = 5) -> app.Simulation:
    loaded = load_model(model)
    topology, positions = loaded.example()
    r = replicate(topology, create_system(topology), positions, replicas)
    integrator = DiffusionIntegrator(loaded, r.topology, molecules=r.molecules)
    integrator.setRandomNumberSeed(seed)
    platform = openmm.Platform.getPlatform("Reference")
    simulation = app.Simulation(r.topology, r.system, integrator, platform)
    simulation.context.setPositions(r.positions)
    simulation.context.setVelocitiesToTemperature(300.0, seed)
    return simulation


@pytest.mark.parametrize("each", [False, True])
def test_a_script_writes_what_run_writes(stub: Path, tmp_path: Path, each: bool):
    expected = run(
        str(stub),
        tmp_path / "run",
        replicas=2,
        length_ps=0.6,
        frame_interval_fs=20.0,
        seed=5,
        velocities=True,
        dcd_per_replica=each,
        progress=False,
    )
    simulation = simulate(stub)
    with record_rollout(
        tmp_path / "new" / "script", 2, simulation, dcd_per_replica=each
    ):
        simulation.step(60)
    assert simulation.reporters == []
    path = tmp_path / "new" / "script.json"
    ours, theirs = (load_rollout(p)[0] for p in (path, expected))
    np.testing.assert_array_equal(ours.positions, theirs.positions)
    np.testing.assert_array_equal(ours.velocities, theirs.velocities)
    assert ours.topology == theirs.topology
    said, by_run = (json.loads(p.read_text()) for p in (path, expected))
    # Only `run` knows how its first velocities were made.
    assert by_run.pop("start_temperature_K") == 300.0
    assert said.pop("start_temperature_K") is None
    assert said == by_run


def test_frames_are_counted_from_where_the_block_begins(stub: Path, tmp_path: Path):
    simulation = simulate(stub)
    simulation.step(7)
    with record_rollout(tmp_path / "a", 5, simulation, start_temperature_K=300.0):
        simulation.step(12)
        expected = simulation.context.getState(positions=True)
    ensemble, sidecar = load_rollout(tmp_path / "a.json")
    assert (sidecar.num_frames, sidecar.frame_interval_fs) == (2, 50.0)
    assert sidecar.start_temperature_K == 300.0
    assert sidecar.error is None
    # The block ended two lags after the last frame.
    x = expected.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    last = np.concatenate([p[-1] for p in ensemble.positions])
    assert 1e-4 < np.abs(x - last).max() < 0.2
    # Another block, another rollout; without velocities where none are asked for.
    with record_rollout(tmp_path / "b", 1, simulation, velocities=False):
        simulation.step(3)
    ensemble, sidecar = load_rollout(tmp_path / "b.json")
    assert (sidecar.num_frames, ensemble.velocities) == (3, None)


def test_redraws_are_those_of_the_block(tmp_path: Path):
    # Hydrogen moves by 0.026 nm in each direction; one 0.11 nm away is drawn again.
    model = FaultyModel(
        fault="nan", below_level=2.0, min_displacement=0.11, angular_frequency=60.0
    )
    simulation = simulate(save_stub_model(tmp_path / "m.pt", model), seed=3)
    with (
        pytest.raises(openmm.OpenMMException, match="lag"),
        record_rollout(tmp_path / "a", 1, simulation),
    ):
        simulation.step(5000)
    _, first = load_rollout(tmp_path / "a.json")
    assert first.gave_up
    assert first.resamples >= 10
    with record_rollout(tmp_path / "b", 1, simulation):
        pass
    assert json.loads((tmp_path / "b.json").read_text())["resamples"] == 0


def test_a_run_that_gave_up_is_not_gone_on_with(tmp_path: Path):
    model = FaultyModel(
        fault="nan", below_level=2.0, min_displacement=0.11, angular_frequency=60.0
    )
    simulation = simulate(save_stub_model(tmp_path / "m.pt", model), seed=3)

    start = simulation.context.getState(positions=True).getPositions()

    def insist():
        with record_rollout(tmp_path / "a", 1, simulation):
            with suppress(openmm.OpenMMException):
                simulation.step(5000)
            simulation.context.setPositions(start)
            simulation.context.setVelocitiesToTemperature(1.0, 3)
            simulation.step(10)

    with pytest.raises(ValueError, match=r"or a lag that was given up, .* rollout a: "):
        insist()
    _, sidecar = load_rollout(tmp_path / "a.json")
    assert "a lag that was given up" in sidecar.error
    assert sidecar.num_frames == simulation.currentStep - 1


@pytest.mark.parametrize("error", [None, RuntimeError("mine")])
def test_files_are_whole_though_the_list_of_reporters_is_not(
    stub: Path, tmp_path: Path, error: Exception | None
):
    simulation = simulate(stub)

    def record():
        with record_rollout(tmp_path / "a", 1, simulation):
            simulation.step(5)
            simulation.reporters.clear()
            if error:
                raise error

    if error is None:
        record()
    else:
        with pytest.raises(RuntimeError, match="mine"):
            record()
    ensemble, sidecar = load_rollout(tmp_path / "a.json")
    assert (sidecar.num_frames, len(ensemble.velocities[0])) == (5, 5)
    assert sidecar.error == (None if error is None else "RuntimeError: mine")


def test_a_block_of_fewer_frames_than_were_asked_says_so(stub: Path, tmp_path: Path):
    simulation = simulate(stub)
    with record_rollout(tmp_path / "a", 1, simulation, num_frames=9):
        simulation.step(4)
    assert load_rollout(tmp_path / "a.json")[1].error == "ended after 4 of 9 frames"


def test_a_checkpoint_of_before_ends_the_block_and_counts_nothing_below_0(
    tmp_path: Path,
):
    model = FaultyModel(fault="nan", below_level=0.25)
    simulation = simulate(save_stub_model(tmp_path / "m.pt", model))
    before = simulation.context.createCheckpoint()
    simulation.step(20)

    def record():
        with record_rollout(tmp_path / "a", 1, simulation):
            simulation.context.loadCheckpoint(before)
            simulation.step(3)

    with pytest.raises(ValueError, match=r"found a frame at 0\.01 ps, expected 0\.21"):
        record()
    assert json.loads((tmp_path / "a.json").read_text())["resamples"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.integrator.setTemperature(290.0), "found a heat bath of 290 K an"),
        (lambda s: s.integrator.setFriction(3.0), r"and 3/ps, expected 300 K and 1/ps"),
        (
            lambda s: s.context.setTime(1.0),
            r"a frame at 1\.01 ps, expected 0\.04 ps",
        ),
        (lambda s: s.context.setVelocitiesToTemperature(300.0), "velocities that were"),
    ],
)
def test_what_a_sidecar_cannot_say_is_refused_and_frames_are_kept(
    stub: Path, tmp_path: Path, change: Callable, message: str
):
    simulation = simulate(stub)

    def record():
        with record_rollout(tmp_path / "a", 1, simulation):
            simulation.step(3)
            change(simulation)
            simulation.step(3)

    with pytest.raises(ValueError, match=message):
        record()
    ensemble, sidecar = load_rollout(tmp_path / "a.json")
    assert sidecar.num_frames == 3
    assert sidecar.error.startswith("ValueError")
    assert len(ensemble.velocities[0]) == 3


def test_forces_of_the_system_are_kept(stub: Path, tmp_path: Path):
    def forces_of(name: str, *forces: openmm.Force) -> list[str]:
        simulation = simulate(stub)
        for force in forces:
            simulation.system.addForce(force)
        simulation.context.reinitialize(preserveState=True)
        simulation.integrator.setIntegrationForceGroups({0, 1})
        with record_rollout(tmp_path / name, 1, simulation):
            simulation.step(2)
        return list(RolloutSidecar.read(tmp_path / f"{name}.json").forces)

    assert forces_of("none", openmm.CMMotionRemover()) == []
    bias, unused = openmm.CustomTorsionForce("0*theta"), openmm.CustomBondForce("r")
    unused.setForceGroup(2)
    assert forces_of("one", bias, unused) == ["CustomTorsionForce"]


def test_what_is_no_run_of_lags_alone_is_refused(stub: Path, tmp_path: Path):
    simulation = simulate(stub)
    compound = openmm.CompoundIntegrator()
    compound.addIntegrator(openmm.VerletIntegrator(0.001))
    simulation.integrator = compound
    with (
        pytest.raises(TypeError, match=r"found a CompoundIntegrator, .* ReplicaDCDRep"),
        record_rollout(tmp_path / "a", 1, simulation),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:found .* molecules without a bond")
@pytest.mark.filterwarnings("ignore:found C2H5O, H, bonded as no molecule")
def test_molecules_that_are_not_replicas_are_refused(stub: Path, tmp_path: Path):
    loaded = load_model(stub)
    topology, positions = loaded.example()
    r = replicate(topology, create_system(topology), positions, 2)
    for molecules in (np.tile([0, 1], 9), np.repeat([0, 1, 2], [9, 8, 1])):
        # Bonds would join molecules.
        bare = app.Topology()
        residue = bare.addResidue("MOL", bare.addChain())
        for atom in r.topology.atoms():
            bare.addAtom(atom.name, atom.element, residue)
        integrator = DiffusionIntegrator(loaded, bare, molecules=molecules)
        simulation = app.Simulation(bare, r.system, integrator)
        simulation.context.setPositions(r.positions)
        with (
            pytest.raises(ValueError, match="molecules that are not replicas of one"),
            record_rollout(tmp_path / "a", 1, simulation),
        ):
            pass
    simulation = app.Simulation(r.topology, r.system, openmm.VerletIntegrator(0.001))
    with (
        pytest.raises(TypeError, match="found a VerletIntegrator, expected a Diff"),
        record_rollout(tmp_path / "a", 1, simulation),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_an_earlier_run_is_left_alone(stub: Path, tmp_path: Path):
    simulation = simulate(stub)
    with record_rollout(tmp_path / "a", 1, simulation):
        simulation.step(3)
    for name, error, message in (
        ("a", FileExistsError, r"found a run in .*a\.json; choose"),
        ("a.dcd", ValueError, r"a\.dcd with a suffix"),
    ):
        with (
            pytest.raises(error, match=message),
            record_rollout(tmp_path / name, 1, simulation),
        ):
            pass
    assert load_rollout(tmp_path / "a.json")[1].num_frames == 3
    with record_rollout(tmp_path / "a", 1, simulation, overwrite=True):
        simulation.step(2)
    assert load_rollout(tmp_path / "a.json")[1].num_frames == 2
