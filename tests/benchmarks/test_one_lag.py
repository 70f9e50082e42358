import itertools
import json
from pathlib import Path

import held_out_bursts as bursts
import numpy as np
import one_lag
import pytest
import torch
from harmonic_frames import (
    FREQUENCY,
    TEMPERATURE,
    equilibrium,
    exact_pairs,
    stub,
    write_reference,
)

from openmm_diffmd.testing import HarmonicModel
from openmm_diffmd.units import BOLTZMANN


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


def test_one_lag_errors_are_not_of_a_heat_bath(tmp_path: Path):
    model = stub(tmp_path / "flow.pt", HarmonicModel(FREQUENCY, 0.0, TEMPERATURE))
    x, v = equilibrium(np.random.default_rng(3), 50)
    frames = [(0, 0.01 * (k + 1), x[k], v[k]) for k in range(50)]
    for said in ({"kind": "thermostatted"}, {"friction_per_ps": 1.0}):
        data = write_reference(tmp_path / "run.h5", model, frames, said)
        with pytest.raises(SystemExit, match="frames of a run in a heat bath"):
            one_lag.main([f"--models={tmp_path / 'flow.pt'}", f"--data={data}"])
        data.unlink()
