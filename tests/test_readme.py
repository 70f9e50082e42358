import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from openmm_diffmd import cli
from openmm_diffmd.analysis.loading import load_rollout

README = Path(__file__).parents[1] / "README.md"
SCRIPT = r"```python\n(.*?)```"
RESULTS = README.parent / "benchmarks" / "results" / "README.md"
COMMANDS = re.findall(
    r"^openmm-diffmd .*", README.read_text() + RESULTS.read_text(), re.MULTILINE
)


def test_scripts_run(tmp_path):
    first, *others = re.findall(SCRIPT, README.read_text(), re.DOTALL)
    assert len(others) == 2
    short = first.replace("step(10_000)", "step(20)")
    assert short != first
    assert len(first.splitlines()) <= 22
    # Each goes on from the one before.
    for script in others:
        assert "step(1000)" in script
        short += script.replace("step(1000)", "step(20)")
    (tmp_path / "script.py").write_text(short)
    subprocess.run([sys.executable, "script.py"], cwd=tmp_path, check=True)
    for name, count in (("ethanol.dcd", 20), ("run_0.dcd", 4), ("run_63.dcd", 4)):
        frames = (tmp_path / name).read_bytes()
        assert int.from_bytes(frames[8:12], "little") == count
    ensemble, sidecar = load_rollout(tmp_path / "rollout" / "script.json")
    assert (sidecar.num_frames, sidecar.error) == (20, None)
    assert len(ensemble.velocities) == 64


def test_files_it_names_are_there():
    root = README.parent
    for name in (
        "Makefile",
        "constraints.txt",
        "environment.yml",
        "benchmarks",
        "csrc",
        "benchmarks/results/ethanol_rollout.png",
    ):
        assert name in README.read_text()
        assert (root / name).exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_have_these_options(command, capsys):
    words = shlex.split(command, comments=True)[1:]
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, "--print_config"])
    assert stop.value.code == 0, capsys.readouterr().err
