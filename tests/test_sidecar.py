import dataclasses
import json
from pathlib import Path

import pytest

from openmm_diffmd.sidecar import RolloutSidecar

SIDECAR = RolloutSidecar(
    lag_time_fs=10.0,
    frame_interval_fs=50.0,
    num_frames=7,
    num_replicas=3,
    atoms_per_replica=9,
    model_name="ethanol",
    model_sha256="ab" * 32,
    temperature_K=500.0,
    friction_per_ps=1.0,
    seed=4,
    sampler="exponential",
    num_sampling_steps=2,
    resamples=5,
    versions={"openmm": "8.6.1"},
)


def test_sidecar_read_back_is_equal(tmp_path: Path):
    SIDECAR.write(tmp_path / "a.json")
    assert RolloutSidecar.read(tmp_path / "a.json") == SIDECAR
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_sidecar_counts_lags_of_one_replica():
    assert SIDECAR.num_lags == 35
    assert SIDECAR.redrawn == 5 / (35 * 3)
    assert dataclasses.replace(SIDECAR, num_frames=0, resamples=0).redrawn == 0.0


def test_sidecar_of_another_schema_is_refused(tmp_path: Path):
    content = dataclasses.asdict(SIDECAR) | {"schema_version": 2}
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="found rollout schema 2, expected 1"):
        RolloutSidecar.read(tmp_path / "a.json")


def test_sidecar_with_wrong_keys_names_them(tmp_path: Path):
    content = dataclasses.asdict(SIDECAR) | {"colour": "red"}
    del content["lag_time_fs"]
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"missing \['lag_time_fs'\].*'colour'"):
        RolloutSidecar.read(tmp_path / "a.json")


def test_sidecar_with_a_value_of_another_type_is_refused(tmp_path: Path):
    content = dataclasses.asdict(SIDECAR) | {"num_replicas": None}
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"a\.json has a value of another type"):
        RolloutSidecar.read(tmp_path / "a.json")


@pytest.mark.parametrize("content", ["5", "null", "[]"])
def test_json_that_is_no_object_is_no_sidecar(tmp_path: Path, content: str):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=r"a.json is no JSON object .*expected the si"):
        RolloutSidecar.read(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["lag_time_fs", "num_replicas", "frame_interval_fs"])
def test_sidecar_refuses_zero(name: str):
    with pytest.raises(ValueError, match=f"found {name} 0, expected more than 0"):
        dataclasses.replace(SIDECAR, **{name: 0})


def test_only_a_lag_that_the_guards_refused_is_given_up():
    refused = "OpenMMException: DiffusionIntegrator: lag 3, molecule 0: bond 0-1"
    assert dataclasses.replace(SIDECAR, error=refused).gave_up == refused
    for other in (None, "KeyboardInterrupt: ", "OpenMMException: energy is not finite"):
        assert dataclasses.replace(SIDECAR, error=other).gave_up is None
