"""Write a trained model as one file that the integrator can load."""

import json
import subprocess
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from openmm_diffmd.data.pairs import LaggedPairs
from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.diffusion.residuals import residual_covariance
from openmm_diffmd.export.metadata import ModelMetadata
from openmm_diffmd.export.torchscript import load_model, save_model
from openmm_diffmd.models import TransitionModel

VERSIONED = ("openmm_diffmd", "torch", "e3nn", "numpy")


def export_model(
    training: Path,
    output: Path,
    name: str,
    data: list[Path],
    temperature_K: float = 500.0,
    friction_per_ps: float = 1.0,
    sampler: str = "exponential",
    num_sampling_steps: int = 2,
    sigma_max: float = 2.0,
    conserve_angular_momentum: bool = False,
    max_resamples: int = 10,
    calibration_fraction: float = 0.05,
) -> Path:
    """
    Export the averaged weights of a training, whitening calibrated anew.

    Parameters
    ----------
    training : path-like
        Folder of a training.
    output : path-like
        The file to write; replaced if it exists.
    name : str
        Name of the model.
    data : list of path-like
        The reference files it was trained on, for the calibration of the residual's
        covariance on their validation part.
    temperature_K : float
        Temperature of runs that ask for none, K.
    friction_per_ps : float
        Friction of runs that ask for none, 1/ps.
    sampler : str
        Sampler of runs that ask for none.
    num_sampling_steps : int
        Denoising steps K of runs that ask for none.
    sigma_max : float
        Highest noise level of the sampler.
    conserve_angular_momentum : bool
        Whether a lag keeps the angular momentum.
    max_resamples : int
        Redraws of one lag before the run stops.
    calibration_fraction : float
        Share of the frames, after the training part, to calibrate on.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    FileNotFoundError
        If the folder holds no checkpoint.
    """
    checkpoint = Path(training) / "last.ckpt"
    if not checkpoint.is_file():
        raise FileNotFoundError(
            f"found no {checkpoint}, expected a training; run openmm-diffmd train first"
        )
    description = json.loads((Path(training) / "training.json").read_text())
    model, step = _load_weights(checkpoint, description)
    covariance = _calibrate(model, data, description, calibration_fraction)
    config = description["config"]
    metadata = ModelMetadata(
        name=name,
        dynamics=config["data"]["dynamics"],
        lag_time_fs=config["data"]["lag_time_fs"],
        temperature_K=temperature_K,
        friction_per_ps=friction_per_ps,
        elements=description["elements"],
        max_temperature_K=max(
            [temperature_K]
            + [file["provenance"]["temperature_K"] for file in description["data"]]
        ),
        cutoff_nm=config["model"]["cutoff"],
        prior=config["model"]["prior"],
        noise_conditioning=config["model"]["noise_conditioning"],
        noise={
            "sigma_min": config["optimizer"]["sigma_min"],
            "sigma_max": sigma_max,
            "rho": 7.0,
        },
        sampler={"name": sampler, "num_steps": num_sampling_steps},
        conserve_angular_momentum=conserve_angular_momentum,
        guards={
            "bond_ranges_nm": description["bond_ranges_nm"],
            "max_resamples": max_resamples,
        },
        reference={"data": description["data"]},
        versions=_versions(),
        git_hash=_git_hash(),
        example=description["example"],
        config={
            **config,
            "seed": description["seed"],
            "steps": step,
            "history": description.get("history", []),
        },
        acceptance={"one_lag": covariance},
    )
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    return save_model(model, metadata, Path(output))


def add_acceptance(path: Path, figures: dict[str, Any]) -> Path:
    """
    Write figures of a rollout into a model file.

    Parameters
    ----------
    path : path-like
        The model file; replaced.
    figures : dict
        JSON-able figures, added under ``acceptance``.

    Returns
    -------
    Path
        The file.
    """
    model = load_model(path)
    metadata = replace(
        model.metadata, acceptance={**model.metadata.acceptance, **figures}
    )
    return save_model(model.module, metadata, Path(path))


def _load_weights(
    checkpoint: Path, description: dict[str, Any]
) -> tuple[TransitionModel, int]:
    config = description["config"]
    model = TransitionModel(
        n_elements=len(description["elements"]),
        lag_time=config["data"]["lag_time_fs"] / 1000,
        **config["model"],
    )
    saved = torch.load(checkpoint, map_location="cpu", weights_only=False)
    prefix = "model."
    model.load_state_dict(
        {
            key.removeprefix(prefix): value
            for key, value in saved["state_dict"].items()
            if key.startswith(prefix)
        }
    )
    return model.eval(), int(saved["global_step"])


@torch.no_grad()
def _calibrate(
    model: TransitionModel,
    data: list[Path],
    description: dict[str, Any],
    fraction: float,
) -> dict[str, Any]:
    """
    Set the learned prior's whitening to the error on frames not trained on.

    Parameters
    ----------
    model : TransitionModel
        The model; its whitening is replaced.
    data : list of path-like
        Reference files.
    description : dict
        Of the training.
    fraction : float
        Share of the frames after the training part.

    Returns
    -------
    dict
        Root mean square one-lag errors per element, in units of the residual's
        spread and in nm and nm/ps.
    """
    from ase.data import atomic_numbers

    symbols = description["elements"]
    trajectories = [read_reference(path) for path in data]
    ranges = []
    for trajectory, file in zip(trajectories, description["data"], strict=True):
        segment = int((trajectory.segments == trajectory.segments[0]).sum())
        start = file["train_frames"] + segment
        ranges.append(range(start, start + int(fraction * trajectory.n_frames)))
    pairs = LaggedPairs(
        trajectories, ranges, [atomic_numbers[s] for s in symbols], model.lag_time
    )
    batch = pairs.batch(torch.linspace(0, len(pairs) - 1, min(4096, len(pairs))).long())
    condition = model.encode(
        batch.positions,
        batch.velocities,
        batch.acceleration,
        batch.has_acceleration,
        batch.species,
        batch.masses,
        torch.zeros(len(batch.species)),
    )
    error = model.error(batch.following, condition)
    residual = model.whiten(batch.following, condition)
    figures: dict[str, Any] = {"n_pairs": len(batch.species)}
    for index, symbol in enumerate(symbols):
        if model.prior == "learned":
            cholesky = model.residual_cholesky[index]
            covariance = residual_covariance(residual[batch.species == index], cholesky)
            model.residual_cholesky[index] = torch.linalg.cholesky(covariance)
        plain = error[batch.species == index].square().mean((0, 2)).sqrt()
        figures[symbol] = {
            "position_relative": float(plain[0]),
            "velocity_relative": float(plain[1]),
            "position_nm": float(plain[0] * model.position_scale[index]),
            "velocity_nm_per_ps": float(plain[1] * model.velocity_scale[index]),
        }
    return figures


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _git_hash() -> str:
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return result.stdout.strip()
