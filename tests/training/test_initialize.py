import dataclasses
import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from small_trainings import MODEL, OPTIMIZER, load, run

from openmm_diffmd.model_files import pack_weights


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
