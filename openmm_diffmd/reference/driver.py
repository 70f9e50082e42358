"""Make the reference: a thermostatted run, and frictionless bursts from its frames."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from openmm_diffmd.checks import at_least, count_intervals, to_int
from openmm_diffmd.elements import (
    LONGEST_BOND,
    check_element_masses,
    contact_distances,
)
from openmm_diffmd.outputs import check_output_folder, make_folder
from openmm_diffmd.reference.contexts import check_first_force, reference_context
from openmm_diffmd.reference.dynamics import FloatArray, ReferenceFrame, VelocityBath
from openmm_diffmd.reference.hot_bonds import heat_bonds
from openmm_diffmd.reference.molecules import load_molecule
from openmm_diffmd.reference.potentials import (
    create_reference_system,
    particle_masses,
)
from openmm_diffmd.reference.provenance import describe_run
from openmm_diffmd.reference.recording import (
    Recording,
    equilibrate,
    run_bursts,
    run_chain,
    run_thermostatted,
)
from openmm_diffmd.reference.storage import ReferenceWriter
from openmm_diffmd.units import BOLTZMANN, FS_PER_PS


def make_reference(
    molecule: str,
    output: Path,
    potential: str = "GFN2-xTB",
    temperature_K: float = 500.0,
    friction_per_ps: float = 1.0,
    step_size_fs: float = 0.5,
    equilibration_ps: float = 5.0,
    length_ps: float = 150.0,
    frame_interval_fs: float = 10.0,
    num_bursts: int = 500,
    burst_length_ps: float = 1.0,
    burst_frame_interval_fs: float = 1.0,
    chained: bool = False,
    bond_energy_kT: float = 0.0,
    seed: int = 1,
    platform: str = "Reference",
    progress: bool = True,
    potential_options: dict[str, Any] | None = None,
) -> tuple[Path, ...]:
    """
    Run thermostatted Langevin dynamics, then frictionless bursts from its frames.

    Parameters
    ----------
    molecule : str or path-like
        Name of a molecule, or the path of an xyz or pdb file.
    output : path-like
        Folder for ``thermostatted.h5`` and ``bursts.h5``; made if absent.
    potential : str or path-like
        ``GFN2-xTB`` or ``GFN1-xTB`` (tblite), the import path of any ASE calculator,
        or the path of a trained force (``.pt``, of the verb ``force``) or of a System
        XML.
    temperature_K : float
        Bath temperature, K.
    friction_per_ps : float
        Collision rate of the thermostatted run, 1/ps.
    step_size_fs : float
        Step size of both, fs.
    equilibration_ps : float
        Thermostatted time before the first recorded frame, ps.
    length_ps : float
        Recorded thermostatted time, ps.
    frame_interval_fs : float
        Time between frames of the thermostatted run, fs.
    num_bursts : int
        Bursts, started from evenly spaced frames of the thermostatted run; 0 for
        none.
    burst_length_ps : float
        Length of a burst, ps.
    burst_frame_interval_fs : float
        Time between frames of a burst, fs.
    chained : bool
        Build the thermostatted run from the bursts: each burst continues where the
        previous one ended, after an exact Ornstein-Uhlenbeck step on the velocities
        over the length of a burst. Every force evaluation then serves both files. The
        number of bursts follows from `length_ps`; `num_bursts` is ignored. Keep bursts
        short compared with 1/friction.
    bond_energy_kT : float
        Upper limit of the extra energy given to bond stretches at the start of a
        burst, kT; 0 for none. Each bond is heated with probability 1/4, by an energy
        drawn uniformly up to this limit. Use such bursts together with ordinary ones:
        a rollout can reach bonds hotter than the bath usually shows.
    seed : int
        Seed of velocities and random forces, positive.
    platform : str
        OpenMM platform; ``Reference`` is the fastest for a small molecule.
    progress : bool
        Show progress bars.
    potential_options : dict, optional
        Keyword arguments of the ASE calculator, such as ``max_iterations`` of
        tblite; those that it would ignore are refused.

    Returns
    -------
    tuple of Path
        The files written, MDTraj HDF5: ``thermostatted.h5`` and, unless there are none,
        ``bursts.h5``.

    Raises
    ------
    TypeError
        If `seed` or `num_bursts` is no whole number.
    ValueError
        If a length is not a positive whole number of frames, or frames of steps,
        more bursts are asked for than there are frames to start from, a temperature,
        friction, equilibration or energy is negative, an atom is an isotope with a
        mass of its own, or bonds are to be heated where there are none, or no bursts,
        or these are chained.
    FileNotFoundError
        If the molecule or the potential is a file that does not exist.
    FileExistsError
        If one of the files exists.
    OSError
        If `output` is a file, or cannot be made or written in.
    DynamicsError
        If the force fails or the molecule explodes; what was written is kept.

    Warns
    -----
    UserWarning
        If a bond is longer than one may be after the equilibration, or at the end.
    """
    # Numbers of NumPy and paths would be refused when the provenance is written.
    molecule, potential = str(molecule), str(potential)
    seed, num_bursts = to_int("seed", seed), to_int("num_bursts", num_bursts)
    temperature_K, friction_per_ps = float(temperature_K), float(friction_per_ps)
    step_size_fs, equilibration_ps = float(step_size_fs), float(equilibration_ps)
    length_ps, frame_interval_fs = float(length_ps), float(frame_interval_fs)
    burst_frame_interval_fs = float(burst_frame_interval_fs)
    bond_energy_kT = float(bond_energy_kT)
    if not 1 <= seed < 2**31:
        raise ValueError(f"found seed {seed}, expected a whole number from 1 to 2^31-1")
    at_least(
        0,
        temperature_K=temperature_K,
        friction_per_ps=friction_per_ps,
        equilibration_ps=equilibration_ps,
    )
    _check_heating(bond_energy_kT, chained, num_bursts)
    run = Recording.lasting(length_ps, frame_interval_fs, step_size_fs)
    burst = Recording.lasting(
        burst_length_ps, burst_frame_interval_fs, step_size_fs, "burst_"
    )
    if chained:
        num_bursts = count_intervals(
            "length_ps", length_ps * FS_PER_PS, burst_length_ps * FS_PER_PS
        )
        stride = count_intervals(
            "frame_interval_fs", frame_interval_fs, burst_frame_interval_fs
        )
        count_intervals(
            "burst_length_ps", burst_length_ps * FS_PER_PS, frame_interval_fs
        )
    elif not 0 <= num_bursts <= run.num_frames:
        raise ValueError(
            f"found {num_bursts} bursts, expected 0 to {run.num_frames}, the frames "
            "they start from: ask for fewer, or a longer run"
        )
    output = Path(output)
    paths = output / "thermostatted.h5", output / "bursts.h5"
    for path in paths:
        if path.exists():
            raise FileExistsError(
                f"{path} exists; expected a new file: choose another folder"
            )
    check_output_folder(output)
    topology, positions = load_molecule(molecule)
    system = create_reference_system(topology, potential, potential_options)
    masses = particle_masses(system)
    numbers = np.array([atom.element.atomic_number for atom in topology.atoms()])
    advice = "name its element instead of the isotope, such as H for D"
    check_element_masses(molecule, numbers, masses, advice)
    _check_bonds(bond_energy_kT, topology, molecule)
    described = describe_run(molecule, potential, potential_options, masses) | {
        "temperature_K": temperature_K,
        "friction_per_ps": friction_per_ps,
        "step_size_fs": step_size_fs,
        "equilibration_ps": equilibration_ps,
        "length_ps": length_ps,
        "seed": seed,
        "platform": platform,
    }
    # First: a Context that is made later would set the noise of this one, which on the
    # Reference platform is the process's, back to its beginning.
    free = reference_context(system, temperature_K, 0.0, step_size_fs, seed, platform)
    context = reference_context(
        system, temperature_K, friction_per_ps, step_size_fs, seed, platform
    )
    context.setPositions(positions)
    check_first_force(context, potential, potential_options)
    make_folder(output)
    context.setVelocitiesToTemperature(temperature_K * unit.kelvin, seed)
    equilibrate(context, equilibration_ps, step_size_fs, progress)
    is_broken = _warn_if_broken(context, topology, "after the equilibration")
    run_recorded = described | {
        "kind": "thermostatted",
        "frame_interval_fs": frame_interval_fs,
    }
    burst_recorded = described | {
        "kind": "bursts",
        "frame_interval_fs": burst_frame_interval_fs,
        "friction_per_ps": 0.0,
        "bond_energy_kT": bond_energy_kT,
    }
    with ReferenceWriter(
        paths[0], topology, masses, run_recorded, run.num_frames
    ) as run_writer:
        if not chained:
            starts = run_thermostatted(context, run, run_writer, num_bursts, progress)
            _warn_if_broken(context, topology, "at the end of the run", is_broken)
            # Bursts may take hours: the run is whole before them.
            run_writer.flush()
            if not starts:
                return paths[:1]
        num_frames = num_bursts * burst.num_frames
        with ReferenceWriter(
            paths[1], topology, masses, burst_recorded, num_frames
        ) as burst_writer:
            if not chained:
                max_energy = bond_energy_kT * BOLTZMANN * temperature_K
                starts = _heated(starts, topology, masses, max_energy, seed)
                run_bursts(free, burst, burst_writer, starts, progress)
                return paths
            state = context.getState(positions=True, velocities=True)
            free.setPositions(state.getPositions())
            free.setVelocities(state.getVelocities())
            bath = VelocityBath(
                temperature_K, friction_per_ps, burst_length_ps, masses, seed
            )
            run_chain(
                free,
                burst,
                num_bursts,
                stride,
                bath,
                run_writer,
                burst_writer,
                progress,
            )
            _warn_if_broken(free, topology, "at the end of the run", is_broken)
    return paths


def _warn_if_broken(
    context: openmm.Context, topology: app.Topology, when: str, is_told: bool = False
) -> bool:
    """Tell, once, of the bond that is longest beside its covalent radii, if broken."""
    bonds = np.array([(a.index, b.index) for a, b in topology.bonds()], np.int64)
    if is_told or not len(bonds):
        return is_told
    first, second = bonds.T
    positions = context.getState(positions=True).getPositions(asNumpy=True)
    x = positions.value_in_unit(unit.nanometer)
    numbers = np.array([atom.element.atomic_number for atom in topology.atoms()])
    usual = contact_distances(numbers, first, second)
    lengths = np.linalg.norm(x[first] - x[second], axis=1)
    longest = int(np.argmax(lengths / usual))
    is_broken = bool(lengths[longest] > LONGEST_BOND * usual[longest])
    if is_broken:
        warnings.warn(
            f"found the bond between atoms {first[longest]} and {second[longest]} of "
            f"{lengths[longest]:.3g} nm {when}, expected about "
            f"{usual[longest]:.3g} nm: the molecule falls apart by this force, or a "
            "hydrogen went over to another atom; look at thermostatted.h5, and train "
            "on it only if that is right",
            stacklevel=3,
        )
    return is_broken


def _check_heating(bond_energy_kT: float, chained: bool, num_bursts: int) -> None:
    at_least(0, bond_energy_kT=bond_energy_kT)
    if bond_energy_kT and (chained or not num_bursts):
        raise ValueError(
            f"found bond_energy_kT {bond_energy_kT:g} and "
            f"{'chained bursts' if chained else 'no bursts'}, expected bursts that "
            "start from frames of a run: --chained false and --num_bursts 100, say"
        )


def _check_bonds(bond_energy_kT: float, topology: app.Topology, molecule: str) -> None:
    if bond_energy_kT and not topology.getNumBonds():
        raise ValueError(
            f"found bond_energy_kT {bond_energy_kT:g} and no bond in {molecule}, "
            "expected bonds to heat; leave it out, or bring a pdb file with bonds"
        )


def _heated(
    starts: list[ReferenceFrame],
    topology: app.Topology,
    masses: FloatArray,
    max_energy: float,
    seed: int,
) -> list[ReferenceFrame]:
    if not max_energy:
        return starts
    bonds = np.array([(a.index, b.index) for a, b in topology.bonds()])
    generator = np.random.default_rng(seed)
    return [heat_bonds(start, bonds, masses, max_energy, generator) for start in starts]
