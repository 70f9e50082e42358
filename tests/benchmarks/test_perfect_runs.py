import json
from pathlib import Path

import mdtraj
import numpy as np
import perfect_runs
import pytest
from harmonic_frames import FREQUENCY, TEMPERATURE, equilibrium, stub, write_reference

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.testing import HarmonicModel


def test_pieces_and_rest_are_the_whole_reference():
    topology = mdtraj.Topology()
    residue = topology.add_residue("H2", topology.add_chain())
    hydrogen = mdtraj.element.hydrogen
    atoms = [topology.add_atom(f"H{n}", hydrogen, residue) for n in "12"]
    topology.add_bond(*atoms)
    # Each number tells the frame.
    frames = [np.arange(n * 6).reshape(n, 2, 3) / 7 for n in (47, 30)]
    reference = Ensemble(topology, 0.5, frames, [2 * f for f in frames])
    generator = np.random.default_rng(3)
    pieces, rest = perfect_runs.take_pieces(reference, 3, 5.0, generator)
    assert [len(p) for p in pieces.positions] == [10, 10, 10]
    for name in ("positions", "velocities"):
        both = [*getattr(pieces, name), *getattr(rest, name)]
        found = np.sort(np.concatenate(both), axis=None)
        np.testing.assert_array_equal(
            found, np.sort(np.concatenate(getattr(reference, name)), axis=None)
        )
    for part in (*pieces.positions, *rest.positions):
        # Unbroken.
        np.testing.assert_allclose(np.diff(part[:, 0, 0]), 6 / 7)
    with pytest.raises(ValueError, match="fewer or shorter"):
        perfect_runs.take_pieces(reference, 4, 5.0, generator)
    with pytest.raises(SystemExit, match=r"length_ps 0\.001, expected a whole number"):
        perfect_runs.main(["--length-ps=0.001"])


@pytest.mark.parametrize("swap", [[], ["--swap"]], ids=["pieces", "rest"])
def test_perfect_runs_miss_no_goal(tmp_path: Path, swap: list[str]):
    model = stub(tmp_path / "flow.pt", HarmonicModel(FREQUENCY, 0.0, TEMPERATURE))
    x, v = equilibrium(np.random.default_rng(11), 4000)
    frames = [(0, 0.01 * (k + 1), x[k], v[k]) for k in range(4000)]
    provenance = {"temperature_K": TEMPERATURE, "kind": "thermostatted"}
    reference = write_reference(tmp_path / "reference.h5", model, frames, provenance)
    perfect_runs.main(
        [
            f"--reference={reference}",
            "--draws=3",
            "--pieces=5",
            "--length-ps=4",
            f"--output={tmp_path}",
            *swap,
        ]
    )
    found = json.loads((tmp_path / "perfect_runs.json").read_text())
    assert found["swap"] == bool(swap)
    assert found["verdicts"]["no broken bond"] == {"met": 3}
    # Frames are independent: what sampling explains is well known.
    missed = {name: n for name, n in found["verdicts"].items() if n.get("missed")}
    assert not missed
    assert found["ratios"]["h(r) error"] == pytest.approx([1.0] * 3, abs=0.5)
