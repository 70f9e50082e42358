import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import mdtraj
import numpy as np
import pytest
import short_horizon
import short_horizon_cases
from harmonic_frames import (
    FREQUENCY,
    MASSES,
    NUMBERS,
    TEMPERATURE,
    equilibrium,
    harmonic_xml,
    stub,
    write_reference,
)

from openmm_diffmd.data import single_molecule
from openmm_diffmd.data.readers import read_md17
from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.testing import (
    HarmonicModel,
    save_stub_model,
)


def test_short_horizon_of_the_exact_flow_is_exact(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model = stub(tmp_path / "flow.pt", HarmonicModel(FREQUENCY, 0.0, TEMPERATURE))
    x, v = equilibrium(np.random.default_rng(4), 30)
    provenance = {
        "molecule": "ethanol",
        "temperature_K": TEMPERATURE,
        "potential": str(harmonic_xml(tmp_path, 9)),
    }
    frames = [(0, 0.01 * (k + 1), x[k], v[k]) for k in range(30)]
    reference = write_reference(tmp_path / "reference.h5", model, frames, provenance)
    short_horizon.main(
        [
            f"--models={tmp_path / 'flow.pt'}",
            f"--references={reference}",
            "--cases=6",
            f"--output={tmp_path}",
        ]
    )
    written = json.loads((tmp_path / "short_horizon.json").read_text())
    (found,) = written["results"]
    assert (found["cases"], found["frames_per_lag"]) == (6, 2)
    rows = found["rows"]
    assert len(rows["diffmd"]["by_frame"]) == 10
    # The truth moves by Verlet's steps: 0.5 % of 6.4 periods' phase, of 0.1 Angstrom.
    assert rows["diffmd"]["fde"] < 0.02 * rows["persistence"]["fde"] + 0.01
    assert rows["mean only"]["ade"] == pytest.approx(rows["diffmd"]["ade"], abs=1e-4)
    assert rows["persistence"]["ade"] > 0.05
    assert rows["constant velocity"]["fde"] > rows["constant velocity"]["ade"] > 0.5
    printed = capsys.readouterr().out
    assert "context only, of original MD17 and not of this data: EGNN 0.268" in printed
    assert "published on the whole file" not in printed
    assert written["original_md17"] is False


def harmonic_md17(path: Path, n_frames: int) -> None:
    """A harmonic molecule each 0.5 fs, in MD17's form."""
    x, v = equilibrium(np.random.default_rng(5), 1)
    phase = FREQUENCY * 0.0005 * np.arange(n_frames)[:, None, None]
    positions = x * np.cos(phase) + v / FREQUENCY * np.sin(phase)
    np.savez(
        path,
        R=10.0 * positions,
        E=np.zeros((n_frames, 1)),
        # kJ/mol/nm in kcal/mol/A.
        F=-MASSES[:, None] * FREQUENCY**2 * positions / 41.84,
        z=NUMBERS,
    )


def test_published_rows_are_comparable_on_original_md17_only(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    save_stub_model(tmp_path / "flow.pt", HarmonicModel(FREQUENCY, 0.0, TEMPERATURE))
    model = load_model(tmp_path / "flow.pt")
    topology, _ = model.example()
    harmonic_md17(tmp_path / "md17_ethanol.npz", 3001)
    arguments = [
        f"--models={tmp_path / 'flow.pt'}",
        f"--data={tmp_path / 'md17_ethanol.npz'}",
        "--cases=5",
        f"--output={tmp_path}",
    ]
    cases_of = short_horizon_cases
    # Atoms of the stub lie on top of each other: no distance tells its bonds.
    monkeypatch.setattr(single_molecule, "check_positions", lambda *_: None)
    bonded = mdtraj.Topology.from_openmm(topology)
    monkeypatch.setattr(cases_of, "topology_of", lambda frames: bonded)
    short_horizon.main(arguments)
    printed = capsys.readouterr().out
    assert "published on the whole file, ADE/FDE over all 20 frames: EGNN" in printed
    assert "5 cases, together as long as 2.5 that do not overlap, 100" in printed
    assert "GeoTDM 0.115/0.209" in printed
    assert "context only" not in printed
    cases = short_horizon.md17_cases(model, tmp_path / "md17_ethanol.npz", 0.5, 5)
    # Frames of the file are numbered from its second; the last fifth begins at 2400.
    file = np.load(tmp_path / "md17_ethanol.npz")["R"] / 10.0
    first = 1 + 2400 + 90
    # They begin within 309 frames, and look 200 ahead.
    assert cases.num_independent == pytest.approx((309 + 200) / 200)
    np.testing.assert_allclose(cases.positions[0], file[first], atol=1e-9)
    np.testing.assert_allclose(cases.truth[0, 0], file[first + 10], atol=1e-9)
    np.testing.assert_allclose(cases.truth[-1, -1], file[3000], atol=1e-9)
    # Backward differences and half a kick: nothing of what is to be predicted.
    backward = (file[first] - file[first - 1]) / 0.0005
    backward -= FREQUENCY**2 * file[first] * 0.0005 / 2
    np.testing.assert_allclose(cases.velocities[0], backward, atol=1e-4)
    found = json.loads((tmp_path / "short_horizon.json").read_text())
    rows = found["results"][0]["rows"]
    assert rows["diffmd"]["ade"] < 0.2 * rows["persistence"]["ade"]
    assert "harmonic does not name the force it was trained on: no row" in printed
    harmonic_md17(tmp_path / "md17_short.npz", 1001)
    with pytest.raises(SystemExit, match=r"found 200 frames in the last 0\.2 of"):
        short_horizon.main([*arguments, f"--data={tmp_path / 'md17_short.npz'}"])
    whole = short_horizon.md17_cases(model, tmp_path / "md17_short.npz", 0.5, 2, 1.0)
    assert whole.molecule == "short"
    np.testing.assert_allclose(whole.positions[0], file[1 + 90], atol=1e-9)
    # Of a file that it was trained on: 150 frames, 150 more, and a gap of 1 ps.
    frames = read_md17(tmp_path / "md17_ethanol.npz")
    file_of = {"n_frames": 3000, "n_segments": 1, "provenance": frames.provenance}
    for share, first in ((0.05, 2300), (0.4, None)):
        trained = replace(
            model.metadata,
            reference={"data": [{**file_of, "train_frames": share * 3000}]},
            config={"data": {"fractions": (share, 0.05, 0.5)}},
        )
        path, seen = tmp_path / "md17_ethanol.npz", SimpleNamespace(metadata=trained)
        if first is None:
            with pytest.raises(ValueError, match=r"no case in the last 1 of .*trained"):
                short_horizon.md17_cases(seen, path, 0.5, 5, 1.0)
            continue
        unseen = short_horizon.md17_cases(seen, path, 0.5, 5, 1.0)
        at = 1 + first + 90
        np.testing.assert_allclose(unseen.positions[0], file[at], atol=1e-9)
    with pytest.raises(SystemExit, match="found --test-fraction 2, expected at most 1"):
        short_horizon.main([*arguments, "--test-fraction=2"])


@pytest.mark.parametrize("spacing_fs", [5.0, 2.0])
def test_force_that_a_model_was_trained_on_is_run_from_the_same_frames(
    tmp_path: Path, spacing_fs: float
):
    model = stub(tmp_path / "flow.pt", HarmonicModel(FREQUENCY, 0.0, TEMPERATURE))
    topology, _ = model.example()
    x, v = equilibrium(np.random.default_rng(6), 3)
    cases = short_horizon_cases.Cases(
        "ethanol",
        topology,
        x,
        v,
        np.zeros((3, 20, 9, 3)),
        spacing_fs,
        3.0,
        {},
    )
    assert short_horizon.run_trained_force(model, cases) == (None, None)
    xml = str(harmonic_xml(tmp_path, 9))
    made = {"potential": xml, "potential_options": {}}
    reference = {"data": 2 * [{"provenance": made}]}
    metadata = replace(model.metadata, reference=reference)
    trained = DiffusionModel(model.path, model.sha256, metadata, model.module)
    name, found = short_horizon.run_trained_force(trained, cases)
    assert name == xml
    lags = round(0.1 * 20 * spacing_fs)
    assert found.shape == (3, 1, lags, 9, 3)
    phase = FREQUENCY * 0.01 * np.arange(1, lags + 1)[:, None, None]
    expected = x[:, None] * np.cos(phase) + v[:, None] / FREQUENCY * np.sin(phase)
    # Verlet's steps of 0.5 fs are early by (w h)^2/24 of the phase.
    bound = 2 * (FREQUENCY * 0.0005) ** 2 / 24 * phase.max() * np.abs(x).max() + 1e-6
    assert np.abs(found[:, 0] - expected).max() < bound


def test_lag_that_is_no_whole_number_of_frames_is_refused(tmp_path: Path):
    odd = HarmonicModel(FREQUENCY, 0.0, TEMPERATURE, lag_time=0.007)
    model = stub(tmp_path / "odd.pt", odd)
    with pytest.raises(ValueError, match="found a lag of 7 fs and 20 frames each 5 fs"):
        short_horizon.frames_per_lag(model, 5.0)
    whole = HarmonicModel(FREQUENCY, 0.0, TEMPERATURE, lag_time=0.005)
    model = stub(tmp_path / "whole.pt", whole)
    assert short_horizon.frames_per_lag(model, 5.0) == 1
