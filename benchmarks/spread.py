"""How sure a model is of a lag: the spread of what it draws."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from openmm_diffmd.diffusion.noise_schedule import karras_noise_levels
from openmm_diffmd.diffusion.samplers import draw
from openmm_diffmd.export.torchscript import DiffusionModel


class Prediction(NamedTuple):
    """
    Mean and spread of a lag's draws.

    Attributes
    ----------
    mean : Tensor, shape (n_molecules, n_atoms, 2, 3), nm and nm/ps
        Displacement and change of velocity, in the centre-of-mass frame.
    spread : Tensor, shape (n_molecules, n_atoms, 2), nm and nm/ps
        Standard deviation of a component, over draws and the three components.
    """

    mean: Tensor
    spread: Tensor


class SpreadPredictor:
    """
    Draws one lag several times from one state.

    Parameters
    ----------
    model : DiffusionModel
        The model.
    num_draws : int
        Draws of each lag, two or more.
    seed : int
        Seed of the draws.
    num_sampling_steps : int, optional
        Denoising steps; the model's unless given.

    Raises
    ------
    ValueError
        If there are fewer than two draws, or the model takes its mean (0 steps).
    """

    def __init__(
        self,
        model: DiffusionModel,
        num_draws: int,
        seed: int,
        num_sampling_steps: int | None = None,
    ) -> None:
        metadata = model.metadata
        steps = (
            metadata.sampler["num_steps"]
            if num_sampling_steps is None
            else num_sampling_steps
        )
        if num_draws < 2:
            raise ValueError(f"found {num_draws} draws, expected two or more")
        if steps < 1:
            raise ValueError(
                "found 0 sampling steps, expected one or more: a mean has no spread"
            )
        self._module = model.module
        self._sampler = metadata.sampler["name"]
        self._conserve = metadata.conserve_angular_momentum
        self._levels = karras_noise_levels(steps, **metadata.noise)
        self._num_draws = num_draws
        self._generator = torch.Generator().manual_seed(seed)

    @torch.inference_mode()
    def predict(self, condition: Mapping[str, Tensor], species: Tensor) -> Prediction:
        """
        Draw a lag several times.

        Parameters
        ----------
        condition : mapping of str to Tensor
            From the module's ``encode``.
        species : Tensor of int, shape (n_molecules, n_atoms)
            Index of each atom's element, -1 for padding.

        Returns
        -------
        Prediction
            Mean and spread; 0 on padding.
        """

        def denoise(u: Tensor, sigma: Tensor) -> Tensor:
            denoised: Tensor = self._module.denoise(u, sigma, condition)
            return denoised

        draws = []
        for _ in range(self._num_draws):
            residual = draw(
                self._sampler, denoise, species, self._levels, self._generator
            )
            draws.append(self._module.decode(residual, condition, self._conserve))
        stacked = torch.stack(draws).double()
        variance = stacked.var(0, correction=1).mean(-1)
        return Prediction(stacked.mean(0), variance.sqrt())


class SpreadRecorder:
    """
    A model's module that keeps the predicted spread of every lag it is asked for.

    Put in the place of a `DiffusionModel`'s module it tells what a `Propagator` was
    about to draw from; lags that the guards draw again, at higher levels of
    perturbation, are not recorded. The noise of the run is left alone.

    Parameters
    ----------
    model : DiffusionModel
        The model.
    predictor : SpreadPredictor
        What draws.

    Attributes
    ----------
    model : DiffusionModel
        The same model with this object as its module.
    spreads : list of Tensor, shape (n_molecules, n_atoms, 2), nm and nm/ps
        One a lag.
    """

    def __init__(self, model: DiffusionModel, predictor: SpreadPredictor) -> None:
        self.spreads: list[Tensor] = []
        self.model = DiffusionModel(model.path, model.sha256, model.metadata, self)
        self._module = model.module
        self._predictor = predictor
        self.denoise = model.module.denoise
        self.decode = model.module.decode

    def encode(self, *arguments: Tensor) -> Any:
        """
        Encode, and record the spread of a lag's first draw.

        Parameters
        ----------
        *arguments : Tensor
            Those of the module: positions, velocities, acceleration,
            has_acceleration, species, masses, level.

        Returns
        -------
        dict of str to Tensor
            The condition.
        """
        condition = self._module.encode(*arguments)
        species, level = arguments[4], arguments[6]
        if bool((level == 0).all()):
            self.spreads.append(self._predictor.predict(condition, species).spread)
        return condition
