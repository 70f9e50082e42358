"""Spoilt draws are redrawn, counted, and given up with a message that names them."""

import numpy as np
import openmm
import pytest
from openmm import app
from scipy import stats

from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.integrator import DiffusionIntegrator, create_system, replicate
from openmm_diffmd.integrator.molecules import KINETIC_ENERGY_TAIL
from openmm_diffmd.testing import FaultyModel, read_frame, save_stub_model
from openmm_diffmd.units import BOLTZMANN

REASONS = {
    "nan": r"atom 0 has position \(-?nan, ",
    "bond": r"the bond between atoms 0 and 1 is \S+ nm long, expected 0 to 5 nm",
    "heat": r"the kinetic energy of atoms 0 to 8 is \S+ kJ/mol, expected at most \S+",
}


def test_spoilt_draws_are_redrawn_and_counted(simulate, faulty, platform):
    simulation = simulate(faulty, platform=platform)
    simulation.step(12)
    integrator = simulation.integrator
    assert integrator.getNumResamples() == 12
    assert integrator.getNumResamples(0) == 12
    assert "lag 11, molecule 0" in integrator.getLastRefusal()
    positions, velocities = read_frame(simulation.context)
    assert np.isfinite(positions).all()
    assert np.abs(velocities).max() < 100


def test_giving_up_names_lag_molecule_atoms_and_values(simulate, broken):
    simulation = simulate(broken)
    before = read_frame(simulation.context)
    reason = REASONS[broken.metadata.name]
    match = rf"lag 0, molecule 0: {reason}.*after 4 draws; check the start: pos"
    with pytest.raises(openmm.OpenMMException, match=match):
        simulation.step(1)
    after = read_frame(simulation.context)
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[1], before[1])
    assert simulation.integrator.getNumResamples() == 3


def test_a_start_that_no_draw_can_mend_is_named(simulate, tmp_path):
    stub = FaultyModel("nan", below_level=2.0)
    simulation = simulate(load_model(save_stub_model(tmp_path / "model.pt", stub)))
    positions = read_frame(simulation.context)[0]
    positions[1] += 100.0
    simulation.context.setPositions(positions)
    match = r"lag 0, .*the bond between atoms 0 and 1 is 17\d.*expected 0 to 5 nm"
    with pytest.raises(openmm.OpenMMException, match=match):
        simulation.step(1)
    assert simulation.integrator.getLastRefusalDetails().atoms == (0, 1)


def test_positions_set_within_a_run_are_said_to_be_a_start(simulate, flow):
    simulation = simulate(flow)
    simulation.step(3)
    simulation.context.setPositions(read_frame(simulation.context)[0] * 1000.0)
    with pytest.raises(openmm.OpenMMException, match=r"lag 3, .*; check the start"):
        simulation.step(1)


def test_the_last_refusal_can_be_read_as_numbers(simulate, broken):
    simulation = simulate(broken)
    integrator = simulation.integrator
    assert integrator.getLastRefusalDetails() is None
    with pytest.raises(openmm.OpenMMException) as raised:
        simulation.step(1)
    refusal = integrator.getLastRefusalDetails()
    assert refusal.message == integrator.getLastRefusal()
    assert refusal.message in str(raised.value)
    assert (refusal.lag, refusal.molecule) == (0, 0)
    low, high = refusal.expected
    if broken.metadata.name == "nan":
        assert (refusal.quantity, refusal.atoms) == ("finite", (0,))
        assert np.isnan(refusal.values).any()
        assert len(refusal.values) == 6
    elif broken.metadata.name == "bond":
        assert (refusal.quantity, refusal.atoms) == ("bond_length", (0, 1))
        assert (low, high) == (0.0, 5.0)
        assert refusal.values[0] > high
    else:
        assert (refusal.quantity, refusal.atoms) == ("kinetic_energy", tuple(range(9)))
        assert low == 0.0
        assert refusal.values[0] > high


@pytest.mark.parametrize(("limit", "num_redraws"), [(5.0, 2), (1e-9, 0)])
def test_atoms_without_a_bond_keep_their_distance(
    simulate, tmp_path, platform, limit, num_redraws
):
    # Atoms of the stub are some 0.1 nm from each other.
    path = save_stub_model(
        tmp_path / "model.pt", contact_limits_nm={"H-O": limit}, max_resamples=2
    )
    model = load_model(path)
    simulation = simulate(model, platform=platform)
    if not num_redraws:
        simulation.step(1)
        assert simulation.integrator.getNumResamples() == 0
        return
    before = read_frame(simulation.context)[0]
    match = r"atoms 2 and 3, which have no bond, are \S+ nm apart, expected at least 5 "
    with pytest.raises(openmm.OpenMMException, match=match):
        simulation.step(1)
    np.testing.assert_array_equal(read_frame(simulation.context)[0], before)
    refusal = simulation.integrator.getLastRefusalDetails()
    assert (refusal.quantity, refusal.atoms) == ("contact_distance", (2, 3))
    assert refusal.expected == (5.0, np.inf)
    assert 0.0 < refusal.values[0] < 5.0
    assert simulation.integrator.getNumResamples() == num_redraws


def test_only_the_failing_molecule_is_redrawn(tmp_path):
    # Spoils molecules with an atom beyond 1 nm: only the second replica has one.
    stub = FaultyModel("nan", min_displacement=1.0, friction=20.0)
    model = load_model(save_stub_model(tmp_path / "model.pt", stub))
    topology, positions = model.example()
    replicas = replicate(topology, create_system(topology), positions, 3)

    def run(stretch):
        integrator = DiffusionIntegrator(
            model, replicas.topology, molecules=replicas.molecules
        )
        integrator.setRandomNumberSeed(4)
        context = openmm.Context(
            replicas.system, integrator, openmm.Platform.getPlatform("Reference")
        )
        start = np.array(replicas.positions._value)
        start[9 + 4] += stretch
        context.setPositions(start)
        context.setVelocitiesToTemperature(0)
        integrator.step(1)
        counts = [integrator.getNumResamples(i) for i in range(3)]
        return counts, read_frame(context)[0]

    counts, stretched = run(stretch=0.75)
    assert counts == [0, 1, 0]
    counts, unstretched = run(stretch=0.0)
    assert counts == [0, 0, 0]
    others = replicas.molecules != 1
    np.testing.assert_array_equal(stretched[others], unstretched[others])


def test_frames_before_giving_up_are_on_disk(simulate, tmp_path):
    # Fails only when the molecule is stretched, which setPositions does later.
    stub = FaultyModel("bond", below_level=2.0, min_displacement=1.0)
    model = load_model(save_stub_model(tmp_path / "model.pt", stub))
    simulation = simulate(model)
    path = tmp_path / "run.dcd"
    simulation.reporters.append(app.DCDReporter(str(path), 1))
    simulation.step(5)
    positions, _ = read_frame(simulation.context)
    positions[4] += 1.2
    simulation.context.setPositions(positions)
    with pytest.raises(openmm.OpenMMException, match="lag 5, molecule 0"):
        simulation.step(5)
    size_of_frame = 3 * (9 * 4 + 8)
    assert path.stat().st_size >= 5 * size_of_frame


def test_max_resamples_is_an_option(simulate, broken):
    simulation = simulate(broken, max_resamples=0)
    with pytest.raises(openmm.OpenMMException, match="after 1 draws"):
        simulation.step(1)


@pytest.mark.parametrize("temperature", [250.0, 300.0, 400.0])
@pytest.mark.filterwarnings("ignore:.*expected at most 300 K")
def test_kinetic_energy_is_bound_by_the_hotter_of_bath_and_data(
    simulate, tmp_path, temperature
):
    # Atom 1, a carbon, leaves with 1000 nm/ps, the rest with some nm/ps.
    stub = FaultyModel("heat", below_level=2.0)
    model = load_model(save_stub_model(tmp_path / "model.pt", stub, max_resamples=0))
    simulation = simulate(model, temperature=temperature, num_sampling_steps=0)
    with pytest.raises(openmm.OpenMMException, match="kinetic energy"):
        simulation.step(1)
    refusal = simulation.integrator.getLastRefusalDetails()
    # The model was trained at 300 K; nine atoms have 27 degrees of freedom.
    largest = stats.chi2.isf(KINETIC_ENERGY_TAIL, 27) / 2
    kT = BOLTZMANN * max(temperature, 300.0)
    assert refusal.expected == (0.0, pytest.approx(largest * kT))
    # 1000 nm/ps of the first carbon, less the centre of mass's share.
    energy = 0.5 * 12.0107 * 1000.0**2 * (1 - 12.0107 / 46.0684)
    assert refusal.values[0] == pytest.approx(energy, rel=0.03)


@pytest.mark.parametrize(("below_level", "num_redraws"), [(0.4, 1), (0.9, 2)])
def test_redraws_ask_for_half_the_level_then_for_all(
    simulate, tmp_path, below_level, num_redraws
):
    stub = FaultyModel("nan", below_level=below_level)
    model = load_model(save_stub_model(tmp_path / "model.pt", stub))
    simulation = simulate(model)
    simulation.step(3)
    assert simulation.integrator.getNumResamples() == 3 * num_redraws


def test_no_redraw_asks_for_more_than_the_whole_level(simulate, tmp_path):
    stub = FaultyModel("nan", below_level=1.1)
    model = load_model(save_stub_model(tmp_path / "model.pt", stub, max_resamples=5))
    with pytest.raises(openmm.OpenMMException, match="after 6 draws"):
        simulate(model).step(1)


def test_lags_are_counted_on_after_a_checkpoint(simulate, tmp_path):
    stub = FaultyModel("nan")
    model = load_model(save_stub_model(tmp_path / "model.pt", stub))
    simulation, other = simulate(model), simulate(model)
    simulation.step(3)
    other.context.loadCheckpoint(simulation.context.createCheckpoint())
    assert other.integrator.getNumResamples() == 3
    other.step(1)
    assert other.integrator.getLastRefusalDetails().lag == 3
    assert other.integrator.getNumResamples() == 4
