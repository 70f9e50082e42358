import dataclasses
import json
import os
import signal

import lightning
import pytest
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.accelerators import CUDAAccelerator
from small_trainings import DATA, FORCE, MODEL, OPTIMIZER, load, metrics, run

from openmm_diffmd.training.module import TransitionTraining


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


def test_a_training_that_diverges_says_so(bursts, tmp_path):
    wild = dataclasses.replace(OPTIMIZER, learning_rate=1e12, gradient_clip=1e12)
    with pytest.raises(ValueError, match=r"loss of (nan|inf) after step .*diverged"):
        run(bursts, tmp_path / "wild", optimizer=wild)


def test_training_does_not_seed_the_callers_random_numbers(bursts, tmp_path):
    one_step = dataclasses.replace(OPTIMIZER, num_steps=1)
    after = []
    for seed in (7, 8):
        torch.manual_seed(seed)
        run(bursts, tmp_path / str(seed), optimizer=one_step)
        after.append(torch.rand(3))
    assert not after[0].equal(after[1])


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
