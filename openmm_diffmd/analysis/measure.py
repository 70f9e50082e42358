"""Every figure of a rollout beside a reference, and the reference beside itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from openmm_diffmd.analysis.bond_energies import HottestBond, hottest_bond
from openmm_diffmd.analysis.contacts import Contact, closest_contact, new_bond_limits
from openmm_diffmd.analysis.distributions import (
    Histogram,
    dihedral_turns,
    h_r_error,
    marginal_divergences,
    marginals,
    pair_distances,
)
from openmm_diffmd.analysis.dynamics import (
    SPECTRUM_WINDOW_PS,
    Spectrum,
    spectrum_overlap,
    velocity_spectrum,
)
from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.figures import Curves, Figures, Row
from openmm_diffmd.analysis.modes import mode_temperatures, step_residual
from openmm_diffmd.analysis.rare_events import event_rates
from openmm_diffmd.analysis.sampling import (
    area_beside_reference,
    scatter_of_marginals,
)
from openmm_diffmd.analysis.stability import Stability, bond_lengths, stability
from openmm_diffmd.analysis.temperature import (
    element_temperatures,
    kinetic_energy_test,
)

Found = TypeVar("Found", Contact, HottestBond)


@dataclass(frozen=True)
class Reference:
    """
    The reference, with all that rows are compared with.

    Attributes
    ----------
    ensemble : Ensemble
        Its frames.
    temperature : float
        Temperature of the heat bath, K.
    mean_bond_lengths : ndarray, shape (n_bonds,), nm
        Mean of every bond.
    bond_variances : ndarray, shape (n_bonds,), nm^2
        Variance of every bond's length.
    new_bond_limits : mapping
        Distances below which atoms that are not bonded have become so, nm.
    h_r : Histogram
        Pair distances of the whole reference.
    marginals : mapping
        Bonds, angles and dihedrals of the whole reference.
    scatter : mapping
        Divergence of each marginal from that of an endless reference, by sampling.
    spectrum : Spectrum or None
        Velocity spectrum; None where it has no velocities or is too short.
    figures : Figures
        The reference's own temperatures and kinetic energies, and as errors the
        *floor*: its first half against its second half.
    window : float
        Window of the spectra, ps.
    """

    ensemble: Ensemble
    temperature: float
    mean_bond_lengths: NDArray[np.float64]
    bond_variances: NDArray[np.float64]
    new_bond_limits: Mapping[str, float]
    h_r: Histogram
    marginals: Mapping[str, Mapping[str, Histogram]]
    scatter: Mapping[str, Mapping[str, float]]
    spectrum: Spectrum | None
    figures: Figures
    window: float


def prepare_reference(
    ensemble: Ensemble, temperature: float, window: float = SPECTRUM_WINDOW_PS
) -> Reference:
    """
    Measure the reference, once for all rows.

    Parameters
    ----------
    ensemble : Ensemble
        Reference frames at the frame interval of the rollouts.
    temperature : float
        Temperature of the heat bath, K.
    window : float
        Window of the spectra, ps.

    Returns
    -------
    Reference
        The reference and its floor.

    Raises
    ------
    ValueError
        If it has fewer than two frames, or one atom.
    """
    if len(ensemble.bonds) == 0:
        raise ValueError(
            "found a reference of one atom, expected a molecule: an atom has no "
            "distances to compare"
        )
    if ensemble.n_frames < 2:
        raise ValueError(
            f"found a reference of {ensemble.n_frames} frames at the common interval "
            f"of {ensemble.frame_interval:g} ps, expected two or more: give a longer "
            "reference"
        )
    lengths = np.concatenate(bond_lengths(ensemble))
    means, variances = lengths.mean(axis=0), lengths.var(axis=0)
    stable = stability(ensemble, means)
    first, second = ensemble.split(2)
    floor_h = h_r_error(pair_distances(first), pair_distances(second))
    with_velocities = ensemble.velocities is not None
    spectra = [
        velocity_spectrum(part, window) if with_velocities else None
        for part in (ensemble, first, second)
    ]
    limits = new_bond_limits(ensemble)
    whole = marginals(ensemble)
    halves = marginal_divergences(marginals(first), marginals(second))
    figures = Figures(
        n_replicas=ensemble.n_replicas,
        watched_ps=float(stable.lengths.max()),
        analyzed_ps=ensemble.length,
        n_broken=stable.n_broken,
        first_break_ps=_first(stable),
        stable_ps=stable.mean_time,
        n_atoms=ensemble.topology.n_atoms,
        closest_contact=closest_contact(ensemble, limits),
        h_r_error=floor_h,
        h_r_halves=floor_h,
        divergences=halves,
        turns=dihedral_turns(ensemble),
        **_kinetic(ensemble, temperature, means, variances),
        spectrum_overlap=_overlap(spectra[1], spectra[2]),
        events=event_rates(ensemble, temperature),
    )
    return Reference(
        ensemble=ensemble,
        temperature=temperature,
        mean_bond_lengths=means,
        bond_variances=variances,
        new_bond_limits=limits,
        h_r=pair_distances(ensemble),
        marginals=whole,
        scatter=scatter_of_marginals(ensemble, whole, halves),
        spectrum=spectra[0],
        figures=figures,
        window=window,
    )


def measure(
    name: str,
    ensemble: Ensemble,
    reference: Reference,
    equilibration: float = 0.0,
) -> Row:
    """
    Measure one rollout beside the reference.

    Parameters
    ----------
    name : str
        Name of the row.
    ensemble : Ensemble
        Frames of the rollout, at the reference's interval or a whole part of it, atoms
        in any order. All of them are watched for broken bonds; the rest is measured at
        the reference's.
    reference : Reference
        From `prepare_reference`.
    equilibration : float
        Time at the start that only the watch for broken bonds uses, ps.

    Returns
    -------
    Row
        Figures are None where no replica outlived the equilibration.

    Raises
    ------
    ValueError
        If the rollout's molecule is not the reference's, or its frame interval no whole
        part of it.
    """
    ensemble = ensemble.in_order_of(reference.ensemble)
    stride = round(reference.ensemble.frame_interval / ensemble.frame_interval)
    if not np.isclose(
        stride * ensemble.frame_interval, reference.ensemble.frame_interval
    ):
        raise ValueError(
            f"found {ensemble.frame_interval} ps between frames, expected "
            f"{reference.ensemble.frame_interval} as in the reference, or a whole part "
            "of it"
        )
    temperature = reference.temperature
    stable = stability(ensemble, reference.mean_bond_lengths)
    every = ensemble
    ensemble = ensemble.strided(stride)
    stable_frames = stable.stable_frames // stride
    skipped = round(equilibration / ensemble.frame_interval)
    figures = Figures(
        n_replicas=ensemble.n_replicas,
        watched_ps=float(stable.lengths.max()),
        analyzed_ps=0.0,
        n_broken=stable.n_broken,
        first_break_ps=_first(stable),
        stable_ps=stable.mean_time,
        n_atoms=ensemble.topology.n_atoms,
    )
    if not (stable_frames > skipped).any():
        return Row(name, figures, Curves(stable))
    part = ensemble.window([skipped] * ensemble.n_replicas, list(stable_frames))
    h, found = pair_distances(part), marginals(part)
    halves = part.split(2) if part.n_frames > 1 else None
    own, floor = _halves_error(halves), reference.figures.h_r_halves
    longer = reference.ensemble.length / part.length
    with_velocities = part.velocities is not None
    kinetic = _kinetic(
        part, temperature, reference.mean_bond_lengths, reference.bond_variances
    )

    def of_the_run(found: Found | None, ends: NDArray[Any]) -> Found | None:
        """Count the replicas, and the start, that the window left out."""
        if found is None:
            return None
        kept = np.flatnonzero(ends > skipped)
        start = skipped * part.frame_interval
        return replace(found, replica=int(kept[found.replica]), time=found.time + start)

    kinetic["hottest_bond"] = of_the_run(kinetic.get("hottest_bond"), stable_frames)
    # Atoms may meet between the frames that are compared.
    every = every.window(
        [skipped * stride] * every.n_replicas, list(stable.stable_frames)
    )
    contact = closest_contact(every, reference.new_bond_limits)
    spectrum = velocity_spectrum(part, reference.window) if with_velocities else None
    return Row(
        name,
        replace(
            figures,
            analyzed_ps=part.length,
            closest_contact=of_the_run(contact, stable.stable_frames / stride),
            h_r_error=h_r_error(h, reference.h_r),
            h_r_halves=own,
            h_r_expected=area_beside_reference(own, floor, longer),
            divergences=marginal_divergences(found, reference.marginals),
            divergences_expected={
                kind: {name: (1.0 + longer) * value for name, value in groups.items()}
                for kind, groups in reference.scatter.items()
            },
            turns=dihedral_turns(part),
            **kinetic,
            spectrum_overlap=_overlap(spectrum, reference.spectrum),
            spectrum_expected=_expected_overlap(halves, reference, longer),
            flat_spectrum_overlap=_overlap(
                _flat(reference.spectrum), reference.spectrum
            ),
            events=event_rates(part, temperature),
        ),
        Curves(stable, h, found, spectrum),
    )


def _halves_error(halves: Sequence[Ensemble] | None) -> float | None:
    return None if halves is None else h_r_error(*map(pair_distances, halves))


def _kinetic(
    ensemble: Ensemble,
    temperature: float,
    means: NDArray[np.float64],
    variances: NDArray[np.float64],
) -> dict[str, Any]:
    """Measure what needs velocities, by the names of Figures."""
    if ensemble.velocities is None:
        return {}
    return {
        "temperatures": element_temperatures(ensemble, temperature),
        "modes": mode_temperatures(ensemble, temperature),
        "step_residual": step_residual(ensemble),
        "hottest_bond": hottest_bond(ensemble, means, variances, temperature),
        "kinetic_energy": kinetic_energy_test(ensemble, temperature),
    }


def _expected_overlap(
    halves: Sequence[Ensemble] | None, reference: Reference, longer: float
) -> float | None:
    """Treat what an overlap lacks to 1 as h(r): half the area between two curves."""
    if halves is None or halves[0].velocities is None:
        return None
    own = _overlap(*(velocity_spectrum(half, reference.window) for half in halves))
    floor = reference.figures.spectrum_overlap
    if own is None or floor is None:
        return None
    lacking = area_beside_reference(1.0 - own, 1.0 - floor, longer)
    return None if lacking is None else 1.0 - lacking


def _flat(spectrum: Spectrum | None) -> Spectrum | None:
    """White noise at the same wavenumbers."""
    if spectrum is None:
        return None
    density = np.ones_like(spectrum.density)
    step = spectrum.wavenumbers[1]
    return replace(spectrum, density=density / (density.sum() * step))


def _first(stable: Stability) -> float | None:
    return float(np.nanmin(stable.break_times)) if stable.n_broken else None


def _overlap(a: Spectrum | None, b: Spectrum | None) -> float | None:
    return None if a is None or b is None else spectrum_overlap(a, b)
