"""
A run that is killed at random moments and restarted from its checkpoint.

As a program this file is the run: it continues whatever it finds in its folder.
"""

import csv
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import torch
from openmm import app

from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.integrator import (
    DiffusionIntegrator,
    DiffusionReporter,
    ReplicaDCDReporter,
    create_system,
    replicate,
)

TABLE_INTERVAL = 5
CHECKPOINT_INTERVAL = 10
HEADER_SIZE = 276
DATE_IN_HEADER = slice(180, 260)
MAX_SECONDS_TO_KILL = 1.0
READY = "stepping from"
CHECKPOINT = "run.chk"


def run(folder: Path, model_path: str, num_lags: int, num_replicas: int) -> None:
    """
    Run, or go on with a run, to a number of lags.

    Parameters
    ----------
    folder : Path
        Where its files are.
    model_path : str
        The model.
    num_lags : int
        Lags of the whole run.
    num_replicas : int
        Replicas.
    """
    torch.set_num_threads(1)
    model = load_model(model_path)
    topology, positions = model.example()
    replicas = replicate(topology, create_system(topology), positions, num_replicas)
    integrator = DiffusionIntegrator(
        model, replicas.topology, molecules=replicas.molecules
    )
    integrator.setRandomNumberSeed(7)
    simulation = app.Simulation(
        replicas.topology,
        replicas.system,
        integrator,
        openmm.Platform.getPlatformByName("Reference"),
    )
    simulation.context.setPositions(replicas.positions)
    simulation.context.setVelocitiesToTemperature(model.temperature, 7)
    checkpoint = folder / CHECKPOINT
    again = checkpoint.is_file()
    if again:
        simulation.loadCheckpoint(str(checkpoint))
    first = simulation.currentStep
    # OpenMM's own DCD of all replicas cannot be cut back: one for each part of the run.
    part = len(list(folder.glob("all_*.dcd")))
    simulation.reporters = [
        ReplicaDCDReporter(
            folder / "replica_{replica}.dcd", 1, replicas.molecules, append=again
        ),
        app.DCDReporter(str(folder / f"all_{part}.dcd"), 1),
        DiffusionReporter(folder / "run.csv", TABLE_INTERVAL, append=again),
        # Last, so that no file lacks what was before the checkpoint.
        app.CheckpointReporter(str(checkpoint), CHECKPOINT_INTERVAL),
    ]
    print(READY, first, flush=True)
    simulation.step(num_lags - first)


def kill_and_restart(
    folder: Path,
    model_path: str,
    num_lags: int,
    num_kills: int,
    seed: int,
    num_replicas: int = 2,
) -> dict[str, Any]:
    """
    Kill a run at random moments, restart it, and compare with one undisturbed.

    Parameters
    ----------
    folder : Path
        An empty folder.
    model_path : str
        The model.
    num_lags : int
        Lags of a run; after the last the run begins anew, until the kills are done.
    num_kills : int
        How often to kill.
    seed : int
        Seed of the moments.
    num_replicas : int
        Replicas of the run.

    Returns
    -------
    dict
        Counts, and a list of what went wrong.
    """
    words = [model_path, str(num_lags), str(num_replicas)]
    undisturbed = folder / "undisturbed"
    undisturbed.mkdir()
    _start(undisturbed, words, None)
    moments = random.Random(seed)
    problems: list[str] = []
    counts = {"kills": 0, "restarts": 0, "cut_frames": 0, "runs_compared": 0}
    killed = folder / "killed_0"
    killed.mkdir()
    while True:
        wait = None
        if counts["kills"] < num_kills:
            wait = moments.uniform(0.0, MAX_SECONDS_TO_KILL)
        expected = _last_checkpoint(killed, model_path, num_replicas)
        first, was_killed, errors = _start(killed, words, wait)
        where = f"kill {counts['kills']} of {killed.name}"
        if errors:
            problems.append(f"{where}: the run failed: {errors}")
            break
        if first != expected:
            problems.append(f"{where}: began at {first}, expected {expected}")
        counts["restarts"] += first > 0
        if was_killed:
            counts["kills"] += 1
            cut, unreadable = _check_trajectories(killed, model_path, num_replicas)
            counts["cut_frames"] += cut
            problems += [f"{where}: {name}" for name in unreadable]
            continue
        counts["runs_compared"] += 1
        problems += [
            f"{where}: {name}" for name in _compare(killed, undisturbed, num_replicas)
        ]
        if counts["kills"] >= num_kills:
            break
        killed = folder / f"killed_{counts['runs_compared']}"
        killed.mkdir()
    return {
        "model": Path(model_path).stem,
        "lags": num_lags,
        "replicas": num_replicas,
        **counts,
        "problems": problems,
    }


def _start(
    folder: Path, run_words: list[str], seconds: float | None
) -> tuple[int, bool, str]:
    """Start the run, perhaps kill it; its first step, whether killed, and errors."""
    words = [sys.executable, "-W", "ignore", __file__, str(folder), *run_words]
    # A new process that does nothing else with the files, to be killed by its number.
    with (
        (folder / "stderr.txt").open("w+") as errors,
        subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        line = process.stdout.readline()
        if seconds is not None and line.startswith(READY):
            time.sleep(seconds)
            process.kill()
        status = process.wait()
        errors.seek(0)
        tail = errors.read().strip()[-500:]
    first = int(line.split()[-1]) if line.startswith(READY) else -1
    if status == -signal.SIGKILL:
        return first, True, ""
    return first, False, f"status {status}: {tail}" if status else ""


def _last_checkpoint(folder: Path, model_path: str, num_replicas: int) -> int:
    """Step of the checkpoint, which has to load; 0 where there is none."""
    if not (folder / CHECKPOINT).is_file():
        return 0
    model = load_model(model_path)
    topology, positions = model.example()
    replicas = replicate(topology, create_system(topology), positions, num_replicas)
    integrator = DiffusionIntegrator(
        model, replicas.topology, molecules=replicas.molecules
    )
    context = openmm.Context(
        replicas.system, integrator, openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(replicas.positions)
    context.loadCheckpoint((folder / CHECKPOINT).read_bytes())
    return int(context.getStepCount())


def _check_trajectories(
    folder: Path, model_path: str, num_replicas: int
) -> tuple[int, list[str]]:
    """Files with a cut frame, and those that MDTraj does not read to the last whole."""
    model = load_model(model_path)
    one, positions = model.example()
    whole = replicate(one, create_system(one), positions, num_replicas).topology
    cut, wrong = 0, []
    for path in folder.glob("*.dcd"):
        topology = one if path.name.startswith("replica") else whole
        size = path.stat().st_size
        if size < HEADER_SIZE:
            continue  # killed before the first frame
        frame = 3 * (4 * topology.getNumAtoms() + 8)
        frames, rest = divmod(size - HEADER_SIZE, frame)
        cut += rest > 0
        if frames == 0:
            continue
        try:
            read = mdtraj.load_dcd(str(path), mdtraj.Topology.from_openmm(topology))
        except Exception as error:  # noqa: BLE001
            wrong.append(f"{path.name} is unreadable: {error}")
            continue
        if len(read) != frames or not np.isfinite(read.xyz).all():
            wrong.append(f"{path.name} has {len(read)} frames, expected {frames}")
    return cut, wrong


def _compare(killed: Path, undisturbed: Path, num_replicas: int) -> list[str]:
    """Names of the files that are not what the undisturbed run wrote."""
    wrong = []
    for replica in range(num_replicas):
        name = f"replica_{replica}.dcd"
        found, expected = ((f / name).read_bytes() for f in (killed, undisturbed))
        date = found[DATE_IN_HEADER], expected[DATE_IN_HEADER]
        if found.replace(date[0], b"", 1) != expected.replace(date[1], b"", 1):
            wrong.append(f"{name} differs from the undisturbed run's")
    if _read_physics(killed / "run.csv") != _read_physics(undisturbed / "run.csv"):
        wrong.append("run.csv differs from the undisturbed run's")
    return wrong


def _read_physics(path: Path) -> list[list[str]]:
    """Rows without what depends on the clock, or on when this process began."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    skipped = ("Speed", "Network Evaluations", "Hottest Bond")
    return [[v for k, v in row.items() if not k.startswith(skipped)] for row in rows]


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
