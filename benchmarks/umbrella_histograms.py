"""Histograms of biased runs, their errors, and whether two of them agree."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
NUM_PERMUTATIONS = 4000


@dataclass(frozen=True)
class Sample:
    """
    Independent groups of frames, each frame with a weight.

    Attributes
    ----------
    coordinates : ndarray, shape (n_groups, n_frames, 2), nm and rad
        Distance and torsion.
    weights : ndarray, shape (n_groups, n_frames)
        Statistical weight of each frame.
    """

    coordinates: Array
    weights: Array

    def average(self, values: Array) -> tuple[Array, Array]:
        """
        Weighted mean, with its standard error by leaving out one group after the other.

        Parameters
        ----------
        values : ndarray, shape (n_groups, n_frames, ...)
            An observable of each frame.

        Returns
        -------
        mean, error : ndarray, shape (...)
            The jackknife sees that groups are independent, and that numerator and
            denominator are not.
        """
        numerators = np.einsum("gf,gf...->g...", self.weights, values)
        shape = (-1, *[1] * (numerators.ndim - 1))
        denominators = self.weights.sum(1).reshape(shape)
        mean = numerators.sum(0) / denominators.sum()
        left = numerators.sum(0) - numerators
        without = left / (denominators.sum() - denominators)
        number = len(without)
        spread = ((without - without.mean(0)) ** 2).sum(0)
        return mean, np.sqrt(spread * (number - 1) / number)

    def histogram(self, axis: int, edges: Array) -> tuple[Array, Array]:
        """
        Density of a coordinate, with its error.

        Parameters
        ----------
        axis : int
            0 the distance, 1 the torsion.
        edges : ndarray, shape (n_bins + 1,)
            Bins.

        Returns
        -------
        density, error : ndarray, shape (n_bins,)
            Integral 1, if no frame lies outside.
        """
        mean, error = self.average(in_bins(self.coordinates[..., axis], edges))
        return mean / np.diff(edges), error / np.diff(edges)


def in_bins(values: Array, edges: Array) -> Array:
    """
    Say of each value in which bin it is.

    Parameters
    ----------
    values : ndarray, shape (...)
        Values.
    edges : ndarray, shape (n_bins + 1,)
        Bins.

    Returns
    -------
    ndarray, shape (..., n_bins)
        1 in its bin, 0 elsewhere.
    """
    index = np.searchsorted(edges, values, side="right") - 1
    return (index[..., None] == np.arange(len(edges) - 1)).astype(np.float64)


def difference(found: tuple[Array, Array], expected: tuple[Array, Array]) -> Array:
    """
    Difference of two results in standard errors of it.

    Parameters
    ----------
    found, expected : tuple of ndarray
        Mean and error of each.

    Returns
    -------
    ndarray
        z; 0 where neither has an error.
    """
    error = np.hypot(found[1], expected[1])
    return np.where(error > 0, (found[0] - expected[0]) / np.where(error, error, 1), 0)


def permutation_test(one: Array, other: Array, edges: Array, seed: int) -> float:
    """
    Test whether groups of two runs come from one distribution.

    Which run a group is of is shuffled; the statistic is the sum over bins of the
    squared difference of the two mean histograms over the variance of a group's.
    Correlation within a group, and between bins, needs no model.

    Parameters
    ----------
    one, other : ndarray, shape (n_groups, n_frames)
        A coordinate; groups of both are of one length in time.
    edges : ndarray, shape (n_bins + 1,)
        Bins.
    seed : int
        Seed of the shuffles.

    Returns
    -------
    float
        p: how often a shuffle differs at least as much.
    """
    histograms = np.concatenate([in_bins(x, edges).mean(1) for x in (one, other)])
    variance = histograms.var(0, ddof=1)
    histograms = histograms[:, variance > 0] / np.sqrt(variance[variance > 0])

    def statistic(order: NDArray[np.int64]) -> float:
        first = histograms[order[: len(one)]].mean(0)
        second = histograms[order[len(one) :]].mean(0)
        return float(((first - second) ** 2).sum())

    random = np.random.default_rng(seed)
    order = np.arange(len(histograms))
    found = statistic(order)
    shuffled = [statistic(random.permutation(order)) for _ in range(NUM_PERMUTATIONS)]
    return (1 + sum(s >= found for s in shuffled)) / (1 + NUM_PERMUTATIONS)
