"""Pairs come from the part of the reference files that they should."""

import numpy as np
import pytest
import torch
from openmm import app

from openmm_diffmd.export.pairs import pairs_left_out, pairs_trained_on
from openmm_diffmd.models import TransitionModel
from openmm_diffmd.outputs import file_sha256
from openmm_diffmd.reference.dynamics import ReferenceFrame
from openmm_diffmd.reference.storage import ReferenceWriter


@pytest.fixture
def model():
    return TransitionModel(
        2, 0.01, channels=8, n_heads=2, edge_channels=8, n_layers=1, head_channels=8
    )


def write_frames(path, provenance):
    """Ten segments of four frames 10 fs apart; positions say which frame it is."""
    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    for symbol in ("C", "H"):
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    # Of ours: what these atoms do would be no molecule of another program's.
    said = {"potential": "none", **provenance}
    with ReferenceWriter(path, topology, np.ones(2), said, 40) as writer:
        for frame in range(40):
            x = np.zeros((2, 3))
            x[1] = frame
            now = ReferenceFrame(0.01 * (frame % 4 + 1), x, x, x, 0.0)
            writer.write(frame // 4, now)
    return path


def described(*files):
    entries = [
        {
            "file": path.name,
            "sha256": file_sha256(path),
            "train_frames": 20,
            "provenance": provenance,
        }
        for path, provenance in files
    ]
    return {
        "elements": ["C", "H"],
        "data": entries,
        "config": {"data": {"frame_interval_fs": None}},
    }


def test_pairs_left_out_come_after_the_training_part_and_a_segment(model, tmp_path):
    cold, hot = {"temperature_K": 300.0, "seed": 1}, {"temperature_K": 500.0}
    paths = [
        write_frames(tmp_path / f"{p['temperature_K']}.h5", p) for p in (cold, hot)
    ]
    description = described((paths[0], cold), (paths[1], hot))

    def frames(temperature, fraction):
        batch = pairs_left_out(model, paths, description, temperature, fraction)
        # Hydrogen, about the centre of mass.
        return (batch.positions[:, 1, 0] * 13.01865 / 12.0107).round().int().tolist()

    # Frames 24 to 31 of one file: three pairs in each of two segments.
    expected = [24, 25, 26, 28, 29, 30]
    assert frames(500.0, 0.2) == expected
    # No file is of this temperature: both are used.
    assert frames(400.0, 0.2) == 2 * expected


def test_pairs_trained_on_are_those_of_the_training_part_at_the_temperature(
    model, tmp_path
):
    cold, hot = {"temperature_K": 300.0}, {"temperature_K": 500.0}
    paths = [
        write_frames(tmp_path / f"{p['temperature_K']}.h5", p) for p in (cold, hot)
    ]
    description = described((paths[0], cold), (paths[1], hot))
    pairs = pairs_trained_on(model, paths, description, 500.0)
    # Three pairs in each of five segments, frames 0 to 19.
    assert len(pairs) == 15
    positions = pairs.batch(torch.arange(15)).positions[:, 1, 0] * 13.01865 / 12.0107
    assert positions.max().round() == 18
    assert len(pairs_trained_on(model, paths, description, 400.0)) == 30
    with pytest.raises(ValueError, match="found 1 data files, expected the 2"):
        pairs_trained_on(model, paths[:1], description, 500.0)


@pytest.mark.parametrize(
    "chosen", [{"bond_energy_kT": 20.0}, {"revisited": [{"seed": 1}]}]
)
def test_pairs_of_states_that_were_chosen_are_left_out(model, tmp_path, chosen):
    plain = {"temperature_K": 500.0, "bond_energy_kT": 0.0}
    other = plain | chosen
    paths = [
        write_frames(tmp_path / f"{name}.h5", provenance)
        for name, provenance in (("plain", plain), ("other", other))
    ]
    description = described((paths[0], plain), (paths[1], other))
    assert len(pairs_trained_on(model, paths, description, 500.0)) == 15
    batch = pairs_left_out(model, paths, description, 500.0, 0.2)
    assert len(batch.species) == 6


def test_data_of_another_training_are_refused(model, tmp_path):
    one, other = (
        {"temperature_K": 500.0, "seed": 1},
        {"temperature_K": 500.0, "seed": 2},
    )
    paths = [write_frames(tmp_path / f"{p['seed']}.h5", p) for p in (one, other)]
    description = described((paths[0], one), (paths[1], other))
    with pytest.raises(ValueError, match=r"found 1 data files, expected the 2 .* 2.h5"):
        pairs_left_out(model, paths[:1], description, 500.0, 0.2)
    with pytest.raises(ValueError, match=r"2.h5 that is not the .* 1.h5 \(ano"):
        pairs_left_out(model, paths[::-1], description, 500.0, 0.2)


def test_files_that_do_not_say_their_temperature_calibrate_all_the_same(
    model, tmp_path
):
    path = write_frames(tmp_path / "plain.h5", {})
    batch = pairs_left_out(model, [path], described((path, {})), 500.0, 0.2)
    assert len(batch.species) == 6


# One frame; frames of the gap only, to which the training part leaves no more.
@pytest.mark.parametrize(("fraction", "train_frames"), [(0.025, 20), (0.2, 37)])
def test_share_without_a_pair_names_the_option(fraction, train_frames, model, tmp_path):
    path = write_frames(tmp_path / "short.h5", {})
    description = described((path, {}))
    description["data"][0]["train_frames"] = train_frames
    with pytest.raises(
        ValueError, match=f"no pair .* 10 fs .* calibration_fraction {fraction:g} that"
    ):
        pairs_left_out(model, [path], description, 500.0, fraction)
