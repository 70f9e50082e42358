"""OpenMM's own reporters work, and what they write is right."""

import io
import struct

import mdtraj
import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.testing import FaultyModel, read_frame, save_stub_model


def test_dcd_header_has_the_lag_and_first_step(simulate, flow, tmp_path):
    path = tmp_path / "run.dcd"
    simulation = simulate(flow)
    simulation.reporters.append(app.DCDReporter(str(path), 5))
    simulation.step(20)
    # CHARMM header: frames, first step, interval, ..., step size in AKMA units.
    header = path.read_bytes()[8:48]
    frames, first, interval = struct.unpack("<3i", header[:12])
    step_size = struct.unpack("<f", header[36:40])[0]
    assert (frames, first, interval) == (4, 5, 5)
    assert step_size * 0.04888821 == pytest.approx(0.01, rel=1e-5)


def test_dcd_goes_on_after_a_restart(simulate, thermostatted, tmp_path):
    path, checkpoint = str(tmp_path / "run.dcd"), str(tmp_path / "run.chk")
    simulation = simulate(thermostatted)
    simulation.reporters.append(app.DCDReporter(path, 2))
    simulation.step(4)
    simulation.saveCheckpoint(checkpoint)
    simulation.reporters.clear()
    restarted = simulate(thermostatted)
    restarted.loadCheckpoint(checkpoint)
    restarted.reporters.append(app.DCDReporter(path, 2, append=True))
    restarted.step(4)
    topology = mdtraj.Topology.from_openmm(simulation.topology)
    frames = mdtraj.load_dcd(path, top=topology)
    assert frames.n_frames == 4
    simulation.step(4)
    positions, _ = read_frame(simulation.context)
    np.testing.assert_allclose(frames.xyz[-1], positions, atol=1e-6)


def test_stock_reporters_work(simulate, flow, tmp_path):
    simulation = simulate(flow)
    log = io.StringIO()
    paths = {kind: str(tmp_path / f"run.{kind}") for kind in ("pdbx", "xtc", "chk")}
    simulation.reporters += [
        app.StateDataReporter(
            log,
            2,
            step=True,
            time=True,
            temperature=True,
            kineticEnergy=True,
            potentialEnergy=True,
            speed=True,
        ),
        app.PDBxReporter(paths["pdbx"], 2),
        app.XTCReporter(paths["xtc"], 2),
        app.CheckpointReporter(paths["chk"], 2),
    ]
    simulation.step(4)
    positions, _ = read_frame(simulation.context)
    rows = [line.split(",") for line in log.getvalue().splitlines()[1:]]
    assert [row[0] for row in rows] == ["2", "4"]
    assert [float(row[1]) for row in rows] == pytest.approx([0.02, 0.04])
    state = simulation.context.getState(energy=True)
    kinetic_energy = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
    assert float(rows[1][2]) == 0.0
    assert float(rows[1][3]) == pytest.approx(kinetic_energy)
    # Written in 0.001 Angstrom and in 0.001 nm.
    pdbx = app.PDBxFile(paths["pdbx"])
    assert pdbx.getNumFrames() == 2
    written = pdbx.getPositions(asNumpy=True, frame=1).value_in_unit(unit.nanometer)
    np.testing.assert_allclose(written, positions, atol=1e-4)
    topology = mdtraj.Topology.from_openmm(simulation.topology)
    xtc = mdtraj.load_xtc(paths["xtc"], top=topology)
    np.testing.assert_allclose(xtc.time, [0.02, 0.04], rtol=1e-6)
    np.testing.assert_allclose(xtc.xyz[1], positions, atol=1e-3)
    other = simulate(flow)
    other.loadCheckpoint(paths["chk"])
    np.testing.assert_array_equal(read_frame(other.context)[0], positions)


def test_what_was_reported_before_giving_up_is_whole(simulate, tmp_path):
    stub = FaultyModel("bond", below_level=2.0, min_displacement=1.0)
    model = load_model(save_stub_model(tmp_path / "model.pt", stub))
    simulation = simulate(model)
    paths = {kind: str(tmp_path / f"run.{kind}") for kind in ("dcd", "xtc", "chk")}
    simulation.reporters += [
        app.DCDReporter(paths["dcd"], 1),
        app.XTCReporter(paths["xtc"], 1),
        app.CheckpointReporter(paths["chk"], 1),
    ]
    simulation.step(5)
    last, _ = read_frame(simulation.context)
    # Stretched, the molecule is one that the model cannot go on with.
    stretched = last.copy()
    stretched[4] += 1.2
    simulation.context.setPositions(stretched)
    with pytest.raises(openmm.OpenMMException, match="lag 5, molecule 0: the bond"):
        simulation.step(5)
    topology = mdtraj.Topology.from_openmm(simulation.topology)
    for load, path in ((mdtraj.load_dcd, "dcd"), (mdtraj.load_xtc, "xtc")):
        frames = load(paths[path], top=topology)
        assert frames.n_frames == 5
        np.testing.assert_allclose(frames.xyz[-1], last, atol=1e-3)
    other = simulate(model)
    other.loadCheckpoint(paths["chk"])
    assert other.currentStep == 5
    other.step(2)
