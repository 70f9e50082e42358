"""
Make frames as MD17's are: positions and forces each 0.5 fs, under a global heat bath.

MD17 stores no velocities, and its heat bath, of Nose and Hoover by what its frames
show, acts on all atoms alike and swings within some 20 fs. A run made like it with a
force at hand tells what can be learned from such frames, and how far that is right:

    OMP_NUM_THREADS=1 python benchmarks/md17_like.py --molecule ethanol \
        --length-ps 40 --output md17_ethanol.npz
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openmm
from command_line import one_line_errors, output_file
from openmm import unit
from tqdm import tqdm

from openmm_diffmd.checks import above, at_least
from openmm_diffmd.reference.molecules import load_molecule
from openmm_diffmd.reference.potentials import create_reference_system
from openmm_diffmd.units import FS_PER_PS, KILOCALORIE

STEP_FS = 0.5
EQUILIBRATION_STEPS = 4000
CHAIN, MULTIPLE_STEPS, YOSHIDA_SUZUKI = 3, 3, 7


def make_frames(
    molecule: str, length_ps: float, temperature_K: float, frequency: float, seed: int
) -> dict[str, np.ndarray]:
    """
    Run GFN2-xTB under Nose-Hoover chains and keep each step.

    Parameters
    ----------
    molecule : str
        Name of a molecule, or the path of an xyz or pdb file.
    length_ps : float
        Length, ps, after 2 ps of equilibration.
    temperature_K : float
        Temperature of the heat bath, K.
    frequency : float
        Of the bath, 1/ps.
    seed : int
        Seed of the first velocities.

    Returns
    -------
    dict of str to ndarray
        R, F, E and z as in MD17's files: Angstrom, kcal/mol/Angstrom, kcal/mol.
    """
    topology, positions = load_molecule(molecule)
    integrator = openmm.NoseHooverIntegrator(
        temperature_K * unit.kelvin,
        frequency / unit.picosecond,
        STEP_FS * unit.femtosecond,
        CHAIN,
        MULTIPLE_STEPS,
        YOSHIDA_SUZUKI,
    )
    context = openmm.Context(
        create_reference_system(topology),
        integrator,
        openmm.Platform.getPlatformByName("Reference"),
    )
    context.setPositions(positions)
    context.setVelocitiesToTemperature(temperature_K * unit.kelvin, seed)
    integrator.step(EQUILIBRATION_STEPS)
    kept: dict[str, list[np.ndarray]] = {"R": [], "F": [], "E": []}
    kilocalorie = KILOCALORIE * unit.kilojoule_per_mole
    for _ in tqdm(
        range(round(length_ps * FS_PER_PS / STEP_FS)),
        unit="frame",
        disable=None,
    ):
        integrator.step(1)
        state = context.getState(positions=True, energy=True, forces=True)
        kept["R"].append(state.getPositions(asNumpy=True) / unit.angstrom)
        forces = state.getForces(asNumpy=True)
        kept["F"].append(forces / (kilocalorie / unit.angstrom))
        kept["E"].append(np.array(state.getPotentialEnergy() / kilocalorie))
    numbers = [atom.element.atomic_number for atom in topology.atoms()]
    return {name: np.array(values) for name, values in kept.items()} | {
        "z": np.array(numbers)
    }


def main(words: Sequence[str] | None = None) -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--molecule", default="ethanol")
    parser.add_argument("--length-ps", type=float, default=40.0)
    parser.add_argument("--temperature-K", type=float, default=500.0, help="K")
    parser.add_argument("--frequency", type=float, default=300.0, help="1/ps")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--output", type=output_file, default=Path("rollout/md17_like.npz")
    )
    arguments = parser.parse_args(words)
    with one_line_errors("md17_like"):
        at_least(1, seed=arguments.seed)
        above(
            0,
            length_ps=arguments.length_ps,
            temperature=arguments.temperature_K,
            frequency=arguments.frequency,
        )
        frames = make_frames(
            arguments.molecule,
            arguments.length_ps,
            arguments.temperature_K,
            arguments.frequency,
            arguments.seed,
        )
        np.savez(arguments.output, **frames)
        print(arguments.output)


if __name__ == "__main__":
    main()
