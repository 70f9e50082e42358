import dataclasses
from collections.abc import Callable

import pytest

from openmm_diffmd.analysis.bond_energies import HottestBond
from openmm_diffmd.analysis.contacts import Contact
from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.figures import Figures, Row
from openmm_diffmd.analysis.goal import NO_VELOCITIES, Goal
from openmm_diffmd.analysis.goals import judge
from openmm_diffmd.analysis.loading import load_reference
from openmm_diffmd.analysis.measure import Reference, measure, prepare_reference
from openmm_diffmd.analysis.modes import StepResidual
from openmm_diffmd.analysis.temperature import KineticEnergyTest, KineticTemperature

Maker = Callable[..., Ensemble]


def test_a_spectrum_of_another_friction_is_no_goal_missed(
    row: Row, reference: Reference
):
    found = dataclasses.replace(row.figures, spectrum_overlap=0.5)
    for same, passed in ((True, False), (False, None)):
        goals = judge(found, reference.figures, same_friction=same)
        (spectrum,) = [goal for goal in goals if "spectra" in goal.name]
        assert spectrum.passed is passed
        assert spectrum.found.endswith("; friction differs, or is not known") != same
    # What friction does not change is judged all the same.
    broken = dataclasses.replace(found, n_broken=1, spectrum_overlap=0.99)
    verdicts = judge(broken, reference.figures, same_friction=False)
    assert [goal.name for goal in verdicts if goal.passed is False] == [
        "no broken bond"
    ]


@pytest.mark.statistical
def test_a_hotter_wider_molecule_misses_its_goals(
    gaussian_ethanol: Maker, reference: Reference
):
    # stochastic; 10 % of temperature is more than 10 standard errors here.
    hot = gaussian_ethanol(5, 2000, seed=3, temperature=550.0, spread=0.008)
    found = measure("hot", hot, reference).figures
    verdicts = judge(found, reference.figures, (100, 10000))
    passed = [goal.name for goal in verdicts if goal.passed]
    # Its atoms are too stiff to turn: rates of 0 agree.
    assert [name.split()[0] for name in passed] == [
        *("no", "no", "velocities", "no", "rate", "rate")
    ]
    others = {goal.name: goal.passed for goal in verdicts if goal.name not in passed}
    # Its velocities are white noise, and so are the reference's.
    assert others.pop("velocity spectra overlap by 0.97") is None
    assert set(others.values()) == {False}


def test_short_pieces_of_a_reference_miss_no_temperature():
    # stochastic; by their own standard errors some would.
    ensemble, _ = load_reference("ethanol")

    def piece(start: int, stop: int) -> Ensemble:
        return dataclasses.replace(
            ensemble,
            positions=[ensemble.positions[0][start:stop]],
            velocities=[ensemble.velocities[0][start:stop]],  # type: ignore[index]
        )

    reference = prepare_reference(piece(10_000, 20_000), 500.0)
    missed = []
    for start in range(0, 10_000, 1000):
        found = measure("piece", piece(start, start + 1000), reference).figures
        verdicts = judge(found, reference.figures, (0, 1000))
        missed += [g.name for g in verdicts if g.name[0] == "T" and g.passed is False]
    assert missed == []


def test_h_r_error_that_sampling_explains_is_undecided(row: Row, reference: Reference):
    def verdict(error: float, expected: float | None) -> bool | None:
        figures = dataclasses.replace(
            row.figures, h_r_error=error, h_r_expected=expected
        )
        floor = dataclasses.replace(reference.figures, h_r_halves=0.02)
        goals = judge(figures, floor)
        return next(goal.passed for goal in goals if goal.name.startswith("h(r)"))

    assert verdict(0.03, 0.02) is True
    # Within the floor, but more than twice what sampling explains.
    assert verdict(0.03, 0.01) is None
    assert verdict(0.08, 0.01) is False
    assert verdict(0.08, None) is None
    assert verdict(0.08, 0.05) is None
    assert verdict(0.08, 0.03) is False


def test_few_atoms_may_be_farther_off_by_chance(row: Row, reference: Reference):
    def verdicts(error: float, n_atoms: int, length: float = 100.0) -> set[bool | None]:
        kinds = reference.figures.divergences or {}
        each = {kind: dict.fromkeys(groups, error) for kind, groups in kinds.items()}
        figures = dataclasses.replace(
            row.figures,
            n_atoms=n_atoms,
            h_r_error=error / 2,
            h_r_expected=1.0,
            divergences=each,
            divergences_expected={
                kind: dict.fromkeys(groups, 1.0) for kind, groups in each.items()
            },
        )
        floor = dataclasses.replace(
            reference.figures,
            analyzed_ps=length,
            h_r_halves=0.01,
            divergences={
                kind: dict.fromkeys(groups, 0.01) for kind, groups in each.items()
            },
        )
        return {g.passed for g in judge(figures, floor) if "the floor" in g.name}

    assert row.figures.n_atoms == 9
    assert (verdicts(3.9, 6), verdicts(4.1, 6)) == ({None}, {False})
    assert (verdicts(9.9, 5), verdicts(10.1, 5)) == ({None}, {False})
    # Halves of a short reference know nothing of so few motions.
    assert verdicts(80.0, 5, 99.0) == {None}
    assert verdicts(80.0, 6, 99.0) == {False, None}  # dihedrals are not known


def test_floor_of_a_short_reference_meets_no_goal(row: Row, reference: Reference):
    verdicts = []
    for length in (99.0, 100.0):
        short = dataclasses.replace(reference.figures, analyzed_ps=length)
        goals = [g for g in judge(row.figures, short) if "the floor" in g.name]
        assert len(goals) == 4
        verdicts.append({goal.passed for goal in goals})
    assert verdicts == [{None}, {True}]
    # Frames that are thinned end before the run.
    thinned = dataclasses.replace(reference.figures, analyzed_ps=99.99)
    goals = judge(row.figures, thinned)
    assert all(g.passed for g in goals if "the floor" in g.name)
    # What misses beside a short one is told with it.
    lacking = dataclasses.replace(row.figures, spectrum_overlap=0.5)
    goal = next(g for g in judge(lacking, short) if "spectra" in g.name)
    assert goal.passed is False
    short = dataclasses.replace(short, analyzed_ps=90.0)
    goal = next(g for g in judge(lacking, short) if "spectra" in g.name)
    assert goal.passed is None
    assert "shorter than 100 ps" in goal.found


def test_heat_is_judged_beside_a_reference_without_velocities(
    gaussian_ethanol: Maker, reference: Reference
):
    hot = gaussian_ethanol(5, 2000, seed=3, temperature=550.0)
    bare = prepare_reference(
        dataclasses.replace(reference.ensemble, velocities=None), 500.0, window=0.64
    )
    verdicts = {
        g.name: g for g in judge(measure("hot", hot, bare).figures, bare.figures)
    }
    missed = [n for n, g in verdicts.items() if g.passed is False]
    # Three elements, rotation, four kinds of bonds, kinetic energies.
    assert len(missed) == 3 + 5 + 1
    assert all("equipartition" in n or "kinetic" in n for n in missed)
    unknown = [g for g in verdicts.values() if "in the reference" in g.found]
    assert [g.name.split()[0] for g in unknown] == ["velocities", "velocity"]
    assert {g.passed for g in unknown} == {None}


def test_few_redraws_and_breaks_that_the_reference_has_are_undecided(
    row: Row, reference: Reference
):
    def redrawn(redraws: int, lags: int) -> bool | None:
        return judge(row.figures, reference.figures, (redraws, lags))[-1].passed

    assert redrawn(0, 150_000) is True
    told = judge(row.figures, reference.figures, (0, 150_000))[-1].found
    assert told == "none of 150000 lags redrawn"
    assert redrawn(1, 150_000) is True
    # Of one lag at least, of four, and of six: 1e-5 makes six with a chance of 0.4 %.
    assert redrawn(6, 150_000) is None
    assert redrawn(31, 150_000) is None
    assert redrawn(51, 150_000) is False
    assert redrawn(1, 1000) is False
    broken = dataclasses.replace(row.figures, n_broken=1)
    also = dataclasses.replace(reference.figures, n_broken=1)
    assert judge(broken, reference.figures)[0].passed is False
    assert judge(broken, also)[0].passed is None
    assert judge(row.figures, also)[0].passed is True
    ended = judge(broken, also, ended_early="no lag could be drawn")[0]
    assert ended.passed is False
    # A reference that breaks once in 100 ps excuses no run that breaks each ps.
    often = dataclasses.replace(row.figures, n_replicas=32, n_broken=32, watched_ps=1.0)
    assert judge(often, also)[0].passed is False
    seldom = dataclasses.replace(also, n_broken=3, n_replicas=3)
    once = dataclasses.replace(row.figures, n_replicas=64, n_broken=1, watched_ps=300.0)
    assert judge(once, seldom)[0].passed is None


def test_a_run_that_the_force_had_to_rescue_is_a_goal_missed(
    row: Row, reference: Reference
):
    goal = judge(row.figures, reference.figures, rescues=2)[0]
    assert goal.passed is False
    assert goal.found.endswith("2 lags were run with the reference force")


def test_a_short_run_or_reference_misses_no_goal_that_it_cannot_tell(
    row: Row, reference: Reference
):
    hot = dataclasses.replace(
        row.figures,
        analyzed_ps=100.0,
        hottest_bond=HottestBond(25.0, 20.0, "C1-H1", 0, 3.0),
        kinetic_energy=KineticEnergyTest(100, 0.0, 0.0, 1e-3),
        divergences={
            **(row.figures.divergences or {}),
            "dihedrals": {"H-C-C-H": 1.0, "C-C-O-H": 1.0},
        },
    )
    length = {"long": 100.0, "short": 50.0}

    def verdict(part: str, run: str, beside: str) -> bool | None:
        found = dataclasses.replace(hot, analyzed_ps=length[run])
        own = dataclasses.replace(reference.figures, analyzed_ps=length[beside])
        return next(g.passed for g in judge(found, own) if part in g.name)

    assert verdict("kinetic", "long", "short") is False
    assert verdict("kinetic", "short", "long") is None
    for part in ("no bond with more", "dihedrals"):
        assert verdict(part, "short", "long") is False
        assert verdict(part, "long", "short") is None


def test_a_run_that_ended_before_anything_was_measured_misses_its_goals(
    row: Row, reference: Reference
):
    bare = Figures(1, 1.0, 0.0, 0, None, 1.0)
    goals = judge(bare, reference.figures, ended_early="no lag could be drawn")
    heat = [g for g in goals if "equipartition" in g.name or "kinetic" in g.name]
    assert len(heat) == 3 + 5 + 1
    assert {(g.passed, g.found) for g in heat} == {(False, "not measured")}


def test_the_worst_group_is_named(row: Row, reference: Reference):
    bonds = dict((row.figures.divergences or {})["bonds"])
    floors = (reference.figures.divergences or {})["bonds"]
    expected = {"bonds": {name: 0.1 * value for name, value in floors.items()}}
    assert len(bonds) > 2

    def told(**changed: float) -> str:
        ours = {name: 0.01 * value for name, value in floors.items()} | changed
        figures = dataclasses.replace(
            row.figures,
            divergences={**(row.figures.divergences or {}), "bonds": ours},
            divergences_expected={
                **(row.figures.divergences_expected or {}),
                **expected,
            },
        )
        goals = judge(figures, reference.figures)
        return next(g.found for g in goals if "divergence of bonds" in g.name)

    assert "farthest" not in told()
    bad = 3.0 * floors["C-H"]
    assert told(**{"C-H": bad}).endswith(
        f"; farthest C-H, {bad:.2g} beside {floors['C-H']:.2g}"
    )


def test_torsions_that_turn_seldom_do_not_decide(row: Row, reference: Reference):
    groups = ["C-C-O-H", "H-C-C-H", "H-C-C-O", "H-C-O-H"]
    found, longer = row.figures, row.figures.analyzed_ps / reference.figures.analyzed_ps

    def verdict(ours: float, theirs: int, bad: dict[str, float]) -> Goal:
        figures = dataclasses.replace(
            found,
            divergences={**(found.divergences or {}), "dihedrals": bad},
            turns=dict.fromkeys(groups, 0) | {"C-C-O-H": round(ours * longer)},
        )
        own = dataclasses.replace(
            reference.figures, turns=dict.fromkeys(groups, 0) | {"C-C-O-H": theirs}
        )
        return next(g for g in judge(figures, own) if "dihedrals" in g.name)

    good = dict((found.divergences or {})["dihedrals"])
    bad = {**good, "C-C-O-H": 1.0}
    # Rigid in both, often in one of both, and both seldom.
    assert [verdict(*n, bad).passed for n in ((0, 0), (0, 20), (50, 3))] == [False] * 3
    seldom = verdict(10, 3, bad)
    assert seldom.passed is True
    assert "C-C-O-H turned 8 times, 3 in the reference" in seldom.found
    # Counts of which chance allows for no difference.
    wrong = verdict(19, 0, bad)
    assert wrong.passed is False
    assert wrong.found.endswith("0 in the reference, more than chance")
    # The others decide still, and where there are none, nothing does.
    assert verdict(10, 3, {**good, "H-C-C-H": 1.0}).passed is False
    slow = dict.fromkeys(groups, 3)
    figures = dataclasses.replace(found, turns=slow)
    own = dataclasses.replace(reference.figures, turns=slow)
    goal = next(g for g in judge(figures, own) if "dihedrals" in g.name)
    assert goal.passed is None
    assert goal.found.startswith("too slow to tell")


def test_temperature_that_its_error_does_not_decide_is_undecided(
    row: Row, reference: Reference
):
    def verdict(value: float, error: float, length_ps: float = 100.0) -> bool | None:
        t = KineticTemperature(value, error, 500.0)
        own = dataclasses.replace(
            reference.figures, temperatures={"C": KineticTemperature(500.0, 0.0, 500.0)}
        )
        found = dataclasses.replace(
            row.figures, temperatures={"C": t}, analyzed_ps=length_ps
        )
        goals = judge(found, own)
        return next(goal.passed for goal in goals if goal.name.startswith("T(C)"))

    assert verdict(504.0, 1.0) is True
    assert verdict(508.0, 1.0) is False
    assert verdict(492.0, 1.0) is False
    assert verdict(508.0, 1.1) is None
    assert verdict(501.0, 6.0) is None
    assert verdict(501.0, float("nan")) is None
    assert verdict(504.0, 1.0, 99.0) is True
    assert verdict(520.0, 1.0, 99.0) is None


def test_spectra_divergences_and_kinetic_energies_have_goals(
    row: Row, reference: Reference
):
    def verdict(name: str, **figures: object) -> bool | None:
        figures = {"analyzed_ps": 100.0, **figures}
        found = dataclasses.replace(row.figures, **figures)  # type: ignore[arg-type]
        goals = judge(found, reference.figures)
        return next(goal.passed for goal in goals if name in goal.name)

    for flat, passed in ((0.74, True), (0.92, None), (None, True)):
        met = {"spectrum_overlap": 0.971, "flat_spectrum_overlap": flat}
        assert verdict("spectra", **met) is passed
    assert verdict("spectra", spectrum_overlap=0.87, spectrum_expected=0.94) is False
    assert verdict("spectra", spectrum_overlap=0.89, spectrum_expected=0.94) is None
    assert verdict("spectra", spectrum_overlap=0.9, spectrum_expected=None) is None
    kinds = ("bonds", "angles", "dihedrals")
    floor = reference.figures.mean_divergence("angles")
    assert floor is not None
    for factor, expected, passed in (
        (1.9, 0.5, True),
        (1.9, 0.4, None),
        (2.1, 0.0, False),
        (2.1, 0.5, False),
        (2.1, 0.6, None),
    ):
        assert passed is verdict(
            "angles",
            divergences={k: {"C-C-O": factor * floor} for k in kinds},
            divergences_expected={k: {"C-C-O": expected * floor} for k in kinds},
        )
    for p_value, mean, width, passed in (
        (0.02, 2.9, -2.9, True),
        (0.005, 0.0, 0.0, False),
        (0.02, -3.1, 0.0, False),
        (0.02, 0.0, 3.1, False),
    ):
        test = KineticEnergyTest(100, mean, width, p_value)
        assert verdict("kinetic", kinetic_energy=test) is passed
    for value, error, passed in (
        (509.0, 3.0, True),
        (509.0, 11.0, None),
        (519.0, 3.1, None),
        (519.0, 2.9, False),
    ):
        modes = dict.fromkeys(reference.figures.modes or {}, row.figures.modes["C-H"])
        modes["C-H"] = KineticTemperature(value, error, 500.0)
        assert verdict("T(C-H stretch)", modes=modes) is passed
    target = reference.figures.step_residual
    assert target is not None
    for ratio, passed in ((1.1, True), (1.2, False)):
        residual = StepResidual(ratio * target.value, 0.01 * target.value)
        assert verdict("velocities leave", step_residual=residual) is passed
    # Bonds of a short one are too cold or too hot by chance, and leave other steps.
    short = dataclasses.replace(reference.figures, analyzed_ps=99.0)
    for ratio, passed in ((1.1, True), (1.6, None), (2.1, False)):
        residual = StepResidual(ratio * target.value, 0.01 * target.value)
        other = dataclasses.replace(row.figures, step_residual=residual)
        (goal,) = (g for g in judge(other, short) if "velocities leave" in g.name)
        assert goal.passed is passed


def test_a_run_too_short_for_spectra_and_kinetic_energies_leaves_them_undecided(
    gaussian_ethanol: Maker, reference: Reference
):
    short = measure("short", gaussian_ethanol(1, 10, seed=7), reference).figures
    assert short.h_r_error is not None
    verdicts = {g.name: g.passed for g in judge(short, reference.figures)}
    for part in ("spectra", "kinetic"):
        assert next(v for name, v in verdicts.items() if part in name) is None


def test_goals_that_need_velocities_are_undecided_where_there_are_none(
    row: Row, reference: Reference
):
    bare = dataclasses.replace(
        row.figures,
        temperatures=None,
        modes=None,
        step_residual=None,
        hottest_bond=None,
        kinetic_energy=None,
        spectrum_overlap=None,
    )
    goals = [
        goal
        for goal in judge(bare, reference.figures)
        if any(
            word in goal.name
            for word in (
                *("equipartition", "kinetic", "spectra", "velocities leave"),
                "no bond with",
            )
        )
    ]
    # Three elements, rotation and four kinds of bonds.
    assert len(goals) == 3 + 5 + 4
    assert {(g.passed, g.found) for g in goals} == {(None, NO_VELOCITIES)}


def test_a_new_bond_is_a_goal_missed(row: Row, reference: Reference):
    """A ring that closes breaks no bond."""
    for distance, passed in ((0.139, False), (0.2, True)):
        contact = Contact(distance, 0.175, "C1-C3", 2, 3.0)
        found = dataclasses.replace(row.figures, closest_contact=contact)
        (goal,) = (
            goal
            for goal in judge(found, reference.figures)
            if goal.name == "no new bond: no other atoms as close as bonded ones"
        )
        assert goal.passed is passed
        assert goal.found == (
            f"at the closest C1-C3, {distance:.3f} nm, in replica 2 at 3.0 ps "
            "(limit 0.175)"
        )
