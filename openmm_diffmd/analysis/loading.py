"""Ensembles from files: rollouts with their sidecar, and references."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
from ase.data import chemical_symbols
from mdtraj.formats import HDF5TrajectoryFile
from numpy.typing import NDArray

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.bundled import PRETRAINED
from openmm_diffmd.data.dcd import read_dcd_positions, read_pdb_topology
from openmm_diffmd.data.forces import check_forces
from openmm_diffmd.data.readers import is_numbered, read_trajectory
from openmm_diffmd.data.reference_files import HDF5_DAMAGE, damage
from openmm_diffmd.data.trajectory import Trajectory, time_rounding
from openmm_diffmd.data.velocities import check_velocities
from openmm_diffmd.elements import check_element_masses
from openmm_diffmd.sidecar import RolloutSidecar
from openmm_diffmd.topologies import make_topology
from openmm_diffmd.units import FS_PER_PS

FloatArray = NDArray[np.floating]
BUNDLED: Mapping[str, Path] = {"ethanol": PRETRAINED / "ethanol_reference.h5"}


def load_rollout(path: str | Path) -> tuple[Ensemble, RolloutSidecar]:
    """
    Read a rollout back: DCD files with the time axis and replicas of their sidecar.

    Parameters
    ----------
    path : path-like
        The ``.json``, or the ``.dcd`` of all replicas; the other files lie beside it.
        Velocities come from the ``.h5`` where there is one.

    Returns
    -------
    ensemble : Ensemble
        One trajectory a replica. Frames after the sidecar's last good one are cut.
    sidecar : RolloutSidecar
        What the sidecar says.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If the files disagree, one is damaged, or there is no good frame.
    """
    path = Path(path)
    sidecar_path, pdb = path.with_suffix(".json"), path.with_suffix(".pdb")
    _require(sidecar_path)
    sidecar = RolloutSidecar.read(sidecar_path)
    files = sidecar.dcd_files(path)
    for file in (pdb, *files):
        _require(file)
    if sidecar.num_frames == 0:
        raise ValueError(
            f"{sidecar_path} counts no good frame, expected at least one"
            + (f"; the run ended with {sidecar.error}" if sidecar.error else "")
        )
    topology = read_pdb_topology(pdb)
    in_each_file = sidecar.num_replicas // len(files)
    n_atoms = in_each_file * sidecar.atoms_per_replica
    if topology.n_atoms != n_atoms:
        raise ValueError(
            f"{pdb} has {topology.n_atoms} atoms, expected {n_atoms} "
            f"({in_each_file} replicas of {sidecar.atoms_per_replica})"
        )
    parts = [_load_dcd(file, topology, sidecar.num_frames) for file in files]
    xyz = np.concatenate(parts, axis=1)
    velocities = None
    if path.with_suffix(".h5").is_file():
        velocities = _load_velocities(path.with_suffix(".h5"), xyz.shape)

    def split(array: FloatArray) -> list[FloatArray]:
        shape = (-1, sidecar.num_replicas, sidecar.atoms_per_replica, 3)
        return list(array[: sidecar.num_frames].reshape(shape).swapaxes(0, 1))

    ensemble = Ensemble(
        topology=topology.subset(range(sidecar.atoms_per_replica)),
        frame_interval=sidecar.frame_interval_fs / FS_PER_PS,
        positions=split(xyz),
        velocities=None if velocities is None else split(velocities),
    )
    return ensemble, sidecar


def check_different(paths: Sequence[Path], ensembles: Sequence[Ensemble]) -> None:
    """
    Refuse to learn from one rollout as if it were two.

    Parameters
    ----------
    paths : sequence of Path
        Where they are from.
    ensembles : sequence of Ensemble
        Their frames, in the same order.

    Raises
    ------
    ValueError
        If two have the same frames.
    """
    for one, two in itertools.combinations(range(len(paths)), 2):
        if np.array_equal(ensembles[one].positions[0], ensembles[two].positions[0]):
            raise ValueError(
                f"found the same frames in {paths[one]} and {paths[two]}, expected "
                "each rollout once: give --seed to run for another"
            )


def after_equilibration(
    path: Path, ensemble: Ensemble, equilibration_ps: float
) -> Ensemble:
    """
    Leave out the start of each replica of a rollout with velocities.

    Parameters
    ----------
    path : Path
        Where it is from.
    ensemble : Ensemble
        Its frames.
    equilibration_ps : float
        Time to leave out, ps.

    Returns
    -------
    Ensemble
        The rest.

    Raises
    ------
    ValueError
        If there is none, or there are no velocities.
    """
    if ensemble.velocities is None:
        raise ValueError(
            f"found {path} without velocities, expected them: run --velocities true"
        )
    skipped = round(equilibration_ps / ensemble.frame_interval)
    lengths = [len(x) for x in ensemble.positions]
    if max(lengths) <= skipped:
        raise ValueError(
            f"found {path} of {max(lengths) * ensemble.frame_interval:g} ps, expected "
            f"more than equilibration_ps {equilibration_ps:g}"
        )
    return ensemble.window([skipped] * len(lengths), lengths)


def _require(file: Path) -> None:
    if not file.is_file():
        raise FileNotFoundError(
            f"found no {file}; a rollout is a .json, a .pdb and a .dcd of one name, or "
            "one .dcd for each replica: openmm-diffmd run writes them, and in a script "
            "openmm_diffmd.record_rollout; a DCD of another program needs a .pdb of "
            "its name beside it, and rollout_interval_fs"
        )


def _load_dcd(file: Path, topology: mdtraj.Topology, num_frames: int) -> FloatArray:
    xyz = read_dcd_positions(file, topology)
    if len(xyz) < num_frames:
        raise ValueError(
            f"{file} has {len(xyz)} frames, expected {num_frames}: "
            "was it cut or copied while running?"
        )
    return xyz[:num_frames]


def _load_velocities(file: Path, shape: tuple[int, ...]) -> FloatArray:
    try:
        with HDF5TrajectoryFile(str(file)) as content:
            velocities: FloatArray | None = content.read().velocities
    except HDF5_DAMAGE as error:
        raise ValueError(
            f"found {file} damaged, cut short or still being written "
            f"({damage(error)}), expected the velocities of the rollout: copy or make "
            "it again, or remove it to analyze without velocities"
        ) from error
    if velocities is not None:
        velocities = velocities[: shape[0]]
    if velocities is None or velocities.shape != shape:
        found = "no velocities" if velocities is None else velocities.shape
        raise ValueError(
            f"found {found} in {file}, expected velocities {shape}: copy or make it "
            "again, or remove it to analyze without velocities"
        )
    return velocities


def load_reference(
    path: str | Path, frame_interval_fs: float | None = None, whole: bool = True
) -> tuple[Ensemble, Mapping[str, Any]]:
    """
    Read a reference trajectory, as `read_trajectory` does: evenly spaced frames.

    Parameters
    ----------
    path : path-like
        The file, or ``ethanol`` for the reference that comes with the package. Where
        it has an array ``segment``, each segment is a replica.
    frame_interval_fs : float, optional
        Time between frames of a file that does not say, fs; 0.5 of MD17 unless given.
    whole : bool
        Refuse frames from elsewhere in which a bond is far apart; else the first alone
        is looked at.

    Returns
    -------
    ensemble : Ensemble
        Positions, and velocities where the file has them.
    provenance : mapping
        What made the frames; empty where the file does not say.

    Raises
    ------
    FileNotFoundError
        If there is no such file, nor a bundled reference of this name.
    ValueError
        If the kind of file is not known or `read_trajectory` refuses it; frames are not
        evenly spaced in time, those of MD17 have no velocities, or forces of another
        unit, or they are of frictionless bursts, or numbered by MDTraj; masses are not
        the elements', or velocities of a file from elsewhere do not belong to its
        positions and times.

    Warns
    -----
    UserWarning
        If forces of MD17 are softer or stiffer than bonds are.
    """
    if Path(path).is_file() and not Path(path).suffix:
        raise ValueError(
            f"found {path}, whose name does not say what kind of file it is, expected "
            "one that ends in .h5, .npz, .xyz, .extxyz or .dcd: rename it"
        )
    if not Path(path).suffix and str(path).lower() not in BUNDLED:
        raise FileNotFoundError(
            f"found no reference {str(path)!r}, expected the path of a file or a "
            f"bundled name ({', '.join(BUNDLED)}); openmm-diffmd reference makes one"
        )
    file = BUNDLED.get(str(path).lower(), path)
    data = read_trajectory(file, frame_interval_fs, whole)
    if frame_interval_fs is None and is_numbered(data):
        raise ValueError(
            f"found no times in {path}, or 0, 1, 2, ... ps, which does not say what "
            "made it, expected those of its frames: MDTraj numbers the frames of a DCD "
            "so; give frame_interval_fs"
        )
    if data.provenance.get("kind") == "bursts":
        raise ValueError(
            f"found the frictionless bursts {path}, expected the thermostatted run "
            "beside them (thermostatted.h5): spectra and rates of rare events need "
            "dynamics that is longer than a burst"
        )
    if data.provenance.get("data") == "MD17" and data.velocities is None:
        raise ValueError(
            f"found {path} without velocities ({data.provenance['velocities']}), "
            "expected an original MD17 file"
        )
    check_element_masses(path, data.atomic_numbers, data.masses)
    if data.provenance.get("data") == "MD17":
        # Its velocities are made with them.
        check_forces(path, data)
    if data.is_foreign:
        check_velocities(path, data)
    topology = topology_of(data)
    cuts = np.flatnonzero(np.diff(data.segments)) + 1
    intervals = np.concatenate(
        [np.diff(t.astype(np.float64)) for t in np.split(data.times, cuts)]
    )
    if len(intervals) == 0 or not np.allclose(
        intervals, intervals.mean(), rtol=0.01, atol=time_rounding(data.times)
    ):
        raise ValueError(
            f"found frames of {path} unevenly spaced in time (or only one), expected "
            "one interval: frames taken here and there from a run, as rMD17's, have a "
            "structure alone, which benchmarks/real_md17.py compares"
        )
    ensemble = Ensemble(
        topology=topology,
        # Other programs may store float32; the interval is a whole number of 1e-6 ps.
        frame_interval=round(float(intervals.mean()), 6),
        positions=np.split(data.positions, cuts),
        velocities=None if data.velocities is None else np.split(data.velocities, cuts),
    )
    return ensemble, data.provenance


def topology_of(frames: Trajectory) -> mdtraj.Topology:
    """
    Make the topology of frames that were read.

    Parameters
    ----------
    frames : Trajectory
        Frames of one molecule.

    Returns
    -------
    mdtraj.Topology
        Its atoms and bonds.
    """
    symbols = [chemical_symbols[z] for z in frames.atomic_numbers]
    return make_topology(symbols, frames.bonds)
