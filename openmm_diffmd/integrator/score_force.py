"""The learned score as a force of OpenMM."""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import app, unit
from torch import Tensor, nn

from openmm_diffmd.diffusion.preconditioning import score
from openmm_diffmd.export.torchscript import DiffusionModel, load_model, script
from openmm_diffmd.integrator.molecules import describe_molecules
from openmm_diffmd.units import BOLTZMANN, to_float

Array = NDArray[np.float64]

PARTS = ("prior", "unit", "mean", "scale", "cholesky")
"""Of a condition: what says where a residual of 0 is, and how wide one of 1."""


class ScoreModule(nn.Module):
    """
    kT times the gradient of the log-density of the next frame's positions.

    Positions are taken about their centre of mass, the frame in which the network
    sees them; velocities are those that the model expects with these positions (a
    velocity residual of 0).

    Parameters
    ----------
    module : scripted module
        Of a loaded model: methods ``encode``, ``denoise`` and ``decode``.
    condition : dict of str to Tensor
        From ``encode``, for one molecule.
    noise_level : float
        sigma, in units of the residual's spread.
    kT : float
        Thermal energy, kJ/mol.
    """

    def __init__(
        self, module: Any, condition: dict[str, Tensor], noise_level: float, kT: float
    ) -> None:
        super().__init__()
        self.module = module
        self.condition = condition
        self.noise_level = noise_level
        self.kT = kT
        masses = condition["masses"][0]
        self.weights = (masses / masses.sum())[:, None]
        self.middle = (condition["prior"] + condition["unit"] * condition["mean"])[
            0, :, 0
        ]
        self.width = (
            condition["unit"][0, :, 0]
            * condition["scale"][0, :, None]
            * condition["cholesky"][0, :, 0, 0, None]
        )

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """
        Compute the force.

        Parameters
        ----------
        positions : Tensor, shape (n_atoms, 3), nm
            Where the next frame's density is asked for.

        Returns
        -------
        energy : Tensor, scalar, kJ/mol
            0: a learned score is not the gradient of a known energy.
        forces : Tensor, shape (n_atoms, 3), kJ/mol/nm
            kT (D(r; sigma) - r)/sigma^2 in the coordinates of the positions, with no
            net force.

        Notes
        -----
        Karras et al., arXiv 2206.00364, eq. 3.
        """
        # A loaded model's constants are on the CPU, wherever the Context is.
        x = positions.to(torch.device("cpu"), torch.float32)
        centred = x - (self.weights * x).sum(0)
        residual = torch.zeros((1, x.shape[0], 2, 3), dtype=torch.float32)
        residual[0, :, 0] = (centred - self.middle) / self.width
        sigma = torch.full((1,), self.noise_level, dtype=torch.float32)
        denoised = self.module.denoise(residual, sigma, self.condition)
        gradient = score(denoised, residual, sigma)[0, :, 0]
        force = self.kT * gradient / self.width
        force = force - self.weights * force.sum(0)
        energy = torch.zeros((), dtype=positions.dtype, device=positions.device)
        return energy, force.to(positions)


def score_force(
    model: DiffusionModel | str | os.PathLike[str],
    topology: app.Topology,
    positions: Any,
    velocities: Any = None,
    noise_level: float = 1.0,
    temperature: Any = None,
) -> openmm.Force:
    """
    Make a force of the learned score: it pulls to what the model expects a lag later.

    The force is kT grad log p(x' | x, v) at the positions x' of the Context, for one
    frame (x, v) that is given here and stays: a soft restraint to the model's next
    frame, as stiff for each atom as the model is sure of it. It shows what the network
    has learned, and relaxes a guessed next frame. It is not a force field: no dynamics
    of the molecule follow from it, its energy is not known (0 is returned, so that
    minimisers, which compare energies, do not serve), and beyond a few spreads of the
    model it is extrapolated.

    Parameters
    ----------
    model : DiffusionModel, str or path-like
        The model, or what `load_model` takes.
    topology : openmm.app.Topology
        One molecule.
    positions : Quantity or ndarray, shape (n_atoms, 3), nm
        x.
    velocities : Quantity or ndarray, shape (n_atoms, 3), nm/ps, optional
        v; at rest unless given.
    noise_level : float
        sigma, in units of the residual's spread; lower ones know less of where a guess
        that is far off has to go.
    temperature : Quantity or float, optional
        Of kT, K; the model's unless given.

    Returns
    -------
    openmm.Force
        openmm-torch's ``TorchForce`` where it is installed, OpenMM's ``PythonForce``
        where it is not. For all particles of the System, without periodic boundaries;
        the network runs on the CPU.

    Raises
    ------
    ValueError
        If the model does not know an element or bond, shapes do not fit, a number is
        not finite, the temperature is not above 0, the noise level is not one that it
        samples at, or the file is of another kind.
    TypeError
        If positions, velocities or the temperature have another unit, or the model is
        no name and no path.

    Notes
    -----
    It is stiff: of ``ethanol`` some 1e10 kJ/mol/nm^2 at a noise level of 1. A guess is
    relaxed at that level in overdamped, tiny steps: 300 of
    ``LangevinMiddleIntegrator(0, 1e5 / unit.picosecond, 1e-5 * unit.picosecond)`` bring
    one that is 0.008 nm off to 3e-5 nm. Steps of 1e-4 ps diverge, as do ordinary
    ones; at the lowest level the same steps leave it farther off. Do not give it to a
    System that a `DiffusionIntegrator` moves, whose impulses are far too long for it.
    """
    arguments = (model, topology, positions, velocities, noise_level, temperature)
    if find_spec("openmmtorch") is not None:
        force = import_module("openmmtorch").TorchForce(
            script(score_module(*arguments))
        )
        force.setOutputsForces(True)
        made: openmm.Force = force
        return made
    return openmm.PythonForce(_Compute(*arguments))


class _Compute:
    """What a PythonForce calls; pickled, as OpenMM's XML holds it, by its arguments."""

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments
        self._module = score_module(*arguments)

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return _Compute, self._arguments

    def __call__(self, state: openmm.State) -> tuple[float, Array]:
        frame = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        with torch.no_grad():
            energy, forces = self._module(torch.from_numpy(frame))
        return float(energy), forces.numpy()


def score_module(
    model: DiffusionModel | str | os.PathLike[str],
    topology: app.Topology,
    positions: Any,
    velocities: Any = None,
    noise_level: float = 1.0,
    temperature: Any = None,
) -> ScoreModule:
    """
    Make what `score_force` computes, as a module of PyTorch.

    Parameters
    ----------
    model : DiffusionModel, str or path-like
        The model.
    topology : openmm.app.Topology
        One molecule.
    positions : Quantity or ndarray, shape (n_atoms, 3), nm
        x.
    velocities : Quantity or ndarray, shape (n_atoms, 3), nm/ps, optional
        v; at rest unless given.
    noise_level : float
        sigma, in units of the residual's spread.
    temperature : Quantity or float, optional
        Of kT, K; the model's unless given.

    Returns
    -------
    ScoreModule
        Positions to energy and forces; can be scripted.

    Raises
    ------
    ValueError
        As `score_force` does.
    """
    if not isinstance(model, DiffusionModel):
        model = load_model(model)
    metadata = model.metadata
    described = describe_molecules(topology, metadata)
    kelvin = metadata.temperature_K
    if temperature is not None:
        kelvin = to_float(temperature, unit.kelvin)
    if not 0 < kelvin < np.inf:
        raise ValueError(f"found temperature {kelvin:g} K, expected more than 0")
    low, high = metadata.noise["sigma_min"], metadata.noise["sigma_max"]
    sigma = float(noise_level)
    if not low <= sigma <= high:
        raise ValueError(
            f"found noise level {sigma:g}, expected {low:g} to {high:g}, between which "
            f"model {metadata.name!r} samples"
        )
    shape = (len(described.masses), 3)
    x = _array(positions, unit.nanometer, "positions", shape)
    v = np.zeros(shape)
    if velocities is not None:
        v = _array(velocities, unit.nanometer / unit.picosecond, "velocities", shape)
    weights = described.masses / described.masses.sum()
    with torch.no_grad():
        condition = model.module.encode(
            _batch(x - weights @ x),
            _batch(v - weights @ v),
            torch.zeros((1, *shape), dtype=torch.float32),
            torch.tensor([False]),
            torch.from_numpy(described.species)[None],
            _batch(described.masses),
            torch.zeros(1, dtype=torch.float32),
        )
    missing = [name for name in PARTS if name not in condition]
    if missing:
        raise ValueError(
            f"found no {', '.join(missing)} in what model {metadata.name!r} makes of a "
            "frame, expected a model that openmm_diffmd exported; export it again"
        )
    return ScoreModule(model.module, condition, sigma, float(BOLTZMANN * kelvin))


def _batch(values: Array) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))[None]


def _array(values: Any, wanted: Any, what: str, shape: tuple[int, int]) -> Array:
    if unit.is_quantity(values):
        if not values.unit.is_compatible(wanted):
            raise TypeError(
                f"found {what} in {values.unit}, expected {wanted} or compatible units"
            )
        values = values.value_in_unit(wanted)
    array = np.array(values, np.float64)
    if array.shape != shape:
        raise ValueError(
            f"found {what} of shape {array.shape}, expected {shape}: one row for each "
            "atom of the topology"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"found {what} that are not finite, expected numbers")
    return array
