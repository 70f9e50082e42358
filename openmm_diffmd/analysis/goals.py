"""The goals a rollout is judged by."""

import math
from dataclasses import dataclass

from openmm_diffmd.analysis.figures import Figures
from openmm_diffmd.analysis.rare_events import EventRate
from openmm_diffmd.analysis.temperature import ElementTemperature

MAX_TEMPERATURE_DEVIATION = 0.03
MAX_H_R_FACTOR = 1.5
MAX_REDRAWN = 1e-4
MAX_RATE_DEVIATION = 2.0
MAX_RATE_ERROR = 0.2


@dataclass(frozen=True)
class Goal:
    """
    One goal and what was found.

    Attributes
    ----------
    name : str
        What is asked.
    found : str
        What was measured, with its statistical error where there is one.
    passed : bool or None
        Whether it is met; None where the statistical error is too large to say.
    """

    name: str
    found: str
    passed: bool | None


def judge(
    found: Figures,
    reference: Figures,
    redrawn: float | None = None,
    ended_early: str | None = None,
) -> list[Goal]:
    """
    Compare a rollout's figures with the goals.

    Parameters
    ----------
    found : Figures
        Figures of the rollout.
    reference : Figures
        Figures of the reference: its temperatures, and its floor as errors.
    redrawn : float, optional
        Share of lags drawn again; left out where it is not known.
    ended_early : str, optional
        Why the integrator gave up: a molecule was beyond the guards' repair, which
        counts as a broken bond.

    Returns
    -------
    list of Goal
        No broken bond; temperature of each element within 3 % of the reference's;
        h(r) error at most 1.5 times the floor; rates of rare events within two
        standard errors of the reference's; at most one lag in 10^4 redrawn.
        A figure that could not be measured is a goal missed. A temperature outside
        by less than two standard errors, or known to no better than 3 %, is
        undecided: run longer. So is a rate that agrees only because its error is
        above 20 %, or that is two to three errors off. So is an error of h(r) above the
        limit that is no larger than what sampling explains.
    """
    goals = [
        Goal(
            "no broken bond",
            f"{found.n_broken} of {found.n_replicas} replicas broke in "
            f"{found.watched_ps:g} ps"
            + (", the run ended early" if ended_early else ""),
            found.n_broken == 0 and ended_early is None,
        )
    ]
    for symbol, target in (reference.temperatures or {}).items():
        ours = None if found.temperatures is None else found.temperatures[symbol]
        goals.append(_temperature_goal(symbol, ours, target))
    name = f"h(r) error at most {MAX_H_R_FACTOR:g} x the floor"
    if found.h_r_error is None or reference.h_r_halves is None:
        goals.append(Goal(name, "not measured", passed=False))
    else:
        factor = found.h_r_error / reference.h_r_halves
        met: bool | None = factor <= MAX_H_R_FACTOR
        if not met and found.h_r_error <= (found.h_r_expected or 0.0):
            met = None
        goals.append(
            Goal(
                name,
                f"{found.h_r_error:.3f} = {factor:.2f} x {reference.h_r_halves:.3f}",
                met,
            )
        )
    for kind, target_rate in (reference.events or {}).items():
        our_rate = None if found.events is None else found.events[kind]
        goals.append(_rate_goal(kind, our_rate, target_rate))
    if redrawn is not None:
        goals.append(
            Goal(
                f"at most {MAX_REDRAWN:g} of lags redrawn",
                f"{redrawn:.1e}",
                redrawn <= MAX_REDRAWN,
            )
        )
    return goals


def _temperature_goal(
    symbol: str, ours: ElementTemperature | None, target: ElementTemperature
) -> Goal:
    name = f"T({symbol}) within 3 % of the reference"
    if ours is None:
        return Goal(name, "not measured", passed=False)
    deviation = ours.value / target.value - 1
    error = math.hypot(ours.error, target.error) / target.value
    passed: bool | None = None
    if (
        abs(deviation) <= MAX_TEMPERATURE_DEVIATION
        and error <= MAX_TEMPERATURE_DEVIATION
    ):
        passed = True
    elif abs(deviation) - 2 * error > MAX_TEMPERATURE_DEVIATION:
        passed = False
    return Goal(
        name,
        f"{100 * deviation:+.1f} +- {100 * error:.1f} % "
        f"({100 * (ours.value / ours.expected - 1):+.1f} % of equipartition)",
        passed,
    )


def _rate_goal(kind: str, ours: EventRate | None, target: EventRate) -> Goal:
    name = f"rate of {kind} events within {MAX_RATE_DEVIATION:g} errors of it"
    if ours is None:
        return Goal(name, "not measured", passed=False)
    deviation = abs(ours.deviation(target))
    error = math.hypot(ours.error, target.error)
    passed: bool | None = None
    # Where the reference saw none, to see none either is all that can be asked.
    known = error <= MAX_RATE_ERROR * target.rate or target.n_events == 0
    if deviation <= MAX_RATE_DEVIATION and known:
        passed = True
    elif deviation > MAX_RATE_DEVIATION + 1.0:
        passed = False
    return Goal(
        name,
        f"{ours.rate:.0f} +- {ours.error:.0f} beside {target.rate:.0f} +- "
        f"{target.error:.0f} per ns",
        passed,
    )
