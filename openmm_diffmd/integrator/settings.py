"""Run-time choices of the integrator, the model's own unless given."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from openmm import unit

from openmm_diffmd.checks import at_least, one_of, to_int
from openmm_diffmd.diffusion.samplers import SAMPLERS
from openmm_diffmd.export.metadata import ModelMetadata
from openmm_diffmd.units import to_float


@dataclass(frozen=True)
class Settings:
    """
    Run-time choices.

    Attributes
    ----------
    temperature : float
        Temperature of the heat bath, K.
    friction : float
        Friction of the heat bath, 1/ps; 0 leaves the learned flow alone.
    sampler : str
        Name of the sampler.
    num_sampling_steps : int
        Denoising steps K; 0 takes the model's mean.
    max_resamples : int
        Redraws of one molecule's lag before it is given up.
    conserve_angular_momentum : bool
        Whether molecules keep their angular momentum.
    molecules_per_batch : int
        Most molecules that the network sees at once; 0 for as many as keep its memory
        in a CPU's caches. It changes results by rounding only.
    """

    temperature: float
    friction: float
    sampler: str
    num_sampling_steps: int
    max_resamples: int
    conserve_angular_momentum: bool
    molecules_per_batch: int = 0


def resolve_settings(
    metadata: ModelMetadata,
    *,
    temperature: Any = None,
    friction: Any = None,
    sampler: str | None = None,
    num_sampling_steps: int | None = None,
    max_resamples: int | None = None,
    conserve_angular_momentum: bool | None = None,
    molecules_per_batch: int = 0,
) -> Settings:
    """
    Fill in the model's own choices and check the result.

    Parameters
    ----------
    metadata : ModelMetadata
        What the model says about itself.
    temperature : Quantity or float, optional
        Temperature of the heat bath, K.
    friction : Quantity or float, optional
        Friction of the heat bath, 1/ps.
    sampler : str, optional
        Name of the sampler.
    num_sampling_steps : int, optional
        Denoising steps.
    max_resamples : int, optional
        Redraws of one molecule's lag before it is given up.
    conserve_angular_momentum : bool, optional
        Whether molecules keep their angular momentum.
    molecules_per_batch : int
        Most molecules that the network sees at once; 0 for the default.

    Returns
    -------
    Settings
        The choices.

    Raises
    ------
    TypeError
        If a choice is of another type; a float is no whole number.
    ValueError
        If a number is negative, the sampler unknown, or the model has learned its heat
        bath and another temperature or friction is asked for.
    """
    own = Settings(
        metadata.temperature_K,
        metadata.friction_per_ps,
        metadata.sampler["name"],
        metadata.sampler["num_steps"],
        metadata.guards["max_resamples"],
        metadata.conserve_angular_momentum,
    )

    def given(value: Any, default: Any) -> Any:
        return default if value is None else value

    chosen = Settings(
        to_float(given(temperature, own.temperature), unit.kelvin),
        to_float(given(friction, own.friction), unit.picosecond**-1),
        given(sampler, own.sampler),
        to_int("num_sampling_steps", given(num_sampling_steps, own.num_sampling_steps)),
        to_int("max_resamples", given(max_resamples, own.max_resamples)),
        _to_bool(
            "conserve_angular_momentum",
            given(conserve_angular_momentum, own.conserve_angular_momentum),
        ),
        to_int("molecules_per_batch", molecules_per_batch),
    )
    at_least(
        0,
        temperature=chosen.temperature,
        friction=chosen.friction,
        num_sampling_steps=chosen.num_sampling_steps,
        max_resamples=chosen.max_resamples,
        molecules_per_batch=chosen.molecules_per_batch,
    )
    one_of(tuple(SAMPLERS), sampler=chosen.sampler)
    if metadata.dynamics == "thermostatted":
        for name, in_unit in (("temperature", "K"), ("friction", "1/ps")):
            if getattr(chosen, name) != getattr(own, name):
                raise ValueError(
                    f"found {name} {getattr(chosen, name)} {in_unit}, expected "
                    f"{getattr(own, name)} {in_unit}, which model {metadata.name!r} "
                    "has learned together with its heat bath; use a model of the "
                    "frictionless flow"
                )
    return chosen


def _to_bool(name: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"found {name} {value!r}, expected True or False")
    return bool(value)
