"""Sets of frames beside each other: h(r), bonds, angles, dihedrals, and widths."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import mdtraj
import numpy as np

from openmm_diffmd.analysis.distributions import (
    Histogram,
    bonded_terms,
    h_r_error,
    marginal_divergences,
    marginals,
    pair_distances,
)
from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.report import KINDS
from openmm_diffmd.analysis.sampling import area_by_sampling, divergence_by_sampling


@dataclass(frozen=True)
class Shape:
    """h(r) of a set of frames, and its bonds, angles and dihedrals."""

    h_r: Histogram
    marginals: dict[str, dict[str, Histogram]]


def shape_of(ensemble: Ensemble) -> Shape:
    """Measure one set of frames."""
    return Shape(pair_distances(ensemble), marginals(ensemble))


def compare(one: Shape, other: Shape) -> dict[str, Any]:
    """Compare two sets of frames."""
    divergences = marginal_divergences(one.marginals, other.marginals)
    return {
        "h_r_error": h_r_error(one.h_r, other.h_r),
        "divergences": {
            kind: fmean(divergences[kind].values()) if divergences[kind] else None
            for kind in KINDS
        },
        "by_group": divergences,
    }


def common_share(h: Histogram, model: Histogram, truth: Histogram) -> float:
    r"""
    Share of a difference that another one has too.

    :math:`\int_+ \min(|h - h_t|, |h_m - h_t|) dr / \int |h - h_t| dr`, the first
    integral where both differences have one sign.

    Parameters
    ----------
    h : Histogram
        What is to be explained.
    model : Histogram
        What may explain it.
    truth : Histogram
        What both are compared with.

    Returns
    -------
    float
        1: `model` has all of the difference; 0: none of it. nan where `h` and
        `truth` are equal.

    Raises
    ------
    ValueError
        If the bins differ.
    """
    whole = h_r_error(h, truth)
    if not np.array_equal(model.edges, truth.edges):
        raise ValueError("found histograms on different bins, expected the same")
    ours, theirs = h.density - truth.density, model.density - truth.density
    common = np.minimum(np.abs(ours), np.abs(theirs)) * (ours * theirs > 0)
    return float(np.sum(common * np.diff(h.edges))) / whole if whole > 0 else math.nan


def shapes_of(sets: Mapping[str, Ensemble]) -> dict[str, list[Shape]]:
    """Measure each set of frames: the whole, and both halves."""
    return {
        name: [shape_of(part) for part in (ensemble, *ensemble.split(2))]
        for name, ensemble in sets.items()
    }


def compare_all(shapes: Mapping[str, Sequence[Shape]]) -> dict[str, Any]:
    """
    Compare sets of frames in pairs.

    Parameters
    ----------
    shapes : mapping of str to sequence of Shape
        What `shapes_of` made of ``rollout``, ``real`` and, if there is one,
        ``reference``.

    Returns
    -------
    dict
        ``rows``: of each pair, with what sampling explains, and of halves; ``share``:
        of the rollout's difference to the real frames what the reference has at the
        same distances and of the same sign, None without one.
    """
    whole = {name: found[0] for name, found in shapes.items()}
    halves = {
        name: compare(first, second) for name, (_, first, second) in shapes.items()
    }
    rows = {
        f"{one} - {other}": compare(whole[one], whole[other])
        | {"by_sampling": by_sampling(halves[one], halves[other])}
        for one, other in (
            ("rollout", "real"),
            ("reference", "real"),
            ("rollout", "reference"),
        )
        if one in whole and other in whole
    }
    rows |= {f"{name}, half - half": found for name, found in halves.items()}
    names = ("rollout", "reference", "real")
    share = (
        common_share(*(whole[name].h_r for name in names))
        if "reference" in whole
        else None
    )
    return {"rows": rows, "share": share}


def by_sampling(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """
    Estimate the difference of two whole sets by sampling, from halves of each.

    Parameters
    ----------
    one, other : mapping
        What `compare` made of the halves of each set.

    Returns
    -------
    dict
        ``h_r_error`` and ``divergences``, as of `compare`.
    """
    return {
        "h_r_error": area_by_sampling(one["h_r_error"], other["h_r_error"]),
        "divergences": {
            kind: None
            if value is None
            else divergence_by_sampling(value, other["divergences"][kind])
            for kind, value in one["divergences"].items()
        },
    }


def variance_ratios(one: Ensemble, other: Ensemble) -> dict[str, float]:
    """
    Compare how widely bonds and angles vary in two sets of frames.

    Returns
    -------
    dict
        For each group of bonds and angles, such as ``C-H``: the variance of a term,
        mean over the group, in one set over that in the other. Of oscillators of equal
        stiffness it is the ratio of the temperatures.
    """
    first, second = (_variances(ensemble) for ensemble in (one, other))
    return {
        name: first[name] / second[name] for name in first if second.get(name, 0.0) > 0
    }


def _variances(ensemble: Ensemble) -> dict[str, float]:
    frames = ensemble.frames()
    terms = bonded_terms(ensemble.topology)
    computed = {
        name: function(frames, found)
        for kind, function in (
            ("bonds", mdtraj.compute_distances),
            ("angles", mdtraj.compute_angles),
        )
        for name, found in terms[kind].items()
    }
    return {
        name: float(values.astype(np.float64).var(axis=0).mean())
        for name, values in computed.items()
    }
