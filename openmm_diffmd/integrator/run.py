"""The verb ``run``: a model in OpenMM, by name, to files by name."""

from pathlib import Path
from typing import Any

import numpy as np
from openmm import unit

from openmm_diffmd.checks import above, at_least, to_int
from openmm_diffmd.diffusion.samplers import SamplerName
from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.integrator.molecules import formulas_of, trained_molecules
from openmm_diffmd.integrator.rollout import MAX_SEED, RolloutSettings, roll_out
from openmm_diffmd.integrator.rollout_files import check_free
from openmm_diffmd.outputs import check_output_folder, make_folder
from openmm_diffmd.reference.molecules import load_molecule
from openmm_diffmd.threads import set_threads
from openmm_diffmd.units import FS_PER_PS, to_float

DEFAULT_LENGTH_PS = 20.0


def run(
    model: str = "ethanol",
    output: Path = Path("rollout/run"),
    molecule: str | None = None,
    replicas: int = 1,
    length_ps: float | None = None,
    frame_interval_fs: float | None = None,
    temperature_K: float | None = None,
    friction_per_ps: float | None = None,
    start_temperature_K: float | None = None,
    seed: int = 0,
    sampler: SamplerName | None = None,
    num_sampling_steps: int | None = None,
    rescue: str | None = None,
    velocities: bool = False,
    dcd_per_replica: bool = False,
    overwrite: bool = False,
    threads: int | None = None,
    platform: str = "Reference",
    progress: bool = True,
) -> Path:
    """
    Run a model in OpenMM and write a DCD, a PDB and a JSON sidecar.

    Parameters
    ----------
    model : str
        Name of a bundled model, or the path of a model file.
    output : path-like
        Files are called this, with suffixes ``.dcd``, ``.pdb``, ``.json``, ``.h5``,
        which it does not have itself; the folder is made if absent.
    molecule : str, optional
        Name of a molecule, or the path of an xyz or pdb file; the model's own unless
        given. Bonds, which the guards watch, are those of the pdb file, else
        those of covalent radii.
    replicas : int
        Independent copies, evolved in one batch.
    length_ps : float, optional
        Length of each copy, ps, a whole number of frames; the one nearest to 20 ps
        unless given.
    frame_interval_fs : float, optional
        Time between frames, fs; a multiple of the lag, the lag unless given.
    temperature_K : float, optional
        Temperature of the heat bath, K; the model's unless given.
    friction_per_ps : float, optional
        Collision rate, 1/ps; the model's unless given; 0 is no heat bath.
    start_temperature_K : float, optional
        Temperature of the first velocities, K; the heat bath's unless given.
    seed : int
        Seed of first velocities and noise; 0 picks one, and the sidecar says which.
        Runs are independent if their seeds are at least `replicas` apart: replica i has
        the noise of seed + i.
    sampler : str, optional
        ``exponential``, ``euler``, ``heun`` or ``predictor_corrector``; the model's
        unless given.
    num_sampling_steps : int, optional
        Sampling steps per lag; the model's unless given; 0 takes the mean.
    rescue : str, optional
        The force that the model learned, as `potential` of `reference`, such as
        ``GFN2-xTB``: a lag that the guards refuse each time it is drawn is run with it,
        and counted, where the run would end otherwise.
    velocities : bool
        Write velocities too, to an MDTraj HDF5 file.
    dcd_per_replica : bool
        Write one DCD for each replica, ``OUTPUT_0.dcd`` and so on, and the PDB of one
        replica, instead of one of all.
    overwrite : bool
        Replace the files of an earlier run called `output`.
    threads : int, optional
        Threads of PyTorch; its own choice unless given.
    platform : str
        OpenMM platform.
    progress : bool
        Show a progress bar, if in a terminal.

    Returns
    -------
    Path
        The JSON sidecar.

    Warns
    -----
    UserWarning
        If the heat bath is far from the temperature that the model is for, its friction
        below the model's own, or the noise not calibrated for the sampler and its
        steps; once, if a bond has more than 18 kT.

    Raises
    ------
    FileExistsError
        If there is a run called `output` and `overwrite` is off, or another file that
        would be replaced.
    FileNotFoundError
        If there is no such model or molecule, or force of the rescue.
    OSError
        If `output` is a folder, or its own is a file, or cannot be made or written in.
    TypeError
        If what must be a whole number is not.
    ValueError
        If a number is out of range or does not fit the model, the model knows several
        molecules and none is named, `rescue` is not the force
        that the model learned, `output` has one of
        the suffixes, or the JSON file to be replaced is no rollout's.
    OpenMMException
        If the integrator gives up; frames made until then are kept.
    """
    replicas, seed = to_int("replicas", replicas), to_int("seed", seed)
    velocities, dcd_per_replica = bool(velocities), bool(dcd_per_replica)
    at_least(1, replicas=replicas)
    temperature_K = _number(temperature_K, unit.kelvin)
    start_temperature_K = _number(start_temperature_K, unit.kelvin)
    friction_per_ps = _number(friction_per_ps, unit.picosecond**-1)
    at_least(0, start_temperature_K=start_temperature_K)
    above(0, frame_interval_fs=frame_interval_fs)
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"found seed {seed}, expected 0 to {MAX_SEED}")
    output = Path(output)
    check_free(output, replicas if dcd_per_replica else None, overwrite)
    check_output_folder(output.parent)
    set_threads(threads)
    loaded = load_model(model)
    known = trained_molecules(loaded.metadata)
    if molecule is None and len(known) > 1:
        raise ValueError(
            f"found no molecule, expected the name or the file of one: model "
            f"{loaded.metadata.name!r} knows several ({formulas_of(known)})"
        )
    topology, start = loaded.example() if molecule is None else load_molecule(molecule)
    one = start.value_in_unit(unit.nanometer)
    make_folder(output.parent)
    return roll_out(
        loaded,
        topology,
        np.repeat(one[None], replicas, axis=0),
        output,
        RolloutSettings(
            length_ps=_length(length_ps, frame_interval_fs, loaded),
            frame_interval_fs=frame_interval_fs,
            temperature_K=temperature_K,
            friction_per_ps=friction_per_ps,
            start_temperature_K=start_temperature_K,
            from_geometry=molecule is not None,
            seed=seed,
            sampler=sampler,
            num_sampling_steps=num_sampling_steps,
            rescue=None if rescue is None else str(rescue),
            keep_velocities=velocities,
            dcd_per_replica=dcd_per_replica,
            platform=platform,
            progress=progress,
        ),
    ).path


def _number(value: Any, in_unit: Any) -> float | None:
    """Take a Quantity too, as the integrator does."""
    return None if value is None else to_float(value, in_unit)


def _length(
    asked: float | None, frame_interval_fs: float | None, model: DiffusionModel
) -> float:
    if asked is not None:
        return asked
    lag = model.metadata.lag_time_fs
    interval = lag if frame_interval_fs is None else frame_interval_fs
    interval = interval / FS_PER_PS
    return round(max(1, round(DEFAULT_LENGTH_PS / interval)) * interval, 9)
