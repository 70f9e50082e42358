import csv
import dataclasses
import itertools
import json
import math
import os
import shutil
import signal
import warnings
import zipfile
from pathlib import Path

import ase.io
import lightning
import pytest
import torch
from ase import Atoms
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.accelerators import CUDAAccelerator

from openmm_diffmd.bundled import PRETRAINED
from openmm_diffmd.data.readers import read_trajectory
from openmm_diffmd.data.runs import check_overlap
from openmm_diffmd.model_files import pack_weights
from openmm_diffmd.training.config import (
    DataConfig,
    EnergyModelConfig,
    ModelConfig,
    TransitionOptimizerConfig,
)
from openmm_diffmd.training.datamodule import RandomBatches, validation_loader
from openmm_diffmd.training.module import TransitionTraining
from openmm_diffmd.training.train import train

MODEL = ModelConfig(
    n_max=3, channels=6, n_heads=2, edge_channels=6, n_layers=2, head_channels=4
)
FORCE = EnergyModelConfig()
DATA = DataConfig(fractions=(0.6, 0.2, 0.2))
OPTIMIZER = TransitionOptimizerConfig(
    num_steps=12,
    batch_size=8,
    warmup_steps=2,
    # All but the last step at one rate: a shorter training is the start of a longer.
    decay_fraction=0.01,
    validation_interval=6,
    checkpoint_interval=6,
)


def run(data, output, model=MODEL, pairs=DATA, optimizer=OPTIMIZER, **options):
    data = data if isinstance(data, list) else [data]
    return train(data, output, model, pairs, optimizer, progress=False, **options)


def load(path):
    # The file is ours: written a moment ago.
    return torch.load(path, weights_only=False)


@pytest.fixture(scope="module")
def trained(bursts, tmp_path_factory):
    output = tmp_path_factory.mktemp("training") / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # TorchScript is deprecated upstream, and e3nn names it.
        warnings.filterwarnings("ignore", ".*torch.jit.*", DeprecationWarning)
        run(bursts, output)
    return output


def test_a_larger_machine_gives_no_warning(bursts, tmp_path, monkeypatch):
    """Sixteen cores, and a GPU that is not asked for: warnings are errors here."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr(CUDAAccelerator, "is_available", lambda: True)
    with pytest.warns(PossibleUserWarning, match="GPU available but not used"):
        lightning.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    run(bursts, tmp_path / "run")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="found no NVIDIA GPU")
def test_the_gpu_trains_as_the_cpu(trained, bursts, tmp_path):
    output = tmp_path / "run"
    run(bursts, output, accelerator="gpu")
    expected = load(trained / "last.ckpt")["state_dict"]
    found = load(output / "last.ckpt")["state_dict"]
    # A dozen steps from the same weights with the same draws: what differs is rounding,
    # which Adam magnifies where a gradient is about 0.
    for name, value in expected.items():
        difference = (found[name].cpu() - value).abs().mean()
        assert difference <= 1e-2 * value.abs().mean() + 1e-3, name


def metrics(output):
    rows = []
    for path in sorted(output.glob("csv/version_*/metrics.csv")):
        with path.open(newline="") as file:
            rows += list(csv.DictReader(file))
    return rows


def test_training_leaves_checkpoint_logs_and_description(trained, bursts):
    checkpoint = load(trained / "last.ckpt")
    assert checkpoint["global_step"] == 12
    assert list(trained.glob("lightning_logs/version_0/events.out.tfevents.*"))
    description = json.loads((trained / "training.json").read_text())
    assert description["elements"] == ["H", "O"]
    assert description["seed"] == 1
    assert description["config"]["model"] == dataclasses.asdict(MODEL)
    assert list(description["bond_ranges_nm"]) == ["H-O"]
    assert list(description["contact_limits_nm"]) == ["H-H"]
    assert description["example"]["elements"] == ["O", "H", "H"]
    assert description["example"]["bonds"] == [[0, 1], [0, 2]]
    (data,) = description["data"]
    assert data["file"] == bursts.name
    assert data["n_frames"] == 144
    assert data["n_segments"] == 12
    assert data["train_frames"] == 86
    assert data["elements"] == ["O", "H", "H"]
    assert data["bonds"] == [[0, 1], [0, 2]]


def test_validation_rows_hold_every_element(trained):
    rows = metrics(trained)
    assert [int(row["step"]) for row in rows] == [5, 11]
    for row in rows:
        for symbol in ("H", "O"):
            assert float(row[f"validation/{symbol}_position"]) > 0
            assert float(row[f"validation/{symbol}_velocity"]) > 0


def test_weights_kept_are_the_running_average(trained):
    checkpoint = load(trained / "last.ckpt")
    averaged, current = checkpoint["state_dict"], checkpoint["current_model_state"]
    name = "model.encoder.kick.0.weight"
    assert not torch.equal(averaged[name], current[name])
    assert averaged.keys() == current.keys()


def test_no_step_is_lost_after_the_last_interval(bursts, tmp_path):
    saved = []
    for interval in (9, 6):
        options = dataclasses.replace(
            OPTIMIZER, num_steps=9, checkpoint_interval=interval
        )
        run(bursts, tmp_path / str(interval), optimizer=options)
        saved.append(load(tmp_path / str(interval) / "last.ckpt"))
    assert [checkpoint["global_step"] for checkpoint in saved] == [9, 9]
    weights, again = (checkpoint["state_dict"] for checkpoint in saved)
    assert all(torch.equal(again[key], value) for key, value in weights.items())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_training_that_is_stopped_says_so(bursts, tmp_path, monkeypatch, number):
    def stop(self, *_):
        if self.global_step == 7:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(TransitionTraining, "on_train_batch_end", stop)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt, match=r"step 7 of 12, .*with resume"):
            run(bursts, tmp_path / "stopped")
    finally:
        signal.signal(signal.SIGINT, before)
    assert load(tmp_path / "stopped" / "last.ckpt")["global_step"] == 6


def test_same_seed_gives_the_same_weights(trained, bursts, tmp_path):
    again = load(run(bursts, tmp_path / "again"))["state_dict"]
    other = load(run(bursts, tmp_path / "other", seed=2))["state_dict"]
    for name, value in load(trained / "last.ckpt")["state_dict"].items():
        assert torch.equal(value, again[name]), name
    assert not torch.equal(
        again["model.denoiser.gate.weight"], other["model.denoiser.gate.weight"]
    )


def test_resumed_training_goes_on_from_the_checkpoint(bursts, tmp_path, monkeypatch):
    seeds = []

    class Seeded(RandomBatches):
        def __init__(self, pairs, batch_size, time_reversal, seed):
            super().__init__(pairs, batch_size, time_reversal, seed)
            seeds.append(seed)

    monkeypatch.setattr("openmm_diffmd.training.train.RandomBatches", Seeded)
    output = tmp_path / "run"
    half = dataclasses.replace(OPTIMIZER, num_steps=6)
    before = load(run(bursts, output, optimizer=half))
    assert before["global_step"] == 6
    # No further step: what is loaded is written again.
    same = load(run(bursts, output, optimizer=half, resume=True))
    assert same["global_step"] == 6
    for part in ("state_dict", "current_model_state"):
        for name, value in before[part].items():
            assert torch.equal(value, same[part][name]), name
    after = load(run(bursts, output, resume=True))
    assert after["global_step"] == 12
    assert after["averaging_state"]["n_averaged"] == 12
    steps = [state["step"] for state in after["optimizer_states"][0]["state"].values()]
    assert {int(step) for step in steps} == {12}
    assert [int(row["step"]) for row in metrics(output)][-1] == 11
    # The batches of the first part do not come again.
    assert seeds == [1, 7, 7]


class KilledError(Exception):
    """Stands for whatever ends a training early."""


def test_resumed_training_equals_the_uninterrupted_one_but_for_its_batches(
    bursts, tmp_path, monkeypatch
):
    """Weights, average, optimizer and noise go on; only batches are drawn anew."""

    def batches(self):
        for index in itertools.count():
            if index == kill_at:
                raise KilledError
            yield self._pairs.batch(torch.arange(8))

    monkeypatch.setattr(RandomBatches, "__iter__", batches)
    kill_at = None
    whole = load(run(bursts, tmp_path / "whole"))
    kill_at = 9
    with pytest.raises(KilledError):
        run(bursts, tmp_path / "halves")
    assert load(tmp_path / "halves" / "last.ckpt")["global_step"] == 6
    kill_at = None
    halves = load(run(bursts, tmp_path / "halves", resume=True))
    for part in ("state_dict", "current_model_state"):
        for name, value in whole[part].items():
            assert torch.equal(halves[part][name], value), name


def test_resuming_with_another_network_is_refused(trained, bursts):
    other = dataclasses.replace(MODEL, channels=8)
    with pytest.raises(ValueError, match=r"found model.channels 8, .* resume has 6"):
        run(bursts, trained, model=other, resume=True)


def test_resuming_with_another_lag_is_refused(trained, bursts):
    other = dataclasses.replace(DATA, lag_time_fs=5.0)
    with pytest.raises(ValueError, match=r"found pairs.lag_time_fs 5.0, .* has 10.0"):
        run(bursts, trained, pairs=other, resume=True)


def test_resuming_with_other_elements_is_refused(trained, write_bursts, tmp_path):
    other = write_bursts(tmp_path / "other.h5", symbols=("S", "H", "H"))
    with pytest.raises(
        ValueError, match=r"found elements \['H', 'S'\], .*\['H', 'O'\]"
    ):
        run(other, trained, resume=True)


def test_existing_training_is_refused(trained, bursts):
    with pytest.raises(FileExistsError, match=r"found a training in .*; set resume"):
        run(bursts, trained)


def test_resuming_with_another_optimizer_is_refused_and_changes_nothing(
    trained, bursts
):
    described = (trained / "training.json").read_text()
    other = dataclasses.replace(OPTIMIZER, algorithm="adamw")
    with pytest.raises(
        ValueError, match=r"found optimizer.algorithm 'adamw', .* resume has 'muon'"
    ):
        run(bursts, trained, optimizer=other, resume=True)
    slower = dataclasses.replace(OPTIMIZER, learning_rate=1e-5)
    with pytest.raises(ValueError, match=r"optimizer\.learning_rate 1e-05, but the"):
        run(bursts, trained, optimizer=slower, resume=True)
    assert (trained / "training.json").read_text() == described


def test_a_resume_that_ends_before_a_checkpoint_leaves_the_options_of_before(
    bursts, tmp_path, monkeypatch
):
    output = tmp_path / "run"
    run(bursts, output, optimizer=dataclasses.replace(OPTIMIZER, num_steps=6))
    described = (output / "training.json").read_text()

    def stop(self, *_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(TransitionTraining, "training_step", stop)
    other = dataclasses.replace(DATA, perturbed=0.9)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(bursts, output, pairs=other, resume=True)
    assert (output / "training.json").read_text() == described


def test_a_training_that_diverges_says_so(bursts, tmp_path):
    wild = dataclasses.replace(OPTIMIZER, learning_rate=1e12, gradient_clip=1e12)
    with pytest.raises(ValueError, match=r"loss of (nan|inf) after step .*diverged"):
        run(bursts, tmp_path / "wild", optimizer=wild)


def test_resuming_on_other_files_remembers_the_first(bursts, write_bursts, tmp_path):
    half = dataclasses.replace(OPTIMIZER, num_steps=6)
    output = tmp_path / "run"
    run(bursts, output, optimizer=half)
    first = json.loads((output / "training.json").read_text())["data"]
    run(write_bursts(tmp_path / "more.h5", seed=5), output, resume=True)
    described = json.loads((output / "training.json").read_text())
    assert [entry["files"] for entry in described["history"]] == [first]
    assert described["data"][0]["file"] == "more.h5"


@pytest.mark.parametrize("resume", [True, False])
def test_frames_that_were_left_out_stay_so(bursts, tmp_path, resume):
    """A smaller share would leave out what the weights were trained on."""
    output = tmp_path / "run"
    run(bursts, output, optimizer=dataclasses.replace(OPTIMIZER, num_steps=6))
    fewer = dataclasses.replace(DATA, fractions=(0.4, 0.3, 0.3))
    again = {"resume": True} if resume else {"initialize_from": output}
    folder = output if resume else tmp_path / "other"
    with pytest.raises(ValueError, match=r"found 58 frames .* at least the 86 that"):
        run(bursts, folder, pairs=fewer, **again)
    more = dataclasses.replace(DATA, fractions=(0.65, 0.2, 0.15))
    run(bursts, folder, pairs=more, **again)


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


def test_training_does_not_seed_the_callers_random_numbers(bursts, tmp_path):
    one_step = dataclasses.replace(OPTIMIZER, num_steps=1)
    after = []
    for seed in (7, 8):
        torch.manual_seed(seed)
        run(bursts, tmp_path / str(seed), optimizer=one_step)
        after.append(torch.rand(3))
    assert not after[0].equal(after[1])


def test_resuming_with_a_damaged_description_is_refused(bursts, tmp_path):
    output = tmp_path / "run"
    run(bursts, output, optimizer=dataclasses.replace(OPTIMIZER, num_steps=6))
    (output / "training.json").write_text("")
    with pytest.raises(ValueError, match=r"training\.json is damaged"):
        run(bursts, output, resume=True)


def test_resuming_without_a_checkpoint_is_refused(bursts, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"found no .*last.ckpt to resume from"):
        run(bursts, tmp_path / "nothing", resume=True)


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


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        (DATA, {"dynamics": "flwo"}, "dynamics 'flwo', expected 'flow' or 'thermos"),
        (DATA, {"lag_time_fs": 0.0}, "found lag_time_fs 0, expected more than 0"),
        (DATA, {"perturbed": -0.1}, "found perturbed -0.1, expected 0 to 1"),
        (DATA, {"frame_interval_fs": 0.0}, "found frame_interval_fs 0, expected mo"),
        (DATA, {"frame_interval_fs": -1.0}, "found frame_interval_fs -1, expected m"),
        (DATA, {"drop_acceleration": 1.1}, "drop_acceleration 1.1, expected 0 to 1"),
        (DATA, {"unrolled_lags": 0}, "found unrolled_lags 0, expected at least 1"),
        (DATA, {"perturbation": (0.1, -0.1)}, "perturbation -0.1, expected at least 0"),
        (MODEL, {"prior": "none"}, "prior 'none', expected 'learned', 'ballistic', "),
        (MODEL, {"noise_conditioning": "no"}, "'no', expected 'acceleration' or 'el"),
        (MODEL, {"cutoff": -1.0}, "found cutoff -1, expected more than 0"),
        (MODEL, {"velocity_cutoff": 0.0}, "found velocity_cutoff 0, expected more"),
        (MODEL, {"l_max": 0}, "found l_max 0, expected 1 to 3"),
        (MODEL, {"l_max": 4}, "found l_max 4, expected 1 to 3"),
        (MODEL, {"n_max": 0}, "found n_max 0, expected at least 1"),
        (MODEL, {"channels": -3}, "found channels -3, expected at least 1"),
        (MODEL, {"n_heads": 0}, "found n_heads 0, expected at least 1"),
        (MODEL, {"edge_channels": 0}, "found edge_channels 0, expected at least 1"),
        (MODEL, {"n_layers": 0}, "found n_layers 0, expected at least 1"),
        (MODEL, {"head_channels": 0}, "found head_channels 0, expected at least 1"),
        (MODEL, {"head_layers": 0}, "found head_layers 0, expected at least 1"),
        (FORCE, {"cutoff": 0.0}, "found cutoff 0, expected more than 0"),
        (FORCE, {"l_max": 4}, "found l_max 4, expected 1 to 3"),
        (FORCE, {"channels": 0}, "found channels 0, expected at least 1"),
        (OPTIMIZER, {"num_steps": 0}, "found num_steps 0, expected at least 1"),
        (OPTIMIZER, {"batch_size": 0}, "found batch_size 0, expected at least 1"),
        (OPTIMIZER, {"algorithm": "sgd"}, "'sgd', expected 'adamw' or 'muon'"),
        (OPTIMIZER, {"decay_fraction": 1.5}, "decay_fraction 1.5, expected 0 to 1"),
        (OPTIMIZER, {"ema_decay": 1.0}, "ema_decay 1, expected at least 0 and less"),
        (OPTIMIZER, {"gradient_clip": 0.0}, "gradient_clip 0, expected more than 0"),
        (OPTIMIZER, {"weight_decay": -1.0}, "weight_decay -1, expected at least 0"),
        (OPTIMIZER, {"validation_interval": 0}, "found validation_interval 0"),
        (OPTIMIZER, {"sigma_min": 5.0}, r"sigma_min 5.0, sigma_max 3.0; expected 0 <"),
    ],
)
def test_options_out_of_range_are_refused(part, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(part, **changes)


def test_heads_that_do_not_share_the_edge_channels_are_refused(bursts, tmp_path):
    model = dataclasses.replace(MODEL, n_heads=4)
    with pytest.raises(
        ValueError, match="found 6 edge_channels, expected a multiple of 4 heads"
    ):
        run(bursts, tmp_path / "run", model=model)


def test_no_data_and_no_such_device_are_refused(bursts, tmp_path):
    with pytest.raises(ValueError, match="found no data, expected reference files"):
        run([], tmp_path / "run")
    with pytest.raises(ValueError, match="found threads 0, expected at least 1"):
        run(bursts, tmp_path / "run", threads=0)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"found accelerator 'gpu', .* as 'cpu'"):
            run(bursts, tmp_path / "run", accelerator="gpu")


def test_resuming_a_damaged_or_longer_training_is_refused(trained, bursts, tmp_path):
    output = tmp_path / "run"
    shutil.copytree(trained, output)
    before = (output / "training.json").read_text()
    short = dataclasses.replace(OPTIMIZER, num_steps=6)
    with pytest.raises(ValueError, match=r"found num_steps 6, .* has made 12"):
        run(bursts, output, optimizer=short, resume=True)
    whole = (output / "last.ckpt").read_bytes()
    (output / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"last.ckpt is damaged \(.*put the last step"):
        run(bursts, output, resume=True)
    assert (output / "training.json").read_text() == before


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


class Recorder:
    """Stand-in for pairs that says what it was asked for."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def size_groups(self):
        return [(torch.arange(self.count), 1)]

    def batch(self, indices, reverse=None):
        return indices, reverse


def test_random_batches_come_from_their_seed():
    def first(seed, time_reversal=True):
        return next(iter(RandomBatches(Recorder(1000), 16, time_reversal, seed)))

    indices, _ = first(1)
    assert torch.equal(indices, first(1)[0])
    assert not torch.equal(indices, first(2)[0])
    assert len(indices) == 16
    many = next(iter(RandomBatches(Recorder(1000), 10000, True, 1)))[1]
    # Stochastic: 4 standard errors of a share of one half.
    assert many.float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert first(1, time_reversal=False)[1] is None


class Groups(Recorder):
    """Stand-in for pairs of one small molecule with many data and three large ones."""

    def size_groups(self):
        return [(torch.arange(900), 1), (torch.arange(900, 1000), 3)]


def test_random_batches_are_of_one_group_drawn_by_its_molecules():
    batches = iter(RandomBatches(Groups(1000), 4, time_reversal=False, seed=1))
    large = [next(batches)[0] >= 900 for _ in range(400)]
    assert all(chosen.all() or not chosen.any() for chosen in large)
    share = torch.stack(large).float().mean()
    # Four standard errors of a share of 3/4 among 400.
    assert abs(share - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 400)


def test_validation_batch_is_spread_over_all_pairs():
    loaded = next(iter(validation_loader(Recorder(2000))))
    indices, reverse = loaded
    assert reverse is None
    assert indices[0] == 0
    assert indices[-1] == 1999
    assert len(indices.unique()) == 512
    few, _ = next(iter(validation_loader(Recorder(3))))
    assert few.tolist() == [0, 1, 2]


def test_second_part_keeps_the_encoder_and_trains_the_rest(trained, bursts, tmp_path):
    frozen = dataclasses.replace(OPTIMIZER, freeze_encoder=True)
    output = run(bursts, tmp_path / "second", optimizer=frozen, initialize_from=trained)
    before, after = load(trained / "last.ckpt")["state_dict"], load(output)
    now = after["current_model_state"]
    changed = {name for name in now if not torch.equal(before[name], now[name])}
    assert [name for name in changed if name.startswith("model.encoder.")] == []
    assert "model.denoiser.gate.weight" in changed
    assert "model.spread.3.weight" in changed
    # The running average of what does not change is rounded.
    for name, value in after["state_dict"].items():
        if name.startswith("model.encoder."):
            torch.testing.assert_close(value, before[name], rtol=1e-5, atol=1e-8)


def test_training_from_before_the_velocity_option_can_be_started_from(
    trained, bursts, tmp_path
):
    old = shutil.copytree(trained, tmp_path / "old")
    description = json.loads((old / "training.json").read_text())
    del description["config"]["model"]["velocity_features"]
    (old / "training.json").write_text(json.dumps(description))
    short = dataclasses.replace(OPTIMIZER, num_steps=1, freeze_encoder=True)
    output = run(bursts, tmp_path / "new", optimizer=short, initialize_from=old)
    name = "model.encoder.kick.0.weight"
    before = load(trained / "last.ckpt")["state_dict"]
    assert torch.equal(load(output)["state_dict"][name], before[name])


def test_new_elements_begin_between_their_neighbours(
    trained, bursts, write_bursts, tmp_path
):
    small = write_bursts(tmp_path / "small.h5", symbols=("H", "C", "O"), seed=3)
    still = dataclasses.replace(OPTIMIZER, num_steps=1, learning_rate=0.0)
    options = {"optimizer": still, "initialize_from": trained}
    output = run([bursts, small], tmp_path / "more", **options)
    before = load(trained / "last.ckpt")["state_dict"]
    after = load(output)["state_dict"]
    name = "model.encoder.elements.weight"
    # H, O and padding before; H, C, O and padding now.
    old, new = before[name], after[name]
    torch.testing.assert_close(new[[0, 2, 3]], old)
    torch.testing.assert_close(new[1], old[:2].mean(0))
    name = "model.position_scale"
    torch.testing.assert_close(after[name][[0, 2, 3]], before[name])
    assert 0 < after[name][1] < 1
    assert len(after["covariance"]) == len(before["covariance"]) + 1


def test_elements_that_are_not_trained_now_are_left_out(
    trained, write_bursts, tmp_path
):
    small = write_bursts(tmp_path / "small.h5", symbols=("C", "O"), seed=3)
    still = dataclasses.replace(OPTIMIZER, num_steps=1, learning_rate=0.0)
    output = run(small, tmp_path / "less", optimizer=still, initialize_from=trained)
    before = load(trained / "last.ckpt")["state_dict"]
    after = load(output)["state_dict"]
    name = "model.encoder.elements.weight"
    # H, O and padding before; C, O and padding now. C has O alone to begin from.
    torch.testing.assert_close(after[name][[1, 2]], before[name][[1, 2]])
    torch.testing.assert_close(after[name][0], before[name][1])
    for name in ("model.position_scale", "covariance"):
        assert len(after[name]) == len(before[name])
    name = "model.position_scale"
    torch.testing.assert_close(after[name][1:], before[name][1:])
    assert after[name][0] != before[name][0]


def test_starting_without_any_element_of_the_other_is_refused(
    trained, write_bursts, tmp_path
):
    small = write_bursts(tmp_path / "small.h5", symbols=("C", "N"), seed=3)
    with pytest.raises(ValueError, match=r"expected .* some of the elements"):
        run(small, tmp_path / "run", initialize_from=trained)


def test_training_starts_from_a_model_file(trained, bursts, tmp_path):
    # What an exported file holds, without the network.
    described = json.loads((trained / "training.json").read_text())
    weights = load(trained / "last.ckpt")["state_dict"]
    own = {
        name.removeprefix("model."): value
        for name, value in weights.items()
        if name.startswith("model.")
    }
    earlier = {"seed": 7}
    described["config"]["history"] = [earlier]
    files = described["data"]
    described["reference"] = {"data": described.pop("data")}
    model = tmp_path / "model.pt"
    with zipfile.ZipFile(model, "w") as archive:
        archive.writestr("model/extra/metadata.json", json.dumps(described))
        archive.writestr("model/extra/weights.pt", pack_weights(own))
    still = dataclasses.replace(OPTIMIZER, num_steps=1, learning_rate=0.0)
    output = run(bursts, tmp_path / "run", optimizer=still, initialize_from=model)
    after = load(output)["state_dict"]
    for name in own:
        if name not in ("residual_cholesky",):
            torch.testing.assert_close(after[f"model.{name}"], own[name])
    history = json.loads((tmp_path / "run" / "training.json").read_text())["history"]
    del described["config"]["history"]
    assert history == [earlier, {**described["config"], "files": files}]


def test_starting_from_a_file_without_weights_is_refused(bursts, tmp_path):
    model = tmp_path / "model.pt"
    with zipfile.ZipFile(model, "w") as archive:
        archive.writestr("model/extra/metadata.json", "{}")
    with pytest.raises(ValueError, match=r"without metadata.json and weights.pt"):
        run(bursts, tmp_path / "run", initialize_from=model)


@pytest.mark.parametrize("text", ['{"config": {}}', '{"config": null}', "[]", "no"])
def test_starting_from_a_file_without_sizes_of_its_network_is_refused(
    bursts, tmp_path, text
):
    model = tmp_path / "model.pt"
    with zipfile.ZipFile(model, "w") as archive:
        archive.writestr("model/extra/metadata.json", text)
        archive.writestr("model/extra/weights.pt", pack_weights({}))
    with pytest.raises(ValueError, match="without the sizes of its network"):
        run(bursts, tmp_path / "run", initialize_from=model)


@pytest.mark.parametrize("field", [8, 10], ids=["encrypted", "compressed otherwise"])
def test_starting_from_a_file_that_cannot_be_unpacked_is_refused(
    bursts, tmp_path, field
):
    model = tmp_path / "model.pt"
    with zipfile.ZipFile(model, "w") as archive:
        archive.writestr("model/extra/weights.pt", b"")
    damaged = bytearray(model.read_bytes())
    # Flags and method of the entry in the archive's directory.
    damaged[damaged.rindex(b"PK\x01\x02") + field] = 1 if field == 8 else 99
    model.write_bytes(damaged)
    with pytest.raises(ValueError, match="no readable model file"):
        run(bursts, tmp_path / "run", initialize_from=model)


def test_starting_from_another_network_is_refused(trained, bursts, tmp_path):
    other = dataclasses.replace(MODEL, channels=8)
    with pytest.raises(
        ValueError, match=r"another network in .*: {'channels': 6}, .*{'channels': 8}, "
    ):
        run(bursts, tmp_path / "run", model=other, initialize_from=trained)


def test_starting_from_a_checkpoint_names_its_folder(trained, bursts, tmp_path):
    with pytest.raises(ValueError, match=rf"expected the folder .*give {trained}"):
        run(bursts, tmp_path / "run", initialize_from=trained / "last.ckpt")


def test_starting_from_nothing_is_refused(bursts, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"found no model .*nothing"):
        run(bursts, tmp_path / "run", initialize_from=tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"found no .*last.ckpt to start from"):
        run(bursts, tmp_path / "run", initialize_from=tmp_path)


def test_a_folder_of_the_name_of_a_bundled_model_is_not_in_its_way(
    bursts, tmp_path, monkeypatch
):
    (tmp_path / "md17").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="another network in md17"):
        run(bursts, tmp_path / "run", initialize_from=Path("md17"))


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


def test_only_a_mean_is_rolled_out(bursts, tmp_path):
    pairs = dataclasses.replace(DATA, unrolled_lags=2)
    model = dataclasses.replace(MODEL, prior="ballistic")
    with pytest.raises(ValueError, match=r"unrolled_lags 2 .*'ballistic', expected 'f"):
        run(bursts, tmp_path / "run", model=model, pairs=pairs)
    output = run(bursts, tmp_path / "run", pairs=pairs)
    assert output.is_file()


def test_freezing_an_encoder_that_knows_nothing_is_refused(bursts, tmp_path):
    frozen = dataclasses.replace(OPTIMIZER, freeze_encoder=True)
    with pytest.raises(ValueError, match="freeze_encoder without initialize_from"):
        run(bursts, tmp_path / "run", optimizer=frozen)


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
