"""Bursts of a force from the frames of rollouts where they were furthest out."""

import dataclasses
import itertools
import shutil

import numpy as np
import pytest

from openmm_diffmd import cli
from openmm_diffmd.analysis.loading import load_rollout
from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.integrator.run import run
from openmm_diffmd.reference.dynamics import DynamicsError
from openmm_diffmd.revisiting import bursts
from openmm_diffmd.revisiting.bursts import revisit
from openmm_diffmd.revisiting.outermost import near_pairs, outermost_frames
from openmm_diffmd.sidecar import RolloutSidecar
from openmm_diffmd.testing import save_stub_model

FEW = {"num_frames": 1, "distances": [[0, 1], [2, 3]], "progress": False}
RUN = {"replicas": 2, "length_ps": 2.0, "seed": 3, "threads": 1, "progress": False}


@pytest.fixture(scope="module")
def rollout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rollout")
    return run(model="ethanol", output=folder / "ethanol", velocities=True, **RUN)


def test_bursts_follow_the_force_from_the_outermost_frames(rollout, tmp_path, capsys):
    words = ["--rollouts", str(rollout), "--num_frames", "1", "--progress", "false"]
    assert cli.main(["revisit", *words, "--output", str(tmp_path / "out")]) == 0
    file = tmp_path / "out" / "bursts.h5"
    assert capsys.readouterr().out.strip().endswith(str(file))
    found = read_reference(file)
    ensemble, sidecar = load_rollout(rollout)
    # 1 ps is left out of each replica.
    late = ensemble.window([100, 100], [200, 200])
    frames = outermost_frames(late, near_pairs(late.topology), 1)
    starts = np.concatenate(late.positions)[frames]
    first = found.segments.searchsorted(np.arange(len(frames)))
    assert len(found.positions) == 30 * len(frames)
    speeds = np.concatenate(late.velocities)[frames]
    # A femtosecond later.
    moved = 0.0005 * (speeds + found.velocities[first])
    np.testing.assert_allclose(found.positions[first], starts + moved, atol=3e-4)
    assert np.abs(moved).max() > 3e-3
    kinetic = 0.5 * np.einsum("i,fia->f", found.masses, found.velocities**2)
    total = (found.potential_energies + kinetic).reshape(len(frames), 30)
    # Frictionless: the energy of a burst stays, those of bursts differ.
    assert total.std(1).max() < 0.1 * total.std()
    provenance = found.provenance
    assert provenance["kind"] == "bursts"
    assert (provenance["friction_per_ps"], provenance["temperature_K"]) == (0, 500)
    assert provenance["molecule"] == "C2H6O"
    (source,) = provenance["revisited"]
    assert source["model_sha256"] == sidecar.model_sha256
    assert rollout.name in provenance["sha256"]


def test_the_same_rollout_gives_the_same_bursts(rollout, tmp_path):
    files = [revisit(rollout, tmp_path / name, **FEW) for name in ("one", "two")]
    one, two = map(read_reference, files)
    np.testing.assert_array_equal(one.positions, two.positions)
    with pytest.raises(FileExistsError, match=r"bursts\.h5"):
        revisit(rollout, tmp_path / "one")


def test_a_frame_that_the_force_fails_from_costs_no_other(
    rollout, tmp_path, monkeypatch
):
    whole = read_reference(revisit(rollout, tmp_path / "whole", **FEW))
    calls, run_burst = itertools.count(), bursts.run_burst

    def fail_once(*args):
        (fail if next(calls) == 3 else run_burst)(*args)

    monkeypatch.setattr(bursts, "run_burst", fail_once)
    with pytest.warns(UserWarning, match=r"found 1 of \d+ frames .* SCF not converged"):
        file = revisit(rollout, tmp_path / "most", **FEW)
    expected = whole.positions[whole.segments != 3]
    # The force's iterations begin where the frame before ended.
    np.testing.assert_allclose(read_reference(file).positions, expected, atol=1e-5)
    monkeypatch.setattr(bursts, "run_burst", fail)
    with pytest.raises(DynamicsError, match="SCF not converged"):
        revisit(rollout, tmp_path / "none", **FEW)


def fail(*_args):
    raise DynamicsError("SCF not converged")


def changed(rollout, folder, **settings):
    for suffix in (".json", ".pdb", ".dcd", ".h5"):
        shutil.copy(rollout.with_suffix(suffix), folder / f"changed{suffix}")
    path = folder / "changed.json"
    dataclasses.replace(RolloutSidecar.read(path), **settings).write(path)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_frames": 0}, "num_frames 0, expected at least 1"),
        ({"equilibration_ps": 2.0}, "of 2 ps, expected more than equilibration_ps 2"),
        ({"equilibration_ps": -1.0}, "equilibration_ps -1, expected at least 0"),
        ({"burst_length_ps": 0.0305}, "burst_length_ps"),
        ({"burst_length_ps": 0.01}, r"ps 0.01, expected more than a lag .*, 10 fs"),
        ({"rollouts": []}, "found no rollout"),
        ({"distances": [[0, 0]]}, r"distance \[0, 0\], expected two atoms from 0 to 8"),
        ({"distances": [[0, 9]]}, r"distance \[0, 9\], expected two"),
        ({"distances": [[0, 1, 1]]}, r"distance \[0, 1, 1\], expected two"),
        ({"distances": []}, "found no distance, expected one or more"),
        ({"potential": "GFN3-xTB"}, "GFN3-xTB"),
    ],
)
def test_what_cannot_be_asked_is_refused_first(rollout, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        revisit(**{"rollouts": rollout, "output": tmp_path / "out", **change})
    assert not (tmp_path / "out").exists()


def test_the_force_is_the_one_that_the_model_learned(rollout, tmp_path):
    assert RolloutSidecar.read(rollout).potential == "GFN2-xTB"
    other = changed(rollout, tmp_path, potential="GFN1-xTB")
    file = revisit(other, tmp_path / "gfn1", **FEW)
    assert read_reference(file).provenance["potential"] == "GFN1-xTB"
    second = run(
        model="ethanol",
        output=tmp_path / "second",
        velocities=True,
        **RUN | {"seed": 4},
    )
    with pytest.raises(ValueError, match=r"several forces .*GFN1.*give potential"):
        revisit([second, other], tmp_path / "both", **FEW)
    charged = changed(rollout, tmp_path, potential_options={"charge": 1})
    with pytest.raises(ValueError, match="found 25 electrons"):
        revisit(charged, tmp_path / "charged", **FEW)
    trained = changed(rollout, tmp_path, potential="force.pt")
    with pytest.raises(ValueError, match=r"learned the force force\.pt.*--potential"):
        revisit(trained, tmp_path / "trained", **FEW)


def test_rollouts_have_to_go_together(rollout, tmp_path):
    hotter = changed(rollout, tmp_path, temperature_K=600.0)
    with pytest.raises(ValueError, match=r"at 600 K .* expected 500 K"):
        revisit([rollout, hotter], tmp_path / "out")
    stub = save_stub_model(tmp_path / "stub.pt")
    other = run(
        model=str(stub), output=tmp_path / "other", **RUN | {"velocities": True}
    )
    with pytest.raises(ValueError, match=r"another molecule in .*other\.json"):
        revisit([rollout, other], tmp_path / "out")
    twice = changed(rollout, tmp_path)
    with pytest.raises(ValueError, match=r"same frames in .*ethanol\.json and .*chang"):
        revisit([rollout, twice], tmp_path / "out")
    hotter.with_suffix(".h5").unlink()
    with pytest.raises(ValueError, match="without velocities"):
        revisit(hotter, tmp_path / "out")
