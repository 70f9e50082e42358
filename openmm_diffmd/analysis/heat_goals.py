"""Goals of velocities: judged by equipartition, which is exact for the heat bath."""

import math
from collections.abc import Iterator
from dataclasses import replace

from openmm_diffmd.analysis.bond_energies import HottestBond
from openmm_diffmd.analysis.figures import Figures
from openmm_diffmd.analysis.goal import NO_REFERENCE_VELOCITIES, Absent, Goal
from openmm_diffmd.analysis.modes import ROTATION, StepResidual
from openmm_diffmd.analysis.temperature import KineticEnergyTest, KineticTemperature

MAX_TEMPERATURE_DEVIATION = 0.01
MAX_MODE_DEVIATION = 0.02
MAX_TEMPERATURE_ERRORS = 3.0
"""Standard errors beyond a limit that chance may take one of many temperatures."""
MAX_STEP_DEVIATION = 0.15
"""Coarse: a reference of 20 ps has bonds a quarter too cold, which leave less."""
MAX_SHORT_STEP_DEVIATION = 1.0
"""Beside a shorter reference: one of 1 ps left two thirds of what it should."""
MAX_KINETIC_ENERGY_DEVIATION = 3.0
MIN_KINETIC_ENERGY_P = 0.01


def velocity_goals(
    found: Figures,
    reference: Figures,
    absent: Absent,
    enough: bool,
    reference_is_long: bool,
) -> Iterator[Goal]:
    """
    Judge what velocities tell: heat, and whether they belong to the steps.

    Parameters
    ----------
    found, reference : Figures
        Of the rollout, and of the reference.
    absent : callable
        Makes the goal of a name whose figure the rollout lacks.
    enough : bool
        Whether the rollout is long enough for temperatures and kinetic energies to be a
        goal missed: a short one that is cold by chance varies little too, and takes its
        error for small. And whether it knows what velocities leave of the steps.
    reference_is_long : bool
        Whether the reference knows how far bonds swing, by which energies are told, and
        how fast, by which steps are.

    Yields
    ------
    Goal
        Temperatures of elements, of the rotation and of stretches, what velocities
        leave of the steps, the hottest bond, and the kinetic energies.
    """
    # Heat is judged by equipartition: a reference without velocities does not matter.
    ours, theirs = found.temperatures or {}, reference.temperatures or {}
    for symbol in theirs or ours:
        target = theirs.get(symbol)
        beside = "" if target is None else f" (the reference {_percent(target)})"
        limit = MAX_TEMPERATURE_DEVIATION
        goal = _heat_goal(symbol, ours.get(symbol), limit, absent, beside)
        yield goal if enough or symbol not in ours else _undecided_if_missed(goal)
    modes = found.modes or {}
    for mode in reference.modes or modes:
        what = mode if mode == ROTATION else f"{mode} stretch"
        goal = _heat_goal(what, modes.get(mode), MAX_MODE_DEVIATION, absent)
        yield goal if enough or mode not in modes else _undecided_if_missed(goal)
    yield _step_goal(
        found.step_residual,
        reference.step_residual,
        absent,
        MAX_STEP_DEVIATION
        if reference_is_long and enough
        else MAX_SHORT_STEP_DEVIATION,
    )
    hottest, energies = found.hottest_bond, found.kinetic_energy
    if reference.hottest_bond is not None or hottest is not None:
        goal = _hottest_bond_goal(hottest, absent)
        known = reference_is_long or hottest is None
        yield goal if known else _undecided_if_missed(goal)
    goal = _kinetic_energy_goal(energies, absent)
    yield goal if enough or energies is None else _undecided_if_missed(goal)


def _undecided_if_missed(goal: Goal) -> Goal:
    return replace(goal, passed=goal.passed or None)


def _heat_goal(
    what: str,
    ours: KineticTemperature | None,
    limit: float,
    absent: Absent,
    beside: str = "",
) -> Goal:
    name = f"T({what}) within {100 * limit:g} % of equipartition"
    if ours is None:
        return absent(name)
    deviation, error = ours.value / ours.expected - 1, ours.error / ours.expected
    return Goal(name, f"{_percent(ours)}{beside}", _is_within(deviation, error, limit))


def _step_goal(
    ours: StepResidual | None,
    target: StepResidual | None,
    absent: Absent,
    limit: float,
) -> Goal:
    """Judge whether velocities belong to the steps; beyond `limit` they do not."""
    name = (
        "velocities leave of steps what the reference's leave, within "
        f"{100 * MAX_STEP_DEVIATION:g} %"
    )
    if ours is None:
        return absent(name)
    if target is None:
        return Goal(name, NO_REFERENCE_VELOCITIES, None)
    ratio = ours.value / target.value
    error = ratio * math.hypot(ours.error / ours.value, target.error / target.value)
    told = " beside ".join(
        f"{100 * residual.value:.1f} +- {_error(residual.error)} %"
        for residual in (ours, target)
    )
    passed = _is_within(ratio - 1, error, MAX_STEP_DEVIATION)
    if passed is False and _is_within(ratio - 1, error, limit) is not False:
        passed = None
    return Goal(name, told, passed)


def _hottest_bond_goal(ours: HottestBond | None, absent: Absent) -> Goal:
    """Judge what precedes a break: energy that gathers in one bond."""
    name = "no bond with more energy than chance gives it"
    if ours is None:
        return absent(name)
    return Goal(
        name,
        f"at most {ours.energy:.1f} kT, {ours.atoms} of replica {ours.replica} at "
        f"{ours.time:.1f} ps (by chance up to {ours.likely:.1f})",
        ours.energy <= ours.likely,
    )


def _is_within(deviation: float, error: float, limit: float) -> bool | None:
    """Say whether it is; None where the error is too large to tell, or unknown."""
    if math.isnan(deviation) or math.isnan(error):
        return None
    if max(abs(deviation), error) <= limit:
        return True
    return False if abs(deviation) - MAX_TEMPERATURE_ERRORS * error > limit else None


def _percent(found: KineticTemperature) -> str:
    deviation = found.value / found.expected - 1
    return f"{100 * deviation:+.1f} +- {_error(found.error / found.expected)} %"


def _error(error: float) -> str:
    return "-" if math.isnan(error) else f"{100 * error:.1f}"


def _kinetic_energy_goal(ours: KineticEnergyTest | None, absent: Absent) -> Goal:
    name = (
        f"kinetic energies distributed as they should: p >= {MIN_KINETIC_ENERGY_P:g}, "
        f"mean and width within {MAX_KINETIC_ENERGY_DEVIATION:g} errors"
    )
    if ours is None:
        return absent(name)
    deviations = ours.mean_deviation, ours.width_deviation
    return Goal(
        name,
        f"p = {ours.p_value:.2g}, {deviations[0]:.1f} and {deviations[1]:.1f} errors",
        ours.p_value >= MIN_KINETIC_ENERGY_P
        and max(map(abs, deviations)) <= MAX_KINETIC_ENERGY_DEVIATION,
    )
