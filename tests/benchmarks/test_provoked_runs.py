import argparse
from pathlib import Path

import numpy as np
import provoked_runs
import pytest
import reliability
from harmonic_frames import (
    FREQUENCY,
    TEMPERATURE,
    equilibrium,
    stub,
)

from openmm_diffmd.testing import (
    FaultyModel,
    HarmonicModel,
)


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
