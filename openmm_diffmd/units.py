"""Units of the package: nm, ps, Da, kJ/mol, K, and plain floats inside."""

from typing import Any

from scipy import constants

FS_PER_PS = 1000.0
PS_PER_NS = 1000.0
SECONDS_PER_DAY = 86400.0
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
