"""Checks of numbers that users give: one wording for all of the package."""

import math
import operator
from typing import Any


def at_least(least: float, **numbers: float | None) -> None:
    """
    Refuse numbers that are too small or not finite.

    Parameters
    ----------
    least : float
        What each must be at least.
    **numbers : float or None
        By name; None passes.

    Raises
    ------
    ValueError
        If one is less, infinite or nan.
    """
    for name, number in numbers.items():
        if number is not None and not least <= number < math.inf:
            raise ValueError(f"found {name} {number:g}, expected at least {least:g}")


def above(limit: float, **numbers: float | None) -> None:
    """
    Refuse numbers that are not above a limit or not finite.

    Parameters
    ----------
    limit : float
        What each must be more than.
    **numbers : float or None
        By name; None passes.

    Raises
    ------
    ValueError
        If one is not more, infinite or nan.
    """
    for name, number in numbers.items():
        if number is not None and not limit < number < math.inf:
            raise ValueError(f"found {name} {number:g}, expected more than {limit:g}")


def within(least: float, most: float, **numbers: float | None) -> None:
    """
    Refuse numbers outside of a range.

    Parameters
    ----------
    least, most : float
        Ends of the range, which belong to it.
    **numbers : float or None
        By name; None passes.

    Raises
    ------
    ValueError
        If one lies outside or is nan.
    """
    for name, number in numbers.items():
        if number is not None and not least <= number <= most:
            raise ValueError(f"found {name} {number:g}, expected {least:g} to {most:g}")


def one_of(choices: tuple[str, ...], **words: str) -> None:
    """
    Refuse words that are none of those known.

    Parameters
    ----------
    choices : tuple of str
        Two or more.
    **words : str
        By name.

    Raises
    ------
    ValueError
        If one is another.
    """
    for name, word in words.items():
        if word not in choices:
            *first, last = (repr(choice) for choice in choices)
            raise ValueError(
                f"found {name} {word!r}, expected {', '.join(first)} or {last}"
            )


def to_int(name: str, value: Any) -> int:
    """
    Convert a whole number, of NumPy too, to an int.

    Parameters
    ----------
    name : str
        What it is, for the message.
    value : int
        What to convert.

    Returns
    -------
    int
        The number.

    Raises
    ------
    TypeError
        If it is something else; a float is not rounded.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(
            f"found {name} {value!r}, expected a whole number (int)"
        ) from None


def count_intervals(name: str, length: float, interval: float) -> int:
    """
    Count the intervals that a length of time is made of.

    Parameters
    ----------
    name : str
        What the length is, for the message.
    length, interval : float
        The times, fs.

    Returns
    -------
    int
        How many intervals make up the length.

    Raises
    ------
    ValueError
        If the length is not a positive whole number of intervals, or a time is not
        finite.
    """
    if not math.isfinite(length) or not math.isfinite(interval):
        raise ValueError(
            f"found {name} of {length:g} fs and steps of {interval:g} fs, expected "
            "finite numbers"
        )
    count = round(length / interval) if interval > 0 else 0
    if count < 1 or not math.isclose(count * interval, length, rel_tol=1e-6):
        raise ValueError(
            f"found {name} of {length:g} fs, expected a positive multiple of "
            f"{interval:g} fs"
        )
    return count
