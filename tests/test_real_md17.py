"""Real frames, read for their structure alone."""

from pathlib import Path

import numpy as np
import pytest
from real_md17 import find_reference, load_frames

from openmm_diffmd.analysis.loading import load_reference
from openmm_diffmd.export.torchscript import load_model


def test_frames_are_read_in_the_order_of_time(tmp_path: Path):
    # Water whose hydrogens meet in one frame of two.
    apart = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    close = np.array([[0.0, 0.0, 0.0], [0.9, 0.0, 0.0], [0.9, 0.5, 0.0]])
    np.savez(
        tmp_path / "water.npz",
        nuclear_charges=np.array([8, 1, 1]),
        coords=np.stack([close, apart]),
        energies=np.zeros(2),
        forces=np.zeros((2, 3, 3)),
        old_indices=np.array([20, 10]),
    )
    ensemble, provenance = load_frames(tmp_path / "water.npz")
    assert provenance["data"] == "rMD17"
    assert ensemble.symbols == ["O", "H", "H"]
    assert ensemble.bonds.tolist() == [[0, 1], [0, 2]]
    # In the order of the old indices, ten frames of 0.5 fs apart.
    assert ensemble.positions[0] == pytest.approx(0.1 * np.stack([apart, close]))
    assert ensemble.frame_interval == pytest.approx(0.005)
    assert ensemble.velocities is None


def test_one_frame_is_refused(tmp_path: Path):
    np.savez(
        tmp_path / "one.npz",
        nuclear_charges=np.array([8, 1]),
        coords=np.array([[[0.0, 0.0, 0.0], [0.96, 0.0, 0.0]]]),
        energies=np.zeros(1),
        forces=np.zeros((1, 2, 3)),
        old_indices=np.array([1]),
    )
    with pytest.raises(ValueError, match=r"found 1 frame in .*, expected two"):
        load_frames(tmp_path / "one.npz")


def test_the_bundled_reference_is_taken_at_its_temperature():
    real, _ = load_reference(Path("ethanol"))
    for name in ("ethanol", "md17"):
        reference, said = find_reference(load_model(name), None, real, 500.0)
        assert reference is not None
        assert said["potential"] == "GFN2-xTB"
    assert find_reference(load_model("ethanol"), None, real, 643.0) == (None, {})
    # Another force.
    assert find_reference(load_model("ethanol_pbe"), None, real, 500.0) == (None, {})
    with pytest.raises(ValueError, match="found a reference at 500 K, expected 643 K"):
        find_reference(load_model("ethanol"), Path("ethanol"), real, 643.0)
