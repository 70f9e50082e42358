"""
Measure what the reference driver adds to the bare force.

One force of GFN2-xTB on ethanol, called through ASE as a user would, against one
step of the whole driver (integrator, Context, frames, file), in turns on one core.
CPU time is measured, so that other work on the machine counts less. Prints a table;
``--output`` writes JSON:

    OMP_NUM_THREADS=1 python benchmarks/bench_reference.py
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import openmm
from ase import Atoms
from command_line import output_file, write_results
from machine import describe_machine
from openmm import unit
from tblite.ase import TBLite

from openmm_diffmd.elements import element_masses
from openmm_diffmd.reference.dynamics import baoab_integrator, run_segment
from openmm_diffmd.reference.molecules import load_molecule
from openmm_diffmd.reference.potentials import create_reference_system
from openmm_diffmd.reference.recording import Recording, run_thermostatted
from openmm_diffmd.reference.storage import ReferenceWriter
from openmm_diffmd.units import ANGSTROM

STEP_SIZE = 0.0005
STEPS_PER_FRAME = 20


def time_bare_forces(atoms: Atoms, frames: list[np.ndarray]) -> float:
    """Milliseconds for energy and forces at each of some frames, in order."""
    begin = time.process_time()
    for positions in frames:
        atoms.set_positions(positions)
        atoms.get_potential_energy()
        atoms.get_forces()
    return 1e3 * (time.process_time() - begin) / len(frames)


def time_steps(context: openmm.Context, steps: int) -> float:
    """Milliseconds for a step of an integrator alone."""
    begin = time.process_time()
    context.getIntegrator().step(steps)
    return 1e3 * (time.process_time() - begin) / steps


def time_driver(context: openmm.Context, topology, masses, steps: int) -> float:
    """Milliseconds for a step with everything that the driver does."""
    recording = Recording(steps // STEPS_PER_FRAME, STEPS_PER_FRAME)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.process_time()
        path = Path(folder) / "run.h5"
        with ReferenceWriter(
            path, topology, masses, {}, recording.num_frames
        ) as writer:
            run_thermostatted(context, recording, writer, 10, progress=False)
        return 1e3 * (time.process_time() - begin) / steps


def main(words: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0].strip())
    parser.add_argument("--steps", type=int, default=400, help="steps a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=output_file, help="JSON file to write")
    arguments = parser.parse_args(words)
    if os.environ.get("OMP_NUM_THREADS") != "1":
        parser.error("set OMP_NUM_THREADS=1: CPU time adds up over threads")

    topology, positions = load_molecule("ethanol")
    contexts = {}
    for name, integrator in (
        ("BAOAB step", baoab_integrator(500.0, 1.0, STEP_SIZE, 1)),
        (
            "LangevinMiddle step",
            openmm.LangevinMiddleIntegrator(500.0, 1.0, STEP_SIZE),
        ),
    ):
        contexts[name] = openmm.Context(
            create_reference_system(topology),
            integrator,
            openmm.Platform.getPlatformByName("Reference"),
        )
        contexts[name].setPositions(positions)
        contexts[name].setVelocitiesToTemperature(500 * unit.kelvin, 1)
        integrator.step(100)

    # The bare force sees consecutive frames too: a field that starts from the last
    # one converges sooner.
    context = contexts["BAOAB step"]
    numbers = [atom.element.atomic_number for atom in topology.atoms()]
    frames = [
        frame.positions / ANGSTROM
        for frame in run_segment(context, context.getIntegrator(), arguments.steps, 1)
    ]
    masses = element_masses(numbers)
    atoms = Atoms(numbers, frames[0], calculator=TBLite(method="GFN2-xTB", verbosity=0))

    times: dict[str, list[float]] = {}
    for round_index in range(arguments.rounds + 1):
        measured = {
            "bare force": time_bare_forces(atoms, frames),
            **{
                name: time_steps(context, arguments.steps)
                for name, context in contexts.items()
            },
            "driver step": time_driver(context, topology, masses, arguments.steps),
        }
        if round_index:  # the first warms up
            for name, value in measured.items():
                times.setdefault(name, []).append(value)

    medians = {name: statistics.median(values) for name, values in times.items()}
    bare = medians["bare force"]
    print(f"{'':24}{'ms':>8}{'over the bare force':>22}")
    for name, value in medians.items():
        print(f"{name:24}{value:8.3f}{100 * (value / bare - 1):21.1f}%")
    step_ns = 1e-6 * 1e3 * STEP_SIZE
    per_day = 86_400e3 / medians["driver step"] * step_ns
    print(f"{'reference':24}{per_day:8.1f} ns/day")
    if arguments.output:
        result = {
            "median_ms": medians,
            "all_ms": times,
            "driver_over_bare_force": medians["driver step"] / bare - 1,
            "reference_ns_per_day": per_day,
            "machine": describe_machine(),
            "versions": {name: version(name) for name in ("openmmml", "tblite")},
        }
        write_results(arguments.output, result)


if __name__ == "__main__":
    main()
