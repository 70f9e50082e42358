import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from openmm_diffmd import cli
from openmm_diffmd.data.labelled import LabelledFrames
from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.models.energy import load_force
from openmm_diffmd.training import force
from openmm_diffmd.training.config import EnergyModelConfig, OptimizerConfig
from openmm_diffmd.training.force import train_force
from openmm_diffmd.training.force_module import MEV_PER_ANGSTROM

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
    assert description["data"][0]["elements"] == ["O", "H", "H"]
    assert description["data"][0]["bonds"] == [[0, 1], [0, 2]]
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


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data": []}, ValueError, "found no data, expected reference files"),
        ({"threads": 0}, ValueError, "found threads 0, expected at least 1"),
        ({"resume": True}, FileNotFoundError, r"found no .*last.ckpt to resume from"),
    ],
)
def test_what_no_training_can_begin_with_is_refused(
    many, tmp_path, changes, error, message
):
    arguments = {"data": [many], "output": tmp_path / "run", "progress": False}
    with pytest.raises(error, match=message):
        train_force(**(arguments | changes))
    assert not (tmp_path / "run").exists()


def test_resuming_another_training_is_refused(trained, many, write_bursts, tmp_path):
    def resume(data, model, optimizer):
        train_force(data, trained.parent, model, optimizer, resume=True, progress=False)

    wider = dataclasses.replace(MODEL, channels=16)
    with pytest.raises(ValueError, match=r"found model.channels 16, .* resume has 8"):
        resume([many], wider, OPTIMIZER)
    again = write_bursts(tmp_path / "again.h5", n_bursts=40, n_frames=4, seed=9)
    with pytest.raises(ValueError, match="found other data files"):
        resume([again], MODEL, OPTIMIZER)
    # As many elements: nothing else would tell.
    other = write_bursts(tmp_path / "nh.h5", ("N", "H", "H"), n_bursts=40, n_frames=4)
    with pytest.raises(ValueError, match=r"found elements \['H', 'N'\], .*'O'"):
        resume([other], MODEL, OPTIMIZER)
    shorter = dataclasses.replace(OPTIMIZER, num_steps=10)
    with pytest.raises(ValueError, match="found num_steps 10, but the training to"):
        resume([many], MODEL, shorter)


def test_each_resumption_draws_its_own_batches(many, tmp_path, monkeypatch):
    seeds = []

    class Recorded(force.RandomFrames):
        def __init__(self, frames, batch_size, seed):
            seeds.append(seed)
            super().__init__(frames, batch_size, seed)

    monkeypatch.setattr(force, "RandomFrames", Recorded)
    for steps in (2, 4, 6):
        optimizer = dataclasses.replace(OPTIMIZER, num_steps=steps)
        train_force(
            [many],
            tmp_path / "run",
            MODEL,
            optimizer,
            seed=5,
            resume=steps > 2,
            progress=False,
        )
    assert seeds == [5, 7, 9]


def start(data, output, source, model=MODEL):
    still = dataclasses.replace(OPTIMIZER, num_steps=1, learning_rate=0.0)
    return train_force(
        data, output, model, still, initialize_from=source, progress=False
    )


def test_force_starts_from_another(trained, write_bursts, tmp_path):
    symbols = ("C", "H", "O")
    data = write_bursts(tmp_path / "cho.h5", symbols, n_bursts=40, n_frames=4, seed=2)
    before, described = load_force(trained)
    path = start(data, tmp_path / "new", trained.parent)
    model, description = load_force(path)
    del described["history"]
    assert description["history"] == [described]
    old, new = before.state_dict(), model.state_dict()
    for name, value in new.items():
        if name not in ("elements.weight", "element_energy"):
            torch.testing.assert_close(value, old[name])
    # H, O and padding before; H, C, O and padding now.
    name = "elements.weight"
    torch.testing.assert_close(new[name][[0, 2, 3]], old[name])
    torch.testing.assert_close(new[name][1], old[name][:2].mean(0))
    # Whoever goes on keeps what was before; so does whoever starts from this one.
    longer = dataclasses.replace(OPTIMIZER, num_steps=2, learning_rate=0.0)
    train_force(data, path.parent, MODEL, longer, resume=True, progress=False)
    _, description = load_force(path)
    steps = [described["steps"]]
    assert [part["steps"] for part in description["history"]] == steps
    _, description = load_force(start(data, tmp_path / "third", path))
    assert [part["steps"] for part in description["history"]] == [*steps, 2]


def test_force_that_cannot_be_started_from_is_refused(
    trained, many, write_bursts, tmp_path
):
    wider = dataclasses.replace(MODEL, channels=16)
    with pytest.raises(ValueError, match=r"another network in .*: {'channels': 8}, "):
        start(many, tmp_path / "run", trained, wider)
    other = write_bursts(tmp_path / "cn.h5", ("C", "N"), n_bursts=40, n_frames=4)
    with pytest.raises(ValueError, match=r"expected .* some of the elements"):
        start(other, tmp_path / "run", trained)
    with pytest.raises(FileNotFoundError, match=r"found no .*force\.pt, expected a"):
        start(many, tmp_path / "run", tmp_path)
    assert not (tmp_path / "run").exists()


def write_xyz(path: Path, labelled: bool) -> Path:
    generator = np.random.default_rng(1)
    frames = []
    for _ in range(60):
        x = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
        off = 0.02 * generator.normal(size=(3, 3))
        atoms = Atoms("OH2", x + off)
        if labelled:
            atoms.calc = SinglePointCalculator(
                atoms,
                energy=generator.normal(),
                # eV/Angstrom^2: some 500 N/m.
                forces=-30.0 * off,
            )
        frames.append(atoms)
    write(path, frames, format="extxyz")
    return path


@pytest.mark.parametrize("suffix", [".xyz", ".extxyz"])
def test_extxyz_needs_no_times(tmp_path, suffix):
    data = write_xyz(tmp_path / f"water{suffix}", labelled=True)
    optimizer = dataclasses.replace(OPTIMIZER, num_steps=2)
    path = train_force(data, tmp_path / "run", MODEL, optimizer, progress=False)
    assert load_force(path)[1]["data"][0]["n_frames"] == 60


def test_force_may_learn_what_moved_the_frames_of_rmd17(tmp_path):
    water = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    moved = 0.02 * np.random.default_rng(1).standard_normal((60, 3, 3))
    np.savez(
        tmp_path / "water.npz",
        coords=water + moved,
        energies=np.zeros(60),
        forces=-400 * moved,
        old_energies=np.zeros(60),
        old_forces=-800 * moved,
        nuclear_charges=np.array([8, 1, 1]),
        old_indices=np.arange(60),
    )
    optimizer = dataclasses.replace(OPTIMIZER, num_steps=1)
    run = tmp_path / "run"
    arguments = (tmp_path / "water.npz", run, MODEL, optimizer)
    path = train_force(*arguments, old_forces=True, progress=False)
    model, description = load_force(path)
    assert description["old_forces"] is True
    assert model.force_scale == pytest.approx(41.84 * 800 * 0.02, rel=0.1)
    with pytest.raises(ValueError, match="found old_forces False, expected"):
        train_force(*arguments, resume=True, progress=False)
    with pytest.raises(ValueError, match="is not an npz file"):
        train_force(
            write_xyz(tmp_path / "water.xyz", labelled=True),
            tmp_path / "other",
            MODEL,
            optimizer,
            old_forces=True,
        )


def test_a_file_too_short_for_its_parts_is_named(write_bursts, tmp_path):
    few = write_bursts(tmp_path / "few.h5", n_bursts=1, n_frames=4)
    with pytest.raises(
        ValueError,
        match=r"found .*few\.h5 of 4 frames, expected more: .* \(found 4 frames, too",
    ):
        train_force([few], tmp_path / "run", MODEL, OPTIMIZER, progress=False)


def test_file_without_forces_is_named(many, tmp_path):
    data = [many, write_xyz(tmp_path / "bare.xyz", labelled=False)]
    with pytest.raises(
        ValueError, match=r"bare.xyz without energies or forces \(it needs"
    ):
        train_force(data, tmp_path / "run", MODEL, OPTIMIZER, progress=False)
    assert not (tmp_path / "run").exists()


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
