"""Where the library is looked for, and what happens where there is none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from openmm_diffmd import ops
from openmm_diffmd.ops import library


def test_tests_run_with_the_library():
    # Without this the tests of the compiled operators could be skipped unseen.
    assert ops.is_loaded()
    assert ops.load_library()
    assert library.find_library().name == library.LIBRARY


def test_variable_names_the_library(monkeypatch, tmp_path):
    path = tmp_path / "another.so"
    monkeypatch.setenv(library.VARIABLE, str(path))
    with pytest.raises(ImportError, match=r"found no file .*another.so, expected"):
        library.find_library()
    path.touch()
    assert library.find_library() == path
    monkeypatch.setenv(library.VARIABLE, "none")
    assert library.find_library() is None


CHILD = """
import sys, warnings
from pathlib import Path
import torch
if sys.argv[1] == "hide":
    Path.is_file = lambda self: False
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from openmm_diffmd import ops
warnings.simplefilter("ignore")
vectors = torch.tensor([[0.1, 0.2, 0.3]])
scripted = torch.jit.script(ops.spherical_fourier_bessel)
expected = ops.spherical_fourier_bessel(vectors, 1.0, 1, 2)
assert torch.equal(scripted(vectors, 1.0, 1, 2), expected)
home = ops.spherical_fourier_bessel.__module__.split(".")[-1]
print(ops.is_loaded(), home, *(str(w.message)[:27] for w in caught))
"""


def run_child(argument, variable):
    environment = {k: v for k, v in os.environ.items() if k != library.VARIABLE}
    if variable is not None:
        environment[library.VARIABLE] = variable
    return subprocess.run(
        [sys.executable, "-c", CHILD, argument],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


@pytest.mark.parametrize(
    ("argument", "variable", "expected"),
    [
        ("", None, "True operators"),
        ("", "none", "False reference"),
        ("hide", None, "False reference found no compiled operators"),
    ],
)
def test_first_import_decides_and_says_where_the_library_is_missing(
    argument, variable, expected
):
    ran = run_child(argument, variable)
    assert ran.stdout == expected + "\n", ran.stderr


def test_library_that_does_not_load_is_an_error(tmp_path):
    path = tmp_path / "broken.so"
    path.write_bytes(b"not a library")
    ran = run_child("", str(path))
    assert f"ImportError: found {path}, which torch" in ran.stderr
    assert "rebuild it from its sources" in ran.stderr


TASKS = Path("/proc/self/task")
THREADS = """
import os, torch
from openmm_diffmd import ops
torch.set_num_threads(3)
counts = []
for edges in (2_000, 10_000):
    ops.spherical_fourier_bessel(torch.rand(edges, 3), 1.0, 3, 8)
    counts.append(len(os.listdir("/proc/self/task")))
print(counts[1] - counts[0])
"""


@pytest.mark.skipif(not TASKS.is_dir(), reason="the system lists no threads")
def test_many_edges_are_shared_by_threads(compiled):
    # In a process of its own, where no other call has made threads before.
    ran = subprocess.run(
        [sys.executable, "-c", THREADS], capture_output=True, text=True, check=False
    )
    assert ran.stdout == "2\n", ran.stderr
