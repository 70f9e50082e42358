import json
from pathlib import Path

import bench_training
import pytest
import torch


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
