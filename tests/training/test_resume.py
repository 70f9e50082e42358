import dataclasses
import itertools
import json
import shutil

import pytest
import torch
from small_trainings import DATA, MODEL, OPTIMIZER, load, metrics, run

from openmm_diffmd.training.datamodule import RandomBatches
from openmm_diffmd.training.module import TransitionTraining


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


def test_resuming_with_a_damaged_description_is_refused(bursts, tmp_path):
    output = tmp_path / "run"
    run(bursts, output, optimizer=dataclasses.replace(OPTIMIZER, num_steps=6))
    (output / "training.json").write_text("")
    with pytest.raises(ValueError, match=r"training\.json is damaged"):
        run(bursts, output, resume=True)


def test_resuming_without_a_checkpoint_is_refused(bursts, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"found no .*last.ckpt to resume from"):
        run(bursts, tmp_path / "nothing", resume=True)


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
