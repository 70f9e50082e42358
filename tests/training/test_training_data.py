import dataclasses
import json

import ase.io
import pytest
import torch
from ase import Atoms
from small_trainings import DATA, OPTIMIZER, load, metrics, run

from openmm_diffmd.bundled import PRETRAINED
from openmm_diffmd.data.readers import read_trajectory
from openmm_diffmd.data.runs import check_overlap


def test_a_file_that_does_not_say_what_made_it_is_told_of(write_bursts, tmp_path):
    path = write_bursts(tmp_path / "theirs.h5", friction_per_ps=None)
    with pytest.warns(UserWarning, match=r"neither its friction nor .* taken as that"):
        run(
            path,
            tmp_path / "run",
            optimizer=dataclasses.replace(OPTIMIZER, num_steps=1),
        )


def test_files_of_one_molecule_and_two_forces_are_told(write_bursts, tmp_path):
    def write(name, **said):
        return write_bursts(tmp_path / f"{name}.h5", **said)

    one = dataclasses.replace(OPTIMIZER, num_steps=1)
    xtb = {"potential": "GFN2-xTB", "potential_options": {}}
    neutral = write("neutral", **xtb)
    cation = write("cation", potential="GFN2-xTB", potential_options={"charge": 1})
    told = r"cation\.h5 of the force GFN2-xTB .*charge.* and .*neutral\.h5 of GFN2-xTB,"
    with pytest.warns(UserWarning, match=told):
        run([neutral, cation], tmp_path / "mixed", optimizer=one)
    # A trained force is called force.pt whatever it was trained on.
    force = {"potential": "force.pt", "potential_options": {}}
    both = [write(name, **force, sha256={"force.pt": 64 * name}) for name in ("a", "b")]
    with pytest.warns(UserWarning, match=r"force\.pt \(sha256 bbbb.* force\.pt \(sha2"):
        run(both, tmp_path / "trained", optimizer=one)
    # Warnings are errors here.
    other = write("other", symbols=("O", "H"), potential="GFN1-xTB")
    again = write("again", seed=1, **xtb)
    run([neutral, again, other], tmp_path / "run", optimizer=one)


def test_one_run_in_two_files_is_refused(write_bursts, tmp_path):
    made = {"kind": "bursts", "molecule": "water", "seed": 5}
    short, long, hot, other = (
        write_bursts(tmp_path / f"{name}.h5", n_bursts=n, said=made | more)
        for name, n, more in (
            ("short", 12, {}),
            ("long", 24, {"length_ps": 2.0}),
            ("hot", 12, {"bond_energy_kT": 20.0}),
            ("other", 12, {"seed": 6}),
        )
    )
    with pytest.raises(ValueError, match=r"short\.h5 in .*long\.h5 again, .* seed \(5"):
        run([short, long], tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # Twice the same file, hot bonds of the same run, another seed.
    for second in (short, hot, other):
        files = [short, second]
        check_overlap(files, [read_trajectory(file) for file in files])


def test_time_reversal_of_thermostatted_dynamics_is_refused(bursts, tmp_path):
    pairs = dataclasses.replace(DATA, dynamics="thermostatted")
    with pytest.raises(ValueError, match="not reversible; switch it off"):
        run(bursts, tmp_path / "run", pairs=pairs)
    assert not (tmp_path / "run").exists()


def test_data_of_other_dynamics_are_refused(write_bursts, bursts, tmp_path):
    hot = write_bursts(tmp_path / "hot.h5", friction_per_ps=2.0)
    with pytest.raises(ValueError, match=r"hot.h5 of friction 2/ps for .*'flow'"):
        run([bursts, hot], tmp_path / "run")
    pairs = dataclasses.replace(DATA, dynamics="thermostatted", time_reversal=False)
    with pytest.raises(ValueError, match=r"bursts.h5 of friction 0/ps for .*'thermos"):
        run(bursts, tmp_path / "run", pairs=pairs)
    assert not (tmp_path / "run").exists()


def test_no_data_and_no_such_device_are_refused(bursts, tmp_path):
    with pytest.raises(ValueError, match="found no data, expected reference files"):
        run([], tmp_path / "run")
    with pytest.raises(ValueError, match="found threads 0, expected at least 1"):
        run(bursts, tmp_path / "run", threads=0)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"found accelerator 'gpu', .* as 'cpu'"):
            run(bursts, tmp_path / "run", accelerator="gpu")


def test_missing_data_are_refused_before_a_folder_is_made(tmp_path):
    with pytest.raises(FileNotFoundError):
        run(tmp_path / "none.h5", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_molecules_of_different_size_train_together(bursts, write_bursts, tmp_path):
    small = write_bursts(tmp_path / "small.h5", symbols=("C", "O"), seed=3)
    run([bursts, small], tmp_path / "run")
    description = json.loads((tmp_path / "run" / "training.json").read_text())
    assert description["elements"] == ["H", "C", "O"]
    weights = load(tmp_path / "run" / "last.ckpt")["state_dict"]
    assert all(value.isfinite().all() for value in weights.values())
    row = metrics(tmp_path / "run")[-1]
    # One validation a file; an element that a file lacks has no number there.
    assert float(row["validation/H_position/dataloader_idx_0"]) > 0
    assert "validation/H_position/dataloader_idx_1" not in row
    assert float(row["validation/C_position/dataloader_idx_1"]) > 0


@pytest.mark.parametrize("fractions", [(0.5, 0.0, 0.0), (0.9, 0.0, 0.1)])
def test_no_validation_part_is_refused_before_anything_is_written(
    bursts, tmp_path, fractions
):
    pairs = dataclasses.replace(DATA, fractions=fractions)
    with pytest.raises(ValueError, match=r"validation part of 0 frames of .*fractions"):
        run(bursts, tmp_path / "run", pairs=pairs)
    assert not (tmp_path / "run").exists()


def test_a_part_that_its_gap_swallows_is_told_with_its_file(bursts, tmp_path):
    pairs = dataclasses.replace(DATA, fractions=(0.7, 1e-3, 0.2))
    match = rf"too few for a validation part .*--pairs.fractions.*{bursts.name}"
    with pytest.raises(ValueError, match=match):
        run(bursts, tmp_path / "run", pairs=pairs)


def test_velocities_of_another_unit_are_not_trained_on(tmp_path):
    run_of_ethanol = read_trajectory(PRETRAINED / "ethanol_reference.h5")
    frames = []
    for x, v in zip(
        run_of_ethanol.positions[:40], run_of_ethanol.velocities[:40], strict=True
    ):
        atoms = Atoms(run_of_ethanol.atomic_numbers, 10.0 * x)
        # Angstrom/ps where ASE has its own unit of time.
        atoms.set_velocities(10.0 * v)
        frames.append(atoms)
    ase.io.write(tmp_path / "wrong.xyz", frames, format="extxyz")
    pairs = dataclasses.replace(DATA, frame_interval_fs=10.0)
    with pytest.raises(ValueError, match=r"K in .*wrong\.xyz, expected 10 to 10000 K"):
        run(tmp_path / "wrong.xyz", tmp_path / "run", pairs=pairs)
    assert not (tmp_path / "run").exists()
