import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_diffmd.analysis.loading import load_rollout
from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.integrator.diffusion_integrator import DiffusionIntegrator
from openmm_diffmd.integrator.rollout_reporter import RolloutReporter
from openmm_diffmd.integrator.run import run
from openmm_diffmd.integrator.systems import create_system, replicate
from openmm_diffmd.testing import FaultyModel, save_stub_model


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_stub_model(tmp_path_factory.mktemp("stub") / "harmonic.pt")


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
    with RolloutReporter(
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
    with RolloutReporter(tmp_path / "a", 5, simulation, start_temperature_K=300.0):
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
    with RolloutReporter(tmp_path / "b", 1, simulation, velocities=False):
        simulation.step(3)
    ensemble, sidecar = load_rollout(tmp_path / "b.json")
    assert (sidecar.num_frames, ensemble.velocities) == (3, None)


def test_redraws_are_those_of_the_block(tmp_path: Path):
    # Hydrogen moves by 0.026 nm in each direction; one 0.11 nm away is drawn again.
    model = FaultyModel(
        fault="nan", below_level=2.0, min_displacement=0.11, angular_frequency=60.0
    )
    simulation = simulate(save_stub_model(tmp_path / "m.pt", model), seed=3)
    reporter = RolloutReporter(tmp_path / "a", 1, simulation)
    simulation.reporters = [reporter]
    with pytest.raises(ValueError, match=r"RolloutReporter of a outside of its block"):
        simulation.step(1)
    simulation.reporters = []
    with pytest.raises(openmm.OpenMMException, match="lag"), reporter:
        simulation.step(5000)
    _, first = load_rollout(tmp_path / "a.json")
    assert first.gave_up
    assert first.resamples >= 10
    # A new Context's counts begin at 0, and the next block's where this one's ended.
    with RolloutReporter(tmp_path / "b", 1, simulation):
        pass
    assert json.loads((tmp_path / "b.json").read_text())["resamples"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.integrator.setTemperature(290.0), "found a heat bath of 290 K an"),
        (lambda s: s.integrator.setFriction(3.0), r"and 3/ps, expected 300 K and 1/ps"),
        (lambda s: s.context.setTime(1.0), r"of a at 1\.01 ps, expected 0\.04 ps"),
    ],
)
def test_what_a_sidecar_cannot_say_is_refused_and_frames_are_kept(
    stub: Path, tmp_path: Path, change: Callable, message: str
):
    simulation = simulate(stub)

    def record():
        with RolloutReporter(tmp_path / "a", 1, simulation):
            simulation.step(3)
            change(simulation)
            simulation.step(3)

    with pytest.raises(ValueError, match=message):
        record()
    ensemble, sidecar = load_rollout(tmp_path / "a.json")
    assert sidecar.num_frames == 3
    assert sidecar.error.startswith("ValueError")
    assert len(ensemble.velocities[0]) == 3


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
        with pytest.raises(ValueError, match=r"molecules that are not replicas of one"):
            RolloutReporter(tmp_path / "a", 1, simulation)
    with pytest.raises(TypeError, match="found a VerletIntegrator, expected a Diff"):
        RolloutReporter(
            tmp_path / "a",
            1,
            app.Simulation(r.topology, r.system, openmm.VerletIntegrator(0.001)),
        )
    assert not list(tmp_path.iterdir())


def test_an_earlier_run_is_left_alone(stub: Path, tmp_path: Path):
    simulation = simulate(stub)
    with RolloutReporter(tmp_path / "a", 1, simulation):
        simulation.step(3)
    with pytest.raises(FileExistsError, match=r"found a run in .*a\.json; choose"):
        RolloutReporter(tmp_path / "a", 1, simulation)
    with pytest.raises(ValueError, match=r"a\.dcd with a suffix"):
        RolloutReporter(tmp_path / "a.dcd", 1, simulation)
    assert load_rollout(tmp_path / "a.json")[1].num_frames == 3
    with RolloutReporter(tmp_path / "a", 1, simulation, overwrite=True):
        simulation.step(2)
    assert load_rollout(tmp_path / "a.json")[1].num_frames == 2
