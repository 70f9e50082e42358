"""Runs that are driven out of what a model knows, with the spread it predicts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from openmm import app, unit
from spread import SpreadPredictor, SpreadRecorder
from tqdm import tqdm

from openmm_diffmd.export.torchscript import DiffusionModel
from openmm_diffmd.integrator import create_system, replicate
from openmm_diffmd.integrator.guards import LagRefusedError
from openmm_diffmd.integrator.molecules import describe_molecules
from openmm_diffmd.integrator.propagator import Propagator
from openmm_diffmd.integrator.settings import resolve_settings
from openmm_diffmd.units import BOLTZMANN

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """
    What happened.

    Attributes
    ----------
    spreads : ndarray, shape (n_lags, n_molecules, n_atoms, 2), nm and nm/ps
        Predicted for each lag before it was drawn.
    events : list of tuple
        (lag, molecule) of each lag whose first draw the guards refused.
    breaks : list of tuple
        Those of them that could not be drawn at all: the molecule began anew.
    """

    spreads: Array
    events: list[tuple[int, int]]
    breaks: list[tuple[int, int]]


class Provocation:
    """
    Replicas in a heat bath, in plain Python, each lag's spread recorded.

    A molecule whose lag cannot be drawn begins anew from one of the starts.

    Parameters
    ----------
    model : DiffusionModel
        The model.
    topology : openmm.app.Topology
        One molecule.
    starts : ndarray, shape (n_replicas, n_atoms, 3), nm
        Where replicas begin.
    temperature : float
        Of bath and first velocities, K.
    friction : float
        1/ps; 0 is no bath.
    num_draws : int
        Draws for a spread.
    seed : int
        Seed of everything.
    """

    def __init__(
        self,
        model: DiffusionModel,
        topology: app.Topology,
        starts: Array,
        *,
        temperature: float,
        friction: float,
        num_draws: int,
        seed: int,
    ) -> None:
        replicas = replicate(
            topology, create_system(topology), starts[0] * unit.nanometer, len(starts)
        )
        self._molecules = describe_molecules(
            replicas.topology, model.metadata, replicas.molecules
        )
        steps = model.metadata.sampler["num_steps"]
        predictor = SpreadPredictor(model, num_draws, seed, steps or 1)
        self._recorder = SpreadRecorder(model, predictor)
        settings = resolve_settings(
            model.metadata,
            temperature=temperature,
            friction=friction,
            # One call for all, so that a lag has one record of spreads.
            molecules_per_batch=len(starts),
        )
        self._propagator = Propagator(
            self._recorder.model, self._molecules, settings, seed
        )
        self._starts = starts
        self._speeds = np.sqrt(
            BOLTZMANN * temperature / self._molecules.masses[: starts.shape[1]]
        )[:, None]
        self._generator = np.random.default_rng(seed)

    def run(self, num_lags: int, name: str) -> Run:
        """
        Run.

        Parameters
        ----------
        num_lags : int
            Lags.
        name : str
            For the progress bar.

        Returns
        -------
        Run
            Spreads and events.
        """
        n_replicas, n_atoms = self._starts.shape[:2]
        x = self._starts.reshape(-1, 3).copy()
        v = np.concatenate([self._new_velocities() for _ in range(n_replicas)])
        events, breaks, spreads = [], [], []
        for lag in tqdm(range(num_lags), name, unit="lag", disable=None):
            refused = self._propagator.num_resamples.copy()
            while True:
                try:
                    new_x, new_v = self._propagator.step(x, v)
                    break
                except LagRefusedError as error:
                    # The others draw this lag again, which is as good.
                    own = slice(
                        error.molecule * n_atoms, (error.molecule + 1) * n_atoms
                    )
                    breaks.append((lag, error.molecule))
                    x, v = x.copy(), v.copy()
                    x[own] = self._starts[self._generator.integers(n_replicas)]
                    v[own] = self._new_velocities()
            x, v = new_x, new_v
            changed = self._propagator.num_resamples > refused
            events += [(lag, int(m)) for m in np.flatnonzero(changed)]
            # The first of several attempts is the one that the guards refused.
            spreads.append(self._recorder.spreads[0].numpy())
            self._recorder.spreads.clear()
        return Run(np.array(spreads)[:, :, :n_atoms], events, breaks)

    def _new_velocities(self) -> Array:
        shape = self._starts.shape[1:]
        velocities: Array = self._speeds * self._generator.normal(size=shape)
        return velocities
