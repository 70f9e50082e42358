import json
from dataclasses import replace
from pathlib import Path

import held_out_bursts as bursts
import matplotlib.image
import numpy as np
import pytest
import reliability
import reliability_report
from harmonic_frames import (
    FREQUENCY,
    TEMPERATURE,
    equilibrium,
    exact_pairs,
    stub,
    write_reference,
)
from matplotlib.figure import Figure

from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.testing import HarmonicModel


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
    whole = read_reference(write_reference(tmp_path / "whole.h5", model, frames, {}))
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
