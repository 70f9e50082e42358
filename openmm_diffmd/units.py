"""Units of the package: nm, ps, Da, kJ/mol, K, and plain floats inside."""

from typing import Any

from openmm import unit

FEMTOSECONDS_PER_PICOSECOND = 1000.0
BOLTZMANN = unit.MOLAR_GAS_CONSTANT_R.value_in_unit(
    unit.kilojoule_per_mole / unit.kelvin
)
"""Boltzmann constant, kJ/mol/K."""

EV = (1.602176634e-19 * unit.joule * unit.AVOGADRO_CONSTANT_NA).value_in_unit(
    unit.kilojoule_per_mole
)
"""One electronvolt per particle, kJ/mol."""


def to_float(value: Any, in_unit: unit.Unit) -> float:
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
        If the Quantity's dimension is not that of `in_unit`.
    """
    if unit.is_quantity(value):
        if not value.unit.is_compatible(in_unit):
            raise TypeError(
                f"found {value}, expected a quantity in {in_unit} or compatible units"
            )
        return float(value.value_in_unit(in_unit))
    return float(value)
