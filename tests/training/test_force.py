import dataclasses

import numpy as np
import pytest
import torch

from openmm_diffmd import cli
from openmm_diffmd.data.labelled import LabelledFrames
from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.models.energy import load_force
from openmm_diffmd.training.config import EnergyModelConfig, OptimizerConfig
from openmm_diffmd.training.force import MEV_PER_ANGSTROM, train_force

MODEL = EnergyModelConfig(
    n_max=4, channels=8, n_heads=2, edge_channels=8, n_layers=1, cutoff=1.0
)
OPTIMIZER = OptimizerConfig(
    num_steps=60,
    batch_size=8,
    learning_rate=1e-2,
    warmup_steps=2,
    ema_decay=0.5,
    validation_interval=30,
    checkpoint_interval=30,
)


@pytest.fixture(scope="module")
def many(write_bursts, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "bursts.h5"
    return write_bursts(path, n_bursts=40, n_frames=4)


@pytest.fixture(scope="module")
def trained(many, tmp_path_factory):
    output = tmp_path_factory.mktemp("training") / "run"
    return train_force([many], output, MODEL, OPTIMIZER, progress=False)


def test_trained_force_is_better_than_none(trained, many):
    model, description = load_force(trained)
    assert description["elements"] == ["H", "O"]
    assert description["steps"] == 60
    test = description["data"][0]["test"]
    trajectory = read_reference(many)
    none = MEV_PER_ANGSTROM * np.abs(trajectory.forces).mean()
    assert test["force_mae_meV_per_A"] < 0.6 * none
    frames = LabelledFrames([trajectory], [range(4)], [1, 8])[[0, 1, 2]]
    _, forces = model.energy_and_forces(frames.positions, frames.species)
    assert (forces * frames.forces).sum() > 0


def test_meV_per_Angstrom_is_that_of_ase():
    from ase import units

    expected = 1000 * units.kJ / units.mol / units.nm
    assert pytest.approx(expected, rel=1e-6) == MEV_PER_ANGSTROM


def test_training_goes_on_where_it_stopped(trained, many):
    longer = dataclasses.replace(OPTIMIZER, num_steps=70)
    with pytest.raises(FileExistsError, match="set resume"):
        train_force([many], trained.parent, MODEL, longer, progress=False)
    before = load_force(trained)[0].state_dict()
    path = train_force(
        [many], trained.parent, MODEL, longer, resume=True, progress=False
    )
    model, description = load_force(path)
    assert description["steps"] == 70
    assert not all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_verb_prints_errors_on_frames_left_out(many, tmp_path, capsys):
    words = ["force", "--data+", str(many), "--output", str(tmp_path / "run")]
    words += ["--model.n_layers", "1", "--model.channels", "8"]
    words += ["--model.edge_channels", "8", "--model.n_heads", "2"]
    words += ["--optimizer.num_steps", "4", "--optimizer.batch_size", "8"]
    words += ["--optimizer.warmup_steps", "1", "--progress", "false"]
    assert cli.main(words) == 0
    found = capsys.readouterr().out
    assert str(tmp_path / "run" / "force.pt") in found
    _, description = load_force(tmp_path / "run" / "force.pt")
    error = description["data"][0]["test"]["force_mae_meV_per_A"]
    assert f"bursts.h5: {error:.1f} meV/Angstrom, energies" in found
