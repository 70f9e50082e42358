import openmm.unit
import pytest

from openmm_diffmd import units


def test_constants_are_openmms():
    gas = openmm.unit.MOLAR_GAS_CONSTANT_R
    per_kelvin = openmm.unit.kilojoule_per_mole / openmm.unit.kelvin
    assert pytest.approx(gas.value_in_unit(per_kelvin), rel=1e-14) == units.BOLTZMANN
    kilocalorie = 1.0 * openmm.unit.kilocalorie_per_mole
    assert (
        kilocalorie.value_in_unit(openmm.unit.kilojoule_per_mole) == units.KILOCALORIE
    )
    assert (1.0 * openmm.unit.angstrom).value_in_unit(
        openmm.unit.nanometer
    ) == units.ANGSTROM
    assert pytest.approx(96.48533212, rel=1e-9) == units.EV


def test_quantities_and_numbers_become_floats():
    femtoseconds = 10 * openmm.unit.femtosecond
    assert units.to_float(femtoseconds, openmm.unit.picosecond) == pytest.approx(0.01)
    assert units.to_float(3, openmm.unit.picosecond) == 3.0


def test_other_dimensions_are_refused():
    with pytest.raises(
        TypeError, match="found 1 nm, expected a quantity in picosecond"
    ):
        units.to_float(1 * openmm.unit.nanometer, openmm.unit.picosecond)


def test_text_is_refused_in_words_of_the_unit():
    with pytest.raises(
        TypeError, match="expected a number in picosecond or an"
    ) as info:
        units.to_float("3 ps", openmm.unit.picosecond)
    assert "kelvin" not in str(info.value)
