"""Events counted on molecules that turn as they are told."""

import dataclasses
import math

import mdtraj
import numpy as np
import pytest

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.figures import Row
from openmm_diffmd.analysis.goals import judge
from openmm_diffmd.analysis.groups import Proton, find_protons, find_rotors
from openmm_diffmd.analysis.measure import measure, prepare_reference
from openmm_diffmd.analysis.rare_events import (
    EventRate,
    core_states,
    entries,
    equilibrium_rate,
    event_rates,
    proton_states,
)
from openmm_diffmd.analysis.rate_goals import rate_goal
from openmm_diffmd.analysis.report import event_table, to_plain
from openmm_diffmd.units import BOLTZMANN

Array = np.ndarray
INTERVAL = 0.01
TETRAHEDRAL = np.deg2rad(109.5)


def make_topology(symbols: str, bonds: list[tuple[int, int]]) -> mdtraj.Topology:
    topology = mdtraj.Topology()
    residue = topology.add_residue("MOL", topology.add_chain())
    for index, symbol in enumerate(symbols):
        element = mdtraj.element.get_by_symbol(symbol)
        topology.add_atom(f"{symbol}{index}", element, residue)
    for i, j in bonds:
        topology.add_bond(topology.atom(i), topology.atom(j))
    return topology


def place(a: Array, b: Array, c: Array, length: float, torsion: Array) -> Array:
    """Atom d of a chain a-b-c-d with a tetrahedral angle, for each torsion."""
    axis = (c - b) / np.linalg.norm(c - b, axis=-1, keepdims=True)
    normal = np.cross(b - a, axis)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    third = np.cross(normal, axis)
    t = np.asarray(torsion)[:, None]
    # IUPAC's sign: clockwise when looking from b to c.
    return c + length * (
        -np.cos(TETRAHEDRAL) * axis
        + np.sin(TETRAHEDRAL) * (np.cos(t) * third + np.sin(t) * normal)
    )


def turning_ethanol(
    topology: mdtraj.Topology, methyl: list[Array], hydroxyl: list[Array]
) -> Ensemble:
    """Ethanol whose two groups stand at the given torsions in each frame."""
    replicas = []
    for turn, torsion in zip(methyl, hydroxyl, strict=True):
        x = np.zeros((len(turn), 9, 3))
        x[:, 0] = [0.15, 0.0, 0.0]
        x[:, 2] = 0.14 * np.array([np.cos(TETRAHEDRAL), np.sin(TETRAHEDRAL), 0.0])
        # Carbon 1 at the origin, with its own two hydrogens.
        for atom, at in ((6, 2.1), (7, -2.1)):
            x[:, atom] = place(x[:, 2], x[:, 0], x[:, 1], 0.11, np.full(len(turn), at))
        for atom, at in ((3, 0.0), (4, 120.0), (5, 240.0)):
            x[:, atom] = place(x[:, 2], x[:, 1], x[:, 0], 0.11, turn + np.deg2rad(at))
        x[:, 8] = place(x[:, 0], x[:, 1], x[:, 2], 0.096, torsion)
        replicas.append(x)
    return Ensemble(topology, INTERVAL, replicas)


def jumps(generator: np.random.Generator, n_frames: int, rate: float) -> Array:
    """Basin of each frame; a jump to the next or the last with a given chance."""
    jumped = generator.random(n_frames) < rate
    jumped[0] = False
    step = generator.choice([-1, 1], n_frames)
    return np.cumsum(np.where(jumped, step, 0))


def test_groups_are_found_by_elements_and_bonds(ethanol: mdtraj.Topology):
    methyl, hydroxyl = find_rotors(ethanol)
    assert (methyl.kind, hydroxyl.kind) == ("methyl", "hydroxyl")
    assert methyl.torsions.tolist() == [[3, 0, 1, 2], [4, 0, 1, 2], [5, 0, 1, 2]]
    assert hydroxyl.torsions.tolist() == [[8, 2, 1, 0]]
    assert methyl.n_basins == hydroxyl.n_basins == 3
    assert methyl.first_basin == hydroxyl.first_basin == np.pi / 3
    assert find_protons(ethanol) == []


def test_order_of_the_atoms_does_not_matter():
    # Ethanol, the hydroxyl first.
    order = "HOCHHCHHH"
    bonds = [(0, 1), (1, 2), (2, 3), (2, 4), (2, 5), (5, 6), (5, 7), (5, 8)]
    hydroxyl, methyl = find_rotors(make_topology(order, bonds))
    assert hydroxyl.torsions.tolist() == [[0, 1, 2, 5]]
    assert methyl.torsions.tolist() == [[h, 5, 2, 1] for h in (6, 7, 8)]


def test_malonaldehyde_has_a_proton_as_enol_only():
    # O=CH-CH2-CH=O, as in MD17: two formyl groups and no proton to move.
    keto = [(0, 1), (0, 4), (0, 5), (1, 2), (1, 6), (1, 7), (2, 3), (2, 8)]
    topology = make_topology("CCCOOHHHH", keto)
    assert [r.kind for r in find_rotors(topology)] == ["formyl", "formyl"]
    assert find_rotors(topology)[0].torsions.tolist() == [[4, 0, 1, 2]]
    assert find_protons(topology) == []
    # HO-CH=CH-CH=O.
    enol = [(0, 1), (0, 4), (0, 5), (1, 2), (1, 6), (4, 7), (2, 3), (2, 8)]
    topology = make_topology("CCCOOHHHH", enol)
    assert find_protons(topology) == [Proton(donor=4, hydrogen=7, acceptor=3)]
    hydroxyl = next(r for r in find_rotors(topology) if r.kind == "hydroxyl")
    assert (hydroxyl.n_basins, hydroxyl.first_basin) == (2, 0.0)


def test_methyl_on_a_carbonyl_eclipses_its_oxygen():
    # Acetone.
    bonds = [(0, 1), (0, 2), (0, 3), *[(1, h) for h in (4, 5, 6)]]
    bonds += [(2, h) for h in (7, 8, 9)]
    rotors = find_rotors(make_topology("CCCOHHHHHH", bonds))
    assert [r.torsions[0].tolist() for r in rotors] == [[4, 1, 0, 3], [7, 2, 0, 3]]
    assert all(r.first_basin == 0.0 and r.n_basins == 3 for r in rotors)


def test_methyl_on_a_straight_line_does_not_turn():
    # Acetonitrile.
    bonds = [(0, 1), (1, 2), *[(0, h) for h in (3, 4, 5)]]
    assert find_rotors(make_topology("CCNHHH", bonds)) == []


def test_methyl_is_staggered_on_a_pyramidal_atom_and_eclipses_a_planar_one():
    # Dimethyl sulfoxide, trimethylamine, N-methylacetamide's C(=O)-N(H)-CH3.
    methyls = [(1, h) for h in (4, 5, 6)] + [(2, h) for h in (7, 8, 9)]
    sulfoxide = make_topology("SCCOHHHHHH", [(0, 1), (0, 2), (0, 3), *methyls])
    assert [r.torsions[0].tolist() for r in find_rotors(sulfoxide)] == [
        [4, 1, 0, 3],
        [7, 2, 0, 3],
    ]
    bonds = [(0, 1), (0, 2), (0, 3), *methyls, *[(3, h) for h in (10, 11, 12)]]
    amine = make_topology("NCCC" + 9 * "H", bonds)
    for topology in (sulfoxide, amine):
        assert {r.first_basin for r in find_rotors(topology)} == {np.pi / 3}
    bonds = [(0, 1), (1, 2), (1, 3), (3, 4), (3, 5)]
    bonds += [(0, h) for h in (6, 7, 8)] + [(4, h) for h in (9, 10, 11)]
    amide = make_topology("CCONCHHHHHHH", bonds)
    assert [r.first_basin for r in find_rotors(amide)] == [0.0, 0.0]


def test_a_group_is_measured_where_it_was_put(ethanol: mdtraj.Topology):
    turn = np.linspace(-7.0, 7.0, 50)
    torsion = np.linspace(3.0, -5.0, 50)
    ensemble = turning_ethanol(ethanol, [turn], [torsion])
    for rotor, expected in zip(find_rotors(ethanol), (turn, torsion), strict=True):
        found = rotor.angle(ensemble.frames())
        # The mark of the methyl group's zero is its first hydrogen.
        assert np.exp(1j * found) == pytest.approx(np.exp(1j * expected), abs=1e-5)


def test_cores_and_what_lies_between_them():
    degrees = np.array([60, 31, 89, 91, 149, 151, 180, -180, -60, 0, 29, 420])
    states = core_states(np.deg2rad(degrees), 3, np.pi / 3)
    assert states.tolist() == [0, 0, 0, -1, -1, 1, 1, 1, 2, -1, -1, 0]


def test_recrossing_of_a_barrier_is_one_event():
    states = np.array([-1, 0, -1, 0, -1, -1, 1, -1, 1, -1, 2, 2, 0, -1])
    frames, entered = entries(states)
    assert frames.tolist() == [6, 10, 12]
    assert entered.tolist() == [1, 2, 0]
    assert entries(np.full(5, -1))[0].tolist() == []


@pytest.mark.statistical
def test_known_rates_are_found(ethanol: mdtraj.Topology):
    # stochastic; a jump in 2 % and 0.5 % of frames of 10 fs: 2000 and 500 per ns.
    generator = np.random.default_rng(5)
    turns, torsions, counts = [], [], np.zeros(2, int)
    for _ in range(8):
        angles = []
        for index, rate in enumerate((0.02, 0.005)):
            basins = jumps(generator, 5000, rate)
            counts[index] += np.count_nonzero(np.diff(basins))
            # Wide enough to leave the cores often, to enter another one never.
            jitter = np.clip(generator.normal(0.0, 30.0, 5000), -85.0, 85.0)
            angles.append(np.deg2rad(60.0 + 120.0 * basins + jitter))
        turns.append(angles[0])
        torsions.append(angles[1])
    found = event_rates(turning_ethanol(ethanol, turns, torsions))
    assert list(found) == ["methyl", "hydroxyl"]
    for rate, expected, count in zip(
        found.values(), (2000.0, 500.0), counts, strict=True
    ):
        assert rate.rate == pytest.approx(expected, abs=4 * rate.error)
        # 0.4 ns of independent jumps: the error is that of their number.
        assert rate.error == pytest.approx(np.sqrt(expected / 0.4), rel=0.3)
        # A basin visited between its frames of jitter may be missed, none invented.
        assert 0.9 * count < rate.n_events <= count


@pytest.mark.statistical
def test_error_of_events_in_series_is_that_of_the_series(ethanol: mdtraj.Topology):
    # stochastic; turns by 5 basins at once, a frame each, in 0.2 % of frames: the
    # variance of their number is 5 times that of independent ones.
    generator = np.random.default_rng(6)
    turns = []
    for _ in range(16):
        begin = generator.random(5000) < 0.002
        steps = np.convolve(begin, np.ones(5), "full")[:5000]
        turns.append(np.deg2rad(60.0 + 120.0 * np.cumsum(np.minimum(steps, 1.0))))
    found = event_rates(turning_ethanol(ethanol, turns, turns))["methyl"]
    poisson = np.sqrt(found.n_events) / 0.8
    assert found.error == pytest.approx(np.sqrt(5) * poisson, rel=0.3)
    assert found.rate == pytest.approx(5 * 200, abs=4 * found.error)


def test_errors_are_those_of_blocks_of_ten_picoseconds(ethanol: mdtraj.Topology):
    # 20 ps; the methyl turns eight times in the second block, the hydroxyl never.
    turned = np.zeros(2000)
    turned[1100:] = 1.0 + np.minimum(np.arange(900) // 50, 7)
    found = event_rates(
        turning_ethanol(
            ethanol,
            [np.deg2rad(60.0 + 120.0 * turned)],
            [np.full(2000, np.pi / 3)],
        )
    )
    methyl, hydroxyl = found["methyl"], found["hydroxyl"]
    assert methyl.n_events == 8
    assert methyl.rate == pytest.approx(8 / 0.02)
    # Counts of 0 and 8: their sum has the variance 2 (4^2 + 4^2).
    assert methyl.error == pytest.approx(8 / 0.02)
    # No event at all is known as well as one would be.
    assert (hydroxyl.rate, hydroxyl.error) == (0.0, pytest.approx(1 / 0.02))


def test_deviation_is_in_standard_errors_of_the_difference():
    ours, theirs = EventRate(1, 9, 5.0, 0.3), EventRate(1, 4, 2.0, 0.4)
    assert ours.deviation(theirs) == pytest.approx(6.0)
    assert theirs.deviation(ours) == pytest.approx(-6.0)


def test_rate_is_of_one_group_where_there_are_two():
    # Glycol, the hydrogens of its carbons anywhere: one hydroxyl turns, one rests.
    bonds = [(0, 1), (1, 2), (2, 3), (0, 4), (3, 5), (1, 6), (1, 7), (2, 8), (2, 9)]
    topology = make_topology("OCCOHHHHHH", bonds)
    n_frames = 2000
    x = np.zeros((n_frames, 10, 3))
    x[:, 2] = [0.15, 0.0, 0.0]
    x[:, 0] = 0.14 * np.array([np.cos(TETRAHEDRAL), np.sin(TETRAHEDRAL), 0.0])
    x[:, 3] = x[:, 2] - x[:, 0]
    turned = np.deg2rad(60.0 + 120.0 * (np.arange(n_frames) // 100))
    rests = np.full(n_frames, np.pi / 3)
    x[:, 4] = place(x[:, 2], x[:, 1], x[:, 0], 0.096, turned)
    x[:, 5] = place(x[:, 1], x[:, 2], x[:, 3], 0.096, rests)
    found = event_rates(Ensemble(topology, INTERVAL, [x]))["hydroxyl"]
    assert (found.n_groups, found.n_events) == (2, 19)
    # 20 ps, two groups; two blocks, whose counts differ by one.
    assert found.rate == pytest.approx(19 / 2 / 0.02)
    assert found.error == pytest.approx(np.sqrt(19) / 2 / 0.02)


def test_proton_is_out_until_it_is_back():
    q = np.array([-0.09, -0.05, -0.03, 0.01, -0.05, -0.03, -0.08, -0.06, -0.03])
    assert proton_states(q).tolist() == [0, -1, 1, 1, -1, 1, 0, -1, 1]
    frames, entered = entries(proton_states(q))
    assert frames[entered == 1].tolist() == [2, 8]


def test_excursions_of_a_proton_are_counted_with_their_share_of_time():
    enol = [(0, 1), (0, 4), (0, 5), (1, 2), (1, 6), (4, 7), (2, 3), (2, 8)]
    topology = make_topology("CCCOOHHHH", enol)
    x = np.zeros((2000, 9, 3))
    x[:] = np.random.default_rng(1).normal(size=(9, 3))
    x[:, 4], x[:, 3] = [0.0, 0.0, 0.0], [0.25, 0.0, 0.0]
    # Between two oxygens 0.25 nm apart: at home at 0.1, out at 0.115 nm.
    away = (np.arange(2000) % 100) < 5
    x[:, 7] = np.where(away, 0.115, 0.08)[:, None] * np.array([1.0, 0.0, 0.0])
    found = event_rates(Ensemble(topology, INTERVAL, [x]))["proton"]
    # Each of 19 full periods of 1 ps after the first, which begins outside.
    assert found.n_events == 19
    assert found.rate == pytest.approx(19 / 0.02)
    assert found.share == pytest.approx(0.05)
    assert found.share_error == pytest.approx(0.0)
    # Out in the first of two blocks alone: shares of 0.1 and 0.
    x[1000:, 7] = [0.08, 0.0, 0.0]
    away = (np.arange(1000) % 10) < 1
    x[:1000, 7] = np.where(away, 0.115, 0.08)[:, None] * np.array([1.0, 0.0, 0.0])
    found = event_rates(Ensemble(topology, INTERVAL, [x]))["proton"]
    assert (found.share, found.share_error) == pytest.approx((0.05, 0.05))


def test_few_events_are_judged_by_the_binomial_distribution():
    def rate(events: int, length: float, at_once: int = 1) -> EventRate:
        error = math.sqrt(max(1, events * at_once)) / length
        return EventRate(1, events, events / length, error)

    def verdict(ours: EventRate, theirs: EventRate) -> bool | None:
        return rate_goal("turn", ours, theirs, errors_are_known=True).passed

    # (200 / 1700)^8 = 4e-8, though the difference is 2.8 standard errors.
    assert verdict(rate(0, 1.5), rate(8, 0.2)) is False
    assert verdict(rate(0, 1.5), rate(2, 0.2)) is None
    # As eight turns of four series: (200 / 1700)^2.
    assert verdict(rate(0, 1.5), rate(8, 0.2, at_once=4)) is None
    assert verdict(rate(60, 1.5), rate(8, 0.2)) is None
    # The reference has nothing to say of ours, but that none are as rare.
    assert verdict(rate(15, 1.5), rate(0, 0.2)) is None
    assert verdict(rate(90, 1.5), rate(0, 0.2)) is False
    assert verdict(rate(0, 1.5), rate(0, 0.2)) is True
    # But in a picosecond none were to be seen.
    none = rate(0, 0.001)
    assert rate_goal("turn", none, none, errors_are_known=False).passed is None
    # One turn, of blocks so uneven that it counts as a third of one.
    assert verdict(EventRate(1, 1, 61.0, 110.0), rate(0, 0.2)) is None


def test_rates_reach_the_figures_the_table_and_the_goals(ethanol: mdtraj.Topology):
    generator = np.random.default_rng(7)

    def run(rate: float) -> Ensemble:
        torsions = [
            np.deg2rad(60.0 + 120.0 * jumps(generator, 4000, rate)) for _ in range(8)
        ]
        return turning_ethanol(ethanol, torsions, torsions)

    reference = prepare_reference(run(0.01), 500.0)
    same = measure("same", run(0.01), reference)
    slow = measure("slow", run(0.003), reference)
    names = [f"rate of {kind} events" for kind in ("methyl", "hydroxyl")]

    def verdicts(row: Row) -> list[bool | None]:
        goals = judge(row.figures, reference.figures)
        return [g.passed for g in goals for name in names if g.name.startswith(name)]

    assert verdicts(same) == [True, True]
    assert verdicts(slow) == [False, False]
    # A short run agrees with anything; that is no success.
    short = measure("short", run(0.01).window([0] * 8, [50] + [0] * 7), reference)
    assert verdicts(short) == [None, None]
    # Nor is it a miss where a few blocks only tell its error.
    quick = measure("quick", run(0.05).window([0] * 8, [400] * 8), reference)
    assert quick.figures.analyzed_ps < 100.0
    assert verdicts(quick) == [None, None]
    lines = event_table(reference, [same, slow]).splitlines()
    assert lines[0].split()[-2:] == ["methyl", "hydroxyl"]
    assert [line.split()[0] for line in lines[2:]] == ["same", "slow", "reference"]
    assert f"{same.figures.events['methyl'].rate:.0f} +-" in lines[2]
    assert to_plain(same.figures)["events"]["methyl"]["n_groups"] == 1


def test_molecule_without_groups_has_no_table(hydrogen_peroxide: mdtraj.Topology):
    x = np.random.default_rng(1).normal(size=(50, 4, 3))
    ensemble = Ensemble(hydrogen_peroxide, INTERVAL, [x])
    reference = prepare_reference(ensemble, 300.0)
    assert reference.figures.events == {}
    assert event_table(reference, []) == ""
    # A row that broke at once has no rates.
    bare = dataclasses.replace(reference.figures, events=None)
    assert judge(bare, reference.figures)


def test_speed_of_a_turn_is_that_of_its_angle(gaussian_ethanol):
    ensemble = gaussian_ethanol(1, 50, seed=8)
    masses, (x,), (v,) = ensemble.masses, ensemble.positions, ensemble.velocities
    step = 1e-5
    for rotor in find_rotors(ensemble.topology):
        ends = [
            dataclasses.replace(ensemble, positions=[x.astype(float) + sign * step * v])
            for sign in (-1, 1)
        ]
        angles = [_torsions(rotor, end.positions[0]) for end in ends]
        turned = np.angle(np.exp(1j * (angles[1] - angles[0])))
        speed = turned.mean(axis=1) / (2 * step)
        # What a unit of angular speed costs: least kinetic energy that gives it.
        inverse = np.zeros(len(x))
        for atom in range(9):
            for axis in range(3):
                push = np.zeros_like(x, dtype=float)
                push[:, atom, axis] = step
                moved = [_torsions(rotor, x.astype(float) + s * push) for s in (-1, 1)]
                slope = np.angle(np.exp(1j * (moved[1] - moved[0]))).mean(axis=1)
                inverse += (slope / (2 * step)) ** 2 / masses[atom]
        expected = speed**2 / (BOLTZMANN * inverse)
        found = rotor.temperature(x, v, masses)
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-3)


def _torsions(rotor, x):
    """Angles of the group's torsions, in double precision."""
    a, b, c, d = x[:, rotor.torsions].transpose(2, 0, 1, 3)
    axis = c - b
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    first, last = np.cross(a - b, axis), np.cross(d - c, axis)
    sine = (np.cross(first, last) * axis).sum(-1)
    return np.arctan2(sine, (first * last).sum(-1))


@pytest.mark.statistical
def test_turns_of_maxwell_boltzmann_velocities_have_their_temperature(gaussian_ethanol):
    # stochastic; two temperatures, each beyond 4 standard errors once in 16 000.
    ensemble = gaussian_ethanol(1, 5000, seed=9)
    for rotor in find_rotors(ensemble.topology):
        found = rotor.temperature(
            ensemble.positions[0], ensemble.velocities[0], ensemble.masses
        )
        error = found.std() / np.sqrt(len(found))
        assert error < 12.0
        assert abs(found.mean() - 500.0) < 4.0 * error


@pytest.mark.statistical
def test_rates_are_told_for_turns_as_hot_as_the_bath():
    # stochastic; 40 blocks of 10 ps, hotter and colder by 20 %: rates by 40 %.
    generator = np.random.default_rng(10)
    n_frames, interval, bath = 10_000, 0.01, 500.0
    deviations, raw = [], []
    for _ in range(30):
        events, heats = [], []
        for _ in range(4):
            heat = np.repeat(bath * (1.05 + 0.2 * generator.standard_normal(10)), 1000)
            chance = 0.03 * (1 + 2 * (heat / bath - 1))
            events.append((generator.random(n_frames) < chance).astype(float))
            heats.append(heat)
        found = equilibrium_rate([events], [heats], interval, bath)
        assert found.temperature == pytest.approx(np.mean(heats))
        deviations.append((found.rate - 3000.0) / found.error)
        raw.append(1000 * np.mean(events) / interval - 3000.0)
    # Rates by themselves are 10 % too high, and scatter by 6 %.
    assert np.mean(raw) > 200.0
    assert abs(np.mean(deviations)) < 4.0 / np.sqrt(30)
    assert 0.7 < np.std(deviations) < 1.4


def test_rates_in_equilibrium_need_velocities_and_ten_blocks(ethanol, gaussian_ethanol):
    generator = np.random.default_rng(11)
    turn = np.deg2rad(60.0) + np.deg2rad(120.0) * jumps(generator, 12_000, 0.01)
    still = turning_ethanol(ethanol, [turn], [turn])
    assert event_rates(still, 500.0)["methyl"].in_equilibrium is None
    velocities = [generator.standard_normal(still.positions[0].shape)]
    moving = dataclasses.replace(still, velocities=velocities)
    assert event_rates(moving)["methyl"].in_equilibrium is None
    found = event_rates(moving, 500.0)["methyl"]
    assert found.in_equilibrium.temperature > 0
    # Velocities that know nothing of the turns leave the rate as it is.
    assert found.in_equilibrium.rate == pytest.approx(found.rate, abs=3 * found.error)
    short = dataclasses.replace(
        moving,
        positions=[moving.positions[0][:9000]],
        velocities=[velocities[0][:9000]],
    )
    assert event_rates(short, 500.0)["methyl"].in_equilibrium is None
    # One frame, repeated.
    repeated = dataclasses.replace(
        moving,
        positions=[np.repeat(moving.positions[0][:1], 12_000, axis=0)],
        velocities=[np.repeat(velocities[0][:1], 12_000, axis=0)],
    )
    assert event_rates(repeated, 500.0)["methyl"].in_equilibrium is None
