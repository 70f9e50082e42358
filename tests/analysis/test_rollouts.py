"""Trajectories of other programs, judged as rollouts."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase.io
import ase.units
import mdtraj
import numpy as np
import pytest
from ase import Atoms
from mdtraj.formats import HDF5TrajectoryFile

from openmm_diffmd.analysis.analyze import analyze
from openmm_diffmd.analysis.comparable import has_friction_of
from openmm_diffmd.analysis.loading import BUNDLED, load_reference
from openmm_diffmd.analysis.measure import measure, prepare_reference
from openmm_diffmd.analysis.report import to_plain
from openmm_diffmd.analysis.rollouts import read_rollout
from openmm_diffmd.integrator.run import run

ORDER = [3, 1, 8, 0, 2, 7, 6, 5, 4]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run as ASE writes it, atoms in another order, and one of ours beside it."""
    folder = tmp_path_factory.mktemp("elsewhere")
    ensemble, _ = load_reference("ethanol")
    assert ensemble.velocities is not None
    numbers = np.array([atom.element.number for atom in ensemble.topology.atoms])
    frames = []
    for x, v in zip(ensemble.positions[2], ensemble.velocities[2], strict=True):
        atoms = Atoms(numbers[ORDER], 10.0 * x[ORDER])
        atoms.set_velocities(v[ORDER] * 1e-2 / ase.units.fs)
        frames.append(atoms)
    ase.io.write(folder / "md.extxyz", frames[:3000], format="extxyz")
    reference = folder / "reference.h5"
    with HDF5TrajectoryFile(str(reference), "w") as file:
        file.topology = ensemble.topology
        file.write(
            ensemble.positions[3],
            time=0.01 * np.arange(1, 1 + len(ensemble.positions[3])),
            velocities=ensemble.velocities[3],
        )
    return folder / "md.extxyz", reference


def test_a_trajectory_from_elsewhere_is_judged(files: tuple[Path, Path], tmp_path):
    rollout, reference = files
    path = analyze(
        [rollout],
        reference,
        tmp_path / "out",
        rollout_interval_fs=10.0,
        rollout_temperature_K=500.0,
    )
    (name,) = report = json.loads(path.read_text())["rollouts"]
    assert name == "md"
    assert report[name]["sidecar"] is None
    figures, goals = report[name]["figures"], report[name]["goals"]
    assert figures["analyzed_ps"] == pytest.approx(30.0)
    for symbol in ("C", "H", "O"):
        assert figures["temperatures"][symbol]["value"] > 100.0
    assert figures["h_r_error"] < 0.1
    assert not any("redrawn" in goal["name"] for goal in goals)
    assert any("velocity spectra" in goal["name"] for goal in goals)
    text = (tmp_path / "out" / "report.txt").read_text()
    assert "md, 500 K, compared each 10 fs" in text
    assert "md: atoms are named by their order in the reference" in text
    assert "md: from elsewhere, so that its redraws, if any, are not known" in text


def test_atoms_in_another_order_have_the_same_figures(make_topology):
    ensemble, _ = load_reference("ethanol")
    reference = prepare_reference(ensemble.window([0] * 4, [2000, 0, 0, 0]), 500.0)
    part = ensemble.window([0] * 4, [0, 0, 1000, 0])
    assert part.velocities is not None
    place = np.argsort(ORDER)
    mixed = dataclasses.replace(
        part,
        topology=make_topology(
            [part.symbols[i] for i in ORDER], [tuple(place[b]) for b in part.bonds]
        ),
        positions=[x[:, ORDER] for x in part.positions],
        velocities=[v[:, ORDER] for v in part.velocities],
    )
    assert mixed.symbols != part.symbols
    found, expected = (
        to_plain(measure("x", one, reference).figures) for one in (mixed, part)
    )
    for name, value in expected.items():
        if name in ("closest_contact", "hottest_bond"):
            # Which of the atoms that symmetry exchanges it was.
            continue
        np.testing.assert_allclose(
            list(numbers_in(found[name])),
            list(numbers_in(value)),
            1e-6,
            1e-9,
            True,
            name,
        )


def numbers_in(value: Any) -> Iterator[float]:
    """All numbers of dicts and lists, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from numbers_in(part)
    elif isinstance(value, int | float):
        yield value


def test_what_it_does_not_tell_has_to_be_given(files: tuple[Path, Path], tmp_path):
    rollout, reference = files
    with pytest.raises(ValueError, match="has no times, expected rollout_interval_fs"):
        read_rollout(rollout)
    for options in ((0.0, 500.0), (10.0, -500.0)):
        with pytest.raises(ValueError, match=r"found rollout_\S+ -?\d+, expected more"):
            read_rollout(rollout, *options)
    with pytest.raises(ValueError, match=r"md\.extxyz, which does not tell the tempe"):
        read_rollout(rollout, 10.0)
    found = read_rollout(rollout, 10.0, 500.0)
    assert (found.temperature, found.friction, found.redraws) == (500.0, None, None)
    assert (found.gave_up, found.rescues, found.maker) == (None, 0, "md")
    assert found.length_ps == pytest.approx(30.0)
    with pytest.raises(ValueError, match=r"steps between frames of .* 5 fs apart"):
        # Half the time: atoms move twice as far as their velocities say.
        read_rollout(rollout, 5.0, 500.0)
    with pytest.raises(ValueError, match="found the frames of reference in the refer"):
        analyze([reference], reference, tmp_path / "out", rollout_temperature_K=500.0)
    with pytest.raises(ValueError, match="equilibration_ps 40 for md, which is 30 ps"):
        analyze(
            [rollout],
            reference,
            tmp_path / "out",
            equilibration_ps=40.0,
            rollout_interval_fs=10.0,
            rollout_temperature_K=500.0,
        )
    assert not (tmp_path / "out").exists()


def test_a_dcd_is_read_with_the_pdb_beside_it(files: tuple[Path, Path], tmp_path):
    reference, _ = load_reference(files[1])
    (positions,) = reference.positions
    frames = mdtraj.Trajectory(positions[:2000], reference.topology)
    path = tmp_path / "md.dcd"
    frames.save_dcd(str(path))
    with pytest.raises(FileNotFoundError, match=r"found no .*md\.json; a rollout is"):
        read_rollout(path, 10.0, 500.0)
    frames[0].save_pdb(str(path.with_suffix(".pdb")))
    with pytest.raises(ValueError, match=r"rollout_interval_fs, .*; or what openmm-di"):
        read_rollout(path)
    found = read_rollout(path, 10.0, 500.0)
    assert (found.ensemble.velocities, found.maker) == (None, "md")
    assert found.length_ps == pytest.approx(20.0)
    np.testing.assert_allclose(found.ensemble.positions[0], positions[:2000], atol=2e-7)
    np.testing.assert_array_equal(found.ensemble.bonds, reference.bonds)


def test_a_run_of_the_reference_force_tells_its_temperature():
    bundled = BUNDLED["ethanol"]
    found = read_rollout(bundled)
    assert (found.temperature, found.friction) == (500.0, 1.0)
    with pytest.raises(ValueError, match="of 500 K, expected rollout_temperature_K 30"):
        read_rollout(bundled, temperature_K=300.0)
    # It has times of its own, where another of the same command has none.
    assert read_rollout(bundled, 5.0).ensemble.frame_interval == 0.01


def test_unknown_friction_misses_no_spectrum():
    for known, friction, same in (
        ({"friction_per_ps": 1.0}, 1.0, True),
        ({"friction_per_ps": 1.0}, 2.0, False),
        ({"friction_per_ps": 1.0}, None, False),
        ({}, None, True),
        ({}, 2.0, True),
    ):
        assert has_friction_of(known, friction) is same


def test_velocities_beside_a_rollout_of_ours_name_it(tmp_path: Path):
    path = run(
        "ethanol",
        tmp_path / "a",
        length_ps=0.05,
        seed=1,
        velocities=True,
        progress=False,
    )
    found = read_rollout(path.with_suffix(".h5"), temperature_K=500.0)
    assert found.sidecar is not None
    assert found.maker == "ethanol"
    with pytest.raises(ValueError, match="of 500 K, expected rollout_temperature_K 30"):
        read_rollout(path, temperature_K=300.0)


def test_a_run_that_broke_is_judged_as_broken(files: tuple[Path, Path], tmp_path):
    reference, _ = load_reference(files[1])
    positions = reference.positions[0][:3000].copy()
    second = reference.bonds[-1][1]
    # Its last atom flies away after a tenth of the run.
    positions[300:, second] += np.linspace(0.0, 5.0, 2700)[:, None]
    frames = mdtraj.Trajectory(positions, reference.topology)
    frames.save_dcd(str(tmp_path / "md.dcd"))
    frames[0].save_pdb(str(tmp_path / "md.pdb"))
    path = analyze(
        [tmp_path / "md.dcd"],
        files[1].with_name("reference.h5"),
        tmp_path / "out",
        rollout_interval_fs=10.0,
        rollout_temperature_K=500.0,
    )
    figures = json.loads(path.read_text())["rollouts"]["md"]["figures"]
    assert figures["n_broken"] == 1
    assert 3.0 < figures["first_break_ps"] < 4.0
