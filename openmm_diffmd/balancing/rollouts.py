"""Balance a model file on its own rollouts: no reference, no training."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.loading import (
    after_equilibration,
    check_different,
    load_rollout,
)
from openmm_diffmd.analysis.modes import stretch_temperatures
from openmm_diffmd.analysis.temperature import element_temperatures
from openmm_diffmd.checks import at_least
from openmm_diffmd.data.pairs import evenly_spread
from openmm_diffmd.elements import formula_of
from openmm_diffmd.export.heat import (
    Modes,
    excess_of,
    heat_slopes,
    take_heat,
)
from openmm_diffmd.export.provenance import provenance_of_now
from openmm_diffmd.export.torchscript import DiffusionModel, load_model, save_model
from openmm_diffmd.export.update import build_exported
from openmm_diffmd.models import TransitionModel
from openmm_diffmd.outputs import check_output_file, make_folder
from openmm_diffmd.sidecar import RolloutSidecar
from openmm_diffmd.units import FS_PER_PS

GRADIENT_STATES = 256
"""Of each molecule, for the gradient of the heat."""
LAGS = (4, 12)
"""Of the mean, between which heat is looked for: what a weight does at once is no heat.
Over the first that of hydrogen in uracil has the other sign than over nine."""


def balance_model(
    model: str | os.PathLike[str],
    rollouts: list[Path] | Path,
    output: Path,
    equilibration_ps: float = 5.0,
    overwrite: bool = False,
) -> Path:
    r"""
    Take from a model the heat that its own rollouts show.

    Equipartition says what the kinetic energies of elements and of stretches are in the
    mean, whatever the force: :math:`kT`. Where a rollout has the share h more, each lag
    adds :math:`\gamma \tau h`, which the bath of friction :math:`\gamma` takes back in
    a lag of length :math:`\tau`. A change of the weights that adds so much less, as
    small as the errors of the heat allow (`take_heat`), is made, to first order. Large
    heat takes a second round: run the new file, balance it.

    Parameters
    ----------
    model : str or path-like
        Name of a bundled model, or the path of a file.
    rollouts : list of path-like, or one
        Rollouts of it with velocities, at one temperature and any friction but 0; their
        ``.json``, as `run` writes it. Of a model of many molecules better all of them:
        what is not balanced changes as well.
    output : path-like
        The file to write; its runs have the temperature of the rollouts unless they ask
        for another.
    equilibration_ps : float
        Time left out at the start of each replica, ps.
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
        If there is no such model or rollout.
    ValueError
        If the model is not of the learned prior and the frictionless flow, rollouts are
        of another file, have no velocities, no heat bath or several temperatures, are
        too short to tell their temperatures' errors, or show no heat beyond these, or
        one is given twice.
    """
    at_least(0, equilibration_ps=equilibration_ps)
    check_output_file(output, overwrite)
    loaded = load_model(model)
    metadata = loaded.metadata
    if metadata.dynamics != "flow" or metadata.prior != "learned":
        raise ValueError(
            f"found a model of {metadata.dynamics} dynamics and a {metadata.prior} "
            "prior, expected flow and learned: others have no mean that keeps heat"
        )
    several = [rollouts] if isinstance(rollouts, str | Path) else rollouts
    paths = [Path(path) for path in several]
    found = [_load(path, loaded, equilibration_ps) for path in paths]
    if not found:
        raise ValueError("found no rollout, expected at least one")
    temperatures = sorted({sidecar.temperature_K for _, sidecar in found})
    if len(temperatures) != 1:
        raise ValueError(
            f"found rollouts at {temperatures} K, expected one temperature"
        )
    check_different(paths, [ensemble for ensemble, _ in found])
    network = build_exported(loaded)
    rows, added, errors = [], [], []
    molecules: list[tuple[Ensemble, Modes]] = []
    for ensemble, friction in _by_molecule(found):
        numbers = np.array([atomic_numbers[symbol] for symbol in ensemble.symbols])
        modes = Modes(
            np.concatenate(ensemble.positions),
            numbers,
            ensemble.masses,
            ensemble.bonds,
            temperatures[0],
        )
        formula = formula_of(ensemble.symbols)
        heat, error = _heat(ensemble, modes.names, temperatures[0], formula)
        # What the bath takes back in a lag.
        taken = 1e-3 * metadata.lag_time_fs * friction
        added.append(taken * heat)
        errors.append(taken * error)
        molecules.append((ensemble, modes))
        rows.append(
            {
                "formula": formula,
                "replicas": ensemble.n_replicas,
                "length_ps": ensemble.length,
                "friction_per_ps": friction,
                "heat": {
                    name: {"value": value, "error": of_it}
                    for name, value, of_it in zip(
                        modes.names, heat.tolist(), error.tolist(), strict=True
                    )
                },
            }
        )
    heat_of_all, errors_of_all = torch.cat(added), torch.cat(errors)
    if not excess_of(heat_of_all, errors_of_all) > 0:
        raise ValueError(
            "found no heat beyond its errors, expected some to take away: the model is "
            "balanced as far as these rollouts tell; longer ones tell more"
        )
    slopes = [_slopes(network, metadata.elements, *each) for each in molecules]
    take_heat(network, torch.cat(slopes), heat_of_all, errors_of_all)
    round_of_now = {"model_sha256": loaded.sha256, "rollouts": rows}
    metadata = replace(
        metadata,
        temperature_K=temperatures[0],
        max_temperature_K=max(temperatures[0], metadata.max_temperature_K),
        # What export measured was of other weights.
        acceptance={**metadata.acceptance, "heat": []},
        config={
            **metadata.config,
            "balanced_on": [*metadata.config.get("balanced_on", []), round_of_now],
        },
        **provenance_of_now(),
    )
    make_folder(Path(output).parent)
    return save_model(network, metadata, Path(output))


def _load(
    path: Path, model: DiffusionModel, equilibration_ps: float
) -> tuple[Ensemble, RolloutSidecar]:
    """Read a rollout and check that its heat is the model's."""
    ensemble, sidecar = load_rollout(path)
    if sidecar.model_sha256 != model.sha256:
        raise ValueError(
            f"found {path} made by another file ({sidecar.model_name!r}, sha256 "
            f"{sidecar.model_sha256[:12]}), expected {model.path} ({model.sha256[:12]})"
        )
    drawn = sidecar.sampler, sidecar.num_sampling_steps
    own = model.metadata.sampler["name"], model.metadata.sampler["num_steps"]
    if drawn != own:
        raise ValueError(
            f"found {path} made with sampler {drawn[0]!r} and {drawn[1]} steps, "
            f"expected {own[0]!r} and {own[1]}, those of {model.path}: other draws "
            "heat otherwise"
        )
    if sidecar.friction_per_ps == 0:
        raise ValueError(
            f"found {path} without a heat bath, expected friction: it sets the "
            "temperature that heat is told from"
        )
    return after_equilibration(path, ensemble, equilibration_ps), sidecar


def _by_molecule(
    rollouts: Sequence[tuple[Ensemble, RolloutSidecar]],
) -> list[tuple[Ensemble, float]]:
    """Join the rollouts of each molecule, with their friction, 1/ps."""
    found: dict[Any, tuple[Ensemble, float]] = {}
    for ensemble, sidecar in rollouts:
        key = (*ensemble.symbols, ensemble.bonds.tobytes())
        if key not in found:
            found[key] = ensemble, sidecar.friction_per_ps
            continue
        own, friction = found[key]
        if (own.frame_interval, friction) != (
            ensemble.frame_interval,
            sidecar.friction_per_ps,
        ):
            raise ValueError(
                "found rollouts of one molecule with frames each "
                f"{FS_PER_PS * own.frame_interval:g} and "
                f"{FS_PER_PS * ensemble.frame_interval:g} fs and frictions "
                f"{friction:g} and {sidecar.friction_per_ps:g}/ps, expected one "
                "interval and friction"
            )
        joined = replace(
            own,
            positions=[*own.positions, *ensemble.positions],
            velocities=[*(own.velocities or ()), *(ensemble.velocities or ())],
        )
        found[key] = joined, friction
    return list(found.values())


def _heat(
    ensemble: Ensemble, names: Sequence[str], temperature: float, formula: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Heat of kinds of bonds and elements beside equipartition, and its errors."""
    measured = {
        **stretch_temperatures(ensemble, temperature),
        **element_temperatures(ensemble, temperature),
    }
    found = [measured[name] for name in names]
    heat = torch.tensor([one.value / one.expected - 1 for one in found]).double()
    error = torch.tensor([one.error / one.expected for one in found]).double()
    if not error.isfinite().all():
        raise ValueError(
            f"found {ensemble.length:g} ps of {formula}, expected more: too short for "
            "errors of its temperatures; run longer or with more replicas"
        )
    return heat, error


def _slopes(
    model: TransitionModel, elements: Sequence[str], ensemble: Ensemble, modes: Modes
) -> torch.Tensor:
    """Gradients of the heat by the encoder's weights, over states of the rollout."""
    chosen = evenly_spread(ensemble.n_frames, GRADIENT_STATES).numpy()
    velocities = np.concatenate(ensemble.relative_velocities())[chosen]
    positions = np.concatenate(ensemble.relative_positions())[chosen]
    species = torch.tensor(
        [list(elements).index(symbol) for symbol in ensemble.symbols]
    )
    masses = torch.from_numpy(ensemble.masses).float()
    return heat_slopes(
        model,
        modes,
        torch.from_numpy(positions).float(),
        torch.from_numpy(velocities).float(),
        species.expand(len(chosen), -1),
        masses.expand(len(chosen), -1),
        LAGS,
    )
