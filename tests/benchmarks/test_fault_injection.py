"""A small version of benchmarks/fault_injection.py, and whether it can see faults."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
# A process of its own, of one thread: it forks.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(FOLDER)}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", *words],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict:
    output = tmp_path_factory.mktemp("faults") / "results.json"
    words = [
        str(FOLDER / "fault_injection.py"),
        "--model",
        "--kills",
        "2",
        "--wide-kills",
        "0",
    ]
    words += ["--lags", "2000", "0"]
    words += ["--mutations", "100", "--seed", "3", "--output", str(output)]
    done = run(*words)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(output.read_text())


@pytest.mark.slow
def test_killed_runs_go_on_as_if_undisturbed(found: dict):
    (kills,) = found["kills"]
    assert kills["problems"] == []
    assert kills["kills"] == 2
    assert kills["runs_compared"] == 1


@pytest.mark.slow
def test_damaged_files_give_errors_and_run_no_code(found: dict):
    (damage,) = found["damage"]
    assert damage["problems"] == []
    counted = {kind: sum(n.values()) for kind, n in damage["outcomes"].items()}
    assert sum(counted.values()) == 100
    assert damage["outcomes"]["payload"] == {"clear error": 10}
    assert damage["outcomes"]["checkpoint"] == {"clear error": 20}


BEHAVIOURS = {
    "import os; os.abort()": "crash",
    "import time; time.sleep(60)": "hang",
    "raise KeyError('x')": "unclear error",
    "raise ValueError('x')": "unclear error",
    "raise ValueError('found x, expected y')": "clear error",
    "return 'digest'": "result",
}
"""What the use of a file may do, and what it has to be called."""


@pytest.mark.slow
def test_what_a_file_does_is_seen():
    script = """
import fault_injection, sys
from pathlib import Path
fault_injection.LIMIT_SECONDS = 1
for body in sys.argv[1:]:
    names = {}
    exec(f"def use(folder, through):\\n    {body}", names)
    fault_injection.use = names["use"]
    print(fault_injection.use_apart(Path(), "xml")["outcome"])
"""
    done = run("-c", script, *BEHAVIOURS)
    assert done.stdout.splitlines() == list(BEHAVIOURS.values())


@pytest.mark.slow
def test_payload_is_one_that_python_would_run(tmp_path: Path):
    script = f"""
import pickle, zipfile
from pathlib import Path
from random import Random
from fault_mutations import CANARY, plant_payload
folder = Path({str(tmp_path)!r})
with zipfile.ZipFile(folder / "old.pt", "w") as archive:
    archive.writestr("a/data.pkl", b"")
while plant_payload(folder / "old.pt", folder / "new.pt", Random()) != "the file":
    pass
pickle.loads((folder / "new.pt").read_bytes())
assert (folder / CANARY).exists()
"""
    done = run("-c", script)
    assert done.returncode == 0, done.stderr
