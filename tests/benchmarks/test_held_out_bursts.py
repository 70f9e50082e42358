from dataclasses import replace
from pathlib import Path

import held_out_bursts as bursts
import numpy as np
from harmonic_frames import (
    FREQUENCY,
    TEMPERATURE,
    equilibrium,
    harmonic_xml,
    stub,
    write_reference,
)

from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.testing import HarmonicModel


def test_bursts_are_the_forces_and_of_the_test_part(tmp_path: Path):
    model = stub(tmp_path / "flow.pt", HarmonicModel(FREQUENCY, 0.0, TEMPERATURE))
    x, v = equilibrium(np.random.default_rng(3), 50)
    provenance = {
        "temperature_K": TEMPERATURE,
        "potential": str(harmonic_xml(tmp_path, 9)),
        "kind": "thermostatted",
    }
    frames = [(0, 0.01 * (k + 1), x[k], v[k]) for k in range(50)]
    reference = write_reference(tmp_path / "reference.h5", model, frames, provenance)
    made = bursts.make_bursts(reference, model.metadata, 4, tmp_path)
    assert made.n_frames == 4 * 30
    assert made.provenance["made_of"]["frames"] == [40, 43, 46, 49]
    # Verlet's steps of 0.5 fs are early by (w h)^2/24 of the phase.
    phase = FREQUENCY * made.times[:30, None, None]
    expected = x[43] * np.cos(phase) + v[43] / FREQUENCY * np.sin(phase)
    bound = 2 * (FREQUENCY * 0.0005) ** 2 / 24 * phase.max() * np.abs(x).max() + 1e-6
    assert np.abs(made.positions[30:60] - expected).max() < bound
    # Read the second time; another number of bursts is another file.
    (file,) = tmp_path.glob("bursts_molecule_*.h5")
    modified = file.stat().st_mtime_ns
    bursts.make_bursts(reference, model.metadata, 4, tmp_path)
    assert file.stat().st_mtime_ns == modified
    bursts.make_bursts(reference, model.metadata, 3, tmp_path)
    assert len(list(tmp_path.glob("bursts_molecule_*.h5"))) == 2


def test_frames_that_an_earlier_training_saw_are_not_unseen(tmp_path: Path):
    model = stub(tmp_path / "flow.pt", HarmonicModel(FREQUENCY, 0.0, TEMPERATURE))
    x, v = equilibrium(np.random.default_rng(3), 50)
    said = {"molecule": "a", "temperature_K": TEMPERATURE, "seed": 1, "kind": "bursts"}
    frames = [(k // 10, 0.01 * (k % 10 + 1), x[k], v[k]) for k in range(50)]
    trajectory = read_reference(
        write_reference(tmp_path / "run.h5", model, frames, said)
    )
    file = {
        "n_frames": 50,
        "n_segments": 5,
        "train_frames": 20,
        "provenance": trajectory.provenance,
    }
    earlier = {"data": {"fractions": (0.4, 0.2, 0.4)}, "files": [file]}
    for history, expected in (([], 50), ([earlier], 10)):
        metadata = replace(model.metadata, config={"history": history})
        assert bursts.unseen(trajectory, metadata).sum() == expected


def test_bundled_models_have_seen_what_those_they_began_from_saw():
    for name in ("ethanol", "ethanol_20fs", "md17", "aspirin"):
        metadata = load_model(name).metadata
        files = [file for files, _ in bursts._trainings(metadata) for file in files]
        seeds = {
            file["provenance"].get("seed")
            for file in files
            if file["provenance"].get("molecule") == "ethanol"
        }
        assert {1, 2} <= seeds, name
