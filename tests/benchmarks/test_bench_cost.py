import dataclasses
import json
from pathlib import Path

import bench_cost as benchmark
import cost_rollouts as rollouts
import ml_force
import numpy as np
import pytest
import step_costs
import torch
from controls import starting_frames
from rollout_cost import Cost, force_cost

from openmm_diffmd.analysis.loading import load_rollout
from openmm_diffmd.analysis.measure import prepare_reference
from openmm_diffmd.bundled import PRETRAINED
from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.integrator.rollout import RolloutSettings, roll_out
from openmm_diffmd.models.energy import EnergyModel, save_force
from openmm_diffmd.reference.dynamics import ReferenceFrame
from openmm_diffmd.reference.storage import ReferenceWriter
from openmm_diffmd.reference.trained_force import force_function, force_system
from openmm_diffmd.testing import FaultyModel, HarmonicModel, save_stub_model
from openmm_diffmd.training.config import EnergyModelConfig

SMALL = EnergyModelConfig(n_max=4, channels=8, n_heads=2, edge_channels=8, n_layers=1)


@pytest.fixture(scope="module")
def force() -> EnergyModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = EnergyModel(3, **dataclasses.asdict(SMALL)).eval()
    model.force_scale.fill_(100.0)
    return model


@pytest.fixture(scope="module")
def words(force: EnergyModel, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """An untrained force, 3 ps of the bundled reference, and tiny numbers."""
    folder = tmp_path_factory.mktemp("cost")
    description = {
        "model": dataclasses.asdict(SMALL),
        "elements": ["H", "C", "O"],
        "data": [],
    }
    save_force(force, description, folder / "force.pt")
    frames = read_reference(PRETRAINED / "ethanol_reference.h5")
    topology, _ = load_model("ethanol").example()
    said = {"temperature_K": 500.0, "potential": "none that can be timed"}
    path = folder / "reference.h5"
    with ReferenceWriter(path, topology, frames.masses, said, 300) as writer:
        for k in range(300):
            x, v = frames.positions[k], frames.velocities[k]
            writer.write(0, ReferenceFrame(0.01 * (k + 1), x, v, 0 * x, 0.0))
    return [
        *("--force", str(folder / "force.pt"), "--reference", str(path)),
        *("--replicas", "1", "2", "--k", "0", "1", "--threads", "1"),
        *("--forms", "eager", "scripted"),
        *("--seconds", "0.05", "--rollout-replicas", "2", "--length-ps", "0.2"),
    ]


def test_rows_and_comparisons_are_consistent(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    output = tmp_path / "cost.json"
    benchmark.main([*words, "--output", str(output)])
    printed = capsys.readouterr().out
    assert "found potential 'none that can be timed'" in printed
    found = json.loads(output.read_text())
    for replicas, part in found["cost"].items():
        rows = part["rows"]
        assert {row["n_trajectories"] for row in rows} == {int(replicas)}
        assert [row["name"] for row in rows] == [
            *("diffmd, K = 0", "diffmd, K = 1", "plain torch, K = 2"),
            *("ML force (eager)", "ML force (scripted)"),
        ]
        assert [row["step_fs"] for row in rows] == [10.0, 10.0, 10.0, 0.5, 0.5]
        assert [row["evaluations"] for row in rows] == [1, 2, 3, 1, 1]
        assert [row["threads"] for row in rows] == [1, 1, 1, 1, 1]
        force = max(row["ns_per_day"] for row in rows[3:])
        for row in rows:
            expected = 86400e-6 * row["step_fs"] / row["step_seconds"]
            assert row["ns_per_day"] == pytest.approx(expected)
        for k in (0, 1):
            times = part["comparison"]["times_the_ML_force"][str(k)]
            expected = rows[k]["ns_per_day"] / force
            assert times == pytest.approx(expected)
            lag = part["comparison"]["lag_fs_of_equal_speed"][str(k)]
            assert lag == pytest.approx(10.0 / times)
        plain = part["comparison"]["times_the_ML_force_in_plain_torch"]
        expected = rows[2]["ns_per_day"] / force
        assert plain == pytest.approx(expected)
    assert list(found["cost"]) == ["1", "2"]
    rollouts = found["rollouts"]["rows"]
    # The model's own number of steps is the one that is judged.
    assert list(rollouts) == ["diffmd, K = 0", "diffmd, K = 2", "ML force"]
    assert rollouts["diffmd, K = 2"]["n_broken"] == 0
    assert 0 < rollouts["diffmd, K = 2"]["h_r_error"] < 1
    assert [name for name in found["goals"] if "h(r)" in name]
    for name, met in found["goals"].items():
        assert f"{'met' if met else 'MISSED':8}{name}" in printed
    # A part made anew leaves the other as it was.
    benchmark.main([*words, "--parts", "rollouts", "--output", str(output)])
    again = json.loads(output.read_text())
    assert again["cost"] == found["cost"]
    assert again["rollouts"]["rows"] == rollouts


def test_a_reference_at_another_temperature_is_refused(
    words: list[str], tmp_path: Path
):
    frames = read_reference(PRETRAINED / "ethanol_reference.h5")
    topology, _ = load_model("ethanol").example()
    path = tmp_path / "cold.h5"
    with ReferenceWriter(
        path, topology, frames.masses, {"temperature_K": 300.0}, 2
    ) as writer:
        for k in range(2):
            x, v = frames.positions[k], frames.velocities[k]
            writer.write(0, ReferenceFrame(0.01 * (k + 1), x, v, 0 * x, 0.0))
    with pytest.raises(SystemExit, match="reference at 300 K, expected 500 K"):
        benchmark.main([*words, "--reference", str(path)])


@pytest.mark.parametrize(("together", "quickest"), [(9.0, (7.0, 1)), (5.0, (5.0, 2))])
def test_a_row_has_as_many_threads_as_are_quickest(
    together: float, quickest: tuple[float, int], monkeypatch: pytest.MonkeyPatch
):
    milliseconds = {1: 7.0, 2: together}
    asked = []

    class Process:
        def __init__(self, words: list[str], env: dict[str, str], stdout: int):
            assert words[-1] == env["OMP_NUM_THREADS"]
            asked.append(int(words[-1]))

        def communicate(self) -> tuple[str, None]:
            cost = Cost("force", 1, 0.5, 1e-3 * milliseconds[asked[-1]])
            return json.dumps(dataclasses.asdict(cost)), None

    monkeypatch.setattr(step_costs.subprocess, "Popen", Process)
    (one,) = step_costs.reference_costs(Path("reference.h5"), 1, 2)
    assert (1e3 * one.step_seconds, one.threads) == pytest.approx(quickest)
    (many,) = step_costs.reference_costs(Path("reference.h5"), 64, 2)
    assert (1e3 * many.step_seconds, many.threads) == pytest.approx((32 * 7.0, 2))
    assert asked == [1, 2, 1, 1]

    # Ours and the ML force, in this process.
    before = torch.get_num_threads()
    ours = step_costs.with_quickest_threads(
        2,
        lambda: Cost("ours", 1, 10.0, 1e-3 * milliseconds[torch.get_num_threads()]),
    )
    torch.set_num_threads(before)
    assert (1e3 * ours.step_seconds, ours.threads) == pytest.approx(quickest)


def test_force_that_cannot_be_run_is_left_out_with_the_reason():
    topology, positions = load_model("ethanol").example()
    for potential, reason in (
        (None, "does not name its force"),
        ("mine.xml", "found no mine.xml in this folder"),
        ("ase.calculators.emt.EMTT", "AttributeError"),
    ):
        said = {"potential": potential} if potential else {}
        cost, left_out = force_cost(topology, positions._value, said)
        assert cost is None
        assert left_out.startswith("ns/day of the reference force left out: ")
        assert reason in left_out


def test_rollout_that_the_guards_end_is_measured_as_far_as_it_came(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    # A hydrogen beyond 4 standard deviations of a step is spoilt beyond repair.
    faulty = FaultyModel(
        fault="bond",
        below_level=2.0,
        min_displacement=4.0 * 0.00394,
        angular_frequency=400.0,
        temperature=300.0,
    )
    model = load_model(save_stub_model(tmp_path / "faulty.pt", faulty))
    settings = RolloutSettings(length_ps=50.0, seed=1, progress=False)
    exact = HarmonicModel(angular_frequency=400.0, temperature=300.0)
    topology, _ = model.example()
    made = roll_out(
        load_model(save_stub_model(tmp_path / "exact.pt", exact)),
        topology,
        np.zeros((1, 9, 3)),
        tmp_path / "exact",
        RolloutSettings(length_ps=2.0, seed=2, keep_velocities=True, progress=False),
    )
    reference = prepare_reference(load_rollout(made.path)[0], 300.0)
    starts, _ = starting_frames(reference.ensemble, 4)
    row = rollouts.run_model(model, reference, starts, settings, 0.0)
    assert "K = " in capsys.readouterr().out
    assert 0.0 < row["ended_ps"] < 50.0
    assert row["h_r_error"] > 0.0


def test_goals_and_break_even_of_known_costs():
    # 1 ms and 1 ms a sampling step; the force's lag of 10 fs takes 80 ms.
    costs = [Cost(f"diffmd, K = {k}", 1, 10.0, 1e-3 * (1 + k), 1 + k) for k in (0, 4)]
    costs.append(Cost("plain torch, K = 2", 1, 10.0, 8e-3, 3))
    costs.append(Cost("ML force (eager)", 1, 0.5, 6e-3, 1))
    costs.append(Cost("ML force (compiled)", 1, 0.5, 4e-3, 1))
    found = benchmark.compare(costs)
    assert found["times_the_ML_force"] == pytest.approx({0: 80.0, 4: 16.0})
    assert found["times_the_ML_force_in_plain_torch"] == pytest.approx(10.0)
    assert found["lag_fs_of_equal_speed"] == pytest.approx({0: 0.125, 4: 0.625})
    assert found["largest_K"] == pytest.approx({"as_quick": 79.0, "goal": 3.0})
    rows = {
        "diffmd, K = 4": {"h_r_error": 0.02, "h_r_expected": 0.018},
        "diffmd, K = 0": {"h_r_error": 0.01, "h_r_expected": None},
        "ML force": {"h_r_error": 0.015},
    }
    cost = {"1": {"comparison": json.loads(json.dumps(found))}}
    result = {"cost": cost, "rollouts": {"rows": rows}}
    assert list(benchmark.judge(result, 0).values()) == [True, True]
    assert list(benchmark.judge(result, 4).values()) == [False, False]
    rows["diffmd, K = 4"]["h_r_expected"] = 0.021
    assert list(benchmark.judge(result, 4).values()) == [False, True]


@pytest.mark.parametrize("replicas", [1, 3])
def test_force_in_openmm_is_that_of_the_network_in_every_form(
    replicas: int, force: EnergyModel
):
    model = load_model("ethanol")
    topology, one = model.example()
    symbols = [atom.element.symbol for atom in topology.atoms()]
    species = torch.tensor([["H", "C", "O"].index(s) for s in symbols])
    species = species.expand(replicas, -1).contiguous()
    start = np.tile(np.array(one._value), (replicas, 1))
    start += 0.01 * np.random.default_rng(1).normal(size=start.shape)
    batch = torch.tensor(start, dtype=torch.float32).view(replicas, -1, 3)
    energies, forces = force.energy_and_forces(batch, species)
    for form in ("eager", "scripted"):
        evaluate = force_function(force, species, form)
        system = force_system(np.full((replicas, 9), 12.0), evaluate)
        integrator = ml_force.langevin(model, seed=1)
        context = ml_force.start(system, integrator, start, model)
        state = context.getState(energy=True, forces=True)
        found = torch.tensor(state.getForces(asNumpy=True)._value).float()
        scale = forces.abs().max().item()
        assert scale > 1
        torch.testing.assert_close(
            found.view_as(forces), forces, rtol=0, atol=1e-5 * scale
        )
        energy = state.getPotentialEnergy()._value
        assert energy == pytest.approx(energies.sum().item(), rel=1e-4)


def test_form_that_does_not_exist_is_refused(force: EnergyModel):
    with pytest.raises(ValueError, match="found form 'quick', expected one of"):
        force_function(force, torch.zeros(1, 2, dtype=torch.long), "quick")
