"""A goal, and what is said where it cannot be judged."""

from collections.abc import Callable
from dataclasses import dataclass

NO_VELOCITIES = (
    "no velocities: give run --velocities true, and of other programs a file with them"
)
"""What is said where a rollout kept none; the option is that of the verb ``run``."""
NO_REFERENCE_VELOCITIES = "no velocities in the reference, or too few frames"


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


Absent = Callable[[str], Goal]
"""The goal of a name whose figure is absent."""
