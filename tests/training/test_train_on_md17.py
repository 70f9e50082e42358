"""Original MD17 files as training data."""

import json

import numpy as np
import pytest

from openmm_diffmd.data.readers import read_trajectory
from openmm_diffmd.elements import element_masses
from openmm_diffmd.export.export import export_model
from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.reference.molecules import load_molecule
from openmm_diffmd.training.config import (
    DataConfig,
    ModelConfig,
    TransitionOptimizerConfig,
)
from openmm_diffmd.training.train import train

MODEL = ModelConfig(
    n_max=3, channels=6, n_heads=2, edge_channels=6, n_layers=2, head_channels=4
)
STEPS = TransitionOptimizerConfig(
    num_steps=4, batch_size=8, validation_interval=2, checkpoint_interval=2
)
BATH = DataConfig(
    dynamics="thermostatted",
    time_reversal=False,
    fractions=(0.6, 0.2, 0.2),
    frame_interval_fs=1.0,
)
FREQUENCY = 200.0
SPREAD_NM = 0.002


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Ethanol, each coordinate an oscillator about its place; frames 1 fs apart."""
    topology, positions = load_molecule("ethanol")
    places = positions._value
    numbers = np.array([atom.element.atomic_number for atom in topology.atoms()])
    phases = np.random.default_rng(1).uniform(0, 2 * np.pi, places.shape)
    angle = phases + FREQUENCY * 0.001 * np.arange(300)[:, None, None]
    moved = SPREAD_NM * np.cos(angle)
    path = tmp_path_factory.mktemp("md17") / "md17_ethanol.npz"
    np.savez(
        path,
        R=10 * (places + moved),
        E=np.zeros((300, 1)),
        F=-element_masses(numbers)[:, None] * FREQUENCY**2 * moved / 41.84,
        z=numbers.astype(np.uint8),
    )
    return path


@pytest.fixture(scope="module")
def trained(file, tmp_path_factory):
    output = tmp_path_factory.mktemp("training") / "run"
    with pytest.warns(UserWarning, match="frames of MD17, .* by way of a force"):
        train([file], output, MODEL, BATH, STEPS, threads=1, progress=False)
    return output


def test_velocities_are_those_of_the_positions(file):
    frames = read_trajectory(file, 1.0)
    central = (frames.positions[2:] - frames.positions[:-2]) / 0.002
    # Verlet's own velocities are central differences; forces are exact here, so that
    # what is left is of second order in 0.2 rad a frame.
    error = np.abs(frames.velocities[1:-1] - central).max()
    assert error < 0.2**2 / 12 * SPREAD_NM * FREQUENCY * 0.2
    assert np.abs(np.diff(frames.positions, axis=0) / 0.001).max() > 10 * error


def test_a_model_of_an_md17_file_keeps_its_bath(file, trained, tmp_path):
    said = json.loads((trained / "training.json").read_text())["data"][0]
    assert said["n_frames"] == 299
    assert said["provenance"]["data"] == "MD17"
    with pytest.raises(ValueError, match=r"found no temperature .* --temperature_K"):
        export_model(trained, tmp_path / "mine.pt", "mine", [file])
    path = export_model(trained, tmp_path / "mine.pt", "mine", [file], 500.0)
    metadata = load_model(path).metadata
    assert metadata.dynamics == "thermostatted"
    assert metadata.lag_time_fs == 10.0
    assert sorted(metadata.elements) == ["C", "H", "O"]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (
            DataConfig(frame_interval_fs=1.0),
            r"thermostatted run for dynamics 'flow'.* by way of a force.*at a loss",
        ),
        (DataConfig(), r"without velocities \(none: by their forces.* 1 fs apart, not"),
    ],
)
def test_md17_that_is_taken_for_something_else_is_refused(
    file, tmp_path, pairs, message
):
    with pytest.raises(ValueError, match=message):
        train([file], tmp_path / "run", MODEL, pairs, STEPS, progress=False)
    assert not (tmp_path / "run").exists()
