"""When a molecule breaks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.elements import BREAK_DEVIATION


@dataclass(frozen=True)
class Stability:
    """
    First broken bond of each replica.

    Attributes
    ----------
    stable_frames : ndarray of int, shape (n_replicas,)
        Frames before the first broken bond; all where none breaks.
    break_times : ndarray, shape (n_replicas,), ps
        Time of the first frame with a broken bond; nan where none breaks.
    lengths : ndarray, shape (n_replicas,), ps
        Time each replica was watched.
    """

    stable_frames: NDArray[np.int64]
    break_times: NDArray[np.float64]
    lengths: NDArray[np.float64]

    @property
    def n_broken(self) -> int:
        """Replicas with a broken bond."""
        return int(np.isfinite(self.break_times).sum())

    @property
    def mean_time(self) -> float:
        """Mean over replicas of the time without a broken bond, ps."""
        broken = np.isfinite(self.break_times)
        return float(np.where(broken, self.break_times, self.lengths).mean())

    def survival(self, times: NDArray[np.floating]) -> NDArray[np.float64]:
        """
        Fraction of replicas without a broken bond up to each time.

        Parameters
        ----------
        times : ndarray, shape (n_times,), ps
            Times, none beyond the shortest replica's length.

        Returns
        -------
        ndarray, shape (n_times,)
            Between 0 and 1.
        """
        broken = self.break_times[:, None] <= times
        return np.asarray(1.0 - broken.mean(axis=0))


def bond_lengths(ensemble: Ensemble) -> list[NDArray[np.float64]]:
    """
    Length of every bond of the topology.

    Parameters
    ----------
    ensemble : Ensemble
        Frames.

    Returns
    -------
    list of ndarray, shape (n_frames, n_bonds), nm
        One a replica.
    """
    i, j = ensemble.bonds.T
    return [
        np.linalg.norm(p[:, i].astype(np.float64) - p[:, j], axis=-1)
        for p in ensemble.positions
    ]


def stability(
    ensemble: Ensemble,
    mean_bond_lengths: NDArray[np.floating],
) -> Stability:
    """
    Find the first frame in which a bond is `BREAK_DEVIATION` from its mean.

    Parameters
    ----------
    ensemble : Ensemble
        Frames.
    mean_bond_lengths : ndarray, shape (n_bonds,), nm
        Mean of each bond in the reference.

    Returns
    -------
    Stability
        Break times.

    Raises
    ------
    ValueError
        If there is not one mean for each bond.
    """
    n_bonds = len(ensemble.bonds)
    if len(mean_bond_lengths) != n_bonds:
        raise ValueError(
            f"found {len(mean_bond_lengths)} mean bond lengths, expected {n_bonds}"
        )
    frames, times = [], []
    for lengths in bond_lengths(ensemble):
        broken = np.abs(lengths - mean_bond_lengths) > BREAK_DEVIATION
        bad = np.flatnonzero(broken.any(axis=1))
        frames.append(int(bad[0]) if len(bad) else len(lengths))
        times.append((bad[0] + 1) * ensemble.frame_interval if len(bad) else np.nan)
    return Stability(
        stable_frames=np.array(frames),
        break_times=np.array(times, dtype=np.float64),
        lengths=np.array(
            [len(p) * ensemble.frame_interval for p in ensemble.positions]
        ),
    )
