"""Write a trained model as one file that the integrator can load."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from ase.data import atomic_numbers

from openmm_diffmd.checks import at_least, one_of
from openmm_diffmd.diffusion.samplers import SAMPLERS, SamplerName
from openmm_diffmd.export.balance import balance_heat
from openmm_diffmd.export.calibration import (
    calibrate_spread,
    mean_errors,
    one_lag_figures,
)
from openmm_diffmd.export.metadata import ModelMetadata
from openmm_diffmd.export.pairs import (
    pairs_left_out,
    pairs_trained_on,
    parts_trained_on,
)
from openmm_diffmd.export.provenance import provenance_of_now
from openmm_diffmd.export.refit import refit_mean
from openmm_diffmd.export.torchscript import save_model
from openmm_diffmd.models import TransitionModel
from openmm_diffmd.outputs import check_output_file, make_folder
from openmm_diffmd.training.config import ModelConfig
from openmm_diffmd.training.description import read_checkpoint, read_description
from openmm_diffmd.training.module import build_model

TEMPERATURE = "temperature_K"


def export_model(
    training: Path,
    output: Path,
    name: str,
    data: list[Path] | Path | None = None,
    temperature_K: float | None = None,
    friction_per_ps: float | None = None,
    sampler: SamplerName = "exponential",
    num_sampling_steps: int = 2,
    sigma_max: float = 2.0,
    conserve_angular_momentum: bool = False,
    max_resamples: int = 10,
    calibration_fraction: float = 0.05,
    refit_pairs: int = 8192,
    balance_pairs: int = 16384,
    overwrite: bool = False,
) -> Path:
    """
    Export the averaged weights of a training: the mean refitted, draws calibrated.

    Parameters
    ----------
    training : path-like
        Folder of a training.
    output : path-like
        The file to write.
    name : str
        Name of the model.
    data : list of path-like, or one, optional
        The reference files it was trained on, in their order, where they are not where
        they were; what comes after their training part, at `temperature_K` where they
        say theirs, calibrates the spread.
    temperature_K : float, optional
        Temperature of runs that ask for none, K; one of the data, the first file's
        unless given.
    friction_per_ps : float, optional
        Friction of runs that ask for none, 1/ps; 1 unless given, and the data's where
        the dynamics is thermostatted.
    sampler : str
        ``exponential``, ``euler``, ``heun`` or ``predictor_corrector``: that of runs
        that ask for none.
    num_sampling_steps : int
        Denoising steps K of runs that ask for none.
    sigma_max : float
        Highest noise level of the sampler.
    conserve_angular_momentum : bool
        Whether a lag keeps the angular momentum.
    max_resamples : int
        Redraws of one lag before the run stops.
    calibration_fraction : float
        Share of the frames, after the training part, to calibrate on; at most that of
        the validation, as what comes after belongs to tests.
    refit_pairs : int
        Pairs of the training part, at `temperature_K` if any are, that the last layer
        of the mean is refitted to by least squares; 0 leaves it as it was trained.
        Without effect on a model of another prior than the learned one.
    balance_pairs : int
        Pairs of each molecule's training part, at `temperature_K` if any are, over
        which a drawn lag adds no heat to bonds and elements (`balance_heat`); 0 leaves
        what the training made. Without effect on another prior than the learned one and
        on thermostatted dynamics.
    overwrite : bool
        Replace `output` if it exists.

    Returns
    -------
    Path
        The file.

    Warns
    -----
    UserWarning
        If the training is not finished.

    Raises
    ------
    FileExistsError
        If there is an `output` and `overwrite` is off.
    FileNotFoundError
        If the folder holds no checkpoint, or a file of the training is not where it
        was and `data` is not given.
    OSError
        If `output` is a folder, or its folder cannot be made or written in.
    ValueError
        If the checkpoint is damaged, the data are not those of the training, no file
        is of the temperature, the sampler is unknown, or a number is out of range.
    """
    checkpoint = Path(training) / "last.ckpt"
    if not checkpoint.is_file():
        raise FileNotFoundError(
            f"found no {checkpoint}, expected a training; run openmm-diffmd train first"
        )
    check_output_file(output, overwrite)
    description = read_description(Path(training))
    data = [Path(data)] if isinstance(data, str | Path) else data
    data = data or _files_of(description)
    model, step = _load_weights(checkpoint, description)
    config = description["config"]
    asked = config["optimizer"]["num_steps"]
    if step < asked:
        warnings.warn(
            f"found {checkpoint} at step {step} of {asked}, expected a finished "
            "training: go on with train --resume true",
            stacklevel=2,
        )
    temperature_K = _temperature(description["data"], temperature_K)
    friction_per_ps = _friction(description, friction_per_ps)
    validation = config["data"]["fractions"][1]
    if not 0 < calibration_fraction <= validation:
        raise ValueError(
            f"found calibration_fraction {calibration_fraction:g}, expected more than "
            f"0 and at most {validation:g}, the validation share of the training: "
            "what comes after it is left to tests"
        )
    noise = {
        "sigma_min": config["optimizer"]["sigma_min"],
        "sigma_max": sigma_max,
        "rho": 7.0,
    }
    one_of(tuple(SAMPLERS), sampler=sampler)
    at_least(0, refit_pairs=refit_pairs, balance_pairs=balance_pairs)
    at_least(0, num_sampling_steps=num_sampling_steps)
    at_least(noise["sigma_min"], sigma_max=sigma_max)
    # Made before the work that it describes: it refuses what is out of range.
    metadata = ModelMetadata(
        name=name,
        dynamics=config["data"]["dynamics"],
        lag_time_fs=config["data"]["lag_time_fs"],
        temperature_K=temperature_K,
        friction_per_ps=friction_per_ps,
        elements=description["elements"],
        max_temperature_K=max(
            [temperature_K, *_known(description["data"], TEMPERATURE)]
        ),
        cutoff_nm=config["model"]["cutoff"],
        prior=config["model"]["prior"],
        noise_conditioning=config["model"]["noise_conditioning"],
        noise=noise,
        sampler={"name": sampler, "num_steps": num_sampling_steps},
        conserve_angular_momentum=conserve_angular_momentum,
        guards={
            "bond_ranges_nm": description["bond_ranges_nm"],
            "max_resamples": max_resamples,
            # Trainings of before have measured none.
            **{k: description[k] for k in ("contact_limits_nm",) if k in description},
        },
        reference={"data": description["data"]},
        **provenance_of_now(),
        example=description["example"],
        config={
            **config,
            "seed": description["seed"],
            "steps": step,
            "calibration_fraction": calibration_fraction,
            "history": description.get("history", []),
        },
    )
    refitted = 0
    if refit_pairs and model.prior == "learned":
        pairs = pairs_trained_on(model, data, description, temperature_K)
        refitted = refit_mean(model, pairs, refit_pairs)
    batch = pairs_left_out(
        model, data, description, temperature_K, calibration_fraction
    )
    spread = calibrate_spread(model, batch, sampler, num_sampling_steps, noise)
    heat = []
    if balance_pairs and model.prior == "learned" and metadata.dynamics == "flow":
        heat = balance_heat(
            model,
            *parts_trained_on(data, description, temperature_K),
            [atomic_numbers[symbol] for symbol in metadata.elements],
            temperature_K,
            balance_pairs,
            sampler,
            num_sampling_steps,
            noise,
        )
    # Of the weights that are written.
    error = mean_errors(model, batch)
    figures = one_lag_figures(model, batch, description["elements"], error, spread)
    metadata = replace(
        metadata,
        config={**metadata.config, "refit_pairs": refitted},
        acceptance={"one_lag": figures, "heat": heat},
    )
    make_folder(Path(output).parent)
    return save_model(model, metadata, Path(output))


def _files_of(description: dict[str, Any]) -> list[Path]:
    """Find the files of a training where they were."""
    paths = [Path(path) for path in description["paths"]]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        names = ", ".join(file["file"] for file in description["data"])
        raise FileNotFoundError(
            f"found no {', '.join(missing)}, expected the "
            f"files of the training ({names}): give --data"
        )
    return paths


def _known(files: list[dict[str, Any]], name: str) -> list[float]:
    """List what files say about themselves, without those that do not say it."""
    values = (file["provenance"].get(name) for file in files)
    return [float(value) for value in values if value is not None]


def _temperature(files: list[dict[str, Any]], asked: float | None) -> float:
    known = _known(files, TEMPERATURE)
    if asked is None:
        if not known:
            raise ValueError(
                "found no temperature in the training's data, expected the one they "
                "were made at: give --temperature_K"
            )
        return known[0]
    if known and asked not in known:
        raise ValueError(
            f"found temperature_K {asked:g}, expected one of the training's data, "
            f"{sorted(set(known))}: runs may have others, a model is calibrated at one "
            "that it knows"
        )
    return asked


def _friction(description: dict[str, Any], asked: float | None) -> float:
    known = _known(description["data"], "friction_per_ps")
    if description["config"]["data"]["dynamics"] == "flow" or not known:
        return 1.0 if asked is None else asked
    if asked not in (None, known[0]):
        raise ValueError(
            f"found friction_per_ps {asked:g} for thermostatted dynamics, expected "
            f"{known[0]:g}, the data's: the bath was learned with them; leave it out"
        )
    return known[0]


def _load_weights(
    checkpoint: Path, description: dict[str, Any]
) -> tuple[TransitionModel, int]:
    config = description["config"]
    # Options that the training did not know yet have their defaults.
    network = ModelConfig(**config["model"])
    model = build_model(
        network, config["data"]["lag_time_fs"], len(description["elements"])
    )
    saved = read_checkpoint(checkpoint)
    prefix = "model."
    model.load_state_dict(
        {
            key.removeprefix(prefix): value
            for key, value in saved["state_dict"].items()
            if key.startswith(prefix)
        }
    )
    return model.eval(), int(saved["global_step"])
