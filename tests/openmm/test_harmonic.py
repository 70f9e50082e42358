"""Through a real Simulation the exact stubs give what theory says."""

import mdtraj
import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_diffmd.integrator import DiffusionIntegrator, create_system, replicate
from openmm_diffmd.testing import HarmonicModel, read_frame
from openmm_diffmd.units import BOLTZMANN

NUM_REPLICAS = 64
NUM_FRAMES = 300
# Largest of some tens of z-scores with 63 degrees of freedom; a failure is stochastic
# only with probability below 1e-3, and seeds are fixed.
MAX_Z = 4.5


def simulate_replicas(model, platform, path, **options):
    topology, positions = model.example()
    replicas = replicate(topology, create_system(topology), positions, NUM_REPLICAS)
    integrator = DiffusionIntegrator(
        model, replicas.topology, molecules=replicas.molecules, **options
    )
    integrator.setRandomNumberSeed(1)
    simulation = app.Simulation(
        replicas.topology,
        replicas.system,
        integrator,
        openmm.Platform.getPlatformByName(platform),
    )
    simulation.context.setPositions(replicas.positions)
    simulation.context.setVelocitiesToTemperature(model.temperature, 2)
    simulation.step(100)
    simulation.reporters.append(app.DCDReporter(str(path), 1))
    simulation.step(NUM_FRAMES)
    return simulation


def read_relative_positions(path, simulation):
    """Positions about each centre of mass, shape (frames, replicas, 9, 3), nm."""
    topology = mdtraj.Topology.from_openmm(simulation.topology)
    frames = mdtraj.load_dcd(str(path), top=topology).xyz.astype(np.float64)
    frames = frames.reshape(len(frames), NUM_REPLICAS, 9, 3)
    masses = read_masses(simulation)
    centre = np.einsum("a,fraq->frq", masses / masses.sum(), frames)
    return frames - centre[:, :, None], masses


def read_masses(simulation):
    system = simulation.system
    return np.array(
        [system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(9)]
    )


def z_scores(samples, expected):
    """Deviation of the mean over replicas (axis 0) in standard errors."""
    error = samples.std(0, ddof=1) / np.sqrt(len(samples))
    return (samples.mean(0) - expected) / error


@pytest.mark.statistical
def test_langevin_transition_has_exact_variance_and_autocorrelation(
    thermostatted, platform, tmp_path
):
    path = tmp_path / "run.dcd"
    simulation = simulate_replicas(thermostatted, platform, path)
    relative, masses = read_relative_positions(path, simulation)
    stub = HarmonicModel(friction=20.0)
    kT = BOLTZMANN * stub.temperature
    variance = kT / (masses * stub.angular_frequency**2) * (1 - masses / masses.sum())
    measured = (relative**2).mean((0, 3))
    assert np.abs(z_scores(measured, variance)).max() < MAX_Z
    for num_lags in (1, 3, 8):
        product = (relative[:-num_lags] * relative[num_lags:]).mean((0, 3)) / variance
        transition, _ = HarmonicModel(
            friction=20.0, lag_time=0.01 * num_lags
        ).exact_transition()
        assert np.abs(z_scores(product.mean(1), transition[0, 0])) < MAX_Z


@pytest.mark.statistical
def test_flow_in_bath_has_exact_variance_and_temperature(flow, tmp_path):
    path = tmp_path / "run.dcd"
    simulation = simulate_replicas(flow, "Reference", path, friction=10.0)
    relative, masses = read_relative_positions(path, simulation)
    stub = HarmonicModel()
    kT = BOLTZMANN * stub.temperature
    variance = kT / (masses * stub.angular_frequency**2) * (1 - masses / masses.sum())
    assert np.abs(z_scores((relative**2).mean((0, 3)), variance)).max() < MAX_Z
    temperatures = []
    for _ in range(100):
        simulation.step(2)
        _, velocities = read_frame(simulation.context)
        squared = (velocities.reshape(NUM_REPLICAS, 9, 3) ** 2).mean(2)
        temperatures.append(squared * masses / kT)
    assert np.abs(z_scores(np.mean(temperatures, 0), 1.0)).max() < MAX_Z


@pytest.mark.parametrize("num_steps", [0, 2])
def test_flow_without_friction_conserves_energy_and_momenta(simulate, flow, num_steps):
    simulation = simulate(flow, friction=0.0, num_sampling_steps=num_steps)
    masses = read_masses(simulation)[:, None]
    omega = HarmonicModel().angular_frequency

    def conserved():
        x, v = read_frame(simulation.context)
        x = x - (masses * x).sum(0) / masses.sum()
        energy = 0.5 * (masses * (v**2 + omega**2 * x**2)).sum()
        return np.array([energy, *(masses * v).sum(0), *np.cross(x, masses * v).sum(0)])

    start = conserved()
    simulation.step(1000)
    # Rounding to float32 once a lag; energy is about 60 kJ/mol, momenta of order 10.
    np.testing.assert_allclose(conserved(), start, rtol=2e-5, atol=2e-4)


def test_centre_of_mass_moves_exactly(simulate, thermostatted):
    simulation = simulate(thermostatted)
    masses = read_masses(simulation)[:, None]

    def centre():
        x, v = read_frame(simulation.context)
        return (masses * x).sum(0) / masses.sum(), (masses * v).sum(0) / masses.sum()

    x_start, v_start = centre()
    simulation.step(100)
    x_end, v_end = centre()
    # To rounding in double precision, though the network computes in float32.
    np.testing.assert_allclose(v_end, v_start, atol=1e-12)
    np.testing.assert_allclose(x_end, x_start + v_start * 1.0, atol=1e-12)
