"""Heat of bonds and elements, and the smallest change of weights that takes it away."""

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray
from torch import Tensor

from openmm_diffmd.bond_stretches import reduced_masses
from openmm_diffmd.data.pairs import evenly_spread
from openmm_diffmd.elements import pair_name
from openmm_diffmd.models import TransitionModel
from openmm_diffmd.units import BOLTZMANN

BATCH = 128
RIDGE = 1e-6
"""Of the mean diagonal: modes of a small molecule may depend on each other."""


class Modes:
    """
    Coordinates of a molecule whose mean squares are temperatures.

    Parameters
    ----------
    positions : ndarray, shape (n_frames, n_atoms, 3), nm
        Frames of the molecule at `temperature`.
    atomic_numbers : ndarray of int, shape (n_atoms,)
        Elements.
    masses : ndarray, shape (n_atoms,), Da
        Masses.
    bonds : ndarray of int, shape (n_bonds, 2)
        Bonded pairs.
    temperature : float
        Temperature T, K.

    Attributes
    ----------
    names : tuple of str
        Kinds of bonds, such as ``H-O``, then elements.

    Notes
    -----
    Of a bond the deviation of its length from the mean, over the standard deviation of
    it, and the speed of its stretch over sqrt(kT/mu), mu the reduced mass: of a
    harmonic stretch both squares are 1 in the mean at T. Of an element the components
    of velocities over sqrt(kT (1/m - 1/M)), M the mass of the molecule, whose centre is
    at rest.
    """

    def __init__(
        self,
        positions: NDArray[np.floating],
        atomic_numbers: NDArray[np.integer],
        masses: NDArray[np.floating],
        bonds: NDArray[np.integer],
        temperature: float,
    ) -> None:
        symbols = [chemical_symbols[z] for z in atomic_numbers]
        kinds: dict[str, list[list[int]]] = {}
        for bond in bonds.tolist():
            kind = pair_name(*(symbols[atom] for atom in bond))
            kinds.setdefault(kind, []).append(bond)
        self._bonds = [torch.tensor(found) for _, found in sorted(kinds.items())]
        elements = sorted(set(symbols))
        self._atoms = [
            torch.tensor([i for i, own in enumerate(symbols) if own == symbol])
            for symbol in elements
        ]
        self.names = (*sorted(kinds), *elements)
        kT = BOLTZMANN * temperature
        exact = masses.astype(np.float64)
        self._thermal_speeds = torch.from_numpy(
            np.sqrt(kT * (1.0 / exact - 1.0 / exact.sum()))
        )
        self._thermal_stretches = [
            torch.from_numpy(np.sqrt(kT / reduced_masses(exact, found.numpy())))
            for found in self._bonds
        ]
        some = positions[evenly_spread(len(positions), 10000).numpy()]
        lengths = [
            _lengths(torch.from_numpy(some).double(), found)[1] for found in self._bonds
        ]
        self._means = [found.mean(0) for found in lengths]
        self._deviations = [found.std(0) for found in lengths]

    def __call__(self, state: Tensor) -> list[Tensor]:
        """
        Measure a batch of states.

        Parameters
        ----------
        state : Tensor, shape (B, A, 2, 3), nm and nm/ps
            Positions and velocities in the centre-of-mass frame.

        Returns
        -------
        list of Tensor, shape (B, n), float64
            For each of `names`, its n coordinates.
        """
        positions, velocities = state.double().unbind(2)
        found = []
        for bonds, mean, deviation, thermal in zip(
            self._bonds,
            self._means,
            self._deviations,
            self._thermal_stretches,
            strict=True,
        ):
            along, lengths = _lengths(positions, bonds)
            apart = velocities[:, bonds[:, 1]] - velocities[:, bonds[:, 0]]
            speeds = (apart * along).sum(-1) / lengths
            found.append(
                torch.cat([(lengths - mean) / deviation, speeds / thermal], dim=1)
            )
        for atoms in self._atoms:
            scaled = velocities[:, atoms] / self._thermal_speeds[atoms, None]
            found.append(scaled.flatten(1))
        return found

    def temperatures(self, state: Tensor) -> Tensor:
        """
        Temperatures of states, relative to T.

        Parameters
        ----------
        state : Tensor, shape (B, A, 2, 3), nm and nm/ps
            As above.

        Returns
        -------
        Tensor, shape (B, n_names), float64
            Mean squares of the coordinates.
        """
        return torch.stack([q.square().mean(1) for q in self(state)], dim=1)


def heat_slopes(
    model: TransitionModel,
    modes: Modes,
    positions: Tensor,
    velocities: Tensor,
    species: Tensor,
    masses: Tensor,
    lags: tuple[int, int] = (0, 1),
) -> Tensor:
    """
    Differentiate what the mean adds to temperatures by the weights of the encoder.

    Parameters
    ----------
    model : TransitionModel
        The model, of the learned prior.
    modes : Modes
        Those of the molecule.
    positions, velocities : Tensor, shape (B, A, 3), nm and nm/ps
        States of one molecule in the centre-of-mass frame.
    species : Tensor of int, shape (B, A)
        Index of each atom's element.
    masses : Tensor, shape (B, A), Da
        Masses.
    lags : tuple of int
        Lags of the mean from each state between which it is taken. What another weight
        changes at once, as the phase of a vibration, is no heat: a lag or two show it,
        and it is gone later.

    Returns
    -------
    Tensor, shape (n_names, n_weights), float64
        For each of ``modes.names`` the gradient of what a lag adds to its relative
        temperature, mean over states and lags.
    """
    weights = list(model.encoder.parameters())
    # All lags of a batch are in memory for the way back.
    size = max(1, BATCH // lags[1])
    total = torch.zeros(len(modes.names), sum(w.numel() for w in weights)).double()
    with torch.enable_grad():
        for x, v, z, m in zip(
            positions.split(size),
            velocities.split(size),
            species.split(size),
            masses.split(size),
            strict=True,
        ):
            start = torch.stack([x, v], dim=2)
            first = _moved_by_mean(model, start, z, m, lags[0])
            last = _moved_by_mean(model, first, z, m, lags[1] - lags[0])
            added = modes.temperatures(last) - modes.temperatures(first)
            for row, temperature in zip(total, added.sum(0), strict=True):
                # Weights of which the mean knows nothing have no gradient.
                found = torch.autograd.grad(
                    temperature,
                    weights,
                    retain_graph=True,
                    allow_unused=True,
                    materialize_grads=True,
                )
                row += torch.cat([gradient.flatten() for gradient in found])
    return total / (len(positions) * (lags[1] - lags[0]))


def known_heat(heat: Tensor, error: Tensor) -> Tensor:
    """
    Leave of heat what chance lets expect.

    Parameters
    ----------
    heat, error : Tensor
        Measured values and their standard errors, of one shape.

    Returns
    -------
    Tensor
        h - e^2/h where h is beyond e, else 0: the positive-part estimate of James and
        Stein, for each by itself.
    """
    return torch.where(heat.abs() > error, heat - error.square() / heat, 0.0)


@torch.no_grad()
def take_heat(
    model: TransitionModel, slopes: Tensor, heat: Tensor, error: Tensor | None = None
) -> None:
    r"""
    Change the encoder's weights as little as takes heat away, to first order.

    Parameters
    ----------
    model : TransitionModel
        The model; its weights are changed.
    slopes : Tensor, shape (n, n_weights), float64
        Gradients, as `heat_slopes` gives them, of one or many molecules.
    heat : Tensor, shape (n,), float64
        What a lag adds to each, relative to its temperature: to be taken away.
    error : Tensor, shape (n,), float64, optional
        Standard errors of `heat`; exact unless given.

    Notes
    -----
    With errors e it is the most likely change where each weight is off by
    :math:`\sigma` at random, :math:`-S^T (S S^T + e^2 / \sigma^2)^{-1} h`, with the
    :math:`\sigma` that makes heat as large as it is beyond its errors: a Wiener filter.
    Heat within its error stays, and what two kinds of heat have in common, which is
    most of it, is not bought by the little that tells them apart.
    """
    normal = slopes @ slopes.T
    if error is None:
        noise = RIDGE * normal.diagonal().mean() * torch.ones_like(heat)
    else:
        excess = excess_of(heat, error)
        if not excess > 0:
            return
        noise = error.square() * normal.diagonal().sum() / excess
    change = -slopes.T @ torch.linalg.solve(normal + noise.diag(), heat)
    weights = list(model.encoder.parameters())
    for weight, part in zip(
        weights, change.split([w.numel() for w in weights]), strict=True
    ):
        weight.add_(part.view_as(weight).to(weight.dtype))


def excess_of(heat: Tensor, error: Tensor) -> Tensor:
    """
    Say how much more heat there is than its errors explain.

    Parameters
    ----------
    heat, error : Tensor, shape (n,)
        What a lag adds to each, and its standard error.

    Returns
    -------
    Tensor, shape ()
        Sum of the squares of the heat, less that of its errors.
    """
    return (heat.square() - error.square()).sum()


def _moved_by_mean(
    model: TransitionModel,
    state: Tensor,
    species: Tensor,
    masses: Tensor,
    num_lags: int,
) -> Tensor:
    """Move states on by the mean, which knows no history: (B, A, 2, 3)."""
    level = torch.zeros(len(state))
    still = torch.zeros_like(state)
    for _ in range(num_lags):
        condition = model.encode(
            state[:, :, 0],
            state[:, :, 1],
            still[:, :, 0],
            level.bool(),
            species,
            masses,
            level,
        )
        state = state + model.decode(still, condition, False)
    return state


def _lengths(positions: Tensor, bonds: Tensor) -> tuple[Tensor, Tensor]:
    along = positions[:, bonds[:, 1]] - positions[:, bonds[:, 0]]
    return along, along.norm(dim=-1)
