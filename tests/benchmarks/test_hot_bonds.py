import json
from dataclasses import replace
from pathlib import Path

import held_out_bursts as bursts
import hot_bonds
import numpy as np
import pytest
from harmonic_frames import FREQUENCY, TEMPERATURE, equilibrium, stub, write_reference

from openmm_diffmd.analysis.loading import load_reference
from openmm_diffmd.export.torchscript import DiffusionModel
from openmm_diffmd.testing import HarmonicModel


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
    bursts = write_reference(folder / "bursts.h5", model, frames, said)
    x, v = equilibrium(np.random.default_rng(3), 400)
    frames = [(0, 0.01 * (k + 1), x[k], v[k]) for k in range(400)]
    said = {"temperature_K": TEMPERATURE, "seed": 3, "kind": "thermostatted"}
    return bursts, write_reference(folder / "run.h5", model, frames, said)


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
