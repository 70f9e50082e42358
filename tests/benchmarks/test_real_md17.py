import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import real_md17
import shape_comparison
from harmonic_frames import (
    FREQUENCY,
    NUMBERS,
    TEMPERATURE,
    equilibrium,
    stub,
    write_reference,
)

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.loading import load_reference, load_rollout
from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.testing import (
    HarmonicModel,
    save_stub_model,
)


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
    ensemble, provenance = real_md17.load_frames(tmp_path / "water.npz")
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
        real_md17.load_frames(tmp_path / "one.npz")


def test_the_bundled_reference_is_taken_at_its_temperature():
    real, _ = load_reference(Path("ethanol"))
    for name in ("ethanol", "md17"):
        reference, said = real_md17.find_reference(load_model(name), None, real, 500.0)
        assert reference is not None
        assert said["potential"] == "GFN2-xTB"
    assert real_md17.find_reference(load_model("ethanol"), None, real, 643.0) == (
        None,
        {},
    )
    # Another force.
    assert real_md17.find_reference(load_model("ethanol_pbe"), None, real, 500.0) == (
        None,
        {},
    )
    with pytest.raises(ValueError, match="found a reference at 500 K, expected 643 K"):
        real_md17.find_reference(load_model("ethanol"), Path("ethanol"), real, 643.0)


def test_difference_of_a_rollout_is_told_from_its_forces(tmp_path: Path):
    # stochastic; the reference is 2 % too large, the rollout is as the reference.
    generator = np.random.default_rng(6)
    places = np.array(
        [
            [0.0, 0.0, 0.0],
            [0.152, 0.0, 0.0],
            [0.2, 0.135, 0.0],
            [-0.04, 0.1, 0.0],
            [-0.04, -0.05, 0.09],
            [-0.04, -0.05, -0.09],
            [0.19, -0.05, 0.09],
            [0.19, -0.05, -0.09],
            [0.295, 0.13, 0.0],
        ]
    )
    x = places + 0.002 * generator.normal(size=(3000, 9, 3))
    order = generator.permutation(9)
    np.savez(
        tmp_path / "rmd17_ethanol.npz",
        nuclear_charges=NUMBERS[order],
        coords=10.0 * x[:1000, order],
        energies=np.zeros(1000),
        forces=np.zeros((1000, 9, 3)),
        old_indices=10 * generator.permutation(1000),
    )
    real, provenance = real_md17.load_frames(tmp_path / "rmd17_ethanol.npz")
    assert provenance["data"] == "rMD17"
    assert len(real.bonds) == 8
    model = stub(tmp_path / "flow.pt", HarmonicModel())
    frames = [(0, 0.01 * (k + 1), y, np.zeros_like(y)) for k, y in enumerate(1.02 * x)]
    reference = write_reference(
        tmp_path / "reference.h5", model, frames, {"temperature_K": TEMPERATURE}
    )
    ensemble, _ = load_reference(reference)
    first = ensemble.window([0], [1500])
    second = ensemble.window([1500], [3000])
    sets = {"rollout": first, "real": real, "reference": second}
    shapes = shape_comparison.shapes_of(sets)
    found = shape_comparison.compare_all(shapes)
    rows = found["rows"]
    assert found["share"] > 0.8
    assert rows["rollout - real"]["h_r_error"] > 0.3
    assert rows["rollout - reference"]["h_r_error"] < 0.1
    bonds = rows["rollout - real"]["divergences"]["bonds"]
    assert bonds > 10 * rows["rollout - reference"]["divergences"]["bonds"]
    # Twice as far from the same places: four times the variance, as temperature.
    wide, narrow = (
        Ensemble(ensemble.topology, 0.01, [places + scale * (x[:1000] - places)])
        for scale in (0.4, 0.2)
    )
    for ratio in shape_comparison.variance_ratios(wide, narrow).values():
        assert ratio == pytest.approx(4.0, rel=0.02)
    # A rollout as the real frames differs from its reference, and has no such share.
    right = Ensemble(ensemble.topology, 0.01, [x[2000:]])
    found = shape_comparison.compare_all(
        shapes | shape_comparison.shapes_of({"rollout": right})
    )
    assert found["rows"]["rollout - real"]["h_r_error"] < 0.1


def test_real_md17_runs_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save_stub_model(
        tmp_path / "flow.pt",
        HarmonicModel(FREQUENCY, 0.0, TEMPERATURE),
    )
    model = load_model(tmp_path / "flow.pt")
    x, v = equilibrium(np.random.default_rng(8), 300)
    frames = [(0, 0.01 * (k + 1), x[k], v[k]) for k in range(300)]
    reference = write_reference(
        tmp_path / "reference.h5",
        model,
        frames,
        {"temperature_K": TEMPERATURE, "potential": "harmonic"},
    )
    # Frames with bonds of their own, as the stub's atoms lie on top of each other.
    words = [
        f"--data={reference}",
        f"--reference={reference}",
        f"--model={tmp_path / 'flow.pt'}",
        "--replicas=2",
        "--length-ps=8",
        f"--output={tmp_path}",
    ]
    real_md17.main(words)
    # Its rollout stays one, for `analyze` and for another time.
    rollout, _ = load_rollout(tmp_path / "real_md17_rollout.json")
    assert rollout.n_replicas == 2
    real_md17.main(words)
    found = json.loads((tmp_path / "real_md17.json").read_text())
    assert found["rows"]["reference - real"]["h_r_error"] == 0.0
    assert found["broken"] == 0
    assert found["share"] == 0.0
    assert read_reference(reference).n_frames == found["frames"] == 300
    assert found["variance_ratios"]
    assert all(r == pytest.approx(1.0) for r in found["variance_ratios"].values())
    out = capsys.readouterr().out
    assert "rollout, half - half" in out
    assert "vary 1.00 times as much as the reference's (median of" in out
    assert matplotlib.image.imread(tmp_path / "real_md17.png").ndim == 3


def test_real_md17_needs_no_reference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    # stochastic; frames and model are of the same springs.
    model = stub(tmp_path / "flow.pt", HarmonicModel(FREQUENCY, 0.0, TEMPERATURE))
    x, v = equilibrium(np.random.default_rng(8), 300)
    frames = [(0, 0.01 * (k + 1), x[k], v[k]) for k in range(300)]
    real = write_reference(
        tmp_path / "real.h5", model, frames, {"temperature_K": TEMPERATURE}
    )
    words = [f"--data={real}", f"--model={tmp_path / 'flow.pt'}", "--replicas=3"]
    words += ["--length-ps=8", f"--output={tmp_path}"]
    # It is called ethanol, but is not at the bundled reference's 500 K.
    real_md17.main(words)
    found = json.loads((tmp_path / "real_md17.json").read_text())
    rows = found["rows"]
    assert list(rows) == ["rollout - real", "rollout, half - half", "real, half - half"]
    assert rows["rollout - real"]["h_r_error"] < 0.2
    assert found["share"] is None
    assert found["reference"] == {}
    # 3 replicas of 6 ps; friction 1/ps.
    for ratio in found["variance_ratios"].values():
        assert ratio == pytest.approx(1.0, rel=0.3)
    out = capsys.readouterr().out
    assert "as much as the rollout's (median of" in out
    assert "Without a reference" in out
    rollout, _ = load_rollout(tmp_path / "real_md17_rollout.json")
    assert rollout.n_replicas == 3


def test_real_md17_rounds_its_default_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    harmonic = HarmonicModel(FREQUENCY, 0.0, TEMPERATURE, lag_time=0.015)
    model = stub(tmp_path / "long.pt", harmonic)
    x, v = equilibrium(np.random.default_rng(11), 300)
    frames = [(0, 0.01 * (k + 1), x[k], v[k]) for k in range(300)]
    reference = write_reference(
        tmp_path / "reference.h5", model, frames, {"temperature_K": TEMPERATURE}
    )
    asked = []

    def stop(model, topology, starts, output, settings):
        asked.append(settings.length_ps)
        raise ValueError("far enough")

    monkeypatch.setattr(real_md17, "roll_out", stop)
    words = [f"--data={reference}", f"--reference={reference}"]
    words += [f"--model={tmp_path / 'long.pt'}", f"--output={tmp_path}"]
    with pytest.raises(SystemExit, match="far enough"):
        real_md17.main(words)
    assert asked == [pytest.approx(24.99)]
    with pytest.raises(
        SystemExit, match=r"found length_ps 25, expected a whole number"
    ):
        real_md17.main([*words, "--length-ps=25"])


def test_real_md17_refuses_options_of_a_run_beside_one_that_was_made():
    words = ["--data=real.npz", "--rollout=mine.json", "--temperature-K=643"]
    with pytest.raises(
        SystemExit, match=r"found --rollout and --temperature-K, --seed, expected one"
    ):
        real_md17.main([*words, "--seed=3"])
