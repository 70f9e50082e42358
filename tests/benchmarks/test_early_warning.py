import numpy as np
import pytest
from early_warning import (
    measure_alarms,
    measure_warning,
    split_by_events,
)


def test_values_are_sorted_by_their_distance_to_events():
    values = np.arange(40.0)[:, None] + np.array([0.0, 100.0])
    ordinary, before = split_by_events(values, [(20, 0), (22, 0)], 3, 5)
    # The second event follows from the first.
    assert before.tolist() == [[20.0, 19.0, 18.0]]
    near = {*range(15, 28)}
    calm = [lag for lag in range(40) if lag not in near]
    assert sorted(ordinary) == [*map(float, calm), *np.arange(100.0, 140.0)]


def test_molecule_that_began_anew_has_no_past():
    values = np.zeros((40, 1))
    _, before = split_by_events(values, [(20, 0)], 5, 8, breaks=[(18, 0)])
    assert before.shape == (0, 5)
    _, before = split_by_events(values, [(20, 0)], 5, 8, breaks=[(20, 0)])
    assert before.shape == (1, 5)
    _, before = split_by_events(values, [(2, 0)], 5, 8)
    assert before.shape == (0, 5)


def test_sure_warning_is_told_from_none():
    ordinary = np.linspace(0.0, 1.0, 1001)
    before = np.array(
        [[9.0, 9.0, 0.5, 9.0], [9.0, 0.5, 0.5, 0.5], [0.5, 9.0, 0.5, 0.5]]
    )
    w = measure_warning(ordinary, before, false_alarms=0.01)
    assert w.n_events == 3
    assert w.threshold == pytest.approx(0.99)
    assert w.detected == pytest.approx([2 / 3, 2 / 3, 0.0, 1 / 3])
    assert w.area == pytest.approx([2.5 / 3, 2.5 / 3, 0.5, 2 / 3])
    # Alarms without a break up to the event; -1 where the event itself gave none.
    assert w.lead.tolist() == [1, 0, -1]


@pytest.mark.statistical
def test_area_of_gaussians_is_the_closed_form():
    # stochastic; two unit Gaussians d apart: Phi(d/sqrt(2)); the error of the area is
    # below 0.5/sqrt(events).
    generator = np.random.default_rng(1)
    ordinary = generator.normal(size=20000)
    before = generator.normal(size=(2000, 2)) + np.array([1.0, 0.0])
    w = measure_warning(ordinary, before)
    assert w.area == pytest.approx([0.7602, 0.5], abs=4 * 0.5 / np.sqrt(2000))
    assert np.mean(ordinary > w.threshold) == pytest.approx(1e-3, abs=1e-4)


def test_run_without_events_is_refused():
    with pytest.raises(ValueError, match="found 0 events and 3 ordinary lags"):
        measure_warning(np.zeros(3), np.zeros((0, 4)))


def test_alarms_come_before_events_and_events_after_alarms():
    values = np.zeros((60, 3))
    values[10:14, 0] = 9.0  # warns of 15, which 18 follows from
    values[30, 0] = 9.0  # of nothing
    values[20, 1] = 9.0  # in the lag of the event: too late
    values[5, 2] = np.nan
    values[40:52, 2] = 9.0  # one alarm, an event 8 after it
    values[55, 2] = 9.0  # another, of nothing
    events = [(18, 0), (15, 0), (20, 1), (48, 2)]
    found = measure_alarms(values, events, threshold=1.0, horizon=10)
    assert found.n_events == 3
    assert sorted(found.lead) == [5, 8]
    # What stays above is one alarm, longer than the horizon too. That of the event of
    # molecule 1 is followed by none, the second of 2 neither.
    assert found.n_alarms == 5
    assert found.n_followed == 2
    assert measure_alarms(values, events, threshold=99.0, horizon=10).n_alarms == 0
    with pytest.raises(ValueError, match="found a horizon of 0 lags, expected 1"):
        measure_alarms(values, events, threshold=1.0, horizon=0)
