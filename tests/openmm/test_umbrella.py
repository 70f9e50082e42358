"""An umbrella on learned dynamics samples what theory says: the harmonic stub's own."""

import numpy as np
import openmm
import pytest
import umbrella
import umbrella_histograms as histograms
from openmm import unit

from openmm_diffmd.integrator import DiffusionIntegrator, create_system, replicate
from openmm_diffmd.testing import HarmonicModel
from openmm_diffmd.units import BOLTZMANN

NUM_REPLICAS = 64
NUM_LAGS = 600
ATOMS = (0, 2)
CENTRE = 0.15
# Half the stiffness that binds the two atoms, so that the bias is weak over a lag:
# omega tau = 0.2, and the bias adds a quarter to that of the distance.
RELATIVE_STIFFNESS = 0.5
# 16 z-scores with 63 degrees of freedom each exceed it with probability 2e-3.
MAX_Z = 4.0


@pytest.fixture(scope="module")
def run(flow) -> tuple[np.ndarray, float, float]:
    """Distances, shape (replicas, lags), and the stiffness without and of the bias."""
    topology, positions = flow.example()
    masses = [atom.element.mass.value_in_unit(unit.dalton) for atom in topology.atoms()]
    first, second = (masses[atom] for atom in ATOMS)
    # x_1 - x_2 is a mode of its own, of the reduced mass: all atoms are bound to the
    # centre of mass by one frequency.
    stiffness = first * second / (first + second)
    stiffness *= HarmonicModel().angular_frequency ** 2
    bias = RELATIVE_STIFFNESS * stiffness
    force = openmm.CustomBondForce("0.5*k*(r-r0)^2")
    force.addGlobalParameter("k", bias)
    force.addGlobalParameter("r0", CENTRE)
    force.addBond(*ATOMS)
    system = create_system(topology)
    system.addForce(force)
    replicas = replicate(topology, system, positions, NUM_REPLICAS)
    integrator = DiffusionIntegrator(
        flow, replicas.topology, molecules=replicas.molecules, friction=10.0
    )
    integrator.setRandomNumberSeed(21)
    context = openmm.Context(
        replicas.system, integrator, openmm.Platform.getPlatform("Reference")
    )
    context.setPositions(replicas.positions)
    context.setVelocitiesToTemperature(flow.temperature, 21)
    integrator.step(200)
    distances = []
    for _ in range(NUM_LAGS):
        integrator.step(1)
        x = context.getState(positions=True).getPositions(asNumpy=True)._value
        x = x.reshape(NUM_REPLICAS, 9, 3)
        distances.append(np.linalg.norm(x[:, ATOMS[0]] - x[:, ATOMS[1]], axis=1))
    return np.array(distances).T, stiffness, bias


def equal_bins(energy, kT: float, count: int) -> np.ndarray:
    """Edges of bins that r^2 exp(-energy(r)/kT) fills equally."""
    r = np.linspace(0.0, 0.6, 20001)
    cumulative = np.cumsum(r**2 * np.exp(-energy(r) / kT))
    edges = np.interp(np.linspace(0, 1, count + 1), cumulative / cumulative[-1], r)
    edges[-1] = np.inf
    return edges


def one_sample(distances, weights):
    return histograms.Sample(np.stack((distances, distances), -1), weights)


@pytest.mark.statistical
def test_biased_histogram_is_exact(run, flow):
    distances, stiffness, bias = run
    kT = BOLTZMANN * flow.metadata.temperature_K

    def energy(r):
        return 0.5 * stiffness * r**2 + 0.5 * bias * (r - CENTRE) ** 2

    edges = equal_bins(energy, kT, 8)
    sample = one_sample(distances, np.ones_like(distances))
    mean, error = sample.average(histograms.in_bins(distances, edges))
    assert np.abs((mean - 1 / 8) / error).max() < MAX_Z
    # It is no small bias: without it the outer bins would hold another share.
    unbiased = equal_bins(lambda r: 0.5 * stiffness * r**2, kT, 8)
    mean, error = sample.average(histograms.in_bins(distances, unbiased))
    assert np.abs((mean - 1 / 8) / error).max() > 10


@pytest.mark.statistical
def test_reweighted_histogram_is_that_without_umbrella(run, flow):
    distances, stiffness, bias = run
    kT = BOLTZMANN * flow.metadata.temperature_K
    edges = equal_bins(lambda r: 0.5 * stiffness * r**2, kT, 8)
    weights = np.exp(0.5 * bias * (distances - CENTRE) ** 2 / kT)
    sample = one_sample(distances, weights)
    mean, error = sample.average(histograms.in_bins(distances, edges))
    assert np.abs((mean - 1 / 8) / error).max() < MAX_Z


@pytest.mark.statistical
def test_errors_and_permutations_are_calibrated():
    # Groups with a shift of their own: frames of a group are no independent samples.
    random = np.random.default_rng(4)
    edges = np.linspace(-4, 4, 9)

    def draw(mean: float) -> np.ndarray:
        return mean + random.normal(size=(30, 1)) + random.normal(size=(30, 40))

    z = []
    for _ in range(200):
        x = draw(0.0)
        mean, error = one_sample(x, np.ones_like(x)).average(x)
        z.append(mean / error)
    p = [histograms.permutation_test(draw(0.0), draw(0.0), edges, 1) for _ in range(20)]
    # The standard deviation of 200 z-scores is known to 1/sqrt(400) = 5 %.
    assert abs(np.std(z) - 1.0) < 0.2
    # Uniform p: the mean of 20 is known to 1/sqrt(240) = 0.065.
    assert abs(np.mean(p) - 0.5) < 0.26
    assert histograms.permutation_test(draw(0.0), draw(1.5), edges, 1) < 0.002


def test_weights_add_the_umbrella_to_frames_without_it_and_take_it_away():
    # At the middle of a spring of 2000 kJ/mol/nm^2, and 0.06 nm from it.
    coordinates = np.array([[[0.19, 1.0], [0.25, 1.0]]])
    exponent = 0.5 * 2000.0 * 0.06**2 / (BOLTZMANN * 500.0)
    for sign in (1, 0, -1):
        weights = umbrella.reweight(coordinates, sign, 500.0).weights
        assert np.log(weights[0, 1] / weights[0, 0]) == pytest.approx(sign * exponent)
