"""Balance a model file on new frames, of the same molecules, without training."""

import os
from dataclasses import replace
from pathlib import Path

from ase.data import atomic_numbers

from openmm_diffmd.checks import at_least
from openmm_diffmd.data.readers import read_trajectory
from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.export.balance import balance_heat
from openmm_diffmd.export.export import build_exported, provenance_of_now
from openmm_diffmd.export.torchscript import load_model, save_model
from openmm_diffmd.outputs import check_output_file, make_folder


def balance_model(
    model: str | os.PathLike[str],
    data: list[Path] | Path,
    output: Path,
    balance_pairs: int = 16384,
    overwrite: bool = False,
) -> Path:
    """
    Take from a model the heat that it adds at the temperature of some frames.

    One minute where a training takes an hour: for a model whose bonds are too hot or
    cold, or for a bath of another temperature than the model was made for.

    Parameters
    ----------
    model : str or path-like
        Name of a bundled model, or the path of a file.
    data : list of path-like, or one
        Bursts of `reference`, at one temperature and without heated bonds, of the
        molecules that are to be balanced.
    output : path-like
        The file to write; its runs have the temperature of `data` unless they ask for
        another.
    balance_pairs : int
        Pairs of each molecule, or all where they are fewer.
    overwrite : bool
        Replace `output` if it exists.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    FileExistsError
        If there is an `output` and `overwrite` is off.
    FileNotFoundError
        If there is no such model or file.
    ValueError
        If the model is not of the learned prior and the frictionless flow, the data
        are no bursts of one temperature, or hold other elements than the model knows.
    """
    check_output_file(output, overwrite)
    at_least(1, balance_pairs=balance_pairs)
    loaded = load_model(model)
    metadata = loaded.metadata
    if metadata.dynamics != "flow" or metadata.prior != "learned":
        raise ValueError(
            f"found a model of {metadata.dynamics} dynamics and a {metadata.prior} "
            "prior, expected flow and learned: others have no mean that keeps heat"
        )
    paths = [Path(data)] if isinstance(data, str | Path) else [Path(p) for p in data]
    trajectories = [read_trajectory(path) for path in paths]
    temperature = _temperature_of(paths, trajectories)
    network = build_exported(loaded)
    heat = balance_heat(
        network,
        trajectories,
        [range(trajectory.n_frames) for trajectory in trajectories],
        [atomic_numbers[symbol] for symbol in metadata.elements],
        temperature,
        balance_pairs,
        metadata.sampler["name"],
        metadata.sampler["num_steps"],
        metadata.noise,
    )
    metadata = replace(
        metadata,
        temperature_K=temperature,
        max_temperature_K=max(temperature, metadata.max_temperature_K),
        acceptance={**metadata.acceptance, "heat": heat},
        config={
            **metadata.config,
            "balanced_on": [dict(one.provenance) for one in trajectories],
        },
        **provenance_of_now(),
    )
    make_folder(Path(output).parent)
    return save_model(network, metadata, Path(output))


def _temperature_of(paths: list[Path], trajectories: list[Trajectory]) -> float:
    """Check that frames are what a lag is measured beside; their temperature, K."""
    temperatures = set()
    for path, trajectory in zip(paths, trajectories, strict=True):
        provenance = trajectory.provenance
        temperature = provenance.get("temperature_K")
        if (
            temperature is None
            or provenance.get("friction_per_ps") != 0
            or provenance.get("bond_energy_kT")
        ):
            raise ValueError(
                f"found {path} with temperature_K {temperature}, friction_per_ps "
                f"{provenance.get('friction_per_ps')} and bond_energy_kT "
                f"{provenance.get('bond_energy_kT')}, expected bursts.h5 of reference, "
                "without friction and without heated bonds"
            )
        temperatures.add(float(temperature))
    if len(temperatures) != 1:
        raise ValueError(
            f"found temperatures {sorted(temperatures)} K of the data, expected one"
        )
    return temperatures.pop()
