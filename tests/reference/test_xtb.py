import numpy as np
import pytest
from ase import Atoms
from tblite.ase import TBLite

from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.reference.driver import make_reference
from openmm_diffmd.reference.dynamics import DynamicsError
from openmm_diffmd.units import ANGSTROM, EV

SHORT = {
    "molecule": "ethanol",
    "equilibration_ps": 0.05,
    "length_ps": 0.05,
    "num_bursts": 2,
    "burst_length_ps": 0.05,
    "progress": False,
}


@pytest.fixture(scope="module")
def ethanol(tmp_path_factory):
    paths = make_reference(output=tmp_path_factory.mktemp("ethanol"), **SHORT)
    return [read_reference(path) for path in paths]


def test_forces_and_energies_are_those_of_tblite(ethanol):
    for trajectory in ethanol:
        atoms = Atoms(
            trajectory.atomic_numbers,
            trajectory.positions[-1] / ANGSTROM,
            calculator=TBLite(method="GFN2-xTB", verbosity=0),
        )
        forces = EV / ANGSTROM * atoms.get_forces()
        # Of forces of 1500: the field, iterated from another start, ends elsewhere
        # within its convergence threshold.
        np.testing.assert_allclose(trajectory.forces[-1], forces, atol=0.5)
        energy = EV * atoms.get_potential_energy()
        assert trajectory.potential_energies[-1] == pytest.approx(energy, abs=0.01)


def test_bursts_conserve_energy(ethanol):
    flow = ethanol[1]
    kinetic = 0.5 * np.einsum(
        "i,fia->f", flow.masses, flow.velocities.astype(np.float64) ** 2
    )
    total = (flow.potential_energies + kinetic).reshape(2, -1)
    assert np.ptp(kinetic) > 20.0  # kJ/mol
    assert np.ptp(total, axis=1).max() < 1.5


def test_provenance_names_the_method(ethanol):
    made = ethanol[0].provenance
    assert made["potential"] == "GFN2-xTB"
    assert {"tblite", "ase"} <= made["versions"].keys()


def test_self_consistent_field_that_fails_is_told(tmp_path):
    with pytest.raises(
        DynamicsError, match=r"SCF not converged in 3 cycles; use other options"
    ):
        make_reference(
            output=tmp_path, potential_options={"max_iterations": 3}, **SHORT
        )
    assert not list(tmp_path.iterdir())
