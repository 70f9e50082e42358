import math

import numpy as np
import pytest

from openmm_diffmd import checks

REFUSED = [
    (checks.at_least, (1,), 0, "found size 0, expected at least 1"),
    (checks.at_least, (0,), math.nan, "found size nan, expected at least 0"),
    (checks.at_least, (0,), math.inf, "found size inf, expected at least 0"),
    (checks.above, (0,), 0.0, "found size 0, expected more than 0"),
    (checks.above, (0,), math.inf, "found size inf, expected more than 0"),
    (checks.within, (0, 1), 1.5, "found size 1.5, expected 0 to 1"),
    (checks.within, (0, 1), math.nan, "found size nan, expected 0 to 1"),
]


@pytest.mark.parametrize(("check", "limits", "number", "message"), REFUSED)
def test_numbers_out_of_range_are_refused(check, limits, number, message):
    with pytest.raises(ValueError, match=message):
        check(*limits, known=1, size=number)


@pytest.mark.parametrize(("check", "limits", "number", "message"), REFUSED)
def test_limits_and_none_pass(check, limits, number, message):
    check(*limits, size=limits[-1] + (check is checks.above), other=None)


def test_words_that_are_not_known_are_refused():
    checks.one_of(("a", "b", "c"), letter="b")
    with pytest.raises(ValueError, match="found letter 'd', expected 'a', 'b' or 'c'"):
        checks.one_of(("a", "b", "c"), letter="d")


def test_whole_numbers_are_ints():
    assert checks.to_int("seed", np.int64(3)) == 3
    assert type(checks.to_int("seed", np.int64(3))) is int
    for value in (2.5, np.float64(2.0), "2", None):
        with pytest.raises(TypeError, match=r"found seed .*, expected a whole number"):
            checks.to_int("seed", value)


def test_intervals_of_a_length_are_counted():
    assert checks.count_intervals("length_ps", 100.0, 0.1) == 1000
    for length, interval in ((15.0, 10.0), (0.0, 10.0), (10.0, 0.0), (-10.0, 10.0)):
        with pytest.raises(ValueError, match=r"found length_ps of .* positive"):
            checks.count_intervals("length_ps", length, interval)
    for length, interval in ((np.inf, 10.0), (10.0, np.nan)):
        with pytest.raises(ValueError, match="expected finite numbers"):
            checks.count_intervals("length_ps", length, interval)
