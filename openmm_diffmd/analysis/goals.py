"""The goals a rollout is judged by."""

import math
from collections.abc import Collection
from dataclasses import replace
from functools import partial

from scipy import stats

from openmm_diffmd.analysis.contacts import Contact
from openmm_diffmd.analysis.figures import Figures
from openmm_diffmd.analysis.goal import (
    NO_REFERENCE_VELOCITIES,
    NO_VELOCITIES,
    Absent,
    Goal,
)
from openmm_diffmd.analysis.heat_goals import velocity_goals
from openmm_diffmd.analysis.rare_events import BLOCK_PS, MIN_BLOCKS
from openmm_diffmd.analysis.rate_goals import deviation_of_counts, rate_goal

MAX_H_R_FACTOR = 1.5
H_R_CHANCE = 2.0
"""Times what sampling is estimated to explain, which chance may reach. Pieces of a
reference beside the rest of it, 16 x 20 ps of ethanol, are perfect runs: in 40 of them
errors of h(r) are 0.6 to 1.8 times the estimate, divergences of bonds and angles 0.3 to
1.9, of dihedrals 0.3 to 3.4, overlaps lack 0.6 to 1.3 times, and 0.6 to 1.6 times where
the rest stands beside pieces of 100 ps (``benchmarks/perfect_runs.py``)."""
MAX_DIVERGENCE_FACTOR = 2.0
DIVERGENCE_CHANCE = 4.0
FEW_ATOMS = 6
FEW_ATOMS_CHANCE = 2.5
"""Molecules of fewer atoms have few motions, whose halves agree by luck more often: in
80 perfect runs of water errors of h(r) reach 3.0 times the estimate, divergences 9."""
MIN_TURNS = 20
"""Turns of a torsion below which a reference does not know its populations."""
MIN_SPECTRUM_OVERLAP = 0.97
SPECTRUM_CHANCE = 2.0
MAX_FLAT_OVERLAP = 0.9
"""Overlap with white noise above which a spectrum tells little: frames too far apart
fold its lines all over it."""
MAX_TURN_DEVIATION = 4.0
"""Standard errors that counts of a slow torsion may differ by: turns come in pairs."""
MAX_BROKEN_DEVIATION = 3.0
"""Standard errors by which more replicas may break than of a reference that breaks."""
MAX_REDRAWN = 1e-5
MAX_REDRAWS_OF_A_LAG = 10
"""Of one molecule; redraws come in bursts, so that many may be of few lags."""
REDRAWS_CONFIDENCE = 0.975

BY_CHANCE = "sampling may explain it"
SHORT_REFERENCE = f"the reference is shorter than {MIN_BLOCKS * BLOCK_PS:g} ps"


def judge(
    found: Figures,
    reference: Figures,
    redraws: tuple[int, int] | None = None,
    ended_early: str | None = None,
    same_friction: bool = True,
    rescues: int = 0,
) -> list[Goal]:
    """
    Compare a rollout's figures with the goals.

    Parameters
    ----------
    found : Figures
        Figures of the rollout.
    reference : Figures
        Figures of the reference: its temperatures, and its floor as errors.
    redraws : tuple of int, optional
        Redraws, and lags of all replicas; left out where they are not known.
    ended_early : str, optional
        Why the integrator gave up: a molecule was beyond the guards' repair, which
        counts as a broken bond.
    same_friction : bool
        Whether friction was the reference's: another widens lines of spectra and
        changes rates, so that goals of these are undecided where they would be missed.
    rescues : int
        Lags that were run with the reference force, where the run would have ended:
        any counts as a broken bond.

    Returns
    -------
    list of Goal
        No broken bond; no new one, of other atoms as close as bonded ones; temperature
        of each element within 1 % of equipartition, of the rotation and of each kind of
        bond's stretch within 2 %; velocities that leave of the steps between frames
        what the reference's leave, within 15 %; no bond with more energy, over 0.2 ps,
        than chance shows in one of 1000 such runs; kinetic energies of the right
        distribution (p of 0.01 and more, mean and width within three standard errors);
        h(r) error at most 1.5 times and divergences at most twice the floor; spectra
        that overlap by 0.97; rates of rare events within two standard errors of the
        reference's; at most one lag in 10^5 redrawn. A figure that could not be
        measured is a goal missed; but what needs velocities is undecided where the
        rollout has none, or the reference where it is needed of it, and kinetic
        energies and spectra are where one is too short for them. Bonds that break in
        the reference too, as often within three standard errors, spectra met that white
        noise nearly meets, and more redraws than the limit, but of lags that may be as
        few (97.5 %), are undecided. A temperature known to no better than its limit,
        outside by less than three standard errors, or outside in less than 100 ps,
        which do not know their own error, is undecided: run longer. So are kinetic
        energies that miss in less than 100 ps, and so is a rate that agrees only
        because its error is above 20 %, one that is two to three errors off, or any
        beside less than ten blocks of 10 ps, whose errors are not known. So are errors
        of h(r), divergences and spectra beyond the limit, but not beyond 2, 4 and 2
        times what sampling is estimated to explain (5, 10 and 2 of less than six
        atoms); spectra that miss beside less than 100 ps; errors of h(r) and
        divergences within the limit, but beyond that; and those within it beside a
        reference of less than 100 ps, whose halves do not know their difference; beside
        one so short a hot bond and dihedrals that miss are undecided too, and of less
        than six atoms all distributions. Groups of dihedrals with a torsion that
        turned, but less than 20 times in the reference's time, are named and left out;
        where their counts of turns are more than four standard errors apart the goal is
        missed.

    Notes
    -----
    Temperatures are compared with equipartition, which is exact for the heat bath; the
    reference's own, which a short one knows to some per cent, stand beside. Chance
    misses goals too: of 40 perfect runs two the rate of hydroxyl events
    (``benchmarks/perfect_runs.py``).
    """
    goals = [_broken_goal(found, reference, ended_early, rescues)]
    if found.h_r_error is None:
        absent = partial(Goal, found="not measured", passed=False)
    elif found.temperatures is None:
        absent = partial(Goal, found=NO_VELOCITIES, passed=None)
    else:
        absent = partial(Goal, found="not measured: too short", passed=None)
    if reference.closest_contact is not None:
        goals.append(_contact_goal(found.closest_contact, absent))
    # Frames that are thinned end up to an interval before the run.
    enough = 0.999 * MIN_BLOCKS * BLOCK_PS
    is_long, reference_is_long = (f.analyzed_ps >= enough for f in (found, reference))
    goals += velocity_goals(found, reference, absent, is_long, reference_is_long)
    goals.append(
        _floor_goal(
            "h(r) error",
            MAX_H_R_FACTOR,
            found.h_r_error,
            reference.h_r_halves,
            found.h_r_expected,
            H_R_CHANCE * _chance(found),
            reference_is_long,
            _is_small(found) and not reference_is_long,
        )
    )
    for kind, floors in (reference.divergences or {}).items():
        if floors:
            goals.append(_divergence_goal(kind, found, reference, reference_is_long))
    dynamics = [_spectrum_goal(found, reference, absent, reference_is_long)]
    for kind, target_rate in (reference.events or {}).items():
        our_rate = None if found.events is None else found.events[kind]
        known = is_long and reference_is_long
        dynamics.append(rate_goal(kind, our_rate, target_rate, known))
    if not same_friction:
        dynamics = [_excuse(goal) for goal in dynamics]
    goals += dynamics
    if redraws is not None:
        goals.append(_redraws_goal(*redraws))
    return goals


def _broken_goal(
    found: Figures, reference: Figures, ended_early: str | None, rescues: int
) -> Goal:
    told = (
        f"{found.n_broken} of {found.n_replicas} replicas broke in "
        f"{found.watched_ps:g} ps"
    )
    if ended_early:
        told += " until the guards ended the run"
    if rescues:
        told += f", {rescues} lags were run with the reference force"
    whole = not (ended_early or rescues)
    passed: bool | None = whole and found.n_broken == 0
    if reference.n_broken and whole:
        # A proton that goes over, say: no fault of the model.
        told += f"; {reference.n_broken} of {reference.n_replicas} of the reference"
        counts = found.n_broken, reference.n_broken
        times = [f.n_replicas * f.watched_ps for f in (found, reference)]
        more = counts[0] * times[1] > counts[1] * times[0]
        beyond = deviation_of_counts(counts, times) > MAX_BROKEN_DEVIATION
        passed = passed or (False if more and beyond else None)
    return Goal("no broken bond", told, passed)


def _contact_goal(ours: Contact | None, absent: Absent) -> Goal:
    name = "no new bond: no other atoms as close as bonded ones"
    if ours is None:
        return absent(name)
    return Goal(
        name,
        f"at the closest {ours.atoms}, {ours.distance:.3f} nm, in replica "
        f"{ours.replica} at {ours.time:.1f} ps (limit {ours.limit:.3f})",
        ours.distance >= ours.limit,
    )


def _redraws_goal(redraws: int, lags: int) -> Goal:
    fewest = math.ceil(redraws / MAX_REDRAWS_OF_A_LAG)
    passed: bool | None = redraws <= MAX_REDRAWN * lags
    if not passed:
        # The least rate of Poisson's distribution that so many let expect.
        least = stats.chi2.ppf(1.0 - REDRAWS_CONFIDENCE, 2 * fewest) / 2.0
        passed = None if least <= MAX_REDRAWN * lags else False
    told = f"none of {lags} lags redrawn"
    if redraws:
        told = f"{redraws} redraws, of at least {fewest} of {lags} lags"
    return Goal(f"at most {MAX_REDRAWN:g} of lags redrawn", told, passed)


def _is_small(found: Figures) -> bool:
    return found.n_atoms is not None and found.n_atoms < FEW_ATOMS


def _chance(found: Figures) -> float:
    """How much farther chance takes a molecule than one of ethanol's size."""
    return FEW_ATOMS_CHANCE if _is_small(found) else 1.0


def _divergence_goal(
    kind: str, found: Figures, reference: Figures, floor_is_known: bool
) -> Goal:
    """Judge those groups whose torsions turn often or never."""
    slow, disagree = (
        _slow_torsions(found, reference) if kind == "dihedrals" else ({}, False)
    )
    # Populations of torsions take longer to be known than halves of 20 ps show.
    slow_to_know = kind == "dihedrals" or _is_small(found)
    forgiven = slow_to_know and not floor_is_known
    ours = found.mean_divergence(kind, slow)
    goal = _floor_goal(
        f"divergence of {kind}",
        MAX_DIVERGENCE_FACTOR,
        ours,
        reference.mean_divergence(kind, slow),
        found.mean_expected_divergence(kind, slow),
        DIVERGENCE_CHANCE * _chance(found),
        floor_is_known,
        forgiven,
    )
    farthest = _farthest_group(kind, found, reference, slow)
    if farthest:
        goal = replace(goal, found=f"{goal.found}; farthest {farthest}")
    if not slow:
        return goal
    slowest = "too slow to tell: " + ", ".join(slow.values())
    if disagree and not forgiven:
        return replace(
            goal, found=f"{goal.found}; {slowest}, more than chance", passed=False
        )
    if len(slow) == len((reference.divergences or {})[kind]):
        return replace(goal, found=slowest, passed=None)
    return replace(goal, found=f"{goal.found}; {slowest}")


def _farthest_group(
    kind: str, found: Figures, reference: Figures, without: Collection[str]
) -> str:
    """Name the worst group of those beyond its own limit: the mean may hide it."""
    floors = (reference.divergences or {})[kind]
    expected = (found.divergences_expected or {}).get(kind, {})
    beyond = {
        name: ours / floors[name]
        for name, ours in (found.divergences or {}).get(kind, {}).items()
        if name not in without
        and ours > MAX_DIVERGENCE_FACTOR * floors.get(name, 0.0) > 0
        and ours > DIVERGENCE_CHANCE * _chance(found) * expected.get(name, math.inf)
    }
    if len(floors) < 2 or not beyond:
        return ""
    name = max(beyond, key=lambda group: beyond[group])
    ours = (found.divergences or {})[kind][name]
    return f"{name}, {ours:.2g} beside {floors[name]:.2g}"


def _slow_torsions(found: Figures, reference: Figures) -> tuple[dict[str, str], bool]:
    """
    Say which groups of dihedrals turned too seldom for their populations to be known.

    One of their torsions turned, but less than `MIN_TURNS` times in the reference, and
    no more often in the rollout for the same time. And whether one of their counts is
    farther from the other than chance allows for.
    """
    slow: dict[str, str] = {}
    disagree = False
    if found.turns is None or reference.turns is None:
        return slow, disagree
    times = found.analyzed_ps, reference.analyzed_ps
    for name, theirs in reference.turns.items():
        ours = found.turns[name]
        if 0 < max(theirs, times[1] / times[0] * ours) < MIN_TURNS:
            slow[name] = f"{name} turned {ours} times, {theirs} in the reference"
            deviation = deviation_of_counts((ours, theirs), times)
            disagree = disagree or deviation > MAX_TURN_DEVIATION
    return slow, disagree


def _floor_goal(
    what: str,
    limit: float,
    ours: float | None,
    floor: float | None,
    expected: float | None,
    chance: float,
    floor_is_known: bool,
    forgiven: bool,
) -> Goal:
    """
    Judge a difference beside the reference's half against its other half.

    What is `forgiven` is not missed: the reference is too short to know its floor at
    all.
    """
    name = f"{what} at most {limit:g} x the floor"
    if ours is None or floor is None:
        return Goal(name, "not measured", passed=False)
    told = f"{ours:.2g} beside a floor of {floor:.2g}"
    if expected is None:
        return Goal(name, told, None)
    told += f" (by sampling {expected:.2g})"
    passed, by_chance = ours <= limit * floor, ours <= chance * expected
    if passed and not by_chance:
        return Goal(name, f"{told}; more than sampling explains", None)
    if not passed and by_chance:
        return Goal(name, f"{told}; {BY_CHANCE}", None)
    if forgiven or (passed and not floor_is_known):
        return Goal(name, f"{told}; {SHORT_REFERENCE}", None)
    return Goal(name, told, passed)


def _spectrum_goal(
    found: Figures, reference: Figures, absent: Absent, reference_is_long: bool
) -> Goal:
    name = f"velocity spectra overlap by {MIN_SPECTRUM_OVERLAP:g}"
    ours, expected = found.spectrum_overlap, found.spectrum_expected
    if ours is None:
        if found.temperatures is not None and reference.spectrum_overlap is None:
            return Goal(name, NO_REFERENCE_VELOCITIES, None)
        return absent(name)
    told = f"{ours:.3f}"
    if expected is not None:
        told += f" (by sampling {expected:.3f})"
    if ours >= MIN_SPECTRUM_OVERLAP:
        flat = found.flat_spectrum_overlap
        if flat is not None and flat > MAX_FLAT_OVERLAP:
            return Goal(
                name, f"{told}; frames too far apart, white noise has {flat:.3f}", None
            )
        return Goal(name, told, True)
    if not reference_is_long:
        return Goal(name, f"{told}; {SHORT_REFERENCE}", None)
    if expected is None:
        return Goal(name, told, None)
    if 1.0 - ours <= SPECTRUM_CHANCE * (1.0 - expected):
        return Goal(name, f"{told}; {BY_CHANCE}", None)
    return Goal(name, told, False)


def _excuse(goal: Goal) -> Goal:
    if goal.passed is not False:
        return goal
    return replace(
        goal, found=f"{goal.found}; friction differs, or is not known", passed=None
    )
