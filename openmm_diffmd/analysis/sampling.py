"""How far measured curves are from the truth by sampling alone."""

from collections.abc import Mapping

import numpy as np

from openmm_diffmd.analysis.distributions import (
    Histogram,
    marginal_divergences,
    marginals,
)
from openmm_diffmd.analysis.ensemble import Ensemble

MAX_OWN_SCATTER = 2.0
"""Times what the reference lets expect that halves of a rollout may differ by."""
SCATTER_BLOCKS = 10
"""Blocks of a reference whose divergence from the whole tells how far that is off."""


def area_by_sampling(ours: float, theirs: float) -> float:
    """
    Estimate the area between two curves by sampling, from halves of each set.

    A half has twice the variance of its whole, so the difference of two halves
    scatters twice as wide as one whole about the truth; variances add up.

    Parameters
    ----------
    ours, theirs : float
        Area between the curves of the halves of each set.

    Returns
    -------
    float
        Area between the curves of the wholes.
    """
    return float(0.5 * np.hypot(ours, theirs))


def divergence_by_sampling(ours: float, theirs: float) -> float:
    """
    Estimate a divergence by sampling, from halves of each set.

    Small divergences go with the square of the difference: with its variance.

    Parameters
    ----------
    ours, theirs : float
        Divergence of the halves of each set.

    Returns
    -------
    float
        Divergence of the wholes.
    """
    return 0.25 * (ours + theirs)


def area_beside_reference(
    ours: float | None, theirs: float | None, longer: float
) -> float | None:
    """
    Estimate `area_by_sampling` of a rollout beside its reference.

    Ours counts up to `MAX_OWN_SCATTER` times what halves of the reference let expect
    of halves of our length: replicas that disagree more than chance lets them do not
    excuse each other.

    Parameters
    ----------
    ours, theirs : float or None
        Area between the curves of the halves of rollout and reference.
    longer : float
        Length of the reference over that of the rollout.

    Returns
    -------
    float or None
        Area between the curves of the wholes; None where one has no halves.
    """
    if ours is None or theirs is None:
        return None
    most = MAX_OWN_SCATTER * theirs * float(np.sqrt(longer))
    return area_by_sampling(min(ours, most), theirs)


def scatter_of_marginals(
    ensemble: Ensemble,
    whole: Mapping[str, Mapping[str, Histogram]],
    halves: Mapping[str, Mapping[str, float]],
) -> dict[str, dict[str, float]]:
    """
    Estimate how far the marginals of a whole are from the truth.

    The divergence of two halves is four times the whole's from the truth, that of one
    of K blocks from the whole K - 1 times. Halves may agree by chance where a torsion
    is slow; blocks tell less where it is slower than they are. The larger counts.

    Parameters
    ----------
    ensemble : Ensemble
        The whole.
    whole : mapping
        Its marginals.
    halves : mapping
        Divergences of its halves.

    Returns
    -------
    dict
        Divergence of each marginal from that of an endless run.
    """
    number = min(SCATTER_BLOCKS, ensemble.n_frames)
    of_blocks = [
        marginal_divergences(marginals(block), whole)
        for block in ensemble.split(number)
    ]
    return {
        kind: {
            name: max(
                divergence_by_sampling(value, 0.0),
                sum(block[kind][name] for block in of_blocks) / (number * (number - 1)),
            )
            for name, value in groups.items()
        }
        for kind, groups in halves.items()
    }
