import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from openmm_diffmd import cli

README = Path(__file__).parents[1] / "README.md"
SCRIPT = r"```python\n(.*?)```"
RESULTS = README.parent / "benchmarks" / "results" / "README.md"
COMMANDS = re.findall(
    r"^openmm-diffmd .*", README.read_text() + RESULTS.read_text(), re.MULTILINE
)


def test_first_script_runs(tmp_path):
    script = re.search(SCRIPT, README.read_text(), re.DOTALL)[1]
    short = script.replace("step(10_000)", "step(20)")
    assert short != script
    assert len(script.splitlines()) <= 22
    (tmp_path / "script.py").write_text(short)
    subprocess.run([sys.executable, "script.py"], cwd=tmp_path, check=True)
    frames = (tmp_path / "ethanol.dcd").read_bytes()
    assert int.from_bytes(frames[8:12], "little") == 20


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
