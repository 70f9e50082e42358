import json
from dataclasses import replace
from pathlib import Path

import bench_integrator as benchmark
import pytest

from openmm_diffmd.testing import save_stub_model


def test_rows_of_processes_are_consistent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    stub = save_stub_model(tmp_path / "stub.pt")
    output = tmp_path / "results.json"
    words = ["--model", str(stub), "--replicas", "1", "3", "--threads", "1"]
    benchmark.main([*words, "--seconds", "0.1", "--output", str(output)])
    found = json.loads(output.read_text())
    assert [row["replicas"] for row in found["throughput"]] == [1, 3]
    for row in found["overhead"] + found["throughput"]:
        assert 0 < row["overhead_us"] < row["lag_us"]
        assert 0 < row["network_us"] < row["lag_us"]
        # 10 fs a lag.
        expected = 1e-5 * 86400 * row["lags_per_second"]
        assert row["ns_per_day_each"] == pytest.approx(expected, rel=1e-9)
        total = row["replicas"] * row["ns_per_day_each"]
        assert row["ns_per_day_all"] == pytest.approx(total, rel=1e-9)
    printed = capsys.readouterr().out
    assert len(found["goals"]) == 4
    for name, met in found["goals"].items():
        assert f"{'met' if met else 'MISSED':8}{name}" in printed


def test_the_best_pass_of_each_row_is_kept(monkeypatch: pytest.MonkeyPatch):
    row = benchmark.Cost("m", 1, 1, 9.0, 5.0, 4.0, 9.0, 3, 1.0, 9.0, 1.0, 1.0, 300.0)
    costs = iter([5.0, 3.0, 4.0, 6.0])
    asked = []

    def measure(*case: object) -> object:
        asked.append(case[1])
        return replace(row, replicas=case[1], us_per_replica=next(costs))

    monkeypatch.setattr(benchmark, "measure_apart", measure)
    cases = [("m", 1, 1), ("m", 8, 1)]
    found = benchmark.measure_in_passes(cases, 2, "Reference", 1.0)
    assert asked == [1, 8, 1, 8]
    assert [(c.replicas, c.us_per_replica) for c in found] == [(1, 4.0), (8, 3.0)]


def test_goals_see_cost_and_memory_that_do_not_fit():
    row = benchmark.Cost("m", 1, 1, 9.0, 5.0, 4.0, 9.0, 3, 1.0, 9.0, 1.0, 1.0, 300.0)
    rows = [
        replace(row, replicas=r, us_per_replica=9.0 / r, peak_memory_MiB=300.0 + 2 * r)
        for r in (1, 8, 64)
    ]
    line = benchmark.fit_lines(rows, 64)
    assert line["KiB_per_replica"] == pytest.approx(2048)
    assert line["MiB_without_replicas"] == pytest.approx(300)
    assert all(benchmark.judge(rows, rows, line).values())
    many = benchmark.judge(rows[1:], rows[1:], line)
    assert not any(name.startswith("overhead") for name in many)
    flatter = [
        replace(rows[2], replicas=r, peak_memory_MiB=420 + r / 8) for r in (64, 512)
    ]
    line = benchmark.fit_lines(
        [*rows[:2], replace(rows[2], peak_memory_MiB=428.0), *flatter], 64
    )
    assert line["KiB_per_replica_beyond_a_batch"] == pytest.approx(128)
    assert line["farthest_of_growth"] == pytest.approx(0, abs=1e-9)
    steeper = benchmark.fit_lines(
        [*rows, replace(rows[2], replicas=512, peak_memory_MiB=2e3)], 64
    )
    assert not benchmark.judge(rows, rows, steeper)[
        "memory on straight lines to 5 % of its growth"
    ]
    rows[0] = replace(rows[0], overhead_us=21.0)
    rows[2] = replace(rows[2], us_per_replica=2.0, peak_memory_MiB=300.0 + 2 * 64**2)
    slow = [replace(row, overhead_us=21.0)]
    line = benchmark.fit_lines([replace(rows[0], replicas=32), *rows], 64)
    assert not any(benchmark.judge(slow, rows, line).values())
