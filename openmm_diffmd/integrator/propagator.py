"""One lag in plain Python: the reference that the C++ is tested against."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openmm_diffmd.diffusion.noise_schedule import karras_noise_levels
from openmm_diffmd.diffusion.samplers import num_extra_draws, sample
from openmm_diffmd.export.torchscript import DiffusionModel
from openmm_diffmd.integrator.guards import LagRefusedError, find_fault
from openmm_diffmd.integrator.molecules import MoleculeSet
from openmm_diffmd.integrator.settings import Settings
from openmm_diffmd.units import BOLTZMANN, FS_PER_PS

Array = NDArray[np.float64]

PAIRS_PER_BATCH = 5184
"""Pairs of atoms in a batch whose memory fits into caches; as in the C++."""


class Propagator:
    """
    Learned dynamics, a lag at a time, for any number of molecules.

    One lag tau of a molecule, for dynamics ``flow`` (for ``thermostatted`` without the
    two half steps of the bath), begins and ends with an impulse v <- v + F tau/(2m)
    where forces act, as in multiple time stepping; between them:

    1. v <- c v + sqrt(1 - c^2) sqrt(kT/m) n, c = exp(-friction tau/2);
    2. x, v less those of the centre of mass, x_c and v_c, to the network, which draws
       dx (nm, holds tau v) and dv (nm/ps);
    3. x <- x + tau v_c + dx, v <- v + dv; the acceleration history becomes dv/tau;
    4. as 1, with other noise;
    5. the guards refuse what is not finite or too hot, a bond out of range and atoms
       without a bond that come too close: that molecule is drawn again with fresh noise
       at perturbation level min(1, attempt/2).

    Parameters
    ----------
    model : DiffusionModel
        The model.
    molecules : MoleculeSet
        What to propagate.
    settings : Settings
        How.
    seed : int
        Molecule i has a generator with seed + i: runs of R molecules are independent
        if their seeds are at least R apart.
    forces : callable, optional
        Forces that act on top of what was learned, such as restraints: positions of
        shape (n_particles, 3), nm, to forces of the same shape, kJ/mol/nm.

    Attributes
    ----------
    num_resamples : ndarray of int, shape (n_molecules,)
        Redraws; a lag redrawn three times counts three.
    num_lags : int
        Lags done.
    """

    def __init__(
        self,
        model: DiffusionModel,
        molecules: MoleculeSet,
        settings: Settings,
        seed: int,
        forces: Callable[[Array], Array] | None = None,
    ) -> None:
        metadata = model.metadata
        self.settings = settings
        self.num_lags = 0
        self.num_resamples = np.zeros(molecules.num_molecules, np.int64)
        self._module = model.module
        self._molecules = molecules
        self._lag_time = metadata.lag_time_fs / FS_PER_PS
        self._thermostatted = metadata.dynamics == "thermostatted"
        self._max_temperature = metadata.max_temperature_K
        self._atoms = [
            np.flatnonzero(molecules.molecules == index)
            for index in range(molecules.num_molecules)
        ]
        largest = max(len(atoms) for atoms in self._atoms)
        self._batch_size = settings.molecules_per_batch or max(
            PAIRS_PER_BATCH // largest**2, 1
        )
        self._levels: list[float] = []
        num_rows = 2
        if settings.num_sampling_steps:
            steps = settings.num_sampling_steps
            self._levels = karras_noise_levels(steps, **metadata.noise)
            num_rows = 4 + 2 * num_extra_draws(settings.sampler, steps)
        self._num_rows = num_rows
        self._generators = [
            torch.Generator().manual_seed(seed + index)
            for index in range(molecules.num_molecules)
        ]
        self._acceleration: NDArray[np.float32] | None = None
        self._forces = forces

    def forget_history(self) -> None:
        """Forget the acceleration history: the positions were set by someone else."""
        self._acceleration = None

    def draw_noise(self, molecule: int) -> Tensor:
        """
        Draw the noise of one lag of one molecule from its generator.

        Parameters
        ----------
        molecule : int
            Index of the molecule.

        Returns
        -------
        Tensor, shape (n_rows, n_atoms, 3)
            Rows 0 and 1 for the bath; 2 and 3 the initial residual of position and
            velocity; then a pair for each further draw of the sampler.
        """
        shape = (self._num_rows, len(self._atoms[molecule]), 3)
        return torch.randn(
            shape, dtype=torch.float32, generator=self._generators[molecule]
        )

    @torch.inference_mode()
    def step(
        self,
        positions: Array,
        velocities: Array,
        noise: Sequence[Tensor] | None = None,
    ) -> tuple[Array, Array]:
        """
        Move all molecules forward by one lag.

        Parameters
        ----------
        positions : ndarray, shape (n_particles, 3), nm
            Positions.
        velocities : ndarray, shape (n_particles, 3), nm/ps
            Velocities.
        noise : sequence of Tensor, optional
            What `draw_noise` returns, for each molecule; drawn unless given. Redraws
            always take fresh noise.

        Returns
        -------
        positions : ndarray, shape (n_particles, 3), nm
            A lag later.
        velocities : ndarray, shape (n_particles, 3), nm/ps
            A lag later.

        Raises
        ------
        LagRefusedError
            If the guards refuse ``max_resamples + 1`` draws of one molecule.
        """
        velocities = velocities + self._impulse(positions)
        everyone = list(range(self._molecules.num_molecules))
        x, v = np.array(positions, np.float64), np.array(velocities, np.float64)
        acceleration = np.zeros(x.shape, np.float32)
        chosen, attempt = everyone, 0
        draws = noise if noise is not None else [self.draw_noise(m) for m in chosen]
        while chosen:
            level = min(1.0, attempt / 2)
            drawn = [
                molecule
                for first in range(0, len(chosen), self._batch_size)
                for molecule in self._draw(
                    chosen[first : first + self._batch_size],
                    level,
                    draws[first : first + self._batch_size],
                    positions,
                    velocities,
                )
            ]
            refused = []
            for molecule, (new_x, new_v, change_v) in zip(chosen, drawn, strict=True):
                atoms = self._atoms[molecule]
                x[atoms], v[atoms] = new_x, new_v
                acceleration[atoms] = change_v / self._lag_time
                fault = find_fault(self._molecules, molecule, x, v, self._max_kT())
                if not fault:
                    continue
                if attempt == self.settings.max_resamples:
                    raise LagRefusedError(self.num_lags, molecule, fault, attempt + 1)
                self.num_resamples[molecule] += 1
                refused.append(molecule)
            chosen, attempt = refused, attempt + 1
            draws = [self.draw_noise(molecule) for molecule in chosen]
        self._acceleration = acceleration
        self.num_lags += 1
        return x, v + self._impulse(x)

    def _impulse(self, positions: Array) -> Array:
        """Change of the velocities by half a lag of the forces, nm/ps."""
        if self._forces is None:
            return np.zeros_like(positions)
        half_lag_over_mass = 0.5 * self._lag_time / self._molecules.masses[:, None]
        return half_lag_over_mass * self._forces(positions)

    def _max_kT(self) -> float:
        return float(BOLTZMANN * max(self.settings.temperature, self._max_temperature))

    def _bath(self, velocities: Array, masses: Array, noise: Tensor) -> Array:
        if self._thermostatted or self.settings.friction == 0.0:
            return velocities
        damping = math.exp(-0.5 * self.settings.friction * self._lag_time)
        spread = np.sqrt(BOLTZMANN * self.settings.temperature / masses)[:, None]
        kick: Array = math.sqrt(1.0 - damping**2) * spread * noise.numpy()
        return damping * velocities + kick

    def _draw(
        self,
        chosen: Sequence[int],
        level: float,
        draws: Sequence[Tensor],
        positions: Array,
        velocities: Array,
    ) -> list[tuple[Array, Array, Array]]:
        """Draw one lag of a batch of molecules."""
        atoms = [self._atoms[molecule] for molecule in chosen]
        shape = (len(chosen), max(len(a) for a in self._atoms))
        x, v, a = (torch.zeros((*shape, 3)) for _ in range(3))
        species = torch.full(shape, -1)
        masses = torch.zeros(shape)
        num_extra = (self._num_rows - 4) // 2 if self._levels else -1
        noise = torch.zeros((1 + num_extra, *shape, 2, 3))
        half_stepped, centre_velocities = [], []
        for slot, (index, draw) in enumerate(zip(atoms, draws, strict=True)):
            mass = self._molecules.masses[index]
            half = self._bath(velocities[index], mass, draw[0])
            weights = mass / mass.sum()
            centre_velocity = weights @ half
            half_stepped.append(half)
            centre_velocities.append(centre_velocity)
            size = len(index)
            x[slot, :size] = _float(positions[index] - weights @ positions[index])
            v[slot, :size] = _float(half - centre_velocity)
            if self._acceleration is not None:
                a[slot, :size] = torch.from_numpy(self._acceleration[index])
            species[slot, :size] = torch.from_numpy(self._molecules.species[index])
            masses[slot, :size] = _float(mass)
            for pair in range(len(noise)):
                rows = draw[2 + 2 * pair : 4 + 2 * pair]
                noise[pair, slot, :size] = rows.transpose(0, 1)
        change = self._sample(x, v, a, species, masses, level, noise).numpy()
        results = []
        for slot, (index, draw) in enumerate(zip(atoms, draws, strict=True)):
            mass = self._molecules.masses[index]
            changed = change[slot, : len(index)].astype(np.float64)
            # The network keeps the centre of mass as far as float32 does, which would
            # add up.
            changed -= np.einsum("a,apd->pd", mass / mass.sum(), changed)
            change_x, change_v = changed.transpose(1, 0, 2)
            drift = self._lag_time * centre_velocities[slot]
            new_v = self._bath(half_stepped[slot] + change_v, mass, draw[1])
            results.append((positions[index] + drift + change_x, new_v, change_v))
        return results

    def _sample(
        self,
        positions: Tensor,
        velocities: Tensor,
        acceleration: Tensor,
        species: Tensor,
        masses: Tensor,
        level: float,
        noise: Tensor,
    ) -> Tensor:
        """Call the network: encode once, denoise K times, decode once."""
        num_molecules = len(positions)
        has_history = self._acceleration is not None
        condition = self._module.encode(
            positions,
            velocities,
            acceleration,
            torch.full((num_molecules,), has_history),
            species,
            masses,
            torch.full((num_molecules,), level),
        )
        residual = torch.zeros((*positions.shape[:2], 2, 3))
        if self._levels:

            def denoiser(u: Tensor, sigma: float) -> Tensor:
                levels = torch.full((num_molecules,), sigma)
                denoised: Tensor = self._module.denoise(u, levels, condition)
                return denoised

            residual = sample(self.settings.sampler, denoiser, noise, self._levels)
        change: Tensor = self._module.decode(
            residual, condition, self.settings.conserve_angular_momentum
        )
        return change


def _float(values: Array) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
