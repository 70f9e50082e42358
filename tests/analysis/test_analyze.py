"""The verb: files to a report, at an interval that all have."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tables
from mdtraj.formats import HDF5TrajectoryFile

from openmm_diffmd.analysis.analyze import analyze
from openmm_diffmd.analysis.comparable import (
    at_interval,
    check_temperature,
    common_interval,
)
from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.goal import NO_VELOCITIES
from openmm_diffmd.analysis.loading import load_reference, load_rollout
from openmm_diffmd.data.reference_files import PROVENANCE_ATTRIBUTE
from openmm_diffmd.sidecar import RolloutSidecar

Maker = Callable[..., Ensemble]


def write_rollout(ensemble: Ensemble, path: Path, interval_fs: float) -> Path:
    """One replica, without velocities."""
    path.parent.mkdir(exist_ok=True)
    frames = ensemble.frames()
    frames.save_dcd(str(path.with_suffix(".dcd")))
    frames[0].save_pdb(str(path.with_suffix(".pdb")))
    RolloutSidecar(
        lag_time_fs=interval_fs,
        frame_interval_fs=interval_fs,
        num_frames=frames.n_frames,
        num_replicas=1,
        atoms_per_replica=frames.n_atoms,
        model_name="ethanol",
        model_sha256="ab" * 32,
        temperature_K=500.0,
        friction_per_ps=1.0,
        seed=4,
        sampler="exponential",
        num_sampling_steps=2,
        resamples=0,
    ).write(path)
    return path


def write_reference(
    ensemble: Ensemble, path: Path, said: str = '{"friction_per_ps": 1.0}'
) -> Path:
    assert ensemble.velocities is not None
    with HDF5TrajectoryFile(str(path), "w") as file:
        file.topology = ensemble.topology
        file.write(
            ensemble.positions[0],
            time=0.01 * np.arange(1, ensemble.n_frames + 1),
            velocities=ensemble.velocities[0],
        )
    with tables.open_file(str(path), "a") as opened:
        setattr(opened.root._v_attrs, PROVENANCE_ATTRIBUTE, said)
    return path


def test_velocities_of_another_unit_are_refused(tmp_path: Path):
    # A hundred times as hot: only one of ours would be believed.
    frames = load_reference("ethanol")[0].window([0] * 4, [100, 0, 0, 0])
    assert frames.velocities is not None
    hot = dataclasses.replace(frames, velocities=[10.0 * v for v in frames.velocities])
    path = write_reference(hot, tmp_path / "r.h5", "{}")
    with pytest.raises(ValueError, match=r"e\+04 K in .*r\.h5, expected 10 to 10000 K"):
        load_reference(path)
    assert load_reference(write_reference(hot, tmp_path / "ours.h5"))


@pytest.fixture
def reference(gaussian_ethanol: Maker, tmp_path: Path) -> Path:
    return write_reference(gaussian_ethanol(1, 600, seed=1), tmp_path / "reference.h5")


def test_bonds_are_watched_between_the_frames_that_are_compared(
    gaussian_ethanol: Maker, reference: Path, tmp_path: Path
):
    ensemble = gaussian_ethanol(1, 100, seed=2)
    ensemble.positions[0][51] *= 3.0
    # The same name in two folders: each has its own verdict.
    broken = write_rollout(ensemble, tmp_path / "a" / "diffmd.json", 8.0)
    whole = write_rollout(
        gaussian_ethanol(1, 100, seed=3), tmp_path / "b" / "diffmd.json", 8.0
    )
    result = analyze([broken, whole], reference, tmp_path / "out")
    report = json.loads(result.read_text())
    assert report["frame_interval_ps"] == 0.04
    text = result.with_suffix(".txt").read_text()
    assert text.startswith("ethanol, 500 K, compared each 40 fs\n")
    first, second = report["rollouts"]["a/diffmd"], report["rollouts"]["b/diffmd"]
    assert first["figures"]["n_broken"] == 1
    assert first["figures"]["first_break_ps"] == pytest.approx(52 * 0.008)
    # Frames 5, 10 .. 50 of the 51 good ones.
    assert first["figures"]["analyzed_ps"] == pytest.approx(10 * 0.04)
    assert [r["goals"][0]["passed"] for r in (first, second)] == [False, True]
    for name in ("T(H)", "kinetic", "velocity spectra"):
        line = next(x for x in text.splitlines() if x.startswith("undecided  " + name))
        assert line.endswith(NO_VELOCITIES)
    assert "MISSED     T(" not in text


def test_intervals_that_hardly_differ_have_a_long_one_in_common(
    gaussian_ethanol: Maker, reference: Path, tmp_path: Path
):
    assert common_interval(0.01, 0.0099) == 0.99
    ensemble = dataclasses.replace(gaussian_ethanol(1, 300, seed=2), velocities=None)
    rollout = write_rollout(ensemble, tmp_path / "run.json", 9.9)
    result = analyze(rollout, reference, tmp_path / "out")
    assert json.loads(result.read_text())["frame_interval_ps"] == 0.99
    assert "compared each 990 fs" in result.with_suffix(".txt").read_text()


def test_a_hot_start_needs_time_to_equilibrate(
    gaussian_ethanol: Maker, reference: Path, tmp_path: Path
):
    path = write_rollout(gaussian_ethanol(1, 100, seed=2), tmp_path / "hot.json", 10.0)
    sidecar = RolloutSidecar.read(path)
    dataclasses.replace(sidecar, start_temperature_K=1000.0).write(path)
    with pytest.raises(
        ValueError, match=r"found equilibration_ps 0 for hot, .* 1000 K in a heat bath"
    ):
        analyze(path, reference, tmp_path / "out")
    assert analyze(path, reference, tmp_path / "out", equilibration_ps=0.2).is_file()
    dataclasses.replace(sidecar, from_geometry=True).write(path)
    with pytest.raises(ValueError, match="started from the geometry of a molecule"):
        analyze(path, reference, tmp_path / "out")


def test_another_friction_than_the_reference_is_told(
    gaussian_ethanol: Maker,
    reference: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    path = write_rollout(gaussian_ethanol(1, 100, seed=2), tmp_path / "a.json", 10.0)
    ensemble, _ = load_reference(reference)
    # By its name: the attribute of the package is the function.
    module = sys.modules["openmm_diffmd.analysis.analyze"]
    provenance = {"friction_per_ps": 2.0}
    monkeypatch.setattr(module, "load_reference", lambda *_: (ensemble, provenance))
    with pytest.warns(UserWarning, match=r"a friction of 1/ps, expected 2/ps"):
        analyze(path, reference, tmp_path / "out")
    provenance["friction_per_ps"] = 1.0
    analyze(path, reference, tmp_path / "out")


def test_a_reference_hotter_than_the_bath_is_told(
    gaussian_ethanol: Maker, reference: Path, tmp_path: Path
):
    path = write_rollout(gaussian_ethanol(1, 100, seed=2), tmp_path / "a.json", 10.0)
    sidecar = RolloutSidecar.read(path)
    dataclasses.replace(sidecar, temperature_K=389.0).write(path)
    with pytest.warns(
        UserWarning,
        match=r"vibrations of the reference at \d+ \+- \d K, expected 389 K",
    ):
        analyze(path, reference, tmp_path / "out")
    # stochastic; 4 % are not, 7 % are, of one that knows it to half a per cent.
    reference = write_reference(gaussian_ethanol(1, 3000, seed=1), tmp_path / "b.h5")
    dataclasses.replace(sidecar, temperature_K=480.0).write(path)
    analyze(path, reference, tmp_path / "out")
    dataclasses.replace(sidecar, temperature_K=467.0).write(path)
    with pytest.warns(UserWarning, match="expected 467 K"):
        analyze(path, reference, tmp_path / "out")
    # One that is too short to know is not.
    short = write_reference(gaussian_ethanol(1, 12, seed=1), tmp_path / "short.h5")
    analyze(path, short, tmp_path / "out")


def test_lags_of_the_reference_force_are_told(
    gaussian_ethanol: Maker, reference: Path, tmp_path: Path
):
    path = write_rollout(gaussian_ethanol(1, 100, seed=2), tmp_path / "a.json", 10.0)
    sidecar = RolloutSidecar.read(path)
    dataclasses.replace(sidecar, resamples=30, rescues=3).write(path)
    report = analyze(path, reference, tmp_path / "out").with_suffix(".txt").read_text()
    assert "a: 3 lags that could not be drawn were run with the reference" in report
    assert "30 redraws, of at least 3 of 100 lags" in report
    assert "MISSED     no broken bond" in report


def test_a_replica_shorter_than_the_interval_is_left_out(
    gaussian_ethanol: Maker,
):
    ensemble = gaussian_ethanol(3, 20, seed=1)
    lengths = [20, 2, 3]
    cut = dataclasses.replace(
        ensemble,
        positions=[p[:n] for p, n in zip(ensemble.positions, lengths, strict=True)],
        velocities=None,
    )
    thinned = at_interval(cut, 3 * cut.frame_interval)
    assert [len(p) for p in thinned.positions] == [6, 1]
    assert (thinned.positions[1][0] == cut.positions[2][2]).all()


def test_a_kelvin_of_difference_is_none():
    check_temperature({"temperature_K": 501.0}, 500.0)
    with pytest.raises(ValueError, match=r"reference at 501.5 K, expected 500 K"):
        check_temperature({"temperature_K": 501.5}, 500.0)


def test_the_bundled_reference_has_a_name():
    ensemble, provenance = load_reference("Ethanol")
    assert provenance["molecule"] == "ethanol"
    assert ensemble.length > 1000


def test_a_run_that_is_all_equilibration_is_refused(
    gaussian_ethanol: Maker, reference: Path, tmp_path: Path
):
    path = write_rollout(gaussian_ethanol(1, 100, seed=2), tmp_path / "run.json", 10.0)
    with pytest.raises(
        ValueError, match=r"found equilibration_ps 1 for run, which is 1 ps long"
    ):
        analyze(path, reference, tmp_path / "out", equilibration_ps=1.0)
    # What the guards ended early is judged as that.
    sidecar = dataclasses.replace(
        RolloutSidecar.read(path),
        error="OpenMMException: DiffusionIntegrator: lag 100, molecule 0: a bond",
    )
    sidecar.write(path)
    result = analyze(path, reference, tmp_path / "out", equilibration_ps=1.0)
    goals = json.loads(result.read_text())["rollouts"]["run"]["goals"]
    assert goals[0]["passed"] is False
    assert goals[0]["found"].endswith(
        "replicas broke in 1 ps until the guards ended the run"
    )


def test_a_biased_run_is_told_from_one_without(
    gaussian_ethanol: Maker, reference: Path, tmp_path: Path
):
    path = write_rollout(gaussian_ethanol(1, 100, seed=2), tmp_path / "run.json", 10.0)
    sidecar = RolloutSidecar.read(path)
    dataclasses.replace(sidecar, forces=["CustomTorsionForce"]).write(path)
    told = r"found run with forces of its System \(CustomTorsionForce\), expected none"
    with pytest.warns(UserWarning, match=told):
        analyze(path, reference, tmp_path / "out")


@pytest.mark.parametrize(
    "error", ["KeyboardInterrupt: ", "killed, or still running: 300 frames were asked"]
)
def test_a_run_that_was_stopped_has_not_broken(
    error: str, gaussian_ethanol: Maker, reference: Path, tmp_path: Path
):
    path = write_rollout(gaussian_ethanol(1, 100, seed=2), tmp_path / "run.json", 10.0)
    dataclasses.replace(RolloutSidecar.read(path), error=error).write(path)
    with pytest.warns(UserWarning, match=r"found run stopped after 1 ps .*as far as"):
        result = analyze(path, reference, tmp_path / "out")
    goals = json.loads(result.read_text())["rollouts"]["run"]["goals"]
    assert goals[0]["passed"] is True


@pytest.mark.parametrize("damage", [lambda _: b"", lambda whole: b"?" + whole[1:]])
def test_damaged_frames_are_named(
    damage: Callable[[bytes], bytes],
    gaussian_ethanol: Maker,
    reference: Path,
    tmp_path: Path,
):
    path = write_rollout(gaussian_ethanol(1, 5, seed=2), tmp_path / "run.json", 10.0)
    frames = path.with_suffix(".dcd")
    frames.write_bytes(damage(frames.read_bytes()))
    with pytest.raises(ValueError, match=r"found .*run\.dcd damaged or of other atoms"):
        analyze(path, reference, tmp_path / "out")


def test_a_folder_may_have_any_name(gaussian_ethanol: Maker, tmp_path: Path):
    path = write_rollout(gaussian_ethanol(1, 5, seed=2), tmp_path / "run.json", 10.0)
    folder = tmp_path / "José"
    folder.mkdir()
    for file in tmp_path.glob("run.*"):
        file.rename(folder / file.name)
    ensemble, _ = load_rollout(folder / path.name)
    assert ensemble.n_frames == 5


def test_window_of_one_frame_is_refused(
    gaussian_ethanol: Maker, reference: Path, tmp_path: Path
):
    rollout = write_rollout(
        gaussian_ethanol(1, 20, seed=2), tmp_path / "run.json", 10.0
    )
    with pytest.raises(ValueError, match=r"found window_ps 0.01 for frames each 0.01"):
        analyze(rollout, reference, tmp_path / "out", window_ps=0.01)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("interval", "frames"), [(7000.0, 0), (3010.0, 1)])
def test_reference_too_short_for_the_common_interval_is_refused(
    gaussian_ethanol: Maker,
    reference: Path,
    tmp_path: Path,
    interval: float,
    frames: int,
):
    rollout = write_rollout(
        gaussian_ethanol(1, 20, seed=2), tmp_path / "run.json", interval
    )
    with pytest.raises(
        ValueError,
        match=rf"reference of {frames} frames at the common interval of "
        rf"{interval / 1000:g} ps, expected two or more: give a longer reference",
    ):
        analyze(rollout, reference, tmp_path / "out")


def test_damaged_velocities_are_refused_and_can_be_left_out(
    gaussian_ethanol: Maker, tmp_path: Path
):
    ensemble = gaussian_ethanol(1, 30, seed=2)
    assert ensemble.velocities is not None
    rollout = write_rollout(ensemble, tmp_path / "run.json", 10.0)
    path = rollout.with_suffix(".h5")

    def write(velocities: np.ndarray) -> bytes:
        with HDF5TrajectoryFile(str(path), "w") as file:
            file.topology = ensemble.topology
            file.write(
                ensemble.positions[0][: len(velocities)],
                time=np.arange(len(velocities), dtype=np.float32),
                velocities=velocities,
            )
        return path.read_bytes()

    remedy = "or remove it to analyze without velocities"
    write(ensemble.velocities[0][:20])
    with pytest.raises(ValueError, match=rf"\(20, 9, 3\) in .*run.h5, exp.*{remedy}"):
        load_rollout(rollout)
    whole = write(ensemble.velocities[0])
    found = load_rollout(rollout)[0].velocities
    assert found is not None
    np.testing.assert_allclose(found[0], ensemble.velocities[0], rtol=1e-6)
    middle = 3 * len(whole) // 4
    flipped = bytes(byte ^ 0xFF for byte in whole[middle : middle + 64])
    for content in (
        whole[: len(whole) // 2],
        whole[:-100],
        whole[:middle] + flipped + whole[middle + 64 :],
        whole.replace(b"velocities", b"velocitiez"),
        whole[:8],
        b"",
        b"not found",
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"run.h5\b.*{remedy}") as refused:
            load_rollout(rollout)
        assert len(str(refused.value).splitlines()) == 1
    path.unlink()
    assert load_rollout(rollout)[0].velocities is None


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_rollout_without_its_atoms_is_refused(gaussian_ethanol: Maker, tmp_path: Path):
    rollout = write_rollout(gaussian_ethanol(1, 3, seed=2), tmp_path / "run.json", 10.0)
    rollout.with_suffix(".pdb").write_text("HETATM    1\n")
    with pytest.raises(
        ValueError, match=r"run.pdb is no PDB file .*\(AssertionError\)"
    ):
        load_rollout(rollout)
