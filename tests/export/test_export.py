"""What an export says of itself is what it did."""

import json
import shutil
import subprocess

import numpy as np
import pytest
import torch
from openmm import app

from openmm_diffmd.data.pairs import encode_pairs
from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.data.splits import contiguous_split
from openmm_diffmd.export import export, provenance
from openmm_diffmd.reference.dynamics import ReferenceFrame
from openmm_diffmd.reference.storage import ReferenceWriter
from openmm_diffmd.training.config import DataConfig, ModelConfig, TrainConfig
from openmm_diffmd.training.description import describe
from openmm_diffmd.training.module import build_model

FRACTIONS = (0.6, 0.2, 0.2)


@pytest.fixture(scope="module")
def bursts(tmp_path_factory):
    """Ten bursts of six frames 10 fs apart of a molecule of two atoms."""
    topology = app.Topology()
    residue = topology.addResidue("OH", topology.addChain())
    atoms = [
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
        for symbol in ("O", "H")
    ]
    topology.addBond(*atoms)
    path = tmp_path_factory.mktemp("data") / "bursts.h5"
    generator = np.random.default_rng(1)
    made = {"kind": "bursts", "temperature_K": 500.0}
    with ReferenceWriter(path, topology, np.array([16.0, 1.0]), made, 60) as writer:
        for frame in range(60):
            x = np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0]])
            x += 0.003 * generator.standard_normal((2, 3))
            v = generator.standard_normal((2, 3))
            now = ReferenceFrame(0.01 * (frame % 6 + 1), x, v, x, 0.0)
            writer.write(frame // 6, now)
    return path


@pytest.fixture
def exported(bursts, tmp_path, monkeypatch):
    """Export weights that were never trained; the metadata are returned."""

    def keep(model, metadata, path):
        return metadata

    monkeypatch.setattr(export, "save_model", keep)

    def call(prior="learned", step=None, **options):
        config = TrainConfig(
            data=DataConfig(fractions=FRACTIONS),
            model=ModelConfig(
                prior=prior,
                channels=8,
                n_heads=2,
                edge_channels=8,
                n_layers=1,
                head_channels=8,
            ),
        )
        trajectory = read_reference(bursts)
        split = contiguous_split(trajectory.segments, 1, FRACTIONS)
        description = describe(config, 1, [bursts], [trajectory], [split], ["H", "O"])
        (tmp_path / "training.json").write_text(json.dumps(description))
        weights = build_model(config.model, config.data.lag_time_fs, 2).state_dict()
        torch.save(
            {
                "state_dict": {f"model.{name}": w for name, w in weights.items()},
                "global_step": step or config.optimizer.num_steps,
            },
            tmp_path / "last.ckpt",
        )
        options.setdefault("calibration_fraction", 0.2)
        return export.export_model(
            tmp_path, tmp_path / "model.pt", "tiny", [bursts], **options
        )

    return call


def test_a_training_that_is_not_finished_is_told(exported):
    with pytest.warns(UserWarning, match=r"last\.ckpt at step 7 of .* finished"):
        exported(step=7)


def test_a_model_is_replaced_only_where_asked_to(exported, tmp_path):
    exported(overwrite=False)
    (tmp_path / "model.pt").touch()
    with pytest.raises(FileExistsError, match=r"found a file .*model\.pt; choose ano"):
        exported(overwrite=False)
    assert exported(overwrite=True).name == "tiny"


def test_a_lag_is_redrawn_up_to_ten_times(exported):
    assert exported().guards["max_resamples"] == 10


def test_metadata_count_the_pairs_of_the_refit(exported):
    # Six bursts of five pairs in the training part.
    assert exported().config["refit_pairs"] == 30
    assert exported(refit_pairs=10).config["refit_pairs"] == 10
    assert exported(prior="ballistic").config["refit_pairs"] == 0


def test_metadata_hold_the_heat_that_was_taken_away(exported):
    (found,) = exported(balance_pairs=10).acceptance["heat"]
    assert (found["formula"], found["pairs"]) == ("HO", 10)
    assert set(found["heat"]) == {"H-O", "H", "O"}
    assert exported(balance_pairs=0).acceptance["heat"] == []
    assert exported(prior="ballistic").acceptance["heat"] == []


def test_one_lag_errors_are_of_the_weights_that_are_written(exported, monkeypatch):
    def balance(model, *_, **__):
        with torch.no_grad():
            for weight in model.encoder.parameters():
                weight.mul_(1.5)
        return [{}]

    def compare(model, batch, symbols, error, spread):
        with torch.no_grad():
            expected = model.error(batch.following, encode_pairs(model, batch))
        torch.testing.assert_close(error, expected)
        return figures(model, batch, symbols, error, spread)

    figures = export.one_lag_figures
    before = exported(balance_pairs=0).acceptance["one_lag"]
    monkeypatch.setattr(export, "balance_heat", balance)
    monkeypatch.setattr(export, "one_lag_figures", compare)
    after = exported(balance_pairs=10, overwrite=True).acceptance["one_lag"]
    assert after["H"]["velocity_relative"] != before["H"]["velocity_relative"]


def test_files_are_found_where_the_training_found_them(tmp_path):
    file = tmp_path / "bursts.h5"
    described = {"data": [{"file": "bursts.h5"}], "paths": [str(file)]}
    with pytest.raises(FileNotFoundError, match=r"found no .*bursts.h5, .* --data"):
        export._files_of(described)
    file.touch()
    assert export._files_of(described) == [file]


def test_temperature_is_one_of_the_data(exported):
    metadata = exported()
    assert (metadata.temperature_K, metadata.max_temperature_K) == (500.0, 500.0)
    with pytest.raises(
        ValueError, match=r"found temperature_K 300, expected one .* \[500.0\]"
    ):
        exported(temperature_K=300.0)


def test_data_without_a_temperature_need_one(exported, monkeypatch):
    monkeypatch.setattr(export, "TEMPERATURE", "none_K")
    assert exported(temperature_K=300.0).max_temperature_K == 300.0
    with pytest.raises(ValueError, match=r"found no temperature .* --temperature_K"):
        exported()


def test_thermostatted_dynamics_keeps_the_friction_it_was_learned_with():
    files = [{"provenance": {"friction_per_ps": 5.0}}]
    thermostatted = {"data": files, "config": {"data": {"dynamics": "thermostatted"}}}
    assert export._friction(thermostatted, None) == 5.0
    with pytest.raises(ValueError, match=r"found friction_per_ps 1 .* expected 5"):
        export._friction(thermostatted, 1.0)
    # Bursts have a friction of 0; the bath of a run is its own.
    flow = {
        "data": [{"provenance": {"friction_per_ps": 0.0}}],
        "config": {"data": {"dynamics": "flow"}},
    }
    assert [export._friction(flow, asked) for asked in (None, 2.0)] == [1.0, 2.0]


def test_without_a_refit_no_pairs_of_the_training_are_gathered(exported, monkeypatch):
    monkeypatch.delattr(export, "pairs_trained_on")
    assert exported(refit_pairs=0).config["refit_pairs"] == 0


def test_calibration_stays_in_the_validation_part(exported, tmp_path):
    with pytest.raises(
        ValueError, match=r"calibration_fraction 0\.25, expected .* at most 0\.2, the"
    ):
        exported(calibration_fraction=0.25)
    with pytest.raises(ValueError, match="calibration_fraction 0, expected more than"):
        exported(calibration_fraction=0.0)
    with pytest.raises(ValueError, match=r"found no pair .* raise calibration_fr"):
        exported(calibration_fraction=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "euclid"}, r"sampler 'euclid', expected .*'exponential"),
        ({"sampler": "euclid", "num_sampling_steps": 0}, "sampler 'euclid', expected"),
        ({"num_sampling_steps": -1}, "num_sampling_steps -1, expected at least 0"),
        ({"max_resamples": -1}, "max_resamples -1, expected a whole number"),
        ({"sigma_max": 0.01}, "sigma_max 0.01, expected at least 0.05"),
        ({"friction_per_ps": -1.0}, "friction_per_ps -1.0, expected a number of at"),
        ({"temperature_K": 0.0}, "temperature_K 0.0, expected a positive number"),
        ({"refit_pairs": -1}, "refit_pairs -1, expected at least 0"),
        ({"balance_pairs": -1}, "balance_pairs -1, expected at least 0"),
    ],
    ids=str,
)
def test_options_are_refused_before_the_work(exported, monkeypatch, options, message):
    # No temperature is known, or only those known would pass.
    monkeypatch.setattr(export, "TEMPERATURE", "none_K")
    for work in ("pairs_trained_on", "pairs_left_out"):
        monkeypatch.delattr(export, work)
    with pytest.raises(ValueError, match=f"found .*{message}"):
        exported(**{"temperature_K": 300.0, **options})


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_commit_is_that_of_the_code(tmp_path, monkeypatch):
    installed = tmp_path / "environment" / "provenance.py"
    installed.parent.mkdir()
    installed.touch()
    monkeypatch.setattr(provenance, "__file__", str(installed))

    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True)

    assert provenance._git_hash() == "unknown"
    # A user's repository, in which the package is installed.
    git("init")
    git("commit", "--allow-empty", "--message=first")
    assert provenance._git_hash() == "unknown"
    git("add", ".")
    git("commit", "--message=second")
    assert provenance._git_hash() == git("rev-parse", "HEAD").stdout.strip()


def test_training_of_fewer_options_has_the_defaults_of_the_others(tmp_path):
    config = TrainConfig(model=ModelConfig(channels=8, n_heads=2, n_layers=1))
    weights = build_model(config.model, config.data.lag_time_fs, 2).state_dict()
    torch.save(
        {
            "state_dict": {f"model.{name}": w for name, w in weights.items()},
            "global_step": 7,
        },
        tmp_path / "last.ckpt",
    )
    few = {
        "model": {"channels": 8, "n_heads": 2, "n_layers": 1},
        "data": {"lag_time_fs": 15.0},
    }
    description = {"config": few, "elements": ["H", "O"]}
    model, step = export._load_weights(tmp_path / "last.ckpt", description)
    assert (model.prior, model.lag_time, step) == ("learned", 0.015, 7)
