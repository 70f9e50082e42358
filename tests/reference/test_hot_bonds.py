import numpy as np
import pytest

from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.reference.driver import make_reference
from openmm_diffmd.reference.dynamics import ReferenceFrame
from openmm_diffmd.reference.hot_bonds import heat_bonds
from openmm_diffmd.units import BOLTZMANN

MASSES = np.array([12.011, 1.008, 14.007, 1.008])
BONDS = np.array([[0, 1], [0, 2], [3, 2]])
MAX_ENERGY = 80.0
BURSTS = {
    "equilibration_ps": 0.05,
    "length_ps": 0.2,
    "num_bursts": 10,
    "burst_length_ps": 0.02,
    "progress": False,
}


def frame(seed):
    generator = np.random.default_rng(seed)
    shape = (len(MASSES), 3)
    return ReferenceFrame(
        time=0.0,
        positions=0.1 * generator.standard_normal(shape),
        velocities=generator.standard_normal(shape) * np.sqrt(4.2 / MASSES)[:, None],
        forces=np.zeros(shape),
        potential_energy=0.0,
    )


def kinetic_energy(velocities):
    return 0.5 * float(MASSES @ (velocities**2).sum(1))


def heated(start, bonds, seed):
    generator = np.random.default_rng(seed)
    return heat_bonds(start, bonds, MASSES, MAX_ENERGY, generator).velocities


def test_momentum_and_angular_momentum_stay():
    changed = 0
    for seed in range(20):
        start = frame(seed)
        velocities = heated(start, BONDS, seed)
        change = MASSES[:, None] * (velocities - start.velocities)
        changed += np.abs(change).max() > 1
        np.testing.assert_allclose(change.sum(0), 0, atol=1e-12)
        torque = np.cross(start.positions, change).sum(0)
        np.testing.assert_allclose(torque, 0, atol=1e-12)
    assert changed > 5


@pytest.mark.statistical
def test_a_quarter_of_bonds_gain_energies_up_to_the_largest():
    gains = []
    for seed in range(4000):
        start = frame(seed)
        velocities = heated(start, BONDS[:1], seed)
        gains.append(kinetic_energy(velocities) - kinetic_energy(start.velocities))
    gains = np.array(gains)
    hot = gains[gains > 1e-9]
    error = np.sqrt(0.25 * 0.75 / len(gains))
    assert abs(len(hot) / len(gains) - 0.25) < 4 * error
    assert np.abs(gains[gains <= 1e-9]).max() < 1e-9
    # Uniform: mean and standard deviation of 1/2 and 1/sqrt(12) of the largest.
    assert hot.max() < MAX_ENERGY
    error = MAX_ENERGY / np.sqrt(12 * len(hot))
    assert abs(hot.mean() - MAX_ENERGY / 2) < 4 * error


def test_atoms_are_pushed_the_way_they_go():
    for seed in range(40):
        start = frame(seed)
        axis = start.positions[1] - start.positions[0]
        before, after = (
            axis @ (v[1] - v[0])
            for v in (start.velocities, heated(start, BONDS[:1], seed))
        )
        if before != after:
            assert abs(after) > abs(before)
            assert np.sign(after) == np.sign(before)
            return
    pytest.fail("no bond was heated")


def test_bursts_start_hotter_by_what_the_bonds_gain(tmp_path, harmonic):
    def energies(name, **options):
        paths = make_reference(**harmonic, output=tmp_path / name, **BURSTS, **options)
        flow = read_reference(paths[1])
        kinetic = 0.5 * np.einsum("i,fia->f", flow.masses, flow.velocities**2)
        total = (flow.potential_energies + kinetic).reshape(10, 20)
        return total.mean(1), read_reference(paths[0]), flow.provenance

    cold, run, provenance = energies("cold")
    hot, same_run, hot_provenance = energies("hot", bond_energy_kT=20.0)
    np.testing.assert_array_equal(run.positions, same_run.positions)
    gains = (hot - cold) / (BOLTZMANN * 500.0)
    assert 0 < (gains > 0.1).sum() < 10
    assert gains.max() < 20
    assert np.abs(gains[gains < 0.1]).max() < 0.1
    assert (provenance["bond_energy_kT"], hot_provenance["bond_energy_kT"]) == (0, 20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bond_energy_kT": -1.0}, "bond_energy_kT -1, expected at least 0"),
        (
            {"bond_energy_kT": 20.0, "num_bursts": 0},
            "20 and no bursts, expected bursts",
        ),
        ({"bond_energy_kT": 20.0, "chained": True}, "20 and chained bursts, expected"),
    ],
)
def test_what_cannot_be_heated_is_refused_first(tmp_path, harmonic, change, message):
    with pytest.raises(ValueError, match=message):
        make_reference(**harmonic, output=tmp_path / "out", **(BURSTS | change))
    assert not (tmp_path / "out").exists()


def test_a_molecule_without_bonds_is_refused_first(tmp_path, harmonic):
    (tmp_path / "atom.xyz").write_text("1\n\nAr 0 0 0\n")
    atom = {
        "molecule": str(tmp_path / "atom.xyz"),
        "potential": "ase.calculators.lj.LennardJones",
    }
    with pytest.raises(ValueError, match=r"kT 20 and no bond in .*atom\.xyz"):
        make_reference(
            **{**harmonic, **atom},
            output=tmp_path / "out",
            **BURSTS,
            bond_energy_kT=20.0,
        )
    assert not (tmp_path / "out").exists()
