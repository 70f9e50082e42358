from pathlib import Path

import md17_like as maker
import pytest

from openmm_diffmd.data.readers import read_md17


def test_frames_made_like_md17_are_read_as_such(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(maker, "EQUILIBRATION_STEPS", 20)
    path = tmp_path / "water.npz"
    maker.main(["--molecule=water", "--length-ps=0.03", f"--output={path}"])
    frames = read_md17(path)
    assert frames.n_frames == 59
    # Velocities are told where second differences are what forces say.
    assert frames.provenance["velocities"] == "backward differences and half a kick"
    assert frames.potential_energies.std() > 0
    with pytest.raises(SystemExit, match="found frequency 0"):
        maker.main(["--frequency=0", f"--output={path}"])
