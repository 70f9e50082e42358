"""Whether a predicted spread is the true error."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
COMPONENTS = 3
SEED = 1
"""Of the Gaussians of `Reliability.best_correlation`."""


@dataclass(frozen=True)
class Reliability:
    """
    Predicted spread beside true error, in bins of the prediction.

    Attributes
    ----------
    predicted, found : ndarray, shape (n_bins,)
        Root mean square of the predicted spread and of the true error of a component;
        each bin has as many atoms.
    found_error : ndarray, shape (n_bins,)
        Standard error of `found`, the atoms taken as independent.
    n_samples : int
        Atoms in all bins.
    ratio : float
        Root mean square of all errors over that of all spreads: 1 is calibrated,
        above 1 the model is too sure.
    calibration_error : float
        Mean over bins of abs(found/predicted - 1).
    slope : float
        Slope of log(found) over log(predicted): 1 where the spread follows the error
        all the way, 0 where it tells nothing.
    correlation : float
        Spearman's, of spread and error atom by atom.
    best_correlation : float
        What it would be if each error were Gaussian of exactly the spread predicted.
    """

    predicted: Array
    found: Array
    found_error: Array
    n_samples: int
    ratio: float
    calibration_error: float
    slope: float
    correlation: float
    best_correlation: float


def measure_reliability(spreads: Array, errors: Array, n_bins: int = 10) -> Reliability:
    """
    Compare predicted spreads with true errors.

    Parameters
    ----------
    spreads : ndarray, shape (n,)
        Predicted standard deviation of a component of each atom, in any unit.
    errors : ndarray, shape (n, 3)
        True error of each atom, in the same unit.
    n_bins : int
        Bins.

    Returns
    -------
    Reliability
        Curve and numbers.

    Raises
    ------
    ValueError
        If shapes do not fit, there are fewer than two atoms in a bin, or a spread is
        not positive.

    Notes
    -----
    The calibration error is the expected normalized calibration error of Levi et al.,
    Sensors 22, 5540 (2022), its sign left out bin by bin.
    """
    if errors.shape != (len(spreads), COMPONENTS):
        raise ValueError(
            f"found spreads {spreads.shape} and errors {errors.shape}, expected (n,) "
            "and (n, 3)"
        )
    if len(spreads) < 2 * n_bins:
        raise ValueError(
            f"found {len(spreads)} atoms, expected at least {2 * n_bins}, two for each "
            "of the bins"
        )
    if not (spreads > 0).all():
        raise ValueError("found a spread of 0 or less, expected positive spreads")
    squares = (errors**2).mean(axis=1)
    order = np.argsort(spreads)
    predicted, found, found_error = [], [], []
    for part in np.array_split(order, n_bins):
        predicted.append(np.sqrt((spreads[part] ** 2).mean()))
        root = np.sqrt(squares[part].mean())
        found.append(root)
        deviation = squares[part].std(ddof=1) / np.sqrt(len(part))
        found_error.append(deviation / (2.0 * root) if root > 0 else 0.0)
    curve = np.array(predicted), np.array(found)
    generator = np.random.default_rng(SEED)
    ideal = spreads[:, None] * generator.normal(size=errors.shape)
    positive = curve[1] > 0
    slope = np.nan
    if positive.sum() > 1 and np.ptp(np.log(curve[0][positive])) > 0:
        slope = np.polyfit(np.log(curve[0][positive]), np.log(curve[1][positive]), 1)[0]
    return Reliability(
        predicted=curve[0],
        found=curve[1],
        found_error=np.array(found_error),
        n_samples=len(spreads),
        ratio=float(np.sqrt(squares.mean() / (spreads**2).mean())),
        calibration_error=float(np.abs(curve[1] / curve[0] - 1.0).mean()),
        slope=float(slope),
        correlation=_rank_correlation(spreads, squares),
        best_correlation=_rank_correlation(spreads, (ideal**2).mean(axis=1)),
    )


def _rank_correlation(a: Array, b: Array) -> float:
    return float(stats.spearmanr(a, b).statistic)
