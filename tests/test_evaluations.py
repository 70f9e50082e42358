"""The commands that measure spread, short horizon and real frames, on known stubs."""

import argparse
import itertools
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import bench_training
import held_out_bursts as bursts
import hot_bonds
import matplotlib.image
import md17_like as maker
import mdtraj
import numpy as np
import one_lag
import openmm
import perfect_runs
import provoked_runs
import pytest
import real_md17
import reliability
import reliability_report
import shape_comparison
import short_horizon
import short_horizon_cases
import torch
from matplotlib.figure import Figure
from openmm import app, unit

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.loading import load_reference, load_rollout
from openmm_diffmd.data import single_molecule
from openmm_diffmd.data.readers import read_md17, read_reference
from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.reference.dynamics import ReferenceFrame
from openmm_diffmd.reference.storage import ReferenceWriter
from openmm_diffmd.testing import (
    ETHANOL_ELEMENTS,
    FaultyModel,
    HarmonicModel,
    save_stub_model,
)
from openmm_diffmd.units import BOLTZMANN

TEMPERATURE = 300.0
FREQUENCY = 400.0
ELEMENTS = [app.Element.getBySymbol(symbol) for symbol in ETHANOL_ELEMENTS]
NUMBERS = np.array([element.atomic_number for element in ELEMENTS])
MASSES = np.array([element.mass.value_in_unit(unit.dalton) for element in ELEMENTS])


def stub(path: Path, model: HarmonicModel) -> DiffusionModel:
    return load_model(save_stub_model(path, model))


def equilibrium(
    generator: np.random.Generator, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """States of the harmonic molecule, its centre of mass at rest."""
    speed = np.sqrt(BOLTZMANN * TEMPERATURE / MASSES)[:, None]
    weights = MASSES / MASSES.sum()
    states = []
    for scale in (speed / FREQUENCY, speed):
        values = scale * generator.normal(size=(n, 9, 3))
        states.append(values - np.einsum("a,fad->fd", weights, values)[:, None])
    return states[0], states[1]


def write(path: Path, model: DiffusionModel, frames, provenance) -> Path:
    """Write (segment, time, positions, velocities) as a reference."""
    topology, _ = model.example()
    rows = list(frames)
    made = {"potential": "springs", **provenance}
    with ReferenceWriter(path, topology, MASSES, made, len(rows)) as writer:
        for segment, time, x, v in rows:
            writer.write(segment, ReferenceFrame(time, x, v, np.zeros_like(x), 0.0))
    return path


def exact_pairs(folder: Path) -> tuple[HarmonicModel, Path]:
    """Write exact.pt, and 600 pairs one lag apart that it draws from."""
    harmonic = HarmonicModel(
        FREQUENCY, friction=20.0, temperature=TEMPERATURE, lag_time=0.01
    )
    model = stub(folder / "exact.pt", harmonic)
    transition, factor = harmonic.exact_transition()
    generator = np.random.default_rng(1)
    x, v = equilibrium(generator, 600)
    noise = np.einsum("pq,qfad->pfad", factor, generator.normal(size=(2, *x.shape)))
    noise /= np.sqrt(MASSES)[:, None]
    noise -= np.einsum("a,pfad->pfd", MASSES / MASSES.sum(), noise)[:, :, None]
    after = np.einsum("pq,qfad->pfad", transition, np.stack([x, v])) + noise
    frames = [
        frame
        for k in range(600)
        for frame in ((k, 0.01, x[k], v[k]), (k, 0.02, after[0, k], after[1, k]))
    ]
    provenance = {"temperature_K": TEMPERATURE, "molecule": "exact"}
    return harmonic, write(folder / "bursts.h5", model, frames, provenance)


@pytest.mark.statistical
def test_one_lag_errors_of_an_exact_model_are_the_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    harmonic, data = exact_pairs(tmp_path)
    one_lag.main(
        [
            f"--models={tmp_path}/{{molecule}}.pt",
            f"--data={data}",
            "--pairs=600",
            f"--output={tmp_path}",
        ]
    )
    (row,) = json.loads((tmp_path / "one_lag.json").read_text())["rows"]
    assert (row["molecule"], row["pairs"]) == ("exact", 600)
    transition, factor = harmonic.exact_transition()
    # x' - x - tau v and v' - v of unit mass in equilibrium.
    ballistic = np.array([[1.0, harmonic.lag_time], [0.0, 1.0]])
    spread = np.sqrt(BOLTZMANN * TEMPERATURE) * np.array([1 / FREQUENCY, 1.0])
    noise = np.square(factor).sum(1)
    changed = np.square((transition - ballistic) * spread).sum(1) + noise
    # The mean misses the noise, a draw misses it and has its own: 1800 numbers at
    # least of an element, 1.7 % of a root mean square.
    expected = np.sqrt(noise / changed)
    for name, factor_of_draws in (("mean", 1.0), ("draw", np.sqrt(2.0))):
        found = row[name]
        for errors in found["elements"].values():
            assert errors == pytest.approx(factor_of_draws * expected, rel=0.08)
        values = list(found["elements"].values())
        assert found["average"] == pytest.approx(np.mean(values))
        assert 0 < found["error"] < 0.03 * found["average"]
    with monkeypatch.context() as patch:
        # Groups whose errors are 0 to 9: their mean is known to 3.03 / sqrt(10).
        errors = itertools.count()
        patch.setattr(
            one_lag,
            "relative_errors",
            lambda *_: torch.full((3, 2), float(next(errors) % 10)),
        )
        one_lag.main(
            [
                f"--models={tmp_path}/{{molecule}}.pt",
                f"--data={data}",
                f"--output={tmp_path}",
            ]
        )
    (row,) = json.loads((tmp_path / "one_lag.json").read_text())["rows"]
    assert row["mean"]["error"] == pytest.approx(np.std(range(10), ddof=1) / 10**0.5)
    monkeypatch.setattr(bursts, "unseen", lambda t, _: np.zeros(t.n_frames, bool))
    with pytest.raises(SystemExit, match=r"exact\.pt.*found no frame.*another seed"):
        one_lag.main([f"--models={tmp_path / 'exact.pt'}", f"--data={data}"])


def flow_bursts(folder: Path, model: DiffusionModel) -> tuple[Path, Path]:
    """Pairs of the exact flow, half of them hot, and a reference at equilibrium."""
    harmonic = HarmonicModel(FREQUENCY, 0.0, TEMPERATURE)
    transition, _ = harmonic.exact_transition()
    x, v = equilibrium(np.random.default_rng(2), 400)
    x[::2], v[::2] = 2.5 * x[::2], 2.5 * v[::2]
    after = np.einsum("pq,qfad->pfad", transition, np.stack([x, v]))
    frames = [
        frame
        for k in range(400)
        for frame in ((k, 0.01, x[k], v[k]), (k, 0.02, after[0, k], after[1, k]))
    ]
    said = {"molecule": "a", "temperature_K": TEMPERATURE, "seed": 2, "kind": "bursts"}
    bursts = write(folder / "bursts.h5", model, frames, said)
    x, v = equilibrium(np.random.default_rng(3), 400)
    frames = [(0, 0.01 * (k + 1), x[k], v[k]) for k in range(400)]
    said = {"temperature_K": TEMPERATURE, "seed": 3, "kind": "thermostatted"}
    return bursts, write(folder / "run.h5", model, frames, said)


def test_an_exact_model_moves_hot_bonds_as_well(tmp_path: Path, capsys):
    model = stub(tmp_path / "exact.pt", HarmonicModel(FREQUENCY, 0.0, TEMPERATURE))
    data, reference = flow_bursts(tmp_path, model)
    words = [f"--models={tmp_path / 'exact.pt'}", f"--data={data}"]
    words += [f"--reference={reference}", f"--output={tmp_path}"]
    hot_bonds.main(words)
    (row,) = json.loads((tmp_path / "hot_bonds.json").read_text())["rows"]
    assert set(row["bonds"]) == {"C-C", "C-H", "C-O", "H-O"}
    cells = row["bonds"]["C-H"]
    assert sum(cell["bonds"] for cell in cells) <= 5 * 400
    for cell in cells:
        assert cell["bonds"] > 20
        assert cell["error"] < 1e-3
        assert abs(cell["gain"]) < 1e-3 * cell["kT"][1]
    assert "10 to 20 kT" in capsys.readouterr().out


def test_errors_of_hot_bonds_are_in_parts_of_their_amplitude():
    phases = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    # 1 kT in one bond, 8 in the other; the model adds 1 and 2 % of amplitude.
    amplitude = np.sqrt(2 * np.array([1.0, 8.0]))
    share = np.array([1.01, 1.02])

    def stretches(angle, factor=1.0):
        a = factor * amplitude
        offsets = a * np.cos(angle)[:, None]
        return hot_bonds.Stretches(offsets, a * np.sin(angle)[:, None])

    cells = hot_bonds.errors_by_energy(
        stretches(phases), stretches(phases + 1), stretches(phases + 1, share)
    )
    cold, none, hot, hottest = cells
    assert (none["bonds"], hottest["bonds"]) == (0, 0)
    assert "error" not in none
    for cell, error, energy in ((cold, 0.01, 1.0), (hot, 0.02, 8.0)):
        assert cell["bonds"] == 200
        assert cell["error"] == pytest.approx(error)
        assert cell["gain"] == pytest.approx(energy * ((1 + error) ** 2 - 1))
        assert cell["gain_error"] == pytest.approx(0, abs=1e-9)


def test_hot_bonds_of_another_molecule_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = stub(tmp_path / "exact.pt", HarmonicModel(FREQUENCY, 0.0, TEMPERATURE))
    data, reference = flow_bursts(tmp_path, model)
    words = [f"--models={tmp_path / 'exact.pt'}", f"--data={data}"]
    words += [f"--reference={reference}", f"--output={tmp_path}"]
    loaded, provenance = load_reference(reference)
    fewer = loaded.topology.subset(range(8))
    other = replace(
        loaded,
        topology=fewer,
        positions=[x[:, :8] for x in loaded.positions],
        velocities=[v[:, :8] for v in loaded.velocities or []],
    )
    with monkeypatch.context() as patch:
        patch.setattr(hot_bonds, "load_reference", lambda _: (other, provenance))
        with pytest.raises(SystemExit, match="found a reference of atoms C-C-O-H-H"):
            hot_bonds.main(words)
        cold = {**provenance, "temperature_K": TEMPERATURE - 50.0}
        patch.setattr(hot_bonds, "load_reference", lambda _: (loaded, cold))
        with pytest.raises(SystemExit, match=r"found a reference at .* K, expected"):
            hot_bonds.main(words)
    monkeypatch.setattr(bursts, "unseen", lambda t, _: np.zeros(t.n_frames, bool))
    with pytest.raises(SystemExit, match=r"found no frame.*another seed"):
        hot_bonds.main(words)


@pytest.mark.statistical
def test_exact_model_is_found_calibrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # stochastic; 600 pairs of 9 atoms.
    _, data = exact_pairs(tmp_path)
    # With data and no provoked runs no reference is needed, as of another molecule.
    monkeypatch.setattr(reliability, "reference_of", lambda *_: 1 / 0)
    reliability.main(
        [
            f"--model={tmp_path / 'exact.pt'}",
            f"--data={data}",
            "--lags=0",
            "--draws=16",
            f"--output={tmp_path}",
        ]
    )
    found = json.loads((tmp_path / "reliability.json").read_text())
    assert found["pairs"] == 600
    assert sorted(found["reliability"]) == ["C", "H", "O"]
    for quantities in found["reliability"].values():
        for r in quantities.values():
            # 1800 numbers at least: 1.7 % of a root mean square, and 1 % of the spread.
            assert r["ratio"] == pytest.approx(1.0, abs=0.08)
    assert found["warning"] == {}
    assert matplotlib.image.imread(tmp_path / "reliability.png").ndim == 3


def test_pairs_are_counted_in_files_of_several_molecules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = stub(tmp_path / "flow.pt", HarmonicModel(FREQUENCY, 0.0, TEMPERATURE))
    x, v = equilibrium(np.random.default_rng(9), 20)
    frames = [(0, 0.01 * (k + 1), x[k], v[k]) for k in range(20)]
    whole = read_reference(write(tmp_path / "whole.h5", model, frames, {}))
    few = replace(
        whole,
        positions=whole.positions[:, :3],
        velocities=whole.velocities[:, :3],
        forces=None,
        atomic_numbers=whole.atomic_numbers[:3],
        masses=whole.masses[:3],
        bonds=whole.bonds[:0],
    )
    *_, symbols, n_pairs = reliability.predict(model, [whole, few], 99, 2)
    assert n_pairs == 2 * 19
    assert len(symbols) == 19 * (9 + 3)
    # The model has seen all of the second file.
    kept = {9: np.ones(20, bool), 3: np.zeros(20, bool)}
    monkeypatch.setattr(bursts, "unseen", lambda t, _: kept[t.n_atoms])
    with pytest.raises(ValueError, match=r"found no frame.*another seed"):
        reliability.predict(model, [whole, few], 99, 2)


def test_all_elements_and_runs_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    generator = np.random.default_rng(10)
    measured = reliability.measure_reliability(
        np.exp(generator.normal(size=200)), generator.normal(size=(200, 3))
    )
    rows = {
        f"E{n}": dict.fromkeys(("position", "velocity"), measured) for n in "123456"
    }
    calm, before = generator.random(500), 1 + generator.random((30, 21))
    warning = reliability.measure_warning(calm, before, 0.01)
    run = {"calm": calm, "before": before, "warning": warning}
    drawn = []
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *_, **__: drawn.append(figure)
    )
    reliability_report.draw(
        rows, {f"run {n}": run for n in "123456"}, tmp_path / "a.png", "title"
    )
    for axes, name in zip(drawn[0].axes, ("E", "E", "run ", "run "), strict=True):
        labels = axes.get_legend_handles_labels()[1]
        assert sum(label.startswith(name) for label in labels) == 6
    curves = [
        line for line in drawn[0].axes[3].get_lines() if "area" in line.get_label()
    ]
    assert len({(line.get_color(), line.get_linestyle()) for line in curves}) == 6


def test_ways_to_provoke_are_told_apart(tmp_path: Path):
    model = stub(tmp_path / "a.pt", HarmonicModel(temperature=TEMPERATURE))
    asked = argparse.Namespace(
        frictions_per_ps=[0.5],
        temperatures_K=[900.0],
        free_temperatures_K=[TEMPERATURE],
    )
    assert reliability.ways_to_provoke(model, asked) == {
        "300 K": (300.0, 1.0),
        "300 K, 0.5/ps": (300.0, 0.5),
        "900 K": (900.0, 1.0),
        "300 K, no bath": (300.0, 0.0),
    }
    asked.temperatures_K = [TEMPERATURE]
    with pytest.raises(ValueError, match="found the runs 300 K twice"):
        reliability.ways_to_provoke(model, asked)


def test_refusals_of_a_provoked_run_are_found(tmp_path: Path):
    # A hydrogen farther than 3.5 standard deviations is spoilt beyond repair.
    faulty = FaultyModel(
        fault="bond",
        below_level=2.0,
        min_displacement=3.5 * 0.00394,
        angular_frequency=FREQUENCY,
        temperature=TEMPERATURE,
    )
    model = stub(tmp_path / "faulty.pt", faulty)
    starts, _ = equilibrium(np.random.default_rng(2), 8)
    topology, _ = model.example()
    run = provoked_runs.Provocation(
        model,
        topology,
        starts,
        temperature=TEMPERATURE,
        friction=5.0,
        num_draws=2,
        seed=1,
    ).run(60, "test")
    assert run.spreads.shape == (60, 8, 9, 2)
    assert len(run.breaks) >= 1
    assert {(lag, m) for lag, m in run.breaks} <= set(run.events)
    assert all(0 <= lag < 60 and 0 <= m < 8 for lag, m in run.events)
    # The same, from the same seed.
    again = provoked_runs.Provocation(
        model,
        topology,
        starts,
        temperature=TEMPERATURE,
        friction=5.0,
        num_draws=2,
        seed=1,
    ).run(60, "test")
    assert again.events == run.events


def test_every_replica_of_a_provoked_run_has_its_spread(tmp_path: Path):
    # More than the propagator takes in one call by default: 5184 pairs of atoms.
    exact = HarmonicModel(FREQUENCY, 0.0, TEMPERATURE)
    model = stub(tmp_path / "exact.pt", exact)
    starts, _ = equilibrium(np.random.default_rng(2), 66)
    topology, _ = model.example()
    provocation = provoked_runs.Provocation(
        model,
        topology,
        starts,
        temperature=TEMPERATURE,
        friction=5.0,
        num_draws=2,
        seed=1,
    )
    assert provocation.run(2, "test").spreads.shape == (2, 66, 9, 2)


def harmonic_xml(folder: Path, n_atoms: int) -> Path:
    """Atoms bound to the origin: the stub's potential, without the centre of mass."""
    system = openmm.System()
    spring = openmm.CustomExternalForce("0.5*k*(x^2+y^2+z^2)")
    spring.addPerParticleParameter("k")
    for index in range(n_atoms):
        system.addParticle(MASSES[index])
        spring.addParticle(index, [MASSES[index] * FREQUENCY**2])
    system.addForce(spring)
    path = folder / "spring.xml"
    path.write_text(openmm.XmlSerializer.serialize(system))
    return path


def test_bursts_are_the_forces_and_of_the_test_part(tmp_path: Path):
    model = stub(tmp_path / "flow.pt", HarmonicModel(FREQUENCY, 0.0, TEMPERATURE))
    x, v = equilibrium(np.random.default_rng(3), 50)
    provenance = {
        "temperature_K": TEMPERATURE,
        "potential": str(harmonic_xml(tmp_path, 9)),
        "kind": "thermostatted",
    }
    frames = [(0, 0.01 * (k + 1), x[k], v[k]) for k in range(50)]
    reference = write(tmp_path / "reference.h5", model, frames, provenance)
    made = bursts.make_bursts(reference, model.metadata, 4, tmp_path)
    assert made.n_frames == 4 * 30
    assert made.provenance["made_of"]["frames"] == [40, 43, 46, 49]
    # Verlet's steps of 0.5 fs are early by (w h)^2/24 of the phase.
    phase = FREQUENCY * made.times[:30, None, None]
    expected = x[43] * np.cos(phase) + v[43] / FREQUENCY * np.sin(phase)
    bound = 2 * (FREQUENCY * 0.0005) ** 2 / 24 * phase.max() * np.abs(x).max() + 1e-6
    assert np.abs(made.positions[30:60] - expected).max() < bound
    # Read the second time; another number of bursts is another file.
    (file,) = tmp_path.glob("bursts_molecule_*.h5")
    modified = file.stat().st_mtime_ns
    bursts.make_bursts(reference, model.metadata, 4, tmp_path)
    assert file.stat().st_mtime_ns == modified
    bursts.make_bursts(reference, model.metadata, 3, tmp_path)
    assert len(list(tmp_path.glob("bursts_molecule_*.h5"))) == 2


def test_frames_that_an_earlier_training_saw_are_not_unseen(tmp_path: Path):
    model = stub(tmp_path / "flow.pt", HarmonicModel(FREQUENCY, 0.0, TEMPERATURE))
    x, v = equilibrium(np.random.default_rng(3), 50)
    said = {"molecule": "a", "temperature_K": TEMPERATURE, "seed": 1, "kind": "bursts"}
    frames = [(k // 10, 0.01 * (k % 10 + 1), x[k], v[k]) for k in range(50)]
    trajectory = read_reference(write(tmp_path / "run.h5", model, frames, said))
    file = {
        "n_frames": 50,
        "n_segments": 5,
        "train_frames": 20,
        "provenance": trajectory.provenance,
    }
    earlier = {"data": {"fractions": (0.4, 0.2, 0.4)}, "files": [file]}
    for history, expected in (([], 50), ([earlier], 10)):
        metadata = replace(model.metadata, config={"history": history})
        assert bursts.unseen(trajectory, metadata).sum() == expected


def test_bundled_models_have_seen_what_those_they_began_from_saw():
    for name in ("ethanol", "ethanol_20fs", "md17", "aspirin"):
        metadata = load_model(name).metadata
        files = [file for files, _ in bursts._trainings(metadata) for file in files]
        seeds = {
            file["provenance"].get("seed")
            for file in files
            if file["provenance"].get("molecule") == "ethanol"
        }
        assert {1, 2} <= seeds, name


def test_one_lag_errors_are_not_of_a_heat_bath(tmp_path: Path):
    model = stub(tmp_path / "flow.pt", HarmonicModel(FREQUENCY, 0.0, TEMPERATURE))
    x, v = equilibrium(np.random.default_rng(3), 50)
    frames = [(0, 0.01 * (k + 1), x[k], v[k]) for k in range(50)]
    for said in ({"kind": "thermostatted"}, {"friction_per_ps": 1.0}):
        data = write(tmp_path / "run.h5", model, frames, said)
        with pytest.raises(SystemExit, match="frames of a run in a heat bath"):
            one_lag.main([f"--models={tmp_path / 'flow.pt'}", f"--data={data}"])
        data.unlink()


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
    reference = write(tmp_path / "reference.h5", model, frames, provenance)
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
    reference = write(
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
    reference = write(
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
    real = write(tmp_path / "real.h5", model, frames, {"temperature_K": TEMPERATURE})
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
    reference = write(
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
    reference = write(tmp_path / "reference.h5", model, frames, provenance)
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


def test_a_training_step_is_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "bench.json"
    words = ["--batch-size=2", "--seconds=0.01", "--threads=1", f"--output={path}"]
    threads = torch.get_num_threads()
    try:
        bench_training.main(words)
    finally:
        torch.set_num_threads(threads)
    costs = json.loads(path.read_text())["costs"]
    assert [cost["part"] for cost in costs] == [
        "training step",
        "encode, no gradient",
        "denoise, no gradient",
    ]
    assert all(cost["wall_ms"] > 0 for cost in costs)
    assert "training step: goal" in capsys.readouterr().out
