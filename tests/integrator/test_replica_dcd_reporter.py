import struct
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
from openmm import app

from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.integrator import (
    DiffusionIntegrator,
    ReplicaDCDReporter,
    create_system,
    replicate,
)
from openmm_diffmd.testing import HarmonicModel, save_stub_model

HEADER, FRAME = 276, 3 * (9 * 4 + 8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    path = tmp_path_factory.mktemp("stub") / "harmonic.pt"
    return load_model(save_stub_model(path, HarmonicModel(friction=20.0)))


def make_simulation(model: DiffusionModel, num_replicas: int = 3):
    topology, positions = model.example()
    replicas = replicate(topology, create_system(topology), positions, num_replicas)
    integrator = DiffusionIntegrator(
        model, replicas.topology, molecules=replicas.molecules
    )
    integrator.setRandomNumberSeed(3)
    simulation = app.Simulation(
        replicas.topology,
        replicas.system,
        integrator,
        openmm.Platform.getPlatform("Reference"),
    )
    simulation.context.setPositions(replicas.positions)
    simulation.context.setVelocitiesToTemperature(model.temperature, 3)
    return simulation, replicas.molecules


def load(path: Path, model: DiffusionModel) -> mdtraj.Trajectory:
    topology, _ = model.example()
    return mdtraj.load_dcd(str(path), top=mdtraj.Topology.from_openmm(topology))


def test_each_file_is_what_openmm_writes_of_all(model, tmp_path: Path):
    simulation, molecules = make_simulation(model)
    reporter = ReplicaDCDReporter(tmp_path / "r{replica:02d}.dcd", 2, molecules)
    simulation.reporters.append(reporter)
    simulation.reporters.append(app.DCDReporter(str(tmp_path / "all.dcd"), 2))
    simulation.step(10)
    whole = mdtraj.load_dcd(
        str(tmp_path / "all.dcd"), top=mdtraj.Topology.from_openmm(simulation.topology)
    )
    assert [path.name for path in reporter.paths] == ["r00.dcd", "r01.dcd", "r02.dcd"]
    for replica, path in enumerate(reporter.paths):
        frames = load(path, model)
        np.testing.assert_array_equal(
            frames.xyz, whole.xyz[:, 9 * replica : 9 * replica + 9]
        )
        # The same header but for the number of atoms and the text.
        ours, theirs = path.read_bytes(), (tmp_path / "all.dcd").read_bytes()
        assert ours[:100] == theirs[:100]
        assert (ours[260:268], ours[272:276]) == (theirs[260:268], theirs[272:276])


def test_atoms_of_a_molecule_may_lie_anywhere(model, tmp_path: Path):
    simulation, _ = make_simulation(model)
    ids = np.tile([7, 2, 2], 9)
    reporter = ReplicaDCDReporter(tmp_path / "{replica}.dcd", 1, ids)
    simulation.reporters.append(reporter)
    simulation.step(1)
    x = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value
    with mdtraj.formats.DCDTrajectoryFile(str(reporter.paths[1])) as file:
        np.testing.assert_allclose(file.read()[0][0], 10 * x[ids == 2], rtol=1e-6)


def test_frames_are_on_disk_at_each_report(model, tmp_path: Path):
    simulation, molecules = make_simulation(model)
    reporter = ReplicaDCDReporter(tmp_path / "{replica}.dcd", 1, molecules)
    simulation.reporters.append(reporter)
    for steps in (1, 2, 3):
        simulation.step(1)
        for path in reporter.paths:
            assert path.stat().st_size == HEADER + steps * FRAME
            assert len(load(path, model)) == steps


@pytest.mark.parametrize("damage", [0, 1, FRAME - 1])
def test_append_equals_a_run_that_was_never_cut(model, tmp_path: Path, damage: int):
    whole, parts = tmp_path / "whole_{replica}.dcd", tmp_path / "parts_{replica}.dcd"
    simulation, molecules = make_simulation(model)
    simulation.reporters.append(ReplicaDCDReporter(whole, 2, molecules))
    simulation.step(12)

    simulation, molecules = make_simulation(model)
    reporter = ReplicaDCDReporter(parts, 2, molecules)
    simulation.reporters.append(reporter)
    simulation.step(6)
    simulation.saveCheckpoint(str(tmp_path / "state.chk"))
    simulation.step(4)
    for path in reporter.paths:
        with path.open("ab") as file:
            file.write(bytes(damage))  # a frame that a kill cut
        assert len(load(path, model)) == 5

    simulation, molecules = make_simulation(model)
    simulation.loadCheckpoint(str(tmp_path / "state.chk"))
    reporter = ReplicaDCDReporter(parts, 2, molecules, append=True)
    simulation.reporters.append(reporter)
    simulation.step(6)
    for replica, path in enumerate(reporter.paths):
        expected = Path(str(whole).format(replica=replica)).read_bytes()
        found = path.read_bytes()
        # All but the line of the header that holds the date.
        assert (found[:180], found[260:]) == (expected[:180], expected[260:])


def test_append_begins_what_ended_before_its_first_frame(model, tmp_path: Path):
    pattern = tmp_path / "{replica}.dcd"
    simulation, molecules = make_simulation(model)
    simulation.reporters.append(ReplicaDCDReporter(pattern, 4, molecules))
    simulation.step(3)
    reporter = ReplicaDCDReporter(pattern, 4, molecules, append=True)
    simulation.reporters[:] = [reporter]
    simulation.step(5)
    for path in reporter.paths:
        assert len(load(path, model)) == 2
        assert struct.unpack("<i", path.read_bytes()[12:16]) == (4,)


def test_more_replicas_than_a_process_may_open_files(model, tmp_path: Path):
    resource = pytest.importorskip("resource", reason="POSIX only")
    simulation, molecules = make_simulation(model, num_replicas=40)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The lowest number that is free, so about as many files are open.
    with (tmp_path / "probe").open("w") as file:
        opened = file.fileno()
    (tmp_path / "probe").unlink()
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(opened + 20, soft), hard))
    try:
        reporter = ReplicaDCDReporter(tmp_path / "{replica}.dcd", 1, molecules)
        simulation.reporters.append(reporter)
        simulation.step(2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    sizes = {path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes == {HEADER + 2 * FRAME}


def test_what_cannot_be_continued_is_refused(model, tmp_path: Path):
    def resume(interval: int = 2, step: int = 0, ids: int = 3) -> None:
        simulation, molecules = make_simulation(model, ids)
        simulation.currentStep = step
        reporter = ReplicaDCDReporter(
            tmp_path / "{replica}.dcd", interval, molecules, append=True
        )
        simulation.reporters.append(reporter)
        simulation.step(interval)

    with pytest.raises(FileNotFoundError):
        resume()
    simulation, molecules = make_simulation(model)
    simulation.reporters.append(
        ReplicaDCDReporter(tmp_path / "{replica}.dcd", 2, molecules)
    )
    simulation.step(6)
    before = (tmp_path / "0.dcd").read_bytes()
    with pytest.raises(ValueError, match=r"3 frames .* expected 4 before step 10"):
        resume(step=8)
    # From old positions alone steps are counted from 0: no frame would be kept.
    with pytest.raises(ValueError, match=r"3 frames from step 2 on .* before step 2"):
        resume(step=0)
    with pytest.raises(ValueError, match="'steps between frames': 2"):
        resume(interval=3, step=6)
    assert (tmp_path / "0.dcd").read_bytes() == before
    (tmp_path / "0.dcd").write_text("no trajectory")
    with pytest.raises(ValueError, match="does not begin as a DCD file does"):
        resume(step=6)


def test_what_cannot_be_written_is_refused(model, tmp_path: Path):
    with pytest.raises(ValueError, match="interval of 0, expected a whole"):
        ReplicaDCDReporter(tmp_path / "{replica}.dcd", 0, [0, 1])
    with pytest.raises(ValueError, match=r"names one file for several of 2 replicas"):
        ReplicaDCDReporter(tmp_path / "all.dcd", 1, [0, 1])
    simulation, _ = make_simulation(model)
    simulation.reporters.append(ReplicaDCDReporter(tmp_path / "a.dcd", 1, [0, 0]))
    with pytest.raises(ValueError, match="found 27 atoms in the Simulation, expected"):
        simulation.step(1)
