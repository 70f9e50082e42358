"""The whole chain through the console script: reference to analysis, in small."""

import json
import subprocess
import sys
from pathlib import Path

import mdtraj
import pytest

SCRIPT = Path(sys.executable).with_name("openmm-diffmd")
QUIET = ["--progress", "false"]


@pytest.mark.slow
def test_reference_train_export_run_analyze(tmp_path):
    def call(name, *options):
        return subprocess.run(
            [SCRIPT, name, *options], cwd=tmp_path, capture_output=True, text=True
        )

    def verb(name, *options):
        done = call(name, *options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    verb(
        *("reference", "--molecule", "ethanol", "--output", "data", *QUIET),
        *("--equilibration_ps", "0.2", "--length_ps", "0.4"),
        *("--frame_interval_fs", "2", "--num_bursts", "16"),
        *("--burst_length_ps", "0.1"),
    )
    verb(
        *("train", "--data+", "data/bursts.h5", "--output", "training", *QUIET),
        *("--pairs.lag_time_fs", "1", "--pairs.fractions", "[0.5,0.25,0.25]"),
        *("--optimizer.num_steps", "4", "--optimizer.batch_size", "8"),
        *("--optimizer.warmup_steps", "2", "--optimizer.validation_interval", "2"),
        *("--optimizer.checkpoint_interval", "2", "--threads", "1"),
    )
    export = ("export", "--training", "training", "--name", "tiny")
    export += ("--output", "tiny.pt", "--calibration_fraction")
    # Frames after the validation part are for tests.
    refused = call(*export, "0.3")
    assert refused.returncode != 0
    assert "0.3, expected more than 0 and at most 0.25" in refused.stderr
    assert not (tmp_path / "tiny.pt").exists()
    assert "pairs left out" in verb(*export, "0.25")
    # Four steps teach nothing: short lags, a cold start and the mean only leave bonds.
    said = verb(
        *("run", "--model", "tiny.pt", "--output", "rollout/tiny", *QUIET),
        *("--replicas", "2", "--length_ps", "0.004", "--num_sampling_steps", "0"),
        *("--frame_interval_fs", "2", "--start_temperature_K", "1"),
        *("--friction_per_ps", "0", "--seed", "1"),
    )
    assert "2 x 4 lags of 1 fs of C2H6O by 'tiny' at 500 K, 0/ps, seed 1: 0 " in said
    printed = verb(
        *("analyze", "--rollouts+", "rollout/tiny.json", "--output", "analysis"),
        *("--reference", "data/thermostatted.h5", "--window_ps", "0.004"),
    )
    sidecar = json.loads((tmp_path / "rollout" / "tiny.json").read_text())
    assert (sidecar["model_name"], sidecar["num_frames"]) == ("tiny", 2)
    loaded = mdtraj.load(
        tmp_path / "rollout" / "tiny.dcd", top=tmp_path / "rollout" / "tiny.pdb"
    )
    assert loaded.xyz.shape == (2, 18, 3)
    assert (tmp_path / "analysis" / "report.json").is_file()
    report = (tmp_path / "analysis" / "report.txt").read_text()
    assert "no broken bond" in report
    assert report.strip() in printed
