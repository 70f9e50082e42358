import importlib
import json
import os
from functools import partial

import pytest
import torch

from openmm_diffmd.ops import reference

CUTOFF = 0.5


@pytest.fixture(scope="module")
def modules():
    names = ("bench_fourier_bessel", "fourier_bessel_baselines", "fourier_bessel_rows")
    return [importlib.import_module(name) for name in names]


@pytest.mark.parametrize(("l_max", "n_max"), [(0, 2), (3, 4)])
def test_baselines_compute_the_same_features(modules, l_max, n_max):
    # Not at small s, where their formulas lose digits: at s >= 0.5 an error of 1e-15 in
    # j_0 grows by less than (7/x)^3 for x >= 0.5 pi.
    _, baselines, _ = modules
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    lengths = torch.linspace(0.5, 1.1, 60, dtype=torch.float64)[:, None] * CUTOFF
    vectors *= lengths / vectors.norm(dim=1, keepdim=True)
    expected = reference.spherical_fourier_bessel(vectors, CUTOFF, l_max, n_max)
    made = baselines.make_baselines(l_max, n_max, CUTOFF, torch.float64, "cpu")
    assert len(made) == 3 if baselines.SPHERICART else 2
    for function in made.values():
        torch.testing.assert_close(function(vectors), expected, rtol=0, atol=1e-11)


def test_composed_invariants_are_the_fused_ones(modules):
    bench, *_ = modules
    vectors = bench.make_vectors(50, torch.float64, "cpu")
    velocities = 2.0 * bench.make_vectors(9, torch.float64, "cpu")
    index = torch.randint(9, (2, 50), generator=torch.Generator().manual_seed(3))
    sizes = (CUTOFF, bench.VELOCITY_CUTOFF, 3, 4)
    expected, _ = reference.fourier_bessel_invariants(
        vectors, velocities, index, *sizes
    )
    found = bench.composed(vectors, velocities, index, 3, 4)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_benchmark_prints_tables_and_goals_and_writes_json(
    modules, tmp_path, capsys, monkeypatch
):
    bench, *_ = modules
    # Set already: the process is not to be started again.
    monkeypatch.setattr(os, "environ", os.environ | bench.REUSE)
    path = tmp_path / "results.json"
    words = ["--edges=100", "--sizes=1,2", "--dtypes=float32", "--threads=1"]
    before = torch.get_num_threads()
    try:
        bench.main([*words, "--seconds=0.001", f"--output={path}"])
    finally:
        torch.set_num_threads(before)
    printed = capsys.readouterr().out
    assert "cpu, 1 threads, float32, l_max 1, n_max 2; ns per edge" in printed
    found = json.loads(path.read_text())
    (run,) = found["runs"]
    assert run["machine"]["torch"] == torch.__version__
    rows = [row for row in found["rows"] if row["case"]["device"] == "cpu"]
    tasks = [row["case"]["task"] for row in rows]
    assert tasks == [
        "forward",
        "forward+backward",
        "backward",
        "invariants forward",
        "invariants forward+backward",
    ]
    assert {row["run"] for row in rows} == {0}
    assert all(ns > 0 for row in rows for ns in row["ns_per_edge"].values())
    assert all(row["floor"] > 0 for row in rows[:3])
    assert len(found["goals"]) == 4
    for goal in found["goals"]:
        assert goal["met"] == (goal["found"] >= float(goal["goal"].split()[2]))
    assert printed.count("times the best other") >= 4


def make_row(rows, edges, ns, task="forward"):
    case = rows.Case("cpu", 1, "float32", 3, 8, edges, task)
    return rows.Row(case, {rows.OURS: ns, "other": 12.0 * ns}, ns / 2)


def test_a_gpu_is_judged_by_its_bandwidth(modules):
    rows = modules[2]
    made = [
        rows.Row(
            rows.Case("cuda", 1, "float32", 3, 8, edges, "forward"),
            {rows.OURS: ns},
            1.0,
        )
        for edges, ns in ((100_000, 9.0), (1_000_000, 1.25), (1_000_000, 2.0))
    ]
    assert [(goal["found"], goal["met"]) for goal in rows.judge(made)] == [
        (0.8, True),
        (0.5, False),
    ]


def test_merged_runs_keep_rows_of_other_cases_and_say_whose_they_are(modules, tmp_path):
    rows = modules[2]
    path = tmp_path / "results.json"
    runs = [
        {"command": name, "machine": {"processor": "one"}, "memory": "reused"}
        for name in ("first", "second", "third")
    ]
    merge = partial(rows.write_results, path, merge=True)
    merge(runs[0], [make_row(rows, 100, 1.0), make_row(rows, 10_000, 2.0)])
    merge(runs[1], [make_row(rows, 1000, 4.0)])
    # A run writes after each of its rows.
    merge(runs[1], [make_row(rows, 1000, 4.0), make_row(rows, 10_000, 3.0)])
    merge(runs[2], [make_row(rows, 1000, 5.0)])
    found = json.loads(path.read_text())
    assert [run["command"] for run in found["runs"]] == ["first", "second", "third"]
    assert [
        (row["case"]["edges"], row["ns_per_edge"][rows.OURS], row["run"])
        for row in found["rows"]
    ] == [(100, 1.0, 0), (1000, 5.0, 2), (10_000, 3.0, 1)]
    assert [(goal["found"], goal["met"]) for goal in found["goals"]] == [
        (12.0, False),
        (12.0, True),
    ]
    # A run of which nothing is left is forgotten; without merge so are all others.
    merge(runs[2], [make_row(rows, 100, 6.0)])
    kept = json.loads(path.read_text())["runs"]
    assert [run["command"] for run in kept] == ["second", "third", "third"]
    rows.write_results(path, runs[0], [make_row(rows, 100, 6.0)], merge=False)
    assert len(json.loads(path.read_text())["rows"]) == 1


@pytest.mark.parametrize("name", ["memory", "processor", "gpu"])
def test_runs_of_other_settings_or_devices_are_not_merged(modules, tmp_path, name):
    rows = modules[2]
    path = tmp_path / "results.json"
    machine = {"processor": "one", "gpu": "one"}
    run = {"memory": "reused", "sphericart": True, "machine": machine}
    other = {**run, "memory": "fresh"}
    if name != "memory":
        other = {**run, "machine": {**machine, name: "two"}}
    rows.write_results(path, run, [make_row(rows, 100, 1.0)], merge=True)
    with pytest.raises(ValueError, match=f"found {name} .* write to another file"):
        rows.write_results(path, other, [make_row(rows, 1000, 1.0)], merge=True)
