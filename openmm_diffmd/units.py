"""Units of the package: nm, ps, Da, kJ/mol, K, and plain floats inside."""

import math
import operator
from typing import Any

from scipy import constants

FEMTOSECONDS_PER_PICOSECOND = 1000.0
BOLTZMANN = constants.R / constants.kilo
"""Boltzmann constant, kJ/mol/K."""

EV = constants.eV * constants.N_A / constants.kilo
"""One electronvolt per particle, kJ/mol."""

KILOCALORIE = constants.calorie
"""One kcal/mol, kJ/mol."""

ANGSTROM = 0.1
"""One Angstrom, nm."""


def to_float(value: Any, in_unit: Any) -> float:
    """
    Convert a Quantity, or a number already in `in_unit`, to a float.

    Parameters
    ----------
    value : openmm.unit.Quantity or float
        What to convert.
    in_unit : openmm.unit.Unit
        Unit of the result, and of `value` where it carries none.

    Returns
    -------
    float
        The value in `in_unit`.

    Raises
    ------
    TypeError
        If the Quantity's dimension is not that of `in_unit`, or it is a text.
    """
    # Recognised by its method: `openmm` is imported by those who run it only.
    if not hasattr(value, "value_in_unit"):
        if isinstance(value, str):
            raise TypeError(
                f"found the text {value!r}, expected a number in {in_unit} or an "
                "openmm.unit.Quantity"
            )
        return float(value)
    if not value.unit.is_compatible(in_unit):
        raise TypeError(
            f"found {value}, expected a quantity in {in_unit} or compatible units"
        )
    return float(value.value_in_unit(in_unit))


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
